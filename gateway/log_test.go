package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/internal/redistest"
	"github.com/millrace/millrace/proto"
)

// lastID is a visit that goes on behind an id.
func lastID(id string, channels ...string) visit {
	return visit{channels: channels, header: []string{"Last-Event-ID: " + id}}
}

// since subscribes a WebSocket from a position and takes the answer.
func (s *stream) since(t testing.TB, channel, position string) {
	t.Helper()
	s.command(t, fmt.Sprintf(`{"type":"subscribe","channel":%q,"since":%q}`, channel, position))
	s.wordWith(t, "subscribed", "channel="+channel)
}

// resume opens a stream that goes on from a position of one channel: "0", or an id.
func (h *house) resume(t testing.TB, w wire, channel, position string) *stream {
	t.Helper()
	if w.websocket {
		s := h.open(t, w, visit{})
		s.since(t, channel, position)
		return s
	}
	return h.open(t, w, visit{channels: []string{channel}, query: "since=" + url.QueryEscape(position)})
}

// TestLogs: a new subscriber of a log is live only; from the beginning on, or from an id, it gets
// what there is, hears so, and goes on live.
func TestLogs(t *testing.T) {
	t.Parallel()
	onEachBroker(t, gateway.Options{}, func(t *testing.T, writer writer) {
		h := writer.house
		for n := range 3 {
			writer.add(t, "log:1", fmt.Sprintf(`{"n":%d}`, n))
		}
		var streams []*stream
		for _, w := range everyWire {
			streams = append(streams, h.open(t, w, visit{channels: []string{"log:1"}}))
		}
		for n := 3; n < 6; n++ {
			writer.add(t, "log:1", fmt.Sprintf(`{"n":%d}`, n))
		}
		ids := make(map[string]bool)
		third := ""
		for _, s := range streams {
			for n := 3; n < 6; n++ {
				entry := s.event(t, fmt.Sprintf(`{"n":%d}`, n))
				if s.wire.isRaw() {
					continue
				}
				ids[entry.id] = true
				if n == 3 {
					third = entry.id
				}
				if id, err := proto.ParseID(entry.id); err != nil || id.Kind != proto.IDLog || id.Channel.Name() != "log:1" {
					t.Errorf("%s: the id is %q", s.wire.name, entry.id)
				}
			}
		}
		if len(ids) != 3 {
			t.Errorf("three entries have the ids %v", ids)
		}
		last := 6
		onEvery(t, everyWire, func(t *testing.T, w wire) {
			for position, first := range map[string]int{"0": 0, third: 4} {
				s := h.resume(t, w, "log:1", position)
				for n := first; n < last; n++ {
					s.event(t, fmt.Sprintf(`{"n":%d}`, n))
				}
				s.wordWith(t, "replayed", "channel=log:1", fmt.Sprintf("count=%d", last-first))
				writer.add(t, "log:1", fmt.Sprintf(`{"n":%d}`, last))
				s.event(t, fmt.Sprintf(`{"n":%d}`, last))
				last++
			}
			empty := h.resume(t, w, "log:empty", "0")
			empty.wordWith(t, "replayed", "channel=log:empty", "count=0")
		})
	})
}

// TestLogInRedis: what only Redis can do to a log.
func TestLogInRedis(t *testing.T) {
	t.Parallel()
	h, redis := serveRedis(t, gateway.Options{Namespaces: modes()}, gateway.Timings{})
	var streams []*stream
	for _, w := range everyWire {
		streams = append(streams, h.open(t, w, visit{channels: []string{"log:1"}}))
	}
	redis.CLI(t, "XADD", "log:1", "*", "b", "2", "a", "1")
	redis.CLI(t, "XADD", "log:1", "*", "data", "not JSON")
	redis.CLI(t, "XADD", "log:1", "*", "other", "field", "data", "[1]")
	for _, s := range streams {
		s.event(t, `{"b":"2","a":"1"}`)
		s.event(t, `[1]`)
	}
	redis.CLI(t, "DEL", "log:1")
	redis.CLI(t, "XADD", "log:1", "1-1", "data", `"another log"`)
	for _, s := range streams {
		gap := s.wordWith(t, "gap", "channel=log:1")
		if reason := gap.field("reason"); reason != "trimmed" && reason != "rewound" {
			t.Errorf("%s: the reason is %q", s.wire.name, reason)
		}
	}
	// Only now: the gap stands for what the new log held when it was found.
	redis.CLI(t, "XADD", "log:1", "1-2", "data", `"goes on"`)
	for _, s := range streams {
		s.until(t, "the new log", func(h heard) bool { return h.text == `"goes on"` })
	}
	if got := h.stats(t).Broker.Holes; got == 0 {
		t.Error("no hole is counted")
	}
}

