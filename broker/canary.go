package broker

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	// canaryInterval is how often a canary is published per node.
	canaryInterval = time.Second
	// canarySilence is how long none may come back before the node counts as not delivering: one
	// interval, and what the round trip may take when everything is busy.
	canarySilence = 2250 * time.Millisecond
	// canaryWatch is how often that is looked at.
	canaryWatch = 100 * time.Millisecond
	// busSilence is how long the node of plain channels may not hear the canaries of most other
	// nodes of its Cluster.
	busSilence = 4 * time.Second
	// heardForget is when the last canary of another session is forgotten.
	heardForget = time.Minute
	// canaryEnterTimeout bounds the answer to the subscription to the canaries.
	canaryEnterTimeout = 2 * time.Second
	// roleInterval is how often the server is asked whether it still is a primary.
	roleInterval = 2 * time.Second
	// slotTriesMax bounds the search for a channel name in a slot of a node. One in a few is
	// found at once; a prefix with a hash tag may allow none.
	slotTriesMax = 1 << 12
)

// canary is an event of our own that proves that what is published on a node arrives here: it
// leaves by the command connection and must return by the pub/sub connection.
type canary struct {
	kind Kind // Plain or Sharded; Log for the one of the tracker

	name     atomic.Pointer[string] // in Redis
	returned atomic.Int64           // nanoseconds since the session was opened, of the last return
	left     atomic.Int64           // likewise, when the oldest left that has not returned; 0: none is out
	delay    atomic.Int64           // nanoseconds from leaving to returning, of the last one
	refused  atomic.Bool            // Redis does not allow it: nothing can be proved
	deaf     atomic.Bool            // and what it does not allow is to listen to it
	lost     atomic.Bool            // its slot moved away

	watched, excused time.Duration // of the watch
}

func newCanary(kind Kind, name string) *canary {
	made := &canary{kind: kind}
	made.name.Store(&name)
	return made
}

// canaryName is a channel that no user can name: types beginning with __ are refused.
func (r *Redis) canaryName() string { return r.prefix + "__millrace:canary:" + r.random }

// nameCanaries sets what the session proves itself by: the plain canary, in a Cluster one in a
// slot of this node, and the tracker's. It comes before the reader starts, which looks at them.
func (s *session) nameCanaries() {
	s.canaries = []*canary{newCanary(Plain, s.node.broker.canaryName())}
	if name, ok := s.shardedCanaryName(); ok {
		s.canaries = append(s.canaries, newCanary(Sharded, name))
	}
	s.tracker = newTracker(s)
}

