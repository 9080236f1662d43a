package hub

import (
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

const (
	// walkStepsMax is how many members a shard visits in one turn: about as long as a turn's
	// flush takes at its shortest.
	walkStepsMax = 4096
	// expressMax is the largest number of receivers whose sockets need not wait behind a crowd's.
	expressMax = 64
)

// walk is one thing to be brought to the members that a channel, and the wildcard over it, had
// at one moment: an event, a gap, or the news that their subscription is confirmed.
type walk struct {
	event  *proto.Event // nil: a gap or an announcement
	gap    []byte       // the JSON of a gap
	reason proto.GapReason
	born   int64

	// Orders of the events before this one on the two channels; 0: none known.
	exactAfter, wildcardAfter uint64

	exact, wildcard       uint32 // channels; 0: none
	exactEnd, wildcardEnd uint32 // how many members each had
	next                  uint32 // the member to visit next, wildcard members behind the exact ones
	frames                [proto.FormCount]netio.Frame
	lane                  netio.Lane
}

// walkQueue is a queue of walks, first in, first out.
type walkQueue struct {
	walks []walk
	first int
}

func (q *walkQueue) empty() bool { return q.first == len(q.walks) }

func (q *walkQueue) push(w walk) { q.walks = append(q.walks, w) }

func (q *walkQueue) head() *walk { return &q.walks[q.first] }

func (q *walkQueue) pop() {
	q.walks[q.first] = walk{}
	q.first++
	switch {
	case q.first == len(q.walks):
		q.walks, q.first = q.walks[:0], 0
	case q.first >= 1024 && q.first*2 >= len(q.walks):
		n := copy(q.walks, q.walks[q.first:])
		clear(q.walks[n:])
		q.walks, q.first = q.walks[:n], 0
	}
}

// Mail handles what was posted to the shard's loop, or hands it on to the owner.
func (s *Shard) Mail(item any) {
	switch item := item.(type) {
	case *publication:
		s.publish(item)
	case *interestChange:
		for _, channel := range item.channels {
			s.changeInterest(channel, item)
		}
	default:
		s.hub.options.Events.Mail(s, item)
	}
}

// Work carries out a piece of the walks that are pending and reports whether more is left.
func (s *Shard) Work() (more bool) {
	if s.behind.Load() && s.behind.CompareAndSwap(true, false) {
		s.gapEverywhere()
	}
	for budget := s.stepsMax; budget > 0 && !s.walks.empty(); {
		budget -= s.step(s.walks.head(), budget)
		if w := s.walks.head(); w.next == w.exactEnd+w.wildcardEnd {
			s.finish(w)
			s.walks.pop()
		}
	}
	return !s.walks.empty()
}

func (s *Shard) publish(p *publication) {
	name := p.event.Channel()
	w := walk{event: p.event, born: p.born, exact: s.names.Find(name.Name())}
	if c := s.channels.At(w.exact); w.exact != 0 {
		w.exactAfter, c.last = c.last, p.order
	}
	if len(s.wildcards) > 0 {
		w.wildcard = s.wildcards[name.Type()]
		if c := s.channels.At(w.wildcard); w.wildcard != 0 {
			w.wildcardAfter, c.last = c.last, p.order
		}
	}
	s.begin(w)
}

// begin fixes who w is for. A short walk with nothing before it is carried out at once.
func (s *Shard) begin(w walk) {
	for _, part := range [...]struct {
		channel uint32
		end     *uint32
	}{{w.exact, &w.exactEnd}, {w.wildcard, &w.wildcardEnd}} {
		if part.channel != 0 {
			c := s.channels.At(part.channel)
			*part.end = c.positions()
			c.walks++
		}
	}
	if int(w.exactEnd+w.wildcardEnd) > s.expressMax {
		w.lane = netio.Bulk
	}
	s.walks.push(w)
	if w.lane == netio.Express && len(s.walks.walks)-s.walks.first == 1 {
		s.step(s.walks.head(), s.expressMax)
		s.finish(s.walks.head())
		s.walks.pop()
	}
}

// step visits at most budget members and says how many it visited; at least one, so that a walk
// over nobody ends too.
func (s *Shard) step(w *walk, budget int) (visited int) {
	all := w.exactEnd + w.wildcardEnd
	for w.next < all && visited < budget {
		channel, position := w.exact, w.next
		visited++
		w.next++ // first: a panic must not find the same member again
		if position >= w.exactEnd {
			channel, position = w.wildcard, position-w.exactEnd
		}
		slot := s.channels.At(channel).at(position)
		if slot == 0 {
			continue
		}
		if channel == w.wildcard && w.exact != 0 {
			sub := s.find(s.members.At(uint32(slot)), w.exact)
			if sub != nil && sub.position < w.exactEnd {
				continue // it came by the exact channel
			}
		}
		s.visit(w, slot, channel)
	}
	return max(visited, 1)
}

// visit brings w to one member.
func (s *Shard) visit(w *walk, slot netio.Slot, channel uint32) {
	if w.event == nil && w.gap == nil {
		s.hub.options.Events.Subscribed(s, slot, s.channels.At(channel).name)
		return
	}
	m := s.members.At(uint32(slot))
	if m.flags&memberLagging != 0 && s.lagsBehind(slot, channel) {
		s.counters.Skipped++
		return
	}
	f := w.frames[m.form]
	if f == 0 {
		f = s.encode(w, m.form)
		w.frames[m.form] = f
	}
	if !s.loop.Offer(slot, f, w.lane, s.hub.options.MaxQueueBytes) {
		after := w.exactAfter
		if channel != w.exact {
			after = w.wildcardAfter
		}
		s.fallBehind(slot, m, channel, after)
		s.counters.Skipped++
		return
	}
	if w.event != nil {
		s.counters.Delivered[m.form]++
	} else {
		s.counters.Gaps[w.reason]++
	}
}

func (s *Shard) encode(w *walk, form proto.Form) netio.Frame {
	switch {
	case w.event != nil && w.lane == netio.Bulk:
		return s.loop.NewFanoutFrame(w.event.Bytes(form), w.born)
	case w.event != nil:
		return s.loop.NewFrame(w.event.Bytes(form), w.born)
	}
	return s.loop.NewFrame(proto.AppendMessage(nil, form, "gap", w.gap), 0)
}

// finish lets go of what w held.
func (s *Shard) finish(w *walk) {
	for _, f := range w.frames {
		if f != 0 {
			s.loop.Release(f)
		}
	}
	for _, index := range [...]uint32{w.exact, w.wildcard} {
		if index == 0 {
			continue
		}
		c := s.channels.At(index)
		c.walks--
		s.closeHoles(c, index)
		s.freeIfUnwanted(index)
	}
}

// changeInterest takes note of what the broker says of a channel.
func (s *Shard) changeInterest(channel string, change *interestChange) {
	index := s.names.Find(channel)
	if index == 0 {
		return
	}
	c := s.channels.At(index)
	c.confirmed = change.confirmed
	if !change.confirmed {
		return
	}
	if change.lost {
		s.gap(index, proto.GapBroker)
	}
	asked := c.takeAsked()
	if len(asked) == 0 {
		return
	}
	// Everybody who waited is a member from here on, so that the next event's walk includes
	// them; the walk that tells them so comes before it.
	first := c.positions()
	for _, slot := range asked {
		if slot != 0 {
			s.find(s.members.At(uint32(slot)), index).position = c.add(slot)
		}
	}
	c.walks++
	s.walks.push(walk{exact: index, next: first, exactEnd: c.positions(), lane: netio.Bulk})
}

// gap tells every member of a channel that it may have missed something.
func (s *Shard) gap(index uint32, reason proto.GapReason) {
	c := s.channels.At(index)
	if c.members() == 0 {
		return
	}
	gap := proto.AppendGap(nil, c.name.Name(), s.eventID(c, c.last), reason)
	s.begin(walk{exact: index, exactAfter: c.last, gap: gap, reason: reason})
}

// gapEverywhere follows mail that could not be delivered to this loop.
func (s *Shard) gapEverywhere() {
	for index := uint32(1); index <= s.highChannel; index++ {
		s.gap(index, proto.GapSlow)
	}
}

func (s *Shard) eventID(c *channel, order uint64) string {
	if order == 0 {
		return ""
	}
	return string(proto.AppendEventID(nil, c.name.Name(), s.hub.options.Epoch, order))
}
