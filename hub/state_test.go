package hub

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/sockettest"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

func stateHarness(t *testing.T, loops int, change func(*Options)) *harness {
	h := newHarness(t, loops, change)
	h.rules["state"] = &Rules{Kind: broker.State}
	return h
}

func (h *harness) value(channel, payload string) {
	h.t.Helper()
	var bytes []byte
	if payload != "" {
		bytes = []byte(payload)
	}
	if err := h.hub.Value(channel, bytes, time.Now()); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) confirmState(channel string) {
	h.hub.Confirmed([]broker.Subscription{{Channel: channel, Kind: broker.State}}, false)
}

func TestStateComesAtOnceAndWhenItChanges(t *testing.T) {
	h := stateHarness(t, 2, nil)
	first := h.join(0, proto.FormText)
	first.subscribe("state:1")
	if s := h.hub.directory.subscription("state:1"); s.Kind != broker.State {
		t.Errorf("subscribed to as %v", s.Kind)
	}
	h.value("state:1", `{"n":1}`)
	h.confirmState("state:1")
	equal(t, "when confirmed", first.read(1), []string{`{"n":1}`})
	second, other := h.join(0, proto.FormEnvelope), h.join(1, proto.FormSSEPlain)
	second.subscribe("state:1")
	equal(t, "later, same loop", second.read(1), []string{`{"type":"event","channel":"state:1","data":{"n":1}}`})
	other.subscribe("state:1")
	if got := other.readSSE(); string(got.Data) != `{"n":1}` || got.ID != "" {
		t.Errorf("another loop: %+v", got)
	}
	h.value("state:1", `{"n":1}`) // the same again
	if err := h.hub.Value("state:1", []byte(`{"n":`), time.Now()); err == nil {
		t.Error("half a value was taken")
	}
	h.value("state:1", `{"n":2}`)
	equal(t, "changed", first.read(1), []string{`{"n":2}`})
	h.value("state:1", "")
	h.value("state:1", "") // no news
	h.value("state:1", `{"n":3}`)
	equal(t, "deleted and set", first.read(2), []string{`{"type":"deleted","channel":"state:1"}`, `{"n":3}`})
	first.silent()
	for _, want := range []string{`{"n":2}`, `{"type":"deleted","channel":"state:1"}`, `{"n":3}`} {
		if got := other.readSSE(); string(got.Data) != want {
			t.Errorf("another loop: %s, not %s", got.Data, want)
		}
	}
	h.hub.Lost([]broker.Subscription{{Channel: "state:1", Kind: broker.State}})
	h.hub.Confirmed([]broker.Subscription{{Channel: "state:1", Kind: broker.State}}, true)
	first.silent() // a state has no gaps: the newest value comes
	h.value("state:1", "")
	late := h.join(1, proto.FormText)
	late.subscribe("state:1")
	late.silent()
	if c := h.counters(); c.Behind != 0 {
		t.Errorf("%d streams have records left", c.Behind)
	}
}

func TestStateIsNotSentBeforeBegin(t *testing.T) {
	h := stateHarness(t, 1, nil)
	one := h.join(0, proto.FormText)
	name := parse(t, "state:1")
	one.subscribe("state:1")
	h.value("state:1", "1")
	h.confirmState("state:1")
	equal(t, "first", one.read(1), []string{"1"})
	one.unsubscribe("state:1")

	h.on(0, func(s *Shard) { s.Subscribe(one.slot, name, From{}) })
	h.value("state:1", "2")
	h.hub.Confirmed(nil, false)
	h.on(0, func(s *Shard) { // confirmed, but Events.Subscribed does not run: the owner takes its time
		c := s.channels.At(s.names.Find("state:1"))
		c.setConfirmed(true)
		for _, slot := range s.takeAsked(c, nil) {
			s.find(s.members.At(uint32(slot)), s.names.Find("state:1")).position = s.addMember(c, slot)
		}
	})
	h.value("state:1", "3")
	one.silent()
	h.on(0, func(s *Shard) { s.Begin(one.slot, name); s.Begin(one.slot, name) })
	equal(t, "begun", one.read(1), []string{"3"})
	h.value("state:1", "4")
	equal(t, "live", one.read(1), []string{"4"})
}

