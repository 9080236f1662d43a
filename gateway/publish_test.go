package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/gateway/access"
	"github.com/millrace/millrace/gateway/auth"
)

// published is the answer of POST /api/publish.
type published struct {
	Published   int
	IDs         []*string
	Distributed *bool
}

func (h *house) post(t testing.TB, body string) published {
	t.Helper()
	got := h.ask(t, post(body))
	var told published
	if err := json.Unmarshal([]byte(got.body), &told); err != nil || got.status != 200 || told.Distributed == nil {
		t.Fatalf("publishing answered %d %.300s", got.status, got.body)
	}
	return told
}

// TestPublish: one event, many, and none where one of them is wrong.
func TestPublish(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Limits: gateway.Limits{MaxEventBytes: 1 << 10}})
	var streams []*stream
	for _, w := range everyWire {
		streams = append(streams, h.open(t, w, visit{channels: []string{"a:1", "a:2"}}))
	}
	event := func(text string) {
		t.Helper()
		for _, s := range streams {
			s.event(t, text)
		}
	}
	if got := h.post(t, `{"channel":"a:1","event":{"n":1}}`); got.Published != 1 || len(got.IDs) != 1 || !*got.Distributed {
		t.Errorf("one event was answered %+v", got)
	}
	event(`{"n":1}`)
	if got := h.post(t, ` [{"channel":"a:1","event":{"n":2}},{"channel":{"type":"a","id":"2"},"event":null},{"channel":"a:1","event":"x"}] `); got.Published != 3 || len(got.IDs) != 3 || !*got.Distributed {
		t.Errorf("three events were answered %+v", got)
	}
	event(`{"n":2}`)
	event(`null`)
	event(`"x"`)
	good := `{"channel":"a:1","event":{"must":"not arrive"}}`
	many := func(count int) string { return "[" + strings.TrimSuffix(strings.Repeat(good+",", count), ",") + "]" }
	h.check(t, []row{
		{"one of two on a bad channel", post("[" + good + `,{"channel":"b","event":1}]`), 400, "bad_channel", ""},
		{"one of two without an event", post("[" + good + `,{"channel":"a:1"}]`), 400, "bad_request", ""},
		{"one of two on a wildcard", post("[" + good + `,{"channel":"a:*","event":1}]`), 400, "bad_channel", ""},
		{"one of two too large", post("[" + good + `,{"channel":"a:1","event":"` + strings.Repeat("x", 1<<10) + `"}]`), 413, "too_large", ""},
		{"one of two not UTF-8", post("[" + good + ",{\"channel\":\"a:1\",\"event\":\"\xff\"}]"), 400, "bad_request", ""},
		{"more than 1000", post(many(1001)), 413, "too_large", ""},
		{"no event at all", post("[]"), 400, "bad_request", ""},
		{"nothing", post(""), 400, "bad_request", ""},
		{"a string", post(`"a:1"`), 400, "bad_request", ""},
		{"half", post(good[:20]), 400, "bad_request", ""},
		{"two values", post(good + good), 400, "bad_request", ""},
		{"an array in an array", post("[[" + good + "]]"), 400, "bad_request", ""},
		{"channel that is a number", post(`{"channel":1,"event":1}`), 400, "bad_channel", ""},
		{"our own canary", post(`{"channel":"__millrace:1","event":1}`), 400, "bad_channel", ""},
	})
	h.publish(t, "a:2", `{"nothing":"came before"}`)
	event(`{"nothing":"came before"}`)
	if got := h.post(t, many(1000)); got.Published != 1000 || len(got.IDs) != 1000 {
		t.Errorf("a thousand events were answered %d, %d ids", got.Published, len(got.IDs))
	}
	for range 1000 {
		event(`{"must":"not arrive"}`)
	}
}

