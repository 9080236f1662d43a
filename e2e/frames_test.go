package e2e

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// socket is a WebSocket spoken by hand, to say what no library would.
type socket struct {
	net.Conn
	reader *bufio.Reader
}

func upgrade(t *testing.T, address string) *socket {
	t.Helper()
	connection, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	_ = connection.SetDeadline(time.Now().Add(patience))
	request := strings.ReplaceAll("GET /ws HTTP/1.1\nHost: "+address+"\n"+upgradeHead+"\n", "\n", "\r\n")
	if _, err := io.WriteString(connection, request); err != nil {
		t.Fatal(err)
	}
	s := &socket{connection, bufio.NewReader(connection)}
	response, err := http.ReadResponse(s.reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("the handshake was answered with %d, accept %q", response.StatusCode, response.Header.Get("Sec-WebSocket-Accept"))
	}
	return s
}

// frame reads one whole frame of the server.
func (s *socket) frame() (opcode byte, payload []byte, err error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(s.reader, head); err != nil {
		return 0, nil, err
	}
	length := int(head[1] & 0x7f)
	switch length {
	case 126:
		var wide [2]byte
		_, err = io.ReadFull(s.reader, wide[:])
		length = int(binary.BigEndian.Uint16(wide[:]))
	case 127:
		var wide [8]byte
		_, err = io.ReadFull(s.reader, wide[:])
		length = int(binary.BigEndian.Uint64(wide[:]))
	}
	if err != nil {
		return 0, nil, err
	}
	payload = make([]byte, length)
	_, err = io.ReadFull(s.reader, payload)
	return head[0] & 0x0f, payload, err
}

// closed reads on to the server's close frame and gives its code, and then wants the end.
func (s *socket) closed(t *testing.T) int {
	t.Helper()
	for {
		opcode, payload, err := s.frame()
		if err != nil {
			t.Fatalf("the connection ended without a close frame: %v", err)
		}
		if opcode != 8 {
			continue
		}
		if len(payload) < 2 {
			t.Fatalf("the close frame holds no code")
		}
		if rest, err := io.ReadAll(s.reader); err != nil || len(rest) > 0 {
			t.Errorf("after the close came %d bytes and %v, want the end", len(rest), err)
		}
		return int(binary.BigEndian.Uint16(payload))
	}
}

// masked gives a client's frame with a mask of zeros, which RFC 6455 allows.
func masked(first byte, payload string) string {
	switch length := len(payload); {
	case length < 126:
		return string([]byte{first, 0x80 | byte(length), 0, 0, 0, 0}) + payload
	case length < 1<<16:
		return string(binary.BigEndian.AppendUint16([]byte{first, 0x80 | 126}, uint16(length))) + "\x00\x00\x00\x00" + payload
	default:
		return string(binary.BigEndian.AppendUint64([]byte{first, 0x80 | 127}, uint64(length))) + "\x00\x00\x00\x00" + payload
	}
}

// TestFrames: each breach of RFC 6455 gets its close code, and nothing else.
func TestFrames(t *testing.T) {
	t.Parallel()
	g := startGateway(t, "--max-message-bytes", "4096")
	bystander := open(t, npmWS, "http://"+g.address, "", "job_progress:1")
	cases := []struct {
		name  string
		bytes string
		code  int
	}{
		{"5.1 unmasked", "\x81\x02{}", 1002},
		{"5.2 reserved bit", masked(0xc1, "{}"), 1002},
		{"5.2 reserved opcode", masked(0x83, "{}"), 1002},
		{"5.2 reserved control opcode", masked(0x8b, ""), 1002},
		{"5.2 length's top bit", "\x81\xff\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", 1002},
		{"5.4 continuation of nothing", masked(0x80, "{}"), 1002},
		{"5.4 new message inside a message", masked(0x01, "{") + masked(0x81, "}"), 1002},
		{"5.5 long control frame", masked(0x89, strings.Repeat("a", 126)), 1002},
		{"5.5 fragmented control frame", masked(0x09, ""), 1002},
		{"5.5.1 close with one byte", masked(0x88, "\x03"), 1002},
		{"7.4 close with 1005", masked(0x88, "\x03\xed"), 1002},
		{"7.4 close with 1006", masked(0x88, "\x03\xee"), 1002},
		{"7.4 close with 999", masked(0x88, "\x03\xe7"), 1002},
		{"8.1 text that is not UTF-8", masked(0x81, "\"\xff\""), 1007},
		{"8.1 a letter cut by the end", masked(0x01, "\"\xe2\x82") + masked(0x80, "\""), 1007},
		{"8.1 a surrogate", masked(0x81, "\xed\xa0\x80"), 1007},
		{"5.5.1 reason that is not UTF-8", masked(0x88, "\x03\xe8\xff"), 1007},
		{"binary", masked(0x82, "{}"), 1003},
		{"too long", masked(0x81, strings.Repeat(" ", 4097)), 1009},
		{"a length of 2^46, nothing more", "\x81\xff\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00", 1009},
		{"too long in fragments", masked(0x01, strings.Repeat(" ", 4000)) + masked(0x80, strings.Repeat(" ", 97)), 1009},
		{"a client that goes", masked(0x88, "\x03\xe8bye"), 1000},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			s := upgrade(t, g.address)
			if _, err := io.WriteString(s, test.bytes); err != nil {
				t.Fatal(err)
			}
			if code := s.closed(t); code != test.code {
				t.Errorf("closed with %d, want %d", code, test.code)
			}
		})
	}
	t.Run("ping", func(t *testing.T) {
		s := upgrade(t, g.address)
		if _, err := io.WriteString(s, masked(0x89, "are you there")); err != nil {
			t.Fatal(err)
		}
		for {
			opcode, payload, err := s.frame()
			if err != nil {
				t.Fatal(err)
			}
			if opcode == 10 {
				if string(payload) != "are you there" {
					t.Errorf("the pong holds %q", payload)
				}
				return
			}
		}
	})
	t.Run("frames behind the handshake", func(t *testing.T) { framesBehind(t, g) })

	g.publish(t, "", "job_progress:1", `{"still":"here"}`)
	bystander.event(t, `{"still":"here"}`)
}

