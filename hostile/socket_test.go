package hostile

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// connection is a TCP connection to the gateway, spoken by hand to say what no library would.
type connection struct {
	*net.TCPConn
	t      testing.TB
	reader *bufio.Reader
}

// dial connects to the public listener, from the host that the world stands on. It is closed at the end
// of the case.
func (w *world) dial() *connection {
	w.Helper()
	c := dialAt(w.T, w.stands, w.gateway.address, nil)
	w.mutex.Lock()
	w.opened = append(w.opened, c)
	w.mutex.Unlock()
	return c
}

// dialAt connects from a host, nil for this one. control, where set, is as in [net.Dialer].
func dialAt(t testing.TB, from *host, address string, control func(network, address string, raw syscall.RawConn) error) *connection {
	t.Helper()
	var c net.Conn
	err := from.inside(func() (err error) {
		c, err = (&net.Dialer{Timeout: patience, Control: control}).Dial("tcp", address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return &connection{TCPConn: c.(*net.TCPConn), t: t, reader: bufio.NewReader(c)}
}

// say writes text. A gateway that has refused already may not take it, which is no failure.
func (c *connection) say(text string) { _, _ = io.WriteString(c.TCPConn, text) }

// reset closes with a RST.
func (c *connection) reset() {
	_ = c.SetLinger(0)
	c.Close()
}

// over reads to the end, and gives what came and whether the end came in time.
func (c *connection) over() (rest []byte, ended bool) {
	rest, err := io.ReadAll(c.reader)
	var late net.Error
	return rest, !(errors.As(err, &late) && late.Timeout())
}

// answer reads one answer and its body.
func (c *connection) answer() (*http.Response, string) {
	c.t.Helper()
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatalf("the answer %s is not whole: %v", response.Status, err)
	}
	return response, string(body)
}

// head writes a request's head: its lines, each with CR LF, and the empty one. HOST stands for the
// gateway's address.
func (w *world) head(lines ...string) string {
	return strings.ReplaceAll(strings.Join(lines, "\r\n")+"\r\n\r\n", "HOST", w.gateway.address)
}

// refused sends text and wants one answer of that status, and then the end: nothing of what
// follows was taken for another request.
func (w *world) refused(name, text string, status int) (response *http.Response, body string) {
	w.Helper()
	c := w.dial()
	defer c.Close()
	c.say(text)
	response, body = c.answer()
	if response.StatusCode != status {
		w.Errorf("%s: answered %d %s, want %d", name, response.StatusCode, body, status)
	}
	if rest, ended := c.over(); !ended || len(rest) > 0 {
		w.Errorf("%s: after the answer came %d bytes (%.80q), ended %v: want the end", name, len(rest), rest, ended)
	}
	return response, body
}

// asked sends a request that asks for its connection to be closed, and gives the answer.
func (w *world) asked(lines ...string) (*http.Response, string) {
	w.Helper()
	c := w.dial()
	defer c.Close()
	c.say(w.head(append(lines, "Host: HOST", "Connection: close")...))
	return c.answer()
}

// sseEvent is one event, or one comment, of an event stream.
type sseEvent struct {
	name, id, data, comment string
}

// stream is an event stream, read by the rules of the WHATWG.
type stream struct {
	*connection
	header http.Header
	body   *bufio.Reader
	lastID string
}

// stream opens an event stream that must be answered with 200.
func (w *world) stream(path string, lines ...string) *stream {
	w.Helper()
	c := w.dial()
	c.say(w.head(append([]string{"GET " + path + " HTTP/1.1", "Host: HOST"}, lines...)...))
	return c.stream()
}

func (c *connection) stream() *stream {
	c.t.Helper()
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/event-stream; charset=utf-8" {
		c.t.Fatalf("the stream was answered with %s %s", response.Status, response.Header.Get("Content-Type"))
	}
	s := newStream(response.Body)
	s.connection, s.header = c, response.Header
	return s
}

func newStream(body io.Reader) *stream { return &stream{body: bufio.NewReader(body)} }

// line reads one line, ended by CR, LF or CR LF.
func (s *stream) line() (string, error) {
	var line []byte
	for {
		b, err := s.body.ReadByte()
		if err != nil {
			return "", err
		}
		switch b {
		case '\n':
			return string(line), nil
		case '\r':
			// Each line of ours ends in LF, so the next byte is there or comes at once.
			if next, err := s.body.Peek(1); err == nil && next[0] == '\n' {
				_, _ = s.body.ReadByte()
			}
			return string(line), nil
		}
		line = append(line, b)
	}
}

// next gives the next event or comment.
func (s *stream) next() (sseEvent, error) {
	e := sseEvent{name: "message"}
	var data []string
	for {
		line, err := s.line()
		if err != nil {
			return sseEvent{}, err
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "" && data != nil:
			e.id, e.data = s.lastID, strings.Join(data, "\n")
			return e, nil
		case line == "":
			e = sseEvent{name: "message"}
		case name == "":
			return sseEvent{comment: value, id: s.lastID}, nil
		case name == "data":
			data = append(data, value)
		case name == "event":
			e.name = value
		case name == "id" && !strings.Contains(value, "\x00"):
			s.lastID = value
		}
	}
}

// await reads on until an event matches, and gives it.
func (s *stream) await(what string, match func(sseEvent) bool) sseEvent {
	s.t.Helper()
	for {
		e, err := s.next()
		if err != nil {
			s.t.Fatalf("the stream did not bring %s: %v", what, err)
		}
		if match(e) {
			return e
		}
	}
}

// live reads up to `connected`.
func (s *stream) live() *stream {
	s.t.Helper()
	s.await("connected", func(e sseEvent) bool { return e.name == "connected" })
	return s
}

// The opcodes of RFC 6455, 5.2, and the bits before them.
const (
	opText, opBinary, opClose, opPing, opPong = 1, 2, 8, 9, 10

	fin, rsv1, rsv2 = 0x80, 0x40, 0x20
)

// socket is a WebSocket.
type socket struct {
	*connection
	header http.Header
}

// handshake is a good WebSocket handshake behind its request line, whose accept key is known.
var handshake = []string{
	"Host: HOST", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
}

const acceptKey = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

// websocket opens a WebSocket, which must be answered with 101.
func (w *world) websocket(path string, lines ...string) *socket {
	w.Helper()
	c := w.dial()
	c.say(w.head(append(append([]string{"GET " + path + " HTTP/1.1"}, handshake...), lines...)...))
	return c.upgraded()
}

func (c *connection) upgraded() *socket {
	c.t.Helper()
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		c.t.Fatalf("no answer to the handshake: %v", err)
	}
	if response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get("Sec-WebSocket-Accept") != acceptKey {
		c.t.Fatalf("the handshake was answered with %s, accept key %q", response.Status, response.Header.Get("Sec-WebSocket-Accept"))
	}
	return &socket{connection: c, header: response.Header}
}

