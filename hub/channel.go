package hub

import (
	"strings"

	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// channel is what a shard knows of a channel that one of its streams wants. Most channels have
// one member, so the first stands in the channel itself.
type channel struct {
	name      proto.Channel
	crowd     *crowd     // nil while only is enough
	only      netio.Slot // the member at position 0, without a crowd; 0: none
	next      uint32     // free list
	last      uint64     // order of the last event that began its walk
	walks     uint32     // walks that still have to pass over members
	confirmed bool
	hole      bool // only left during a walk: its position must not be taken before that ends
}

// crowd is who hears a channel, and who waits for the broker to confirm it.
type crowd struct {
	members []netio.Slot // 0 is a hole
	holes   []uint32     // positions of members that are 0
	asked   []netio.Slot // waiting; 0: left while waiting
	waiting int          // how many of asked are still there
}

// positions is the number of places that a walk has to visit.
func (c *channel) positions() uint32 {
	switch {
	case c.crowd != nil:
		return uint32(len(c.crowd.members))
	case c.only != 0 || c.hole:
		return 1
	default:
		return 0
	}
}

// at gives the member at a position, 0 if it left.
func (c *channel) at(position uint32) netio.Slot {
	if c.crowd != nil {
		return c.crowd.members[position]
	}
	return c.only
}

// members is how many hear the channel.
func (c *channel) members() int {
	switch {
	case c.crowd != nil:
		return len(c.crowd.members) - len(c.crowd.holes)
	case c.only != 0:
		return 1
	default:
		return 0
	}
}

// unwanted reports whether nobody hears the channel, waits for it or has yet to be walked to.
func (c *channel) unwanted() bool {
	return c.members() == 0 && c.walks == 0 && (c.crowd == nil || c.crowd.waiting == 0)
}

// gather makes sure that there is a crowd.
func (c *channel) gather() *crowd {
	if c.crowd == nil {
		c.crowd = &crowd{}
		if c.only != 0 || c.hole {
			c.crowd.members = []netio.Slot{c.only}
		}
		if c.hole {
			c.crowd.holes = []uint32{0}
		}
		c.only, c.hole = 0, false
	}
	return c.crowd
}

// add gives a new member its position, behind all walks under way.
func (c *channel) add(slot netio.Slot) (position uint32) {
	if c.positions() == 0 && c.crowd == nil {
		c.only = slot
		return 0
	}
	all := c.gather()
	all.members = append(all.members, slot)
	return uint32(len(all.members) - 1)
}

// ask lets a stream wait for the broker.
func (c *channel) ask(slot netio.Slot) (position uint32) {
	all := c.gather()
	all.asked = append(all.asked, slot)
	all.waiting++
	return uint32(len(all.asked) - 1)
}

// takeAsked gives those who wait, and forgets them.
func (c *channel) takeAsked() []netio.Slot {
	if c.crowd == nil {
		return nil
	}
	asked := c.crowd.asked
	c.crowd.asked, c.crowd.waiting = nil, 0
	if len(c.crowd.members) == 0 {
		c.crowd = nil
	}
	return asked
}

// leave empties a place: a subscription's position, with askedBit for one who waits.
func (c *channel) leave(position uint32) {
	switch {
	case position&askedBit != 0:
		c.crowd.asked[position&^askedBit] = 0
		c.crowd.waiting--
		if c.crowd.waiting == 0 {
			c.takeAsked()
		}
	case c.crowd != nil:
		c.crowd.members[position] = 0
		c.crowd.holes = append(c.crowd.holes, position)
	default:
		c.only, c.hole = 0, true
	}
}

// closeHoles moves members from the end into holes, once no walk counts on their places, and
// tells moved of each.
func (c *channel) closeHoles(moved func(slot netio.Slot, position uint32)) {
	if c.walks > 0 {
		return
	}
	c.hole = false
	all := c.crowd
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
		moved(slot, hole)
	}
	all.holes = all.holes[:0]
	if len(all.members) == 0 && all.waiting == 0 {
		c.crowd = nil
	}
}

// addChannel takes note of a channel that nobody here wanted before.
func (s *Shard) addChannel(name proto.Channel) uint32 {
	index := s.freeChannel
	if index != 0 {
		s.freeChannel = s.channels.At(index).next
	} else {
		s.highChannel++
		index = s.highChannel
		s.channels.Grow(index)
	}
	// The name may be a piece of a whole request, which it must not keep alive.
	own, err := proto.ParseChannel(strings.Clone(name.Name()))
	if err != nil {
		panic(err)
	}
	*s.channels.At(index) = channel{name: own, confirmed: s.hub.directory.want(own.Name(), s.index)}
	s.names.Add(index)
	if own.Wildcard() {
		s.wildcards[own.Type()] = index
	}
	s.counters.Channels++
	return index
}

// freeIfUnwanted lets go of a channel that nobody needs any more.
func (s *Shard) freeIfUnwanted(index uint32) {
	c := s.channels.At(index)
	if !c.unwanted() {
		return
	}
	name := c.name
	s.names.Remove(name.Name())
	if name.Wildcard() {
		delete(s.wildcards, name.Type())
	}
	*c = channel{next: s.freeChannel}
	s.freeChannel = index
	s.counters.Channels--
	s.hub.directory.unwant(name.Name(), s.index)
}

// closeHoles closes the holes of a channel and tells the members that moved their new position.
func (s *Shard) closeHoles(c *channel, index uint32) {
	c.closeHoles(func(slot netio.Slot, position uint32) {
		s.find(s.members.At(uint32(slot)), index).position = position
	})
}
