package hub

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/proto"
)

// hear has the hub hear channels that none of its streams has yet, as before it takes over.
func (h *harness) hear(channels ...string) {
	for _, channel := range channels {
		h.t.Cleanup(h.hub.Listen(parse(h.t, channel), func(Notice) {}))
	}
}

// goOn has a stream of this hub go on where one of another hub was.
func (one *stream) goOn(legacy *Legacy, from *Carried) {
	one.h.t.Helper()
	one.h.on(one.loop, func(s *Shard) {
		resumption := s.Resume(legacy)
		resumption.Join(one.slot, from)
		resumption.Continue(one.slot)
	})
}

// TestALossGoesAlong: a gap that the old hub has yet to tell of is told by the new one.
func TestALossGoesAlong(t *testing.T) {
	old, heir := newHarness(t, 1, nil), newHarness(t, 1, nil)
	one := old.join(0, proto.FormText)
	one.subscribe("job:1")
	one.subscribe("job:2")
	old.confirm("job:1", "job:2")
	old.hub.Lost(plain("job:1"))
	var carried Carried
	old.on(0, func(s *Shard) { carried = s.Carry(one.slot) })
	legacy := old.hub.Legacy()

	heir.hear("job:1", "job:2")
	heir.confirm("job:1", "job:2")
	heir.hub.Succeed(legacy, nil)
	again := heir.join(0, proto.FormText)
	again.goOn(legacy, &carried)
	equal(t, "of the loss", again.read(1), []string{gapText("job:1", "", "unknown_position")})
	heir.publish("job:1", "1")
	heir.publish("job:2", "2")
	equal(t, "and of nothing else", again.read(2), []string{"1", "2"})
	again.silent()
}

// trackedSubscriptions are states and logs as the broker confirms them.
func trackedSubscriptions(kind broker.Kind, channels ...string) (all []broker.Subscription) {
	for _, channel := range channels {
		all = append(all, broker.Subscription{Channel: channel, Kind: kind})
	}
	return all
}

func (h *harness) stands(channel string, at broker.Position) {
	h.t.Helper()
	if err := h.hub.Log(broker.LogUpdate{Channel: channel, From: at}, time.Now()); err != nil {
		h.t.Fatal(err)
	}
}

