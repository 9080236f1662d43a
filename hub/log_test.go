package hub

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/sockettest"
	"github.com/millrace/millrace/proto"
)

func logHarness(t *testing.T, loops int, change func(*Options)) *harness {
	h := newHarness(t, loops, change)
	h.rules["log"] = &Rules{Kind: broker.Log}
	return h
}

// numbers gives the texts of first to last.
func numbers(first, last int) (all []string) {
	for n := first; n <= last; n++ {
		all = append(all, fmt.Sprint(n))
	}
	return all
}

func replayed(channel string, count int) string {
	return fmt.Sprintf(`{"type":"replayed","channel":%q,"count":%d}`, channel, count)
}

func gapText(channel, after, reason string) string {
	if after != "" {
		after = fmt.Sprintf(`"after":%q,`, after)
	}
	return fmt.Sprintf(`{"type":"gap","channel":%q,%s"reason":%q}`, channel, after, reason)
}

func TestLogIsLiveWithoutAPosition(t *testing.T) {
	h := logHarness(t, 2, nil)
	one := h.join(0, proto.FormEnvelope)
	h.append("log:1", numbers(1, 3)...) // nobody wants it yet
	one.subscribe("log:1")
	h.openLog("log:1")
	h.logs.add("log:1", "4")
	h.tellLog("log:1", 77)
	equal(t, "live", one.read(1), []string{`{"type":"event","channel":"log:1","id":"log:1/4-0/77","data":4}`})
	sse := h.join(1, proto.FormSSEPlain)
	sse.subscribe("log:1")
	h.logs.add("log:1", "{")
	h.logs.add("log:1", "6")
	h.logs.mutex.Lock()
	update := broker.LogUpdate{Channel: "log:1", From: broker.Position{Milliseconds: 4}, Horizon: 78}
	update.Entries, _ = h.logs.logs["log:1"].behind(update.From, 10)
	h.logs.logs["log:1"].told = broker.Position{Milliseconds: 6}
	h.logs.mutex.Unlock()
	if err := h.hub.Log(update, time.Now()); !errors.Is(err, proto.ErrNotJSON) {
		t.Errorf("an entry that is no JSON: %v", err)
	}
	if got := sse.readSSE(); got.ID != "log:1/6-0/78" || string(got.Data) != "6" {
		t.Errorf("on SSE: %+v", got)
	}
	if c := h.counters(); c.Behind != 0 {
		t.Errorf("%d streams have records", c.Behind)
	}
}

func TestLogGoesOnFromAPosition(t *testing.T) {
	cases := []struct {
		name  string
		since string
		want  []string
	}{
		{"the beginning", "0", append(numbers(1, 40), replayed("log:1", 40))},
		{"an entry", "log:1/30-0/5", append(numbers(31, 40), replayed("log:1", 10))},
		{"an entry that is the last", "log:1/40-0/5", []string{replayed("log:1", 0)}},
		{"another log's horizon", "log:2/7-0/37", append(numbers(38, 40), replayed("log:1", 3))},
		{"a horizon that is ahead", "log:2/7-0/1000", []string{replayed("log:1", 0)}},
		{"another log without a horizon", "log:2/7-0/0", []string{gapText("log:1", "log:2/7-0/0", "unknown_position")}},
		{"an entry that was trimmed", "log:1/2-0/5", append(append([]string{gapText("log:1", "log:1/2-0/0", "trimmed")}, numbers(6, 40)...), replayed("log:1", 35))},
		{"an entry of another life of the log", "log:1/99-0/5", []string{gapText("log:1", "log:1/99-0/0", "rewound"), replayed("log:1", 0)}},
		{"a position of events", "log:1/life.3", []string{gapText("log:1", "log:1/life.3", "unknown_position")}},
		{"no id at all", "nonsense", []string{gapText("log:1", "", "unknown_position")}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h := logHarness(t, 1, nil)
			for _, payload := range numbers(1, 40) {
				h.logs.add("log:1", payload)
			}
			if c.since != "0" {
				h.logs.trim("log:1", 35)
			}
			h.on(0, func(s *Shard) { s.horizon = 1000 }) // no position is one that is yet to come
			one := h.join(0, proto.FormText)
			one.subscribeFrom("log:1", h.hub.From(parse(t, "log:1"), c.since))
			h.openLog("log:1")
			equal(t, "replay", one.read(len(c.want)), c.want)
			if strings.Contains(c.since, "1000") {
				return // the horizon says that the client has what comes
			}
			h.append("log:1", "41", "42")
			equal(t, "live", one.read(2), []string{"41", "42"})
			one.silent()
			if n := h.counters().Behind; n != 0 {
				t.Errorf("%d streams have records left", n)
			}
		})
	}
}

