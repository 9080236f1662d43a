package gateway_test

import (
	"bytes"
	"compress/gzip"
	"os"
	"testing"
	"time"
)

// unzipped is what a gzip stream says. A decoder that was interrupted cannot go on, so one reads on a
// goroutine of its own, a piece ahead of who listens.
type unzipped struct {
	pieces chan []byte // closed at the end
	err    error       // why it ended, once pieces is closed
	rest   []byte
}

// unzip begins to read the body of s.
func unzip(t testing.TB, s *stream) *unzipped {
	_ = s.conn.SetReadDeadline(time.Time{}) // read takes the time
	u := &unzipped{pieces: make(chan []byte)}
	over := make(chan struct{})
	t.Cleanup(func() {
		s.conn.Close()
		close(over)
	})
	go func() {
		defer close(u.pieces)
		reader, err := gzip.NewReader(s.response.Body)
		for room := make([]byte, 16<<10); err == nil; {
			var n int
			if n, err = reader.Read(room); n == 0 {
				continue
			}
			select {
			case u.pieces <- bytes.Clone(room[:n]):
			case <-over:
				return
			}
		}
		u.err = err
	}()
	return u
}

// read reads what comes within limit.
func (u *unzipped) read(room []byte, limit time.Duration) (int, error) {
	if len(u.rest) == 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		select {
		case piece, open := <-u.pieces:
			if !open {
				return 0, u.err
			}
			u.rest = piece
		case <-timer.C:
			return 0, os.ErrDeadlineExceeded
		}
	}
	n := copy(room, u.rest)
	u.rest = u.rest[n:]
	return n, nil
}
