package gateway_test

import (
	"fmt"
	"testing"

	"github.com/millrace/millrace/gateway"
)

// TestState: who subscribes has the value at once, behind the greeting; then every change comes.
func TestState(t *testing.T) {
	t.Parallel()
	onEachBroker(t, gateway.Options{}, func(t *testing.T, worker writer) {
		h := worker.house
		worker.set(t, "state:1", `{"n":1}`)
		var streams []*stream
		for _, w := range everyWire {
			s := h.open(t, w, visit{channels: []string{"state:1", "state:none"}})
			if value := s.event(t, `{"n":1}`); value.id != "" {
				t.Errorf("%s: the value has the id %q", w.name, value.id)
			}
			streams = append(streams, s)
		}
		for n := 2; n < 5; n++ {
			worker.set(t, "state:1", fmt.Sprintf(`{"n":%d}`, n))
			for _, s := range streams {
				s.event(t, fmt.Sprintf(`{"n":%d}`, n))
			}
		}
		worker.set(t, "state:1", `{"n":4}`) // the same again is no news
		worker.set(t, "state:none", `"first"`)
		for _, s := range streams {
			s.event(t, `"first"`)
		}
		late := h.open(t, enveloped, visit{channels: []string{"state:1"}})
		if value := late.event(t, `{"n":4}`); value.channel != "state:1" {
			t.Errorf("the value came on %q", value.channel)
		}
	})
}

// TestStateInRedis: what only Redis can do to a key: each is told rightly.
func TestStateInRedis(t *testing.T) {
	t.Parallel()
	h, redis := serveRedis(t, gateway.Options{Namespaces: modes()}, gateway.Timings{})
	redis.CLI(t, "HSET", "state:hash", "b", "2", "a", "1")
	redis.CLI(t, "RPUSH", "state:list", "x")
	redis.CLI(t, "SET", "state:broken", "not JSON")
	var streams []*stream
	channels := []string{"state:1", "state:hash", "state:list", "state:broken"}
	for _, w := range everyWire {
		s := h.open(t, w, visit{channels: channels})
		s.event(t, `{"a":"1","b":"2"}`) // of the others there is nothing to tell
		streams = append(streams, s)
	}
	for _, step := range []struct {
		name    string
		command []string
		want    string // an event; "" for deleted
		channel string // of deleted
	}{
		{"set", []string{"SET", "state:1", `{"n":1}`}, `{"n":1}`, ""},
		{"deleted", []string{"DEL", "state:1"}, "", "state:1"},
		{"set again to the same", []string{"SET", "state:1", `{"n":1}`}, `{"n":1}`, ""},
		{"expired", []string{"PEXPIRE", "state:1", "1"}, "", "state:1"},
		{"a field of a hash", []string{"HSET", "state:hash", "c", "3"}, `{"a":"1","b":"2","c":"3"}`, ""},
		{"a hash becomes a text", []string{"SET", "state:hash", `[1]`}, `[1]`, ""},
		{"a text becomes a list", []string{"EVAL", "redis.call('DEL', KEYS[1]); redis.call('RPUSH', KEYS[1], 'x')", "1", "state:hash"}, "", "state:hash"},
		{"a list becomes a text", []string{"SET", "state:list", `"text"`}, `"text"`, ""},
		{"no JSON becomes some", []string{"SET", "state:broken", `true`}, `true`, ""},
		{"renamed over", []string{"RENAME", "state:broken", "state:1"}, "", ""},
		{"flushed", []string{"FLUSHALL"}, "", ""},
	} {
		redis.CLI(t, step.command...)
		for _, s := range streams {
			switch {
			case step.want != "":
				s.event(t, step.want)
			case step.channel != "":
				s.wordWith(t, "deleted", "channel="+step.channel)
			case step.name == "renamed over":
				s.both(t, "true", "state:broken")
			default: // in any order
				gone := map[string]bool{}
				for range 2 {
					gone[s.word(t, "deleted").field("channel")] = true
				}
				if !gone["state:1"] || !gone["state:list"] {
					t.Errorf("%s: deleted are %v", s.wire.name, gone)
				}
			}
		}
	}
	redis.CLI(t, "SET", "state:1", "oops")
	redis.CLI(t, "SET", "state:list", "1")
	for _, s := range streams {
		s.event(t, "1") // what is no JSON is dropped, and counted
	}
	within(t, patience, "what is no JSON is counted", func() bool {
		return h.metrics(t)[`millrace_events_dropped_total{reason="not_json"}`] >= 2
	})
	if got := h.stats(t).Broker.WrongTypes; got < 2 {
		t.Errorf("%d keys of another type are counted", got)
	}
}

// both takes, in any order, an event and the word that a channel has no value any more.
func (s *stream) both(t testing.TB, payload, deleted string) {
	t.Helper()
	first, second := s.said(t), s.said(t)
	if first.kind == heardWord {
		first, second = second, first
	}
	if first.kind != heardEvent || first.text != payload || second.name != "deleted" || second.field("channel") != deleted {
		t.Fatalf("%s heard %v and %v, want %s and that %s is deleted", s.wire.name, first, second, payload, deleted)
	}
}

// TestOneReadForACrowd: however many subscribe at once, Redis is asked once.
func TestOneReadForACrowd(t *testing.T) {
	t.Parallel()
	h, redis := serveRedis(t, gateway.Options{Namespaces: modes()}, gateway.Timings{})
	redis.CLI(t, "SET", "state:crowd", `{"n":1}`)
	within(t, patience, "the log of orders is read", func() bool { return h.stats(t).Broker.Tracked == 1 })
	before := h.stats(t).Broker.Reads
	together(100, func(index int) {
		s := h.open(t, everyWire[index%len(everyWire)], visit{channels: []string{"state:crowd"}})
		s.event(t, `{"n":1}`)
	})
	if reads := h.stats(t).Broker.Reads - before; reads != 1 {
		t.Errorf("%d reads for one key", reads)
	}
}

// TestPersonalAndBroadcastInModes: the channels that come without asking begin like any other.
func TestPersonalAndBroadcastInModes(t *testing.T) {
	t.Parallel()
	options := gateway.Options{Namespaces: modes(), Personal: []string{"alerts"}, Broadcast: []string{"system:all"}}
	onEachBroker(t, options, func(t *testing.T, worker writer) {
		h := worker.house
		worker.set(t, "system:all", `"open"`)
		worker.add(t, "alerts:456", `"before"`)
		var streams []*stream
		for _, w := range everyWire {
			s := h.open(t, w, visit{query: "userId=456"})
			s.event(t, `"open"`)
			streams = append(streams, s)
		}
		worker.add(t, "alerts:456", `"alert"`)
		for _, s := range streams {
			s.event(t, `"alert"`)
		}
		// A WebSocket goes back on its personal channel by asking for it with a position.
		s := h.open(t, enveloped, visit{query: "userId=456"})
		s.event(t, `"open"`)
		s.command(t, `{"type":"subscribe","channel":{"type":"alerts","userId":"456"},"since":"0"}`)
		s.word(t, "subscribed")
		s.event(t, `"before"`)
		s.event(t, `"alert"`)
		s.wordWith(t, "replayed", "channel=alerts:456", "count=2")
		worker.add(t, "alerts:456", `"after"`)
		s.event(t, `"after"`)
	})
}
