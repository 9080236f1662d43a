package broker

import (
	"time"
	"unsafe"

	"github.com/millrace/millrace/internal/names"
)

// entryFlags are the facts of an entry that are no numbers.
type entryFlags uint16

const (
	flagWanted    entryFlags = 1 << iota // somebody subscribes
	flagQueued                           // stands in its node's todo queue
	flagLingering                        // stands in the linger queue
	flagDelayed                          // stands in a retry queue
	flagLeaving                          // an unsubscribe is on its way to Redis
	flagConfirmed                        // was confirmed at some time of its life
	flagAlone                            // is to be asked for in a command of its own
	flagRefused                          // was reported as refused and not confirmed since
	flagAsked                            // the entry's session was asked and has not answered
	flagLeftAgain                        // was left once more since it stands in the linger queue
	flagPreferred                        // goes before others
)

// kindShift is where an entry's kind stands, in the last three bits of its flags.
const kindShift = 13

// flagsHeld are those that keep an entry in the table.
const flagsHeld = flagWanted | flagQueued | flagLingering | flagDelayed | flagLeaving

// noNode is the node of an entry that has none yet.
const noNode = int16(-1)

// entry is one subscription. There may be a million of them, so it is kept at 12 bytes without a
// pointer and found by a number. It belongs to whoever holds the broker's mutex.
type entry struct {
	name names.Place // the entry holds it; 0 in a free entry
	// held is the number of the session that confirmed it, or with flagAsked that was asked; 0 is
	// none. Of a State or Log it is the number of its record in the table of keys, where there
	// is room for the session. See [registry.session].
	held  uint32
	node  int16
	flags entryFlags
}

// entryBytes is what an entry costs beside its name; the table that finds it comes to about as
// much again.
const entryBytes = int(unsafe.Sizeof(entry{}))

func (e *entry) kind() Kind { return Kind(e.flags >> kindShift) }

func (e *entry) has(flag entryFlags) bool { return e.flags&flag != 0 }

// tick is a time in hundredths of a second since the broker was made, which wraps after 497
// days: compare with before only.
type tick uint32

const tickLength = 10 * time.Millisecond

func (t tick) before(other tick) bool { return int32(t-other) < 0 }

// registryChunk is how many entries are allocated at once: growing never copies, and walks give
// the mutex back after as many.
const registryChunk = 1024

// registry is the table of what is wanted, for one name and kind one entry. It has no lock of
// its own.
type registry struct {
	byName [kindCount]names.Index // by kind; of index+1, since 0 is none there
	store  *names.Store
	chunks []*[registryChunk]entry
	keys   keyTable // of State and Log
	used   uint32   // entries handed out so far, free ones included
	free   []uint32 // entries given back
	wanted int
}

func newRegistry(store *names.Store) *registry {
	table := &registry{store: store}
	for kind := range table.byName {
		table.byName[kind] = names.New(func(number uint32) string { return table.channel(table.at(number - 1)) })
	}
	return table
}

func (r *registry) at(index uint32) *entry {
	return &r.chunks[index/registryChunk][index%registryChunk]
}

// channel is the name of an entry, which nobody may keep.
func (r *registry) channel(e *entry) string { return r.store.View(e.name) }

// subscription is what the entry stands for.
func (r *registry) subscription(e *entry) Subscription {
	return Subscription{Channel: r.store.Name(e.name), Kind: e.kind()}
}

func (r *registry) find(kind Kind, channel string) (uint32, *entry) {
	number := r.byName[kind].Find(channel)
	if number == 0 {
		return 0, nil
	}
	return number - 1, r.at(number - 1)
}

// obtain finds the entry of sub or makes one without a node. name is where the store has the
// channel's name already, or 0.
func (r *registry) obtain(sub Subscription, name names.Place) (uint32, *entry) {
	if index, found := r.find(sub.Kind, sub.Channel); found != nil {
		return index, found
	}
	var index uint32
	if last := len(r.free) - 1; last >= 0 {
		index, r.free = r.free[last], r.free[:last]
	} else {
		if r.used%registryChunk == 0 {
			r.chunks = append(r.chunks, new([registryChunk]entry))
		}
		index = r.used
		r.used++
	}
	made := r.at(index)
	if name != 0 {
		r.store.Hold(name)
	} else {
		name = r.store.Put(sub.Channel)
	}
	*made = entry{name: name, flags: entryFlags(sub.Kind) << kindShift, node: noNode}
	if sub.Kind.keyed() {
		made.held = r.keys.obtain(sub.Kind)
	}
	r.byName[sub.Kind].Add(index + 1)
	return index, made
}

