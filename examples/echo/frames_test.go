package main

import (
	"encoding/binary"
	"net/http"
	"strings"
	"testing"
	"time"
)

// answer is a frame that is wanted back.
type answer struct {
	first   byte
	payload string
}

// TestFrames sends frames that RFC 6455 allows, and wants every answer; each case ends with a close.
// Together with TestEchoSizes and TestEchoPieces these are the good half of what suites for RFC 6455
// ask: pings, fragments, control frames among them, text in every form.
func TestFrames(t *testing.T) {
	t.Parallel()
	address := serve(t)
	long := strings.Repeat("p", 125)
	for _, c := range []struct {
		name string
		sent string
		want []answer
	}{
		{"5.5.2 ping without payload", frame(fin|opPing, ""), []answer{{fin | opPong, ""}}},
		{"5.5.2 ping with text", frame(fin|opPing, "Hello"), []answer{{fin | opPong, "Hello"}}},
		{"5.5.2 ping with bytes", frame(fin|opPing, "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"), []answer{{fin | opPong, "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"}}},
		{"5.5.2 ping of 125 bytes", frame(fin|opPing, long), []answer{{fin | opPong, long}}},
		{"5.5.2 ten pings", strings.Repeat(frame(fin|opPing, "n"), 10), func() (ten []answer) {
			for range 10 {
				ten = append(ten, answer{fin | opPong, "n"})
			}
			return ten
		}()},
		{"5.5.3 pong unasked, then a ping", frame(fin|opPong, "nobody asked") + frame(fin|opPing, "x"), []answer{{fin | opPong, "x"}}},
		{"5.4 text in two fragments", frame(opText, "Hel") + frame(fin|opContinuation, "lo"), []answer{{fin | opText, "Hello"}}},
		{"5.4 binary in three fragments", frame(opBinary, "\xff") + frame(opContinuation, "") + frame(fin|opContinuation, "\x00"), []answer{{fin | opBinary, "\xff\x00"}}},
		{"5.4 ping between fragments", frame(opText, "Hel") + frame(fin|opPing, "!") + frame(fin|opContinuation, "lo"), []answer{{fin | opPong, "!"}, {fin | opText, "Hello"}}},
		{"5.4 pings between five fragments", frame(opText, "a") + frame(opContinuation, "b") + frame(fin|opPing, "1") + frame(opContinuation, "c") + frame(opContinuation, "d") + frame(fin|opPing, "2") + frame(fin|opContinuation, "e"), []answer{{fin | opPong, "1"}, {fin | opPong, "2"}, {fin | opText, "abcde"}}},
		{"5.4 empty fragments", frame(opText, "") + frame(opContinuation, "") + frame(fin|opContinuation, ""), []answer{{fin | opText, ""}}},
		{"5.4 empty first and last", frame(opText, "") + frame(opContinuation, "middle") + frame(fin|opContinuation, ""), []answer{{fin | opText, "middle"}}},
		{"5.6 text and binary in turn", frame(fin|opText, "a") + frame(fin|opBinary, "b") + frame(fin|opText, "c"), []answer{{fin | opText, "a"}, {fin | opBinary, "b"}, {fin | opText, "c"}}},
		{"8.1 characters of every length", frame(fin|opText, "$¢€𐍈"), []answer{{fin | opText, "$¢€𐍈"}}},
		{"8.1 a character across fragments", frame(opText, "κόσμ\xce") + frame(fin|opContinuation, "\xb5"), []answer{{fin | opText, "κόσμ\xce\xb5"}}},
		{"8.1 one byte a fragment", frame(opText, "\xf0") + frame(opContinuation, "\x9f") + frame(opContinuation, "\x98") + frame(fin|opContinuation, "\x80"), []answer{{fin | opText, "😀"}}},
		{"8.1 the first and the last of each length", frame(fin|opText, "\x00\x7f\u0080\u07ff\u0800\ufffd\uffff\U00010000\U0010ffff"), []answer{{fin | opText, "\x00\x7f\u0080\u07ff\u0800\ufffd\uffff\U00010000\U0010ffff"}}},
		{"8.1 around the surrogates", frame(fin|opText, "\ud7ff\ue000"), []answer{{fin | opText, "\ud7ff\ue000"}}},
		{"8.1 non-characters", frame(fin|opText, "\ufffe\U0001fffe\U0010fffe"), []answer{{fin | opText, "\ufffe\U0001fffe\U0010fffe"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := connect(t, address)
			s.say(c.sent + frame(fin|opClose, "\x03\xe8bye"))
			for _, want := range c.want {
				s.wantFrame(want.first, want.payload)
			}
			if reason := s.wantClosed(1000); reason != "bye" {
				t.Errorf("the reason %q came back, not %q", reason, "bye")
			}
		})
	}
}

// TestBreaches breaks RFC 6455 in every way that it names, and wants the connection failed with the
// code that it names (7.1.7): one close frame, nothing behind it, and nothing that was sent behind
// the breach is read.
func TestBreaches(t *testing.T) {
	t.Parallel()
	address := serve(t)
	unmasked := "\x81\x05Hello"
	for _, c := range []struct {
		name string
		sent string
		code uint16
	}{
		{"5.1 a frame without mask", unmasked, 1002},
		{"5.1 a ping without mask", "\x89\x00", 1002},
		{"5.1 a continuation without mask", frame(opText, "Hel") + "\x80\x02lo", 1002},
		{"5.2 RSV1", frame(fin|rsv1|opText, "x"), 1002},
		{"5.2 RSV2", frame(fin|rsv2|opText, "x"), 1002},
		{"5.2 RSV3", frame(fin|rsv3|opBinary, "x"), 1002},
		{"5.2 all reserved bits on a ping", frame(fin|rsv1|rsv2|rsv3|opPing, ""), 1002},
		{"5.2 a reserved bit on a close", frame(fin|rsv2|opClose, "\x03\xe8"), 1002},
		{"5.2 opcode 3", frame(fin|3, "x"), 1002},
		{"5.2 opcode 7", frame(fin|7, ""), 1002},
		{"5.2 opcode 11", frame(fin|11, "x"), 1002},
		{"5.2 opcode 15", frame(fin|15, ""), 1002},
		{"5.2 a reserved opcode inside a message", frame(opText, "a") + frame(fin|5, ""), 1002},
		{"5.2 length 125 in 16 bits", "\x81\xfe\x00\x7d", 1002},
		{"5.2 length 0 in 16 bits", "\x81\xfe\x00\x00", 1002},
		{"5.2 length 65535 in 64 bits", "\x81\xff\x00\x00\x00\x00\x00\x00\xff\xff", 1002},
		{"5.2 length with the highest bit", "\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00", 1002},
		{"10.4 length 2^63-1", "\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff", 1009},
		{"10.4 length 2^46", "\x82\xff\x00\x00\x40\x00\x00\x00\x00\x00", 1009},
		{"5.4 a continuation of nothing", frame(fin|opContinuation, "x"), 1002},
		{"5.4 an unfinished continuation of nothing", frame(opContinuation, "x"), 1002},
		{"5.4 a continuation behind a whole message", frame(fin|opPing, "") + frame(fin|opContinuation, "x"), 1002},
		{"5.4 text inside a message", frame(opText, "a") + frame(fin|opText, "b"), 1002},
		{"5.4 binary inside a message", frame(opText, "a") + frame(opBinary, "b"), 1002},
		{"5.5 a ping of 126 bytes", frame(fin|opPing, strings.Repeat("p", 126)), 1002},
		{"5.5 a close of 126 bytes", frame(fin|opClose, "\x03\xe8"+strings.Repeat("c", 124)), 1002},
		{"5.5 a ping in fragments", frame(opPing, "a") + frame(fin|opContinuation, "b"), 1002},
		{"5.5 a close in fragments", frame(opClose, "\x03\xe8") + frame(fin|opContinuation, "b"), 1002},
		{"5.5.1 a close of one byte", frame(fin|opClose, "\x03"), 1002},
		{"5.5.1 a close reason that is not UTF-8", frame(fin|opClose, "\x03\xe8\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80"), 1007},
		{"8.1 a byte that is never UTF-8", frame(fin|opText, "a\xfe"), 1007},
		{"8.1 a continuation byte alone", frame(fin|opText, "\x80"), 1007},
		{"8.1 an overlong slash", frame(fin|opText, "\xc0\xaf"), 1007},
		{"8.1 an overlong NUL of three bytes", frame(fin|opText, "\xe0\x80\x80"), 1007},
		{"8.1 a surrogate", frame(fin|opText, "\xed\xa0\x80"), 1007},
		{"8.1 a pair of surrogates", frame(fin|opText, "\xed\xa0\x80\xed\xb0\x80"), 1007},
		{"8.1 above U+10FFFF", frame(fin|opText, "\xf4\x90\x80\x80"), 1007},
		{"8.1 a sequence of five bytes", frame(fin|opText, "\xf8\x88\x80\x80\x80"), 1007},
		{"8.1 a character that the end cuts", frame(fin|opText, "κόσμ\xce"), 1007},
		{"8.1 a character that the next fragment breaks", frame(opText, "\xce") + frame(fin|opContinuation, "x"), 1007},
		{"8.1 bad text in an unfinished message", frame(opText, "κόσμε\xf4\x90\x80\x80edited"), 1007},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := connect(t, address)
			s.say(c.sent + frame(fin|opText, "behind") + frame(fin|opPing, "behind"))
			if strings.HasPrefix(c.name, "5.4 a continuation behind") {
				s.wantFrame(fin|opPong, "")
			}
			s.wantClosed(c.code)
		})
	}
}

