package netio

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/internal/sockettest"
)

// tornKernel tears writes at random and now and then refuses one, as a full socket would.
type tornKernel struct {
	*kernel
	random *rand.Rand
}

func (k *tornKernel) write(fd int, piece unix.Iovec) (int, unix.Errno) {
	if k.random.IntN(4) == 0 {
		return 0, unix.EAGAIN
	}
	piece.SetLen(1 + k.random.IntN(int(piece.Len)))
	return k.kernel.write(fd, piece)
}

func (k *tornKernel) writev(fd int, vectors []unix.Iovec) (int, unix.Errno) {
	if k.random.IntN(4) == 0 {
		return 0, unix.EAGAIN
	}
	vectors = vectors[:1+k.random.IntN(len(vectors))]
	last := &vectors[len(vectors)-1]
	last.SetLen(1 + k.random.IntN(int(last.Len)))
	return k.kernel.writev(fd, vectors)
}

// sendMany has some of a batch done by the ring, torn like the others.
func (k *tornKernel) sendMany(batch []transfer) {
	if k.ring == nil || k.random.IntN(3) == 0 {
		return
	}
	for i := range batch {
		t := &batch[i]
		t.vectors = t.vectors[:1+k.random.IntN(len(t.vectors))]
		last := &t.vectors[len(t.vectors)-1]
		last.SetLen(1 + k.random.IntN(int(last.Len)))
	}
	k.kernel.sendMany(batch[:k.random.IntN(len(batch)+1)])
}

// onTornKernels runs a test on kernels that tear writes, from several seeds, with and without a ring.
func onTornKernels(t *testing.T, test func(t *testing.T, k *tornKernel)) {
	for _, with := range []struct {
		name   string
		kernel func(testing.TB) *kernel
	}{{"write", newTestKernel}, {"ring", newRingKernel}} {
		t.Run(with.name, func(t *testing.T) {
			for seed := range uint64(4) {
				t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
					test(t, &tornKernel{with.kernel(t), rand.New(rand.NewPCG(seed, 1))})
				})
			}
		})
	}
}

func TestTornWritesKeepOrder(t *testing.T) { onTornKernels(t, testTornWrites) }

func testTornWrites(t *testing.T, k *tornKernel) {
	const streams, events = 20, 400
	var slots []Slot
	o := startLoop(t, LoopOptions{}, k, func(o *owner) {
		o.events.Adopted = func(s Slot, _ any) { slots = append(slots, s) }
		o.events.Mail = func(item any) {
			n := item.(int)
			newFrame := o.NewFrame
			if n%3 != 0 {
				newFrame = o.NewFanoutFrame
			}
			f := newFrame(bytes.Repeat([]byte{byte(n), byte(n >> 8)}, 1+n%50), o.Now())
			for _, slot := range slots {
				o.Send(slot, f, Lane(n%2))
			}
			o.Release(f)
		}
	})
	var clients []*net.TCPConn
	for range streams {
		clients = append(clients, adopt(t, o, nil))
	}
	var want []byte
	for n := range events {
		if err := o.Post(n); err != nil {
			t.Fatal(err)
		}
		want = append(want, bytes.Repeat([]byte{byte(n), byte(n >> 8)}, 1+n%50)...)
	}
	for i, client := range clients {
		got := make([]byte, len(want))
		client.SetReadDeadline(time.Now().Add(20 * time.Second))
		if n, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("client %d: %d of %d bytes, equal %v, %v", i, n, len(want), bytes.Equal(got, want), err)
		}
	}
	s := stats(t, o)
	if n := s.Delivery.TotalCount(); n != streams*events {
		t.Errorf("the histogram has %d deliveries, not %d", n, streams*events)
	}
	o.Do(context.Background(), func() {
		for f := 1; f < len(o.frames); f++ {
			if o.frames[f].references != 0 || o.frames[f].bytes != nil {
				t.Errorf("frame %d is still held %d times", f, o.frames[f].references)
			}
		}
		if o.outboxesInUse != 0 {
			t.Errorf("%d outboxes are left", o.outboxesInUse)
		}
	})
}

func TestBurstIsGathered(t *testing.T) {
	const streams, events = 50, 50
	var slots []Slot
	o := startLoop(t, LoopOptions{}, nil, func(o *owner) {
		o.events.Adopted = func(s Slot, _ any) { slots = append(slots, s) }
	})
	var clients []*net.TCPConn
	for range streams {
		clients = append(clients, adopt(t, o, nil))
	}
	before := stats(t, o).Writes
	o.Do(context.Background(), func() {
		for n := range events {
			f := o.NewFrame([]byte{byte(n)}, 0)
			for _, slot := range slots {
				o.Send(slot, f, Bulk)
			}
			o.Release(f)
		}
	})
	for _, client := range clients {
		if _, err := io.ReadFull(client, make([]byte, events)); err != nil {
			t.Fatal(err)
		}
	}
	if writes := stats(t, o).Writes - before; writes != streams {
		t.Errorf("%d events to %d streams took %d writes, not one a stream", events, streams, writes)
	}
}

// pieceKernel counts the pieces that writev is given.
type pieceKernel struct {
	*kernel
	pieces atomic.Int64
}

func (k *pieceKernel) writev(fd int, vectors []unix.Iovec) (int, unix.Errno) {
	k.pieces.Add(int64(len(vectors)))
	return k.kernel.writev(fd, vectors)
}

