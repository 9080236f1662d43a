package gateway_test

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/proto"
)

// padBytes makes payloads large enough to fill the queue of a client that does not read.
const padBytes = 16_000

// padding is text for a payload that no compression makes much shorter, another one each time.
func padding(size int) string {
	random := make([]byte, size*3/4)
	_, _ = rand.Read(random)
	return base64.RawStdEncoding.EncodeToString(random)
}

const (
	slowQueueBytes = 256 << 10
	// slowEvents are more than the kernel and the queue hold for a client that does not read.
	slowEvents = 60
)

// lag publishes until the clients that do not read are behind, and gives the last number. Jobs
// take turns.
func (h *house) lag(t *testing.T, channel string, streams int) (last int) {
	t.Helper()
	publish := func() {
		last++
		h.publish(t, channel, fmt.Sprintf(`{"n":%d,"jobId":"j%d","pad":"%s"}`, last, last%3, padding(padBytes)))
	}
	within(t, patience, "they are behind", func() bool {
		for range 5 {
			publish()
		}
		return h.stats(t).Delivery.Behind >= streams
	})
	for range 3 { // the last of each job comes when all are behind
		publish()
	}
	return last
}

// TestSlowClients: what becomes of a client that does not read, by the mode of its channel; what
// it missed is told, or made good, once it reads again.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		channel string
		read    func(t *testing.T, s *stream, last int)
		count   func(gateway.DeliveryStats) uint64
	}{
		{"events:1", readThroughGap, func(d gateway.DeliveryStats) uint64 { return d.Dropped }},
		{"log:1", readAll, func(d gateway.DeliveryStats) uint64 { return d.CaughtUp }},
		{"state:1", readToNewest, func(d gateway.DeliveryStats) uint64 { return d.Conflated }},
		{"conflated:1", readToNewest, func(d gateway.DeliveryStats) uint64 { return d.Conflated }},
		{"keyed:1", readNewestOfEach, func(d gateway.DeliveryStats) uint64 { return d.Conflated }},
	} {
		t.Run(row.channel, func(t *testing.T) {
			t.Parallel()
			options := gateway.Options{Limits: gateway.Limits{MaxQueueBytes: slowQueueBytes, ProgressTimeout: gateway.NoLimit}}
			onEachBroker(t, options, func(t *testing.T, writer writer) {
				h := writer.house
				var streams []*stream
				for _, w := range everyWire {
					streams = append(streams, h.open(t, w, visit{channels: []string{row.channel}}))
				}
				last := h.lag(t, row.channel, len(streams))
				for _, s := range streams {
					row.read(t, s, last)
				}
				if row.count(h.stats(t).Delivery) == 0 {
					t.Errorf("the outcome is not counted: %+v", h.stats(t).Delivery)
				}
				h.publish(t, row.channel, `{"n":0}`)
				for _, s := range streams {
					s.until(t, "what comes live", func(h heard) bool { return h.text == `{"n":0}` })
				}
			})
		})
	}
}

// readThroughGap: events come without a hole up to the gap, which names the last of them.
func readThroughGap(t *testing.T, s *stream, last int) {
	number, id := 0, ""
	for {
		h := s.said(t)
		if h.kind == heardWord {
			if h.name != "gap" || h.field("reason") != "slow" || id != "" && h.field("after") != id {
				t.Errorf("%s heard %v after %s", s.wire.name, h, id)
			}
			return
		}
		got, _ := numberOf(h.text)
		if number++; int(got) != number || number >= last {
			t.Fatalf("%s: %d came, want %d of %d and a gap", s.wire.name, got, number, last)
		}
		id = h.id
	}
}

// readAll: every entry comes, and once.
func readAll(t *testing.T, s *stream, last int) {
	for number := 1; number <= last; number++ {
		if got, _ := numberOf(s.anyEvent(t).text); int(got) != number {
			t.Fatalf("%s: %d came, want %d", s.wire.name, got, number)
		}
	}
}

// anyEvent takes the next event, whatever it is.
func (s *stream) anyEvent(t *testing.T) heard {
	t.Helper()
	h := s.said(t)
	if h.kind != heardEvent {
		t.Fatalf("%s heard %v, want an event", s.wire.name, h)
	}
	return h
}