// TestFailFast breaks UTF-8 in the middle of a frame whose rest never comes: it is failed at once,
// not at the end of the frame.
func TestFailFast(t *testing.T) {
	t.Parallel()
	address := serve(t)
	for _, c := range []struct{ name, text string }{
		{"a byte that is never UTF-8", "κόσμε\xff"},
		{"above U+10FFFF, at its second byte", "κόσμε\xf4\x90"},
		{"a surrogate, at its second byte", "κόσμε\xed\xa0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := connect(t, address)
			s.say(string(frameHead(fin|opText, 1000)) + string(maskedBytes(c.text)))
			s.wantClosed(1007)
		})
	}
}

// TestCloses holds the closing handshake (RFC 6455, 5.5.1, 7.1 and 7.4).
func TestCloses(t *testing.T) {
	t.Parallel()
	address := serve(t)
	code := func(number uint16) string { return string(binary.BigEndian.AppendUint16(nil, number)) }
	t.Run("7.1.5 a close without code is answered without one", func(t *testing.T) {
		s := connect(t, address)
		s.say(frame(fin|opClose, ""))
		s.wantClosed(0)
	})
	for _, number := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		s := connect(t, address)
		s.say(frame(fin|opClose, code(number)))
		s.wantClosed(number)
	}
	for _, number := range []uint16{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		s := connect(t, address)
		s.say(frame(fin|opClose, code(number)))
		s.wantClosed(1002)
	}
	t.Run("5.5.1 a reason of 123 bytes comes back", func(t *testing.T) {
		s := connect(t, address)
		s.say(frame(fin|opClose, code(1000)+strings.Repeat("r", 123)))
		if reason := s.wantClosed(1000); len(reason) != 123 {
			t.Errorf("%d bytes of the reason came back", len(reason))
		}
	})
	t.Run("5.5.1 nothing is read behind a close", func(t *testing.T) {
		s := connect(t, address)
		s.say(frame(fin|opClose, code(1000)) + frame(fin|opText, "behind") + frame(fin|opPing, "") + frame(fin|opClose, code(1001)))
		s.wantClosed(1000)
	})
	t.Run("5.5.1 a close inside a message", func(t *testing.T) {
		s := connect(t, address)
		s.say(frame(opText, "unfinished") + frame(fin|opClose, code(1000)))
		s.wantClosed(1000)
	})
	t.Run("7.1.1 the connection is closed though the client never closes it", func(t *testing.T) {
		s := connect(t, address)
		s.say(frame(fin|opClose, code(1000)))
		s.wantClosed(1000)
		began := time.Now()
		for { // our side is half closed; when the server has let go, what we send is reset
			if _, err := s.Write([]byte(frame(fin|opPing, ""))); err != nil {
				break
			}
			if time.Since(began) > patience {
				t.Fatalf("the server still takes bytes %v after both closes", patience)
			}
		}
	})
}