// TestReplayIsNotOverBeforeAllIsRead comes back to a gateway that was told less of a log than the
// client: what it knows so far is not all that the client may have, and so must get before it is
// told that this was the replay.
func TestReplayIsNotOverBeforeAllIsRead(t *testing.T) {
	cases := []struct {
		name  string
		form  proto.Form
		since string
		want  []string
	}{
		{"a horizon that is ahead of what was told", proto.FormText, "log:2/7-0/3", append(numbers(4, 5), replayed("log:1", 2))},
		{"a horizon before what was told", proto.FormText, "log:2/7-0/1", append(numbers(2, 5), replayed("log:1", 4))},
		{"an event stream that had more than its id says", proto.FormSSEPlain, "log:1/3-0/3", append(numbers(4, 5), replayed("log:1", 2))},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h := logHarness(t, 1, nil)
			h.logs.add("log:1", "1")
			here := h.join(0, proto.FormText)
			here.subscribe("log:1")
			h.openLog("log:1")
			h.append("log:1", numbers(2, 3)...)
			for _, payload := range numbers(4, 5) {
				h.logs.add("log:1", payload) // only the other gateway knows
			}
			one := h.join(0, c.form)
			gate := make(chan struct{})
			h.logs.mutex.Lock()
			h.logs.gate = gate
			h.logs.mutex.Unlock()
			one.subscribeFrom("log:1", h.hub.From(parse(t, "log:1"), c.since))
			h.tellLog("log:1", 0) // while it reads
			close(gate)
			var got []string
			for range c.want {
				if c.form == proto.FormText {
					got = append(got, one.read(1)...)
				} else {
					got = append(got, one.readSSE().Data)
				}
			}
			equal(t, "replay", got, c.want)
		})
	}
}

// TestClientThatIsAhead comes back with an entry that Redis, as this gateway sees it, does not have
// yet. It is no other log, and what then comes is no news.
func TestClientThatIsAhead(t *testing.T) {
	h := logHarness(t, 1, nil)
	here, one := h.join(0, proto.FormText), h.join(0, proto.FormText)
	here.subscribe("log:1")
	h.openLog("log:1")
	h.append("log:1", numbers(1, 3)...)
	one.subscribeFrom("log:1", h.hub.From(parse(t, "log:1"), "log:1/5-0/5"))
	sockettest.Eventually(t, "a first look", func() bool {
		h.logs.mutex.Lock()
		defer h.logs.mutex.Unlock()
		return h.logs.reads > 0 && h.logs.atOnce == 0
	})
	h.append("log:1", numbers(4, 5)...)
	equal(t, "replay", one.read(1), []string{replayed("log:1", 0)})
	h.append("log:1", "6")
	equal(t, "live", one.read(1), numbers(6, 6))
	one.silent()
}

func TestLaggingStreamLosesNothingOfALog(t *testing.T) {
	for _, form := range []proto.Form{proto.FormText, proto.FormEnvelope} {
		h := logHarness(t, 1, func(o *Options) { o.MaxQueueBytes = 256 << 10 })
		slow, quick := h.join(0, form), h.join(0, proto.FormText)
		slow.subscribe("log:1")
		quick.subscribe("log:1")
		h.openLog("log:1")
		slow.fill()
		const entries = 1000
		for n := 1; n <= entries; n++ {
			h.append("log:1", fmt.Sprint(n))
			equal(t, "quick", quick.read(1), numbers(n, n))
		}
		got := slow.drain(entries)
		if form == proto.FormText {
			equal(t, "slow", got, numbers(1, entries))
		}
		h.append("log:1", "1001")
		slow.read(1)
		slow.silent()
		if c := h.counters(); c.CaughtUp == 0 || c.Dropped != 0 || c.Behind != 0 {
			t.Errorf("counters %+v", c)
		}
	}
}

