package netio

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/sockettest"
)

func TestBudget(t *testing.T) {
	cases := []struct {
		name   string
		queue  outbox
		budget Budget
		now    Tick
		want   bool
	}{
		{"no bound", outbox{count: 9, queued: 1 << 30}, Budget{}, 1000, false},
		{"an empty queue takes anything", outbox{}, Budget{Bytes: 1, Age: 1}, 1000, false},
		{"fits", outbox{count: 1, queued: 90}, Budget{Bytes: 100}, 0, false},
		{"one byte too many", outbox{count: 1, queued: 91}, Budget{Bytes: 100}, 0, true},
		{"just young enough", outbox{count: 1, marked: 10}, Budget{Age: 5}, 15, false},
		{"too old", outbox{count: 1, marked: 10}, Budget{Age: 5}, 16, true},
	}
	for _, c := range cases {
		if got := c.budget.exceeded(&c.queue, 10, c.now); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestMarkTellsTheAge moves the mark by hand: what it says is never older than the oldest frame,
// and younger by at most as much again.
func TestMarkTellsTheAge(t *testing.T) {
	l, err := newLoop(LoopOptions{}, Events{}, newTestKernel(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.sys.end()
	l.streams.Grow(1)
	s := l.streams.At(1)
	s.state, s.flags = stateOpen, flagBlocked // nobody writes but this test
	var queuedAt []Tick
	for l.tick = 1; l.tick < 400; l.tick++ {
		if l.tick%3 != 0 || len(queuedAt) == 0 {
			f := l.NewFrame([]byte{1}, 0)
			l.Send(1, f, Bulk)
			l.Release(f)
			queuedAt = append(queuedAt, l.tick)
		}
		if l.tick%2 == 0 {
			l.advance(l.outboxes.At(s.outbox), 1)
			queuedAt = queuedAt[1:]
		}
		if len(queuedAt) == 0 {
			l.removeOutbox(s)
			continue
		}
		age, told := l.tick-queuedAt[0], l.tick-l.outboxes.At(s.outbox).marked
		if told > age {
			t.Fatalf("tick %d: the oldest has waited %d ticks, and the mark says %d", l.tick, age, told)
		}
	}
	// From here on nothing leaves: at twice the bound at most, the age is told.
	const bound = 50
	for begun := l.tick; ; l.tick++ {
		if l.tick-l.outboxes.At(s.outbox).marked > bound {
			break
		}
		if l.tick-begun > bound+1 {
			t.Fatalf("a queue that stands for %d ticks is told to be younger than %d", l.tick-begun, bound)
		}
	}
	l.removeOutbox(s)
}

func TestQueue(t *testing.T) {
	slots := make(chan Slot, 1)
	o := startLoop(t, LoopOptions{}, nil, func(o *owner) {
		o.events.Adopted = func(s Slot, _ any) { slots <- s }
	})
	client := adopt(t, o, nil)
	client.SetReadBuffer(64 << 10)
	slot := <-slots
	look := func() (q Queue, unacknowledged int) {
		o.Do(context.Background(), func() { q, unacknowledged = o.Queue(slot), o.Unacknowledged(slot) })
		return q, unacknowledged
	}
	if q, unacknowledged := look(); q != (Queue{}) || unacknowledged != 0 {
		t.Errorf("an idle stream: %+v, and %d bytes unacknowledged", q, unacknowledged)
	}
	const sent = 2 << 20
	o.Do(context.Background(), func() { o.SendBytes(slot, make([]byte, sent)) })
	sockettest.Eventually(t, "the queue grows old", func() bool {
		q, unacknowledged := look()
		return q.Frames == 1 && q.Bytes > 0 && unacknowledged > 0 && q.Age >= 2*TickLength && q.Silent >= 2*TickLength
	})
	client.SetReadBuffer(1 << 20)
	client.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.CopyN(io.Discard, client, sent); err != nil {
		t.Fatal(err)
	}
	sockettest.Eventually(t, "all was taken", func() bool {
		q, unacknowledged := look()
		return q == (Queue{}) && unacknowledged == 0
	})
}
