package gateway_test

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/proto"
)

// TestBrokenFrames: each breach of RFC 6455 ends the stream with its code, once, and costs nobody
// else anything.
func TestBrokenFrames(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Limits: gateway.Limits{MaxMessageBytes: 1 << 10}})
	ping := `{"type":"ping"}`
	first := func(b byte, frame []byte) []byte { frame[0] = b; return frame }
	long := func(length uint64) []byte {
		return append(binary.BigEndian.AppendUint64([]byte{0x81, 0xff}, length), mask[:]...)
	}
	closing := func(code uint16, reason string) []byte {
		return masked(proto.OpClose, string(binary.BigEndian.AppendUint16(nil, code))+reason)
	}
	join := func(frames ...[]byte) []byte { return slices.Concat(frames...) }
	type breach struct {
		name  string
		bytes []byte
		code  proto.CloseCode
	}
	breaches := []breach{
		{"unmasked", proto.AppendFrame(nil, proto.OpText, []byte(ping)), 1002},
		{"RSV1", first(0xc1, masked(proto.OpText, ping)), 1002},
		{"RSV2", first(0xa1, masked(proto.OpText, ping)), 1002},
		{"RSV3", first(0x91, masked(proto.OpText, ping)), 1002},
		{"reserved data opcode", first(0x83, masked(proto.OpText, ping)), 1002},
		{"reserved control opcode", first(0x8b, masked(proto.OpPing, "")), 1002},
		{"stray continuation", fragment(proto.OpContinuation, true, ping), 1002},
		{"a message inside a message", join(fragment(proto.OpText, false, ping), masked(proto.OpText, ping)), 1002},
		{"fragmented ping", fragment(proto.OpPing, false, "x"), 1002},
		{"ping of 126 bytes", append([]byte{0x89, 0xfe, 0, 126}, make([]byte, 130)...), 1002},
		{"length not in its shortest form", append([]byte{0x81, 0xfe, 0, 5}, make([]byte, 9)...), 1002},
		{"length with the top bit set", long(1 << 63), 1002},
		{"close of one byte", masked(proto.OpClose, "x"), 1002},
		{"close reason that is not UTF-8", closing(1000, "\xff"), 1007},

		{"binary", masked(proto.OpBinary, ping), 1003},
		{"fragmented binary", join(fragment(proto.OpBinary, false, ping), fragment(proto.OpContinuation, true, "")), 1003},

		{"a byte that is never UTF-8", masked(proto.OpText, "\xff"), 1007},
		{"overlong", masked(proto.OpText, "\xc0\xaf"), 1007},
		{"surrogate", masked(proto.OpText, "\xed\xa0\x80"), 1007},
		{"past the last character", masked(proto.OpText, "\xf4\x90\x80\x80"), 1007},
		{"half a character", masked(proto.OpText, "\xf0\x9f\xa6"), 1007},
		{"half a character, over two fragments", join(fragment(proto.OpText, false, "\xf0\x9f"), fragment(proto.OpContinuation, true, "x")), 1007},
		{"as soon as it is wrong", fragment(proto.OpText, false, "ok \xff"), 1007},

		{"one byte too many", masked(proto.OpText, strings.Repeat("x", 1<<10+1)), 1009},
		{"too many over two fragments", join(fragment(proto.OpText, false, strings.Repeat("x", 600)), fragment(proto.OpContinuation, true, strings.Repeat("x", 600))), 1009},
		{"announced: 2^63-1", long(1<<63 - 1), 1009},
		{"announced: 2^46", long(1 << 46), 1009},
		{"announced: 64 MiB", long(64 << 20), 1009},
		{"fragments of one byte without end", join(fragment(proto.OpText, false, "x"), slices.Repeat(fragment(proto.OpContinuation, false, "x"), 1100)), 1009},
		{"fragments of nothing without end", join(fragment(proto.OpText, false, "x"), slices.Repeat(fragment(proto.OpContinuation, false, ""), 1100)), 1009},
	}
	for _, code := range []uint16{0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535} {
		breaches = append(breaches, breach{"close code " + strconv.Itoa(int(code)), closing(code, ""), 1002})
	}
	bystander := h.open(t, raw, visit{channels: []string{"job_progress:1"}})
	for _, breach := range breaches {
		t.Run(breach.name, func(t *testing.T) {
			onEvery(t, webSockets, func(t *testing.T, w wire) {
				s := h.open(t, w, visit{channels: []string{"job_progress:1"}})
				s.send(t, append(slices.Clone(breach.bytes), masked(proto.OpText, ping)...))
				closed := s.said(t)
				if closed.kind != heardClose || closed.code != breach.code {
					t.Fatalf("heard %v, want the close %d", closed, breach.code)
				}
				if strings.Contains(closed.text, "ok ") || strings.Contains(closed.text, "xx") {
					t.Errorf("the reason repeats what was sent: %q", closed.text)
				}
				if end := s.said(t); end.kind != heardEnd {
					t.Errorf("after the close came %v", end)
				}
			})
			bystander.alive(t)
		})
	}
	t.Run("exactly as much as is allowed", func(t *testing.T) {
		s := h.open(t, raw, visit{})
		text := `{"type":"ping","pad":"`
		s.command(t, text+strings.Repeat("x", 1<<10-len(text)-2)+`"}`)
		s.word(t, "pong")
	})
}

// TestHandshakes: what may be said in a handshake, and what is answered.
func TestHandshakes(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{})
	many := make([]string, 250)
	for i := range many {
		many[i] = "p" + strings.Repeat("x", i%9)
	}
	for name, row := range map[string]struct {
		header   []string
		protocol string
		status   int
	}{
		"plain":                           {nil, "", 101},
		"another subprotocol":             {[]string{"Sec-WebSocket-Protocol: chat"}, "", 101},
		"ours among others":               {[]string{"Sec-WebSocket-Protocol: chat, millrace.v1"}, "millrace.v1", 101},
		"ours in a line of its own":       {[]string{"Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: millrace.v1"}, "millrace.v1", 101},
		"200 with spaces":                 {[]string{"Sec-WebSocket-Protocol: " + strings.Join(many, "   ,   ")}, "", 101},
		"one that is no token":            {[]string{"Sec-WebSocket-Protocol: a b"}, "", 400},
		"deflate, taken":                  {[]string{"Sec-WebSocket-Extensions: permessage-deflate"}, "", 101},
		"deflate, taken as browsers do":   {[]string{"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"}, "", 101},
		"deflate with impossible windows": {[]string{"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=7, permessage-deflate; client_max_window_bits=16; x=\"y\""}, "", 101},
		"extensions that are no list":     {[]string{"Sec-WebSocket-Extensions: permessage-deflate; x=\"y"}, "", 400},
	} {
		t.Run(name, func(t *testing.T) {
			s := h.knock(t, raw, visit{header: row.header})
			if s.response.StatusCode != row.status {
				t.Fatalf("answered %d, want %d", s.response.StatusCode, row.status)
			}
			if got := strings.Join(s.response.Header.Values("Sec-WebSocket-Protocol"), ","); got != row.protocol {
				t.Errorf("the subprotocol is %q, want %q", got, row.protocol)
			}
			accepted := strings.HasPrefix(s.response.Header.Get("Sec-WebSocket-Extensions"), "permessage-deflate; server_no_context_takeover; client_no_context_takeover")
			if wanted := strings.HasPrefix(name, "deflate, taken"); accepted != wanted {
				t.Errorf("the answer takes the extension: %v, want %v", accepted, wanted)
			}
			if row.status == 101 {
				s.greeted(t)
				s.alive(t)
			}
		})
	}
}
