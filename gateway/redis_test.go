package gateway_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/gateway/access"
	"github.com/millrace/millrace/internal/freeport"
	"github.com/millrace/millrace/internal/redistest"
)

// truthTime is how soon readiness and statistics must tell of a Redis that is away.
const truthTime = 3 * time.Second

// TestTwoGateways: one PUBLISH reaches the streams of both, on every wire, and so does what is
// published through either.
func TestTwoGateways(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	options := gateway.Options{Redis: redis.URL(), ChannelPrefix: "app:", Broadcast: []string{"system:all"}}
	houses := []*house{serve(t, options), serve(t, options)}
	var streams []*stream
	for _, h := range houses {
		h.awaitDelivery(t)
		for _, w := range everyWire {
			streams = append(streams, h.open(t, w, visit{channels: []string{"job_progress:1"}, query: "userId=456"}))
		}
	}
	all := func(text string) {
		t.Helper()
		for _, s := range streams {
			s.event(t, text)
		}
	}
	publishAt(t, redis.Addr, "app:job_progress:1", `{"n":1}`)
	all(`{"n":1}`)
	publishAt(t, redis.Addr, "job_progress:1", `{"without":"prefix"}`)
	for i, h := range houses {
		h.publish(t, "job_progress:1", fmt.Sprintf(`{"through":%d}`, i))
		all(fmt.Sprintf(`{"through":%d}`, i))
		for _, send := range []func() error{
			func() error { _, err := h.SendToUser(t.Context(), "456", []byte(`{"for":"456"}`)); return err },
			func() error { _, err := h.Broadcast(t.Context(), []byte(`{"for":"all"}`)); return err },
		} {
			if err := send(); err != nil {
				t.Fatal(err)
			}
		}
		all(`{"for":"456"}`)
		all(`{"for":"all"}`)
	}
	if houses[0].stats(t).Broker.Kind != "redis" {
		t.Error("the statistics do not say that this is Redis")
	}
}

// TestSharded: channels of a sharded namespace are published with SPUBLISH.
func TestSharded(t *testing.T) {
	t.Parallel()
	h, redis := serveRedis(t, gateway.Options{Namespaces: map[string]access.Namespace{"split": {Sharded: true}}}, gateway.Timings{})
	var streams []*stream
	for _, w := range everyWire {
		streams = append(streams, h.open(t, w, visit{channels: []string{"split:1"}}))
	}
	redis.CLI(t, "PUBLISH", "split:1", `{"wrong":"way"}`)
	redis.CLI(t, "SPUBLISH", "split:1", `{"n":1}`)
	h.publish(t, "split:1", `{"n":2}`)
	for _, s := range streams {
		s.event(t, `{"n":1}`)
		s.event(t, `{"n":2}`)
	}
}

// TestWildcard: all channels of a type, each event once, and in an envelope that names its own.
func TestWildcard(t *testing.T) {
	t.Parallel()
	h, redis := serveRedis(t, gateway.Options{Namespaces: map[string]access.Namespace{"news": {Wildcard: true}}}, gateway.Timings{})
	onEvery(t, everyWire, func(t *testing.T, w wire) {
		both := h.open(t, w, visit{channels: []string{"news:*", "news:" + w.version + ".1"}})
		if w.websocket { // such a stream gets envelopes throughout
			both.wire.envelope = true
		}
		for n := range 3 {
			channel := fmt.Sprintf("news:%s.%d", w.version, n)
			publishAt(t, redis.Addr, channel, fmt.Sprintf(`{"n":%d}`, n))
			if got := both.event(t, fmt.Sprintf(`{"n":%d}`, n)); w.websocket && got.channel != channel {
				t.Errorf("the envelope names %q, want %q", got.channel, channel)
			}
		}
	})
}

