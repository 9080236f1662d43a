package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/rueidis"
)

const (
	// batchChannelsMax is how many channels one batch of commands names.
	batchChannelsMax = 500
	// batchAloneMax is how many of them may be commands of their own, after a refusal.
	batchAloneMax = 50
	// batchTimeout bounds the answer to a batch.
	batchTimeout = 5 * time.Second
	// resubscribePause is the jittered pause between batches after a reconnect: a fleet whose
	// Redis came back asks for at most 200,000 channels a second and gateway.
	resubscribePause = 5 * time.Millisecond
)

// command is one SUBSCRIBE or UNSUBSCRIBE and the entries that it names.
type command struct {
	kind    Kind
	leave   bool
	slot    uint16 // Sharded in a Cluster: one command has one slot
	alone   bool
	indexes []uint32
	names   []string
}

// batch is what the subscriber does in one step.
type batch struct {
	again    []uint32       // already confirmed, to be confirmed again to who asked again
	refused  []Subscription // known to be refused, to be told again to who asked again
	commands []*command
	count    int  // of names in commands
	alone    int  // of commands with flagAlone
	repeat   bool // some were confirmed before: a reconnect is being mended
}

func (b *batch) empty() bool {
	return len(b.again) == 0 && len(b.refused) == 0 && b.count == 0
}

// subscribeLoop brings what Redis has in line with what is wanted, one batch at a time.
func (s *session) subscribeLoop() {
	for s.ctx.Err() == nil {
		next := s.nextBatch()
		if next.empty() {
			select {
			case <-s.node.wake:
			case <-s.ctx.Done():
			}
			continue
		}
		s.confirmAgain(next.again)
		s.refuseAgain(next.refused)
		if next.count == 0 {
			continue
		}
		if !s.send(next) {
			return
		}
		if s.again && next.repeat && !pause(s.ctx, jitter(resubscribePause), nil) {
			return
		}
	}
}

// nextBatch takes entries from the node's queue until a batch is full.
func (s *session) nextBatch() *batch {
	r := s.node.broker
	r.mutex.Lock()
	defer r.mutex.Unlock()
	next := &batch{}
	for range registryChunk {
		if next.count == batchChannelsMax || next.alone == batchAloneMax {
			signal(s.node.wake)
			break
		}
		index, ok := s.node.todo.pop()
		if !ok {
			return next
		}
		e := r.table.at(index)
		if e.node != s.node.number {
			continue // it was moved, and queued where it belongs
		}
		e.flags &^= flagQueued
		s.sort(next, index, e)
	}
	signal(s.node.wake) // more may be waiting
	return next
}

// sort decides what an entry needs.
func (s *session) sort(next *batch, index uint32, e *entry) {
	r := s.node.broker
	switch {
	case e.name == 0:
	case e.has(flagLeaving), r.table.askedIn(e) == s.number:
		// The answer on its way decides; it queues the entry again if need be.
	case r.table.confirmedIn(e) == s.number && e.has(flagWanted):
		next.again = append(next.again, index)
	case r.table.confirmedIn(e) == s.number && !e.has(flagLingering):
		e.flags |= flagLeaving
		s.confirmed--
		next.add(s, index, e, true)
	case r.table.confirmedIn(e) != 0:
	case e.has(flagWanted) && e.has(flagDelayed) && e.has(flagRefused):
		next.refused = append(next.refused, r.table.subscription(e))
	case e.has(flagWanted) && !e.has(flagDelayed):
		r.table.ask(e, s.number)
		next.repeat = next.repeat || e.has(flagConfirmed)
		next.add(s, index, e, false)
	default:
		r.settle(index)
	}
}

// add puts an entry into a command that fits.
func (b *batch) add(s *session, index uint32, e *entry, leave bool) {
	r := s.node.broker
	sub := r.table.subscription(e)
	name := r.wireName(sub.Kind, sub.Channel)
	slot := uint16(0)
	if r.cluster && sub.Kind == Sharded {
		slot = slotOf(name)
	}
	alone := e.has(flagAlone) && !leave
	b.count++
	if !alone {
		// Few commands unless a Cluster's slots make them many; the newest fits most often.
		for at := len(b.commands) - 1; at >= 0; at-- {
			fits := b.commands[at]
			if fits.kind == sub.Kind && fits.leave == leave && fits.slot == slot && !fits.alone {
				fits.indexes = append(fits.indexes, index)
				fits.names = append(fits.names, name)
				return
			}
		}
	} else {
		b.alone++
	}
	b.commands = append(b.commands, &command{
		kind: sub.Kind, leave: leave, slot: slot, alone: alone,
		indexes: []uint32{index}, names: []string{name},
	})
}

