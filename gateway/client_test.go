package gateway_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/proto"
	"github.com/millrace/millrace/proto/deflate"
)

// wire is one way for a stream to come; end-to-end cases run on all of them.
type wire struct {
	name      string
	websocket bool
	envelope  bool
	version   string // of HTTP
	zipped    bool   // SSE: as a gzip stream; WebSocket: with permessage-deflate
}

// isRaw says whether events come as they were published.
func (w wire) isRaw() bool { return w.websocket && !w.envelope }

var (
	sse               = wire{name: "SSE", version: "1.1"}
	sse10             = wire{name: "SSE on HTTP 1.0", version: "1.0"}
	raw               = wire{name: "WebSocket", websocket: true, version: "1.1"}
	enveloped         = wire{name: "WebSocket envelope", websocket: true, envelope: true, version: "1.1"}
	sseGzip           = wire{name: "SSE gzip", version: "1.1", zipped: true}
	sse10Gzip         = wire{name: "SSE gzip on HTTP 1.0", version: "1.0", zipped: true}
	deflated          = wire{name: "WebSocket deflate", websocket: true, version: "1.1", zipped: true}
	envelopedDeflated = wire{name: "WebSocket deflate envelope", websocket: true, envelope: true, version: "1.1", zipped: true}
	sseWires          = []wire{sse, sse10, sseGzip, sse10Gzip}
	webSockets        = []wire{raw, enveloped, deflated, envelopedDeflated}
	everyWire         = slices.Concat(sseWires, webSockets)
)

func onEvery(t *testing.T, wires []wire, test func(t *testing.T, w wire)) {
	t.Helper()
	for _, w := range wires {
		t.Run(w.name, func(t *testing.T) { test(t, w) })
	}
}

// visit is how a client comes.
type visit struct {
	channels []string // SSE: in the query; WebSocket: by a command, once connected
	query    string   // more of the query, as in "userId=1"
	header   []string // lines without their ends
	buffer   int      // SO_RCVBUF, where a small one is wanted
}

// request is the whole request of a visit.
func (w wire) request(v visit) string {
	query := v.query
	add := func(text string) {
		if query != "" {
			query += "&"
		}
		query += text
	}
	target := "/api/stream"
	if w.websocket {
		target = "/ws"
		if w.envelope {
			add("format=envelope")
		}
	} else {
		for _, channel := range v.channels {
			add("channel=" + url.QueryEscape(channel))
		}
	}
	if query != "" {
		target += "?" + query
	}
	if w.zipped {
		header := "Accept-Encoding: gzip"
		if w.websocket {
			header = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
		}
		v.header = append(v.header[:len(v.header):len(v.header)], header)
	}
	if w.websocket {
		return handshake(target, v.header...)
	}
	return strings.Replace(get(target, v.header...), "HTTP/1.1", "HTTP/"+w.version, 1)
}

// heardKind is what sort of thing a client heard.
type heardKind string

const (
	heardEvent   heardKind = "event"   // published by somebody
	heardWord    heardKind = "word"    // the gateway's own
	heardPing    heardKind = "ping"    // a frame
	heardPong    heardKind = "pong"    // a frame
	heardComment heardKind = "comment" // of an event stream
	heardClose   heardKind = "close"   // a close frame
	heardEnd     heardKind = "end"     // the orderly end of a body, or of a socket after its close frame
	heardCut     heardKind = "cut"     // the end without either
	heardNothing heardKind = "nothing" // in time
)

// heard is one thing that a client heard.
type heard struct {
	kind    heardKind
	name    string // of a word its type; of an event of an event stream its name
	channel string // of an event where the wire tells it
	id      string
	text    string // of an event its payload; of a word its JSON; of a close its reason
	code    proto.CloseCode
}

// String is short enough for the message of a failed test.
func (h heard) String() string {
	switch h.kind {
	case heardClose:
		return fmt.Sprintf("[close %d %q]", h.code, h.text)
	case heardEvent, heardWord:
		return fmt.Sprintf("[%s %s id=%q channel=%q %.300s]", h.kind, h.name, h.id, h.channel, h.text)
	default:
		return fmt.Sprintf("[%s %.100s]", h.kind, h.text)
	}
}

