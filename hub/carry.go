package hub

import (
	"cmp"
	"crypto/sha256"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// This file is what a hub tells of itself when its streams go on in another process; resume.go is what
// the other hub makes of it. Both brokers have divided the events before ([broker.Cut]), so that all
// that this hub was handed is in the queues of its streams, or is told here.

// Legacy is what a hub leaves to its successor of what its streams share.
type Legacy struct {
	// Order is the number of the last event or value that was handed over: the successor's come
	// after it.
	Order uint64
	// Channels says where each state and log stands, by name: what every stream has that is not
	// said to be elsewhere.
	Channels map[string]LegacyChannel
}

// LegacyChannel is where one state or log stands.
type LegacyChannel struct {
	Position broker.Position // of a log
	Value    [32]byte        // of a state: the hash of its value; zero: it has none
	// Of events that are kept for replays: who had the event with the number Since, or a later one, has
	// missed nothing but what is kept or was; and the last number that is no longer kept. 0: not known.
	Since, Dropped uint64
}

// Kept is an event that is kept for clients that come back.
type Kept struct {
	Channel, ID string
	Payload     []byte
	Order       uint64
	Left        time.Duration // until it is too old
}

// Carried is what a stream takes along to another hub.
type Carried struct {
	Form   proto.Form
	HadLog bool   // has, or had, a log among its channels
	Base   uint64 // of events: all up to this order was there when what it missed was looked up; 0: not known
	// Subscriptions are in no particular order, each channel once.
	Subscriptions []CarriedSubscription
}

// CarriedSubscription is one channel of a stream that goes elsewhere.
type CarriedSubscription struct {
	Channel   string
	Kind      broker.Kind
	Confirmed bool // else the subscription has not begun: it begins with From
	State     CarriedState
	// After is what the stream has: of a log in every state but live, of events in CarriedDropping
	// (their order).
	After broker.Position
	// Owed says that a gap of this reason comes before anything else.
	Owed   bool
	Reason proto.GapReason
	// Of CarriedReading: what it goes on from, if it came back; how many entries were replayed; that
	// the client may have some that come later; and the entry that must come next, if that is known.
	From   From
	Count  int
	Unsure bool
	Due    broker.Position
}

// CarriedState is how a stream stands in a channel. The numbers are told to other versions.
type CarriedState uint8

// The states.
const (
	CarriedLive     CarriedState = 0 // where its channel is
	CarriedAhead    CarriedState = 1 // has more of a log than the channel's flow brought
	CarriedDropping CarriedState = 2 // events after After were dropped; a gap will say so
	CarriedNewest   CarriedState = 3 // gets the newest value of a state
	CarriedReading  CarriedState = 4 // what is behind After is read from the log
	carriedStates   CarriedState = 5
)

// Valid reports whether it is one of the states.
func (c CarriedState) Valid() bool { return c < carriedStates }

// IsConfirmed reports whether every event on a channel that somebody here wants is heard.
func (h *Hub) IsConfirmed(channel string) bool { return h.directory.completeSince(channel) != 0 }

// AwaitsEchoes reports whether something was delivered here whose copy has yet to come back from the
// broker.
func (h *Hub) AwaitsEchoes() bool { return h.echoes.awaited() }

// HandOverPaced hands over at once what Rules.Throttle or Batch hold back.
func (h *Hub) HandOverPaced() { h.pacer.flush() }

// flush hands over what waits.
func (p *pacer) flush() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, one := range p.paced {
		if one.waiting || len(one.payloads) > 0 {
			p.release(one)
		}
	}
}

// Legacy gives what a successor needs. Nothing may be handed over meanwhile.
func (h *Hub) Legacy() *Legacy {
	h.publish.Lock()
	defer h.publish.Unlock()
	legacy := &Legacy{Order: h.order, Channels: make(map[string]LegacyChannel)}
	h.directory.eachStanding(func(channel string, now standing) {
		legacy.Channels[channel] = LegacyChannel{Position: now.position, Value: valueHash(now)}
	})
	h.directory.eachWhole(func(channel string, since uint64) {
		if h.options.RulesOf(typeOf(channel)).Replay.Size > 0 {
			legacy.Channels[channel] = LegacyChannel{Since: since, Dropped: h.rings.droppedOf(channel)}
		}
	})
	return legacy
}

// Kept gives what is kept of events with a number above after, in the order of the numbers.
func (h *Hub) Kept(after uint64) []Kept {
	kept := h.rings.behind(after)
	slices.SortFunc(kept, func(a, b Kept) int { return cmp.Compare(a.Order, b.Order) })
	return kept
}

// Held gives the channels that nobody hears and that are held for clients that may come back. One
// that the broker has not confirmed is not among them: what is kept of it is not whole.
func (h *Hub) Held() []string {
	h.rings.mutex.Lock()
	held := slices.Collect(maps.Keys(h.rings.holds))
	h.rings.mutex.Unlock()
	return slices.DeleteFunc(held, func(channel string) bool { return !h.IsConfirmed(channel) })
}