// frame gives a client's frame with a mask of zeros, which RFC 6455 allows.
func frame(first byte, payload string) string {
	head := []byte{first}
	switch length := len(payload); {
	case length < 126:
		head = append(head, 0x80|byte(length))
	case length < 1<<16:
		head = binary.BigEndian.AppendUint16(append(head, 0x80|126), uint16(length))
	default:
		head = binary.BigEndian.AppendUint64(append(head, 0x80|127), uint64(length))
	}
	return string(append(head, 0, 0, 0, 0)) + payload
}

// command sends a JSON command.
func (s *socket) command(text string) { s.say(frame(fin|opText, text)) }

// frame reads one whole frame of the gateway, and answers its pings, so that a socket that is
// read does not count as silent.
func (s *socket) frame() (opcode byte, payload []byte, err error) {
	for {
		opcode, payload, err = s.anyFrame()
		if err != nil || opcode != opPing {
			return opcode, payload, err
		}
		s.say(frame(fin|opPong, string(payload)))
	}
}

// anyFrame reads one whole frame of the gateway, which never sends more than 1 GiB.
func (s *socket) anyFrame() (opcode byte, payload []byte, err error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(s.reader, head); err != nil {
		return 0, nil, err
	}
	length := uint64(head[1] & 0x7f)
	wide := make([]byte, 8)
	switch length {
	case 126:
		_, err = io.ReadFull(s.reader, wide[6:])
		length = binary.BigEndian.Uint64(wide)
	case 127:
		_, err = io.ReadFull(s.reader, wide)
		length = binary.BigEndian.Uint64(wide)
	}
	if err != nil {
		return 0, nil, err
	}
	if head[0]&0x70 != 0 || length > 1<<30 {
		return 0, nil, errors.New("the gateway sent a frame that breaks the protocol")
	}
	payload = make([]byte, length)
	_, err = io.ReadFull(s.reader, payload)
	return head[0] & 0x0f, payload, err
}

