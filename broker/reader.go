package broker

import (
	"runtime/debug"
	"time"
	"unsafe"

	"github.com/redis/rueidis"
)

// reader is what happens on the goroutine that reads a pub/sub connection. Nothing here waits.
// Its fields belong to that goroutine.
type reader struct {
	session *session
	broker  *Redis

	received time.Time // when the last bytes came
	// answered gathers the entries that Redis has confirmed; they are told before the next event
	// and before the reader waits for more, so that 500 confirmations are one callback.
	answered []uint32
	// patterns says that a pattern subscription was made, so that events may come twice.
	patterns bool
	last     lastEvent
}

// lastEvent remembers what was handed over last, to tell a second copy of it from a second
// event. Redis sends the copies of one event back to back: for the channel first, then for each
// pattern, always in the same order while subscriptions stay as they are.
type lastEvent struct {
	channel, payload string
	pattern          string // of the first copy; empty if that came for the channel
	valid            bool
}

// repeated reports whether m is another copy of the event handed over last.
func (l *lastEvent) repeated(m rueidis.PubSubMessage) bool {
	if l.valid && m.Pattern != "" && m.Pattern != l.pattern && m.Channel == l.channel && m.Message == l.payload {
		return true
	}
	*l = lastEvent{channel: m.Channel, payload: m.Message, pattern: m.Pattern, valid: true}
	return false
}

// beforeRead runs when everything that had come is handled and the reader is about to wait.
func (d *reader) beforeRead() {
	if len(d.answered) == 0 {
		return
	}
	defer d.guard()
	d.tellAnswered()
}

// onMessage hands over one event.
func (d *reader) onMessage(m rueidis.PubSubMessage) {
	defer d.guard()
	if len(d.answered) > 0 {
		d.tellAnswered()
	}
	for _, canary := range d.session.canaries {
		if m.Channel == *canary.name.Load() {
			if m.Pattern == "" {
				d.session.canaryReturned(canary, m.Message)
			}
			return
		}
	}
	if d.patterns && d.last.repeated(m) {
		return
	}
	if len(m.Channel) < len(d.broker.prefix) {
		return
	}
	if d.broker.closing.Load() {
		return
	}
	channel, payload := m.Channel[len(d.broker.prefix):], unsafe.Slice(unsafe.StringData(m.Message), len(m.Message))
	if cut := d.broker.cut.Load(); cut != nil && cut.takes(d.session, m.Channel, m.Message, heldEvent{channel, payload, d.received}) {
		return
	}
	d.broker.events.Add(1)
	d.broker.callbacks.Event(channel, payload, d.received)
}

// guard turns a panic of a callback into the end of the session: the process and its other
// channels live on, and the subscriptions are reported as lost.
func (d *reader) guard() {
	if value := recover(); value != nil {
		d.session.fail(&callbackPanic{value: value, stack: debug.Stack()})
	}
}

// onSubscription takes the confirmation of a subscribe or unsubscribe, or the news that Redis
// ended a sharded subscription because its slot moved.
func (d *reader) onSubscription(s rueidis.PubSubSubscription) {
	defer d.guard()
	d.last = lastEvent{}
	for _, canary := range d.session.canaries {
		if s.Channel == *canary.name.Load() {
			d.canaryAnswered(canary, s.Kind)
			return
		}
	}
	switch s.Kind {
	case "subscribe":
		d.confirm(Plain, s.Channel)
	case "psubscribe":
		d.patterns = true
		d.confirm(Pattern, s.Channel)
	case "ssubscribe":
		d.confirm(Sharded, s.Channel)
	case "unsubscribe":
		d.left(Plain, s.Channel)
	case "punsubscribe":
		d.left(Pattern, s.Channel)
	case "sunsubscribe":
		d.left(Sharded, s.Channel)
	}
}

func (d *reader) canaryAnswered(canary *canary, kind string) {
	if kind == "sunsubscribe" {
		// The canary's slot moved away; the prober finds another of this node.
		canary.lost.Store(true)
		d.broker.askTopology()
	}
}

// confirm gathers one confirmed subscription.
func (d *reader) confirm(kind Kind, wire string) {
	channel, ok := d.broker.ownName(kind, wire)
	if !ok {
		return
	}
	d.broker.mutex.Lock()
	index, e := d.broker.table.find(kind, channel)
	ours := e != nil && d.broker.table.askedIn(e) == d.session.number
	d.broker.mutex.Unlock()
	// An entry that is asked for is not given away, so its number stays good.
	if ours {
		d.answered = append(d.answered, index)
	}
}

// tellAnswered marks the gathered entries as confirmed and tells so.
func (d *reader) tellAnswered() {
	r := d.broker
	r.calls.Lock()
	defer r.calls.Unlock()
	var fresh, again []Subscription
	r.mutex.Lock()
	for _, index := range d.answered {
		e := r.table.at(index)
		if r.table.askedIn(e) != d.session.number {
			continue // moved to another node meanwhile
		}
		switch {
		case !e.has(flagWanted):
			// Whoever comes back for it asks again, and is told then.
		case e.has(flagConfirmed):
			again = append(again, r.table.subscription(e))
		default:
			fresh = append(fresh, r.table.subscription(e))
		}
		r.table.confirm(e, d.session.number)
		e.flags |= flagConfirmed
		e.flags &^= flagAlone | flagRefused
		d.session.confirmed++
		switch {
		case e.has(flagWanted):
			d.session.confirmedWanted++
		case !e.has(flagLingering):
			r.enqueue(index, e) // left while it was asked for
		}
	}
	d.answered = d.answered[:0]
	r.mutex.Unlock()
	if len(fresh) > 0 {
		r.tell(func() { r.callbacks.Confirmed(fresh, false) })
	}
	if len(again) > 0 {
		r.tell(func() { r.callbacks.Confirmed(again, true) })
	}
}

// left takes an entry out: because we asked for it, or, unasked, because its slot moved.
func (d *reader) left(kind Kind, wire string) {
	channel, ok := d.broker.ownName(kind, wire)
	if !ok {
		return
	}
	if len(d.answered) > 0 {
		d.tellAnswered()
	}
	r := d.broker
	r.calls.Lock()
	defer r.calls.Unlock()
	r.mutex.Lock()
	index, e := r.table.find(kind, channel)
	if e == nil || r.table.confirmedIn(e) != d.session.number {
		r.mutex.Unlock()
		return
	}
	asked := e.has(flagLeaving)
	e.flags &^= flagLeaving
	r.table.release(e)
	if !asked {
		d.session.confirmed--
	}
	switch {
	case !e.has(flagWanted):
	case asked:
		r.enqueue(index, e)
	default:
		d.session.confirmedWanted--
		r.delayMoved(index, e)
	}
	sub := r.table.subscription(e)
	r.settle(index)
	r.mutex.Unlock()
	if !asked {
		r.tellLost([]Subscription{sub})
		r.askTopology()
	}
}

// delayMoved lets an entry whose slot has another owner wait until that is known.
func (r *Redis) delayMoved(index uint32, e *entry) {
	if e.has(flagDelayed) {
		return
	}
	e.flags |= flagDelayed
	r.delay(&r.moved, index, r.now()+tick(movedRetry/tickLength))
}
