package proto

import (
	"github.com/gobwas/ws"
)

// AppendUnread appends what brings a fresh reader to where r stands: the start of a message that is
// not whole, as frames of the same kind that r reads. Nothing is appended where r is idle. It is how
// an unfinished message goes to another process, in a form that every version reads: RFC 6455's own.
// What is appended completes no message. r must not have failed.
func (r *MessageReader) AppendUnread(to []byte) []byte {
	if first := len(to); r.opcode != 0 {
		to = r.appendMessage(to)
		if r.compressed { // RFC 7692, 6.1: the first frame says so
			to[first] |= rsv1 << 4
		}
	}
	if r.inFrame && r.frame.opcode&0x8 != 0 {
		to = appendHeader(to, r.frame)
		to = r.appendMasked(to, r.control)
	}
	return append(to, r.header[:r.headerBytes]...)
}

// appendMessage appends the message at hand: its fragments, those without payload one by one since
// they are counted, the others as one, and what came of the frame at hand.
func (r *MessageReader) appendMessage(to []byte) []byte {
	inData := r.inFrame && r.frame.opcode&0x8 == 0
	whole := r.message
	if inData {
		whole = whole[:len(whole)-int(r.received)]
	}
	fragment := frameHeader{opcode: r.opcode, masked: !r.ClientSide}
	for range r.empty {
		to = appendHeader(to, fragment)
		fragment.opcode = OpContinuation
	}
	if len(whole) > 0 {
		fragment.length = uint64(len(whole))
		to = appendHeader(to, fragment) // with a mask of zeros, which changes nothing
		to = append(to, whole...)
		fragment.opcode = OpContinuation
	}
	if !inData {
		return to
	}
	at := r.frame
	at.opcode = fragment.opcode
	to = appendHeader(to, at)
	return r.appendMasked(to, r.message[len(whole):])
}

// appendMasked appends the payload that came of the frame at hand, as it came.
func (r *MessageReader) appendMasked(to, payload []byte) []byte {
	at := len(to)
	to = append(to, payload...)
	if r.frame.masked {
		ws.Cipher(to[at:], r.frame.mask, 0)
	}
	return to
}

// appendHeader appends a header as it was read (RFC 6455, 5.2).
func appendHeader(to []byte, h frameHeader) []byte {
	at := len(to)
	to = appendServerHeader(to, h.opcode, int(h.length))
	if !h.final {
		to[at] &^= bitFinal
	}
	if h.masked {
		to[at+1] |= bitMasked
		to = append(to, h.mask[:]...)
	}
	return to
}