// TestLogOnAnotherGateway: an id of one gateway is good on every other.
func TestLogOnAnotherGateway(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	options := gateway.Options{Namespaces: modes(), Redis: redis.URL()}
	first, second := serve(t, options), serve(t, options)
	first.awaitDelivery(t)
	second.awaitDelivery(t)
	onEvery(t, []wire{sse, sse10, enveloped}, func(t *testing.T, w wire) {
		channel := "log:" + strings.ReplaceAll(w.name, " ", "-")
		add := func(n int) { first.publish(t, channel, fmt.Sprint(n)) }
		s := first.open(t, w, visit{channels: []string{channel}})
		add(0)
		id := s.event(t, "0").id
		s.conn.Close()
		for n := 1; n < 200; n++ {
			add(n)
		}
		s = second.resume(t, w, channel, id)
		for n := 1; n < 200; n++ {
			s.event(t, fmt.Sprint(n))
		}
		s.wordWith(t, "replayed", "channel="+channel, "count=199")
		add(200)
		s.event(t, "200")
	})
}

// TestLogGap: a position that Redis no longer holds what follows on is a gap, and so is one that
// the log never had.
func TestLogGap(t *testing.T) {
	t.Parallel()
	h, redis := serveRedis(t, gateway.Options{Namespaces: modes()}, gateway.Timings{})
	for n := range 10 {
		redis.CLI(t, "XADD", "log:1", fmt.Sprintf("%d-1", 1000+n), "data", fmt.Sprint(n))
	}
	redis.CLI(t, "XTRIM", "log:1", "MAXLEN", "3")
	onEvery(t, everyWire, func(t *testing.T, w wire) {
		for _, row := range []struct{ name, position, gap, want string }{
			{"trimmed", "log:1/1002-1/1002", "trimmed", "[gap 7 8 9 replayed]"},
			{"the first that is left", "log:1/1007-1/1002", "", "[8 9 replayed]"},
			{"a time before the first that is left", "log:2/1002-1/1002", "trimmed", "[gap 7 8 9 replayed]"},
			{"a time that it holds", "log:2/1002-1/1008", "", "[9 replayed]"},
			{"from the beginning", "0", "trimmed", "[gap 7 8 9 replayed]"},
			{"of a log that was longer", "log:1/2000-1/2000", "rewound", "[gap replayed]"},
			{"of no log", "log:1/abc.5", "unknown_position", ""},
			{"no id", "yesterday", "unknown_position", ""},
		} {
			t.Run(row.name, func(t *testing.T) {
				s := h.resume(t, w, "log:1", row.position)
				var heard []string
				for len(heard) == 0 || heard[len(heard)-1] != "replayed" {
					h := s.said(t)
					if h.kind == heardWord {
						heard = append(heard, h.name)
						if h.name == "gap" && h.field("reason") != row.gap {
							t.Errorf("the gap is %v", h)
						}
						if h.name == "gap" && row.gap == "unknown_position" {
							return // the channel is live from here on
						}
						continue
					}
					heard = append(heard, h.text)
				}
				if got := fmt.Sprint(heard); got != row.want {
					t.Errorf("heard %s, want %s", got, row.want)
				}
			})
		}
	})
}

// sequence notes what a client saw of one channel: whole numbers in order.
type sequence struct {
	next     int
	repeated int
}

