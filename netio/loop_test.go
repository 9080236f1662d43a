package netio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/millrace/millrace/internal/sockettest"

	"golang.org/x/sys/unix"
)

// owner is a loop with callbacks that a test fills in; those it leaves out do nothing.
type owner struct {
	*Loop
	events   Events
	panicked atomic.Int64
}

func newTestKernel(t testing.TB) *kernel {
	t.Helper()
	k, err := newKernel(false)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func startLoop(t testing.TB, options LoopOptions, k sys, fill func(o *owner)) *owner {
	t.Helper()
	o := &owner{}
	o.events = Events{
		Adopted:  func(Slot, any) {},
		Received: func(Slot, []byte) {},
		Timer:    func(Slot) {},
		Drained:  func(Slot) {},
		Closed:   func(Slot, Reason) {},
		Mail:     func(any) {},
		Work:     func() bool { return false },
		Panicked: func(any, []byte) { o.panicked.Add(1) },
	}
	if k == nil {
		k = newTestKernel(t)
	}
	loop, err := newLoop(options, Events{
		Adopted:  func(s Slot, g any) { o.events.Adopted(s, g) },
		Received: func(s Slot, b []byte) { o.events.Received(s, b) },
		Timer:    func(s Slot) { o.events.Timer(s) },
		Drained:  func(s Slot) { o.events.Drained(s) },
		Closed:   func(s Slot, r Reason) { o.events.Closed(s, r) },
		Mail:     func(m any) { o.events.Mail(m) },
		Work:     func() bool { return o.events.Work() },
		Encode:   func(source any, after bool) []byte { return o.events.Encode(source, after) },
		Panicked: func(v any, stack []byte) { o.events.Panicked(v, stack) },
	}, k)
	if err != nil {
		t.Fatal(err)
	}
	o.Loop = loop
	fill(o)
	go loop.Run()
	t.Cleanup(loop.Stop)
	return o
}

func adopt(t testing.TB, o *owner, guest any) *net.TCPConn {
	t.Helper()
	fd, client := sockettest.Pair(t)
	if err := o.Adopt(fd, nil, guest); err != nil {
		t.Fatal(err)
	}
	return client
}

func stats(t testing.TB, o *owner) Stats {
	t.Helper()
	s, err := o.Stats(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStreamSizes(t *testing.T) {
	if size := unsafe.Sizeof(stream{}); size != streamSize {
		t.Errorf("a stream takes %d bytes, not %d", size, streamSize)
	}
	if size := unsafe.Sizeof(chunk{}); size != chunkSize {
		t.Errorf("a chunk takes %d bytes, not a cache line", size)
	}
	if size := unsafe.Sizeof(outbox{}); size != outboxSize {
		t.Errorf("an outbox takes %d bytes, not %d", size, outboxSize)
	}
	if size := unsafe.Sizeof(trail{}); size != trailSize {
		t.Errorf("a trail takes %d bytes, not %d", size, trailSize)
	}
}

func TestEchoWithEarlyBytes(t *testing.T) {
	o := startLoop(t, LoopOptions{}, nil, func(o *owner) {
		o.events.Adopted = func(s Slot, guest any) { o.SendBytes(s, []byte(guest.(string))) }
		o.events.Received = func(s Slot, b []byte) { o.SendBytes(s, bytes.Clone(b)) }
	})
	fd, client := sockettest.Pair(t)
	if err := o.Adopt(fd, []byte("early "), "hello "); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte("later")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len("hello early later"))
	if _, err := io.ReadFull(client, got); err != nil || string(got) != "hello early later" {
		t.Fatalf("read %q, %v", got, err)
	}
}

func TestEnds(t *testing.T) {
	const own = FirstOwnReason + 1
	cases := []struct {
		name string
		end  func(o *owner, s Slot, client *net.TCPConn)
		want Reason
		read string // what the client still reads before the end
	}{
		{"peer closes", func(_ *owner, _ Slot, c *net.TCPConn) { c.Close() }, ReasonPeerClosed, ""},
		{"peer half-closes", func(_ *owner, _ Slot, c *net.TCPConn) { c.CloseWrite() }, ReasonPeerClosed, ""},
		{"peer resets", func(_ *owner, _ Slot, c *net.TCPConn) { c.SetLinger(0); c.Close() }, ReasonPeerReset, ""},
		{"peer vanishes", func(o *owner, s Slot, c *net.TCPConn) {
			if err := sockettest.Vanish(c); err != nil {
				panic(err)
			}
			o.Do(context.Background(), func() {
				unix.SetsockoptInt(int(o.streams.At(uint32(s)).fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 200) // milliseconds
				o.SendBytes(s, []byte("unheard"))
			})
		}, ReasonPeerTimedOut, ""},
		{"close drops what is queued", func(o *owner, s Slot, _ *net.TCPConn) {
			o.Do(context.Background(), func() { o.SendBytes(s, []byte("lost")); o.Close(s, own) })
		}, own, ""},
		{"end writes what is queued", func(o *owner, s Slot, c *net.TCPConn) {
			c.Write([]byte("unread by us"))
			o.Do(context.Background(), func() { o.SendBytes(s, []byte("last words")); o.End(s, own); o.Close(s, own+1) })
		}, own, ""},
		{"end in order", func(o *owner, s Slot, c *net.TCPConn) {
			o.Do(context.Background(), func() { o.SendBytes(s, []byte("last words")); o.End(s, own); o.SendBytes(s, []byte("no more")) })
			if got, err := io.ReadAll(c); err != nil || string(got) != "last words" {
				panic(fmt.Sprintf("read %q, %v", got, err))
			}
			c.Close()
		}, own, ""},
		{"panic in a callback", func(_ *owner, _ Slot, c *net.TCPConn) { c.Write([]byte("panic")) }, ReasonBug, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			adopted, ended := make(chan Slot, 1), make(chan Reason, 1)
			o := startLoop(t, LoopOptions{}, nil, func(o *owner) {
				o.events.Adopted = func(s Slot, _ any) { adopted <- s }
				o.events.Closed = func(_ Slot, r Reason) { ended <- r }
				o.events.Received = func(_ Slot, b []byte) {
					if string(b) == "panic" {
						panic("asked for")
					}
				}
			})
			client := adopt(t, o, nil)
			c.end(o, <-adopted, client)
			if got := <-ended; got != c.want {
				t.Errorf("ended with %v (%d), not %v (%d)", got, got, c.want, c.want)
			}
			if s := stats(t, o); s.Open != 0 || s.Ended[c.want] != 1 {
				t.Errorf("open %d, counted %d", s.Open, s.Ended[c.want])
			}
		})
	}
}

// TestWorkGoesOnAfterAPanic: nothing else may come that wakes the loop.
func TestWorkGoesOnAfterAPanic(t *testing.T) {
	const panics = 20
	done := make(chan struct{})
	o := startLoop(t, LoopOptions{}, nil, func(o *owner) {
		left := 0                                       // of the loop
		o.events.Mail = func(any) { left = panics + 1 } // more than a loop makes turns by itself when it begins
		o.events.Work = func() bool {
			switch left--; {
			case left > 0:
				panic("asked for")
			case left == 0:
				close(done)
			}
			return false
		}
	})
	if err := o.Post("work"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("what was left of the work was never done")
	}
	if n := o.panicked.Load(); n != panics {
		t.Errorf("%d panics were told of", n)
	}
}

func TestReasonOf(t *testing.T) {
	for errno, want := range map[unix.Errno]Reason{
		unix.ECONNRESET: ReasonPeerReset, unix.EPIPE: ReasonPeerReset, unix.EIO: ReasonPeerReset,
		unix.ETIMEDOUT: ReasonPeerTimedOut, unix.EHOSTUNREACH: ReasonPeerTimedOut, unix.ENETUNREACH: ReasonPeerTimedOut,
	} {
		if got := reasonOf(errno); got != want {
			t.Errorf("%v ends a stream with %v, not %v", errno, got, want)
		}
	}
}

func TestStalledStreamIsClosedAndOthersGoOn(t *testing.T) {
	ended := make(chan Reason, 2)
	slots := make(chan Slot, 2)
	o := startLoop(t, LoopOptions{StallLimit: 300 * time.Millisecond}, nil, func(o *owner) {
		o.events.Adopted = func(s Slot, _ any) { slots <- s }
		o.events.Closed = func(_ Slot, r Reason) { ended <- r }
	})
	stalled := adopt(t, o, nil)
	stalled.SetReadBuffer(4 << 10)
	slot := <-slots
	o.Do(context.Background(), func() {
		f := o.NewFrame(make([]byte, 1<<20), 0)
		for range 8 {
			o.Send(slot, f, Bulk)
		}
		o.Release(f)
	})
	if got := <-ended; got != ReasonStalled {
		t.Fatalf("ended with %v", got)
	}
	other := adopt(t, o, nil)
	otherSlot := <-slots
	o.Do(context.Background(), func() { o.SendBytes(otherSlot, []byte("x")) })
	if _, err := io.ReadFull(other, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func TestTimers(t *testing.T) {
	var mutex sync.Mutex
	fired := map[Slot]int{}
	slots := make(chan Slot, 3)
	o := startLoop(t, LoopOptions{}, nil, func(o *owner) {
		o.events.Adopted = func(s Slot, _ any) { slots <- s }
		o.events.Timer = func(s Slot) {
			mutex.Lock()
			fired[s]++
			again := fired[s] < 3
			mutex.Unlock()
			if again {
				o.SetTimer(s, TickLength)
			}
		}
	})
	for range 3 {
		adopt(t, o, nil)
	}
	again, never, replaced := <-slots, <-slots, <-slots
	start := time.Now()
	o.Do(context.Background(), func() {
		o.SetTimer(again, 1)
		o.SetTimer(never, TickLength)
		o.SetTimer(never, 0)
		o.SetTimer(replaced, time.Hour)
		o.SetTimer(replaced, 5*TickLength)
	})
	count := func(s Slot) int { mutex.Lock(); defer mutex.Unlock(); return fired[s] }
	sockettest.Eventually(t, "the repeating timer ran three times", func() bool { return count(again) == 3 })
	sockettest.Eventually(t, "the replaced timer ran", func() bool { return count(replaced) > 0 })
	if took := time.Since(start); took < 4*TickLength {
		t.Errorf("a timer of %v ran after %v", 5*TickLength, took)
	}
	if count(never) != 0 {
		t.Error("a removed timer ran")
	}
}

func TestIDsOutliveTheirSlot(t *testing.T) {
	ids := make(chan ID, 1)
	gone := make(chan struct{}, 1)
	o := startLoop(t, LoopOptions{Index: 7}, nil, func(o *owner) {
		o.events.Adopted = func(s Slot, _ any) { ids <- o.ID(s) }
		o.events.Closed = func(Slot, Reason) { gone <- struct{}{} }
	})
	adopt(t, o, nil).Close()
	first := <-ids
	<-gone
	adopt(t, o, nil)
	second := <-ids
	o.Do(context.Background(), func() {
		if first.slot() != second.slot() || first == second || first.Loop() != 7 {
			t.Errorf("ids %x and %x", first, second)
		}
		if _, ok := o.Find(first); ok {
			t.Error("the id of an ended stream is found")
		}
		if _, ok := o.Find(second); !ok {
			t.Error("the id of an open stream is not found")
		}
	})
}

func TestStoppedLoopRefuses(t *testing.T) {
	o := startLoop(t, LoopOptions{}, nil, func(*owner) {})
	o.Stop()
	if err := o.Post(1); !errors.Is(err, ErrLoopClosed) {
		t.Errorf("Post: %v", err)
	}
	if err := o.Adopt(-1, nil, nil); !errors.Is(err, ErrLoopClosed) {
		t.Errorf("Adopt: %v", err)
	}
	if _, err := o.Stats(context.Background()); !errors.Is(err, ErrLoopClosed) {
		t.Errorf("Stats: %v", err)
	}
}

// TestNoWakeIsLost posts to a loop that falls asleep after every post: a wake that comes while it
// is on its way to sleep must not be lost.
func TestNoWakeIsLost(t *testing.T) {
	o := startLoop(t, LoopOptions{}, nil, func(o *owner) {})
	adopt(t, o, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	random := rand.New(rand.NewPCG(1, 1))
	for n := range 100_000 {
		// A timer, now and then, makes the loop change its deadline on the way to sleep.
		err := o.Do(ctx, func() { o.SetTimer(1, time.Duration(random.IntN(3))*time.Hour) })
		if err != nil {
			t.Fatalf("post %d: %v", n, err)
		}
		for range random.IntN(200) {
			runtime.KeepAlive(n) // a little time, for the loop to be anywhere
		}
	}
}

// TestNoWordIsLost lets a peer speak to a loop that falls asleep and is called awake for its mail:
// a word that comes at any moment of that must be heard.
func TestNoWordIsLost(t *testing.T) {
	o := startLoop(t, LoopOptions{}, nil, func(o *owner) {
		o.events.Received = func(s Slot, b []byte) { o.SendBytes(s, bytes.Clone(b)) }
	})
	client := adopt(t, o, nil)
	client.SetDeadline(time.Now().Add(20 * time.Second))
	random := rand.New(rand.NewPCG(1, 1))
	word := make([]byte, 1)
	for n := range 20_000 {
		mail := random.IntN(3)
		if mail == 0 {
			_ = o.Post(nil)
		}
		if _, err := client.Write(word); err != nil {
			t.Fatal(err)
		}
		if mail == 1 {
			_ = o.Post(nil)
		}
		if _, err := io.ReadFull(client, word); err != nil {
			t.Fatalf("word %d: %v", n, err)
		}
		for range random.IntN(200) {
			runtime.KeepAlive(n) // a little time, for the loop to be anywhere
		}
	}
}

// countingKernel counts the system calls of a loop.
type countingKernel struct {
	*kernel
	looks, reads, writes, controls atomic.Int64
}

func (k *countingKernel) look(events []unix.EpollEvent) (int, unix.Errno) {
	k.looks.Add(1)
	return k.kernel.look(events)
}

func (k *countingKernel) read(fd int, p []byte) (int, unix.Errno) {
	k.reads.Add(1)
	return k.kernel.read(fd, p)
}

func (k *countingKernel) write(fd int, piece unix.Iovec) (int, unix.Errno) {
	k.writes.Add(1)
	return k.kernel.write(fd, piece)
}

func (k *countingKernel) epollControl(operation, fd int, events uint32, key uint64) unix.Errno {
	k.controls.Add(1)
	return k.kernel.epollControl(operation, fd, events, key)
}

// TestOneSystemCallPerDelivery: an event for one stream of a loop that was asleep costs the loop
// one write and no more.
func TestOneSystemCallPerDelivery(t *testing.T) {
	const events = 200
	k := &countingKernel{kernel: newTestKernel(t)}
	adopted := make(chan Slot, 1)
	o := startLoop(t, LoopOptions{}, k, func(o *owner) {
		o.events.Adopted = func(s Slot, _ any) { adopted <- s }
		o.events.Mail = func(item any) { o.SendBytes(item.(Slot), []byte("news")) }
	})
	client := adopt(t, o, nil)
	slot := <-adopted
	asleep := func() bool { return o.mailbox.asleep.Load() }
	sockettest.Eventually(t, "the loop is asleep", asleep)
	looks, reads, writes, controls := k.looks.Load(), k.reads.Load(), k.writes.Load(), k.controls.Load()
	for range events {
		if err := o.Post(slot); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(client, make([]byte, len("news"))); err != nil {
			t.Fatal(err)
		}
		sockettest.Eventually(t, "the loop is asleep again", asleep)
	}
	if n := k.writes.Load() - writes; n != events {
		t.Errorf("%d writes for %d events", n, events)
	}
	// A post that meets the loop on its way to sleep makes it look once more.
	if n := k.looks.Load() - looks + k.reads.Load() - reads + k.controls.Load() - controls; n > events/4 {
		t.Errorf("%d system calls besides the writes of %d events", n, events)
	}
}

func TestStreamsHaveASmallSendBuffer(t *testing.T) {
	adopted := make(chan Slot, 1)
	o := startLoop(t, LoopOptions{}, nil, func(o *owner) { o.events.Adopted = func(s Slot, _ any) { adopted <- s } })
	adopt(t, o, nil)
	slot := <-adopted
	o.Do(context.Background(), func() {
		// Linux doubles what is asked for, for its own bookkeeping (socket(7)).
		size, err := unix.GetsockoptInt(int(o.streams.At(uint32(slot)).fd), unix.SOL_SOCKET, unix.SO_SNDBUF)
		if err != nil || size != 2*sendBufferBytes {
			t.Errorf("SO_SNDBUF is %d, error %v", size, err)
		}
	})
}
