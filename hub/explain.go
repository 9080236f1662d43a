package hub

import (
	"slices"
	"strings"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// Explanation says how one stream stands, for an operator.
type Explanation struct {
	Form     proto.Form
	Queue    netio.Queue
	Channels []ChannelExplanation
	// Dropped and Conflated count events and values since the stream has been behind; 0 if it is
	// not.
	Dropped, Conflated uint64
}

// ChannelExplanation says how one stream stands in one channel.
type ChannelExplanation struct {
	Channel proto.Channel
	Kind    broker.Kind
	// State is "asked" (the broker has not confirmed), "live", or, where the stream's flow is not
	// the channel's: "waiting" (for Begin), "unknown_position" (as before; all it gets is a gap),
	// "replayed" (ahead of the channel's walks), "dropping", "newest" (lagging; only the newest
	// will be sent), "reading" (a log's past).
	State string
	// After is the id of what the stream has, where State is not asked or live; for a stream that
	// is live the last of the channel. Empty where there is none.
	After string
	// Members is how many streams of the same loop hear the channel.
	Members int
}

// Explain says how the stream in slot stands. It takes time in proportion to its subscriptions.
func (s *Shard) Explain(slot netio.Slot) Explanation {
	m := s.members.At(uint32(slot))
	e := Explanation{Form: m.form, Queue: s.loop.Queue(slot)}
	b := s.behind[slot]
	if b != nil {
		e.Dropped, e.Conflated = b.dropped, b.conflated
	}
	s.each(m, func(sub *subscription) bool {
		c := s.channels.At(sub.channel)
		at := orderAt(c.last)
		if c.kind == broker.Log {
			at = s.flows[sub.channel]
		}
		one := ChannelExplanation{Channel: s.nameOf(c), Kind: c.kind, State: "live", Members: s.memberCount(c)}
		if b != nil {
			if r := b.find(sub.channel); r != nil {
				one.State, at = r.state.String(), r.after
			}
		}
		if sub.position&askedBit != 0 {
			one.State = "asked"
		}
		one.After = s.positionID(c, at)
		e.Channels = append(e.Channels, one)
		return true
	})
	return e
}

// Standing sums up how one stream stands in all its channels: as in the worst of them.
type Standing uint8

// The standings, from the best to the worst.
const (
	StandingLive       Standing = iota // gets what its channels bring, as it comes
	StandingBeginning                  // waits for what a subscription begins with
	StandingResuming                   // gets what it missed while it was away
	StandingCatchingUp                 // lags: a log is read for it
	StandingConflating                 // lags: of a channel only the newest will be sent
	StandingDropping                   // lags: events are dropped, and a gap will say so
)

// Standing tells how the stream in slot stands. It looks at no more than the channels on which the
// stream is behind, and asks nobody.
func (s *Shard) Standing(slot netio.Slot) (worst Standing) {
	if s.members.At(uint32(slot)).flags&memberBehind == 0 {
		return StandingLive
	}
	for _, r := range s.behind[slot].records {
		worst = max(worst, r.standing())
	}
	return worst
}

func (r *record) standing() Standing {
	switch r.state {
	case recordWaiting, recordUnknown:
		return StandingBeginning
	case recordReading:
		if r.from != nil {
			return StandingResuming
		}
		return StandingCatchingUp
	case recordNewest:
		return StandingConflating
	case recordDropping:
		return StandingDropping
	default: // joined: it has all there is
		return StandingLive
	}
}

// Subscriptions is how many channels the stream in slot has, those included that the broker has
// not confirmed.
func (s *Shard) Subscriptions(slot netio.Slot) int { return int(s.members.At(uint32(slot)).count) }

// Hears reports whether the stream in slot has a channel, confirmed or not. It takes time in
// proportion to the stream's subscriptions.
func (s *Shard) Hears(slot netio.Slot, name proto.Channel) bool {
	index := s.names.Find(name.Name())
	return index != 0 && s.find(s.members.At(uint32(slot)), index) != nil
}

const (
	// preferMax is how many channels a loop asks the source to mend first, after a loss.
	preferMax = 1000
	// crowdMin is how many streams of a loop make a channel one of those.
	crowdMin = 2
)

// lossTold follows, as mail, when all channels of a loss were told.
type lossTold struct{}

// crowded is a lost channel that many hear.
type crowded struct {
	subscription broker.Subscription
	members      int
}

// noteCrowd remembers a lost channel if many hear it, and forgets those that fewer hear.
func (s *Shard) noteCrowd(c *channel) {
	members := s.memberCount(c)
	if s.hub.options.Source.Prefer == nil || members < crowdMin {
		return
	}
	s.lost = append(s.lost, crowded{broker.Subscription{Channel: strings.Clone(s.text(c)), Kind: c.kind}, members})
	if len(s.lost) == 2*preferMax {
		s.sortLost()
	}
}

func (s *Shard) sortLost() {
	slices.SortStableFunc(s.lost, func(a, b crowded) int { return b.members - a.members })
	s.lost = s.lost[:min(len(s.lost), preferMax)]
}

// prefer tells the source which lost channels many hear.
func (s *Shard) prefer() {
	if len(s.lost) == 0 {
		return
	}
	s.sortLost()
	subscriptions := make([]broker.Subscription, len(s.lost))
	for i, one := range s.lost {
		subscriptions[i] = one.subscription
	}
	s.lost = nil
	s.hub.options.Source.Prefer(subscriptions)
}
