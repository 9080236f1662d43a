package broker

import (
	"io"
	"net"
	"time"
)

// DirectReader is the reader of a connection that is a bare socket, nil of any other.
func DirectReader(connection net.Conn) io.Reader {
	if r, ok := newDirectReader(connection); ok {
		return r
	}
	return nil
}

// SetRefusedRetry shortens the wait before a refused subscription is tried again.
func (r *Redis) SetRefusedRetry(d time.Duration) { r.refusedRetry = d }

// SetSweepInterval shortens the time in which every key is read without a reason. It comes before
// Start.
func (r *Redis) SetSweepInterval(d time.Duration) { r.sweepInterval = d }

// Slot is the hash slot of a key.
func Slot(key string) uint16 { return slotOf(key) }

// ParsedURL is what a URL was understood as.
type ParsedURL struct {
	Addresses                          []string
	Master, Username, Password         string
	SentinelUsername, SentinelPassword string
	Database                           int
	TLS                                bool
}

// ParseURL reads a Redis URL.
func ParseURL(raw string) (ParsedURL, error) {
	t, err := parseURL(raw)
	return ParsedURL{
		t.addresses, t.master, t.username, t.password, t.sentinelUsername, t.sentinelPassword, t.database, t.tls,
	}, err
}

// EntryBytes is the size of one entry of the table of subscriptions.
const EntryBytes = entryBytes

// SetStoreBytesMax lowers what the memory broker keeps of states and logs. It comes before Start.
func (m *Memory) SetStoreBytesMax(bytes int) { m.store.bytesMax = bytes }

// KeyBytes is the size of what is remembered of a State or Log beside its entry.
const KeyBytes = keyBytes

// LogLook is one look at a log: see logRead.
type LogLook struct {
	Cursor                     Position
	Added                      uint64
	Exists                     bool
	Length, AddedEver          uint64
	First, LastEver, LastGone  Position
	Entries                    []Entry
	CursorIsThere, MoreMayCome bool
}

// AddedUnknown stands for a count that could not be followed.
const AddedUnknown = addedUnknown

// Judge says what the look shows: whether there is a hole, where the log goes on, and how many
// entries were ever added up to the end of the look's.
func (l LogLook) Judge() (hole bool, from Position, added uint64) {
	read := logRead{
		cursor: l.Cursor, added: l.Added, entries: l.Entries, held: l.CursorIsThere, full: l.MoreMayCome,
		info: logInfo{exists: l.Exists, length: l.Length, first: l.First, last: l.LastEver, deleted: l.LastGone, added: l.AddedEver},
	}
	told := read.judge()
	return told.hole, told.from, told.added
}

// CutPaceEvents is how many events a cut hands over in one go.
const CutPaceEvents = cutPaceEvents

// Held is how many events the cut holds back.
func (c *Cut) Held() int {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return len(c.held)
}
