package netio

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// deskResponse is the http.ResponseWriter of one request. It holds back up to deskAnswerBytesMax
// of the body, so that most answers have a Content-Length and leave in one write; beyond that, or
// on Flush, it streams: chunked on HTTP/1.1, to the end of the connection on HTTP/1.0. It is an
// http.Flusher and io.StringWriter. Informational answers (1xx) are not sent; trailers are not
// supported. One goroutine at a time may use it.
type deskResponse struct {
	conn    *deskConn
	body    *deskBody // of the request, nil if none
	header  http.Header
	buffers *deskBuffers

	isHead    bool
	minor     int
	keepAlive bool // as far as the request and the handler want it

	status   int   // 0 before WriteHeader
	declared int64 // Content-Length as the handler set it, -1 if it did not
	written  int64 // bytes of the body that the handler wrote
	hasType  bool  // the handler set Content-Type, even to nothing
	hasDate  bool
	sent     bool // the head
	chunked  bool
	failure  error // of a write
	over     bool  // the handler has returned
	parked   bool
	guest    any
}

// deskBuffers are the bytes of an answer on their way.
type deskBuffers struct{ head, body []byte }

var deskBuffersPool = sync.Pool{New: func() any {
	return &deskBuffers{head: make([]byte, 0, 1<<10), body: make([]byte, 0, 2<<10)}
}}

func newDeskResponse(c *deskConn, request *http.Request, body *deskBody, scan *headScan) *deskResponse {
	return &deskResponse{
		conn: c, body: body,
		isHead: scan.isHead, minor: scan.minor, declared: -1,
		// A refused upgrade ends the connection: what its client sent behind the request may be
		// frames, which must not be read as requests.
		keepAlive: !request.Close && !scan.upgrade,
	}
}

// Header returns the header to be sent. Changes after WriteHeader have no effect.
func (w *deskResponse) Header() http.Header {
	if w.header == nil {
		w.header = make(http.Header) // a request that is parked needs none
	}
	return w.header
}

// WriteHeader sets the status and takes the header as it is now. The second call is ignored.
func (w *deskResponse) WriteHeader(status int) {
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("netio: invalid status %d", status))
	}
	if w.status != 0 || status < 200 || w.over || w.parked {
		return
	}
	w.status = status
	w.buffers = deskBuffersPool.Get().(*deskBuffers)
	head := append(w.buffers.head[:0], "HTTP/1.1 "...)
	head = strconv.AppendInt(head, int64(status), 10)
	head = append(head, ' ')
	head = append(head, http.StatusText(status)...)
	head = append(head, "\r\n"...)
	for name, values := range w.header {
		if w.isOwn(name, values) || !isToken([]byte(name)) {
			continue
		}
		for _, value := range values {
			head = append(head, name...)
			head = append(head, ": "...)
			head = appendFieldValue(head, value)
			head = append(head, "\r\n"...)
		}
	}
	w.buffers.head = head
}

// isOwn takes in the headers that say something to the desk itself, and says whether the desk
// writes them rather than the handler.
func (w *deskResponse) isOwn(name string, values []string) bool {
	switch name {
	case "Connection":
		for _, value := range values {
			if strings.EqualFold(strings.TrimSpace(value), "close") {
				w.keepAlive = false
			}
		}
		return true
	case "Transfer-Encoding", "Keep-Alive":
		return true
	case "Content-Length":
		if length, ok := parseLength([]byte(strings.Join(values, ","))); ok && w.mayHaveBody() {
			w.declared = length
		}
		return true
	case "Content-Type":
		w.hasType = true
	case "Date":
		w.hasDate = true
	}
	return false
}

// appendFieldValue writes a value without what could end its line.
func appendFieldValue(head []byte, value string) []byte {
	if strings.IndexFunc(value, isControl) < 0 {
		return append(head, value...)
	}
	for i := range len(value) {
		b := value[i]
		if isControl(rune(b)) {
			b = ' '
		}
		head = append(head, b)
	}
	return head
}

func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// mayHaveBody says whether the status allows a body (RFC 9110 6.4.1).
func (w *deskResponse) mayHaveBody() bool {
	return w.status >= 200 && w.status != http.StatusNoContent && w.status != http.StatusNotModified
}

// Write takes bytes of the body, after WriteHeader(200) if there was none. It fails when the
// client is gone or too slow, with http.ErrBodyNotAllowed or http.ErrContentLength, and after the
// handler has returned or parked the request with http.ErrHijacked.
func (w *deskResponse) Write(p []byte) (int, error) {
	return w.write(len(p), p, "")
}

// WriteString is Write.
func (w *deskResponse) WriteString(s string) (int, error) {
	return w.write(len(s), nil, s)
}

