package proto

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// eventMessage is the name of events that have no name of their own; EventSource takes it where
// there is no event line, so none is written.
const eventMessage = "message"

const (
	dataLine    = "data: "
	dataBreak   = "\n" + dataLine
	idLine      = "id: "
	eventLine   = "event: "
	commentLine = ": "
	retryLine   = "retry: "
)

// AppendSSE appends one event of an event stream (WHATWG HTML, 9.2.5) for who takes events in form:
// for FormSSE and what else is chunked as one whole HTTP/1.1 chunk (RFC 9112, 7.1), for FormSSEPlain
// as it is, for a gzip form as text. A WebSocket's form is a mistake of the caller.
//
// Every CR, LF and CRLF of data starts a new data line, so that the receiver has data again with
// line ends as LF; empty data arrives as an empty string. An empty id writes no id line: the
// receiver keeps the id that it had. The event "message" and the empty one write no event line.
//
// An id or event that holds CR, LF or NUL cannot be said in an event stream, and a changed id
// would be another position: such a field is left out whole, the event itself is sent. (NewEvent
// refuses such an id before.)
func AppendSSE(dst []byte, form Form, event, id string, data []byte) []byte {
	if event == eventMessage || !sayable(event) {
		event = ""
	}
	if !sayable(id) {
		id = ""
	}
	size := len(dataLine) + len(data) + 2
	if id != "" {
		size += len(idLine) + len(id) + 1
	}
	if event != "" {
		size += len(eventLine) + len(event) + 1
	}
	// JSON mostly comes in one line; then two searches are all that data costs.
	broken := bytes.IndexByte(data, '\n') >= 0 || bytes.IndexByte(data, '\r') >= 0
	if broken {
		size += breaksGrowth(data)
	}
	form = forms[form].own
	dst = appendChunkHead(dst, form, size)
	if id != "" {
		dst = append(dst, idLine...)
		dst = append(dst, id...)
		dst = append(dst, '\n')
	}
	if event != "" {
		dst = append(dst, eventLine...)
		dst = append(dst, event...)
		dst = append(dst, '\n')
	}
	dst = append(dst, dataLine...)
	if broken {
		dst = appendBroken(dst, data)
	} else {
		dst = append(dst, data...)
	}
	dst = append(dst, '\n', '\n')
	return appendChunkTail(dst, form)
}

func sayable(field string) bool { return !strings.ContainsAny(field, "\r\n\x00") }

// breaksGrowth returns by how many bytes data grows when it is cut into lines.
func breaksGrowth(data []byte) int {
	growth := 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '\r':
			if i+1 < len(data) && data[i+1] == '\n' {
				i++
				growth--
			}
			growth += len(dataBreak) - 1
		case '\n':
			growth += len(dataBreak) - 1
		}
	}
	return growth
}

// appendBroken appends data with every CR, LF and CRLF turned into the start of a new data line.
func appendBroken(dst, data []byte) []byte {
	start := 0
	for i := 0; i < len(data); i++ {
		if data[i] != '\r' && data[i] != '\n' {
			continue
		}
		dst = append(dst, data[start:i]...)
		dst = append(dst, dataBreak...)
		if data[i] == '\r' && i+1 < len(data) && data[i+1] == '\n' {
			i++
		}
		start = i + 1
	}
	return append(dst, data[start:]...)
}

// appendChunkHead makes room for a body of size bytes and its chunk, and appends the chunk's head.
func appendChunkHead(dst []byte, form Form, size int) []byte {
	dst = grow(dst, size+chunkOverhead(form, size))
	if form != FormSSE {
		return dst
	}
	dst = strconv.AppendUint(dst, uint64(size), 16)
	return append(dst, '\r', '\n')
}

func chunkOverhead(form Form, size int) int {
	if form != FormSSE {
		return 0
	}
	digits := 1
	for size >>= 4; size > 0; size >>= 4 {
		digits++
	}
	return digits + 2 + 2
}

func appendChunkTail(dst []byte, form Form) []byte {
	if form != FormSSE {
		return dst
	}
	return append(dst, '\r', '\n')
}

// AppendSSEComment appends a comment, which a receiver ignores: it keeps proxies from timing
// out, and changes no id. A CR, LF or NUL in comment becomes a space.
func AppendSSEComment(dst []byte, form Form, comment string) []byte {
	form = forms[form].own
	dst = appendChunkHead(dst, form, len(commentLine)+len(comment)+2)
	dst = append(dst, commentLine...)
	for i := range len(comment) {
		c := comment[i]
		if c == '\r' || c == '\n' || c == 0 {
			c = ' '
		}
		dst = append(dst, c)
	}
	dst = append(dst, '\n', '\n')
	return appendChunkTail(dst, form)
}

// AppendSSERetry appends how long the receiver shall wait before it connects again, in whole
// milliseconds; a negative wait is none.
func AppendSSERetry(dst []byte, form Form, wait time.Duration) []byte {
	var room [20]byte
	digits := strconv.AppendInt(room[:0], max(wait.Milliseconds(), 0), 10)
	form = forms[form].own
	dst = appendChunkHead(dst, form, len(retryLine)+len(digits)+2)
	dst = append(dst, retryLine...)
	dst = append(dst, digits...)
	dst = append(dst, '\n', '\n')
	return appendChunkTail(dst, form)
}

// AppendSSEHead appends the head of the answer that starts an event stream. Over HTTP/1.1 the
// body is chunked; over HTTP/1.0 it ends when the connection does. extra, which may be nil, are
// more header lines (CORS), each with its CR LF.
func AppendSSEHead(dst []byte, http11 bool, extra []byte) []byte {
	if http11 {
		dst = append(dst, "HTTP/1.1 200 OK\r\n"...)
	} else {
		dst = append(dst, "HTTP/1.0 200 OK\r\n"...)
	}
	dst = append(dst, "Content-Type: text/event-stream; charset=utf-8\r\n"+
		"Cache-Control: no-store, no-transform\r\n"+
		"X-Accel-Buffering: no\r\n"...)
	if http11 {
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	} else {
		dst = append(dst, "Connection: close\r\n"...)
	}
	dst = append(dst, extra...)
	return append(dst, '\r', '\n')
}

// AppendSSEEnd appends what ends an event stream in order: for one in chunks the last, empty chunk
// (RFC 9112, 7.1), else nothing, since there the end of the connection is the end. A gzip stream is
// ended by [AppendGzipEnd].
func AppendSSEEnd(dst []byte, form Form) []byte {
	if forms[form].own != FormSSE {
		return dst
	}
	return append(dst, "0\r\n\r\n"...)
}
