package hub

import (
	"slices"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// recordState is how a stream's flow of a channel differs from the channel's own.
type recordState uint8

const (
	// recordWaiting: subscribed, and [Shard.Begin] has yet to bring what the subscription begins
	// with; until then nothing is sent.
	recordWaiting recordState = iota
	// recordUnknown: as above, and all that will come is a gap. What is live until then is not sent:
	// the gap covers it, and has to come first.
	recordUnknown
	// recordJoined: what is at or before after was sent already, ahead of the channel's walks.
	recordJoined
	// recordDropping: events behind after are dropped until the queue is empty, then a gap says so.
	recordDropping
	// recordNewest: only the newest value, or the newest events of a conflated channel, will be
	// sent when the queue is empty.
	recordNewest
	// recordReading: what is behind after is read from the log, piece by piece, until the walks
	// follow on it.
	recordReading
)

// String is the state's name for operators.
func (r recordState) String() string {
	return [...]string{"waiting", "unknown_position", "replayed", "dropping", "newest", "reading"}[r]
}

// behind is a stream that has records. It exists as long as it has one.
type behind struct {
	records []*record // one a channel
	reading *record   // whose read was asked for; one at a time
	pasts   int       // records of channels of which something is still missing
	base    uint64    // of events: whatever has this order or a lower one was there when it began

	dropped, conflated uint64 // since the stream has been behind
}

// record is the place of one stream in one channel, where it is not simply the channel's.
type record struct {
	channel uint32
	state   recordState
	owed    bool            // a gap of this reason is to be sent before anything else
	reason  proto.GapReason // of the gap that is owed
	after   broker.Position // what the stream has; of events and states the order
	from    *From           // where it was resumed from; nil: it fell behind
	unsure  time.Time       // if set: since when the client may have entries behind after, see beginLog
	due     broker.Position // where after is before the first entry: the entry that must come next
	count   int             // entries replayed so far
	size    int             // entries to ask for with the next read; 0: the first
	ticket  uint64          // of the read that was asked for
	retries int             // failed reads in a row
	newest  []conflated     // by key, in the order of hand-over
}

// conflated is the newest event that a stream will get for one key; or, without an event, a gap between
// what came before it and what came behind.
type conflated struct {
	key    string
	event  *proto.Event
	born   int64
	reason proto.GapReason
}

// conflateKeysMax bounds the events, and the gaps between them, that wait for one stream on a channel with
// conflate_by; beyond it one is dropped, and a gap says so.
const conflateKeysMax = 64

// find gives the record of a channel, nil if there is none.
func (b *behind) find(channel uint32) *record {
	for _, r := range b.records {
		if r.channel == channel {
			return r
		}
	}
	return nil
}

// orderAt is the position of the event with that number.
func orderAt(order uint64) broker.Position { return broker.Position{Milliseconds: order} }

// open gives the record of a channel, made if there was none.
func (s *Shard) open(slot netio.Slot, m *member, channel uint32) (*behind, *record) {
	b := s.behind[slot]
	if b == nil {
		b = &behind{}
		s.behind[slot] = b
		m.flags |= memberBehind
	}
	r := b.find(channel)
	if r == nil {
		r = &record{channel: channel}
		if s.isPast(r) {
			b.pasts++
		}
		b.records = append(b.records, r)
	}
	return b, r
}

// set moves a record to a state.
func (s *Shard) set(b *behind, r *record, state recordState) {
	if s.isPast(r) {
		b.pasts--
	}
	r.state = state
	if s.isPast(r) {
		b.pasts++
	}
}

// isPast reports whether something that came before is still to be sent, or to be told of: until
// then no id must say that the stream has everything up to it. A state has no past.
func (s *Shard) isPast(r *record) bool {
	return r.state != recordJoined && s.channels.At(r.channel).kind != broker.State
}

// drop ends the record of a channel, if there is one: from here on the stream has what its
// channel's walks bring.
func (s *Shard) drop(slot netio.Slot, m *member, channel uint32) {
	b := s.behind[slot]
	if b == nil {
		return
	}
	r := b.find(channel)
	if r == nil {
		return
	}
	s.set(b, r, recordJoined)
	b.records = slices.DeleteFunc(b.records, func(other *record) bool { return other == r })
	if len(b.records) == 0 {
		delete(s.behind, slot)
		m.flags &^= memberBehind
	}
	if b.reading == r {
		b.reading = nil // whatever the read gives, nobody waits for it
		s.readOn(slot, m)
	}
}

// passes reports whether a walk goes on to a member that has records, and moves the record that
// the walk meets.
func (s *Shard) passes(w *walk, slot netio.Slot, m *member, channel uint32) bool {
	b := s.behind[slot]
	r := b.find(channel)
	switch {
	case r == nil:
		return true
	case r.state == recordUnknown:
		return false
	case w.kind == walkHole:
		return s.passesHole(w, slot, m, b, r)
	case w.kind == walkGap:
		if r.state == recordNewest {
			r.lose(w.reason)
		}
		return r.state == recordWaiting || r.state == recordJoined
	case w.kind == walkLag:
		return r.state == recordJoined && r.after.Before(w.at)
	}
	switch r.state {
	case recordJoined:
		if w.at.Before(r.after) {
			return false
		}
		s.drop(slot, m, channel)
		return w.at != r.after
	case recordReading:
		if r.owed || !r.unsure.IsZero() || !r.after.Before(w.at) || r.after.Before(w.exactAfter) {
			return false
		}
		s.endReplay(slot, m, b, r)
		s.drop(slot, m, channel)
		return true
	case recordDropping:
		s.counters.Dropped++
		b.dropped++
	case recordNewest:
		s.conflate(w, b, r)
	}
	return false
}

// passesHole is passes for the news that a log has a hole. A stream that reads finds out by itself
// what is gone; but not that the log is another one, nor what a broker lost without a trace.
func (s *Shard) passesHole(w *walk, slot netio.Slot, m *member, b *behind, r *record) bool {
	// A loop that was not told of entries may be before the place to which the log went back.
	rewound := w.reason == proto.GapRewound || w.at.Before(w.exactAfter)
	switch {
	case rewound && r.state != recordWaiting:
		s.endReplay(slot, m, b, r)
		s.drop(slot, m, r.channel)
		return true
	case r.state == recordJoined:
		if !w.at.Before(r.after) {
			s.drop(slot, m, r.channel)
		}
		return true
	case w.reason == proto.GapBroker:
		r.owed, r.reason = true, w.reason
	}
	return false
}

// conflate keeps the event of w as the newest of its key, instead of the one before it.
func (s *Shard) conflate(w *walk, b *behind, r *record) {
	if s.channels.At(r.channel).kind == broker.State {
		s.counters.Conflated++ // the newest is in the directory
		b.conflated++
		return
	}
	key := s.conflateKey(w)
	before := len(r.newest)
	r.newest = slices.DeleteFunc(r.newest, func(one conflated) bool { return one.event != nil && one.key == key })
	if len(r.newest) < before {
		s.counters.Conflated++
		b.conflated++
		r.newest = slices.CompactFunc(r.newest, func(one, next conflated) bool { return one.event == nil && next.event == nil })
	}
	for len(r.newest) >= conflateKeysMax {
		if r.newest[0].event != nil {
			s.counters.Dropped++
			b.dropped++
		}
		r.newest = slices.Delete(r.newest, 0, 1)
		r.owed, r.reason = true, proto.GapSlow
	}
	r.newest = append(r.newest, conflated{key: key, event: w.event, born: w.born})
}

// lose notes that a gap belongs behind what waits for a stream that gets the newest of a conflated channel.
func (r *record) lose(reason proto.GapReason) {
	switch last := len(r.newest) - 1; {
	case last < 0:
		r.owed, r.reason = true, reason
	case r.newest[last].event != nil:
		r.newest = append(r.newest, conflated{reason: reason})
	}
}

// conflateKey is what the event of w is the newest of: looked up once a walk, and only when
// somebody lags.
func (s *Shard) conflateKey(w *walk) string {
	if w.key == nil {
		key := ""
		if by := s.hub.options.RulesOf(w.event.Channel().Type()).ConflateBy; by != "" {
			key, _ = proto.Member(w.event.Payload(), by)
		}
		w.key = &key
	}
	return *w.key
}

// fallBehind notes that w found no room in the queue of a member, or that it brings the news of
// entries that this loop was not told of.
func (s *Shard) fallBehind(w *walk, slot netio.Slot, m *member, channel uint32) {
	after := w.exactAfter
	if channel != w.exact {
		after = orderAt(w.wildcardAfter)
	}
	b, r := s.open(slot, m, channel)
	if r.state == recordJoined {
		r.from = nil
		if after.Before(r.after) {
			after = r.after
		}
	}
	r.after, r.count = after, 0
	c := s.channels.At(channel)
	switch {
	case c.kind == broker.Log:
		s.set(b, r, recordReading)
		s.noteDue(w, r)
	case c.kind == broker.State:
		s.set(b, r, recordNewest)
	case s.hub.options.RulesOf(typeOf(s.text(c))).Conflate:
		s.set(b, r, recordNewest)
		if w.kind == walkGap {
			r.owed, r.reason = true, w.reason
		} else {
			s.conflate(w, b, r)
		}
	default:
		s.set(b, r, recordDropping)
		s.counters.Dropped++
		b.dropped++
	}
	if s.loop.Queued(slot) == 0 {
		s.Drained(slot)
		return
	}
	s.loop.WatchDrain(slot)
}

// noteDue completes the record of a stream that falls behind on a log. A read from the beginning
// finds no hole, whatever was trimmed: where the stream was there before the first entry, it must
// be known what that was.
func (s *Shard) noteDue(w *walk, r *record) {
	switch {
	case w.kind == walkHole:
		r.after, r.owed, r.reason = w.at, true, w.reason
	case r.after != broker.Position{}:
	case w.kind == walkLag:
		r.owed, r.reason = true, proto.GapSlow
	default:
		r.due = w.at
	}
}