// TestPublishOrder: what one publisher says arrives in its order, however it is said.
func TestPublishOrder(t *testing.T) {
	t.Parallel()
	for _, broker := range []string{"memory", "redis"} {
		t.Run(broker, func(t *testing.T) {
			t.Parallel()
			options := gateway.Options{Limits: gateway.Limits{CommandsPerSecond: gateway.NoLimit}}
			var h *house
			if broker == "memory" {
				h = serve(t, options)
			} else {
				h, _ = serveRedis(t, options, gateway.Timings{})
			}
			var streams []*stream
			for _, w := range everyWire {
				streams = append(streams, h.open(t, w, visit{channels: []string{"a:1"}}))
			}
			speaker := h.open(t, raw, visit{})
			var frames []byte
			for n := range 300 {
				frames = append(frames, masked(1, fmt.Sprintf(`{"type":"publish","channel":"a:1","event":{"n":%d},"ref":%d}`, n, n))...)
			}
			speaker.send(t, frames)
			for n := range 300 {
				speaker.wordWith(t, "published", fmt.Sprintf("ref=%d", n))
			}
			var batch []string
			for n := 300; n < 600; n++ {
				batch = append(batch, fmt.Sprintf(`{"channel":"a:1","event":{"n":%d}}`, n))
			}
			h.post(t, "["+strings.Join(batch, ",")+"]")
			for n := 600; n < 900; n++ {
				h.publish(t, "a:1", fmt.Sprintf(`{"n":%d}`, n))
			}
			for _, s := range streams {
				for n := range 900 {
					s.event(t, fmt.Sprintf(`{"n":%d}`, n))
				}
			}
		})
	}
}

// TestPublishCommand: what a client may publish, and what it is told where it may not.
func TestPublishCommand(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Limits: gateway.Limits{MaxEventBytes: 1 << 10}})
	onEvery(t, webSockets, func(t *testing.T, w wire) {
		s := h.open(t, w, visit{channels: []string{"a:1"}})
		for _, row := range []struct{ command, want string }{
			{`{"type":"publish","channel":"a:*","event":1,"ref":1}`, "bad_channel"},
			{`{"type":"publish","channel":"plain","event":1,"ref":1}`, "bad_channel"},
			{`{"type":"publish","channels":["a:1","a:2"],"event":1,"ref":1}`, "bad_request"},
			{`{"type":"publish","channel":"a:1","ref":1}`, "bad_request"},
			{`{"type":"publish","event":1,"ref":1}`, "bad_request"},
			{`{"type":"publish","channel":"a:1","event":"` + strings.Repeat("x", 1<<10) + `","ref":1}`, "too_large"},
		} {
			s.command(t, row.command)
			s.wordWith(t, "error", "code="+row.want, "ref=1")
		}
		s.command(t, `{"type":"publish","channel":{"type":"a","id":"1"},"event":{"type":"connected"},"ref":"x"}`)
		var names []string
		for range 2 {
			names = append(names, string(s.said(t).kind))
		}
		slices.Sort(names)
		if !slices.Equal(names, []string{"event", "word"}) {
			t.Errorf("heard %v, want an event and the answer", names)
		}
	})
}

// TestPublishClaim: with authentication a client publishes where its token says so, and nowhere
// else, whatever it may hear.
func TestPublishClaim(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Auth: gateway.AuthOptions{HMACSecret: secret}})
	token := mint(t, auth.MintClaims{User: "456", Publish: []string{"job_progress:mine", "secret:*"}})
	onEvery(t, webSockets, func(t *testing.T, w wire) {
		s := h.open(t, w, visit{header: []string{bearer(token)}})
		for channel, allowed := range map[string]bool{
			"job_progress:mine": true, "secret:anything": true, "job_progress:other": false, "job_progress:mine2": false, "alerts:456": false,
		} {
			s.command(t, `{"type":"publish","channel":"`+channel+`","event":1,"ref":"r"}`)
			if allowed {
				s.wordWith(t, "published", "ref=r")
			} else {
				s.wordWith(t, "error", "code=access_denied", "channel="+channel, "ref=r")
			}
		}
	})
}

