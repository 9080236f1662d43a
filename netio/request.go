package netio

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/cloudwego/netpoll"
)

// deskReader is what http.ReadRequest reads from: the bytes of one head, and then those of its
// body, if it has one.
type deskReader struct {
	buffered *bufio.Reader
	head     []byte
	body     *deskBody
}

// deskReaders keeps readers between requests. A buffer is bigger than most heads; a longer one
// takes another round.
var deskReaders = sync.Pool{New: func() any {
	r := &deskReader{}
	r.buffered = bufio.NewReaderSize(r, 2<<10)
	return r
}}

func (r *deskReader) Read(p []byte) (int, error) {
	if len(r.head) > 0 {
		n := copy(p, r.head)
		r.head = r.head[n:]
		return n, nil
	}
	if r.body == nil {
		return 0, io.EOF
	}
	return r.body.fill(p)
}

// recycle gives the reader back. Nobody may use it afterwards.
func (r *deskReader) recycle() {
	r.head, r.body = nil, nil
	r.buffered.Reset(r)
	deskReaders.Put(r)
}

// parse makes a request of a head that the scan has found good. head is only read, and not kept.
// body is nil if the request has none.
func (c *deskConn) parse(head []byte, scan *headScan) (*http.Request, *deskBody, *deskFault) {
	reader := deskReaders.Get().(*deskReader)
	reader.head = head[scan.begin:]
	request, err := http.ReadRequest(reader.buffered)
	reader.head = nil
	if err != nil {
		reader.recycle()
		return nil, nil, faultUnparsable
	}
	request.RemoteAddr = c.remote
	if c.relay.client != "" {
		request.Header["X-Forwarded-For"] = append(request.Header["X-Forwarded-For"], c.relay.client)
	}
	if scan.isAbsolute(head) {
		// One form reaches the handlers. The authority is the Host header, as the scan has seen.
		request.URL = &url.URL{Path: request.URL.Path, RawPath: request.URL.RawPath, RawQuery: request.URL.RawQuery, ForceQuery: request.URL.ForceQuery}
		request.RequestURI = request.URL.RequestURI()
	}
	if !scan.hasBody() {
		reader.recycle()
		return request, nil, nil
	}
	body := &deskBody{
		conn: c, reader: reader, decoded: request.Body,
		expected: scan.contentLength, mustContinue: scan.expectContinue && scan.minor == 1,
	}
	reader.body = body
	request.Body = body
	return request, body, nil
}

// Errors of reading a body.
var (
	errBodyOver     = errors.New("netio: the request is over: its body can no longer be read")
	errBodyNotHere  = errors.New("netio: the rest of the body has not arrived")
	errBodyTimedOut = fmt.Errorf("netio: the request's body did not arrive in time: %w", os.ErrDeadlineExceeded)
)

// deskBody is the body of a request in flight. net/http decodes it (Content-Length or chunked);
// the deskBody feeds net/http and bounds what comes out. It is used by one goroutine at a time.
type deskBody struct {
	conn    *deskConn
	reader  *deskReader
	decoded io.ReadCloser // net/http's

	expected     int64 // bytes still to come if declared, -1 if chunked
	total        int64 // bytes decoded
	deadline     time.Time
	mustContinue bool // the client waits for a 100 (RFC 9110 10.1.1)
	mustNotWait  bool
	done         bool // read to its end
	failure      error
	over         bool
}

// Read reads the decoded body. It fails with an *http.MaxBytesError beyond the desk's bound, and
// with an error that is os.ErrDeadlineExceeded when the body took too long.
func (b *deskBody) Read(p []byte) (int, error) {
	if b.over {
		return 0, errBodyOver
	}
	if b.failure != nil {
		return 0, b.failure
	}
	if b.mustContinue && !b.done {
		b.mustContinue = false
		if err := b.conn.send([]byte("HTTP/1.1 100 Continue\r\n\r\n")); err != nil {
			return 0, b.fail(err)
		}
	}
	n, err := b.decoded.Read(p)
	b.total += int64(n)
	if limit := b.conn.desk.options.MaxBodyBytes; b.total > limit {
		surplus := int(b.total - limit)
		b.conn.desk.counts.refuse(RefusedBodyTooLarge)
		return max(n-surplus, 0), b.fail(&http.MaxBytesError{Limit: limit})
	}
	switch {
	case err == io.EOF:
		b.done = true
	case err != nil:
		return n, b.fail(err)
	}
	return n, err
}

func (b *deskBody) fail(err error) error {
	if b.failure == nil {
		b.failure = err
	}
	return b.failure
}

// Close does nothing: what is left of the body is dealt with after the handler has returned.
func (b *deskBody) Close() error { return nil }

// fill gets raw bytes of the body for net/http, never more than were declared.
func (b *deskBody) fill(p []byte) (n int, err error) {
	if b.expected == 0 {
		return 0, io.EOF
	}
	if b.expected > 0 {
		p = p[:min(int64(len(p)), b.expected)]
	}
	if len(b.conn.input) > 0 {
		n = copy(p, b.conn.input)
		b.conn.input = b.conn.input[n:]
	} else {
		n, err = b.receive(p)
	}
	if b.expected > 0 {
		b.expected -= int64(n)
	}
	return n, err
}

