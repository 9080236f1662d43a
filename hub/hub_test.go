package hub

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/sockettest"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

func TestSizes(t *testing.T) {
	for name, size := range map[string][2]uintptr{
		"member":   {unsafe.Sizeof(member{}), 16},
		"block":    {unsafe.Sizeof(block{}), 12},
		"channel":  {unsafe.Sizeof(channel{}), 24},
		"interest": {unsafe.Sizeof(interest{}), 8},
	} {
		if size[0] != size[1] {
			t.Errorf("a %s takes %d bytes, not %d", name, size[0], size[1])
		}
	}
}

func TestNewRefusesLoops(t *testing.T) {
	for _, loops := range []int{0, -1, loopsMax + 1} {
		if _, err := New(Options{Loops: loops}); err == nil {
			t.Errorf("%d loops were taken", loops)
		}
	}
}

func TestEveryFormGetsTheEvent(t *testing.T) {
	h := newHarness(t, 2, nil)
	text, envelope := h.join(0, proto.FormText), h.join(1, proto.FormEnvelope)
	sse := h.join(1, proto.FormSSEPlain)
	for _, one := range []*stream{text, envelope, sse} {
		if outcome := one.subscribe("job:1"); outcome != Asked {
			t.Fatalf("outcome %v", outcome)
		}
	}
	equal(t, "edges", h.edges(), []string{"job:1"})
	h.publish("job:1", `{"early":1}`) // before the confirmation: for nobody
	h.confirm("job:1")
	payload := `{"type":"job_progress","n":1}`
	h.publish("job:1", payload)
	equal(t, "text", text.read(1), []string{payload})
	equal(t, "envelope", envelope.read(1), []string{`{"type":"event","channel":"job:1","id":"job:1/life.2","data":` + payload + `}`})
	event := sse.readSSE()
	if event.ID != "job:1/life.2" || event.Event != "job_progress" || string(event.Data) != payload {
		t.Errorf("sse: %+v", event)
	}
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if h.subscribed["job:1"] != 3 {
		t.Errorf("%d of 3 were told that they are subscribed", h.subscribed["job:1"])
	}
}

func TestOutcomesAndEdges(t *testing.T) {
	h := newHarness(t, 2, func(o *Options) { o.MaxSubscriptions = 2 })
	one, two := h.join(0, proto.FormText), h.join(1, proto.FormText)
	steps := []struct {
		name string
		do   func() any
		want any
	}{
		{"first asks", func() any { return one.subscribe("a:1") }, Asked},
		{"again while asked", func() any { return one.subscribe("a:1") }, AlreadyAsk},
		{"another loop asks too", func() any { return two.subscribe("a:1") }, Asked},
		{"confirmed", func() any { h.confirm("a:1"); return one.subscribe("a:1") }, AlreadyHas},
		{"known channel is confirmed at once", func() any { return h.join(0, proto.FormText).subscribe("a:1") }, Confirmed},
		{"second", func() any { return one.subscribe("b:1") }, Asked},
		{"third is too many", func() any { return one.subscribe("c:1") }, TooMany},
		{"leave the asked one", func() any { return one.unsubscribe("b:1") }, true},
		{"leave it twice", func() any { return one.unsubscribe("b:1") }, false},
		{"leave what never was", func() any { return one.unsubscribe("z:1") }, false},
		{"there is room again", func() any { return one.subscribe("c:1") }, Asked},
		{"leave", func() any { return one.unsubscribe("a:1") }, true},
		{"the other loop leaves", func() any { return two.unsubscribe("a:1") }, true},
	}
	for _, step := range steps {
		if got := step.do(); got != step.want {
			t.Fatalf("%s: %v, not %v", step.name, got, step.want)
		}
	}
	equal(t, "edges", h.edges(), []string{"a:1", "b:1", "-b:1", "c:1"})
	if c := h.counters(); c.Members != 3 || c.Subscriptions != 2 || c.Channels != 2 {
		t.Errorf("counters %+v", c)
	}
	if s := h.hub.Stats(); s.Channels != 2 {
		t.Errorf("%d channels are wanted", s.Channels)
	}
}

func TestStreamThatEndsLeavesEverything(t *testing.T) {
	h := newHarness(t, 1, nil)
	one := h.join(0, proto.FormText)
	for n := range 9 {
		one.subscribe(fmt.Sprintf("job:%d", n))
	}
	h.confirm("job:0", "job:1", "job:2")
	one.client.Close()
	sockettest.Eventually(t, "all was left", func() bool {
		c := h.counters()
		return c.Members == 0 && c.Subscriptions == 0 && c.Channels == 0
	})
	if edges := h.edges(); len(edges) != 18 {
		t.Errorf("edges %q", edges)
	}
}