// TestSeveralLogsOnOneStream: with several logs on one event stream one id brings all of them
// back without loss, on another gateway too; twice comes only what stands before replayed.
func TestSeveralLogsOnOneStream(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	options := gateway.Options{Namespaces: modes(), Redis: redis.URL()}
	houses := []*house{serve(t, options), serve(t, options)}
	for _, h := range houses {
		h.awaitDelivery(t)
	}
	onEvery(t, sseWires, func(t *testing.T, w wire) {
		var channels []string
		for _, name := range []string{"a", "b", "c"} {
			channels = append(channels, "log:"+name+w.version)
		}
		seen := make(map[string]*sequence)
		for _, channel := range channels {
			seen[channel] = &sequence{}
		}
		for _, channel := range channels {
			// A log that is younger than the horizon of an id might have been another before.
			houses[0].publish(t, channel, `"oldest"`)
		}
		born := uint64(time.Now().UnixMilli())
		for _, h := range houses {
			within(t, patience, "the horizon has passed", func() bool { return h.stats(t).Broker.Horizon > born })
		}
		stop, done := make(chan struct{}), make(chan struct{})
		go addForever(t, houses[1], channels, stop, done)
		defer func() { close(stop); <-done }()
		s := houses[0].open(t, w, visit{channels: channels})
		position, started := "", false
		for visits := range 6 {
			waiting := len(channels)
			if visits == 0 {
				waiting = 0
			}
			for count := 0; count < 150 || waiting > 0; count++ {
				h := s.said(t)
				switch {
				case h.kind == heardWord && h.name == "replayed":
					waiting--
					continue
				case h.kind != heardEvent:
					t.Fatalf("heard %v", h)
				}
				note(t, seen, h, waiting > 0, !started)
				if s.decoder.LastID != "" {
					position = s.decoder.LastID
				}
			}
			started = true
			s.conn.Close()
			s = houses[(visits+1)%2].open(t, w, lastID(position, channels...))
		}
	})
}

// note checks that an event of a channel follows on what was seen of it.
func note(t *testing.T, seen map[string]*sequence, h heard, replaying, first bool) {
	t.Helper()
	var told struct {
		Channel string
		N       int
	}
	if err := json.Unmarshal([]byte(h.text), &told); err != nil {
		t.Fatal(err)
	}
	one := seen[told.Channel]
	switch {
	case told.N == one.next || first && one.next == 0:
		one.next = told.N + 1
	case told.N < one.next && replaying:
		one.repeated++
	default:
		t.Fatalf("%s: %d came, want %d (replaying: %v)", told.Channel, told.N, one.next, replaying)
	}
}

// addForever adds numbered entries to channels in turn.
func addForever(t *testing.T, h *house, channels []string, stop, done chan struct{}) {
	defer close(done)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		for _, channel := range channels {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			if _, err := h.Publish(t.Context(), gateway.Event{Channel: channel, Data: fmt.Appendf(nil, `{"channel":%q,"n":%d}`, channel, n)}); err != nil && t.Context().Err() == nil {
				t.Errorf("publish: %v", err)
				return
			}
		}
	}
}

// TestLogBesideEvents: on an event stream with a log, ids are the log's alone: who comes back hears
// of a gap on the channel of events, and misses nothing of the log.
func TestLogBesideEvents(t *testing.T) {
	t.Parallel()
	onEachBroker(t, gateway.Options{}, func(t *testing.T, writer writer) {
		h := writer.house
		onEvery(t, sseWires, func(t *testing.T, w wire) {
			log, events := "log:beside"+w.version, "events:beside"+w.version
			s := h.open(t, w, visit{channels: []string{events, log}})
			writer.add(t, log, "1")
			id := s.event(t, "1").id
			writer.publish(t, events, "2")
			if h := s.event(t, "2"); h.id != "" || id == "" {
				t.Errorf("the id of the event is %q, that of the entry %q", h.id, id)
			}
			s.conn.Close()
			writer.add(t, log, "3")
			s = h.open(t, w, lastID(id, events, log))
			heard := make(map[string]int) // the entry is replayed or live, as it happens
			for range 3 {
				h := s.said(t)
				heard[h.name+h.field("channel")+h.field("reason")]++
			}
			if heard["gap"+events+"unknown_position"]+heard["message"]+heard["replayed"+log] != 3 {
				t.Errorf("heard %v", heard)
			}
		})
	})
}
