package hub

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

const (
	// readEntriesFirst is how many entries a stream that catches up asks for first, readEntriesMax
	// how many at most: with entries of the largest size, readersMax reads must not hold too much.
	readEntriesFirst = 16
	readEntriesMax   = 128
	// readBytesAim is how much one read should bring; the next one asks for fewer or more entries.
	readBytesAim = 128 << 10
	// readRetryMin and readRetryMax are the waits after a read that failed, doubled each time.
	readRetryMin = 250 * time.Millisecond
	readRetryMax = 8 * time.Second
	// rewoundRetriesMax is how often a log that seems to have lost its end is looked at again before
	// that is told, about four seconds in all.
	rewoundRetriesMax = 4
)

// Drained goes on with a stream whose queue is empty: it sends what was put off, and the gaps that
// tell of what was dropped. The owner hands it [netio.Events].Drained.
func (s *Shard) Drained(slot netio.Slot) {
	b := s.behind[slot]
	if b == nil {
		return
	}
	m := s.members.At(uint32(slot))
	for _, r := range slices.Clone(b.records) {
		if r.owed && r.state != recordWaiting {
			s.sendGap(slot, m, r, r.reason)
		}
		switch r.state {
		case recordDropping:
			s.sendGap(slot, m, r, proto.GapSlow)
			s.drop(slot, m, r.channel)
		case recordNewest:
			if !s.sendNewest(slot, m, r) {
				return // the queue is full again, and watched
			}
		}
	}
	s.readOn(slot, m)
}

// sendNewest sends what a lagging stream was left of a state or a conflated channel; false if not
// all of it found room.
func (s *Shard) sendNewest(slot netio.Slot, m *member, r *record) bool {
	c := s.channels.At(r.channel)
	if c.kind == broker.State {
		return s.sendValue(slot, m, r)
	}
	for len(r.newest) > 0 {
		one := &r.newest[0]
		if one.event == nil {
			s.sendGap(slot, m, r, one.reason)
		} else if !s.offer(slot, one.event, m.form.WithoutID(), one.born, proto.Text{}) {
			s.loop.WatchDrain(slot)
			return false
		}
		r.newest = r.newest[1:]
	}
	s.drop(slot, m, r.channel)
	return true
}

// readOn asks for the next piece of a log that the stream is behind on, one at a time.
func (s *Shard) readOn(slot netio.Slot, m *member) {
	b := s.behind[slot]
	if b == nil || b.reading != nil {
		return
	}
	for _, r := range b.records {
		if r.state == recordReading {
			b.reading = r
			s.ask(slot, m, r)
			return
		}
	}
}

// ask asks the hub's reader for what follows on what the stream has.
func (s *Shard) ask(slot netio.Slot, _ *member, r *record) {
	if r.size == 0 {
		r.size = readEntriesFirst
	}
	key := readKey{channel: s.nameOf(s.channels.At(r.channel)), after: r.after, count: r.size}
	if r.from != nil && r.from.Kind != FromUnknown {
		key.horizon = r.from.Horizon
	}
	user := ""
	if s.hub.options.Events.User != nil {
		user = s.hub.options.Events.User(s, slot)
	}
	s.tickets++
	r.ticket = s.tickets
	who := waiter{slot: slot, ticket: r.ticket}
	stood := s.stands(r.channel)
	if r.retries == 0 {
		s.hub.reader.ask(key, stood, user, s, who)
		return
	}
	wait := min(readRetryMin<<min(r.retries-1, 10), readRetryMax)
	wait += rand.N(wait / 4)
	s.hub.schedule.after(wait, func() { s.hub.reader.ask(key, stood, user, s, who) })
}

// stands is where a log stands at least. Where the loop was not told of entries that is behind its walks,
// and a read that was under way when they came does not have them either.
func (s *Shard) stands(channel uint32) broker.Position {
	flow := s.flows[channel]
	if now, known := s.hub.directory.standing(s.text(s.channels.At(channel))); known && flow.Before(now.position) {
		return now.position
	}
	return flow
}

// pastQueue holds what reads gave, until it was queued for the streams that wait for it.
type pastQueue struct {
	mails []*pastMail
	next  int // waiter of the first
	// frames are those of the first, by form, made when first needed.
	frames [proto.FormCount][]netio.Frame
}

func (q *pastQueue) empty() bool { return len(q.mails) == 0 }

func (q *pastQueue) push(mail *pastMail) { q.mails = append(q.mails, mail) }

