package hub

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/sockettest"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

func replayHarness(t *testing.T, replay Replay, change func(*Options)) *harness {
	h := newHarness(t, 2, change)
	h.rules["kept"] = &Rules{Replay: replay}
	h.rules["named"] = &Rules{Replay: replay, IDField: "key"}
	return h
}

func TestEventsGoOnFromAPosition(t *testing.T) {
	// kept:1 is confirmed after event 1, and then 2 to 9 are its events but for 4 and 5, which are
	// kept:2's. Five are kept of each channel.
	cases := []struct {
		name, channel, since string
		want                 []string
	}{
		{"behind an event of the channel", "kept:1", "kept:1/life.7", []string{"8", "9", replayed("kept:1", 2)}},
		{"behind an event of another channel", "kept:1", "kept:2/life.5", []string{"6", "7", "8", "9", replayed("kept:1", 4)}},
		{"all that is kept", "kept:1", "kept:1/life.2", []string{"3", "6", "7", "8", "9", replayed("kept:1", 5)}},
		{"behind the last", "kept:1", "kept:1/life.9", []string{replayed("kept:1", 0)}},
		{"older than what is kept", "kept:1", "job:1/life.1", []string{gapText("kept:1", "job:1/life.1", "unknown_position")}},
		{"before the channel was heard", "kept:3", "kept:1/life.9", []string{gapText("kept:3", "kept:1/life.9", "unknown_position")}},
		{"a number not given yet", "kept:1", "kept:1/life.99", []string{gapText("kept:1", "kept:1/life.99", "unknown_position")}},
		{"another life", "kept:1", "kept:1/other.7", []string{gapText("kept:1", "kept:1/other.7", "unknown_position")}},
		{"the beginning", "kept:1", "0", []string{"3", "6", "7", "8", "9", replayed("kept:1", 5)}},
		{"a channel that keeps nothing", "job:1", "job:1/life.1", []string{gapText("job:1", "job:1/life.1", "unknown_position")}},
		{"a quiet channel", "kept:4", "kept:1/life.9", []string{replayed("kept:4", 0)}},
		{"behind a value", "named:1", "named:1/=b", []string{`{"key":"c"}`, replayed("named:1", 1)}},
		{"behind a value that is not kept", "named:1", "named:1/=x", []string{gapText("named:1", "named:1/=x", "unknown_position")}},
		{"a value of another channel", "named:1", "named:2/=b", []string{gapText("named:1", "named:2/=b", "unknown_position")}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h := replayHarness(t, Replay{Size: 5, TTL: time.Hour}, nil)
			first := h.join(0, proto.FormText)
			for _, channel := range []string{"job:1", "kept:1", "kept:2", "kept:3", "kept:4", "named:1"} {
				first.subscribe(channel)
			}
			h.confirm("job:1")
			h.publish("job:1", "1")
			h.confirm("kept:1", "kept:2", "kept:4", "named:1")
			for n := 2; n <= 9; n++ {
				h.publish([]string{"kept:1", "kept:2"}[n/4*(5/n)%2], fmt.Sprint(n))
			}
			for _, key := range []string{"a", "b", "c"} {
				h.publish("named:1", fmt.Sprintf(`{"key":%q}`, key))
			}
			h.confirm("kept:3")
			first.read(12)
			again := h.join(1, proto.FormText)
			again.subscribeFrom(c.channel, h.hub.From(parse(t, c.channel), c.since))
			equal(t, "replay", again.read(len(c.want)), c.want)
			h.publish(c.channel, `"live"`)
			equal(t, "live", again.read(1), []string{`"live"`})
			again.silent()
			if n := h.counters().Behind; n != 0 {
				t.Errorf("%d streams have records left", n)
			}
		})
	}
}