// field gives a member of a word's JSON as text, or "".
func (h heard) field(name string) string {
	var members map[string]any
	if json.Unmarshal([]byte(h.text), &members) != nil || members[name] == nil {
		return ""
	}
	return fmt.Sprint(members[name])
}

// stream is a client with an open stream. It belongs to one goroutine.
type stream struct {
	wire     wire
	conn     *net.TCPConn
	reader   *bufio.Reader
	response *http.Response
	unzipped *unzipped // of a gzip stream

	decoder  proto.SSEDecoder
	comments int
	messages proto.MessageReader
	rest     []byte
	room     []byte
	closed   bool    // the close frame came
	held     []heard // came before an answer that was waited for

	clientID, user string
	channels       []string // told by connected
}

// knock sends a visit's request and reads the head of the answer. What a test does not close is
// closed when it ends.
func (h *house) knock(t testing.TB, w wire, v visit) *stream {
	t.Helper()
	conn := dial(t, h.address)
	t.Cleanup(func() { conn.Close() })
	if v.buffer > 0 {
		if err := conn.SetReadBuffer(v.buffer); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(conn, h.raw(w.request(v))); err != nil {
		t.Fatal(err)
	}
	return hear(t, w, conn)
}

// hear reads the head of an answer that is on its way.
func hear(t testing.TB, w wire, conn *net.TCPConn) *stream {
	t.Helper()
	s := &stream{wire: w, conn: conn, reader: bufio.NewReader(conn), room: make([]byte, 16<<10)}
	s.messages.ClientSide = true
	var err error
	if s.response, err = http.ReadResponse(s.reader, &http.Request{Method: "GET"}); err != nil {
		t.Fatalf("no answer on %s: %v", w.name, err)
	}
	switch {
	case s.response.Header.Get("Content-Encoding") == "gzip":
		s.unzipped = unzip(t, s)
	case s.response.Header.Get("Sec-WebSocket-Extensions") != "":
		s.messages.Inflater = &deflate.Inflater{}
	}
	return s
}

// open opens a stream and subscribes it; when it returns everything published on its channels
// must arrive.
func (h *house) open(t testing.TB, w wire, v visit) *stream {
	t.Helper()
	s := h.knock(t, w, v)
	s.wantOpen(t)
	s.greeted(t)
	if w.websocket && len(v.channels) > 0 {
		s.subscribe(t, v.channels...)
	}
	return s
}

// wantOpen checks the head of a good answer: it is compressed as asked for.
func (s *stream) wantOpen(t testing.TB) {
	t.Helper()
	s.wantStatus(t)
	if compressed := s.unzipped != nil || s.messages.Inflater != nil; compressed != s.wire.zipped {
		t.Fatalf("%s was answered with %v", s.wire.name, s.response.Header)
	}
}

// wantStatus checks the status of a good answer.
func (s *stream) wantStatus(t testing.TB) {
	t.Helper()
	status := http.StatusOK
	if s.wire.websocket {
		status = http.StatusSwitchingProtocols
	}
	if s.response.StatusCode != status {
		body, _ := io.ReadAll(s.response.Body)
		t.Fatalf("%s answered %d, want %d: %s", s.wire.name, s.response.StatusCode, status, body)
	}
}

// greeted takes the greeting, which must be next.
func (s *stream) greeted(t testing.TB) {
	t.Helper()
	greeting := s.word(t, "connected")
	var told struct {
		ClientID, UserID string
		Channels         []string
	}
	if err := json.Unmarshal([]byte(greeting.text), &told); err != nil || told.ClientID == "" {
		t.Fatalf("the greeting is %s (%v)", greeting.text, err)
	}
	s.clientID, s.user, s.channels = told.ClientID, told.UserID, told.Channels
}

// next gives the next thing heard, whatever it is.
func (s *stream) next(limit time.Duration) heard {
	var h heard
	if len(s.held) > 0 {
		h, s.held = s.held[0], s.held[1:]
		return h
	}
	var err error
	if s.wire.websocket {
		h, err = s.nextMessage(limit)
	} else {
		h, err = s.nextEvent(limit)
	}
	var slow net.Error
	switch {
	case err == nil:
		return h
	case errors.As(err, &slow) && slow.Timeout():
		return heard{kind: heardNothing}
	case errors.Is(err, io.EOF) && (s.closed || !s.wire.websocket):
		return heard{kind: heardEnd}
	default:
		return heard{kind: heardCut, text: err.Error()}
	}
}

// nextEvent reads an event stream. io.EOF is its orderly end.
func (s *stream) nextEvent(limit time.Duration) (heard, error) {
	for {
		event, ok := s.decoder.Next()
		switch {
		case ok && proto.Reserved(event.Event) && event.Event != "message":
			return heard{kind: heardWord, name: event.Event, id: event.ID, text: event.Data}, nil
		case ok:
			h := heard{kind: heardEvent, name: event.Event, text: event.Data}
			if event.HasID {
				h.id = event.ID
			}
			return h, nil
		case s.decoder.Comments > s.comments:
			s.comments++
			return heard{kind: heardComment, id: s.decoder.LastID}, nil
		}
		n, err := s.readBody(limit)
		s.decoder.Feed(s.room[:n])
		if n == 0 && err != nil {
			return heard{}, err
		}
	}
}

// nextMessage reads a WebSocket.
func (s *stream) nextMessage(limit time.Duration) (heard, error) {
	for {
		message, rest, err := s.messages.Next(s.rest, 0)
		if err != nil {
			return heard{}, fmt.Errorf("the gateway broke the protocol: %w", err)
		}
		s.rest = rest
		switch message.Op {
		case proto.OpText:
			return s.understand(string(message.Data))
		case proto.OpClose:
			s.closed = true
			return heard{kind: heardClose, code: message.Code, text: string(message.Data)}, nil
		case proto.OpPing:
			return heard{kind: heardPing, text: string(message.Data)}, nil
		case proto.OpPong:
			return heard{kind: heardPong, text: string(message.Data)}, nil
		case proto.OpContinuation:
			_ = s.conn.SetReadDeadline(time.Now().Add(limit))
			n, err := s.reader.Read(s.room)
			if n == 0 && err != nil {
				return heard{}, err
			}
			s.rest = s.room[:n]
		default:
			return heard{}, fmt.Errorf("a %v frame came", message.Op)
		}
	}
}

// understand tells the gateway's own words from events, raw and in envelopes.
func (s *stream) understand(text string) (heard, error) {
	if s.wire.isRaw() && !strings.Contains(text, `type"`) {
		return heard{kind: heardEvent, text: text}, nil
	}
	var told struct {
		Type, Channel, ID string
		Data              json.RawMessage
	}
	isObject := json.Unmarshal([]byte(text), &told) == nil && strings.HasPrefix(text, "{")
	switch {
	case isObject && told.Type == "event":
		return heard{kind: heardEvent, channel: told.Channel, id: told.ID, text: string(told.Data)}, nil
	case isObject && proto.Reserved(told.Type):
		return heard{kind: heardWord, name: told.Type, id: told.ID, text: text}, nil
	case s.wire.envelope:
		return heard{}, fmt.Errorf("an event came without an envelope: %s", text)
	default:
		return heard{kind: heardEvent, text: text}, nil
	}
}

// until passes over what does not match, and gives what does.
func (s *stream) until(t testing.TB, what string, match func(heard) bool) heard {
	t.Helper()
	var before []string
	for deadline := time.Now().Add(patience); ; {
		h := s.next(max(time.Until(deadline), time.Millisecond))
		if match(h) {
			return h
		}
		if h.kind == heardNothing || h.kind == heardEnd || h.kind == heardCut {
			t.Fatalf("%s did not hear %s; it heard %s, then %v", s.wire.name, what, strings.Join(before, " "), h)
		}
		if len(before) < 20 {
			before = append(before, h.String())
		}
	}
}

// said gives the next event, word or end; frames and comments that keep a stream alive don't count.
func (s *stream) said(t testing.TB) heard {
	t.Helper()
	return s.until(t, "anything", func(h heard) bool {
		return h.kind != heardPing && h.kind != heardPong && h.kind != heardComment && h.kind != heardNothing
	})
}

// event takes the next event, which must be this one.
func (s *stream) event(t testing.TB, payload string) heard {
	t.Helper()
	h := s.said(t)
	if h.kind != heardEvent || h.text != payload {
		t.Fatalf("%s heard %v, want the event %s", s.wire.name, h, payload)
	}
	return h
}

// word takes the next thing said, which must be the gateway's own of that name.
func (s *stream) word(t testing.TB, name string) heard {
	t.Helper()
	h := s.said(t)
	if h.kind != heardWord || h.name != name {
		t.Fatalf("%s heard %v, want %s", s.wire.name, h, name)
	}
	return h
}

// wordWith is word with fields that it must have, as "name=value".
func (s *stream) wordWith(t testing.TB, name string, fields ...string) heard {
	t.Helper()
	h := s.word(t, name)
	for _, field := range fields {
		key, value, _ := strings.Cut(field, "=")
		if got := h.field(key); got != value {
			t.Errorf("%s: %s is %q in %s, want %q", s.wire.name, key, got, h.text, value)
		}
	}
	return h
}

// ends takes the orderly end of an event stream, or a WebSocket's close with this code and
// reason and then the end of the connection. Nothing may come after it.
func (s *stream) ends(t testing.TB, code proto.CloseCode, reason string) {
	t.Helper()
	h := s.said(t)
	if s.wire.websocket {
		if h.kind != heardClose || h.code != code || h.text != reason {
			t.Fatalf("%s heard %v, want the close %d %q", s.wire.name, h, code, reason)
		}
		h = s.said(t)
	}
	if h.kind != heardEnd {
		t.Fatalf("%s heard %v, want the orderly end", s.wire.name, h)
	}
	s.conn.Close()
}

// mask is as good as any other on loopback.
var mask = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// send sends bytes as they are.
func (s *stream) send(t testing.TB, bytes []byte) {
	t.Helper()
	// Each write has a deadline of its own: on a slow machine a stream outlives the one of its handshake.
	_ = s.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := s.conn.Write(bytes); err != nil {
		t.Fatalf("%s cannot send: %v", s.wire.name, err)
	}
}

// readBody reads a part of an event stream into room.
func (s *stream) readBody(limit time.Duration) (int, error) {
	if s.unzipped != nil {
		return s.unzipped.read(s.room, limit)
	}
	_ = s.conn.SetReadDeadline(time.Now().Add(limit))
	return s.response.Body.Read(s.room)
}

func masked(opcode proto.Opcode, payload string) []byte {
	return proto.AppendMaskedFrame(nil, opcode, []byte(payload), mask)
}

// command sends one command.
func (s *stream) command(t testing.TB, text string) {
	t.Helper()
	if payload, shorter := deflate.AppendMessage(nil, []byte(text)); shorter && s.messages.Inflater != nil {
		frame := masked(proto.OpText, string(payload))
		frame[0] |= 0x40 // RFC 7692, 6: RSV1
		s.send(t, frame)
		return
	}
	s.send(t, masked(proto.OpText, text))
}

func (s *stream) subscribe(t testing.TB, channels ...string) {
	t.Helper()
	command, err := json.Marshal(map[string]any{"type": "subscribe", "channels": channels})
	if err != nil {
		t.Fatal(err)
	}
	s.command(t, string(command))
	waiting := make(map[string]int)
	for _, channel := range channels {
		waiting[channel]++
	}
	var between []heard  // what a subscription begins with comes right behind its answer
	for range channels { // confirmed in any order
		answer := s.until(t, "subscribed", func(h heard) bool {
			if h.name != "subscribed" {
				between = append(between, h)
			}
			return h.name == "subscribed"
		})
		waiting[answer.field("channel")]--
	}
	s.held = between
	for channel, count := range waiting {
		if count != 0 {
			t.Fatalf("%s was not subscribed to %s as often as it asked", s.wire.name, channel)
		}
	}
}

// alive shows that nothing else came before: the next thing said is a pong to a ping of now.
func (s *stream) alive(t testing.TB) {
	t.Helper()
	s.command(t, `{"type":"ping","ref":"alive"}`)
	s.wordWith(t, "pong", "ref=alive")
}
