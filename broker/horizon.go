package broker

import (
	"time"

	"github.com/redis/rueidis"
)

// marksMax bounds the marks that wait. Of more the newest are dropped, save the last one: the
// horizon then rises in larger steps.
const marksMax = 8

// unread is a log and the number of the oldest invalidation that it was not read after.
type unread struct {
	index    uint32
	sequence uint64
}

// mark says that the canary entry of a moment came when invalidations up to sequence had come.
// Redis tells changes in their order, on one connection: whatever was appended to a tracked log
// before that moment was told by then, and whatever log was not tracked was pending. So when all
// that is pending up to sequence has been read and handed over, every entry from before the
// moment has been.
type mark struct {
	milliseconds uint64
	sequence     uint64
}

// pend notes that a log has entries, for all we know, that were not handed over. The caller holds
// mutex.
func (t *tracker) pend(index uint32, e *entry) {
	if e.kind() != Log || !e.has(flagWanted) || !e.has(flagConfirmed) {
		return // nobody was told yet that he hears it
	}
	key := t.broker.table.key(e)
	if key.since != 0 || key.has(keyFresh) {
		return
	}
	key.since = max(t.sequence, 1)
	t.pending = append(t.pending, unread{index: index, sequence: key.since})
	if len(t.pending) > 2*t.session.node.logs+registryChunk {
		t.compact()
	}
}

// compact drops what is no longer pending: one log that can't be read must not let the list grow
// by what all others do. The caller holds mutex.
func (t *tracker) compact() {
	kept := t.pending[:0]
	for _, one := range t.pending {
		if t.isPending(one) {
			kept = append(kept, one)
		}
	}
	t.pending = append([]unread(nil), kept...)
}

func (t *tracker) isPending(one unread) bool {
	e := t.broker.table.at(one.index)
	return e.kind() == Log && e.node == t.session.node.number && e.has(flagWanted) &&
		t.broker.table.key(e).since == one.sequence
}

// pendAll notes at the start of a session that no log of the node was read in it.
func (t *tracker) pendAll() {
	t.forEach(func(index uint32, e *entry) { t.pend(index, e) })
}

// dirtyAll has every key of the node read, as after FLUSHALL.
func (t *tracker) dirtyAll() {
	t.forEach(func(index uint32, e *entry) {
		key := t.broker.table.key(e)
		key.flags |= keyDirty
		t.pend(index, e)
		if e.has(flagWanted) && key.askedIn == 0 {
			t.broker.enqueue(index, e)
		}
	})
}

// forEach visits all keys of the node, giving the mutex back after every chunk.
func (t *tracker) forEach(visit func(uint32, *entry)) {
	r := t.broker
	for chunk := uint32(0); ; chunk++ {
		r.mutex.Lock()
		for index := chunk * registryChunk; index < min((chunk+1)*registryChunk, r.table.used); index++ {
			if e := r.table.at(index); e.kind().keyed() && e.node == t.session.node.number {
				visit(index, e)
			}
		}
		done := (chunk+1)*registryChunk >= r.table.used
		r.mutex.Unlock()
		if done {
			return
		}
	}
}

// readMark takes the answer to the read of the canary.
func (t *tracker) readMark(answer rueidis.RedisResult) {
	reply, err := answer.ToMessage()
	if err == nil {
		var entries []Entry
		if entries, _, _, err = parseEntries(reply, Position{}); err == nil && len(entries) == 1 {
			t.marked = entries[0].Position.Milliseconds
			return
		}
	}
	if _, isReply := redisReply(err); isReply {
		t.canaryRefused(err)
	}
}

// close notes which logs of a batch are no longer pending, and moves the horizon. A mark that was
// read with the batch counts from here: a log of the batch that changed while it was read is
// pending with no later number.
func (t *tracker) close(batch *readBatch) {
	r := t.broker
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for index := range batch.reads {
		read := &batch.reads[index]
		e := r.table.at(read.index)
		if read.kind != Log || !read.good || e.kind() != Log || r.table.confirmedIn(e) != t.session.number {
			continue
		}
		key := r.table.key(e)
		if !read.more {
			key.since = 0
		}
		if key.has(keyDirty) {
			t.pend(read.index, e)
		}
	}
	if t.marked != 0 {
		if len(t.marks) == marksMax {
			t.marks = t.marks[:marksMax-1]
		}
		t.marks = append(t.marks, mark{milliseconds: t.marked, sequence: t.sequence})
		t.marked = 0
	}
	t.advance()
}

// advance raises the horizon of the node to the last mark that nothing pending holds back. The
// caller holds mutex.
func (t *tracker) advance() {
	if t.flushed {
		return // nothing is noted as pending yet
	}
	for len(t.pending) > 0 && !t.isPending(t.pending[0]) {
		t.pending = t.pending[1:]
	}
	for len(t.marks) > 0 && (len(t.pending) == 0 || t.marks[0].sequence < t.pending[0].sequence) {
		t.session.node.horizon = t.marks[0].milliseconds - 1
		t.marks = t.marks[1:]
	}
	if !t.broker.cluster {
		t.broker.raiseHorizon(t.session.node.horizon)
	}
}

// raiseHorizon sets the horizon of all nodes, which never goes back. The caller holds mutex.
func (r *Redis) raiseHorizon(to uint64) {
	if to > r.horizon.Load() {
		r.horizon.Store(to)
		r.horizonRose = time.Now()
	}
}

// lowestHorizon is the horizon of the Cluster's node that is the furthest behind, 0 while that of
// one is not known. The caller holds mutex.
func (r *Redis) lowestHorizon() uint64 {
	lowest, any := uint64(0), false
	for _, n := range r.nodes {
		if n == nil || n.logs == 0 {
			continue
		}
		if !any || n.horizon < lowest {
			lowest, any = n.horizon, true
		}
	}
	if r.ownerless {
		return 0
	}
	return lowest
}

// dropHorizons forgets how far the nodes were read: slots have moved, and with them logs that
// must be read where they are now. The caller holds mutex.
func (r *Redis) dropHorizons() {
	for _, n := range r.nodes {
		if n == nil {
			continue
		}
		n.horizon = 0
		if n.session != nil {
			n.session.tracker.marks = nil
		}
	}
}

// forsake has a key read anew, by its new node. The caller holds mutex.
func (r *Redis) forsake(index uint32, e *entry) {
	r.table.key(e).forsake()
	if e.node != noNode {
		if session := r.nodes[e.node].session; session != nil {
			session.tracker.pend(index, e)
		}
	}
}

// Renew has a State or a Log that is subscribed to read again, from now on: a read that is under way does
// not count. What it holds is handed over as at the beginning of a subscription, of a Log where it ends, and
// then confirmed again.
func (r *Redis) Renew(sub Subscription) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	index, e := r.table.find(sub.Kind, sub.Channel)
	if e == nil || !e.has(flagWanted) || !sub.Kind.keyed() {
		return
	}
	r.forsake(index, e)
	r.table.key(e).flags |= keyFresh | keyOwed
	r.enqueue(index, e)
}

// nowFine is the current time in milliseconds.
func (r *Redis) nowFine() tickFine { return tickFine(time.Since(r.made) / time.Millisecond) }
