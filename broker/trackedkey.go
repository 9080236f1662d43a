package broker

import (
	"time"
	"unsafe"
)

// keyForm is how a key is read next. A State is taken for a string until Redis says otherwise.
type keyForm uint8

const (
	formString keyForm = iota // State: GETRANGE, so that a huge value is not read whole
	formEmpty                 // State: GET, for GETRANGE does not tell an empty string from no key
	formCount                 // State: HLEN, before a hash is read for the first time
	formHash                  // State: HGETALL
	formStart                 // Log: XINFO STREAM, for a cursor at its end
	formRange                 // Log: XRANGE from the cursor
	formCheck                 // Log: XINFO STREAM and XRANGE of one moment
)

// keyFlags are the facts of a key that are no numbers.
type keyFlags uint8

const (
	keyDirty keyFlags = 1 << iota // must be read (again)
	keyFresh                      // what it holds is handed over even if it did not change
	keyOwed                       // somebody subscribed and waits for a confirmation
	keyWaits                      // stands among those that were read a moment ago
	keySwept                      // is being read only because a sweep came by
	keyDoubt                      // Log: entries may be missing that nobody saw go
)

// trackedKey is what is remembered of a key beside its entry. There may be a million of them: 56
// bytes, without a pointer. It belongs to whoever holds the broker's mutex.
//
//	idle ---invalidated, or swept---> queued ---> reading ---reply---> idle
//	  ^                                 ^            |
//	  |                                 +--dirty-----+   invalidated meanwhile, or more to read
//	  +--- keyWaits: read less than its interval ago, queued once that is over
//
// Queued is flagQueued of the entry, reading is askedIn, and the entry's confirmedIn says that
// Redis tells its changes.
type trackedKey struct {
	// cursor is the position up to which a Log has been handed over.
	cursor Position
	// sum is a State's value, hashed (see valueSum), 0 if there is none; a Log's entries-added,
	// as Redis counts them, at the cursor, or addedUnknown.
	sum uint64
	// since is the number of the oldest invalidation of a Log that was not read after; 0 is none.
	since uint64
	// origin is the number of the data that was read last (see origins).
	origin uint32
	// size is how many bytes the last read gave, of a Log on average for an entry.
	size   uint32
	readAt tickFine
	// session is the number of the session that confirmed its entry, askedIn of the one that is
	// reading the key; 0 is none.
	session, askedIn uint32
	form             keyForm
	flags            keyFlags
}

// keyBytes is what a key costs beside its entry.
const keyBytes = int(unsafe.Sizeof(trackedKey{}))

func (k *trackedKey) has(flag keyFlags) bool { return k.flags&flag != 0 }

// addedUnknown stands for a number of entries that could not be followed.
const addedUnknown = ^uint64(0)

// tickFine is a time in milliseconds since the broker was made, which wraps after 49 days:
// subtract, or compare with before, only.
type tickFine uint32

func (t tickFine) since(earlier tickFine) time.Duration {
	return time.Duration(uint32(t-earlier)) * time.Millisecond
}

func (t tickFine) before(other tickFine) bool { return int32(t-other) < 0 }

// keyTable holds the records of keys, found by number. It has no lock of its own.
type keyTable struct {
	chunks []*[registryChunk]trackedKey
	used   uint32
	free   []uint32
}

func (t *keyTable) at(number uint32) *trackedKey {
	return &t.chunks[number/registryChunk][number%registryChunk]
}

func (t *keyTable) obtain(kind Kind) uint32 {
	number := t.used
	if last := len(t.free) - 1; last >= 0 {
		number, t.free = t.free[last], t.free[:last]
	} else {
		if t.used%registryChunk == 0 {
			t.chunks = append(t.chunks, new([registryChunk]trackedKey))
		}
		t.used++
	}
	made := trackedKey{flags: keyFresh}
	if kind == Log {
		made.form = formStart
	}
	*t.at(number) = made
	return number
}

func (t *keyTable) giveBack(number uint32) { t.free = append(t.free, number) }

// forsake notes that Redis no longer tells the key's changes to the session that read it.
func (k *trackedKey) forsake() {
	k.flags = k.flags&^(keyWaits|keySwept) | keyDirty
	k.since, k.askedIn = 0, 0
}