func TestOneStreamSeesAllChannelsInOrder(t *testing.T) {
	h := newHarness(t, 1, nil)
	h.on(0, func(s *Shard) { s.stepsMax, s.expressMax = 3, 2 })
	var all []*stream
	for range 10 {
		one := h.join(0, proto.FormText)
		one.subscribe("a:1")
		one.subscribe("b:1")
		all = append(all, one)
	}
	all[0].subscribe("c:1")
	h.confirm("a:1", "b:1", "c:1")
	var want, first []string
	for n := range 200 {
		payload := fmt.Sprint(n)
		switch channel := []string{"a:1", "b:1", "c:1"}[n%3]; channel {
		case "c:1":
			h.publish(channel, payload)
			first = append(first, payload)
		default:
			h.publish(channel, payload)
			want, first = append(want, payload), append(first, payload)
		}
	}
	equal(t, "three channels", all[0].read(len(first)), first)
	for _, one := range all[1:] {
		equal(t, "two channels", one.read(len(want)), want)
	}
}

func TestWildcard(t *testing.T) {
	h := newHarness(t, 1, nil)
	both, wild, exact := h.join(0, proto.FormEnvelope), h.join(0, proto.FormEnvelope), h.join(0, proto.FormText)
	both.subscribe("job:*")
	both.subscribe("job:1")
	wild.subscribe("job:*")
	exact.subscribe("job:1")
	if s := h.hub.directory.subscription("job:*"); s.Kind != broker.Pattern {
		t.Errorf("a wildcard is subscribed to as %v", s.Kind)
	}
	h.confirm("job:*", "job:1")
	h.publish("job:1", "1")
	h.publish("job:2", "2")
	h.publish("other:2", "3")
	channels := func(messages []string) (all []string) {
		for _, message := range messages {
			all = append(all, field(t, message, "channel"))
		}
		return all
	}
	equal(t, "both", channels(both.read(2)), []string{"job:1", "job:2"})
	equal(t, "wildcard alone", channels(wild.read(2)), []string{"job:1", "job:2"})
	equal(t, "exact alone", exact.read(1), []string{"1"})
	both.unsubscribe("job:1")
	h.publish("job:1", "4")
	equal(t, "wildcard remains", channels(both.read(1)), []string{"job:1"})
	both.silent()
	both.unsubscribe("job:*")
	wild.unsubscribe("job:*")
	if n := h.hub.directory.wildcards.Load(); n != 0 {
		t.Errorf("%d wildcards are left", n)
	}
}

func TestLossIsToldAsGapAfterTheReturn(t *testing.T) {
	h := newHarness(t, 1, nil)
	one := h.join(0, proto.FormText)
	one.subscribe("job:1")
	h.confirm("job:1")
	h.publish("job:1", "1")
	h.hub.Lost(plain("job:1"))
	late := h.join(0, proto.FormText)
	if outcome := late.subscribe("job:1"); outcome != Asked {
		t.Errorf("while lost a new subscription is %v", outcome)
	}
	h.hub.Confirmed(plain("job:1"), true)
	h.publish("job:1", "2")
	got := one.read(3)
	equal(t, "who was there", got, []string{"1", `{"type":"gap","channel":"job:1","after":"job:1/life.1","reason":"broker"}`, "2"})
	equal(t, "who came later", late.read(1), []string{"2"})
	if c := h.counters(); c.Gaps[proto.GapBroker] != 1 {
		t.Errorf("%d gaps are counted", c.Gaps[proto.GapBroker])
	}
}

func TestSlowStreamGetsAGapAndCostsNobody(t *testing.T) {
	const events = 50
	h := newHarness(t, 1, func(o *Options) { o.MaxQueueBytes = 256 << 10 })
	slow, quick := h.join(0, proto.FormText), h.join(0, proto.FormText)
	slow.client.SetReadBuffer(64 << 10)
	slow.subscribe("job:1")
	quick.subscribe("job:1")
	h.confirm("job:1")
	payload := func(n int) string { return fmt.Sprintf(`{"n":%d,"fill":%q}`, n, strings.Repeat("x", 16<<10)) }
	for n := range events {
		h.publish("job:1", payload(n))
		if got := quick.read(1)[0]; got != payload(n) {
			t.Fatalf("the quick one read %.20q as event %d", got, n)
		}
	}
	if c := h.counters(); c.Dropped == 0 || c.Gaps[proto.GapSlow] != 0 {
		t.Fatalf("dropped %d, gaps %d", c.Dropped, c.Gaps[proto.GapSlow])
	}
	next, gap := 0, ""
	for gap == "" {
		for _, message := range slow.read(1) {
			if field(t, message, "type") == "gap" {
				gap = message
			} else if message == payload(next) {
				next++
			} else {
				t.Fatalf("after %d events in order: %.40q", next, message)
			}
		}
	}
	if after := field(t, gap, "after"); after != fmt.Sprintf("job:1/life.%d", next) || field(t, gap, "reason") != "slow" {
		t.Errorf("after %d events the gap is %s", next, gap)
	}
	h.publish("job:1", `"back"`)
	equal(t, "after the gap", slow.read(1), []string{`"back"`})
}

