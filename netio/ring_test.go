package netio

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/internal/sockettest"
)

// newRingKernel gives a kernel that sends to many at once, or skips the test and says why.
func newRingKernel(t testing.TB) *kernel {
	t.Helper()
	r, err := newRing()
	if err != nil {
		t.Skipf("this kernel gives no ring: %v", err)
	}
	k := newTestKernel(t)
	k.ring = r
	return k
}

// offerOf cuts text into pieces at random, as a transfer to fd.
func offerOf(fd int, text []byte, random *rand.Rand) transfer {
	t := transfer{fd: fd, offered: len(text)}
	for len(text) > 0 {
		n := 1 + random.IntN(len(text))
		t.vectors = append(t.vectors, vectorOf(text[:n]))
		text = text[n:]
	}
	return t
}

// TestRingSends: what a ring says of a batch is what write and writev would have said, and the
// peers read what it says was written. Some have a peer that has gone, or room for a part only.
func TestRingSends(t *testing.T) {
	k := newRingKernel(t)
	defer k.end()
	const sockets, rounds = flushBatchMax, 50
	random := rand.New(rand.NewPCG(1, 2))
	var fds []int
	var clients []*net.TCPConn
	for i := range sockets {
		fd, client := sockettest.Pair(t)
		defer unix.Close(fd)
		fds, clients = append(fds, fd), append(clients, client)
		switch i % 8 {
		case 1:
			client.SetLinger(0)
			client.Close()
			sockettest.Eventually(t, "the reset has come", func() bool {
				_, errno := k.read(fd, make([]byte, 1))
				return errno == unix.ECONNRESET
			})
		case 3:
			k.setSendBuffer(fd, 1<<12)
		}
	}
	want, full := make([][]byte, sockets), 0
	for range rounds {
		batch := make([]transfer, sockets)
		for i := range batch {
			size := 1 + random.IntN(300)
			if i%8 == 3 {
				size = 1 << 18
			}
			batch[i] = offerOf(fds[i], bytes.Repeat([]byte{byte(random.Uint32())}, size), random)
		}
		k.sendMany(batch)
		if k.ring == nil {
			t.Fatal("the ring gave up")
		}
		for i := range batch {
			if batch[i].errno == unix.EAGAIN {
				full++
			}
			checkSent(t, i, &batch[i])
			left := batch[i].written
			for _, v := range batch[i].vectors {
				n := min(left, int(v.Len))
				want[i] = append(want[i], unsafe.Slice(v.Base, n)...)
				left -= n
			}
		}
	}
	if full == 0 {
		t.Error("no socket was ever full")
	}
	for i, client := range clients {
		if i%8 == 1 {
			continue
		}
		client.SetReadDeadline(time.Now().Add(10 * time.Second))
		got := make([]byte, len(want[i]))
		if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, want[i]) {
			t.Errorf("socket %d: its peer read something else (%v)", i, err)
		}
	}
}

// checkSent checks what became of a send to socket i of TestRingSends.
func checkSent(t *testing.T, i int, done *transfer) {
	t.Helper()
	as := false
	switch i % 8 {
	case 1:
		as = done.errno == unix.EPIPE
	case 3:
		as = done.errno == unix.EAGAIN || done.errno == 0 && done.written < done.offered
	default:
		as = done.errno == 0 && done.written == done.offered
	}
	if !as || !done.finished {
		t.Fatalf("socket %d: finished %v, wrote %d of %d, %v", i, done.finished, done.written, done.offered, done.errno)
	}
}

// callKernel counts the calls that write.
type callKernel struct {
	*kernel
	one, many atomic.Int64
}

func (k *callKernel) write(fd int, piece unix.Iovec) (int, unix.Errno) {
	k.one.Add(1)
	return k.kernel.write(fd, piece)
}

func (k *callKernel) sendMany(batch []transfer) {
	k.many.Add(1)
	k.kernel.sendMany(batch)
}

// TestOneCallForMany: a fan-out is written by a call for each flushBatchMax streams, an answer by one
// of its own.
func TestOneCallForMany(t *testing.T) {
	const streams = 3 * flushBatchMax
	k := &callKernel{kernel: newRingKernel(t)}
	var slots []Slot
	o := startLoop(t, LoopOptions{}, k, func(o *owner) {
		o.events.Adopted = func(s Slot, _ any) { slots = append(slots, s) }
	})
	var clients []*net.TCPConn
	for range streams {
		clients = append(clients, adopt(t, o, nil))
	}
	if !stats(t, o).Ring {
		t.Error("the loop does not say that it has a ring")
	}
	o.Do(context.Background(), func() { o.SendBytes(slots[0], []byte("answer")) })
	if _, err := io.ReadFull(clients[0], make([]byte, len("answer"))); err != nil {
		t.Fatal(err)
	}
	if one, many := k.one.Load(), k.many.Load(); one != 1 || many != 0 {
		t.Errorf("one answer took %d writes and %d calls for many", one, many)
	}
	o.Do(context.Background(), func() {
		f := o.NewFrame([]byte("news"), 0)
		for _, slot := range slots {
			o.Send(slot, f, Bulk)
		}
		o.Release(f)
	})
	for _, client := range clients {
		if _, err := io.ReadFull(client, make([]byte, len("news"))); err != nil {
			t.Fatal(err)
		}
	}
	if one, many := k.one.Load()-1, k.many.Load(); one != 0 || many > streams/flushBatchMax+1 {
		t.Errorf("%d streams took %d writes and %d calls for many", streams, one, many)
	}
}
