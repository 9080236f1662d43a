package hub

import (
	"slices"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// CatchUp has those states and logs read again of which this hub knows another value, or less, than the
// streams of the hub that left legacy were sent, and gives their channels. Once they are confirmed again
// ([Hub.IsConfirmed]), and [Hub.HandOverPaced] was called, what is known of them is at least as new. No stream
// of this hub may hear any of them yet. renew is [broker.Redis.Renew].
func (h *Hub) CatchUp(legacy *Legacy, renew func(broker.Subscription)) (asked []string) {
	h.HandOverPaced() // what is held back here may be what they were sent
	for channel, left := range legacy.Channels {
		if h.directory.renew(channel, left, renew) {
			asked = append(asked, channel)
		}
	}
	return asked
}

// renew has a state or log read again that stands elsewhere than left says, or before that, and counts it
// as not confirmed until then.
func (d *directory) renew(channel string, left LegacyChannel, renew func(broker.Subscription)) bool {
	s := d.stripe(channel)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	number := s.names.Find(channel)
	now, known := s.now[number]
	if !known || valueHash(now) == left.Value && !now.position.Before(left.Position) {
		return false
	}
	s.at(number).since = shortNumber{}
	renew(d.subscription(channel))
	return true
}

// Succeed makes the hub the successor of the one that left legacy: its numbers go on behind the
// other's, and with what that kept, in the order of its numbers, clients that come back go on as they
// would have there. Channels of which nothing was kept count as whole from the other's last event on.
func (h *Hub) Succeed(legacy *Legacy, kept []Kept) {
	h.publish.Lock()
	defer h.publish.Unlock()
	h.order = max(h.order, legacy.Order)
	h.told.Store(h.order)
	h.directory.beginAt(max(legacy.Order, 1))
	for channel, one := range legacy.Channels {
		if one.Since > 0 {
			h.directory.setSince(channel, one.Since)
		}
	}
	for i := range kept {
		h.restore(&kept[i])
	}
	for channel, one := range legacy.Channels {
		h.forgot(channel, one.Dropped)
	}
}

// restore keeps an event that another hub kept. Of one that can't be made again it is noted that it is
// gone.
func (h *Hub) restore(kept *Kept) {
	channel, err := proto.ParseChannel(kept.Channel)
	if err != nil {
		return
	}
	rules := h.options.RulesOf(channel.Type())
	if rules.Replay.Size == 0 {
		return
	}
	make := proto.NewEvent
	if rules.Batch > 0 {
		make = proto.NewNotice // a batch is a word of the hub's own
	}
	event, err := make(channel, kept.ID, kept.Payload)
	if err != nil {
		h.forgot(kept.Channel, kept.Order)
		return
	}
	born := netio.Clock() + int64(min(kept.Left, rules.Replay.TTL)-rules.Replay.TTL)
	h.rings.keep(rules.Replay, &publication{event: event, order: kept.Order, born: born})
}

// forgot notes that the events of a channel up to a number are not kept.
func (h *Hub) forgot(channel string, order uint64) {
	if !h.rings.forgot(channel, order) {
		h.directory.raise(channel, order) // where nothing is kept at all
	}
}

// forgot reports whether something is kept of the channel, and if so notes up to which number nothing is.
func (r *rings) forgot(channel string, order uint64) bool {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	one := r.byName[channel]
	if one != nil {
		one.dropped = max(one.dropped, order)
	}
	return one != nil
}

// setSince notes from which number on the memory of a confirmed channel is whole.
func (d *directory) setSince(channel string, since uint64) {
	s := d.stripe(channel)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if number := s.names.Find(channel); number != 0 && s.at(number).since.number() != 0 {
		s.at(number).since = makeShort(since)
	}
}

// beginAt makes the memory of every confirmed channel whole from the event with the number since on.
func (d *directory) beginAt(since uint64) {
	for i := range d.stripes {
		s := &d.stripes[i]
		s.mutex.Lock()
		for number := uint32(1); number <= s.high; number++ {
			if entry := s.at(number); entry.since.number() != 0 {
				entry.since = makeShort(since)
			}
		}
		s.mutex.Unlock()
	}
}

// Resumption takes streams of another hub into a shard, whose loop has had none. All its methods run
// on that loop, in one call of it.
type Resumption struct {
	shard  *Shard
	legacy *Legacy
	// changed says, of the states that were looked at, whether the value is another one than the
	// streams have. What changes later is told to the shard, by mail.
	changed map[uint32]bool
}

// Resume begins to take over streams, after [Hub.Succeed].
func (s *Shard) Resume(legacy *Legacy) *Resumption {
	return &Resumption{shard: s, legacy: legacy, changed: make(map[uint32]bool)}
}

// Join makes the stream in slot a member that goes on where it was. Nothing is sent: see
// [Resumption.Continue]. A channel that this hub has not confirmed, or that is of another kind here,
// begins anew, with a gap where that may lose something.
func (r *Resumption) Join(slot netio.Slot, from *Carried) {
	s := r.shard
	s.Join(slot, from.Form)
	m := s.members.At(uint32(slot))
	if from.HadLog {
		m.flags |= memberLog
	}
	for i := range from.Subscriptions {
		sub := &from.Subscriptions[i]
		if name, err := proto.ParseChannel(sub.Channel); err == nil {
			r.subscribe(slot, m, name, sub)
		}
	}
	if b := s.behind[slot]; b != nil {
		b.base = from.Base
	}
}

func (r *Resumption) subscribe(slot netio.Slot, m *member, name proto.Channel, sub *CarriedSubscription) {
	s := r.shard
	index := s.names.Find(name.Name())
	if index == 0 {
		index = s.addChannel(name)
	} else if s.find(m, index) != nil {
		return
	}
	c := s.channels.At(index)
	if c.kind == broker.Log {
		m.flags |= memberLog
	}
	confirmed := c.has(channelConfirmed)
	switch {
	case !sub.Confirmed:
		s.wait(slot, m, index, sub.From)
	case !confirmed || c.kind != sub.Kind:
		s.wait(slot, m, index, From{Kind: FromUnknown})
	default:
		r.place(slot, m, index, sub)
	}
	if confirmed {
		s.add(m, subscription{channel: index, position: s.addMember(c, slot)})
	} else {
		s.add(m, subscription{channel: index, position: s.addAsked(c, slot) | askedBit})
	}
}

// place gives a stream a record for a channel, if it is not where the channel is here.
func (r *Resumption) place(slot netio.Slot, m *member, index uint32, sub *CarriedSubscription) {
	s := r.shard
	state, after := recordJoined, sub.After
	switch s.channels.At(index).kind {
	case broker.State:
		if sub.State != CarriedNewest && !r.isChanged(index, sub.Channel) {
			return
		}
		state = recordNewest
	case broker.Log:
		if sub.State == CarriedLive {
			stands, known := r.legacy.Channels[sub.Channel]
			if !known {
				s.wait(slot, m, index, From{Kind: FromUnknown})
				return
			}
			after = stands.Position
		}
		switch flow := s.flows[index]; {
		case sub.State == CarriedReading || after.Before(flow):
			state = recordReading
		case after == flow:
			return
		case sub.State == CarriedLive: // since CatchUp the log has lost its end, or is another one
			s.wait(slot, m, index, From{Kind: FromUnknown})
			return
		}
	default:
		if sub.State == CarriedLive {
			return
		}
		state = recordDropping
	}
	b, record := s.open(slot, m, index)
	record.after, record.owed, record.reason = after, sub.Owed, sub.Reason
	s.set(b, record, state)
	if state != recordReading {
		return
	}
	record.count, record.due = sub.Count, sub.Due
	if sub.From.Kind != FromNow {
		record.from = &sub.From
	}
	if sub.Unsure {
		record.unsure = time.Now()
	}
	if sub.State != CarriedReading && after == (broker.Position{}) {
		// It was there before the first entry, and nobody knows which one that was.
		record.owed, record.reason = true, proto.GapSlow
	}
}

// isChanged reports whether the value of a state is another one than the streams have.
func (r *Resumption) isChanged(index uint32, channel string) bool {
	changed, known := r.changed[index]
	if !known {
		now, _ := r.shard.hub.directory.standing(channel)
		changed = valueHash(now) != r.legacy.Channels[channel].Value
		r.changed[index] = changed
	}
	return changed
}

// Continue sends what the stream in slot is due, or has it sent once its queue is empty. The owner
// calls it when that queue is what it was.
func (r *Resumption) Continue(slot netio.Slot) {
	s := r.shard
	b := s.behind[slot]
	if b == nil {
		return
	}
	for _, one := range slices.Clone(b.records) {
		if one.state == recordWaiting || one.state == recordUnknown {
			s.Begin(slot, s.nameOf(s.channels.At(one.channel)))
		}
	}
	if s.loop.Queued(slot) == 0 {
		s.Drained(slot)
		return
	}
	s.loop.WatchDrain(slot)
}