// TestHandshakes sends handshakes that RFC 6455, 4.2.1 refuses, and some that it does not.
func TestHandshakes(t *testing.T) {
	t.Parallel()
	address := serve(t)
	for _, c := range []struct {
		name       string
		old, with  string // what is replaced in a good handshake
		want       int
		wantHeader string // a header that the answer must have
	}{
		{"4.2.1 a good one", "", "", 101, "Sec-WebSocket-Accept"},
		{"4.2.1, 1 POST", "GET /chat", "POST /chat", 405, "Allow"},
		{"4.2.1, 1 HTTP/1.0", "HTTP/1.1", "HTTP/1.0", 505, ""},
		{"4.2.1, 2 no Host", "Host: echo\r\n", "", 400, ""},
		{"4.2.1, 3 no Upgrade", "Upgrade: websocket\r\n", "", 426, "Upgrade"},
		{"4.2.1, 3 another Upgrade", "Upgrade: websocket", "Upgrade: h2c", 426, "Upgrade"},
		{"4.2.1, 3 the case of websocket", "Upgrade: websocket", "Upgrade: WebSocket", 101, ""},
		{"4.2.1, 3 websocket in a list", "Upgrade: websocket", "Upgrade: h2c, websocket", 101, ""},
		{"4.2.1, 4 no Connection", "Connection: Upgrade\r\n", "", 426, "Upgrade"},
		{"4.2.1, 4 Connection without upgrade", "Connection: Upgrade", "Connection: keep-alive", 426, "Upgrade"},
		{"4.2.1, 4 upgrade in a list", "Connection: Upgrade", "Connection: keep-alive, upgrade", 101, ""},
		{"4.2.1, 5 no key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400, ""},
		{"4.2.1, 5 a key of 15 bytes", "dGhlIHNhbXBsZSBub25jZQ==", "AAAAAAAAAAAAAAAAAAAA", 400, ""},
		{"4.2.1, 5 a key that is not base64", "dGhlIHNhbXBsZSBub25jZQ==", "************************", 400, ""},
		{"4.2.1, 5 two keys", "Sec-WebSocket-Version", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version", 400, ""},
		{"4.2.1, 6 no version", "Sec-WebSocket-Version: 13\r\n", "", 426, "Sec-WebSocket-Version"},
		{"4.2.1, 6 version 8", "Version: 13", "Version: 8", 426, "Sec-WebSocket-Version"},
		{"4.2.1, 6 two versions", "Version: 13", "Version: 13\r\nSec-WebSocket-Version: 8", 400, ""},
		{"4.2.1, 8 subprotocols nobody knows", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version", 101, ""},
		{"4.2.1, 9 an extension nobody knows", "Sec-WebSocket-Version", "Sec-WebSocket-Extensions: foo; bar=1\r\nSec-WebSocket-Version", 101, ""},
		{"4.1 headers of any case", "Sec-WebSocket-Version", "sEC-wEBSOCKET-vERSION", 101, ""},
		{"4.1 other headers", "Sec-WebSocket-Version", "Origin: http://example.com\r\nCookie: a=b\r\nSec-WebSocket-Version", 101, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := dial(t, address)
			s.say(strings.Replace(opening, c.old, c.with, 1))
			response, err := http.ReadResponse(s.reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != c.want || c.wantHeader != "" && response.Header.Get(c.wantHeader) == "" {
				t.Errorf("answered with %s %v, want %d and %s", response.Status, response.Header, c.want, c.wantHeader)
			}
			for _, name := range []string{"Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"} {
				if got := response.Header.Get(name); got != "" {
					t.Errorf("%s: %s was answered, which nobody agreed on", name, got)
				}
			}
		})
	}
	t.Run("4.2.2 frames right behind the handshake", func(t *testing.T) {
		s := dial(t, address)
		s.say(opening + frame(fin|opText, "early"))
		s.upgraded()
		s.wantFrame(fin|opText, "early")
	})
}
