package proto

import (
	"encoding/binary"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// Opcode says what a WebSocket frame is (RFC 6455, 5.2).
type Opcode uint8

// The opcodes of RFC 6455, 11.8; all others are reserved.
const (
	OpContinuation Opcode = 0x0
	OpText         Opcode = 0x1
	OpBinary       Opcode = 0x2
	OpClose        Opcode = 0x8
	OpPing         Opcode = 0x9
	OpPong         Opcode = 0xA
)

// String names the opcode.
func (o Opcode) String() string {
	switch o {
	case OpContinuation:
		return "continuation"
	case OpText:
		return "text"
	case OpBinary:
		return "binary"
	case OpClose:
		return "close"
	case OpPing:
		return "ping"
	case OpPong:
		return "pong"
	}
	return "reserved opcode " + strconv.Itoa(int(o))
}

// CloseCode says why a WebSocket ends (RFC 6455, 7.4.1 and the IANA registry).
type CloseCode uint16

const (
	CloseNormal        CloseCode = 1000 // done
	CloseGoingAway     CloseCode = 1001 // a page was left
	CloseProtocolError CloseCode = 1002 // RFC 6455 was broken
	CloseUnsupported   CloseCode = 1003 // a kind of data that is not served, as binary is not
	CloseNoStatus      CloseCode = 1005 // never sent: stands for a close frame without a code
	CloseNotUTF8       CloseCode = 1007 // text was not UTF-8
	ClosePolicy        CloseCode = 1008 // not allowed
	CloseTooBig        CloseCode = 1009 // a message over the limit
	CloseInternal      CloseCode = 1011 // our fault
	CloseRestart       CloseCode = 1012 // the gateway drains; come back
	CloseOverloaded    CloseCode = 1013 // the gateway is overloaded, or the client too slow; come back later
)

const (
	// ControlBytesMax bounds the payload of a control frame, in bytes (RFC 6455, 5.5).
	ControlBytesMax = 125
	// CloseReasonBytesMax bounds the reason in a close frame, in bytes: the code takes two.
	CloseReasonBytesMax = ControlBytesMax - 2

	bitFinal  = 0x80
	bitMasked = 0x80
	// bitCompressed is RSV1, which permessage-deflate uses (RFC 7692, 6).
	bitCompressed = 0x40
	// The seven bits of length mean: this many bytes of length follow (RFC 6455, 5.2).
	length16 = 126
	length64 = 127

	serverHeaderBytesMax = 2 + 8
	maskBytes            = 4
	headerBytesMax       = serverHeaderBytesMax + maskBytes
)

const (
	closeBadGateway CloseCode = 1014 // registered; we never send it
	closeLast       CloseCode = 4999
)

// pingFrame is a ping without a payload, for everybody.
var pingFrame = ws.CompiledPing

// PingFrame returns an unmasked ping frame with no payload (RFC 6455, 5.5.2). All callers share
// it; nobody may change it.
func PingFrame() []byte { return pingFrame }

// grow makes room for size more bytes: exactly that for a new slice, as a shared event's bytes
// are, else by slices.Grow.
func grow(dst []byte, size int) []byte {
	if dst == nil {
		return make([]byte, 0, size)
	}
	return slices.Grow(dst, size)
}

// AppendFrame appends one whole unmasked frame, as a server sends it (RFC 6455, 5.1). The
// payload of a control frame is cut at [ControlBytesMax].
func AppendFrame(dst []byte, opcode Opcode, payload []byte) []byte {
	payload = cutControl(opcode, payload)
	dst = grow(dst, headerSize(len(payload))+len(payload))
	dst = appendServerHeader(dst, opcode, len(payload))
	return append(dst, payload...)
}

// AppendDeflateFrame appends one whole unmasked data frame whose payload is a compressed message
// (RFC 7692, 6.1).
func AppendDeflateFrame(dst []byte, opcode Opcode, payload []byte) []byte {
	start := len(dst)
	dst = AppendFrame(dst, opcode, payload)
	dst[start] |= bitCompressed
	return dst
}

// framePayload is the payload of one whole unmasked frame.
func framePayload(frame []byte) []byte {
	switch frame[1] {
	case length16:
		return frame[2+2:]
	case length64:
		return frame[2+8:]
	}
	return frame[2:]
}

// AppendMaskedFrame appends one whole frame masked with mask, as a client sends it (RFC 6455,
// 5.3). It is for tools and tests; a client on the open net takes a mask nobody can guess.
func AppendMaskedFrame(dst []byte, opcode Opcode, payload []byte, mask [4]byte) []byte {
	payload = cutControl(opcode, payload)
	dst = grow(dst, headerBytesMax+len(payload))
	start := len(dst)
	dst = appendServerHeader(dst, opcode, len(payload))
	dst[start+1] |= bitMasked
	dst = append(dst, mask[:]...)
	start = len(dst)
	dst = append(dst, payload...)
	ws.Cipher(dst[start:], mask, 0)
	return dst
}

func cutControl(opcode Opcode, payload []byte) []byte {
	if opcode&0x8 != 0 && len(payload) > ControlBytesMax {
		return payload[:ControlBytesMax]
	}
	return payload
}

// headerSize is the number of bytes of an unmasked header for a payload of size bytes.
func headerSize(size int) int {
	switch {
	case size <= ControlBytesMax:
		return 2
	case size <= 0xFFFF:
		return 2 + 2
	}
	return 2 + 8
}

// appendServerHeader appends the header of a final unmasked frame, its length in the fewest
// bytes (RFC 6455, 5.2).
func appendServerHeader(dst []byte, opcode Opcode, size int) []byte {
	dst = append(dst, bitFinal|byte(opcode))
	switch {
	case size <= ControlBytesMax:
		return append(dst, byte(size))
	case size <= 0xFFFF:
		return binary.BigEndian.AppendUint16(append(dst, length16), uint16(size))
	}
	return binary.BigEndian.AppendUint64(append(dst, length64), uint64(size))
}

// AppendClose appends an unmasked close frame (RFC 6455, 5.5.1). A reason longer than
// [CloseReasonBytesMax] is cut between characters, one that is not UTF-8 left out. A code that
// must not be sent (RFC 6455, 7.4.1: [CloseNoStatus] and the like) gives a close frame without
// code and reason, so that the code and reason of a received close can be echoed as they are.
func AppendClose(dst []byte, code CloseCode, reason string) []byte {
	if !mayBeSent(code) {
		return AppendFrame(dst, OpClose, nil)
	}
	if !utf8.ValidString(reason) {
		reason = ""
	}
	if len(reason) > CloseReasonBytesMax {
		end := CloseReasonBytesMax
		for !utf8.RuneStart(reason[end]) {
			end--
		}
		reason = reason[:end]
	}
	dst = appendServerHeader(dst, OpClose, 2+len(reason))
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
	return append(dst, reason...)
}

// mayBeSent reports whether a close frame may carry code (RFC 6455, 7.4). gobwas/ws does not
// know 1012 to 1014, which were registered after it, nor that codes end at 4999.
func mayBeSent(code CloseCode) bool {
	switch {
	case code >= CloseRestart && code <= closeBadGateway:
		return true
	case code > closeLast:
		return false
	}
	return ws.CheckCloseFrameData(ws.StatusCode(code), "") == nil
}