// TestIDsWhileALogIsBehind reads the ids of an event stream with two logs and a channel of events.
func TestIDsWhileALogIsBehind(t *testing.T) {
	h := logHarness(t, 1, func(o *Options) { o.MaxQueueBytes = 256 << 10 })
	for _, payload := range numbers(1, 3) {
		h.logs.add("log:1", payload)
	}
	gate := make(chan struct{})
	h.logs.gate = gate
	one := h.join(0, proto.FormSSEPlain)
	from := h.hub.From(parse(t, "log:1"), "log:1/1-0/55")
	one.subscribeFrom("log:1", from)
	one.subscribe("log:2")
	one.subscribe("job:1")
	h.openLog("log:1")
	h.openLog("log:2")
	h.confirm("job:1")
	tell := func(payload string) {
		h.logs.add("log:2", payload)
		h.tellLog("log:2", 99)
	}
	expect := func(what, id, data string) {
		t.Helper()
		if got := one.readSSE(); got.ID != id || string(got.Data) != data {
			t.Errorf("%s: id %q, data %q, not %q, %q", what, got.ID, got.Data, id, data)
		}
	}
	tell("10")
	expect("live on another log while a replay goes on", "", "10")
	close(gate)
	expect("replayed", "log:1/2-0/55", "2")
	expect("replayed", "log:1/3-0/55", "3")
	if got := one.readSSE(); got.Event != "replayed" {
		t.Errorf("%+v", got)
	}
	tell("11")
	expect("live after the replay", "log:2/2-0/99", "11")
	h.publish("job:1", "12")
	expect("events beside a log", "log:2/2-0/99", "12") // the client keeps the id that it had
	one.fillSSE()
	h.append("log:1", "4")
	gate = make(chan struct{})
	h.logs.mutex.Lock()
	h.logs.gate = gate
	h.logs.mutex.Unlock()
	tell("13")
	h.on(0, func(s *Shard) {
		for _, c := range s.Explain(one.slot).Channels {
			if c.Kind == broker.Log && c.State != "reading" {
				t.Errorf("the stream is not behind: %+v", c)
			}
		}
	})
	close(gate)
	for seen := 0; seen < 2; {
		event := one.readSSE()
		if strings.HasPrefix(string(event.Data), "xx") {
			continue
		}
		seen++
		if event.ID != "log:2/2-0/99" {
			t.Errorf("while it is behind, %s moves the client to %q", event.Data, event.ID)
		}
	}
	tell("14")
	expect("live again", "log:2/4-0/99", "14")
}

func (one *stream) fillSSE() {
	one.h.t.Helper()
	one.client.SetReadBuffer(16 << 10)
	junk := proto.AppendSSE(nil, one.form, "message", "", []byte(strings.Repeat("x", 64<<10)))
	sockettest.Eventually(one.h.t, "the stream stalls", func() (full bool) {
		one.h.on(one.loop, func(s *Shard) {
			for range 8 {
				s.loop.SendBytes(one.slot, junk)
			}
			full = s.loop.Queued(one.slot) > 1<<20
		})
		return full
	})
}

func TestHolesOfALog(t *testing.T) {
	h := logHarness(t, 1, nil)
	one := h.join(0, proto.FormText)
	one.subscribe("log:1")
	h.openLog("log:1")
	h.append("log:1", "1")
	for _, payload := range numbers(2, 5) {
		h.logs.add("log:1", payload)
	}
	h.logs.trim("log:1", 2)
	h.tellLog("log:1", 0)
	h.logs.rewind("log:1", broker.Position{Milliseconds: 2})
	h.tellLog("log:1", 0)
	h.append("log:1", `"new 3"`)
	equal(t, "holes", one.read(6), []string{
		"1", gapText("log:1", "log:1/1-0/0", "trimmed"), "4", "5",
		gapText("log:1", "log:1/5-0/0", "rewound"), `"new 3"`,
	})
}

// TestHoleMeetsRecord lets a log be rewound while a stream is ahead of it or reads it.
func TestHoleMeetsRecord(t *testing.T) {
	h := logHarness(t, 1, nil)
	for _, payload := range numbers(1, 9) {
		h.logs.add("log:1", payload)
	}
	gate := make(chan struct{})
	h.logs.gate = gate
	reads, ahead := h.join(0, proto.FormText), h.join(0, proto.FormText)
	reads.subscribeFrom("log:1", h.hub.From(parse(t, "log:1"), "log:1/3-0/1"))
	ahead.subscribeFrom("log:1", h.hub.From(parse(t, "log:1"), "log:2/3-0/50"))
	h.openLog("log:1")
	h.logs.rewind("log:1", broker.Position{Milliseconds: 2})
	h.tellLog("log:1", 0)
	h.append("log:1", `"new"`)
	equal(t, "one that is ahead", ahead.read(3), []string{replayed("log:1", 0), gapText("log:1", "log:1/9-0/0", "rewound"), `"new"`})
	equal(t, "one that reads", reads.read(3), []string{replayed("log:1", 0), gapText("log:1", "log:1/9-0/0", "rewound"), `"new"`})
	close(gate)
	h.append("log:1", `"newer"`)
	equal(t, "live", reads.read(1), []string{`"newer"`})
	reads.silent()
}