// heirOf is a hub that has read two states and two logs, and what is left to it.
func heirOf(t *testing.T) (heir *harness, legacy *Legacy) {
	heir = stateHarness(t, 1, nil)
	heir.rules["log"] = &Rules{Kind: broker.Log}
	heir.hear("state:1", "state:2", "log:1", "log:2")
	heir.value("state:1", `{"n":1}`)
	heir.value("state:2", `{"n":2}`)
	heir.stands("log:1", broker.Position{Milliseconds: 5})
	heir.stands("log:2", broker.Position{Milliseconds: 9})
	heir.hub.Confirmed(trackedSubscriptions(broker.State, "state:1", "state:2"), false)
	heir.hub.Confirmed(trackedSubscriptions(broker.Log, "log:1", "log:2"), false)
	value := func(payload string) [32]byte {
		event, err := proto.NewEvent(parse(t, "state:1"), "", []byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		return valueHash(standing{event: event})
	}
	return heir, &Legacy{Order: 20, Channels: map[string]LegacyChannel{
		"state:1": {Value: value(`{"n":7}`)}, "state:2": {Value: value(`{"n":2}`)},
		"log:1": {Position: broker.Position{Milliseconds: 6}}, "log:2": {Position: broker.Position{Milliseconds: 9}},
	}}
}

// TestCatchUp: what streams were sent, and the new hub has not read yet, it reads before they are its own.
func TestCatchUp(t *testing.T) {
	heir, legacy := heirOf(t)
	asked := make(map[string]broker.Kind)
	renew := func(sub broker.Subscription) { asked[sub.Channel] = sub.Kind }
	if all := heir.hub.CatchUp(legacy, renew); len(all) != 2 || !maps.Equal(asked, map[string]broker.Kind{"state:1": broker.State, "log:1": broker.Log}) {
		t.Fatalf("%v are read again, and %v were asked for; want state:1 and log:1", all, asked)
	}
	for _, channel := range []string{"state:1", "log:1", "state:2", "log:2"} {
		if _, isAsked := asked[channel]; heir.hub.IsConfirmed(channel) == isAsked {
			t.Errorf("%s is confirmed: %v", channel, !isAsked)
		}
	}
	heir.value("state:1", `{"n":7}`)
	heir.stands("log:1", broker.Position{Milliseconds: 6})
	heir.hub.Confirmed(trackedSubscriptions(broker.State, "state:1"), false)
	heir.hub.Confirmed(trackedSubscriptions(broker.Log, "log:1"), false)
	if all := heir.hub.CatchUp(legacy, renew); len(all) != 0 {
		t.Errorf("%v are read once more", all)
	}
	heir.hub.Succeed(legacy, nil)
	one := heir.join(0, proto.FormText)
	var from Carried
	from.Form = proto.FormText
	for channel := range legacy.Channels {
		from.Subscriptions = append(from.Subscriptions, CarriedSubscription{Channel: channel, Kind: heir.hub.directory.subscription(channel).Kind, Confirmed: true})
	}
	one.goOn(legacy, &from)
	one.silent()
}

// TestALogThatIsAnotherOne: a log that ends before what a stream was sent of it, though it was read again,
// has lost its end. That is told, and its next entries are.
func TestALogThatIsAnotherOne(t *testing.T) {
	heir, legacy := heirOf(t)
	heir.hub.Succeed(legacy, nil)
	one := heir.join(0, proto.FormText)
	one.goOn(legacy, &Carried{Form: proto.FormText, Subscriptions: []CarriedSubscription{{Channel: "log:1", Kind: broker.Log, Confirmed: true}}})
	equal(t, "of the log", one.read(1), []string{gapText("log:1", "", "unknown_position")})
	update := broker.LogUpdate{Channel: "log:1", From: broker.Position{Milliseconds: 5}, Entries: []broker.Entry{
		{Position: broker.Position{Milliseconds: 5, Sequence: 1}, Payload: []byte("1")},
	}}
	if err := heir.hub.Log(update, time.Now()); err != nil {
		t.Fatal(err)
	}
	equal(t, "of the next entry", one.read(1), []string{"1"})
}

// TestWhatIsTooOldIsMissed: an event that is no longer kept when another hub takes over was missed by who was
// away, whether the old one had noticed that it is too old or not.
func TestWhatIsTooOldIsMissed(t *testing.T) {
	replay := Replay{Size: 5, TTL: 10 * time.Second}
	old := replayHarness(t, replay, nil)
	old.join(0, proto.FormText).subscribe("kept:1")
	old.confirm("kept:1")
	for n := range 3 {
		if _, err := old.hub.Event("kept:1", fmt.Append(nil, n), time.Now().Add(-time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	told, legacyTold := old.hub.Kept(0), old.hub.Legacy()
	for name, left := range map[string]struct {
		kept   []Kept
		legacy *Legacy
	}{
		"it had not":            {told, legacyTold},
		"it was about to":       {nil, &Legacy{Order: 3, Channels: map[string]LegacyChannel{"kept:1": {Since: 1, Dropped: 3}}}},
		"it can't be made here": {[]Kept{{Channel: "kept:1", Order: 3, Payload: []byte("{"), Left: time.Second}}, &Legacy{Order: 3, Channels: map[string]LegacyChannel{"kept:1": {Since: 1}}}},
	} {
		t.Run(name, func(t *testing.T) {
			heir := replayHarness(t, replay, nil)
			heir.hear("kept:1")
			heir.confirm("kept:1")
			heir.hub.Succeed(left.legacy, left.kept)
			back := heir.join(0, proto.FormText)
			back.subscribeFrom("kept:1", heir.hub.From(parse(t, "kept:1"), "kept:1/life.1"))
			equal(t, "who was away", back.read(1), []string{gapText("kept:1", "kept:1/life.1", "unknown_position")})
			whole := heir.join(0, proto.FormText)
			whole.subscribeFrom("kept:1", heir.hub.From(parse(t, "kept:1"), "kept:1/life.3"))
			equal(t, "who was not", whole.read(1), []string{replayed("kept:1", 0)})
		})
	}
}

// TestHeldIsWhatIsWhole: a channel that the broker never confirmed is of no use to the next hub, which would
// wait for it.
func TestHeldIsWhatIsWhole(t *testing.T) {
	h := replayHarness(t, Replay{Size: 5, TTL: time.Hour}, nil)
	one := h.join(0, proto.FormText)
	for _, channel := range []string{"kept:1", "kept:2"} {
		one.subscribe(channel)
	}
	h.confirm("kept:2")
	for _, channel := range []string{"kept:1", "kept:2"} {
		one.unsubscribe(channel)
	}
	if held := h.hub.Held(); !slices.Equal(held, []string{"kept:2"}) {
		t.Errorf("%v are held", held)
	}
}