// key is the record of an entry of kind State or Log.
func (r *registry) key(e *entry) *trackedKey { return r.keys.at(e.held) }

// session is where an entry keeps the number of its session.
func (r *registry) session(e *entry) *uint32 {
	if e.kind().keyed() {
		return &r.key(e).session
	}
	return &e.held
}

// confirmedIn is the number of the session that confirmed the entry; 0 is none.
func (r *registry) confirmedIn(e *entry) uint32 {
	if e.has(flagAsked) {
		return 0
	}
	return *r.session(e)
}

// askedIn is the number of the session that was asked and has not answered; 0 is none.
func (r *registry) askedIn(e *entry) uint32 {
	if e.has(flagAsked) {
		return *r.session(e)
	}
	return 0
}

// confirm notes the session that confirmed the entry.
func (r *registry) confirm(e *entry, session uint32) {
	*r.session(e), e.flags = session, e.flags&^flagAsked
}

// ask notes the session that was asked, of an entry that none has confirmed.
func (r *registry) ask(e *entry, session uint32) {
	*r.session(e), e.flags = session, e.flags|flagAsked
}

// release is the end of confirm or ask.
func (r *registry) release(e *entry) { *r.session(e), e.flags = 0, e.flags&^flagAsked }

// settle gives the entry back if nothing holds it any more, and reports whether it did.
func (r *registry) settle(index uint32) bool {
	settled := r.at(index)
	if settled.name == 0 || settled.flags&flagsHeld != 0 || *r.session(settled) != 0 || settled.kind().keyed() && r.key(settled).askedIn != 0 {
		return false
	}
	r.byName[settled.kind()].Remove(r.channel(settled))
	r.store.Drop(settled.name)
	if settled.kind().keyed() {
		r.keys.giveBack(settled.held)
	}
	*settled = entry{node: noNode}
	r.free = append(r.free, index)
	return true
}

// queue is a first-in-first-out list of entries. An entry stands in it at most once (a flag says
// so), which bounds it by the size of the table.
type queue struct {
	items []uint32
	head  int
}

func (q *queue) push(index uint32) { q.items = append(q.items, index) }

func (q *queue) length() int { return len(q.items) - q.head }

func (q *queue) pop() (uint32, bool) {
	if q.head == len(q.items) {
		return 0, false
	}
	index := q.items[q.head]
	q.head++
	switch {
	case q.head == len(q.items):
		q.items, q.head = q.items[:0], 0
		if cap(q.items) > registryChunk {
			q.items = nil // a burst is over: give its memory back
		}
	case q.head > registryChunk && q.head > len(q.items)/2:
		q.items = append([]uint32(nil), q.items[q.head:]...)
		q.head = 0
	}
	return index, true
}

// agenda is what a goroutine of a node has to see to, the preferred first. An entry stands in it
// at most once, flagQueued says so.
type agenda struct {
	first, rest queue
}

func (a *agenda) push(index uint32, first bool) {
	if first {
		a.first.push(index)
	} else {
		a.rest.push(index)
	}
}

func (a *agenda) pop() (uint32, bool) {
	if index, ok := a.first.pop(); ok {
		return index, true
	}
	return a.rest.pop()
}

// delayQueue holds entries for one fixed delay, in the order in which they came.
type delayQueue struct {
	queue queue
	due   []tick // parallel to the queue's live items
	head  int
}

func (q *delayQueue) push(index uint32, due tick) {
	if q.queue.length() == 0 {
		q.due, q.head = q.due[:0], 0
	}
	q.queue.push(index)
	q.due = append(q.due, due)
}

// next returns when the first entry is due.
func (q *delayQueue) next() (tick, bool) {
	if q.queue.length() == 0 {
		return 0, false
	}
	return q.due[q.head], true
}

// popDue takes the first entry if it is due.
func (q *delayQueue) popDue(now tick) (uint32, bool) {
	due, ok := q.next()
	if !ok || now.before(due) {
		return 0, false
	}
	q.head++
	if q.head > registryChunk && q.head > len(q.due)/2 {
		q.due = append([]tick(nil), q.due[q.head:]...)
		q.head = 0
	}
	return q.queue.pop()
}