// text gives the next text message.
func (s *socket) text() (string, error) {
	for {
		opcode, payload, err := s.frame()
		switch {
		case err != nil:
			return "", err
		case opcode == opClose:
			return "", closedBy(payload)
		case opcode == opText:
			return string(payload), nil
		}
	}
}

// closedError is the gateway's close frame.
type closedError struct {
	code   int
	reason string
}

func (c closedError) Error() string { return "closed: " + c.reason }

func closedBy(payload []byte) closedError {
	if len(payload) < 2 {
		return closedError{code: 1005}
	}
	return closedError{code: int(binary.BigEndian.Uint16(payload)), reason: string(payload[2:])}
}

// said is what the cases read of the gateway's own messages.
type said struct {
	Type, Code, Channel, Reason string
	Ref                         any
	N                           int // of numbered events
	text                        string
}

func parsed(text string) said {
	s := said{text: text}
	_ = json.Unmarshal([]byte(text), &s) // what is not JSON has no type
	return s
}

// await reads on until a message of that type comes, and gives it.
func (s *socket) await(kind string) said {
	s.t.Helper()
	for {
		text, err := s.text()
		if err != nil {
			s.t.Fatalf("the socket did not bring %s: %v", kind, err)
		}
		if one := parsed(text); one.Type == kind {
			return one
		}
	}
}

// reply sends a command and gives the message that answers it: the next that is no event.
func (s *socket) reply(command string) said {
	s.t.Helper()
	s.command(command)
	for {
		text, err := s.text()
		if err != nil {
			s.t.Fatalf("%.80s was not answered: %v", command, err)
		}
		if one := parsed(text); one.Type != "" && one.Type != "connected" {
			return one
		}
	}
}

// wantText wants the next message to be exactly this text.
func (s *socket) wantText(text string) {
	s.t.Helper()
	if got, err := s.text(); err != nil || got != text {
		s.t.Errorf("heard %q (%v), want %q", got, err, text)
	}
}

// closed reads on to the close frame and gives its code, and wants the end of the connection
// behind it and nothing in between.
func (s *socket) closed() closedError {
	s.t.Helper()
	for {
		opcode, payload, err := s.frame()
		if err != nil {
			s.t.Fatalf("the socket ended without a close frame: %v", err)
		}
		if opcode != opClose {
			continue
		}
		if rest, ended := s.over(); !ended || len(rest) > 0 {
			s.t.Errorf("behind the close came %d bytes, ended %v: want the end", len(rest), ended)
		}
		return closedBy(payload)
	}
}

// wantClosed sends bytes and wants to be closed with a code.
func (s *socket) wantClosed(name, bytes string, code int) {
	s.t.Helper()
	s.say(bytes)
	if got := s.closed(); got.code != code {
		s.t.Errorf("%s: closed with %d %q, want %d", name, got.code, got.reason, code)
	}
	s.Close()
}