// receive takes bytes from netpoll, waiting for them until the body's deadline. netpoll looks at
// its own deadline when a wait begins, so it has to be set before.
func (b *deskBody) receive(p []byte) (int, error) {
	connection := b.conn.connection
	if connection.Reader().Len() == 0 {
		if b.mustNotWait {
			return 0, errBodyNotHere
		}
		if b.deadline.IsZero() {
			b.deadline = time.Now().Add(b.conn.desk.options.BodyTimeout)
			connection.SetReadDeadline(b.deadline)
		}
	}
	n, err := connection.Read(p)
	b.conn.taken += uint64(n)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, netpoll.ErrReadTimeout):
		b.conn.desk.counts.refuse(RefusedBodySlow)
		return n, errBodyTimedOut
	default:
		return n, io.ErrUnexpectedEOF
	}
}

// end reads what the handler left, as far as it is here already and not much, and says whether
// the body came to its end, so that the next request begins where it should.
func (b *deskBody) end() bool {
	b.mustNotWait = true
	if !b.done && b.failure == nil && !b.mustContinue {
		io.CopyN(io.Discard, b, deskDrainBytesMax)
		if !b.done {
			b.Read(make([]byte, 1)) // CopyN stops before it sees the end
		}
	}
	return b.done
}

// release ends the body's use, and gives back to the connection what was read beyond it.
func (b *deskBody) release() {
	b.over = true
	if n := b.reader.buffered.Buffered(); n > 0 {
		beyond, _ := b.reader.buffered.Peek(n) // cannot fail: that many are buffered
		input := make([]byte, 0, n+len(b.conn.input))
		b.conn.input = append(append(input, beyond...), b.conn.input...)
	}
	if !b.deadline.IsZero() {
		b.conn.connection.SetReadDeadline(time.Time{})
	}
	b.reader.recycle()
}

// handled is what becomes of a connection after a request.
type handled uint8

const (
	handledAborted handled = iota // the handler did not return
	handledKeep                   // the next request may come
	handledClose                  // close
	handledLinger                 // close, but let the client read its answer first
	handledPark                   // it becomes a stream
)

// serve answers one request, and says whether the connection goes on to the next.
func (c *deskConn) serve(request *http.Request, body *deskBody, scan *headScan) bool {
	d := c.desk
	d.counts.requests.Add(1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if !c.begin(cancel, body != nil) {
		return false
	}
	response := newDeskResponse(c, request, body, scan)
	outcome := handledAborted
	defer func() {
		if outcome != handledAborted {
			return
		}
		d.counts.inFlight.Add(-1)
		if response.parked {
			d.abandon(response.guest)
		}
	}()
	handler := d.options.Handler
	if request.RequestURI == "*" {
		handler = http.HandlerFunc(answerOptions)
	}
	if d.counts.inFlight.Add(1) > int64(d.options.MaxInFlight) {
		d.counts.refuse(RefusedOverloaded)
		handler = d.options.Overloaded
	}
	outcome = c.handle(handler, response, request.WithContext(ctx))
	d.counts.inFlight.Add(-1) // before the connection leaves
	if body != nil {
		body.release()
	}
	response.recycle()
	return c.proceed(outcome, response)
}

// begin moves to working. If the client has gone already, the request's context is cancelled.
func (c *deskConn) begin(cancel context.CancelFunc, bodied bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.move(deskWorking, deskWatchEvery) {
		return false
	}
	c.cancel, c.bodied = cancel, bodied
	if c.connection != nil && !c.connection.IsActive() {
		cancel()
	}
	return true
}

// handle runs the handler and sends its answer. A panic of the handler ends here.
func (c *deskConn) handle(handler http.Handler, response *deskResponse, request *http.Request) (outcome handled) {
	returned := false
	defer func() {
		if returned {
			return
		}
		value := recover()
		if value == nil {
			return // runtime.Goexit: netpoll closes the connection
		}
		if response.parked {
			response.parked = false
			c.desk.abandon(response.guest)
		}
		outcome = handledClose
		if value == http.ErrAbortHandler {
			return
		}
		c.desk.panicked("the handler of a request", value)
		if response.failed() {
			outcome = handledLinger
		}
	}()
	handler.ServeHTTP(response, request)
	outcome = response.end()
	returned = true
	return outcome
}

// proceed moves the connection on after a request.
func (c *deskConn) proceed(outcome handled, response *deskResponse) bool {
	if outcome == handledPark {
		c.park(response.guest)
		return false
	}
	if outcome == handledKeep && c.connection != nil && c.connection.Reader().Len() > deskBehindBytesMax {
		c.desk.counts.refuse(RefusedFlood)
		outcome = handledClose
	}
	c.mu.Lock()
	c.cancel = nil
	keep := outcome == handledKeep && c.move(deskIdle, c.desk.options.IdleTimeout)
	c.mu.Unlock()
	if keep && c.connection == nil {
		c.goOn()
		return false
	}
	if keep {
		return true
	}
	c.finish(outcome == handledLinger)
	return false
}