// loaded is a gateway with a follower on every wire, and a worker that publishes all the time.
func loaded(t *testing.T) (*house, *redistest.Server, *worker, []*follower) {
	t.Helper()
	h, redis := serveRedis(t, gateway.Options{}, gateway.Timings{})
	var followers []*follower
	for _, w := range everyWire {
		followers = append(followers, &follower{stream: h.open(t, w, visit{channels: []string{"job_progress:load"}})})
	}
	w := startWorker(t, redis.Addr, "job_progress:load")
	followMore(t, w, followers, 50)
	return h, redis, w, followers
}

// followMore lets so many more events be published, and each follower hear them.
func followMore(t *testing.T, w *worker, followers []*follower, more int64) {
	t.Helper()
	target := w.last.Load() + more
	within(t, patience, "the worker goes on", func() bool { return w.last.Load() >= target })
	for _, f := range followers {
		f.follow(t, target)
	}
}

func wantGaps(t *testing.T, followers []*follower, least int) {
	t.Helper()
	for _, f := range followers {
		if f.gaps < least {
			t.Errorf("%s heard %d gaps, want %d: its events were in doubt", f.wire.name, f.gaps, least)
		}
		t.Logf("%s: %d events, %d gaps, %d events missed in them", f.wire.name, f.last, f.gaps, f.missed)
	}
}

// TestKilledSubscriptions: Redis drops the gateway's subscriptions under load; a gap tells, and
// events go on.
func TestKilledSubscriptions(t *testing.T) {
	t.Parallel()
	h, redis, w, followers := loaded(t)
	for round := range 3 {
		redis.CLI(t, "CLIENT", "KILL", "TYPE", "pubsub")
		for _, f := range followers {
			for f.gaps <= round {
				f.follow(t, f.last+1)
			}
		}
		followMore(t, w, followers, 50)
	}
	wantGaps(t, followers, 3)
	if gaps := h.stats(t).Delivery.Gaps; gaps < 12 {
		t.Errorf("the statistics count %d gaps, 12 and more were told", gaps)
	}
}

// TestRestartedRedis: Redis goes and comes back empty under load; streams stay, and each event is
// received or inside a declared gap.
func TestRestartedRedis(t *testing.T) {
	t.Parallel()
	h, redis, w, followers := loaded(t)
	redis.Kill()
	h.wantAway(t)
	redis.Restart(t)
	h.wantBack(t)
	followMore(t, w, followers, 100)
	wantGaps(t, followers, 1)
}

// TestStoppedRedis: Redis holds its connections and delivers nothing.
func TestStoppedRedis(t *testing.T) {
	t.Parallel()
	h, redis, w, followers := loaded(t)
	freeze(t, redis)
	h.wantAway(t)
	redis.Cont()
	h.wantBack(t)
	followMore(t, w, followers, 100)
	wantGaps(t, followers, 1)
}

// wantAway checks that all tell of a Redis that is away, in time, and that the gateway stays in
// its balancer.
func (h *house) wantAway(t testing.TB) {
	t.Helper()
	within(t, truthTime, "/readyz?redis is 503", func() bool { return h.ask(t, get("/readyz?redis")).status == 503 })
	h.wantStatus(t, "degraded", false)
	got := h.ask(t, get("/readyz?redis"))
	if code := got.code(t); code != "broker_unavailable" || got.header.Get("Retry-After") == "" {
		t.Errorf("/readyz?redis says %s, Retry-After %q", code, got.header.Get("Retry-After"))
	}
	if status := h.ask(t, get("/readyz")).status; status != 200 {
		t.Errorf("/readyz says %d: one hiccup of Redis would take the fleet away", status)
	}
}

func (h *house) wantBack(t testing.TB) {
	t.Helper()
	within(t, patience, "/readyz?redis is 200", func() bool { return h.ask(t, get("/readyz?redis")).status == 200 })
	h.wantStatus(t, "healthy", true)
}

func (h *house) wantStatus(t testing.TB, status string, delivering bool) {
	t.Helper()
	within(t, truthTime, "the statistics say "+status, func() bool {
		stats := h.stats(t)
		return stats.Status == status && stats.Channels.IsConnected == delivering &&
			stats.Broker.Delivering == delivering && (stats.Broker.Reason == "") == delivering
	})
	metric := 0.0
	if delivering {
		metric = 1
	}
	if got := h.metrics(t)["millrace_broker_delivering"]; got != metric {
		t.Errorf("millrace_broker_delivering is %v", got)
	}
}