func TestUntoldLoopTellsAGap(t *testing.T) {
	h := newHarness(t, 1, nil)
	one := h.join(0, proto.FormText)
	one.subscribe("job:1")
	h.confirm("job:1")
	h.on(0, func(s *Shard) { s.untold.Store(true) })
	h.publish("job:1", "1")
	got := one.read(2) // in either order
	if !slices.Contains(got, "1") || !slices.Contains(got, `{"type":"gap","channel":"job:1","reason":"slow"}`) && !slices.Contains(got, `{"type":"gap","channel":"job:1","after":"job:1/life.1","reason":"slow"}`) {
		t.Errorf("got %q", got)
	}
}

func TestDrops(t *testing.T) {
	h := newHarness(t, 1, func(o *Options) { o.MaxEventBytes = 64 })
	one := h.join(0, proto.FormText)
	one.subscribe("job:1")
	h.confirm("job:1")
	cases := []struct {
		name, channel, payload string
		reason                 DropReason
		silent                 bool
	}{
		{"bad channel", "no colon", "1", DropBadChannel, false},
		{"too large", "job:1", `"` + strings.Repeat("x", 64) + `"`, DropTooLarge, false},
		{"empty", "job:1", "", DropEmpty, false},
		{"not UTF-8", "job:1", "\"\xff\"", DropNotUTF8, false},
		{"not JSON", "job:1", "{", DropNotJSON, false},
		{"nobody", "job:2", "1", DropNobody, true},
	}
	for _, c := range cases {
		_, err := h.hub.Event(c.channel, []byte(c.payload), time.Now())
		if (err == nil) != c.silent {
			t.Errorf("%s: error %v", c.name, err)
		}
		if n := h.hub.Stats().Dropped[c.reason]; n != 1 {
			t.Errorf("%s: counted %d times as %v", c.name, n, c.reason)
		}
	}
	one.silent()
}

func TestLocalFirstDropsItsEchoOnce(t *testing.T) {
	h := newHarness(t, 1, nil)
	one := h.join(0, proto.FormText)
	one.subscribe("job:1")
	h.confirm("job:1")
	if err := h.hub.EventLocalFirst("job:1", []byte("1")); err != nil {
		t.Fatal(err)
	}
	h.publish("job:1", "1") // the echo
	h.publish("job:1", "1") // somebody else's, the same text
	equal(t, "events", one.read(2), []string{"1", "1"})
	one.silent()
	if err := h.hub.EventLocalFirst("job:1", []byte("2")); err != nil {
		t.Fatal(err)
	}
	h.hub.Confirmed(plain("job:1"), true) // a loss: the echo may never come
	h.publish("job:1", "2")
	got := one.read(3)
	if got[0] != "2" || field(t, got[1], "type") != "gap" || got[2] != "2" {
		t.Errorf("around a loss: %q", got)
	}
	if err := h.hub.EventLocalFirst("job:1", []byte("{")); err == nil {
		t.Error("bad JSON was taken")
	}
}

func TestEchoesExpire(t *testing.T) {
	var e echoes
	e.expect("a:1", []byte("1"))
	for key := range e.until {
		e.until[key][0] = time.Now().Add(-time.Second)
	}
	if e.drop("a:1", []byte("1")) {
		t.Error("an expectation too old still dropped an event")
	}
	e.expect("a:1", []byte("2"))
	for key := range e.until {
		e.until[key][0] = time.Now().Add(-time.Second)
	}
	e.oldest = time.Now().Add(-2 * echoLife)
	e.expect("a:1", []byte("3"))
	if n := e.count.Load(); n != 1 {
		t.Errorf("%d expectations are left", n)
	}
	if !e.drop("a:1", []byte("3")) || e.drop("a:1", []byte("3")) {
		t.Error("an echo is dropped exactly once")
	}
}