// TestIDsOfAnEventStream reads which frames move the one position that its client has.
func TestIDsOfAnEventStream(t *testing.T) {
	h := replayHarness(t, Replay{Size: 5, TTL: time.Hour}, func(o *Options) { o.MaxQueueBytes = 256 << 10 })
	first := h.join(0, proto.FormText)
	channels := []string{"kept:1", "kept:2", "job:1"}
	for _, channel := range channels {
		first.subscribe(channel)
	}
	h.confirm(channels...)
	for n, channel := range []string{"kept:1", "kept:2", "kept:2", "kept:1"} {
		h.publish(channel, fmt.Sprint(n+1))
	}
	first.read(4)
	one := h.join(0, proto.FormSSEPlain)
	h.on(0, func(s *Shard) {
		for _, channel := range channels {
			s.Subscribe(one.slot, parse(t, channel), h.hub.From(parse(t, channel), "kept:1/life.1"))
		}
	})
	h.publish("job:1", "5") // nobody must get it ahead of the gap, which covers it
	h.on(0, func(s *Shard) {
		for _, channel := range channels {
			s.Begin(one.slot, parse(t, channel))
		}
	})
	expect := func(id, data string) {
		t.Helper()
		if got := one.readSSE(); got.ID != id || string(got.Data) != data {
			t.Errorf("id %q, data %q, not %q, %q", got.ID, got.Data, id, data)
		}
	}
	expect("", "4")
	expect("", replayed("kept:1", 1))
	expect("", "2")
	expect("", "3")
	expect("", replayed("kept:2", 2))
	expect("job:1/life.5", gapText("job:1", "kept:1/life.1", "unknown_position"))
	h.publish("kept:1", "6")
	expect("kept:1/life.6", "6")

	one.fillSSE()
	h.publish("kept:1", "7") // finds no room
	h.on(0, func(s *Shard) {
		m := s.members.At(uint32(one.slot))
		w := walk{event: mustEvent(t, "kept:2", "8"), exact: s.names.Find("kept:2")}
		if form := s.formOf(&w, one.slot, m); form != proto.FormSSEPlainWithoutID {
			t.Errorf("with a gap that is not told yet, the form is %v", form)
		}
	})
}

func TestValueIDs(t *testing.T) {
	h := replayHarness(t, Replay{Size: 5, TTL: time.Hour}, nil)
	one := h.join(0, proto.FormEnvelope)
	one.subscribe("named:1")
	h.confirm("named:1")
	for _, c := range []struct{ payload, id string }{
		{`{"key":"a b"}`, "named:1/=a b"},
		{`{"key":7}`, "named:1/=7"},
		{`{"key":null}`, "named:1/life.3"},
		{`{"key":""}`, "named:1/life.4"},
		{`{"key":"new\nline"}`, "named:1/life.5"},
		{`[]`, "named:1/life.6"},
	} {
		h.publish("named:1", c.payload)
		if got := field(t, one.read(1)[0], "id"); got != c.id {
			t.Errorf("%s: id %q, not %q", c.payload, got, c.id)
		}
	}
}

// TestResumeInTheMiddle publishes while clients come back: each gets everything once, in order.
func TestResumeInTheMiddle(t *testing.T) {
	const events = 3000
	h := replayHarness(t, Replay{Size: events, TTL: time.Hour}, nil)
	first := h.join(0, proto.FormText)
	first.subscribe("kept:1")
	h.confirm("kept:1")
	h.publish("kept:1", "1")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 2; n <= events; n++ {
			if _, err := h.hub.Event("kept:1", []byte(fmt.Sprint(n)), time.Now()); err != nil {
				t.Error(err)
			}
		}
	}()
	var all []*stream
	for n := range 20 {
		one := h.join(n%2, proto.FormText)
		one.subscribeFrom("kept:1", h.hub.From(parse(t, "kept:1"), "kept:1/life.1"))
		all = append(all, one)
	}
	<-done
	for _, one := range all {
		got := one.read(events) // one more for replayed
		i := slices.IndexFunc(got, func(m string) bool { return strings.Contains(m, "replayed") })
		if i < 0 {
			t.Fatal("no replayed")
		}
		if got[i] != replayed("kept:1", i) {
			t.Errorf("%s after %d", got[i], i)
		}
		equal(t, "all", slices.Delete(got, i, i+1), numbers(2, events))
		one.silent()
	}
}

func TestChannelIsHeldForThoseWhoComeBack(t *testing.T) {
	h := replayHarness(t, Replay{Size: 5, TTL: 700 * time.Millisecond}, nil)
	one := h.join(0, proto.FormText)
	one.subscribe("kept:1")
	h.confirm("kept:1")
	h.publish("kept:1", "1")
	one.read(1)
	one.unsubscribe("kept:1")
	h.publish("kept:1", "2") // nobody hears it
	if n := h.hub.Stats(); n.ReplayEvents != 2 || n.ReplayBytes != 2*(keptOverhead+2) {
		t.Errorf("kept: %+v", n)
	}
	if outcome := one.subscribeFrom("kept:1", h.hub.From(parse(t, "kept:1"), "kept:1/life.1")); outcome != Confirmed {
		t.Errorf("outcome %v", outcome)
	}
	equal(t, "replay", one.read(2), []string{"2", replayed("kept:1", 1)})
	equal(t, "edges", h.edges(), []string{"kept:1"})
	one.unsubscribe("kept:1")
	sockettest.Eventually(t, "the channel is let go of", func() bool { return len(h.edges()) == 2 })
	sockettest.Eventually(t, "what is kept is forgotten", func() bool {
		h.hub.rings.mutex.Lock()
		defer h.hub.rings.mutex.Unlock()
		r := h.hub.rings
		return r.events == 0 && r.bytes == 0 && len(r.byName) == 0 && len(r.holds) == 0
	})
}

