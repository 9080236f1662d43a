package hub

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/proto"
)

const (
	// batchEventsMax and batchBytesMax bound one batch: it goes out before its time when it has
	// so many events, or bytes of payload.
	batchEventsMax = 1000
	batchBytesMax  = 256 << 10
)

// pacer holds events and values back whose rules say so, once for all who listen: it lets the
// newest through at most once per interval (throttle), or gathers all of an interval (batch). What
// it holds is one payload a channel, or one batch.
type pacer struct {
	hub       *Hub
	throttled atomic.Uint64

	mutex sync.Mutex        // taken before all others of the hub
	paced map[string]*paced // channels that handed something over less than an interval ago
}

// paced is one channel of a pacer.
type paced struct {
	channel  proto.Channel
	rules    *Rules
	waiting  bool
	payload  []byte   // throttle: the newest; nil for a state that ended
	payloads [][]byte // batch
	bytes    int      // of payloads
	received time.Time
	batch    uint64 // counts batches, so that a timer knows whether its own still waits
}

func newPacer(h *Hub) *pacer { return &pacer{hub: h, paced: make(map[string]*paced)} }

// take takes an event, or the value of a state, that is not too large; nil is the end of a value.
// It is handed over now or later, or replaced by a newer one. An event that is not valid is
// dropped and counted, and replaces none.
func (p *pacer) take(channel proto.Channel, rules *Rules, payload []byte, received time.Time) error {
	if payload != nil {
		if _, err := proto.NewEvent(channel, "", payload); err != nil {
			return p.hub.drop(dropReasonOf(err), fmt.Errorf("event on %s: %w", channel.Name(), err))
		}
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	name := channel.Name()
	one := p.paced[name]
	if rules.Batch > 0 {
		if one == nil {
			one = &paced{channel: channel, rules: rules}
			p.paced[name] = one
		}
		p.gather(one, payload, received)
		return nil
	}
	if one == nil {
		one = &paced{channel: channel, rules: rules, payload: payload, received: received}
		p.paced[name] = one
		p.release(one)
		p.hub.schedule.after(rules.Throttle, func() { p.throttleDue(one) })
		return nil
	}
	if one.waiting {
		p.throttled.Add(1)
	}
	one.waiting, one.payload, one.received = true, payload, received
	return nil
}

// throttleDue is the end of an interval: what waits goes out and begins the next one.
func (p *pacer) throttleDue(one *paced) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if !one.waiting {
		delete(p.paced, one.channel.Name())
		return
	}
	p.release(one)
	p.hub.schedule.after(one.rules.Throttle, func() { p.throttleDue(one) })
}

// gather adds an event to the batch of its channel.
func (p *pacer) gather(one *paced, payload []byte, received time.Time) {
	if len(one.payloads) > 0 && one.bytes+len(payload) > batchBytesMax {
		p.release(one)
	}
	if len(one.payloads) == 0 {
		one.received = received
		one.batch++
		batch := one.batch
		p.hub.schedule.after(one.rules.Batch, func() { p.batchDue(one, batch) })
	}
	one.payloads = append(one.payloads, payload)
	if one.bytes += len(payload); len(one.payloads) >= batchEventsMax || one.bytes >= batchBytesMax {
		p.release(one)
	}
}

func (p *pacer) batchDue(one *paced, batch uint64) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if one.batch != batch || len(one.payloads) == 0 {
		if len(one.payloads) == 0 && p.paced[one.channel.Name()] == one {
			delete(p.paced, one.channel.Name())
		}
		return
	}
	p.release(one)
	delete(p.paced, one.channel.Name())
}

// release hands over what a channel has. Its payloads were found valid; what a batch makes invalid,
// nested almost too deeply, is counted where it is found.
func (p *pacer) release(one *paced) {
	payload, payloads := one.payload, one.payloads
	one.waiting, one.payload, one.payloads, one.bytes = false, nil, nil, 0
	switch {
	case one.rules.Kind == broker.State:
		_ = p.hub.handOverValue(one.channel, payload, one.received)
	case one.rules.Batch > 0:
		message := proto.AppendBatch(nil, one.channel.Name(), payloads)
		_, _ = p.hub.handOver(one.channel, one.rules, message, one.received, proto.NewNotice)
	default:
		_, _ = p.hub.handOver(one.channel, one.rules, payload, one.received, proto.NewEvent)
	}
}

// forget drops what waits for a channel.
func (p *pacer) forget(channel proto.Channel) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if one := p.paced[channel.Name()]; one != nil {
		one.waiting, one.payload = false, nil
	}
}