// catchUp brings what reads gave to the streams that wait for it: about budget entries, but at
// least one stream's.
func (s *Shard) catchUp(budget int) {
	q := &s.pasts
	for budget > 0 && !q.empty() {
		mail := q.mails[0]
		who := mail.waiters[q.next]
		q.next++ // first: a panic must not find the same stream again
		if b := s.behind[who.slot]; b != nil && b.reading != nil && b.reading.ticket == who.ticket {
			s.take(who.slot, b, mail.past)
			budget -= len(mail.past.entries)
		}
		budget--
		if q.next == len(mail.waiters) {
			s.releasePast(q)
		}
	}
}

// releasePast lets go of the first mail and its frames.
func (s *Shard) releasePast(q *pastQueue) {
	for form, frames := range q.frames {
		for _, f := range frames {
			s.loop.Release(f)
		}
		q.frames[form] = nil
	}
	q.mails[0] = nil
	q.mails, q.next = q.mails[1:], 0
}

// pastFrames gives the frames of the first mail in a form.
func (s *Shard) pastFrames(p *past, form proto.Form) []netio.Frame {
	q := &s.pasts
	if q.frames[form] == nil {
		var before proto.Text
		for _, entry := range p.entries {
			q.frames[form] = append(q.frames[form], s.frame(entry.event, form, 0, false, before))
			before = textOf(entry.event, form)
		}
	}
	return q.frames[form]
}

// take queues what a read gave for a stream, as far as there is room, and sees how it goes on.
func (s *Shard) take(slot netio.Slot, b *behind, p *past) {
	m := s.members.At(uint32(slot))
	r := b.reading
	if p.err != nil || s.aheadOfUs(r, p) {
		r.retries++
		s.ask(slot, m, r)
		return
	}
	b.reading, r.retries = nil, 0
	if r.owed {
		s.sendGap(slot, m, r, r.reason)
	}
	if r.due != (broker.Position{}) && r.due != p.first && !p.hole {
		s.sendGap(slot, m, r, proto.GapTrimmed)
	}
	r.due = broker.Position{}
	rewound := p.hole && p.reason == proto.GapRewound
	if p.hole {
		s.sendGap(slot, m, r, p.reason)
		if rewound {
			r.after = s.flows[r.channel] // what the stream had is of another log: it follows the walks
		}
	}
	if !rewound {
		if !s.offerPast(slot, m, r, p) {
			s.loop.WatchDrain(slot)
			return
		}
	}
	if rewound || p.end && p.at.After(r.unsure) {
		r.unsure = time.Time{}
	}
	switch {
	case rewound || p.end && r.unsure.IsZero() && !r.after.Before(s.stands(r.channel)):
		s.endReplay(slot, m, b, r)
		s.set(b, r, recordJoined)
		s.settle(slot, m, r)
		s.readOn(slot, m)
	case s.loop.Queued(slot) == 0:
		s.readOn(slot, m)
	default:
		s.loop.WatchDrain(slot)
	}
}

// aheadOfUs reports whether a client that comes back may have entries that this gateway has yet to
// find: after a failover the other gateway may follow the new primary already, while the old one still
// answers here. Once the horizon has passed the client's position, the log did lose its end.
func (s *Shard) aheadOfUs(r *record, p *past) bool {
	return p.hole && p.reason == proto.GapRewound && r.from != nil && r.from.Kind == FromEntry &&
		s.horizon < r.from.Position.Milliseconds && r.retries < rewoundRetriesMax
}

// offerPast queues entries until there is no room, and notes how far it came.
func (s *Shard) offerPast(slot netio.Slot, m *member, r *record, p *past) (all bool) {
	form := m.form
	if r.from == nil || r.from.Kind == FromUnknown {
		form = form.WithoutID() // the stream fell behind: it had a later horizon than it now has
	}
	frames := s.pastFrames(p, form)
	for i, entry := range p.entries {
		if !r.after.Before(entry.position) {
			continue
		}
		if !s.loop.Offer(slot, frames[i], netio.Bulk, s.budget) {
			return false
		}
		r.after = entry.position
		r.count++
		s.counters.Delivered[form]++
		s.counters.CaughtUp++
		s.endIfLast(slot, entry.event)
	}
	r.after = p.last
	if p.end && r.after.Before(p.stood) {
		r.after = p.stood // what stood between is gone, and was told to be
	}
	switch {
	case p.bytes > 2*readBytesAim:
		r.size = max(r.size/4, 1)
	case p.bytes < readBytesAim/2 && len(p.entries) > 0:
		r.size = min(r.size*4, readEntriesMax)
	}
	return true
}
