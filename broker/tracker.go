package broker

import (
	"errors"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

const (
	// stateInterval and logInterval are the least time between two reads of one key. They bound
	// what a key that changes all the time costs Redis and us: a state is worth a hundred looks
	// a second, for that is more than a screen shows; a log must keep up with its entries, and
	// gives as many as have come, so that its interval only sets how they are bunched.
	stateInterval = 10 * time.Millisecond
	logInterval   = 4 * time.Millisecond
	// readBatchMax is how many keys are read in one go, readBatchBytes how many bytes their last
	// reads may sum up to.
	readBatchMax   = 128
	readBatchBytes = 4 << 20
	// readTimeout bounds the answer to a batch; the canary notices a stall sooner.
	readTimeout = 5 * time.Second
)

// keyCounts is what [Stats] tells of keys.
type keyCounts struct {
	reads, invalidations, sweepFound, holes, wrongTypes, tooLarge atomic.Uint64
}

func (c *keyCounts) into(stats *Stats) {
	stats.Reads, stats.Invalidations, stats.SweepFound = c.reads.Load(), c.invalidations.Load(), c.sweepFound.Load()
	stats.Holes, stats.WrongTypes, stats.TooLarge = c.holes.Load(), c.wrongTypes.Load(), c.tooLarge.Load()
}

// tracker reads the keys of one session and hands over what they hold. Redis is asked to remember
// each read (CLIENT CACHING YES) and says on the same connection when what was read is no longer
// so; then the key is read again. One batch is on its way at a time, while the next gathers. A
// connection that ends alone is replaced alone (see run).
//
// invalidated runs on the goroutine that reads the connection, all else on the tracker's own.
type tracker struct {
	session *session
	broker  *Redis
	canary  *canary       // nil where the node has no slot for one
	over    chan struct{} // closed when run has returned
	down    atomic.Bool   // there is no connection at present
	doubted atomic.Bool   // one has ended, and the canary has not come back since

	// Guarded by the broker's mutex.
	refused     error    // why Redis does not let us track, nil if it does
	flushed     bool     // everything has changed
	canaryDirty bool     // the canary is to be read
	sequence    uint64   // number of the last invalidation
	pending     []unread // logs, in the order of their oldest unread invalidations
	marks       []mark   // what the horizon may become
	waiting     dueHeap  // keys with keyWaits
	sweepAt     uint32   // the next entry that the sweep looks at

	// Of the tracker's own goroutine, once it runs.
	client  rueidis.DedicatedClient
	ended   <-chan error // closed when the connection has ended; nil without one
	again   bool         // the connection is not the session's first
	marked  uint64       // ms of the canary entry that was read with the batch, 0 if none was
	sweptTo time.Time    // when the sweep last looked
}

// errTracking is of a server that does not know client tracking.
var errTracking = errors.New("the server does not do client tracking, which modes log and state need: Redis 7 or newer is needed")

// newTracker makes the tracker of a session, without its connection.
func newTracker(s *session) *tracker {
	return &tracker{session: s, broker: s.node.broker, canary: s.trackedCanary(), sweptTo: time.Now()}
}

// invalidated notes which keys have changed; nil is all of them.
func (t *tracker) invalidated(keys []rueidis.RedisMessage) {
	r := t.broker
	if t.session.ctx.Err() != nil {
		return // the end of a connection looks like a flush
	}
	canary := ""
	if t.canary != nil {
		canary = *t.canary.name.Load()
	}
	r.mutex.Lock()
	t.sequence++
	if keys == nil {
		t.flushed, t.canaryDirty = true, true
	}
	for index := range keys {
		name, err := keys[index].ToString()
		switch {
		case err != nil:
		case name == canary && canary != "":
			t.canaryDirty = true
			t.canary.cameBack(time.Since(t.session.opened))
			t.doubted.Store(false)
			t.session.noteProof()
		case len(name) > len(r.prefix) && name[:len(r.prefix)] == r.prefix:
			r.keys.invalidations.Add(1)
			t.changed(State, name[len(r.prefix):])
			t.changed(Log, name[len(r.prefix):])
		}
	}
	r.mutex.Unlock()
	signal(t.session.node.read)
}

// changed has a key read that Redis says has changed. The caller holds mutex.
func (t *tracker) changed(kind Kind, channel string) {
	index, e := t.broker.table.find(kind, channel)
	if e == nil || e.node != t.session.node.number {
		return
	}
	key := t.broker.table.key(e)
	key.flags |= keyDirty
	t.pend(index, e)
	if e.has(flagWanted) && key.askedIn == 0 {
		t.broker.enqueue(index, e)
	}
}

// read reads what has changed until the connection, or the session, ends. It returns why.
func (t *tracker) read() error {
	sweep := time.NewTicker(sweepTick)
	defer sweep.Stop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	t.pendAll()
	for t.session.ctx.Err() == nil {
		select {
		case <-sweep.C: // also while there is always something to read
			t.sweep()
		default:
		}
		batch, wait := t.next()
		if !batch.empty() {
			if !t.work(batch) {
				return t.awaitEnd()
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-t.session.node.read:
		case <-timer.C:
		case <-sweep.C:
			t.sweep()
		case err := <-t.ended:
			return t.hasEnded(err)
		case <-t.session.ctx.Done():
		}
	}
	return t.session.ctx.Err()
}

// readBatch is what the tracker does in one step.
type readBatch struct {
	reads   []keyRead
	canary  bool
	flushed bool
	confirm []uint32       // owed a confirmation, nothing to read
	refused []Subscription // known to be refused, to be told again
	bytes   int            // that the reads are expected to give
	full    bool
	repeat  bool // some were read before: a reconnect is being mended
}

func (b *readBatch) empty() bool {
	return len(b.reads) == 0 && !b.canary && !b.flushed && len(b.confirm) == 0 && len(b.refused) == 0
}

// next gathers a batch, and says for how long there is nothing more to do if it is empty.
func (t *tracker) next() (*readBatch, time.Duration) {
	r := t.broker
	r.mutex.Lock()
	defer r.mutex.Unlock()
	batch := &readBatch{canary: t.canaryDirty && t.canary != nil && t.refused == nil, flushed: t.flushed}
	t.canaryDirty, t.flushed = false, false
	now := r.nowFine()
	t.stopWaiting(now)
	for range registryChunk {
		if batch.full = len(batch.reads) == readBatchMax || batch.bytes >= readBatchBytes; batch.full {
			break
		}
		index, ok := t.session.node.reads.pop()
		if !ok {
			break
		}
		e := r.table.at(index)
		if e.node != t.session.node.number || !e.kind().keyed() {
			continue // it was moved, and queued where it belongs
		}
		e.flags &^= flagQueued
		t.sort(batch, index, e, now)
	}
	return batch, t.waiting.wait(now)
}

// sort decides what a key needs.
func (t *tracker) sort(batch *readBatch, index uint32, e *entry, now tickFine) {
	r, key := t.broker, t.broker.table.key(e)
	switch {
	case key.askedIn != 0:
		// The answer on its way decides; it queues the entry again if need be.
	case !e.has(flagWanted):
		r.settle(index)
	case e.has(flagDelayed):
		if e.has(flagRefused) && key.has(keyOwed) {
			batch.refused = append(batch.refused, r.table.subscription(e))
		}
	case r.table.confirmedIn(e) == t.session.number && !key.has(keyDirty|keyFresh|keySwept):
		batch.confirm = append(batch.confirm, index)
	case !key.has(keyFresh) && now.since(key.readAt) < interval(e.kind()):
		if !key.has(keyWaits) {
			key.flags |= keyWaits
			t.waiting.push(due{at: key.readAt + tickFine(interval(e.kind())/time.Millisecond), index: index})
		}
	default:
		key.askedIn = t.session.number
		batch.repeat = batch.repeat || e.has(flagConfirmed) && r.table.confirmedIn(e) == 0
		if e.kind() == Log && !key.has(keyFresh) {
			t.checkOrigin(key)
		}
		batch.add(r.table.subscription(e), key, index)
	}
}

// interval is the least time between two reads of a key.
func interval(kind Kind) time.Duration {
	if kind == State {
		return stateInterval
	}
	return logInterval
}

// stopWaiting queues the keys that have waited long enough. The caller holds mutex.
func (t *tracker) stopWaiting(now tickFine) {
	for {
		index, ok := t.waiting.popDue(now)
		if !ok {
			return
		}
		e := t.broker.table.at(index)
		if !e.kind().keyed() || e.node != t.session.node.number {
			continue
		}
		if key := t.broker.table.key(e); key.has(keyWaits) {
			key.flags &^= keyWaits
			t.broker.enqueue(index, e)
		}
	}
}

// work carries a batch out. It reports false if the connection, or the session, failed.
func (t *tracker) work(batch *readBatch) bool {
	if batch.flushed {
		t.dirtyAll()
	}
	t.tellConfirmed(batch.confirm)
	t.session.refuseAgain(batch.refused)
	if len(batch.reads) == 0 && !batch.canary {
		return true
	}
	if t.refused != nil { // only this goroutine sets it from here on
		if t.failed("ask for client tracking", t.enable()) {
			return false
		}
	}
	if t.refused != nil {
		t.refuse(batch, t.refused)
		return true
	}
	if !t.fetch(batch) {
		return false
	}
	t.settle(batch)
	if (t.session.again || t.again) && batch.full && batch.repeat {
		pause(t.session.ctx, jitter(resubscribePause), nil)
	}
	return true
}

// settle hands over what was read, confirms what is owed a confirmation, and moves the horizon.
func (t *tracker) settle(batch *readBatch) {
	var owed []uint32
	for index := range batch.reads {
		read := &batch.reads[index]
		t.apply(read)
		if !t.handOver(read) {
			return
		}
		if read.good {
			owed = append(owed, read.index)
		}
	}
	t.tellConfirmed(owed)
	t.close(batch)
}

// handOver calls back. A panic in a callback ends the session; what it was to take comes again.
func (t *tracker) handOver(read *keyRead) (ok bool) {
	r := t.broker
	defer func() {
		if value := recover(); value != nil {
			r.mutex.Lock()
			switch e := r.table.at(read.index); e.kind() {
			case State:
				r.table.key(e).flags |= keyFresh
			case Log:
				r.table.key(e).flags |= keyDoubt
			}
			r.mutex.Unlock()
			t.session.fail(&callbackPanic{value: value, stack: debug.Stack()})
		}
	}()
	if read.give && !r.closing.Load() {
		r.callbacks.Value(read.channel, read.payload, read.received)
	}
	for index := range read.updates {
		if !r.closing.Load() {
			read.updates[index].Horizon = r.horizon.Load()
			r.callbacks.Log(read.updates[index], read.received)
		}
	}
	return true
}

// tellConfirmed confirms those of the entries that are owed it.
func (t *tracker) tellConfirmed(indexes []uint32) {
	if len(indexes) == 0 {
		return
	}
	r := t.broker
	r.calls.Lock()
	defer r.calls.Unlock()
	var subs []Subscription
	r.mutex.Lock()
	for _, index := range indexes {
		e := r.table.at(index)
		if !e.kind().keyed() || !e.has(flagWanted) || r.confirmedBy(e) != t.session {
			continue
		}
		if key := r.table.key(e); key.has(keyOwed) && !key.has(keyFresh) {
			key.flags &^= keyOwed
			e.flags |= flagConfirmed
			e.flags &^= flagRefused
			subs = append(subs, r.table.subscription(e))
		}
	}
	r.mutex.Unlock()
	if len(subs) > 0 && t.session.ctx.Err() == nil {
		r.tell(func() { r.callbacks.Confirmed(subs, false) })
	}
}

// hold notes that the session now has the entry confirmed. The caller holds mutex.
func (s *session) hold(e *entry) {
	table := s.node.broker.table
	if table.confirmedIn(e) == s.number {
		return
	}
	table.confirm(e, s.number)
	s.confirmed++
	if e.has(flagWanted) {
		s.confirmedWanted++
	}
	if e.kind().keyed() {
		s.keys++
	}
}

// release takes back what hold noted. The caller holds mutex.
func (s *session) release(e *entry) {
	s.node.broker.table.release(e)
	s.confirmed--
	if e.has(flagWanted) {
		s.confirmedWanted--
	}
	if e.kind().keyed() {
		s.keys--
	}
}