// framesBehind sends a command in the same segment as the handshake: it must not be lost.
func framesBehind(t *testing.T, g *gateway) {
	t.Helper()
	connection, err := net.Dial("tcp", g.address)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(patience))
	request := strings.ReplaceAll("GET /ws HTTP/1.1\nHost: "+g.address+"\n"+upgradeHead+"\n", "\n", "\r\n")
	if _, err := io.WriteString(connection, request+masked(0x81, `{"type":"ping","ref":"early"}`)); err != nil {
		t.Fatal(err)
	}
	s := &socket{connection, bufio.NewReader(connection)}
	if _, err := http.ReadResponse(s.reader, nil); err != nil {
		t.Fatal(err)
	}
	for {
		_, payload, err := s.frame()
		if err != nil {
			t.Fatalf("the early command was lost: %v", err)
		}
		if strings.Contains(string(payload), `"pong"`) && strings.Contains(string(payload), "early") {
			return
		}
	}
}

// TestCommands: a command that can't be done is answered with what was wrong, and the socket
// goes on.
func TestCommands(t *testing.T) {
	t.Parallel()
	g := startGateway(t, "--max-subscriptions", "3")
	cases := []struct{ name, command, code string }{
		{"not JSON", `{"type":`, "bad_request"},
		{"no object", `[]`, "bad_request"},
		{"no type", `{}`, "bad_request"},
		{"unknown", `{"type":"dance"}`, "unknown_command"},
		{"no channel", `{"type":"subscribe"}`, "bad_request"},
		{"bad channel", `{"type":"subscribe","channel":"no colon:*?"}`, "bad_channel"},
		{"NUL in a channel", `{"type":"subscribe","channel":"a:\u0000"}`, "bad_channel"},
		{"reserved channel", `{"type":"subscribe","channel":"__millrace:1"}`, "bad_channel"},
		{"too many", `{"type":"subscribe","channels":["a:1","a:2","a:3","a:4"]}`, "too_many_subscriptions"},
		{"trailing bytes", `{"type":"ping"} {}`, "bad_request"},
		{"deep", `{"type":"ping","x":` + strings.Repeat("[", 30_000), "bad_request"},
		{"publish nothing", `{"type":"publish","channel":"a:1"}`, "bad_request"},
	}
	c := dial(t, npmWS, "http://"+g.address, "/ws")
	c.await(t, "connected", func(h heard) bool { return h.is("connected") })
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			c.send(t, test.command)
			h := c.await(t, "an error", func(h heard) bool { return h.Kind == "message" || h.Kind == "close" })
			if !h.is("error") || h.field("code") != test.code || h.field("message") == "" {
				t.Errorf("heard %+v, want the error %s", h, test.code)
			}
		})
	}
	c.send(t, `{"type":"publish","channel":"job_progress:1","event":{"n":1},"ref":"r1"}`)
	h := c.await(t, "published", func(h heard) bool { return h.is("published") })
	if h.field("ref") != "r1" {
		t.Errorf("published says %s, want ref r1", h.Data)
	}
	c.send(t, `{"type":"unsubscribe","channel":"job_progress:never"}`)
	c.await(t, "unsubscribed", func(h heard) bool { return h.is("unsubscribed") })

	for range 1000 {
		c.send(t, `{"type":"ping"}`)
	}
	c.await(t, "rate_limited", func(h heard) bool { return h.is("error") && h.field("code") == "rate_limited" })
}
