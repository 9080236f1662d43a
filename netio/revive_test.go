package netio

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// on runs do on a loop and waits for it.
func on(t testing.TB, o *owner, do func()) {
	t.Helper()
	if err := o.Do(context.Background(), do); err != nil {
		t.Fatal(err)
	}
}

// copyOf gives another descriptor of the same socket, as another process would have.
func copyOf(t testing.TB, fd int) int {
	t.Helper()
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return copied
}

// echo makes a loop that says what it is told, with a mark before it.
func echo(t testing.TB, mark string, options LoopOptions, adopted func(Slot)) *owner {
	return startLoop(t, options, nil, func(o *owner) {
		o.events.Adopted = func(s Slot, _ any) { adopted(s) }
		o.events.Received = func(s Slot, b []byte) { o.SendBytes(s, append([]byte(mark), b...)) }
	})
}

func say(t testing.TB, client *net.TCPConn, text, want string) {
	t.Helper()
	if _, err := client.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(client, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got, err, want)
	}
}

// TestReviveGoesOnWithStreams moves every second of some streams from one loop to another: they keep
// their names, hear each other's bytes through the new loop alone, and no name is given again.
func TestReviveGoesOnWithStreams(t *testing.T) {
	slots := make(chan Slot, 8)
	old := echo(t, "old:", LoopOptions{Index: 3}, func(s Slot) { slots <- s })
	clients := map[Slot]*net.TCPConn{}
	for range 8 {
		client := adopt(t, old, nil)
		clients[<-slots] = client
	}
	heir := echo(t, "new:", LoopOptions{Index: 3}, func(s Slot) { slots <- s })
	var moved []Revival
	var generation uint32
	on(t, old, func() {
		for slot := Slot(2); slot <= old.Highest(); slot += 2 {
			moved = append(moved, Revival{ID: old.ID(slot), FD: copyOf(t, old.Descriptor(slot)), LastWrite: old.LastWrite(slot)})
			old.Close(slot, FirstOwnReason)
		}
		generation = old.NextGeneration()
	})
	on(t, heir, func() {
		if err := heir.Revive(moved, generation); err != nil {
			t.Error(err)
		}
	})
	for slot, client := range clients {
		if slot%2 == 0 {
			say(t, client, "hello", "new:hello")
		} else {
			say(t, client, "hello", "old:hello")
		}
	}
	on(t, heir, func() {
		for _, one := range moved {
			if slot, open := heir.Find(one.ID); !open || heir.ID(slot) != one.ID {
				t.Errorf("%x is not found under its name", uint64(one.ID))
			}
		}
	})
	names := map[ID]bool{}
	for _, one := range moved {
		names[one.ID] = true
	}
	for range 12 {
		adopt(t, heir, nil)
		slot := <-slots
		on(t, heir, func() {
			id := heir.ID(slot)
			if names[id] || id.generation() < generation && id.slot() <= 8 {
				t.Errorf("the name %x is given twice, or could have been", uint64(id))
			}
			names[id] = true
		})
	}
}

// TestReviveRefusesNames: nothing is taken where one name is wrong.
func TestReviveRefusesNames(t *testing.T) {
	heir := startLoop(t, LoopOptions{Index: 1}, nil, func(*owner) {})
	for name, ids := range map[string][]ID{
		"another loop's": {makeID(2, 0, 1)},
		"no slot":        {makeID(1, 0, 0)},
		"twice":          {makeID(1, 0, 4), makeID(1, 1, 4)},
		"far too high":   {makeID(1, 0, revivalSlotMax+1)},
	} {
		var streams []Revival
		for _, id := range ids {
			streams = append(streams, Revival{ID: id, FD: -1})
		}
		on(t, heir, func() {
			if heir.Revive(streams, 1) == nil || heir.Highest() != 0 {
				t.Errorf("%s: it was taken", name)
			}
		})
	}
}

func TestCheckWatches(t *testing.T) {
	if err := CheckWatches(1); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(watchesMax); err == nil && CheckWatches(1<<50) == nil {
		t.Error("there is no bound, though the kernel has one")
	}
}

// TestDeafLoopHearsNothing: what peers send waits, timers and mail go on, and then all is heard.
func TestDeafLoopHearsNothing(t *testing.T) {
	slots, timers := make(chan Slot, 1), make(chan Slot, 1)
	o := startLoop(t, LoopOptions{}, nil, func(o *owner) {
		o.events.Adopted = func(s Slot, _ any) { slots <- s }
		o.events.Received = func(s Slot, b []byte) { o.SendBytes(s, bytes.Clone(b)) }
		o.events.Timer = func(s Slot) { timers <- s }
	})
	client := adopt(t, o, nil)
	slot := <-slots
	on(t, o, func() {
		o.SetDeaf(true)
		o.SetTimer(slot, TickLength)
	})
	if _, err := client.Write([]byte("heard")); err != nil {
		t.Fatal(err)
	}
	before := stats(t, o).Reads
	<-timers
	if s := stats(t, o); s.Reads != before || s.Turns > 10_000 {
		t.Errorf("%d reads in %d turns while it was deaf", s.Reads-before, s.Turns)
	}
	on(t, o, func() { o.SetDeaf(false) })
	say(t, client, "", "heard")
}

