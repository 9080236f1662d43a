package hub

import (
	"bytes"
	"fmt"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// Value hands over what a state is now ([broker.Callbacks.Value]): once before its subscription is
// confirmed, and at every change. payload is nil where there is no value (any more), and must not
// change. The same value again is nothing new. One that is not valid is dropped and counted, and
// the last good one stays; the error says why, for a log line of the caller's.
func (h *Hub) Value(channelName string, payload []byte, received time.Time) error {
	channel, err := proto.ParseChannel(channelName)
	if err != nil {
		return h.drop(DropBadChannel, err)
	}
	if h.directory.wanting(channelName) == 0 {
		h.dropped[DropNobody].Add(1)
		return nil
	}
	if err := h.checkSize(channel, payload); err != nil {
		return err
	}
	rules := h.options.RulesOf(channel.Type())
	if rules.Throttle > 0 {
		if _, known := h.directory.standing(channelName); known {
			return h.pacer.take(channel, rules, payload, received)
		}
		// The first value is what the subscription begins with: it does not wait.
		h.pacer.forget(channel)
	}
	return h.handOverValue(channel, payload, received)
}

// handOverValue makes payload the value of a state.
func (h *Hub) handOverValue(channel proto.Channel, payload []byte, received time.Time) error {
	born := netio.ClockAt(received)
	h.publish.Lock()
	defer h.publish.Unlock()
	now, known := h.directory.standing(channel.Name())
	switch {
	case payload == nil && now.event == nil && known:
		return nil
	case payload != nil && now.event != nil && bytes.Equal(now.event.Payload(), payload):
		return nil
	}
	var event *proto.Event
	var err error
	if payload == nil {
		event, err = proto.NewNotice(channel, "", proto.AppendDeleted(nil, channel.Name()))
	} else {
		event, err = proto.NewEvent(channel, "", payload)
	}
	if err != nil {
		return h.drop(dropReasonOf(err), fmt.Errorf("value of %s: %w", channel.Name(), err))
	}
	h.allowCompression(event, h.options.RulesOf(channel.Type()))
	h.order++
	next := standing{order: h.order}
	if payload != nil {
		next.event = event
	}
	loops := h.directory.setStanding(channel.Name(), next)
	if payload == nil && !known {
		return nil // there is no value yet, and that is no news
	}
	h.events.Add(1)
	h.tell(loops, &publication{event: event, order: next.order, born: born})
	h.told.Store(h.order)
	return nil
}

// logPublication is what was appended to a log, on its way to the loops.
type logPublication struct {
	channel proto.Channel
	from    broker.Position
	entries []logEntry
	last    broker.Position // where the log stands behind them
	hole    bool
	reason  proto.GapReason
	horizon uint64 // [broker.LogUpdate].Horizon
	born    int64
}

// logEntry is one valid entry of a log.
type logEntry struct {
	position broker.Position
	event    *proto.Event
}

// Log hands over what was appended to a log ([broker.Callbacks.Log]). An entry that is not valid is
// dropped and counted; the error says why of the first one, for a log line of the caller's. Updates
// of one channel must come one after the other.
func (h *Hub) Log(update broker.LogUpdate, received time.Time) error {
	channel, err := proto.ParseChannel(update.Channel)
	if err != nil {
		return h.drop(DropBadChannel, err)
	}
	if h.directory.wanting(update.Channel) == 0 {
		h.dropped[DropNobody].Add(uint64(max(len(update.Entries), 1)))
		return nil
	}
	post := &logPublication{
		channel: channel, from: update.From, last: update.From, hole: update.Hole, reason: update.Reason,
		horizon: update.Horizon, born: netio.ClockAt(received),
	}
	post.entries, err = h.logEntries(channel, update.Entries, update.Horizon)
	if n := len(update.Entries); n > 0 {
		post.last = update.Entries[n-1].Position
	}
	h.events.Add(uint64(len(post.entries)))
	loops := h.directory.setStanding(update.Channel, standing{position: post.last})
	if update.Hole {
		h.reader.forget(channel) // before anybody hears of the hole and asks again
		h.tellAlways(loops, post)
	} else {
		h.tell(loops, post)
	}
	return err
}

// logEntries makes events of entries, with ids that name horizon.
func (h *Hub) logEntries(channel proto.Channel, entries []broker.Entry, horizon uint64) (events []logEntry, first error) {
	if len(entries) == 0 {
		return nil, nil
	}
	events = make([]logEntry, 0, len(entries))
	for _, entry := range entries {
		event, err := h.logEvent(channel, entry, horizon)
		if err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		events = append(events, logEntry{position: entry.Position, event: event})
	}
	return events, first
}

func (h *Hub) logEvent(channel proto.Channel, entry broker.Entry, horizon uint64) (*proto.Event, error) {
	if err := h.checkSize(channel, entry.Payload); err != nil {
		return nil, err
	}
	if ends := h.options.RulesOf(channel.Type()).Ends; ends != nil && ends(entry.Payload) {
		event, err := proto.NewEnd(channel, entry.Payload)
		if err != nil {
			return nil, h.drop(dropReasonOf(err), fmt.Errorf("the last entry of %s: %w", channel.Name(), err))
		}
		return event, nil
	}
	id := proto.AppendLogID(nil, channel.Name(), entry.Position.Milliseconds, entry.Position.Sequence, horizon)
	event, err := proto.NewEvent(channel, string(id), entry.Payload)
	if err != nil {
		return nil, h.drop(dropReasonOf(err), fmt.Errorf("entry %d-%d of %s: %w",
			entry.Position.Milliseconds, entry.Position.Sequence, channel.Name(), err))
	}
	h.allowCompression(event, h.options.RulesOf(channel.Type()))
	return event, nil
}