// TestRedisComesLate: a gateway that is up before its Redis waits for it.
func TestRedisComesLate(t *testing.T) {
	t.Parallel()
	port, err := freeport.Find()
	if err != nil {
		t.Fatal(err)
	}
	h := serve(t, gateway.Options{Redis: fmt.Sprintf("redis://127.0.0.1:%d", port)})
	early := make(map[wire]*stream)
	for _, w := range everyWire {
		early[w] = h.knock(t, w, visit{channels: []string{"job_progress:1"}})
		early[w].wantOpen(t)
	}
	for _, w := range webSockets {
		early[w].greeted(t) // it has no channel yet to wait for
		early[w].command(t, `{"type":"subscribe","channel":"job_progress:1"}`)
	}
	redis, err := redistest.RunOn(port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(redis.Close)
	for _, w := range sseWires {
		early[w].greeted(t)
	}
	for _, w := range webSockets {
		early[w].word(t, "subscribed")
	}
	publishAt(t, redis.Addr, "job_progress:1", `{"n":1}`)
	for _, w := range everyWire {
		early[w].event(t, `{"n":1}`)
	}
	within(t, patience, "it is ready", func() bool { return h.ask(t, get("/readyz")).status == 200 })
}

// noReplay are namespaces that keep nothing for clients that come back: no channel outlives its
// last listener.
func noReplay() map[string]access.Namespace {
	return map[string]access.Namespace{access.DefaultType: {Replay: access.Replay{Size: new(0)}}}
}

// TestNothingLeftInRedis: when nobody listens any more, however often they came and went, Redis
// has no subscription of ours but the canary's.
func TestNothingLeftInRedis(t *testing.T) {
	t.Parallel()
	h, redis := serveRedis(t, gateway.Options{Namespaces: noReplay()}, gateway.Timings{})
	ours := func() string { return redis.CLI(t, "PUBSUB", "CHANNELS", "flap:*") }
	for _, w := range everyWire {
		s := h.open(t, w, visit{channels: []string{"flap:1", "flap:1", "flap:2"}})
		if w.websocket {
			for n := range 20 {
				s.subscribe(t, "flap:1", "flap:1", fmt.Sprintf("flap:%d", n))
				s.command(t, fmt.Sprintf(`{"type":"unsubscribe","channels":["flap:1","flap:1","flap:%d"]}`, n))
			}
			s.until(t, "the last answer", func(h heard) bool { return h.name == "unsubscribed" && h.field("channel") == "flap:19" })
		}
		if ours() == "" {
			t.Error("nothing is subscribed to at all")
		}
		s.conn.Close()
	}
	within(t, patience, "Redis has no subscription left", func() bool { return ours() == "" })
	if stats := h.stats(t); stats.Channels.ActiveChannels+stats.Channels.TotalSubscriptions != 0 {
		t.Errorf("the statistics still count %+v", stats.Channels)
	}
}

// TestAsksAreBounded: commands that wait for Redis are kept up to a bound, and more are refused.
func TestAsksAreBounded(t *testing.T) {
	t.Parallel()
	h, redis := serveRedis(t, gateway.Options{Limits: gateway.Limits{MaxSubscriptions: 3}}, gateway.Timings{})
	s := h.open(t, raw, visit{})
	freeze(t, redis)
	for n := range 5 {
		s.command(t, fmt.Sprintf(`{"type":"subscribe","channel":"a:1","ref":%d}`, n))
	}
	s.wordWith(t, "error", "code=rate_limited", "channel=a:1", "ref=3")
	s.wordWith(t, "error", "code=rate_limited", "channel=a:1", "ref=4")
	redis.Cont()
	for n := range 3 {
		s.wordWith(t, "subscribed", "channel=a:1", fmt.Sprintf("ref=%d", n))
	}
}