// write takes p or, if it is nil, s.
func (w *deskResponse) write(n int, p []byte, s string) (int, error) {
	if w.over || w.parked {
		return 0, http.ErrHijacked
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	switch {
	case w.failure != nil:
		return 0, w.failure
	case n == 0:
		return 0, nil
	case !w.mayHaveBody():
		return 0, http.ErrBodyNotAllowed
	case w.declared >= 0 && w.written+int64(n) > w.declared:
		return 0, http.ErrContentLength
	}
	w.written += int64(n)
	if w.isHead {
		if !w.sent {
			w.sniff(p, s)
		}
		return n, nil
	}
	if len(w.buffers.body)+n <= deskAnswerBytesMax {
		w.buffers.body = append(append(w.buffers.body, p...), s...)
		return n, nil
	}
	if p == nil {
		p = []byte(s)
	}
	return n, w.stream(p)
}

// stream sends what was held back, and p.
func (w *deskResponse) stream(p []byte) error {
	if !w.sent {
		w.sniff(w.buffers.body, "")
		w.sniff(p, "")
		w.sendHead(false)
	}
	w.sendPart(w.buffers.body)
	w.buffers.body = w.buffers.body[:0]
	for len(p) > 0 && w.failure == nil {
		part := p[:min(len(p), deskAnswerBytesMax)]
		w.sendPart(part)
		p = p[len(part):]
	}
	return w.failure
}

// sendPart sends a part of the body, as a chunk if that is how it goes (RFC 9112 7.1).
func (w *deskResponse) sendPart(part []byte) {
	if len(part) == 0 || w.isHead {
		return
	}
	if !w.chunked {
		w.send(part)
		return
	}
	head := strconv.AppendInt(w.buffers.head[:0], int64(len(part)), 16)
	w.buffers.head = append(head, "\r\n"...)
	w.send(w.buffers.head)
	w.send(part)
	w.send([]byte("\r\n"))
}

func (w *deskResponse) send(p []byte) {
	if w.failure == nil {
		w.failure = w.conn.send(p)
	}
}

// Flush sends what was held back, and turns the answer to streaming.
func (w *deskResponse) Flush() {
	if w.over || w.parked {
		return
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.failure == nil {
		w.stream(nil)
	}
}

// sniff sets the Content-Type from the body's first bytes, as net/http does.
func (w *deskResponse) sniff(p []byte, s string) {
	if w.hasType || len(p)+len(s) == 0 {
		return
	}
	w.hasType = true
	if p == nil {
		p = []byte(s[:min(len(s), 512)])
	}
	w.buffers.head = append(w.buffers.head, "Content-Type: "...)
	w.buffers.head = append(w.buffers.head, http.DetectContentType(p)...)
	w.buffers.head = append(w.buffers.head, "\r\n"...)
}

// sendHead completes the head, and sends it, together with the body if that is whole.
func (w *deskResponse) sendHead(whole bool) {
	w.sent = true
	head := w.buffers.head
	if !w.hasDate {
		head = append(head, "Date: "...)
		head = append(head, httpDate(time.Now())...)
		head = append(head, "\r\n"...)
	}
	switch {
	case !w.mayHaveBody():
	case w.declared >= 0:
		head = appendContentLength(head, w.declared)
	case whole && (!w.isHead || w.written > 0):
		head = appendContentLength(head, w.written)
	case whole: // HEAD, and the handler did not tell
	case w.minor >= 1:
		w.chunked = !w.isHead
		head = append(head, "Transfer-Encoding: chunked\r\n"...)
	default:
		w.keepAlive = false // HTTP/1.0: the end of the connection is the end of the body
	}
	w.keepAlive = w.keepAlive && w.discard() && !w.conn.desk.ending.Load()
	switch {
	case !w.keepAlive:
		head = append(head, "Connection: close\r\n"...)
	case w.minor == 0:
		head = append(head, "Connection: keep-alive\r\n"...)
	}
	head = append(head, "\r\n"...)
	if whole {
		head = append(head, w.buffers.body...)
	}
	w.buffers.head = head
	w.send(head)
}

func appendContentLength(head []byte, length int64) []byte {
	head = append(head, "Content-Length: "...)
	head = strconv.AppendInt(head, length, 10)
	return append(head, "\r\n"...)
}

// discard deals with what the handler has left of the request's body, and says whether the next
// request can be found behind it. A handler that streams its answer may still be reading.
func (w *deskResponse) discard() bool {
	if w.body == nil || w.body.done {
		return true
	}
	return w.over && w.body.end()
}

// end completes the answer after the handler has returned.
func (w *deskResponse) end() handled {
	if w.parked {
		w.over = true
		if w.body == nil || w.body.end() {
			return handledPark
		}
		// The rest of the body would be taken for the stream's first bytes.
		w.parked = false
		w.conn.desk.abandon(w.guest)
		w.conn.send(faultAnswer(faultBodyNotAsked, false))
		return handledLinger
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.over = true
	if !w.sent {
		w.sniff(w.buffers.body, "")
		w.sendHead(true)
	} else {
		w.sendPart(w.buffers.body)
		if w.chunked {
			w.send([]byte("0\r\n\r\n"))
		}
	}
	short := w.declared >= 0 && w.written < w.declared && !w.isHead
	switch {
	case w.failure != nil || short:
		return handledClose
	case w.keepAlive:
		return handledKeep
	case w.body != nil && !w.body.done, w.conn.hasBehind():
		return handledLinger
	}
	return handledClose
}

// failed answers 500 after a panic, if nothing has been sent yet, and says whether it did.
func (w *deskResponse) failed() bool {
	w.over = true
	if w.sent || w.failure != nil {
		return false
	}
	return w.conn.send(faultAnswer(faultPanic, w.isHead)) == nil
}

// recycle gives the buffers back.
func (w *deskResponse) recycle() {
	w.over = true
	buffers := w.buffers
	w.buffers = nil
	if buffers == nil {
		return
	}
	buffers.head, buffers.body = buffers.head[:0], buffers.body[:0]
	deskBuffersPool.Put(buffers)
}

var faultPanic = &deskFault{http.StatusInternalServerError, "internal_error", "the server failed to answer this request", RefusedPanic}

// faultAnswer is a whole answer that closes the connection.
func faultAnswer(fault *deskFault, isHead bool) []byte {
	body := `{"error":{"code":"` + fault.code + `","message":"` + fault.message + `"}}` + "\n"
	head := "HTTP/1.1 " + strconv.Itoa(fault.status) + " " + http.StatusText(fault.status) +
		"\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nDate: " + httpDate(time.Now()) +
		"\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\nConnection: close\r\n\r\n"
	if isHead {
		body = ""
	}
	return []byte(head + body)
}

// answerOverloaded is what DeskOptions.Overloaded is by default.
func answerOverloaded(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Retry-After", deskRetryAfterSeconds)
	w.WriteHeader(http.StatusServiceUnavailable)
	w.Write([]byte(`{"error":{"code":"overloaded","message":"the server is working on as many requests as it takes; try again"}}` + "\n"))
}

// answerOptions answers "OPTIONS *", which asks about the server as a whole (RFC 9110 9.3.7) and
// which no path of a handler matches.
func answerOptions(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Allow", "GET, HEAD, POST, OPTIONS")
	w.WriteHeader(http.StatusNoContent)
}

// deskDate is the Date header of one second.
type deskDate struct {
	second int64
	text   string
}

var lastDate atomic.Pointer[deskDate]

// httpDate formats a time as RFC 9110 5.6.7 wants it, once a second.
func httpDate(now time.Time) string {
	if last := lastDate.Load(); last != nil && last.second == now.Unix() {
		return last.text
	}
	made := &deskDate{now.Unix(), now.UTC().Format(http.TimeFormat)}
	lastDate.Store(made)
	return made.text
}

// errSlowReader is what a handler's Write gives when the client does not read.
var errSlowReader = errors.New("netio: the client is too slow in reading the answer")

// sendPauseMin and sendPauseMax bound how long a task waits before it tries a full socket again.
const (
	sendPauseMin = time.Millisecond
	sendPauseMax = 50 * time.Millisecond
)

// send writes p to the socket from the connection's task. Most answers fit into the kernel's
// buffer at once. For one that does not, send looks again at growing intervals, for WriteTimeout at
// most: netpoll would wake it, but gives up on a client that has closed its sending half and is
// still reading.
func (c *deskConn) send(p []byte) error {
	var deadline time.Time
	pause := sendPauseMin
	for len(p) > 0 {
		n, errno := sendBytes(c.fd, p)
		switch errno {
		case 0:
			p = p[n:]
			pause = sendPauseMin
			continue
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
		default:
			c.broken = true
			return fmt.Errorf("netio: send the answer: %w", errno)
		}
		now := time.Now()
		if deadline.IsZero() {
			deadline = now.Add(c.desk.options.WriteTimeout)
		}
		if now.After(deadline) {
			c.broken = true
			c.desk.counts.refuse(RefusedSlowReader)
			return errSlowReader
		}
		time.Sleep(pause)
		pause = min(2*pause, sendPauseMax)
	}
	return nil
}

// sendNow writes what the kernel takes at once. Called with mu held and the phase not closed.
func (c *deskConn) sendNow(p []byte) { sendBytes(c.fd, p) }

// sendBytes wraps sendto(2) on a non-blocking socket; a client that is gone is no signal.
func sendBytes(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)),
		syscall.MSG_NOSIGNAL|syscall.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