func TestBrokerHoleIsToldToStreamsThatRead(t *testing.T) {
	h := logHarness(t, 1, nil)
	for _, payload := range numbers(1, 2) {
		h.logs.add("log:1", payload)
	}
	gate := make(chan struct{})
	h.logs.gate = gate
	one := h.join(0, proto.FormText)
	one.subscribeFrom("log:1", h.hub.From(parse(t, "log:1"), "log:1/1-0/1"))
	h.openLog("log:1")
	if err := h.hub.Log(broker.LogUpdate{Channel: "log:1", From: broker.Position{Milliseconds: 2}, Hole: true, Reason: proto.GapBroker}, time.Now()); err != nil {
		t.Fatal(err)
	}
	close(gate)
	equal(t, "replay", one.read(3), []string{gapText("log:1", "log:1/1-0/0", "broker"), "2", replayed("log:1", 1)})
}

func TestUntoldLoopReadsLogsAgain(t *testing.T) {
	h := logHarness(t, 1, nil)
	one := h.join(0, proto.FormText)
	one.subscribe("log:1")
	h.openLog("log:1")
	h.append("log:1", "1")
	equal(t, "live", one.read(1), numbers(1, 1))
	for _, payload := range numbers(2, 4) {
		h.logs.add("log:1", payload)
	}
	// As if the mail of 2 to 4 had found the box full.
	h.hub.directory.setStanding("log:1", standing{position: broker.Position{Milliseconds: 4}})
	h.logs.logs["log:1"].told = broker.Position{Milliseconds: 4}
	h.hub.Shard(0).untold.Store(true)
	h.append("log:1", "5")
	equal(t, "all", one.read(4), numbers(2, 5))
	one.silent()
}

// TestUntoldLoopMendsBeforeItNamesAHorizon loses the mail of one log and handles that of another at
// once, whose ids would say that all logs were read.
func TestUntoldLoopMendsBeforeItNamesAHorizon(t *testing.T) {
	h := logHarness(t, 1, nil)
	one := h.join(0, proto.FormSSEPlain)
	one.subscribe("log:1")
	one.subscribe("log:2")
	h.openLog("log:1")
	h.openLog("log:2")
	h.append("log:1", "1")
	one.readSSE()
	h.logs.add("log:1", "2")
	gate := make(chan struct{})
	h.logs.gate = gate
	h.on(0, func(s *Shard) {
		h.hub.directory.setStanding("log:1", standing{position: broker.Position{Milliseconds: 2}})
		s.untold.Store(true)
		position := broker.Position{Milliseconds: 1}
		event, err := h.hub.logEvent(parse(t, "log:2"), broker.Entry{Position: position, Payload: []byte("3")}, 99)
		if err != nil {
			t.Error(err)
		}
		s.append(&logPublication{channel: parse(t, "log:2"), entries: []logEntry{{position, event}}, last: position, horizon: 99})
	})
	if got := one.readSSE(); string(got.Data) != "3" || got.ID != "log:1/1-0/0" {
		t.Errorf("%+v", got)
	}
	close(gate)
	if got := one.readSSE(); string(got.Data) != "2" {
		t.Errorf("%+v", got)
	}
}

// TestAnOldReadIsNotTheEndOfALog: where a loop was not told of entries, its walks do not say how far the log
// is, and a read that was under way when they came does not have them.
func TestAnOldReadIsNotTheEndOfALog(t *testing.T) {
	h := newHarness(t, 1, nil)
	h.rules["log"] = &Rules{Kind: broker.Log}
	one := h.join(0, proto.FormText)
	one.subscribe("log:1")
	first := h.logs.add("log:1", `"first"`)
	h.openLog("log:1")
	h.logs.gate = make(chan struct{})
	h.hub.directory.setStanding("log:1", standing{position: h.logs.add("log:1", `"second"`)})
	h.on(0, func(s *Shard) {
		s.untold.Store(true)
		s.Work() // has it read
		r := s.behind[one.slot].reading
		s.pasts.push(&pastMail{
			past:    &past{last: first, stood: first, end: true, at: time.Now()},
			waiters: []waiter{{slot: one.slot, ticket: r.ticket}},
		})
	})
	h.on(0, func(*Shard) {})
	close(h.logs.gate)
	equal(t, "what was not told", one.read(1), []string{`"second"`})
	one.silent()
}
