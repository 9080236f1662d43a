package hub

import (
	"fmt"
	"testing"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/sockettest"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

func TestExplain(t *testing.T) {
	h := logHarness(t, 1, func(o *Options) { o.MaxQueueBytes = 256 << 10 })
	one := h.join(0, proto.FormText)
	for _, channel := range []string{"job:1", "job:2", "log:1"} {
		one.subscribe(channel)
	}
	h.confirm("job:1")
	h.openLog("log:1")
	h.append("log:1", "1")
	one.read(1)
	one.fill()
	h.publish("job:1", "1")
	h.publish("job:1", "2")
	h.append("log:1", "2")
	var e Explanation
	unacknowledged := 0
	h.on(0, func(s *Shard) { e, unacknowledged = s.Explain(one.slot), s.loop.Unacknowledged(one.slot) })
	got := map[string]string{}
	for _, c := range e.Channels {
		got[c.Channel.Name()] = c.State + " " + c.After
	}
	want := map[string]string{"job:1": "dropping ", "job:2": "asked ", "log:1": "reading log:1/1-0/0"}
	for channel, state := range want {
		if got[channel] != state {
			t.Errorf("%s: %q, not %q", channel, got[channel], state)
		}
	}
	if e.Dropped != 2 || e.Queue.Bytes < 1<<20 || e.Queue.Frames == 0 || unacknowledged <= 0 {
		t.Errorf("%+v", e)
	}
}

// TestStanding: a stream stands as in the worst of its channels, and what it has is known.
func TestStanding(t *testing.T) {
	h := logHarness(t, 1, func(o *Options) { o.MaxQueueBytes = 256 << 10 })
	h.rules["state"] = &Rules{Kind: broker.State}
	one := h.join(0, proto.FormText)
	stands := func(after string, want Standing, subscriptions int) {
		t.Helper()
		var got Standing
		has := 0
		sockettest.Eventually(t, fmt.Sprintf("after %s the standing %d, with %d subscriptions", after, want, subscriptions), func() bool {
			h.on(0, func(s *Shard) { got, has = s.Standing(one.slot), s.Subscriptions(one.slot) })
			return got == want && has == subscriptions
		})
	}
	one.subscribe("log:1")
	stands("asking for what begins with nothing", StandingLive, 1)
	one.subscribe("state:1")
	stands("asking for a value", StandingBeginning, 2)
	h.openLog("log:1")
	h.value("state:1", "1")
	h.confirmState("state:1")
	stands("the value", StandingLive, 2)
	one.subscribe("job:1")
	h.confirm("job:1")
	one.fill()
	h.append("log:1", "1")
	stands("an entry too many", StandingCatchingUp, 3)
	h.value("state:1", "2")
	stands("a value too many", StandingConflating, 3)
	h.publish("job:1", "1")
	stands("an event too many", StandingDropping, 3)
	one.subscribe("state:2")
	stands("asking for something better", StandingDropping, 4)
	one.unsubscribe("state:2")
	one.unsubscribe("job:1")
	stands("giving up what is dropped", StandingConflating, 2)
	h.on(0, func(s *Shard) {
		for channel, want := range map[string]bool{"log:1": true, "job:1": false, "never:1": false} {
			if got := s.Hears(one.slot, parse(t, channel)); got != want {
				t.Errorf("the stream hears %s: %v", channel, got)
			}
		}
	})
	resuming := h.join(0, proto.FormText)
	resuming.fill()
	resuming.subscribeFrom("log:1", From{Kind: FromBeginning})
	h.on(0, func(s *Shard) {
		if got := s.Standing(resuming.slot); got != StandingResuming {
			t.Errorf("a stream that reads from the beginning stands at %d", got)
		}
	})
}

func TestLossPrefersWhatManyHear(t *testing.T) {
	h := logHarness(t, 1, nil)
	for n := range 5 {
		one := h.join(0, proto.FormText)
		for channel := range n + 1 {
			one.subscribe(fmt.Sprintf("job:%d", channel))
		}
	}
	all := plain("job:0", "job:1", "job:2", "job:3", "job:4")
	h.hub.Confirmed(all, false)
	h.hub.Lost(all)
	h.on(0, func(*Shard) {})
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if len(h.preferred) != 1 || len(h.preferred[0]) != 4 || h.preferred[0][0].Channel != "job:0" || h.preferred[0][3].Channel != "job:3" {
		t.Errorf("preferred: %v", h.preferred)
	}
}

func TestPreferIsBounded(t *testing.T) {
	h := logHarness(t, 1, nil)
	h.on(0, func(s *Shard) {
		s.members.Grow(9)
		c := s.channels.At(s.addChannel(parse(t, "job:1")))
		for slot := range netio.Slot(9) {
			s.addMember(c, slot+1)
		}
		for range 5 * preferMax {
			s.noteCrowd(c)
			if len(s.lost) >= 2*preferMax {
				t.Fatalf("%d are remembered", len(s.lost))
			}
		}
		s.prefer()
	})
	if n := len(h.preferred[0]); n != preferMax {
		t.Errorf("%d are preferred", n)
	}
}
