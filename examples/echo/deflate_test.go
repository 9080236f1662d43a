package main

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// connectDeflate opens a WebSocket that has agreed on permessage-deflate.
func connectDeflate(t testing.TB, address string) *socket {
	t.Helper()
	s := dial(t, address)
	s.say(strings.Replace(opening, "\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n", 1))
	s.upgraded()
	return s
}

// deflated is a message's payload, compressed by the standard library (RFC 7692, 7.2.1).
func deflated(t testing.TB, text string) string {
	t.Helper()
	var room bytes.Buffer
	w, err := flate.NewWriter(&room, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(room.String(), "\x00\x00\xff\xff")
}

// inflated undoes it (RFC 7692, 7.2.2).
func inflated(t testing.TB, payload string) string {
	t.Helper()
	text, err := io.ReadAll(flate.NewReader(strings.NewReader(payload + "\x00\x00\xff\xff\x01\x00\x00\xff\xff")))
	if err != nil {
		t.Fatalf("what came is not compressed as RFC 7692 says: %v", err)
	}
	return string(text)
}

// wantMessage wants the next frame to be a whole message with that text, compressed or not.
func (s *socket) wantMessage(opcode byte, text string) (compressed bool) {
	s.t.Helper()
	first, payload := s.next()
	if compressed = first&rsv1 != 0; compressed {
		payload = inflated(s.t, payload)
	}
	if first&^rsv1 != fin|opcode || payload != text {
		s.t.Fatalf("heard a frame %#x with %d bytes (%.60q), want %#x with %d", first, len(payload), payload, fin|opcode, len(text))
	}
	return compressed
}

// TestDeflateOffers holds the answers to offers (RFC 7692, 5.1 and 7.1; RFC 6455, 9.1).
func TestDeflateOffers(t *testing.T) {
	t.Parallel()
	const agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	address, without := serveWith(t, true), serve(t)
	for _, c := range []struct {
		name, offer, want string // want "400": refused
	}{
		{"7 the plain offer", "permessage-deflate", agreed},
		{"7.1.1 both takeovers", "permessage-deflate; client_no_context_takeover; server_no_context_takeover", agreed},
		{"7.1.1 a takeover with a value", "permessage-deflate; server_no_context_takeover=1", ""},
		{"7.1.2.1 a server window of 15", "permessage-deflate; server_max_window_bits=15", agreed + "; server_max_window_bits=15"},
		{"7.1.2.1 a server window of 15 in quotes", `permessage-deflate; server_max_window_bits="15"`, agreed + "; server_max_window_bits=15"},
		{"7.1.2.1 a smaller server window is declined", "permessage-deflate; server_max_window_bits=10", ""},
		{"7.1.2.1 a server window without a value", "permessage-deflate; server_max_window_bits", ""},
		{"7.1.2 a window of 7", "permessage-deflate; client_max_window_bits=7", ""},
		{"7.1.2 a window of 16", "permessage-deflate; client_max_window_bits=16", ""},
		{"7.1.2 a window with a zero before it", "permessage-deflate; client_max_window_bits=08", ""},
		{"7.1.2.2 a client window without a value", "permessage-deflate; client_max_window_bits", agreed},
		{"7.1.2.2 a client window of 8", "permessage-deflate; client_max_window_bits=8", agreed},
		{"7.1 a parameter nobody defined", "permessage-deflate; x=1", ""},
		{"7.1 a parameter twice", "permessage-deflate; client_max_window_bits; client_max_window_bits=9", ""},
		{"5.1 the first that can be is taken", "permessage-deflate; server_max_window_bits=9, permessage-deflate; client_max_window_bits", agreed},
		{"5.1 another extension before it", "x-webkit-deflate-frame, permessage-deflate", agreed},
		{"9.1 an empty header", "", ""},
		{"9.1 not a list of extensions", ";;;===", "400"},
		{"9.1 a quote that does not end", `permessage-deflate; server_max_window_bits="15`, "400"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := dial(t, address)
			s.say(strings.Replace(opening, "\r\n\r\n", "\r\nSec-WebSocket-Extensions: "+c.offer+"\r\n\r\n", 1))
			response, err := http.ReadResponse(s.reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			got := response.Header.Get("Sec-WebSocket-Extensions")
			if response.StatusCode != http.StatusSwitchingProtocols {
				got = fmt.Sprint(response.StatusCode)
			}
			if got != c.want {
				t.Errorf("%q was answered with %q, want %q", c.offer, got, c.want)
			}
		})
	}
	t.Run("without the flag nothing is agreed on", func(t *testing.T) {
		s := connectDeflate(t, without)
		s.say(frame(fin|rsv1|opText, deflated(t, "Hello")))
		s.wantClosed(1002)
	})
}

// TestDeflate sends compressed messages in every form that RFC 7692 shows, and of many sizes.
func TestDeflate(t *testing.T) {
	t.Parallel()
	address := serveWith(t, true)
	words := strings.Repeat("many words, and then some; ", 1000)
	half := deflated(t, words)[:50]
	for _, c := range []struct{ name, sent, want string }{
		{"6.2 not compressed, though agreed", frame(fin|opText, "Hello"), "Hello"},
		{"7.2.3.1 one block", frame(fin|rsv1|opText, "\xf2\x48\xcd\xc9\xc9\x07\x00"), "Hello"},
		{"7.2.3.1 two fragments", frame(rsv1|opText, "\xf2\x48\xcd") + frame(fin|opContinuation, "\xc9\xc9\x07\x00"), "Hello"},
		{"7.2.3.3 no compression", frame(fin|rsv1|opText, "\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00"), "Hello"},
		{"7.2.3.4 a last block", frame(fin|rsv1|opText, "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), "Hello"},
		{"7.2.3.5 two blocks", frame(fin|rsv1|opText, "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"), "Hello"},
		{"7.2.3.6 empty", frame(fin|rsv1|opText, "\x00"), ""},
		{"6.1 a pong among the fragments", frame(rsv1|opText, half) + frame(fin|opPong, "") + frame(fin|opContinuation, deflated(t, words)[50:]), words},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := connectDeflate(t, address)
			s.say(c.sent + frame(fin|opClose, "\x03\xe8"))
			if compressed := s.wantMessage(opText, c.want); compressed != (len(c.want) > 1000) {
				t.Errorf("%d bytes came back compressed %v", len(c.want), compressed)
			}
			s.wantClosed(1000)
		})
	}
	t.Run("7.1.1 messages stand for themselves", func(t *testing.T) {
		s := connectDeflate(t, address)
		for n := range 20 {
			text := fmt.Sprint(n, words)
			s.say(frame(fin|rsv1|opBinary, deflated(t, text)))
			if !s.wantMessage(opBinary, text) {
				t.Error("it came back as it is")
			}
		}
	})
	for _, size := range []int{1, 125, 126, 65535, 65536, 1 << 20, messageBytesMax} {
		t.Run(fmt.Sprintf("%d bytes", size), func(t *testing.T) {
			s := connectDeflate(t, address)
			text := strings.Repeat("0123456789abcdef", size/16+1)[:size]
			go s.say(frame(fin|rsv1|opText, deflated(t, text)))
			s.wantMessage(opText, text)
		})
	}
}

// TestDeflateBreaches breaks RFC 7692.
func TestDeflateBreaches(t *testing.T) {
	t.Parallel()
	address := serveWith(t, true)
	bomb := deflated(t, strings.Repeat("\x00", messageBytesMax+1))
	first := deflated(t, strings.Repeat("something to refer to ", 10))
	for _, c := range []struct {
		name, sent string
		code       uint16
	}{
		{"6.1 the bit on a continuation", frame(rsv1|opText, "\xf2\x48") + frame(fin|rsv1|opContinuation, "\xcd"), 1002},
		{"6.1 the bit on a ping", frame(fin|rsv1|opPing, ""), 1002},
		{"6.1 the bit on a close", frame(fin|rsv1|opClose, "\x03\xe8"), 1002},
		{"6.1 another bit beside it", frame(fin|rsv1|rsv2|opText, first), 1002},
		{"7.2.2 not compressed at all", frame(fin|rsv1|opText, "Hello"), 1002},
		{"7.2.2 a block of the reserved kind", frame(fin|rsv1|opText, "\x06"), 1002},
		{"8.1 text that is not UTF-8 inside", frame(fin|rsv1|opText, deflated(t, "caf\xe9")), 1007},
		{"10.4 a bomb", frame(fin|rsv1|opBinary, bomb), 1009},
		{"10.4 a bomb in fragments", frame(rsv1|opBinary, bomb[:100]) + frame(fin|opContinuation, bomb[100:]), 1009},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := connectDeflate(t, address)
			s.say(c.sent + frame(fin|opText, "behind"))
			s.wantClosed(c.code)
		})
	}
	t.Run("7.1.1 a reference to the message before", func(t *testing.T) {
		s := connectDeflate(t, address)
		var room bytes.Buffer
		w, err := flate.NewWriterDict(&room, flate.BestCompression, []byte("something to refer to"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, "something to refer to") // into memory: neither fails
		_ = w.Flush()
		s.say(frame(fin|rsv1|opText, deflated(t, "something to refer to")))
		s.wantMessage(opText, "something to refer to")
		s.say(frame(fin|rsv1|opText, strings.TrimSuffix(room.String(), "\x00\x00\xff\xff")))
		s.wantClosed(1002)
	})
}