func TestWhatExpiredIsAGap(t *testing.T) {
	h := replayHarness(t, Replay{Size: 5, TTL: 100 * time.Millisecond}, nil)
	one := h.join(0, proto.FormText)
	one.subscribe("kept:1")
	h.confirm("kept:1")
	h.publish("kept:1", "1")
	h.publish("kept:1", "2")
	sockettest.Eventually(t, "the ring is gone", func() bool {
		h.hub.rings.mutex.Lock()
		defer h.hub.rings.mutex.Unlock()
		return len(h.hub.rings.byName) == 0
	})
	for since, want := range map[string]string{
		"kept:1/life.1": gapText("kept:1", "kept:1/life.1", "unknown_position"),
		"kept:1/life.2": replayed("kept:1", 0),
	} {
		again := h.join(1, proto.FormText)
		again.subscribeFrom("kept:1", h.hub.From(parse(t, "kept:1"), since))
		equal(t, since, again.read(1), []string{want})
	}
}

func TestLossEndsWhatIsKept(t *testing.T) {
	h := replayHarness(t, Replay{Size: 5, TTL: time.Hour}, nil)
	one := h.join(0, proto.FormText)
	one.subscribe("kept:1")
	h.confirm("kept:1")
	h.publish("kept:1", "1")
	h.publish("kept:1", "2")
	h.hub.Lost(plain("kept:1"))
	h.hub.Confirmed(plain("kept:1"), true)
	h.publish("kept:1", "3")
	again := h.join(1, proto.FormText)
	again.subscribeFrom("kept:1", h.hub.From(parse(t, "kept:1"), "kept:1/life.1"))
	equal(t, "across the loss", again.read(1), []string{gapText("kept:1", "kept:1/life.1", "unknown_position")})
	third := h.join(1, proto.FormText)
	third.subscribeFrom("kept:1", h.hub.From(parse(t, "kept:1"), "kept:1/life.3"))
	equal(t, "after it", third.read(1), []string{replayed("kept:1", 0)})
}

func TestReplayBytesAreBounded(t *testing.T) {
	const limit = 64 << 10
	h := replayHarness(t, Replay{Size: 100, TTL: time.Hour}, func(o *Options) { o.MaxReplayBytes = limit })
	one := h.join(0, proto.FormText)
	for n := range 50 {
		channel := fmt.Sprintf("kept:%d", n)
		one.subscribe(channel)
		h.confirm(channel)
	}
	for n := range 5000 {
		channel := fmt.Sprintf("kept:%d", n*n%50)
		h.publish(channel, fmt.Sprintf("%q", strings.Repeat("x", n%300)))
		if _, bytes := h.hub.rings.size(); bytes > limit {
			t.Fatalf("%d bytes are kept after %d events", bytes, n)
		}
	}
	h.hub.rings.mutex.Lock()
	defer h.hub.rings.mutex.Unlock()
	r := h.hub.rings
	events, bytes, oldest := 0, 0, uint64(1<<63)
	for _, ring := range r.byName {
		for _, k := range ring.kept[ring.first:] {
			events++
			bytes += k.bytes()
			oldest = min(oldest, k.post.order)
		}
	}
	if events != r.events || bytes != r.bytes {
		t.Errorf("%d events and %d bytes are counted, %d and %d are there", r.events, r.bytes, events, bytes)
	}
	// The oldest go first: what is left are the last, but for channels that have rings of their own.
	if kept := uint64(5000) - oldest + 1; kept > uint64(events)*2 {
		t.Errorf("the oldest of %d kept events is %d back", events, kept)
	}
}

