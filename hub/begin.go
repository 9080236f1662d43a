package hub

import (
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// wait opens a record for a new subscription that begins with something, for Begin.
func (s *Shard) wait(slot netio.Slot, m *member, index uint32, from From) {
	c := s.channels.At(index)
	if from.Kind == FromNow && c.kind != broker.State {
		return
	}
	b, r := s.open(slot, m, index)
	kept := from // not from itself, which would then be put on the heap for who begins with nothing, too
	r.from = &kept
	s.set(b, r, recordWaiting)
	if !s.replays(c, kept.Kind) {
		kept.Kind = FromUnknown
		s.set(b, r, recordUnknown)
	}
}

// replays reports whether a channel can go on from a position of that kind.
func (s *Shard) replays(c *channel, kind FromKind) bool {
	switch c.kind {
	case broker.State:
		return true // whatever the position: the value is all there is
	case broker.Log:
		return kind == FromBeginning || kind == FromEntry || kind == FromHorizon
	case broker.Pattern:
		return false
	default:
		return s.hub.options.RulesOf(typeOf(s.text(c))).Replay.Size > 0 &&
			(kind == FromBeginning || kind == FromOrder || kind == FromValue)
	}
}

// Begin sends what a confirmed subscription begins with: the value of a state; what was missed of
// events or a log since the position that it goes on from, and then that it was replayed; or the
// gap that says that the position is unknown. The owner calls it once it has told the client that
// it is subscribed; calling it again, or where there is nothing to send, is harmless. A log is read
// from the broker: its past follows in later turns, and live entries behind it.
func (s *Shard) Begin(slot netio.Slot, name proto.Channel) {
	m := s.members.At(uint32(slot))
	if m.flags&memberBehind == 0 {
		return
	}
	index := s.names.Find(name.Name())
	b := s.behind[slot]
	r := b.find(index)
	if r == nil || r.state != recordWaiting && r.state != recordUnknown {
		return
	}
	if sub := s.find(m, index); sub == nil || sub.position&askedBit != 0 {
		return
	}
	if b.base == 0 {
		b.base = s.hub.told.Load()
	}
	if r.owed {
		s.sendGap(slot, m, r, r.reason)
	}
	switch c := s.channels.At(index); {
	case r.state == recordUnknown:
		s.set(b, r, recordJoined)
		s.sendGap(slot, m, r, proto.GapUnknownPosition)
		s.drop(slot, m, index)
	case c.kind == broker.State:
		s.set(b, r, recordNewest)
		s.sendValue(slot, m, r)
	case c.kind == broker.Log:
		s.beginLog(slot, m, b, r)
	default:
		s.beginEvents(slot, m, b, r)
	}
}

// beginEvents replays what the memory of the hub has.
func (s *Shard) beginEvents(slot netio.Slot, m *member, b *behind, r *record) {
	c := s.channels.At(r.channel)
	missed, newest, whole := s.hub.rings.replay(s.text(c), r.from)
	if !whole || r.from.Kind == FromOrder && r.from.Order > s.hub.told.Load() {
		s.set(b, r, recordJoined)
		s.sendGap(slot, m, r, proto.GapUnknownPosition)
		s.drop(slot, m, r.channel)
		return
	}
	s.set(b, r, recordJoined)
	r.after = orderAt(newest)
	has := r.from.Order
	form := m.form.WithoutID() // a client that gets no further has to come back for all channels
	var before proto.Text
	for _, p := range missed {
		if !s.offer(slot, p.event, form, 0, before) {
			r.after = orderAt(has)
			s.set(b, r, recordDropping)
			s.counters.Dropped += uint64(len(missed) - r.count)
			s.loop.WatchDrain(slot)
			break
		}
		has, before = p.order, textOf(p.event, form)
		r.count++
		s.counters.Replayed++
	}
	s.endReplay(slot, m, b, r)
	if r.state == recordJoined {
		s.settle(slot, m, r)
	}
}

// beginLog goes on behind a position of a log, or finds that there is nothing behind it. Where the
// client may have more than it says, all that there is now has to be read before it is told that
// that was all: another gateway may have told it of entries that this one still waits for.
func (s *Shard) beginLog(slot netio.Slot, m *member, b *behind, r *record) {
	r.after = r.from.entry()
	// A WebSocket names an entry of each channel, the last that it had. An event stream has one
	// position for all, and that while it caught up it stood still.
	exact := r.from.Kind == FromEntry && m.form.WithoutID() == m.form
	if exact && r.after == s.flows[r.channel] {
		s.set(b, r, recordJoined)
		s.endReplay(slot, m, b, r)
		s.settle(slot, m, r)
		return
	}
	if !exact {
		r.unsure = time.Now()
	}
	s.set(b, r, recordReading)
	s.readOn(slot, m)
}

// endReplay says that what a client had missed was sent, if it came back to go on from somewhere.
func (s *Shard) endReplay(slot netio.Slot, m *member, b *behind, r *record) {
	if r.from == nil || r.from.Kind == FromUnknown || r.state == recordWaiting {
		return
	}
	r.from, r.unsure = nil, time.Time{}
	c := s.channels.At(r.channel)
	s.say(slot, m, "replayed", s.baseID(m, b, c), proto.AppendReplayed(nil, s.text(c), r.count))
}

// baseID is the id that says of all channels of an event stream at once that what they began with
// was sent, "" as long as that can't be said, or by a log's ids alone.
func (s *Shard) baseID(m *member, b *behind, c *channel) string {
	if b.pasts > 0 || m.flags&memberLog != 0 || c.kind == broker.State {
		return ""
	}
	return s.positionID(c, orderAt(b.base))
}

// say queues a message of the hub's own, whatever is queued already. Only an event stream's carries
// an id.
func (s *Shard) say(slot netio.Slot, m *member, name, id string, json []byte) {
	if id == "" || m.form.WithoutID() == m.form {
		s.sendOwn(slot, m, proto.AppendMessage(nil, m.form, name, json))
		return
	}
	s.sendOwn(slot, m, proto.AppendSSE(nil, m.form, name, id, json))
}

func (s *Shard) sendOwn(slot netio.Slot, m *member, text []byte) {
	f := s.OwnFrame(m.form, text)
	s.loop.Send(slot, f, netio.Express)
	s.loop.Release(f)
}

// settle drops a joined record if no walk will come that it must keep from its stream.
func (s *Shard) settle(slot netio.Slot, m *member, r *record) {
	c := s.channels.At(r.channel)
	last := orderAt(c.last)
	if c.kind == broker.Log {
		last = s.flows[r.channel]
		if r.after.Sequence == 1<<64-1 && r.after.Milliseconds <= s.horizon {
			last = r.after // all up to that time began its walk, whether there was an entry or not
		}
	}
	if c.walks == 0 && !last.Before(r.after) {
		s.drop(slot, m, r.channel)
	}
}

// sendGap tells a stream that something may be missing behind what it has.
func (s *Shard) sendGap(slot netio.Slot, m *member, r *record, reason proto.GapReason) {
	c := s.channels.At(r.channel)
	after := s.positionID(c, r.after)
	if r.from != nil && reason == proto.GapUnknownPosition {
		after = r.from.Text
	}
	id := ""
	if reason == proto.GapUnknownPosition {
		id = s.baseID(m, s.behind[slot], c)
	}
	s.say(slot, m, "gap", id, proto.AppendGap(nil, s.text(c), after, reason))
	s.counters.Gaps[reason]++
	r.owed = false
}

// offer queues an event for one stream within its budget. before is what it may follow on, if that
// is known.
func (s *Shard) offer(slot netio.Slot, event *proto.Event, form proto.Form, born int64, before proto.Text) (taken bool) {
	f := s.frame(event, form, born, false, before)
	taken = s.loop.Offer(slot, f, netio.Bulk, s.budget)
	s.loop.Release(f)
	if taken {
		s.counters.Delivered[form]++
	}
	return taken
}

// sendValue sends the newest value of a state, or that there is none any more, unless the stream
// has it.
func (s *Shard) sendValue(slot netio.Slot, m *member, r *record) (taken bool) {
	c := s.channels.At(r.channel)
	now, known := s.hub.directory.standing(s.text(c))
	begins := r.from != nil
	if known && orderAt(now.order) != r.after && (now.event != nil || !begins) {
		if !s.offer(slot, s.valueEvent(c, now), m.form, 0, proto.Text{}) {
			s.loop.WatchDrain(slot)
			return false
		}
	}
	r.from = nil
	r.after = orderAt(now.order)
	s.set(s.behind[slot], r, recordJoined)
	s.settle(slot, m, r)
	return true
}

// valueEvent is the event that tells of where a state stands.
func (s *Shard) valueEvent(c *channel, now standing) *proto.Event {
	if now.event != nil {
		return now.event
	}
	deleted, err := proto.NewNotice(s.nameOf(c), "", proto.AppendDeleted(nil, s.text(c)))
	if err != nil {
		panic(err) // a message of our own for a channel that was parsed
	}
	return deleted
}
