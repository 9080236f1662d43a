package gateway_test

import (
	"fmt"
	"testing"

	"github.com/millrace/millrace/gateway"
)

// TestOrderAndCompleteness: 1,000 numbered events back to back reach 200 streams, each once and
// in order, while a reader of each wire has stalled. Then more is published than those may hold:
// when they read again they are told of the gap.
func TestOrderAndCompleteness(t *testing.T) {
	t.Parallel()
	h, redis := serveRedis(t, gateway.Options{Limits: gateway.Limits{MaxQueueBytes: 256 << 10}}, gateway.Timings{})
	const channel = "job_progress:order"
	var readers, stalled []*stream
	for range 200 / len(everyWire) {
		for _, w := range everyWire {
			readers = append(readers, h.open(t, w, visit{channels: []string{channel}}))
		}
	}
	for _, w := range everyWire {
		stalled = append(stalled, h.open(t, w, visit{channels: []string{channel}}))
	}

	const count = 1000
	publishNumbered(t, redis.Addr, channel, 1, count, 0)
	together(len(readers), func(i int) { readers[i].numbers(t, 1, count) })

	// Bursts that a reader can hold, until the stalled ones cannot; fewer readers will do.
	for _, s := range readers[40:] {
		s.conn.Close()
	}
	readers = readers[:40]
	last := count
	for range 8 {
		publishNumbered(t, redis.Addr, channel, last+1, last+100, 1000)
		together(len(readers), func(i int) { readers[i].numbers(t, last+1, last+100) })
		last += 100
	}
	if dropped := h.stats(t).Delivery.Dropped; dropped == 0 {
		t.Fatal("nothing was dropped for readers that read nothing")
	}
	for _, s := range stalled {
		if end := s.throughGap(t, last); end == last {
			t.Errorf("%s holds everything, though it had stalled", s.wire.name)
		}
	}
	publishNumbered(t, redis.Addr, channel, last+1, last+1, 0)
	for _, s := range append(readers, stalled...) {
		s.numbers(t, last+1, last+1)
	}
}

// publishNumbered publishes {"n":FROM,"pad":..} to {"n":TO,..}, each with so much padding, in one go.
func publishNumbered(t testing.TB, address, channel string, from, to, pad int) {
	t.Helper()
	payloads := make([]string, 0, to-from+1)
	for n := from; n <= to; n++ {
		payloads = append(payloads, fmt.Sprintf(`{"n":%d,"pad":"%s"}`, n, padding(pad)))
	}
	publishAt(t, address, channel, payloads...)
}

// numbers takes the events of these numbers, which must come next and in order.
func (s *stream) numbers(t testing.TB, from, to int) {
	t.Helper()
	for want := from; want <= to; want++ {
		h := s.said(t)
		if got, ok := numberOf(h.text); h.kind != heardEvent || !ok || got != int64(want) {
			t.Errorf("%s heard %v, want event %d", s.wire.name, h, want)
			return
		}
	}
}

// throughGap reads what a stalled stream still gets: a beginning without holes, and a gap that
// names its last event. It gives the number of that.
func (s *stream) throughGap(t testing.TB, last int) int {
	t.Helper()
	number, id := 0, ""
	for {
		h := s.said(t)
		switch {
		case h.kind == heardEvent:
			got, _ := numberOf(h.text)
			if int(got) != number+1 {
				t.Errorf("%s: %d came after %d without a gap", s.wire.name, got, number)
			}
			number, id = int(got), h.id
			if number == last {
				return last
			}
		case h.kind == heardWord && h.name == "gap":
			after := h.field("after")
			if h.field("reason") != "slow" || h.field("channel") != "job_progress:order" || after == "" || id != "" && after != id {
				t.Errorf("%s: the gap after %s is %s", s.wire.name, id, h.text)
			}
			return number
		default:
			t.Fatalf("%s heard %v", s.wire.name, h)
		}
	}
}
