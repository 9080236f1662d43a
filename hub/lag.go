package hub

import (
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// lag is what a stream is missing because its queue was full: for each channel the order of the
// last event before the hole. It exists from the first event that did not fit until everything
// queued has been written; then a gap for each channel closes it.
type lag struct {
	after map[uint32]uint64
}

// fallBehind notes that from the event behind after on, nothing of channel is queued for slot.
func (s *Shard) fallBehind(slot netio.Slot, m *member, channel uint32, after uint64) {
	l := s.lags[slot]
	if l == nil {
		l = &lag{after: make(map[uint32]uint64)}
		s.lags[slot] = l
		m.flags |= memberLagging
		s.loop.WatchDrain(slot)
	}
	l.after[channel] = after
}

func (s *Shard) lagsBehind(slot netio.Slot, channel uint32) bool {
	_, behind := s.lags[slot].after[channel]
	return behind
}

func (s *Shard) dropLag(slot netio.Slot, m *member, channel uint32) {
	if m.flags&memberLagging != 0 {
		delete(s.lags[slot].after, channel)
	}
}

// Drained tells a stream that caught up where it has holes. Called when all that was queued for
// it has been written.
func (s *Shard) Drained(slot netio.Slot) {
	l := s.lags[slot]
	if l == nil {
		return
	}
	delete(s.lags, slot)
	m := s.members.At(uint32(slot))
	m.flags &^= memberLagging
	for index, after := range l.after {
		c := s.channels.At(index)
		gap := proto.AppendGap(nil, s.text(c), s.eventID(c, after), proto.GapSlow)
		s.loop.SendBytes(slot, proto.AppendMessage(nil, m.form, "gap", gap))
		s.counters.Gaps[proto.GapSlow]++
	}
}