// TestDeafLoopBlamesNobody: who reads while the loop does not notice is not closed for it, then or after.
func TestDeafLoopBlamesNobody(t *testing.T) {
	slots := make(chan Slot, 1)
	o := startLoop(t, LoopOptions{StallLimit: time.Second}, nil, func(o *owner) {
		o.events.Adopted = func(s Slot, _ any) { slots <- s }
	})
	client := adopt(t, o, nil)
	slot := <-slots
	whole := bytes.Repeat([]byte("0123456789"), 1<<20)
	var until Tick
	on(t, o, func() {
		for piece := range slices.Chunk(whole, 50_000) {
			o.SendBytes(slot, piece)
		}
		o.SetDeaf(true)
		until = o.Tick() + 3*stallCheck
	})
	got := make(chan []byte)
	go func() {
		all := make([]byte, len(whole))
		n, _ := io.ReadFull(client, all)
		got <- all[:n]
	}()
	for passed := false; !passed; <-time.After(TickLength) {
		on(t, o, func() { passed = o.Tick() >= until })
	}
	on(t, o, func() { o.SetDeaf(false) })
	if all := <-got; !bytes.Equal(all, whole) {
		t.Errorf("%d of %d bytes came", len(all), len(whole))
	}
}

// TestUnsentIsWhatTheKernelHasNotTaken fills a socket, and reads what was sent and what is unsent.
func TestUnsentIsWhatTheKernelHasNotTaken(t *testing.T) {
	slots := make(chan Slot, 1)
	o := startLoop(t, LoopOptions{}, nil, func(o *owner) {
		o.events.Adopted = func(s Slot, _ any) { slots <- s }
	})
	client := adopt(t, o, nil)
	slot := <-slots
	const frames, frameBytes = 200, 50_000
	whole := make([]byte, 0, frames*frameBytes)
	on(t, o, func() {
		for n := range frames {
			piece := bytes.Repeat([]byte{byte(n)}, frameBytes)
			whole = append(whole, piece...)
			o.SendBytes(slot, piece)
		}
	})
	var unsent []byte
	for deadline := time.Now().Add(20 * time.Second); ; {
		unsent = nil
		on(t, o, func() {
			o.EachUnsent(slot, func(_ uint64, bytes []byte, taken int) { unsent = append(unsent, bytes[taken:]...) })
			if len(unsent) > 0 && len(unsent) < len(whole) && o.streams.At(uint32(slot)).flags&flagBlocked != 0 {
				o.SetQueueAge(slot, time.Hour, TickLength)
				if q := o.Queue(slot); q.Age > time.Duration(o.Tick())*TickLength {
					t.Errorf("something has waited for %v, longer than there is time", q.Age)
				}
				o.Close(slot, FirstOwnReason)
				return
			}
			unsent = nil
		})
		if unsent != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the socket never was full")
		}
	}
	got, err := io.ReadAll(client)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(append(got, unsent...), whole) {
		t.Errorf("%d bytes came and %d are unsent, and together they are not what was sent (%d)", len(got), len(unsent), len(whole))
	}
}

func TestFirstTickGoesOn(t *testing.T) {
	const first = 50_000
	o := startLoop(t, LoopOptions{FirstTick: first}, nil, func(*owner) {})
	on(t, o, func() {
		if tick := o.Tick(); tick < first || tick > first+1000 {
			t.Errorf("the time is %d", tick)
		}
	})
}

// TestListenerIsPassed: with the old desk holding back, connections wait; the new one has the same
// socket, serves them, and goes on after the old one has let go.
func TestListenerIsPassed(t *testing.T) {
	named := func(name string) DeskOptions {
		return DeskOptions{
			Handler:   http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(name)) }),
			Adopt:     func(int, []byte, any) error { return nil },
			Abandoned: func(any) {},
		}
	}
	serve := func(name string, listener *DeskListener) *Desk {
		desk, err := NewDesk(named(name))
		if err == nil {
			err = desk.Start(listener)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = desk.Shutdown(context.Background()) })
		return desk
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	ask := func(address, want string) {
		t.Helper()
		answer, err := client.Get("http://" + address)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if body, err := io.ReadAll(answer.Body); err != nil || string(body) != want {
			t.Fatalf("%q answered, %v; want %q", body, err, want)
		}
	}
	first, err := Listen("127.0.0.1:0", false)
	if err != nil {
		t.Fatal(err)
	}
	address := first.Addr().String()
	old := serve("old", first)
	ask(address, "old")
	if err := first.Hold(); err != nil {
		t.Fatal(err)
	}
	waits := make(chan struct{})
	go func() {
		defer close(waits)
		ask(address, "old")
	}()
	first.Unhold()
	<-waits
	if err := first.Hold(); err != nil {
		t.Fatal(err)
	}
	second, err := ListenOnDescriptor(copyOf(t, first.Descriptor()))
	if err != nil {
		t.Fatal(err)
	}
	serve("new", second)
	ask(address, "new")
	first.Abandon()
	if err := old.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	ask(address, "new")
	if first.Hold() == nil {
		t.Error("a listener that let go was held")
	}
}

// TestPassedListenerKeepsItsOptions until the one that it was passed to serves: the other may be the one that
// goes on.
func TestPassedListenerKeepsItsOptions(t *testing.T) {
	first, err := Listen("127.0.0.1:0", false)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := ListenOnDescriptor(copyOf(t, first.Descriptor()))
	if err != nil {
		t.Fatal(err)
	}
	timeoutIs := func(want time.Duration) {
		t.Helper()
		got, err := unix.GetsockoptInt(first.Descriptor(), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		if err != nil || time.Duration(got)*time.Millisecond != want {
			t.Errorf("clients have %d ms (%v), want %v", got, err, want)
		}
	}
	const other = userTimeoutDefault - time.Second
	if err := second.SetUserTimeout(other); err != nil {
		t.Fatal(err)
	}
	timeoutIs(userTimeoutDefault)
	desk, err := NewDesk(DeskOptions{Adopt: adoptNothing, Handler: http.NotFoundHandler()})
	if err == nil {
		err = desk.Start(second)
	}
	if err != nil {
		t.Fatal(err)
	}
	timeoutIs(other)
	if err := shutDown(desk, 5*time.Second); err != nil {
		t.Error(err)
	}
}
