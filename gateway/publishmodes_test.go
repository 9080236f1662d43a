package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/proto"
)

// TestPublishByMode: the gateway writes what a worker of that mode would, and its answer names
// what a client can go on from.
func TestPublishByMode(t *testing.T) {
	t.Parallel()
	onEachBroker(t, gateway.Options{}, func(t *testing.T, writer writer) {
		h := writer.house
		s := h.open(t, enveloped, visit{channels: []string{"state:1", "log:1", "events:1"}})
		got := h.post(t, `[{"channel":"state:1","event":1},{"channel":"log:1","event":2},{"channel":"events:1","event":3},{"channel":"log:1","event":4}]`)
		if got.Published != 4 || len(got.IDs) != 4 || !*got.Distributed || got.IDs[0] != nil || got.IDs[2] != nil || got.IDs[1] == nil || got.IDs[3] == nil {
			t.Fatalf("publishing was answered %+v", got)
		}
		heard := map[string]string{}
		for range 4 {
			h := s.said(t)
			heard[h.channel] += h.text
		}
		if want := map[string]string{"state:1": "1", "log:1": "24", "events:1": "3"}; fmt.Sprint(heard) != fmt.Sprint(want) {
			t.Errorf("heard %v, want %v", heard, want)
		}
		id, err := proto.ParseID(*got.IDs[1])
		if err != nil || id.Kind != proto.IDLog || id.Channel.Name() != "log:1" {
			t.Errorf("the id is %q", *got.IDs[1])
		}
		again := h.resume(t, enveloped, "log:1", *got.IDs[1])
		again.event(t, "4")
		again.wordWith(t, "replayed", "count=1")
		s.command(t, `{"type":"publish","channel":"log:1","event":5,"ref":1}`)
		for range 2 {
			if h := s.said(t); h.kind == heardWord && (h.name != "published" || !strings.Contains(h.text, `"ids":["log:1/`) || h.field("ref") != "1") {
				t.Errorf("heard %v", h)
			}
		}
		result := h.publish(t, "state:1", "6")
		if len(result.IDs) != 1 || result.IDs[0] != "" {
			t.Errorf("the ids of a state are %q", result.IDs)
		}
		if writer.redis != nil {
			for command, want := range map[string]string{"GET state:1": "6", "XLEN log:1": "3"} {
				if got := strings.TrimSpace(writer.redis.CLI(t, strings.Fields(command)...)); got != want {
					t.Errorf("%s is %q, want %q", command, got, want)
				}
			}
		}
	})
}

// TestMaxLen: what is published through the gateway bounds the log, about.
func TestMaxLen(t *testing.T) {
	t.Parallel()
	h, redis := serveRedis(t, gateway.Options{Namespaces: modes()}, gateway.Timings{})
	var events []gateway.Event
	for n := range 1000 {
		events = append(events, gateway.Event{Channel: "short:1", Data: []byte(fmt.Sprint(n))})
	}
	if _, err := h.Publish(t.Context(), events...); err != nil {
		t.Fatal(err)
	}
	var length int
	if _, err := fmt.Sscan(redis.CLI(t, "XLEN", "short:1"), &length); err != nil || length > 200 {
		t.Errorf("%d entries are left (%v)", length, err)
	}
}

// TestPublishWhileRedisIsAway: events reach who is here, and the answer says so; logs and states
// live in Redis, so they are refused, and so is what comes with them.
func TestPublishWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	h, redis := serveRedis(t, gateway.Options{Namespaces: modes()}, gateway.Timings{})
	s := h.open(t, enveloped, visit{channels: []string{"state:1", "log:1", "events:1"}})
	freeze(t, redis)
	within(t, patience, "it is noticed", func() bool { return !h.stats(t).Broker.Delivering })
	for name, body := range map[string]string{
		"log": `{"channel":"log:1","event":1}`, "state": `{"channel":"state:1","event":1}`,
		"mixed": `[{"channel":"events:1","event":"must not arrive"},{"channel":"log:1","event":1}]`,
	} {
		got := h.ask(t, post(body))
		if got.status != 503 || got.code(t) != "broker_unavailable" || got.header.Get("Retry-After") == "" {
			t.Errorf("%s was answered %d %.200s", name, got.status, got.body)
		}
	}
	if _, err := h.Publish(context.Background(), gateway.Event{Channel: "log:1", Data: []byte("1")}); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("the library says %v", err)
	}
	s.command(t, `{"type":"publish","channel":"state:1","event":1,"ref":1}`)
	s.wordWith(t, "error", "code=broker_unavailable", "channel=state:1", "ref=1")
	if got := h.post(t, `{"channel":"events:1","event":"local"}`); *got.Distributed {
		t.Errorf("an event was answered %+v", got)
	}
	s.event(t, `"local"`)
}

// TestRedisRefusesToWrite: what Redis says is told, with the code that says that it is not the
// client's fault.
func TestRedisRefusesToWrite(t *testing.T) {
	t.Parallel()
	h, redis := serveRedis(t, gateway.Options{Namespaces: modes()}, gateway.Timings{})
	redis.CLI(t, "SET", "log:text", "1")
	got := h.ask(t, post(`{"channel":"log:text","event":1}`))
	if got.status != 503 || got.code(t) != "broker_unavailable" || !strings.Contains(got.body, "WRONGTYPE") {
		t.Errorf("XADD to a text was answered %d %.300s", got.status, got.body)
	}
	redis.CLI(t, "SET", "state:1", `"old"`)
	s := h.open(t, enveloped, visit{channels: []string{"state:1", "events:1"}})
	s.event(t, `"old"`)
	redis.CLI(t, "CONFIG", "SET", "maxmemory", "1")
	for _, channel := range []string{"log:1", "state:1"} {
		got := h.ask(t, post(fmt.Sprintf(`{"channel":%q,"event":1}`, channel)))
		if got.status != 503 || got.code(t) != "broker_unavailable" || !strings.Contains(got.body, "OOM") || !strings.Contains(got.body, "maxmemory") {
			t.Errorf("%s without memory was answered %d %.300s", channel, got.status, got.body)
		}
	}
	if got := h.post(t, `{"channel":"events:1","event":"x"}`); !*got.Distributed {
		t.Errorf("an event, which takes no memory, was answered %+v", got)
	}
	s.event(t, `"x"`)
	redis.CLI(t, "DEL", "state:1")
	s.wordWith(t, "deleted", "channel=state:1")
}

// TestWrongMode: a PUBLISH on the channel of a log or a state reaches nobody, and an operator
// hears of it.
func TestWrongMode(t *testing.T) {
	t.Parallel()
	h, redis := serveRedis(t, gateway.Options{Namespaces: modes()}, gateway.Timings{})
	var streams []*stream
	for _, w := range everyWire {
		streams = append(streams, h.open(t, w, visit{channels: []string{"state:1", "log:1"}}))
	}
	redis.CLI(t, "PUBLISH", "state:1", `"wrong"`)
	redis.CLI(t, "PUBLISH", "log:1", `"wrong"`)
	redis.CLI(t, "PUBLISH", "log:nobody", `"wrong"`)
	within(t, patience, "it is counted", func() bool {
		return h.metrics(t)[`millrace_events_dropped_total{reason="wrong_mode"}`] == 3
	})
	h.publish(t, "log:1", `"right"`)
	for _, s := range streams {
		s.event(t, `"right"`)
	}
	if !kept.holds("a PUBLISH reached nobody") || !kept.holds("have the worker use") {
		t.Error("the log does not say what to do")
	}
}
