package hub

import (
	"sync/atomic"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/names"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// Shard is the part of the hub that lives on one loop. Its methods, but for none, run on that
// loop's goroutine.
type Shard struct {
	hub   *Hub
	index int
	loop  *netio.Loop

	members   netio.Slab[member] // by the stream's own slot
	blocks    netio.Slab[block]
	freeBlock uint32
	highBlock uint32

	channels    netio.Slab[channel]
	freeChannel uint32
	highChannel uint32
	names       names.Index
	crowds      netio.Slab[crowd] // of channels with more than one stream: few, so they may have pointers
	freeCrowd   uint32
	highCrowd   uint32
	wildcards   map[string]uint32 // by type: the channel "type:*"

	asked      []netio.Slot // room for those whose channel was confirmed just now
	walks      walkQueue
	missed     []uint32 // channels of which something was not walked; see channelMissed
	walksMax   int      // walksMax, unless a test wants it smaller
	stepsMax   int      // walkStepsMax, likewise
	expressMax int      // expressMax, likewise
	budget     netio.Budget

	flows   map[uint32]broker.Position // of logs, by channel: where the last walk that began ends
	horizon uint64                     // every entry of every log here up to this time began its walk
	behind  map[netio.Slot]*behind     // the streams that have records
	tickets uint64
	pasts   pastQueue
	last    lastTexts // of channels that somebody takes as a gzip stream
	lost    []crowded // channels that many hear, since the last loss that was told

	untold   atomic.Bool // set by posters: something could not be told to this loop
	counters Counters
}

// Counters is what a shard counts; read a copy on its loop.
type Counters struct {
	Members       int
	Subscriptions int
	Channels      int
	Behind        int                     // streams that are behind, or have yet to begin, on a channel
	Delivered     [proto.FormCount]uint64 // events queued for a stream, by wire form
	Dropped       uint64                  // events not queued because the stream lags, and told by a gap
	Conflated     uint64                  // events and values that a newer one replaced because the stream lags
	Replayed      uint64                  // of Delivered: events from memory for a client that came back
	CaughtUp      uint64                  // of Delivered: entries read again from a log
	Gaps          [proto.GapReasonCount]uint64
}

// member is what the hub knows of a stream. No pointers.
type member struct {
	first subscription
	more  uint32 // block with a further subscription
	count uint16
	form  proto.Form
	flags memberFlags
}

type memberFlags uint8

const (
	memberJoined memberFlags = 1 << iota
	memberBehind             // has records: look before anything is queued
	memberLog                // has, or had, a log among its channels

	memberUnusual = memberBehind | memberLog
)

// subscription is a place in a channel.
type subscription struct {
	channel  uint32 // 0: none
	position uint32 // in the channel; with askedBit, among those who wait
}

const askedBit = 1 << 31

// block holds one further subscription of a member; most that have more than one have two. No
// pointers.
type block struct {
	subscription
	next uint32
}

func newShard(h *Hub, index int) *Shard {
	s := &Shard{
		hub: h, index: index,
		walksMax: walksMax, stepsMax: walkStepsMax, expressMax: expressMax, budget: h.options.budget(),
		wildcards: make(map[string]uint32),
		flows:     make(map[uint32]broker.Position),
		behind:    make(map[netio.Slot]*behind),
	}
	s.blocks.Grow(0)
	s.channels.Grow(0)
	s.names = names.New(func(entry uint32) string { return s.text(s.channels.At(entry)) })
	return s
}

// Attach gives the shard its loop, before the loop runs.
func (s *Shard) Attach(loop *netio.Loop) { s.loop = loop }

// Loop is the loop that the shard lives on.
func (s *Shard) Loop() *netio.Loop { return s.loop }

// Counters gives a copy.
func (s *Shard) Counters() Counters {
	c := s.counters
	c.Behind = len(s.behind)
	return c
}

// Join makes the stream in slot a member that takes its events in form.
func (s *Shard) Join(slot netio.Slot, form proto.Form) {
	s.members.Grow(uint32(slot))
	*s.members.At(uint32(slot)) = member{form: form, flags: memberJoined}
	s.counters.Members++
}

// SetForm changes the form in which the member takes what comes from now on.
func (s *Shard) SetForm(slot netio.Slot, form proto.Form) { s.members.At(uint32(slot)).form = form }

// Form is the form in which the member takes its events.
func (s *Shard) Form(slot netio.Slot) proto.Form { return s.members.At(uint32(slot)).form }

// Leave takes the stream out of all its channels. Called when it ends; harmless if it never
// joined.
func (s *Shard) Leave(slot netio.Slot) {
	if int(slot) >= s.members.Len() {
		return
	}
	m := s.members.At(uint32(slot))
	if m.flags&memberJoined == 0 {
		return
	}
	s.each(m, func(sub *subscription) bool {
		s.withdraw(sub)
		return true
	})
	for m.more != 0 {
		b := s.blocks.At(m.more)
		m.more, b.next, s.freeBlock = b.next, s.freeBlock, m.more
	}
	delete(s.behind, slot)
	*m = member{}
	s.counters.Members--
}

// Outcome says what became of [Shard.Subscribe].
type Outcome uint8

// The outcomes.
const (
	Confirmed  Outcome = iota // every event published from now on arrives
	Asked                     // the broker was asked; Events.Subscribed follows
	AlreadyHas                // the stream had it, confirmed
	AlreadyAsk                // the stream asked before and still waits
	TooMany                   // the stream is at its limit; nothing changed
)

// Subscribe makes the stream hear a channel, going on from a position. What the subscription begins
// with (the value of a state, a replay, a gap) comes with [Shard.Begin], and for the channel of a
// state, or one that goes on from a position, nothing is sent before it. from is not looked at
// where the outcome is AlreadyHas, AlreadyAsk or TooMany.
func (s *Shard) Subscribe(slot netio.Slot, name proto.Channel, from From) Outcome {
	m := s.members.At(uint32(slot))
	index := s.names.Find(name.Name())
	if index != 0 {
		if sub := s.find(m, index); sub != nil {
			if sub.position&askedBit != 0 {
				return AlreadyAsk
			}
			return AlreadyHas
		}
	}
	if limit := s.hub.options.MaxSubscriptions; limit > 0 && int(m.count) >= limit || m.count == 1<<16-1 {
		return TooMany
	}
	if index == 0 {
		index = s.addChannel(name)
	}
	c := s.channels.At(index)
	if c.kind == broker.Log {
		m.flags |= memberLog
	}
	s.wait(slot, m, index, from)
	if c.has(channelConfirmed) {
		s.add(m, subscription{channel: index, position: s.addMember(c, slot)})
		return Confirmed
	}
	s.add(m, subscription{channel: index, position: s.addAsked(c, slot) | askedBit})
	return Asked
}

// Unsubscribe ends a subscription and reports whether there was one. No event of the channel is
// queued for the stream after it.
func (s *Shard) Unsubscribe(slot netio.Slot, name proto.Channel) bool {
	index := s.names.Find(name.Name())
	if index == 0 {
		return false
	}
	m := s.members.At(uint32(slot))
	sub := s.find(m, index)
	if sub == nil {
		return false
	}
	s.withdraw(sub)
	m.count--
	s.drop(slot, m, index)
	return true
}

// Channels calls yield for each channel of the stream, with whether it is confirmed, until it
// says false.
func (s *Shard) Channels(slot netio.Slot, yield func(name proto.Channel, confirmed bool) bool) {
	s.each(s.members.At(uint32(slot)), func(sub *subscription) bool {
		return yield(s.nameOf(s.channels.At(sub.channel)), sub.position&askedBit == 0)
	})
}

// each visits the subscriptions of m until visit says false.
func (s *Shard) each(m *member, visit func(*subscription) bool) {
	if m.first.channel != 0 && !visit(&m.first) {
		return
	}
	for at := m.more; at != 0; {
		b := s.blocks.At(at)
		if b.channel != 0 && !visit(&b.subscription) {
			return
		}
		at = b.next
	}
}

func (s *Shard) find(m *member, channel uint32) *subscription {
	if m.first.channel == channel {
		return &m.first
	}
	for at := m.more; at != 0; {
		b := s.blocks.At(at)
		if b.channel == channel {
			return &b.subscription
		}
		at = b.next
	}
	return nil
}

// add puts sub into the first free place of m.
func (s *Shard) add(m *member, sub subscription) {
	m.count++
	s.counters.Subscriptions++
	place := s.find(m, 0)
	if place == nil {
		index := s.freeBlock
		if index != 0 {
			s.freeBlock = s.blocks.At(index).next
		} else {
			s.highBlock++
			index = s.highBlock
			s.blocks.Grow(index)
		}
		b := s.blocks.At(index)
		*b = block{next: m.more}
		m.more, place = index, &b.subscription
	}
	*place = sub
}

// withdraw takes a subscription out of its channel and clears it.
func (s *Shard) withdraw(sub *subscription) {
	index := sub.channel
	c := s.channels.At(index)
	s.vacate(c, sub.position)
	*sub = subscription{}
	s.counters.Subscriptions--
	s.closeHoles(c, index)
	s.freeIfUnwanted(index)
}

// Add adds the counts of another shard.
func (c *Counters) Add(other Counters) {
	c.Members += other.Members
	c.Subscriptions += other.Subscriptions
	c.Channels += other.Channels
	c.Behind += other.Behind
	c.Dropped += other.Dropped
	c.Conflated += other.Conflated
	c.Replayed += other.Replayed
	c.CaughtUp += other.CaughtUp
	for form := range c.Delivered {
		c.Delivered[form] += other.Delivered[form]
	}
	for reason := range c.Gaps {
		c.Gaps[reason] += other.Gaps[reason]
	}
}