// TestFanoutIsOnePiece: what was made for many streams goes to each as few pieces, and what is
// larger than a piece of memory still goes.
func TestFanoutIsOnePiece(t *testing.T) {
	cases := []struct {
		name          string
		events, bytes int
		pieces        int64
	}{
		{"many small ones", 50, 200, 1},
		{"more than one piece of memory", 100, 200, 2},
		{"large ones", 2, sheetBytes/4 + 1, 2},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var slot Slot
			k := &pieceKernel{kernel: newTestKernel(t)}
			o := startLoop(t, LoopOptions{}, k, func(o *owner) {
				o.events.Adopted = func(s Slot, _ any) { slot = s }
			})
			client := adopt(t, o, nil)
			var want []byte
			o.Do(context.Background(), func() {
				for n := range c.events {
					text := bytes.Repeat([]byte{byte(n)}, c.bytes)
					want = append(want, text...)
					f := o.NewFanoutFrame(text, 0)
					o.Send(slot, f, Bulk)
					o.Release(f)
				}
			})
			got := make([]byte, len(want))
			client.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%v; the same bytes: %v", err, bytes.Equal(got, want))
			}
			if n := k.pieces.Load(); n > c.pieces {
				t.Errorf("%d pieces, not %d", n, c.pieces)
			}
		})
	}
}

// TestExpressOvertakesBulk holds the fairness of turns: an express send to one stream is
// written before most of a walk over many that was queued earlier.
func TestExpressOvertakesBulk(t *testing.T) {
	const crowd = 2000
	var slots []Slot
	o := startLoop(t, LoopOptions{}, nil, func(o *owner) {
		o.events.Adopted = func(s Slot, _ any) { slots = append(slots, s) }
	})
	for range crowd {
		adopt(t, o, nil)
	}
	sockettest.Eventually(t, "all were adopted", func() bool { return stats(t, o).Open == crowd })
	var bulkLeft atomic.Int64
	o.Do(context.Background(), func() {
		f := o.NewFrame([]byte("news"), 0)
		for _, slot := range slots[:crowd-1] {
			o.Send(slot, f, Bulk)
		}
		o.Release(f)
		o.SendBytes(slots[crowd-1], []byte("answer"))
	})
	o.Do(context.Background(), func() {
		if o.Queued(slots[crowd-1]) != 0 {
			t.Error("the express send was not written in the first turn")
		}
		bulkLeft.Store(int64(o.outboxesInUse))
	})
	if bulkLeft.Load() == 0 {
		t.Error("the whole crowd was written in one turn: turns are not bounded")
	}
}

// TestDeliveryAllocatesNothing: what one event for all costs.
func TestDeliveryAllocatesNothing(t *testing.T) {
	payload := binary.BigEndian.AppendUint64(nil, 1)
	wantLeanDelivery(t, len(payload), func(*Loop, Slot) {}, func(l *Loop) Frame { return l.NewFrame(payload, l.now) })
}

// wantLeanDelivery counts allocations of a walk and its flush in steady state, and the system calls they
// make: prepare is done to each stream before, and each gets so many bytes of a frame.
func wantLeanDelivery(t *testing.T, size int, prepare func(*Loop, Slot), frame func(*Loop) Frame) {
	t.Helper()
	const streams = 64
	l, err := newLoop(LoopOptions{}, Events{
		Adopted: func(Slot, any) {}, Received: func(Slot, []byte) {}, Timer: func(Slot) {}, Drained: func(Slot) {},
		Closed: func(Slot, Reason) {}, Mail: func(any) {}, Work: func() bool { return false },
	}, newTestKernel(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.tearDown()
	var clients []*net.TCPConn
	for slot := Slot(1); slot <= streams; slot++ {
		fd, client := sockettest.Pair(t)
		clients = append(clients, client)
		l.arrive(&arrival{fd: fd})
		prepare(l, slot)
	}
	deliver := func() {
		f := frame(l)
		for slot := Slot(1); slot <= streams; slot++ {
			l.Send(slot, f, Bulk)
		}
		l.Release(f)
		for l.flush() {
			continue
		}
	}
	deliver()
	before := l.counters.Writes
	const runs = 100
	if allocations := testing.AllocsPerRun(runs, deliver); allocations != 0 {
		t.Errorf("%v allocations per fan-out to %d streams", allocations, streams)
	}
	if calls := l.counters.Writes - before; calls != (runs+1)*streams {
		t.Errorf("%d writes for %d deliveries", calls, (runs+1)*streams)
	}
	for _, client := range clients {
		client.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := io.ReadFull(client, make([]byte, (runs+2)*size)); err != nil {
			t.Fatal(n, err)
		}
	}
}

// TestBothLanesOneWrite: a stream that stands in both lanes is written to once.
func TestBothLanesOneWrite(t *testing.T) {
	var slot Slot
	o := startLoop(t, LoopOptions{}, nil, func(o *owner) {
		o.events.Adopted = func(s Slot, _ any) { slot = s }
	})
	client := adopt(t, o, nil)
	before := stats(t, o).Writes
	o.Do(context.Background(), func() {
		f := o.NewFrame([]byte("news, "), 0)
		o.Send(slot, f, Bulk)
		o.Release(f)
		o.SendBytes(slot, []byte("answer."))
	})
	o.Do(context.Background(), func() { o.End(slot, ReasonPeerClosed) })
	client.SetReadDeadline(time.Now().Add(10 * time.Second))
	if text, err := io.ReadAll(client); err != nil || string(text) != "news, answer." {
		t.Errorf("read %q, %v", text, err)
	}
	if writes := stats(t, o).Writes - before; writes != 1 {
		t.Errorf("%d writes", writes)
	}
}
