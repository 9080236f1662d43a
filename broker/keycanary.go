package broker

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

// canaryExpiry is when the canary of a gateway that died is gone from Redis.
const canaryExpiry = time.Minute

// trackedCanary names a stream of ours that proves that changes of keys are told here: it is
// written by the command connection each second, and must be told by the one that reads keys. Its
// entries carry the time for the horizon. nil where the node has no slot for it.
func (s *session) trackedCanary() *canary {
	name, found := s.trackedCanaryName()
	if !found {
		return nil
	}
	return newCanary(Log, name)
}

func (s *session) trackedCanaryName() (string, bool) {
	r := s.node.broker
	begin := r.prefix + "__millrace:log:" + r.random
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if !r.cluster {
		return begin, true
	}
	return s.nameInSlot(begin)
}

func canaryCommand(b rueidis.Builder, name string) rueidis.Completed {
	return b.Xrevrange().Key(name).End("+").Start("-").Count(1).Build()
}

// readCanary has Redis track the canary before it is written for the first time.
func (t *tracker) readCanary() error {
	if t.canary == nil || t.canary.refused.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(t.session.ctx, canaryEnterTimeout)
	defer cancel()
	for _, answer := range t.client.DoMulti(ctx, t.cachingYes(), canaryCommand(t.client.B(), *t.canary.name.Load())) {
		err := answer.Error()
		if _, isReply := redisReply(err); isReply {
			t.canaryRefused(err)
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// probe writes the canary. It is called by the prober.
func (t *tracker) probe() {
	c, s := t.canary, t.session
	if c == nil || c.lost.Load() && !t.replaceCanary() || t.isRefused() {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, canaryInterval)
	defer cancel()
	b := s.client.B()
	name := *c.name.Load()
	c.leaves(time.Since(s.opened))
	answers := s.client.DoMulti(ctx,
		b.Xadd().Key(name).Maxlen().Threshold("1").Id("*").FieldValue().FieldValue("session", strconv.Itoa(int(s.number))).Build(),
		b.Expire().Key(name).Seconds(int64(canaryExpiry/time.Second)).Build())
	for _, answer := range answers {
		err := answer.Error()
		if _, isReply := redisReply(err); isReply {
			t.canaryRefused(err)
			return
		}
		if err != nil {
			return // no verdict: the watch has it
		}
	}
	if c.refused.Load() {
		c.startOver(time.Since(s.opened)) // allowed again: silence counts from now
		c.refused.Store(false)
	}
}

func (t *tracker) isRefused() bool {
	t.broker.mutex.Lock()
	defer t.broker.mutex.Unlock()
	return t.refused != nil
}

// replaceCanary takes another slot of the node for a canary whose slot moved away.
func (t *tracker) replaceCanary() bool {
	name, found := t.session.trackedCanaryName()
	if !found {
		return false
	}
	t.canary.name.Store(&name)
	t.canary.startOver(time.Since(t.session.opened))
	t.canary.lost.Store(false)
	t.dirtyCanary()
	return true
}

// dirtyCanary has the canary read, and thereby tracked.
func (t *tracker) dirtyCanary() {
	t.broker.mutex.Lock()
	t.canaryDirty = true
	t.broker.mutex.Unlock()
	signal(t.session.node.read)
}

// canaryRefused notes that Redis does not let the canary through: the horizon stays where it is,
// and nothing proves that changes are told. All else goes on, for ending the session would mend
// nothing.
func (t *tracker) canaryRefused(err error) {
	if class, _ := diagnose(err); class == causeTopology {
		t.canary.lost.Store(true)
		t.broker.askTopology()
		return
	}
	t.canary.refused.Store(true)
	t.session.noteProof()
	t.broker.mutex.Lock()
	needed := t.session.node.keys > 0
	t.broker.mutex.Unlock()
	if needed {
		t.broker.report(t.session.node.target(), fmt.Errorf("the canary %s: %w", *t.canary.name.Load(), err))
	}
}
