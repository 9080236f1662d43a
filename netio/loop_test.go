package netio

import (
	"bytes"
	"context"
	"encoding/binary"
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

	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/internal/sockettest"
)

// owner is a loop with callbacks that a test fills in; those it leaves out do nothing.
type owner struct {
	*Loop
	events   Events
	panicked atomic.Int64
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
		k = kernel{}
	}
	loop, err := newLoop(options, Events{
		Adopted:  func(s Slot, g any) { o.events.Adopted(s, g) },
		Received: func(s Slot, b []byte) { o.events.Received(s, b) },
		Timer:    func(s Slot) { o.events.Timer(s) },
		Drained:  func(s Slot) { o.events.Drained(s) },
		Closed:   func(s Slot, r Reason) { o.events.Closed(s, r) },
		Mail:     func(m any) { o.events.Mail(m) },
		Work:     func() bool { return o.events.Work() },
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
	if size := unsafe.Sizeof(chunk{}); size != 64 {
		t.Errorf("a chunk takes %d bytes, not a cache line", size)
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

// tornKernel tears writes at random and now and then refuses one, as a full socket would.
type tornKernel struct {
	kernel
	random *rand.Rand
}

func (k *tornKernel) write(fd int, p []byte) (int, unix.Errno) {
	if len(p) == 8 {
		return k.kernel.write(fd, p) // the bell
	}
	if k.random.IntN(4) == 0 {
		return 0, unix.EAGAIN
	}
	return k.kernel.write(fd, p[:1+k.random.IntN(len(p))])
}

func (k *tornKernel) writev(fd int, vectors []unix.Iovec) (int, unix.Errno) {
	if k.random.IntN(4) == 0 {
		return 0, unix.EAGAIN
	}
	vectors = vectors[:1+k.random.IntN(len(vectors))]
	return k.kernel.writev(fd, vectors)
}

func TestTornWritesKeepOrder(t *testing.T) {
	const streams, events = 20, 400
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			var slots []Slot
			o := startLoop(t, LoopOptions{}, &tornKernel{kernel{}, rand.New(rand.NewPCG(seed, 1))}, func(o *owner) {
				o.events.Adopted = func(s Slot, _ any) { slots = append(slots, s) }
				o.events.Mail = func(item any) {
					n := item.(int)
					f := o.NewFrame(bytes.Repeat([]byte{byte(n), byte(n >> 8)}, 1+n%50), o.Now())
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
		})
	}
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

func TestMailboxOrderAndBound(t *testing.T) {
	var box mailbox
	for n := range MailMax {
		if ok, _ := box.push(n, false); !ok {
			t.Fatalf("post %d refused", n)
		}
	}
	if ok, _ := box.push("one more", false); ok {
		t.Error("a full box took a post")
	}
	if ok, _ := box.push(MailMax, true); !ok {
		t.Error("a full box refused an urgent post")
	}
	want := 0
	for l := box.take(); l != nil; l = l.next {
		if l.item != want {
			t.Fatalf("item %v instead of %d", l.item, want)
		}
		want++
	}
	if want != MailMax+1 {
		t.Errorf("%d items", want)
	}
	box.close()
	if ok, _ := box.push(1, true); ok {
		t.Error("a closed box took a post")
	}
}

func TestMailFromManyKeepsEachOnesOrder(t *testing.T) {
	const posters, each = 8, 5000
	last := [posters]uint32{}
	var total atomic.Int64
	o := startLoop(t, LoopOptions{}, nil, func(o *owner) {
		o.events.Mail = func(item any) {
			v := item.(uint64)
			poster, n := v>>32, uint32(v)
			if n != last[poster]+1 {
				panic("out of order")
			}
			last[poster] = n
			total.Add(1)
		}
	})
	for poster := range uint64(posters) {
		go func() {
			for n := uint64(1); n <= each; n++ {
				for errors.Is(o.Post(poster<<32|n), ErrMailboxFull) {
					runtime.Gosched()
				}
			}
		}()
	}
	sockettest.Eventually(t, "all posts arrived", func() bool { return total.Load() == posters*each || o.panicked.Load() > 0 })
	if o.panicked.Load() > 0 {
		t.Error("posts of one poster came out of order")
	}
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

// TestDeliveryAllocatesNothing counts allocations of a walk and its flush in steady state, and
// the system calls they make.
func TestDeliveryAllocatesNothing(t *testing.T) {
	const streams = 64
	l, err := newLoop(LoopOptions{}, Events{
		Adopted: func(Slot, any) {}, Received: func(Slot, []byte) {}, Timer: func(Slot) {}, Drained: func(Slot) {},
		Closed: func(Slot, Reason) {}, Mail: func(any) {}, Work: func() bool { return false },
	}, kernel{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.tearDown()
	var clients []*net.TCPConn
	for range streams {
		fd, client := sockettest.Pair(t)
		clients = append(clients, client)
		l.arrive(&arrival{fd: fd})
	}
	payload := binary.BigEndian.AppendUint64(nil, 1)
	discard := make([]byte, 1<<16)
	deliver := func() {
		f := l.NewFrame(payload, l.now)
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
		client.SetReadDeadline(time.Now().Add(time.Second))
		if n, err := io.ReadFull(client, discard[:(runs+2)*8]); err != nil {
			t.Fatal(n, err)
		}
	}
}