// TestLargeEvents: without a limit, an event of several megabytes arrives on every wire.
func TestLargeEvents(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Limits: gateway.Limits{MaxEventBytes: gateway.NoLimit, MaxQueueBytes: gateway.NoLimit}})
	large := `{"type":"large","data":"` + strings.Repeat("x", 3<<20) + `"}`
	var streams []*stream
	for _, w := range everyWire {
		streams = append(streams, h.open(t, w, visit{channels: []string{"a:1"}}))
	}
	h.post(t, `{"channel":"a:1","event":`+large+`}`)
	h.publish(t, "a:1", `{"n":1}`)
	for _, s := range streams {
		if got := s.said(t); got.text != large {
			t.Errorf("%s heard %d bytes, want %d: %v", s.wire.name, len(got.text), len(large), got)
		}
		s.event(t, `{"n":1}`)
	}
}

// TestPublishWithoutRedis: while Redis is away events reach the streams of this process, the
// answer says so, and nothing comes twice when it is back.
func TestPublishWithoutRedis(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"killed", "stopped"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			h, redis := serveRedis(t, gateway.Options{}, gateway.Timings{})
			var followers []*follower
			for _, w := range everyWire {
				followers = append(followers, &follower{stream: h.open(t, w, visit{channels: []string{"a:1"}})})
			}
			follow := func(until int64) {
				t.Helper()
				for _, f := range followers {
					f.follow(t, until)
				}
			}
			h.publish(t, "a:1", `{"n":1}`)
			follow(1)
			if fault == "killed" {
				redis.Kill()
			} else {
				freeze(t, redis)
			}
			for n := int64(2); n <= 4; n++ {
				if got := h.post(t, fmt.Sprintf(`{"channel":"a:1","event":{"n":%d}}`, n)); *got.Distributed {
					t.Errorf("without Redis the answer was distributed")
				}
				follow(n)
			}
			within(t, 3*time.Second, "the statistics say so", func() bool { return h.stats(t).Status == "degraded" })
			if fault == "killed" {
				redis.Restart(t)
			} else {
				redis.Cont()
			}
			h.awaitDelivery(t)
			within(t, patience, "events are distributed again", func() bool {
				result, err := h.Publish(context.Background(), gateway.Event{Channel: "mark:1", Data: []byte(`1`)})
				return err == nil && result.Distributed
			})
			// The follower fails the test if one of those before came again.
			for n := int64(5); n <= 8; n++ {
				if result := h.publish(t, "a:1", fmt.Sprintf(`{"n":%d}`, n)); !result.Distributed {
					t.Errorf("event %d was not distributed", n)
				}
			}
			follow(8)
		})
	}
}

// TestLocalFirst: own events go to own subscribers at once, in order, and once.
func TestLocalFirst(t *testing.T) {
	t.Parallel()
	h, redis := serveRedis(t, gateway.Options{
		Namespaces: map[string]access.Namespace{"fast": {LocalFirst: true}, "slow": {}},
	}, gateway.Timings{})
	var streams []*stream
	for _, w := range everyWire {
		streams = append(streams, h.open(t, w, visit{channels: []string{"fast:1"}}))
	}
	for n := range 100 {
		h.publish(t, "fast:1", fmt.Sprintf(`{"n":%d}`, n))
	}
	h.publish(t, "fast:1", `{"same":true}`)
	h.publish(t, "fast:1", `{"same":true}`)
	publishAt(t, redis.Addr, "fast:1", `{"from":"elsewhere"}`)
	for _, s := range streams {
		for n := range 100 {
			s.event(t, fmt.Sprintf(`{"n":%d}`, n))
		}
		s.event(t, `{"same":true}`)
		s.event(t, `{"same":true}`)
		s.event(t, `{"from":"elsewhere"}`)
	}
	freeze(t, redis)
	go func() { // waits for Redis, but not before the streams have it
		_, _ = h.Publish(context.Background(), gateway.Event{Channel: "fast:1", Data: []byte(`{"before":"Redis"}`)})
	}()
	for _, s := range streams {
		s.event(t, `{"before":"Redis"}`)
	}
}
