package hub

import (
	"strings"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/names"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// channel is what a shard knows of a channel that one of its streams wants. Most channels have
// one stream, so the first one stands in the channel itself: as the member at position 0, or as
// the one who waits for the broker. No pointers.
type channel struct {
	last          uint64      // no walk of an event or a value with this order or a lower one will begin
	name          names.Place // the directory holds it; of a free channel, the next one
	who           uint32      // the one stream's slot, 0: none; with channelCrowd, the number of a crowd
	walks         uint32      // walks that still have to pass over members
	first, second uint8       // the colons of the name
	flags         channelFlags
	kind          broker.Kind
}

type channelFlags uint8

const (
	channelConfirmed channelFlags = 1 << iota // the broker says so
	channelCrowd                              // one stream was not enough
	channelWaits                              // the one stream is no member yet: it waits for the broker
	channelHole                               // the one member left during a walk: its position must not be taken before that ends
	channelMissed                             // something was not walked, and is to be mended
)

func (c *channel) has(flag channelFlags) bool { return c.flags&flag != 0 }

func (c *channel) setConfirmed(confirmed bool) {
	c.flags &^= channelConfirmed
	if confirmed {
		c.flags |= channelConfirmed
	}
}

// isNew reports whether nobody has or had a place in the channel that counts.
func (c *channel) isNew() bool { return c.who == 0 && !c.has(channelHole) }

// crowd is who hears a channel, and who waits for the broker to confirm it.
type crowd struct {
	members []netio.Slot // 0 is a hole
	holes   []uint32     // positions of members that are 0
	asked   []netio.Slot // waiting; 0: left while waiting
	waiting int          // how many of asked are still there
	next    uint32       // free list
}

// crowdOf gives the crowd of a channel, nil where one stream is enough.
func (s *Shard) crowdOf(c *channel) *crowd {
	if c.has(channelCrowd) {
		return s.crowds.At(c.who)
	}
	return nil
}

// gather makes sure that there is a crowd.
func (s *Shard) gather(c *channel) *crowd {
	if all := s.crowdOf(c); all != nil {
		return all
	}
	index := s.freeCrowd
	if index != 0 {
		s.freeCrowd = s.crowds.At(index).next
	} else {
		s.highCrowd++
		index = s.highCrowd
		s.crowds.Grow(index)
	}
	all := s.crowds.At(index)
	*all = crowd{}
	switch only := netio.Slot(c.who); {
	case c.has(channelWaits):
		all.asked, all.waiting = []netio.Slot{only}, 1
	case c.has(channelHole):
		all.members, all.holes = []netio.Slot{0}, []uint32{0}
	case only != 0:
		all.members = []netio.Slot{only}
	}
	c.who, c.flags = index, c.flags&^(channelHole|channelWaits)|channelCrowd
	return all
}

// disperse is the end of a crowd that nobody is in any more.
func (s *Shard) disperse(c *channel) {
	*s.crowds.At(c.who) = crowd{next: s.freeCrowd}
	s.freeCrowd = c.who
	c.who, c.flags = 0, c.flags&^channelCrowd
}

// positions is the number of places that a walk has to visit.
func (s *Shard) positions(c *channel) uint32 {
	if all := s.crowdOf(c); all != nil {
		return uint32(len(all.members))
	}
	if c.has(channelWaits) || c.isNew() {
		return 0
	}
	return 1
}

// memberAt gives the member at a position, 0 if it left.
func (s *Shard) memberAt(c *channel, position uint32) netio.Slot {
	if all := s.crowdOf(c); all != nil {
		return all.members[position]
	}
	return netio.Slot(c.who)
}

// memberCount is how many hear the channel.
func (s *Shard) memberCount(c *channel) int {
	if all := s.crowdOf(c); all != nil {
		return len(all.members) - len(all.holes)
	}
	if c.has(channelWaits) || c.who == 0 {
		return 0
	}
	return 1
}

// unwanted reports whether nobody hears the channel, waits for it or has yet to be walked to.
func (s *Shard) unwanted(c *channel) bool {
	if all := s.crowdOf(c); all != nil {
		return all.waiting == 0 && len(all.members) == len(all.holes) && c.walks == 0
	}
	return c.who == 0 && c.walks == 0
}

// addMember gives a new member its position, behind all walks under way.
func (s *Shard) addMember(c *channel, slot netio.Slot) (position uint32) {
	if !c.has(channelCrowd) && c.isNew() {
		c.who = uint32(slot)
		return 0
	}
	all := s.gather(c)
	all.members = append(all.members, slot)
	return uint32(len(all.members) - 1)
}

// addAsked lets a stream wait for the broker.
func (s *Shard) addAsked(c *channel, slot netio.Slot) (position uint32) {
	if !c.has(channelCrowd) && c.isNew() {
		c.who, c.flags = uint32(slot), c.flags|channelWaits
		return 0
	}
	all := s.gather(c)
	all.asked = append(all.asked, slot)
	all.waiting++
	return uint32(len(all.asked) - 1)
}

// takeAsked appends to room those who wait, 0 for each who left meanwhile, and forgets them.
func (s *Shard) takeAsked(c *channel, room []netio.Slot) []netio.Slot {
	if c.has(channelWaits) {
		room = append(room, netio.Slot(c.who))
	} else if all := s.crowdOf(c); all != nil {
		room = append(room, all.asked...)
	}
	s.forgetAsked(c)
	return room
}

func (s *Shard) forgetAsked(c *channel) {
	if c.has(channelWaits) {
		c.who, c.flags = 0, c.flags&^channelWaits
	} else if all := s.crowdOf(c); all != nil {
		all.asked, all.waiting = nil, 0
		if len(all.members) == 0 {
			s.disperse(c)
		}
	}
}

// vacate empties a place: a subscription's position, with askedBit for one who waits.
func (s *Shard) vacate(c *channel, position uint32) {
	all := s.crowdOf(c)
	switch {
	case c.has(channelWaits):
		s.forgetAsked(c)
	case all == nil:
		c.who, c.flags = 0, c.flags|channelHole
	case position&askedBit != 0:
		all.asked[position&^askedBit] = 0
		if all.waiting--; all.waiting == 0 {
			s.forgetAsked(c)
		}
	default:
		all.members[position] = 0
		all.holes = append(all.holes, position)
	}
}

// closeHoles moves members from the end into holes, once no walk counts on their places, and tells
// them their new position.
func (s *Shard) closeHoles(c *channel, index uint32) {
	if c.walks > 0 {
		return
	}
	c.flags &^= channelHole
	all := s.crowdOf(c)
	if all == nil || len(all.holes) == 0 {
		return
	}
	for _, hole := range all.holes {
		last := len(all.members) - 1
		for last >= 0 && all.members[last] == 0 {
			last--
		}
		all.members = all.members[:last+1]
		if int(hole) >= len(all.members) {
			continue
		}
		slot := all.members[last]
		all.members[hole], all.members = slot, all.members[:last]
		s.find(s.members.At(uint32(slot)), index).position = hole
	}
	all.holes = all.holes[:0]
	if len(all.members) == 0 && all.waiting == 0 {
		s.disperse(c)
	}
}

// addChannel takes note of a channel that nobody here wanted before. name may be a piece of a whole
// request: nothing of it is kept.
func (s *Shard) addChannel(name proto.Channel) uint32 {
	index := s.freeChannel
	if index != 0 {
		s.freeChannel = uint32(s.channels.At(index).name)
	} else {
		s.highChannel++
		index = s.highChannel
		s.channels.Grow(index)
	}
	c := s.channels.At(index)
	told := s.hub.told.Load()
	place, confirmed, now := s.hub.directory.want(name.Name(), s.index)
	*c = channel{name: place, kind: s.hub.directory.subscription(name.Name()).Kind, last: max(told, now.order)}
	c.first, c.second = name.Colons()
	c.setConfirmed(confirmed)
	if c.kind == broker.Log {
		s.flows[index] = now.position
	}
	s.names.Add(index)
	if name.Wildcard() {
		s.wildcards[strings.Clone(name.Type())] = index
	}
	s.counters.Channels++
	return index
}

// text is the name of a channel, which nobody may keep.
func (s *Shard) text(c *channel) string { return s.hub.directory.store.View(c.name) }

// nameOf is the name of a channel, for whoever wants it.
func (s *Shard) nameOf(c *channel) proto.Channel {
	return proto.MakeChannel(strings.Clone(s.text(c)), c.first, c.second)
}

// freeIfUnwanted lets go of a channel that nobody needs any more.
func (s *Shard) freeIfUnwanted(index uint32) {
	c := s.channels.At(index)
	if !s.unwanted(c) {
		return
	}
	name := s.nameOf(c)
	s.names.Remove(name.Name())
	if name.Wildcard() {
		delete(s.wildcards, name.Type())
	}
	if c.kind == broker.Log {
		delete(s.flows, index)
	}
	s.last.forget(index)
	*c = channel{name: names.Place(s.freeChannel)}
	s.freeChannel = index
	s.counters.Channels--
	s.hub.directory.unwant(name.Name(), s.index)
}