func (s *session) subscribeCanaries() error {
	for _, c := range s.canaries {
		if err := s.subscribeCanary(c); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) subscribeCanary(c *canary) error {
	ctx, cancel := context.WithTimeout(s.ctx, canaryEnterTimeout)
	defer cancel()
	b := s.pubsub.B()
	built := b.Subscribe().Channel(*c.name.Load()).Build()
	if c.kind == Sharded {
		built = b.Ssubscribe().Channel(*c.name.Load()).Build()
	}
	err := s.pubsub.Do(ctx, built).Error()
	if _, isReply := redisReply(err); isReply {
		c.deaf.Store(true)
		s.canaryRefused(c, err)
		return nil
	}
	if err == nil {
		c.deaf.Store(false)
	}
	return err
}

// shardedCanaryName finds a channel in a slot of this node.
func (s *session) shardedCanaryName() (string, bool) {
	r := s.node.broker
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if !r.cluster {
		return "", false
	}
	return s.nameInSlot(r.canaryName())
}

// nameInSlot finds a name that begins as given in a slot of this node. The caller holds mutex.
func (s *session) nameInSlot(begin string) (string, bool) {
	r := s.node.broker
	if r.slots == nil {
		return "", false
	}
	for try := range slotTriesMax {
		name := begin + ":" + strconv.Itoa(int(s.number)) + "." + strconv.Itoa(try)
		if r.slots[slotOf(name)] == s.node.number {
			return name, true
		}
	}
	return "", false
}

// canaryRefused notes that Redis does not let a canary through. The session goes on without
// proof, for tearing it down would mend nothing; health says that nothing is proved.
func (s *session) canaryRefused(c *canary, err error) {
	class, _ := diagnose(err)
	if class == causeTopology && c.kind == Sharded {
		c.deaf.Store(false)
		c.lost.Store(true)
		s.node.broker.askTopology()
		return
	}
	c.refused.Store(true)
	s.delivered.Store(false)
	err = fmt.Errorf("the canary %s: %w", *c.name.Load(), err)
	s.node.broker.report(s.node.target(), err)
	s.node.setFault(err)
}

// canaryReturned is called by the reader. A canary of an earlier session proves nothing.
func (s *session) canaryReturned(c *canary, payload string) {
	if payload != s.payload {
		// In a Cluster the canaries of the other nodes come too, and prove the bus between them.
		if number, err := strconv.ParseUint(payload, 10, 32); err == nil && c.kind == Plain {
			s.heard.Store(uint32(number), time.Now())
		}
		return
	}
	c.cameBack(time.Since(s.opened))
	s.noteProof()
}

// leaves notes that a canary is published now, a time since the session was opened.
func (c *canary) leaves(now time.Duration) { c.left.CompareAndSwap(0, max(int64(now), 1)) }

// cameBack notes that a canary returned.
func (c *canary) cameBack(now time.Duration) {
	c.returned.Store(max(int64(now), 1))
	if left := c.left.Swap(0); left != 0 {
		c.delay.Store(int64(now) - left)
	}
}

// startOver counts a canary as returned, and forgets those that are out: they may never return.
func (c *canary) startOver(now time.Duration) {
	c.returned.Store(max(int64(now), 1))
	c.left.Store(0)
}

// lateness is what the way of a canary takes: of the last one, or longer if one is out for longer.
func (c *canary) lateness(now time.Duration) time.Duration {
	if c.refused.Load() || c.lost.Load() {
		return 0
	}
	delay := time.Duration(c.delay.Load())
	if left := c.left.Load(); left != 0 {
		delay = max(delay, now-time.Duration(left))
	}
	return delay
}

// canaryDelay is the lateness of the session's slowest canary.
func (s *session) canaryDelay() (slowest time.Duration) {
	now := time.Since(s.opened)
	for _, c := range s.canaries {
		slowest = max(slowest, c.lateness(now))
	}
	if c := s.tracker.canary; c != nil {
		slowest = max(slowest, c.lateness(now))
	}
	return slowest
}

// noteProof tells that the node delivers once every canary has come back.
func (s *session) noteProof() {
	if s.proved() && s.delivered.CompareAndSwap(false, true) {
		s.node.broker.running.Go(s.tellDelivered)
	}
}

// proved reports whether every canary has come back. That keys can't be tracked is no fault of
// the other subscriptions.
func (s *session) proved() bool {
	for _, c := range s.canaries {
		if c.refused.Load() || c.returned.Load() == 0 && !c.lost.Load() {
			return false
		}
	}
	c := s.tracker.canary
	return c == nil || c.refused.Load() || c.returned.Load() != 0 && !s.tracker.doubted.Load() || c.lost.Load()
}

// tellDelivered does what the reader must not wait for.
func (s *session) tellDelivered() {
	if s.ctx.Err() != nil {
		return
	}
	if away, told := s.node.setDelivering(s); told {
		s.node.broker.recovered(s.node.target(), away)
	}
}

// probeLoop publishes the canaries, and asks the server now and then whether it is a primary: a
// primary that was demoted goes on delivering its own canary.
func (s *session) probeLoop() {
	roleAsked := time.Now()
	ticker := time.NewTicker(canaryInterval)
	defer ticker.Stop()
	for {
		for _, c := range s.canaries {
			s.probe(c)
		}
		s.tracker.probe()
		s.audit()
		if time.Since(roleAsked) >= roleInterval {
			roleAsked = time.Now()
			s.askRole()
		}
		select {
		case <-ticker.C:
		case <-s.ctx.Done():
			return
		}
	}
}

// probe publishes one canary. A failure is no verdict, for rueidis makes a lost command
// connection anew: the watch has it.
func (s *session) probe(c *canary) {
	if c.lost.Load() && !s.replaceCanary(c) {
		return
	}
	if c.deaf.Load() && s.subscribeCanary(c) != nil || c.deaf.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, canaryInterval)
	defer cancel()
	b := s.client.B()
	built := b.Publish().Channel(*c.name.Load()).Message(s.payload).Build()
	c.leaves(time.Since(s.opened))
	if c.kind == Sharded {
		built = b.Spublish().Channel(*c.name.Load()).Message(s.payload).Build()
	}
	err := s.client.Do(ctx, built).Error()
	if _, isReply := redisReply(err); isReply {
		s.canaryRefused(c, err)
		return
	}
	if err == nil && c.refused.Load() {
		c.startOver(time.Since(s.opened)) // allowed again: silence counts from now
		c.refused.Store(false)
	}
}

// replaceCanary takes another slot of this node for a canary whose slot moved away, and reports
// whether there was one.
func (s *session) replaceCanary(c *canary) bool {
	name, found := s.shardedCanaryName()
	if !found {
		return false
	}
	c.name.Store(&name)
	c.startOver(time.Since(s.opened))
	c.lost.Store(false)
	return s.subscribeCanary(c) == nil && !c.lost.Load()
}

// askRole ends the session when the server is no longer a primary.
func (s *session) askRole() {
	found, err := identify(s.ctx, s.client)
	if err == nil && found.role != "master" {
		s.fail(errDemoted)
	}
	// An error is no verdict: the canary tells what it means.
}

// watch ends the session when a canary has been silent for too long.
func (s *session) watch() {
	ticker := time.NewTicker(canaryWatch)
	defer ticker.Stop()
	looked := time.Now()
	for {
		select {
		case <-ticker.C:
		case <-s.ctx.Done():
			return
		}
		// Time in which this process did not run proves nothing about Redis: a canary that came
		// then still waits to be read.
		late := max(time.Since(looked)-2*canaryWatch, 0)
		looked = time.Now()
		for _, c := range s.canaries {
			if c.silentFor(time.Since(s.opened), late) >= canarySilence {
				s.fail(errSilent)
				return
			}
		}
		if c := s.tracker.canary; c != nil && !s.tracker.down.Load() && c.silentFor(time.Since(s.opened), late) >= canarySilence {
			s.fail(errUntold)
			return
		}
		if s.deafToBus() {
			s.fail(errDeaf)
			return
		}
	}
}

// silentFor returns how long the canary has been missing, less the time in which nobody could
// have noticed its return. It is called by the watch alone.
func (c *canary) silentFor(now, late time.Duration) time.Duration {
	if c.refused.Load() || c.lost.Load() {
		return 0
	}
	returned := time.Duration(c.returned.Load())
	if returned != c.watched {
		c.watched, c.excused = returned, 0
	}
	c.excused += late
	return now - returned - c.excused
}
