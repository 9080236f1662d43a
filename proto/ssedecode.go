package proto

import (
	"bytes"
	"math"
	"strconv"
	"time"
)

// SSEEvent is one event as a receiver dispatches it.
type SSEEvent struct {
	// ID is the receiver's last event id when the event is dispatched, whether it came with this
	// event or before (WHATWG HTML, 9.2.6).
	ID string
	// HasID tells that the event itself set the id, be it to nothing.
	HasID bool
	// Event is the event's name; "message" where it had none.
	Event string
	// Data is the lines of data joined by LF.
	Data string
	// Retry is the reconnection time that came with this event, if HasRetry.
	Retry    time.Duration
	HasRetry bool
}

// SSEDecoder reads an event stream as a browser does (WHATWG HTML, 9.2.6), in whatever pieces it
// comes: Feed it bytes, then take events with Next until there is none. The zero value is ready.
// It belongs to one goroutine. Bytes that are not UTF-8 are left as they are. What is unfinished
// when the stream ends is discarded by asking no further. Only the caller bounds what is kept.
type SSEDecoder struct {
	// Comments counts the comment lines so far.
	Comments int
	// LastID is the last event id so far: where to resume. It changes only with a dispatch, or
	// with a block that has an id but no data.
	LastID string
	// Retry is the reconnection time that the stream asked for last, if HasRetry.
	Retry    time.Duration
	HasRetry bool

	buffer   []byte
	position int  // of the first byte of buffer that was not read yet
	searched int  // bytes from position on that hold no line end
	started  bool // the place for a byte order mark is past
	afterCR  bool // a LF that comes next belongs to a line that ended already

	id      string // the last event id buffer of the standard
	pending SSEEvent
	data    []byte
	hasData bool
}

var byteOrderMark = []byte{0xEF, 0xBB, 0xBF}

// Feed adds bytes of the stream. They are copied.
func (d *SSEDecoder) Feed(b []byte) {
	if d.position > 0 {
		d.buffer = append(d.buffer[:0], d.buffer[d.position:]...)
		d.position = 0
	}
	d.buffer = append(d.buffer, b...)
}

// Next returns the next whole event, false if more bytes are needed for it.
func (d *SSEDecoder) Next() (SSEEvent, bool) {
	for {
		line, ok := d.line()
		if !ok {
			return SSEEvent{}, false
		}
		if len(line) > 0 {
			d.field(line)
			continue
		}
		if event, ok := d.dispatch(); ok {
			return event, true
		}
	}
}

// line returns the next line without its end, which is LF, CR or CRLF.
func (d *SSEDecoder) line() ([]byte, bool) {
	if !d.started {
		waiting := d.buffer[d.position:]
		if len(waiting) < len(byteOrderMark) && bytes.HasPrefix(byteOrderMark, waiting) {
			return nil, false
		}
		if bytes.HasPrefix(waiting, byteOrderMark) {
			d.position += len(byteOrderMark)
		}
		d.started = true
	}
	if d.afterCR && d.position < len(d.buffer) {
		if d.buffer[d.position] == '\n' {
			d.position++
		}
		d.afterCR = false
	}
	rest := d.buffer[d.position:]
	end := bytes.IndexAny(rest[d.searched:], "\r\n")
	if end < 0 {
		d.searched = len(rest)
		return nil, false
	}
	end += d.searched
	d.searched = 0
	d.afterCR = rest[end] == '\r'
	d.position += end + 1
	return rest[:end], true
}

// field takes one line that is not empty.
func (d *SSEDecoder) field(line []byte) {
	name, value, found := bytes.Cut(line, []byte{':'})
	if found && len(name) == 0 {
		d.Comments++
		return
	}
	value = bytes.TrimPrefix(value, []byte{' '})
	switch string(name) {
	case "event":
		d.pending.Event = string(value)
	case "data":
		d.data = append(append(d.data, value...), '\n')
		d.hasData = true
	case "id":
		if bytes.IndexByte(value, 0) < 0 {
			d.id = string(value)
			d.pending.HasID = true
		}
	case "retry":
		if wait, ok := parseRetry(value); ok {
			d.Retry, d.HasRetry = wait, true
			d.pending.Retry, d.pending.HasRetry = wait, true
		}
	}
}

// parseRetry reads ASCII digits as milliseconds; what time.Duration can't hold is its maximum.
func parseRetry(value []byte) (time.Duration, bool) {
	if len(value) == 0 || skipDigits(value, 0) != len(value) {
		return 0, false
	}
	milliseconds, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil || milliseconds > math.MaxInt64/int64(time.Millisecond) {
		return math.MaxInt64, true
	}
	return time.Duration(milliseconds) * time.Millisecond, true
}

// dispatch ends a block at its empty line.
func (d *SSEDecoder) dispatch() (SSEEvent, bool) {
	d.LastID = d.id
	event := d.pending
	d.pending = SSEEvent{}
	if !d.hasData {
		return SSEEvent{}, false
	}
	event.ID = d.id
	event.Data = string(d.data[:len(d.data)-1])
	if event.Event == "" {
		event.Event = eventMessage
	}
	d.data, d.hasData = d.data[:0], false
	return event, true
}