// confirmAgain confirms what is confirmed already to those who asked for it again.
func (s *session) confirmAgain(indexes []uint32) {
	if len(indexes) == 0 {
		return
	}
	r := s.node.broker
	r.calls.Lock()
	defer r.calls.Unlock()
	var subs []Subscription
	r.mutex.Lock()
	for _, index := range indexes {
		if e := r.table.at(index); e.has(flagWanted) && r.confirmedBy(e) == s {
			subs = append(subs, r.table.subscription(e))
		}
	}
	r.mutex.Unlock()
	if len(subs) > 0 && s.ctx.Err() == nil {
		r.tell(func() { r.callbacks.Confirmed(subs, false) })
	}
}

// refuseAgain tells those who asked again for what Redis refuses that it still does.
func (s *session) refuseAgain(refused []Subscription) {
	if len(refused) == 0 {
		return
	}
	s.node.broker.calls.Lock()
	defer s.node.broker.calls.Unlock()
	s.tellRefused(refused, fmt.Errorf("subscribe: %w before; it is tried again every %v", ErrRefused, s.node.broker.refusedRetry))
}

// send carries a batch out and reports whether the session lives. What Redis confirms, the
// reader hears; only what it refuses is seen here.
func (s *session) send(next *batch) bool {
	ctx, cancel := context.WithTimeout(s.ctx, batchTimeout)
	defer cancel()
	commands := make([]rueidis.Completed, len(next.commands))
	for index, c := range next.commands {
		commands[index] = c.build(s.pubsub.B())
	}
	for index, result := range s.pubsub.DoMulti(ctx, commands...) {
		err := result.Error()
		if err == nil {
			continue
		}
		if s.failReply("subscribe", err) {
			return false
		}
		s.refusedCommand(next.commands[index], err)
	}
	return true
}

func (c *command) build(b rueidis.Builder) rueidis.Completed {
	switch {
	case c.kind == Plain && c.leave:
		return b.Unsubscribe().Channel(c.names...).Build()
	case c.kind == Plain:
		return b.Subscribe().Channel(c.names...).Build()
	case c.kind == Pattern && c.leave:
		return b.Punsubscribe().Pattern(c.names...).Build()
	case c.kind == Pattern:
		return b.Psubscribe().Pattern(c.names...).Build()
	case c.leave:
		return b.Sunsubscribe().Channel(c.names...).Build()
	default:
		return b.Ssubscribe().Channel(c.names...).Build()
	}
}

// refusedCommand handles an error reply. Redis refuses a command whole for one channel that it
// does not allow, so its channels are asked for one by one before any is called refused.
func (s *session) refusedCommand(c *command, err error) {
	r := s.node.broker
	class, advice := diagnose(err)
	r.calls.Lock()
	r.mutex.Lock()
	address := s.node.address
	refused := s.sortRefused(c, class)
	r.mutex.Unlock()
	s.tellRefused(refused, fmt.Errorf("subscribe: %w: %s; %s", ErrRefused, plainWords(err), advice))
	r.calls.Unlock()
	if class == causeTopology {
		r.askTopology()
	}
	r.report(address, fmt.Errorf("subscribe: %w", err))
}

// sortRefused decides what becomes of each entry of a refused command and returns those that are
// now known to be refused. The caller holds mutex.
func (s *session) sortRefused(c *command, class cause) (refused []Subscription) {
	r := s.node.broker
	for _, index := range c.indexes {
		e := r.table.at(index)
		switch {
		case c.leave:
			e.flags &^= flagLeaving
			s.confirmed++
			if e.has(flagWanted) {
				s.confirmedWanted++
			}
			s.delayRefused(index, e)
		case r.table.askedIn(e) != s.number:
			continue // moved to another node meanwhile
		case class == causeTopology:
			r.table.release(e)
			r.delayMoved(index, e)
		case len(c.indexes) > 1:
			r.table.release(e)
			e.flags |= flagAlone
			r.enqueue(index, e)
		default:
			r.table.release(e)
			s.delayRefused(index, e)
			if !e.has(flagRefused) && e.has(flagWanted) {
				e.flags |= flagRefused
				refused = append(refused, r.table.subscription(e))
			}
		}
		r.settle(index)
	}
	return refused
}

// tellRefused calls Refused. The caller holds calls.
func (s *session) tellRefused(refused []Subscription, err error) {
	r := s.node.broker
	for _, sub := range refused {
		r.tell(func() { r.callbacks.Refused(sub, err) })
	}
}

// delayRefused lets an entry wait for its next try. The caller holds mutex.
func (s *session) delayRefused(index uint32, e *entry) {
	if e.has(flagDelayed) {
		return
	}
	e.flags |= flagDelayed
	r := s.node.broker
	r.delay(&r.refused, index, r.now()+tick(r.refusedRetry/tickLength))
}