func TestReplayIntoAFullQueue(t *testing.T) {
	h := replayHarness(t, Replay{Size: 100, TTL: time.Hour}, func(o *Options) { o.MaxQueueBytes = 256 << 10 })
	first := h.join(0, proto.FormText)
	first.subscribe("kept:1")
	h.confirm("kept:1")
	for n := range 5 {
		h.publish("kept:1", fmt.Sprint(n))
	}
	again := h.join(1, proto.FormText)
	again.fill()
	again.subscribeFrom("kept:1", h.hub.From(parse(t, "kept:1"), "kept:1/life.2"))
	h.publish("kept:1", "5")
	equal(t, "replay", again.drain(2), []string{replayed("kept:1", 0), gapText("kept:1", "kept:1/life.2", "slow")})
	h.publish("kept:1", "6")
	equal(t, "live", again.read(1), []string{"6"})
}

func TestConflation(t *testing.T) {
	for _, c := range []struct {
		name      string
		by        string
		want      []string
		conflated uint64
	}{
		{"by channel", "", []string{`{"key":"c","n":7}`}, 7},
		{"by key", "key", []string{`{"n":2}`, `{"key":"a","n":4}`, `{"key":"b","n":6}`, `{"key":"c","n":7}`}, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t, 1, func(o *Options) { o.MaxQueueBytes = 256 << 10 })
			h.rules["job"] = &Rules{Conflate: true, ConflateBy: c.by}
			slow := h.join(0, proto.FormText)
			slow.subscribe("job:1")
			h.confirm("job:1")
			slow.fill()
			for n, key := range []string{"a", "b", "", "a", "a", "b", "b", "c"} {
				payload := fmt.Sprintf(`{"key":%q,"n":%d}`, key, n)
				if key == "" {
					payload = fmt.Sprintf(`{"n":%d}`, n)
				}
				h.publish("job:1", payload)
			}
			equal(t, "newest", slow.drain(len(c.want)), c.want)
			h.publish("job:1", `"live"`)
			equal(t, "live", slow.read(1), []string{`"live"`})
			if got := h.counters(); got.Conflated != c.conflated || got.Dropped != 0 || got.Gaps[proto.GapSlow] != 0 {
				t.Errorf("counters %+v", got)
			}
		})
	}
}

func TestConflationIsBoundedAndTellsLosses(t *testing.T) {
	h := newHarness(t, 1, func(o *Options) { o.MaxQueueBytes = 256 << 10 })
	h.rules["job"] = &Rules{Conflate: true, ConflateBy: "key"}
	slow := h.join(0, proto.FormText)
	slow.subscribe("job:1")
	h.confirm("job:1")
	slow.fill()
	for n := range conflateKeysMax + 3 {
		h.publish("job:1", fmt.Sprintf(`{"key":%d}`, n))
	}
	got := slow.drain(conflateKeysMax + 1)
	if field(t, got[0], "reason") != "slow" || got[1] != `{"key":3}` || got[conflateKeysMax] != fmt.Sprintf(`{"key":%d}`, conflateKeysMax+2) {
		t.Errorf("got %q", got)
	}
	slow.fill()
	h.publish("job:1", `{"key":1}`)
	h.hub.Lost(plain("job:1"))
	h.hub.Confirmed(plain("job:1"), true)
	h.publish("job:1", `{"key":2}`)
	got = slow.drain(3)
	if got[0] != `{"key":1}` || field(t, got[1], "reason") != "broker" || got[2] != `{"key":2}` {
		t.Errorf("around a loss: %q", got)
	}
	slow.fill()
	h.publish("job:1", `{"key":1}`)
	for range 3 {
		h.hub.Confirmed(plain("job:1"), true)
		h.publish("job:1", `{"key":2}`)
	}
	got = slow.drain(3)
	if got[0] != `{"key":1}` || field(t, got[1], "reason") != "broker" || got[2] != `{"key":2}` {
		t.Errorf("around three losses: %q", got)
	}
	slow.silent()
}

func TestWrongMode(t *testing.T) {
	h := newHarness(t, 1, nil)
	h.rules["log"], h.rules["state"] = &Rules{Kind: broker.Log}, &Rules{Kind: broker.State}
	for _, channel := range []string{"log:1", "state:1"} {
		if _, err := h.hub.Event(channel, []byte("1"), time.Now()); err == nil {
			t.Errorf("an event on %s was taken", channel)
		}
	}
	if n := h.hub.Stats().Dropped[DropWrongMode]; n != 2 {
		t.Errorf("%d are counted", n)
	}
}

