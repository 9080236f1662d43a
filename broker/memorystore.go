package broker

import (
	"container/heap"
	"container/list"
	"slices"
	"time"
)

const (
	// memoryStoreBytesMax bounds what the memory broker keeps of states and logs. Beyond it the
	// keys go that were written the longest ago, as in a Redis that evicts.
	memoryStoreBytesMax = 64 << 20
	// memoryKeyBytes and memoryEntryBytes are what a key and an entry of a log cost beside their
	// payloads.
	memoryKeyBytes   = 256
	memoryEntryBytes = 48
)

// memoryStore keeps states and logs. It has no lock of its own.
type memoryStore struct {
	keys     map[Subscription]*memoryKey
	written  *list.List // of *memoryKey, the one written the longest ago in front
	bytes    int
	bytesMax int
	last     Position // of the entry that was appended last, to any log
	ends     dueKeys  // of the keys that are not kept for ever
}

// memoryKey is a state or a log.
type memoryKey struct {
	sub     Subscription
	place   *list.Element
	bytes   int
	value   []byte  // of a state, not nil
	entries []Entry // of a log
	added   uint64  // entries ever appended
	last    Position
	ends    time.Time // when the key goes; zero: never
}

// dueKeys is a heap of keys by when they may go: a key whose end was put off stands at its old place
// until that comes.
type dueKeys []dueKey

type dueKey struct {
	at  time.Time
	key *memoryKey
}

func (d dueKeys) Len() int           { return len(d) }
func (d dueKeys) Less(a, b int) bool { return d[a].at.Before(d[b].at) }
func (d dueKeys) Swap(a, b int)      { d[a], d[b] = d[b], d[a] }

// Push and Pop are for container/heap.
func (d *dueKeys) Push(one any) { *d = append(*d, one.(dueKey)) }

func (d *dueKeys) Pop() any {
	last := len(*d) - 1
	one := (*d)[last]
	(*d)[last] = dueKey{}
	*d = (*d)[:last]
	return one
}

func newMemoryStore() memoryStore {
	return memoryStore{keys: make(map[Subscription]*memoryKey), written: list.New(), bytesMax: memoryStoreBytesMax}
}

// obtain finds the key that is about to be written, or makes it.
func (s *memoryStore) obtain(sub Subscription) *memoryKey {
	key := s.keys[sub]
	if key == nil {
		key = &memoryKey{sub: sub}
		s.keys[sub] = key
		key.place = s.written.PushBack(key)
		s.grow(key, memoryKeyBytes+len(sub.Channel))
	}
	s.written.MoveToBack(key.place)
	return key
}

func (s *memoryStore) grow(key *memoryKey, bytes int) {
	key.bytes += bytes
	s.bytes += bytes
}

// set writes a state.
func (s *memoryStore) set(channel string, value []byte) {
	key := s.obtain(Subscription{Channel: channel, Kind: State})
	s.grow(key, len(value)-len(key.value))
	key.value = value
}

// append writes an entry to a log, at a time in ms, and keeps at most maxLen of them, if that is not 0. Positions
// rise over all logs, so that a log that was evicted never goes back.
func (s *memoryStore) append(channel string, payload []byte, maxLen int, at uint64) Position {
	position := Position{Milliseconds: at}
	if !s.last.Before(position) {
		position = Position{s.last.Milliseconds, s.last.Sequence + 1}
	}
	key := s.obtain(Subscription{Channel: channel, Kind: Log})
	key.entries = append(key.entries, Entry{Position: position, Payload: payload})
	key.added++
	key.last, s.last = position, position
	s.grow(key, memoryEntryBytes+len(payload))
	if maxLen > 0 {
		s.trim(key, len(key.entries)-maxLen)
	}
	return position
}

// trim takes the oldest count entries out of a log.
func (s *memoryStore) trim(key *memoryKey, count int) {
	for index := range max(count, 0) {
		s.grow(key, -memoryEntryBytes-len(key.entries[index].Payload))
		key.entries[index] = Entry{}
	}
	key.entries = key.entries[max(count, 0):]
}

// keep has a log go at a time.
func (s *memoryStore) keep(channel string, until time.Time) {
	key := s.keys[Subscription{Channel: channel, Kind: Log}]
	if key == nil {
		return // evicted already
	}
	waits := !key.ends.IsZero() && !until.Before(key.ends)
	key.ends = until
	if !waits {
		heap.Push(&s.ends, dueKey{until, key})
	}
}

// expire takes away the keys whose time has come, and returns how long the next one's is off.
func (s *memoryStore) expire(now time.Time) (wait time.Duration) {
	for len(s.ends) > 0 {
		if wait := s.ends[0].at.Sub(now); wait > 0 {
			return wait
		}
		key := heap.Pop(&s.ends).(dueKey).key
		switch {
		case s.keys[key.sub] != key: // is gone
		case now.Before(key.ends):
			heap.Push(&s.ends, dueKey{key.ends, key})
		default:
			s.remove(key)
		}
	}
	return time.Hour
}

func (s *memoryStore) remove(key *memoryKey) {
	s.bytes -= key.bytes
	s.written.Remove(key.place)
	delete(s.keys, key.sub)
}

// evict makes room, and returns what is gone. The key that was written last goes last, a log of
// it only in part.
func (s *memoryStore) evict() (gone []Subscription) {
	for s.bytes > s.bytesMax {
		key := s.written.Front().Value.(*memoryKey)
		if s.written.Len() == 1 && len(key.entries) > 1 {
			s.trim(key, (len(key.entries)+1)/2)
			continue
		}
		s.remove(key)
		gone = append(gone, key.sub)
	}
	return gone
}

// state returns what a state holds, nil for none.
func (s *memoryStore) state(channel string) []byte {
	if key := s.keys[Subscription{Channel: channel, Kind: State}]; key != nil {
		return key.value
	}
	return nil
}

// end returns the position of the last entry of a log.
func (s *memoryStore) end(channel string) Position {
	if key := s.keys[Subscription{Channel: channel, Kind: Log}]; key != nil {
		return key.last
	}
	return Position{}
}

// read returns at most count entries of a log after a position.
func (s *memoryStore) read(channel string, after Position, count int) LogChunk {
	read := logRead{cursor: after, added: addedUnknown}
	if after == (Position{}) {
		read.added = 0
	}
	if key := s.keys[Subscription{Channel: channel, Kind: Log}]; key != nil {
		read.info = logInfo{exists: true, length: uint64(len(key.entries)), last: key.last, added: key.added}
		if len(key.entries) > 0 {
			read.info.first = key.entries[0].Position
		}
		from, held := slices.BinarySearchFunc(key.entries, after, func(entry Entry, position Position) int {
			switch {
			case entry.Position.Before(position):
				return -1
			case entry.Position == position:
				return 0
			}
			return 1
		})
		if held {
			from++
		}
		entries := key.entries[from:]
		read.held, read.full = held, len(entries) > count
		read.entries = slices.Clone(entries[:min(len(entries), count)])
	}
	told := read.judge()
	return LogChunk{Entries: read.entries, End: !read.full, Hole: told.hole, Reason: told.reason}
}
