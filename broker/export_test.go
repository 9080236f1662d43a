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