// readToNewest: events may be left out, without a word, but the newest comes.
func readToNewest(t *testing.T, s *stream, last int) {
	number, events := 0, 0
	for number < last {
		got, _ := numberOf(s.anyEvent(t).text)
		if int(got) <= number {
			t.Fatalf("%s: %d came after %d", s.wire.name, got, number)
		}
		number = int(got)
		events++
	}
	if events == last {
		t.Errorf("%s got all %d, though it did not read", s.wire.name, events)
	}
}

// readNewestOfEach: of each job the newest comes.
func readNewestOfEach(t *testing.T, s *stream, last int) {
	seen := map[string]bool{}
	number := 0
	for number < last {
		h := s.anyEvent(t)
		got, _ := numberOf(h.text)
		if number = int(got); number > last-3 {
			_, job, _ := strings.Cut(h.text, `"jobId":"`)
			seen[job[:2]] = true
		}
	}
	if len(seen) != 3 {
		t.Errorf("%s: of the last three jobs came %v", s.wire.name, seen)
	}
}

// TestQueueAge: what has waited too long is as bad as too much.
func TestQueueAge(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Namespaces: modes(), Limits: gateway.Limits{MaxQueueBytes: gateway.NoLimit, MaxQueueAge: time.Second}})
	n := 0
	publish := func() {
		n++
		h.publish(t, "state:1", fmt.Sprintf(`{"n":%d,"pad":"%s"}`, n, padding(padBytes/4)))
	}
	for _, w := range everyWire {
		s := h.open(t, w, visit{channels: []string{"state:1"}})
		within(t, patience, "it counts as slow", func() bool {
			publish()
			return h.stats(t).Delivery.Behind > 0
		})
		publish()
		publish()
		readToNewest(t, s, n)
		s.conn.Close()
	}
}

// TestProgressTimeout: a client whose socket takes nothing is closed, and counted; one that only
// has nothing to take is not.
func TestProgressTimeout(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Namespaces: modes(), Limits: gateway.Limits{ProgressTimeout: 2 * time.Second}})
	idle := h.open(t, raw, visit{channels: []string{"log:2"}})
	for _, w := range everyWire {
		h.open(t, w, visit{channels: []string{"state:1"}})
	}
	n := 0
	within(t, patience, "all are closed", func() bool {
		n++
		h.publish(t, "state:1", fmt.Sprintf(`{"n":%d,"pad":"%s"}`, n, padding(padBytes)))
		return h.stats(t).Delivery.Closed == uint64(len(everyWire))
	})
	if got := h.metrics(t)[`millrace_streams_ended_total{reason="stalled"}`]; got != float64(len(everyWire)) {
		t.Errorf("%v streams are counted as stalled", got)
	}
	idle.alive(t)
}

// TestNobodyIsSlowedDown: while one client reads nothing, the others get each event at once.
func TestNobodyIsSlowedDown(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Namespaces: modes(), Limits: gateway.Limits{MaxQueueBytes: slowQueueBytes, ProgressTimeout: gateway.NoLimit}})
	for _, channel := range []string{"events:1", "log:1", "state:1", "keyed:1"} {
		h.open(t, raw, visit{channels: []string{channel}})
		readers := []*stream{h.open(t, sse, visit{channels: []string{channel}}), h.open(t, raw, visit{channels: []string{channel}})}
		for n := 1; n <= slowEvents; n++ {
			payload := fmt.Sprintf(`{"n":%d,"jobId":"j","pad":"%s"}`, n, padding(padBytes))
			h.publish(t, channel, payload)
			for _, s := range readers {
				s.event(t, payload)
			}
		}
	}
	if behind := h.stats(t).Delivery.Behind; behind != 4 {
		t.Errorf("%d streams are behind, want the four that do not read", behind)
	}
}

// TestSlowAnswers: a client that sends commands and reads no answers is closed.
func TestSlowAnswers(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Limits: gateway.Limits{MaxQueueBytes: slowQueueBytes, CommandsPerSecond: gateway.NoLimit}})
	s := h.open(t, raw, visit{})
	pings := make([]byte, 0, 1<<20)
	for len(pings) < 1<<20 {
		pings = append(pings, masked(proto.OpText, `{"type":"ping","ref":"0123456789012345678901234567890123456789"}`)...)
	}
	within(t, patience, "it is closed", func() bool {
		_ = s.conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		_, _ = s.conn.Write(pings)
		return h.stats(t).Delivery.Closed == 1
	})
}
