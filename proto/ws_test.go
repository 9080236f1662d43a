package proto

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// TestAppendFrameGolden: RFC 6455, 5.7 and lengths around the borders of their three forms.
func TestAppendFrameGolden(t *testing.T) {
	cases := []struct {
		name, got, want string
	}{
		{"5.7 text", string(AppendFrame(nil, OpText, []byte("Hello"))), "\x81\x05Hello"},
		{"5.7 masked text", string(AppendMaskedFrame(nil, OpText, []byte("Hello"), [4]byte{0x37, 0xfa, 0x21, 0x3d})), "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"},
		{"5.7 ping", string(AppendFrame(nil, OpPing, []byte("Hello"))), "\x89\x05Hello"},
		{"5.7 masked pong", string(AppendMaskedFrame(nil, OpPong, []byte("Hello"), [4]byte{0x37, 0xfa, 0x21, 0x3d})), "\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"},
		{"5.7 256 bytes", string(AppendFrame(nil, OpBinary, make([]byte, 256))[:4]), "\x82\x7e\x01\x00"},
		{"5.7 64 KiB", string(AppendFrame(nil, OpBinary, make([]byte, 1<<16))[:10]), "\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"},
		{"behind other bytes", string(AppendFrame([]byte("x"), OpText, nil)), "x\x81\x00"},
		{"masked behind other bytes", string(AppendMaskedFrame([]byte("x"), OpText, []byte("a"), [4]byte{1, 1, 1, 1})), "x\x81\x81\x01\x01\x01\x01`"},
		{"ping", string(PingFrame()), "\x89\x00"},
		{"5.5 ping cut", string(AppendFrame(nil, OpPing, make([]byte, 200))[:2]), "\x89\x7d"},
		{"5.5 masked pong cut", string(AppendMaskedFrame(nil, OpPong, make([]byte, 200), [4]byte{})[:2]), "\x8a\xfd"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.got != c.want {
				t.Errorf("%q, want %q", c.got, c.want)
			}
		})
	}
}

// TestAppendFrameLikeGobwas compares with another writer at every border of the length.
func TestAppendFrameLikeGobwas(t *testing.T) {
	mask := [4]byte{9, 8, 7, 6}
	for _, size := range []int{0, 1, 125, 126, 127, 255, 65535, 65536, 70000} {
		payload := bytes.Repeat([]byte("a"), size)
		frame := ws.NewTextFrame(payload)
		if want, got := ws.MustCompileFrame(frame), AppendFrame(nil, OpText, payload); !bytes.Equal(want, got) {
			t.Errorf("%d bytes: %.20q, want %.20q", size, got, want)
		}
		want := ws.MustCompileFrame(ws.MaskFrameWith(frame, mask))
		if got := AppendMaskedFrame(nil, OpText, payload, mask); !bytes.Equal(want, got) {
			t.Errorf("%d bytes masked: %.20q, want %.20q", size, got, want)
		}
	}
}

func TestAppendClose(t *testing.T) {
	long := strings.Repeat("é", 100)
	cases := []struct {
		name   string
		code   CloseCode
		reason string
		want   string
	}{
		{"normal", CloseNormal, "", "\x88\x02\x03\xe8"},
		{"with a reason", ClosePolicy, "Access denied", "\x88\x0f\x03\xf0Access denied"},
		{"restart", CloseRestart, "", "\x88\x02\x03\xf4"},
		{"overloaded", CloseOverloaded, "", "\x88\x02\x03\xf5"},
		{"application", 4001, "", "\x88\x02\x0f\xa1"},
		{"5.5.1 no status", CloseNoStatus, "lost", "\x88\x00"},
		{"7.4.1 abnormal", 1006, "", "\x88\x00"},
		{"7.4.1 TLS", 1015, "", "\x88\x00"},
		{"zero", 0, "", "\x88\x00"},
		{"5.5 reason of 123 bytes", CloseNormal, strings.Repeat("a", 123), "\x88\x7d\x03\xe8" + strings.Repeat("a", 123)},
		{"5.5 reason of 124 bytes", CloseNormal, strings.Repeat("a", 124), "\x88\x7d\x03\xe8" + strings.Repeat("a", 123)},
		{"reason cut between characters", CloseNormal, long, "\x88\x7c\x03\xe8" + long[:122]},
		{"reason not UTF-8", CloseNormal, "\xff", "\x88\x02\x03\xe8"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := AppendClose(nil, c.code, c.reason)
			if string(got) != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if !utf8.Valid(got[min(len(got), 4):]) {
				t.Error("not UTF-8")
			}
		})
	}
}

func TestOpcodeString(t *testing.T) {
	for opcode, want := range map[Opcode]string{
		OpContinuation: "continuation", OpText: "text", OpBinary: "binary", OpClose: "close",
		OpPing: "ping", OpPong: "pong", 3: "reserved opcode 3",
	} {
		if got := opcode.String(); got != want {
			t.Errorf("opcode %d: %q", opcode, got)
		}
	}
}

// closeCodes are the codes that a close frame may carry (RFC 6455, 7.4 and the IANA registry).
func closeCodes(code int) bool {
	switch {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014, code >= 3000 && code <= 4999:
		return true
	}
	return false
}

func TestCloseCodes(t *testing.T) {
	for code := range 1 << 16 {
		frame := AppendMaskedFrame(nil, OpClose, []byte{byte(code >> 8), byte(code)}, [4]byte{1, 2, 3, 4})
		var r MessageReader
		m, _, err := r.Next(frame, 0)
		if good := closeCodes(code); good != (err == nil) || good && int(m.Code) != code {
			t.Fatalf("RFC 6455, 7.4: code %d: %v, %v", code, m, err)
		}
		if sent := len(AppendClose(nil, CloseCode(code), "")) == 4; sent != closeCodes(code) {
			t.Fatalf("RFC 6455, 7.4: code %d sent: %v", code, sent)
		}
	}
}

func TestProtocolErrorText(t *testing.T) {
	for _, failure := range []*ProtocolError{errHeader, errUnmasked, errTooBig, errText} {
		want := "websocket: " + strconv.Itoa(int(failure.Code)) + ": " + failure.Reason
		if failure.Error() != want || len(failure.Reason) > CloseReasonBytesMax {
			t.Errorf("%q", failure.Error())
		}
	}
}