func TestRulesCheck(t *testing.T) {
	cases := []struct {
		name  string
		rules Rules
		good  bool
	}{
		{"events", Rules{Replay: Replay{32, time.Second}, IDField: "id", Throttle: time.Second, Conflate: true, ConflateBy: "id"}, true},
		{"sharded, batched", Rules{Kind: broker.Sharded, Batch: time.Second}, true},
		{"state, throttled", Rules{Kind: broker.State, Throttle: time.Second}, true},
		{"log", Rules{Kind: broker.Log}, true},
		{"a pattern", Rules{Kind: broker.Pattern}, false},
		{"a throttled log", Rules{Kind: broker.Log, Throttle: 1}, false},
		{"a batched state", Rules{Kind: broker.State, Batch: 1}, false},
		{"a conflated log", Rules{Kind: broker.Log, Conflate: true}, false},
		{"throttle and batch", Rules{Throttle: 1, Batch: 1}, false},
		{"conflate_by alone", Rules{ConflateBy: "x"}, false},
		{"replay without ttl", Rules{Replay: Replay{Size: 1}}, false},
		{"replay too large", Rules{Replay: Replay{Size: replaySizeMax + 1, TTL: 1}}, false},
		{"negative", Rules{Throttle: -1}, false},
		{"a log with an end", Rules{Kind: broker.Log, Ends: func([]byte) bool { return false }, MaxBytes: 1}, true},
		{"events with an end", Rules{Ends: func([]byte) bool { return false }}, false},
		{"ids of a log", Rules{Kind: broker.Log, IDField: "x"}, false},
	}
	for _, c := range cases {
		if err := c.rules.Check(); (err == nil) != c.good {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestStalledStreamOfACrowd lets one client of many stop reading: it holds references up to its
// budget and two records, whatever is published, and nobody else misses anything.
func TestStalledStreamOfACrowd(t *testing.T) {
	const events, payloadBytes = 4000, 4 << 10
	h := newHarness(t, 1, func(o *Options) { o.MaxQueueBytes = 256 << 10 })
	h.rules["log"] = &Rules{Kind: broker.Log}
	stalled, quick := h.join(0, proto.FormText), h.join(0, proto.FormText)
	stalled.client.SetReadBuffer(16 << 10)
	for _, one := range []*stream{stalled, quick} {
		one.subscribe("job:1")
		one.subscribe("log:1")
	}
	h.on(0, func(s *Shard) {
		// The rest of the crowd are slots without a stream: what is sent to them is let go of.
		for slot := netio.Slot(100); slot < 500; slot++ {
			s.Join(slot, proto.FormText)
			s.Subscribe(slot, parse(t, "job:1"), From{})
		}
	})
	h.confirm("job:1")
	h.openLog("log:1")
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for n := range events {
		payload := fmt.Sprintf("%q", strings.Repeat(string(rune('a'+n%26)), payloadBytes))
		h.publish("job:1", payload)
		if err := h.hub.Log(broker.LogUpdate{
			Channel: "log:1", From: broker.Position{Milliseconds: uint64(n)},
			Entries: []broker.Entry{{Position: broker.Position{Milliseconds: uint64(n + 1)}, Payload: []byte("1")}},
		}, time.Now()); err != nil {
			t.Fatal(err)
		}
		equal(t, "quick", quick.read(2), []string{payload, "1"})
	}
	if grown := int64(heap()) - int64(before); grown > 4<<20 {
		t.Errorf("the heap grew by %d bytes while %d were published", grown, events*payloadBytes)
	}
	h.on(0, func(s *Shard) {
		q := s.loop.Queue(stalled.slot)
		if q.Bytes > 256<<10 || q.Bytes == 0 || len(s.behind) != 1 || len(s.behind[stalled.slot].records) != 2 {
			t.Errorf("the stalled stream holds %+v", q)
		}
	})
}

// TestComingAndGoingDoesNotPileUp: a channel that is held has one end to wait for, however often its
// listener came and went.
func TestComingAndGoingDoesNotPileUp(t *testing.T) {
	h := replayHarness(t, Replay{Size: 5, TTL: time.Hour}, nil)
	one := h.join(0, proto.FormText)
	for range 100 {
		one.subscribe("kept:1")
		one.unsubscribe("kept:1")
	}
	h.hub.rings.mutex.Lock()
	defer h.hub.rings.mutex.Unlock()
	if n := len(h.hub.rings.holdEnds); n != 1 {
		t.Errorf("%d ends are waited for", n)
	}
}