func TestListen(t *testing.T) {
	h := newHarness(t, 1, nil)
	notices := make(chan Notice, 16)
	cancel := h.hub.Listen(parse(t, "job:1"), func(n Notice) { notices <- n })
	cancelAll := h.hub.Listen(parse(t, "job:*"), func(n Notice) { n.ID = "wild " + n.ID; notices <- n })
	h.publish("job:1", "1")
	if n := <-notices; n.Channel != "job:1" || n.ID != "job:1/life.1" || string(n.Data) != "1" {
		t.Errorf("notice %+v", n)
	}
	if n := <-notices; n.ID != "wild job:1/life.1" {
		t.Errorf("notice %+v", n)
	}
	cancelAll()
	h.hub.Lost(plain("job:1"))
	h.hub.Confirmed(plain("job:1"), true)
	if n := <-notices; n.Gap != "broker" {
		t.Errorf("notice %+v", n)
	}
	h.hub.listeners.behind.Store(true)
	h.publish("job:1", "2")
	<-notices
	if n := <-notices; n.Gap != "slow" {
		t.Errorf("notice %+v", n)
	}
	cancel()
	cancel()
	equal(t, "edges", h.edges(), []string{"job:1", "job:*", "-job:*", "-job:1"})
	h.hub.Close()
	h.hub.Listen(parse(t, "job:1"), func(Notice) {})()
}

func TestListenToStateAndLog(t *testing.T) {
	h := newHarness(t, 1, nil)
	h.rules["state"], h.rules["log"] = &Rules{Kind: broker.State}, &Rules{Kind: broker.Log}
	notices := make(chan Notice, 16)
	expect := func(want string) {
		t.Helper()
		n := <-notices
		if got := fmt.Sprintf("%s %s %s %s", n.Channel, n.ID, n.Data, n.Gap); got != want {
			t.Errorf("got %q, not %q", got, want)
		}
	}
	call := func(n Notice) { notices <- n }
	defer h.hub.Listen(parse(t, "state:1"), call)()
	h.value("state:1", "1")
	expect("state:1  1 ")
	second := make(chan Notice, 1)
	h.hub.Listen(parse(t, "state:1"), func(n Notice) { second <- n })()
	defer h.hub.Listen(parse(t, "state:1"), func(n Notice) { second <- n })()
	if n := <-second; string(n.Data) != "1" {
		t.Errorf("a later listener hears %q", n.Data)
	}
	defer h.hub.Listen(parse(t, "log:1"), call)()
	h.openLog("log:1")
	h.append("log:1", "2")
	expect("log:1 log:1/1-0/0 2 ")
	h.logs.rewind("log:1", broker.Position{})
	h.tellLog("log:1", 0)
	expect("log:1   rewound")
}

func TestSlowListenerMissesAndIsTold(t *testing.T) {
	h := newHarness(t, 1, nil)
	begin, gap := make(chan struct{}), make(chan struct{}, 1)
	cancel := h.hub.Listen(parse(t, "job:1"), func(n Notice) {
		<-begin
		if n.Gap == "slow" {
			select {
			case gap <- struct{}{}:
			default:
			}
		}
	})
	defer cancel()
	for range listenQueueMax + 10 {
		h.publish("job:1", "1")
	}
	close(begin)
	<-gap
}

func TestReasonsAreNamed(t *testing.T) {
	seen := map[string]bool{}
	for reason := range DropReasonCount {
		if name := reason.String(); name == "" || seen[name] {
			t.Errorf("reason %d is called %q", reason, name)
		} else {
			seen[name] = true
		}
	}
	if got := dropReasonOf(fmt.Errorf("x: %w", proto.ErrNotUTF8)); got != DropNotUTF8 {
		t.Errorf("got %v", got)
	}
	if got := dropReasonOf(errors.New("x")); got != DropNotJSON {
		t.Errorf("got %v", got)
	}
}

// TestFormAndChannels covers what the owner asks of a shard.
func TestFormAndChannels(t *testing.T) {
	h := newHarness(t, 1, nil)
	one := h.join(0, proto.FormText)
	for _, channel := range []string{"a:1", "b:1", "c:1", "d:1", "e:1"} {
		one.subscribe(channel)
	}
	h.confirm("b:1")
	h.on(0, func(s *Shard) {
		var all, confirmed []string
		s.Channels(one.slot, func(name proto.Channel, is bool) bool {
			all = append(all, name.Name())
			if is {
				confirmed = append(confirmed, name.Name())
			}
			return true
		})
		if len(all) != 5 {
			t.Errorf("channels %q", all)
		}
		equal(t, "confirmed", confirmed, []string{"b:1"})
		stopped := 0
		s.Channels(one.slot, func(proto.Channel, bool) bool { stopped++; return stopped < 2 })
		if stopped != 2 {
			t.Errorf("visited %d", stopped)
		}
		s.SetForm(one.slot, proto.FormEnvelope)
		if s.Form(one.slot) != proto.FormEnvelope {
			t.Error("the form did not change")
		}
		s.Leave(netio.Slot(100_000)) // never joined
	})
	h.publish("b:1", "1")
	if got := one.read(1)[0]; field(t, got, "type") != "event" {
		t.Errorf("got %q", got)
	}
	if bytes.Contains([]byte(fmt.Sprint(h.edges())), []byte("*")) {
		t.Error("a wildcard was asked for")
	}
}
