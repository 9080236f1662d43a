package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The opcodes of RFC 6455, 5.2, and the bits beside them and beside the length.
const (
	opContinuation, opText, opBinary, opClose, opPing, opPong = 0, 1, 2, 8, 9, 10

	fin, rsv1, rsv2, rsv3 = 0x80, 0x40, 0x20, 0x10

	masked = 0x80
)

// socket is a WebSocket, spoken by hand to say what no library would.
type socket struct {
	*net.TCPConn
	t      testing.TB
	reader *bufio.Reader
}

// dialer connects with segments as they are on an Ethernet: of loopback's, two do not fit into the
// small send buffer of a stream, and each then waits for a delayed acknowledgement.
var dialer = net.Dialer{Timeout: patience, Control: func(_, _ string, raw syscall.RawConn) error {
	var failure error
	err := raw.Control(func(fd uintptr) {
		failure = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, 1460)
	})
	return errors.Join(err, failure)
}}

func dial(t testing.TB, address string) *socket {
	t.Helper()
	c, err := dialer.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return &socket{TCPConn: c.(*net.TCPConn), t: t, reader: bufio.NewReaderSize(c, 64<<10)}
}

// opening is a good handshake (RFC 6455, 4.1), with the key of RFC 6455, 1.3.
const opening = "GET /chat HTTP/1.1\r\nHost: echo\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

func connect(t testing.TB, address string) *socket {
	t.Helper()
	s := dial(t, address)
	s.say(opening)
	s.upgraded()
	return s
}

// upgraded wants the answer to a good handshake (RFC 6455, 4.2.2).
func (s *socket) upgraded() {
	s.t.Helper()
	response, err := http.ReadResponse(s.reader, nil)
	if err != nil {
		s.t.Fatalf("no answer to the handshake: %v", err)
	}
	if response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		s.t.Fatalf("the handshake was answered with %s %v", response.Status, response.Header)
	}
}

// say writes text. A server that has refused already may not take it, which is no failure.
func (s *socket) say(text string) { _, _ = io.WriteString(s.TCPConn, text) }

// frame is a client's frame: masked (RFC 6455, 5.3), its length in the fewest bytes.
func frame(first byte, payload string) string {
	return string(append(frameHead(first, len(payload)), maskedBytes(payload)...))
}

var mask = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// frameHead is what stands before a masked payload of that length.
func frameHead(first byte, length int) []byte {
	head := []byte{first}
	switch {
	case length < 126:
		head = append(head, masked|byte(length))
	case length < 1<<16:
		head = binary.BigEndian.AppendUint16(append(head, masked|126), uint16(length))
	default:
		head = binary.BigEndian.AppendUint64(append(head, masked|127), uint64(length))
	}
	return append(head, mask[:]...)
}

func maskedBytes(payload string) []byte {
	bytes := []byte(payload)
	for i := range bytes {
		bytes[i] ^= mask[i%len(mask)]
	}
	return bytes
}

// next reads one frame. A server's frames are not masked, and each length stands in its shortest form
// (RFC 6455, 5.1 and 5.2).
func (s *socket) next() (first byte, payload string) {
	s.t.Helper()
	head := make([]byte, 2+8)
	s.read(head[:2])
	length, least := uint64(head[1]), uint64(0)
	switch head[1] {
	case 126:
		s.read(head[2:4])
		length, least = uint64(binary.BigEndian.Uint16(head[2:])), 126
	case 127:
		s.read(head[2:])
		length, least = binary.BigEndian.Uint64(head[2:]), 1<<16
	}
	if head[1] > 127 || length < least || length > messageBytesMax {
		s.t.Fatalf("the frame with head %x is masked, or its length stands in too many bytes", head)
	}
	text := make([]byte, length)
	s.read(text)
	return head[0], string(text)
}

func (s *socket) read(room []byte) {
	s.t.Helper()
	if _, err := io.ReadFull(s.reader, room); err != nil {
		s.t.Fatalf("no whole frame: %v", err)
	}
}

// wantFrame wants the next frame to be this one.
func (s *socket) wantFrame(first byte, payload string) {
	s.t.Helper()
	gotFirst, got := s.next()
	if gotFirst != first || got != payload {
		s.t.Fatalf("heard a frame %#x of %d bytes (%.60q), want %#x of %d (%.60q)", gotFirst, len(got), got, first, len(payload), payload)
	}
}

// wantClosed wants a close frame with that code, 0 for none, and behind it nothing but the end.
func (s *socket) wantClosed(code uint16) (reason string) {
	s.t.Helper()
	first, payload := s.next()
	if first != fin|opClose {
		s.t.Fatalf("heard a frame %#x (%.60q), want a close with %d", first, payload, code)
	}
	got := uint16(0)
	if len(payload) >= 2 {
		got, reason = binary.BigEndian.Uint16([]byte(payload)), payload[2:]
	}
	if got != code {
		s.t.Errorf("closed with %d %q, want %d", got, reason, code)
	}
	if rest, err := io.ReadAll(s.reader); err != nil || len(rest) > 0 {
		s.t.Errorf("behind the close came %d bytes, and then %v: want the end", len(rest), err)
	}
	return reason
}