// fill makes the queue of a stream longer than its budget, with its client not reading.
func (one *stream) fill() {
	one.h.t.Helper()
	one.client.SetReadBuffer(16 << 10)
	junk := proto.AppendFrame(nil, proto.OpText, []byte(`"`+strings.Repeat("x", 64<<10)+`"`))
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

// drain reads past what fill queued, and gives the n messages behind it.
func (one *stream) drain(n int) (messages []string) {
	one.h.t.Helper()
	for len(messages) < n {
		if message := one.read(1)[0]; !strings.HasPrefix(message, `"xx`) {
			messages = append(messages, message)
		}
	}
	return messages
}

func TestLaggingStreamGetsTheNewestValue(t *testing.T) {
	h := stateHarness(t, 1, func(o *Options) { o.MaxQueueBytes = 256 << 10 })
	slow, quick := h.join(0, proto.FormText), h.join(0, proto.FormText)
	for _, one := range []*stream{slow, quick} {
		one.subscribe("state:1")
		one.subscribe("state:2")
	}
	h.confirmState("state:1")
	h.confirmState("state:2")
	slow.fill()
	for n := range 50 {
		h.value("state:1", fmt.Sprint(n))
		h.value("state:2", fmt.Sprint(n))
		equal(t, "quick", quick.read(2), []string{fmt.Sprint(n), fmt.Sprint(n)})
	}
	h.value("state:2", "")
	equal(t, "slow", slow.drain(2), []string{"49", `{"type":"deleted","channel":"state:2"}`})
	h.value("state:1", "50")
	equal(t, "slow again", slow.read(1), []string{"50"})
	c := h.counters()
	if c.Conflated != 49+50 || c.Dropped != 0 || c.Gaps != [proto.GapReasonCount]uint64{} || c.Behind != 0 {
		t.Errorf("counters %+v", c)
	}
}

func TestUntoldLoopGoesOnWithTheValue(t *testing.T) {
	h := stateHarness(t, 1, nil)
	one := h.join(0, proto.FormText)
	one.subscribe("state:1")
	h.value("state:1", "1")
	h.confirmState("state:1")
	one.read(1)
	h.on(0, func(s *Shard) {
		// As if the mail of this value had found the box full.
		h.hub.directory.setStanding("state:1", standing{event: mustEvent(t, "state:1", "2"), order: 100})
		s.untold.Store(true)
	})
	equal(t, "mended", one.read(1), []string{"2"})
	h.on(0, func(s *Shard) { s.publish(&publication{event: mustEvent(t, "state:1", "2"), order: 100}) })
	one.silent()
}

func mustEvent(t *testing.T, channel, payload string) *proto.Event {
	t.Helper()
	event, err := proto.NewEvent(parse(t, channel), "", []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return event
}

func TestAgeOfTheQueueCountsAsFull(t *testing.T) {
	h := stateHarness(t, 1, func(o *Options) { o.MaxQueueAge = 2 * netio.TickLength })
	one := h.join(0, proto.FormText)
	one.subscribe("state:1")
	one.subscribe("job:1")
	h.confirmState("state:1")
	h.confirm("job:1")
	one.fill()
	h.publish("job:1", `"young"`)
	sockettest.Eventually(t, "the queue is too old", func() bool {
		h.publish("job:1", `"xx"`)
		return h.counters().Dropped > 0
	})
	h.value("state:1", "1")
	got := one.drain(3)
	if got[0] != `"young"` || field(t, got[1], "reason") != "slow" || got[2] != "1" {
		t.Errorf("got %q", got)
	}
}