// behind gives what is kept with a number above after, in no order. What is too old, and not forgotten
// yet, is among it: who missed it must not be told that nothing was missed.
func (r *rings) behind(after uint64) (kept []Kept) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	now := netio.Clock()
	for name, one := range r.byName {
		for _, k := range one.kept[one.first:] {
			if k.post.order > after {
				kept = append(kept, Kept{
					Channel: name, ID: k.post.event.ID(), Payload: k.post.event.Payload(),
					Order: k.post.order, Left: time.Duration(max(k.until-now, 0)),
				})
			}
		}
	}
	return kept
}

// droppedOf is the last number that is no longer kept of a channel.
func (r *rings) droppedOf(channel string) uint64 {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if one := r.byName[channel]; one != nil {
		return one.dropped
	}
	return 0
}

// eachWhole calls yield for every confirmed channel, with the number from which on its memory is whole.
func (d *directory) eachWhole(yield func(channel string, since uint64)) {
	for i := range d.stripes {
		s := &d.stripes[i]
		s.mutex.Lock()
		for number := uint32(1); number <= s.high; number++ {
			if entry := s.at(number); entry.since.number() != 0 {
				yield(d.store.Name(entry.name), entry.since.number())
			}
		}
		s.mutex.Unlock()
	}
}

// valueHash stands for the value of a state.
func valueHash(now standing) (hash [32]byte) {
	if now.event == nil {
		return hash
	}
	return sha256.Sum256(now.event.Payload())
}

// eachStanding calls yield for every state and log of which it is known where it stands.
func (d *directory) eachStanding(yield func(channel string, now standing)) {
	for i := range d.stripes {
		s := &d.stripes[i]
		s.mutex.Lock()
		for number, now := range s.now {
			yield(d.store.Name(s.at(number).name), now)
		}
		s.mutex.Unlock()
	}
}

// Settle brings every walk that has begun to its end, however long that takes: after it, what was
// handed over is in the streams' queues.
func (s *Shard) Settle() {
	if s.untold.Load() {
		s.mendUntold()
	}
	s.mendMissed()
	for !s.walks.empty() {
		s.step(s.walks.head(), s.stepsMax)
		if w := s.walks.head(); w.next == w.exactEnd+w.wildcardEnd {
			s.finish(w)
			s.walks.pop()
		}
	}
}

// Unload queues what was put off for a stream of conflated events, whatever is queued already: that is
// bounded, and it goes along with the queue.
func (s *Shard) Unload(slot netio.Slot) {
	b := s.behind[slot]
	if b == nil {
		return
	}
	m := s.members.At(uint32(slot))
	for _, r := range slices.Clone(b.records) {
		if r.state != recordNewest || s.channels.At(r.channel).kind == broker.State {
			continue
		}
		if r.owed {
			s.sendGap(slot, m, r, r.reason)
		}
		for _, one := range r.newest {
			if one.event == nil {
				s.sendGap(slot, m, r, one.reason)
				continue
			}
			f := s.frame(one.event, m.form.WithoutID(), one.born, false, proto.Text{})
			s.loop.Send(slot, f, netio.Bulk)
			s.loop.Release(f)
			s.counters.Delivered[m.form.WithoutID()]++
		}
		s.drop(slot, m, r.channel)
	}
}

// Carry tells what the stream in slot takes along. It changes nothing.
func (s *Shard) Carry(slot netio.Slot) Carried {
	m := s.members.At(uint32(slot))
	carried := Carried{Form: m.form, HadLog: m.flags&memberLog != 0}
	b := s.behind[slot]
	if b != nil {
		carried.Base = b.base
	}
	s.each(m, func(sub *subscription) bool {
		c := s.channels.At(sub.channel)
		one := CarriedSubscription{Channel: strings.Clone(s.text(c)), Kind: c.kind, Confirmed: sub.position&askedBit == 0}
		if one.Confirmed && !c.has(channelConfirmed) {
			// Events were lost, which the stream is told when the broker confirms again: elsewhere now.
			one.Confirmed, one.From = false, From{Kind: FromUnknown}
		}
		if b != nil {
			if r := b.find(sub.channel); r != nil {
				one.take(r)
			}
		}
		carried.Subscriptions = append(carried.Subscriptions, one)
		return true
	})
	return carried
}

// take notes where a stream is that is not where its channel is.
func (c *CarriedSubscription) take(r *record) {
	c.Owed, c.Reason = r.owed, r.reason
	if r.from != nil && c.From.Kind != FromUnknown {
		c.From = *r.from
	}
	switch r.state {
	case recordWaiting, recordUnknown:
		c.Confirmed = false // the broker's word is nothing to the client yet
	case recordJoined:
		if c.Kind == broker.Log {
			c.State, c.After = CarriedAhead, r.after
		}
	case recordDropping:
		c.State, c.After = CarriedDropping, r.after
	case recordNewest:
		c.State = CarriedNewest
	case recordReading:
		c.State, c.After = CarriedReading, r.after
		c.Count, c.Unsure, c.Due = r.count, !r.unsure.IsZero(), r.due
	}
}
