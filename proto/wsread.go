package proto

import (
	"encoding/binary"
	"errors"
	"strconv"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/millrace/millrace/proto/deflate"
)

// emptyFragmentsMax bounds the fragments without payload in one message: they cost a sender
// nothing and would never reach the limit on a message's bytes.
const emptyFragmentsMax = 64

// ProtocolError says that the peer broke RFC 6455 or a limit. The stream must be closed with
// Code, and nothing more of what the peer sends is read (RFC 6455, 7.1.7).
type ProtocolError struct {
	Code CloseCode
	// Reason is short enough for a close frame and repeats nothing of what was sent.
	Reason string
}

func (e *ProtocolError) Error() string {
	return "websocket: " + strconv.Itoa(int(e.Code)) + ": " + e.Reason
}

// All that can go wrong while reading, made once: a flood of bad frames costs next to nothing.
var (
	errHeader          = &ProtocolError{CloseProtocolError, "bad frame header"}
	errReservedOpcode  = &ProtocolError{CloseProtocolError, "reserved opcode"}
	errControlLong     = &ProtocolError{CloseProtocolError, "control frame over 125 bytes"}
	errControlFragment = &ProtocolError{CloseProtocolError, "fragmented control frame"}
	errReservedBits    = &ProtocolError{CloseProtocolError, "reserved bits set without an extension"}
	errUnmasked        = &ProtocolError{CloseProtocolError, "client frame without mask"}
	errMasked          = &ProtocolError{CloseProtocolError, "server frame with mask"}
	errInsideMessage   = &ProtocolError{CloseProtocolError, "new message inside a fragmented one"}
	errStray           = &ProtocolError{CloseProtocolError, "continuation without a message"}
	errLengthForm      = &ProtocolError{CloseProtocolError, "length not in its shortest form"}
	errLengthSign      = &ProtocolError{CloseProtocolError, "length with its highest bit set"}
	errCloseBody       = &ProtocolError{CloseProtocolError, "close frame of one byte"}
	errCloseCode       = &ProtocolError{CloseProtocolError, "close code that must not be sent"}
	errCloseReason     = &ProtocolError{CloseNotUTF8, "close reason is not UTF-8"}
	errText            = &ProtocolError{CloseNotUTF8, "text is not UTF-8"}
	errTooBig          = &ProtocolError{CloseTooBig, "message too big"}
	errEmptyFragments  = &ProtocolError{CloseTooBig, "too many empty fragments"}
	errCompressed      = &ProtocolError{CloseProtocolError, "message not compressed as RFC 7692 says"}
)

// Message is what a peer said: a whole text or binary message, or a control frame.
type Message struct {
	// Op is OpText, OpBinary, OpPing, OpPong or OpClose; OpContinuation (0) means that there is no
	// message yet.
	Op Opcode
	// Data is the payload: of text, valid UTF-8; of a close, its reason. It is valid until the
	// next call of Next, or until the bytes that were given to Next are reused.
	Data []byte
	// Code is a close's code, [CloseNoStatus] where it had none.
	Code CloseCode
}

// frameHeader is what stands before a payload (RFC 6455, 5.2).
type frameHeader struct {
	opcode Opcode
	final  bool
	masked bool
	mask   [maskBytes]byte
	length uint64
}

// MessageReader reads the messages of one WebSocket out of whatever pieces the network brings.
// The zero value is ready to read what a client sends. It belongs to one goroutine.
//
// Between messages it holds nothing ([MessageReader.Idle]) and may be thrown away: an idle stream
// needs no reader, one per loop serves all streams that have nothing unfinished. A message that
// arrives whole costs no copy and no allocation. Of one that does not, what was received is kept,
// in at most twice as many bytes, never what was merely announced.
type MessageReader struct {
	// ClientSide reads what a server sends: frames must be unmasked instead of masked.
	ClientSide bool
	// Inflater, where it is not nil, says that permessage-deflate was agreed on, and undoes it. Many
	// readers may share one; the data of a compressed message is then valid until the next message
	// of any of them.
	Inflater *deflate.Inflater

	// The frame at hand: the part of its header that came, then, once inFrame, how much of its
	// payload came.
	inFrame     bool
	headerBytes uint8
	header      [headerBytesMax]byte
	frame       frameHeader
	received    uint64

	// The message at hand. opcode is 0 where there is none.
	opcode     Opcode
	compressed bool  // its first frame said so
	empty      uint8 // fragments without payload
	checked    int   // bytes of message that are whole UTF-8 characters
	message    []byte

	// control is the payload of a control frame that came in pieces, perhaps inside a message.
	control []byte

	failure *ProtocolError
}

// Idle reports whether the reader holds nothing of the peer: no half header, no unfinished
// message, no error.
func (r *MessageReader) Idle() bool {
	return !r.inFrame && r.headerBytes == 0 && r.opcode == 0 && r.failure == nil
}

// Held is how many bytes the reader keeps of a message, or a control frame, that is not whole.
func (r *MessageReader) Held() int { return cap(r.message) + cap(r.control) }

// Next reads one message from b, which it may change: payloads are unmasked in place. It returns
// the message and what of b comes behind it. With a message of Op 0, b was not enough: all of it
// is consumed, what matters of it kept, and Next is called again when more has come. maxBytes
// bounds a message's payload in bytes, fragments taken together; 0 or less means no bound.
//
// An error is always a [*ProtocolError]; it comes as early as the bytes so far prove it,
// whatever pieces they come in, and is returned again from then on. After a close the caller
// reads no further (RFC 6455, 5.5.1).
func (r *MessageReader) Next(b []byte, maxBytes int) (m Message, rest []byte, err error) {
	if r.failure != nil {
		return Message{}, nil, r.failure
	}
	for {
		if !r.inFrame {
			if b, r.failure = r.readHeader(b, maxBytes); r.failure != nil {
				return Message{}, nil, r.failure
			}
			if !r.inFrame {
				return Message{}, nil, nil
			}
		}
		part := b[:min(uint64(len(b)), r.frame.length-r.received)]
		b = b[len(part):]
		if m, r.failure = r.readPayload(part); r.failure != nil {
			return Message{}, nil, r.failure
		}
		if r.compressed && (m.Op == OpText || m.Op == OpBinary) {
			if m.Data, r.failure = r.inflate(m, maxBytes); r.failure != nil {
				return Message{}, nil, r.failure
			}
		}
		if m.Op != 0 || len(b) == 0 {
			return m, b, nil
		}
	}
}

// readHeader reads the header at the start of b, or goes on with one that came in part. When it
// is whole, inFrame is set and rest is what comes behind it.
func (r *MessageReader) readHeader(b []byte, maxBytes int) (rest []byte, failure *ProtocolError) {
	before := int(r.headerBytes)
	text := b
	if before > 0 {
		text = r.header[:before+copy(r.header[before:], b)]
	}
	size, failure := r.parseHeader(text, maxBytes)
	switch {
	case failure != nil:
		return nil, failure
	case size == 0:
		if before == 0 {
			copy(r.header[:], b)
		}
		r.headerBytes = uint8(len(text))
		return nil, nil
	}
	r.headerBytes = 0
	r.inFrame, r.received = true, 0
	return b[size-before:], nil
}

// parseHeader judges the header at the start of text and puts it into r.frame. It returns the
// header's size, 0 if there is more to come. What can be judged is judged before it is whole.
func (r *MessageReader) parseHeader(text []byte, maxBytes int) (size int, failure *ProtocolError) {
	if len(text) < 2 {
		return 0, nil
	}
	r.frame = frameHeader{
		opcode: Opcode(text[0] & 0xF),
		final:  text[0]&bitFinal != 0,
		masked: text[1]&bitMasked != 0,
		length: uint64(text[1] &^ bitMasked),
	}
	if failure = r.checkHeader(text[0] & 0x70 >> 4); failure != nil {
		return 0, failure
	}
	size = 2
	switch r.frame.length {
	case length16:
		if size += 2; len(text) < size {
			return 0, nil
		}
		r.frame.length = uint64(binary.BigEndian.Uint16(text[2:]))
		// RFC 6455, 5.2: "the minimal number of bytes MUST be used to encode the length".
		if r.frame.length <= ControlBytesMax {
			return 0, errLengthForm
		}
	case length64:
		if size += 8; len(text) < size {
			return 0, nil
		}
		r.frame.length = binary.BigEndian.Uint64(text[2:])
		switch {
		case r.frame.length>>63 != 0: // RFC 6455, 5.2: "the most significant bit MUST be 0"
			return 0, errLengthSign
		case r.frame.length <= 0xFFFF:
			return 0, errLengthForm
		}
	}
	// RFC 6455, 10.4 asks for a limit on messages, put together from fragments as well. The length
	// is only compared, never allocated.
	if maxBytes > 0 && r.frame.opcode&0x8 == 0 && r.frame.length > uint64(max(r.payloadMax(maxBytes)-len(r.message), 0)) {
		return 0, errTooBig
	}
	if r.frame.masked {
		if size += maskBytes; len(text) < size {
			return 0, nil
		}
		copy(r.frame.mask[:], text[size-maskBytes:])
	}
	return size, nil
}

// payloadMax bounds the bytes of a message as it was sent. Text that cannot be compressed grows by a
// little, and what counts is the text.
func (r *MessageReader) payloadMax(maxBytes int) int {
	if r.compressed {
		return maxBytes + maxBytes>>10 + 32
	}
	return maxBytes
}

// inflate gives the text of a compressed message, of which no more is ever made than is allowed.
func (r *MessageReader) inflate(m Message, maxBytes int) ([]byte, *ProtocolError) {
	r.compressed = false
	text, err := r.Inflater.Message(m.Data, max(maxBytes, 0))
	switch {
	case errors.Is(err, deflate.ErrTooLarge):
		return nil, errTooBig
	case err != nil:
		return nil, errCompressed
	case m.Op == OpText && !utf8.Valid(text): // RFC 6455, 8.1
		return nil, errText
	}
	return text, nil
}

// rsv1 is the reserved bit that says that a message is compressed (RFC 7692, 6), as [ws.Header] has it.
const rsv1 = 4

// checkHeader judges the first two bytes of a header; the length so far is their seven bits.
func (r *MessageReader) checkHeader(reservedBits byte) *ProtocolError {
	// RFC 7692, 6.1: only the first frame of a data message has it.
	if r.Inflater != nil && reservedBits == rsv1 && (r.frame.opcode == OpText || r.frame.opcode == OpBinary) && r.opcode == 0 {
		r.compressed, reservedBits = true, 0
	}
	state := ws.StateServerSide
	if r.ClientSide {
		state = ws.StateClientSide
	}
	if r.opcode != 0 {
		state = state.Set(ws.StateFragmented)
	}
	err := ws.CheckHeader(ws.Header{
		Fin:    r.frame.final,
		Rsv:    reservedBits,
		OpCode: ws.OpCode(r.frame.opcode),
		Masked: r.frame.masked,
		Length: int64(r.frame.length),
	}, state)
	if err != nil {
		return headerError(err)
	}
	if r.frame.opcode == OpClose && r.frame.length == 1 { // RFC 6455, 5.5.1: a body starts with a 2-byte code
		return errCloseBody
	}
	return nil
}

// headerError words what gobwas/ws found.
func headerError(err error) *ProtocolError {
	var found ws.ProtocolError
	if !errors.As(err, &found) {
		return errHeader
	}
	switch found {
	case ws.ErrProtocolOpCodeReserved: // RFC 6455, 5.2
		return errReservedOpcode
	case ws.ErrProtocolControlPayloadOverflow: // RFC 6455, 5.5
		return errControlLong
	case ws.ErrProtocolControlNotFinal: // RFC 6455, 5.4 and 5.5
		return errControlFragment
	case ws.ErrProtocolNonZeroRsv: // RFC 6455, 5.2
		return errReservedBits
	case ws.ErrProtocolMaskRequired: // RFC 6455, 5.1
		return errUnmasked
	case ws.ErrProtocolMaskUnexpected: // RFC 6455, 5.1
		return errMasked
	case ws.ErrProtocolContinuationExpected: // RFC 6455, 5.4
		return errInsideMessage
	case ws.ErrProtocolContinuationUnexpected: // RFC 6455, 5.4
		return errStray
	}
	return errHeader
}

// readPayload takes the next part of the payload of the frame at hand, which may be none of it
// or all. It returns a message if the frame completes one.
func (r *MessageReader) readPayload(part []byte) (Message, *ProtocolError) {
	if r.frame.masked { // RFC 6455, 5.3
		ws.Cipher(part, r.frame.mask, int(r.received&3))
	}
	first := r.received == 0
	r.received += uint64(len(part))
	whole := r.received == r.frame.length
	r.inFrame = !whole
	if r.frame.opcode&0x8 != 0 { // RFC 6455, 5.5: control frames may stand inside a message
		if !first || !whole {
			r.control = append(r.control, part...)
			part = r.control
		}
		if !whole {
			return Message{}, nil
		}
		r.control = nil
		return controlMessage(r.frame.opcode, part)
	}
	if first && whole && r.frame.final && r.opcode == 0 { // the common case: nothing is kept
		if r.frame.opcode == OpText && !r.compressed && !utf8.Valid(part) { // RFC 6455, 8.1
			return Message{}, errText
		}
		return Message{Op: r.frame.opcode, Data: part}, nil
	}
	return r.readFragment(part, whole)
}

// readFragment keeps the next part of a data frame that is not a whole message.
func (r *MessageReader) readFragment(part []byte, whole bool) (Message, *ProtocolError) {
	if r.opcode == 0 {
		r.opcode = r.frame.opcode
	}
	r.keep(part)
	if whole && r.frame.length == 0 && !r.frame.final {
		if r.empty++; r.empty > emptyFragmentsMax {
			return Message{}, errEmptyFragments
		}
	}
	done := whole && r.frame.final
	if r.opcode == OpText && !r.compressed { // RFC 6455, 5.6 and 8.1: the whole message is UTF-8, not each fragment
		size, ok := wholeCharacters(r.message[r.checked:])
		r.checked += size
		if !ok || done && r.checked != len(r.message) {
			return Message{}, errText
		}
	}
	if !done {
		return Message{}, nil
	}
	m := Message{Op: r.opcode, Data: r.message}
	r.opcode, r.empty, r.checked, r.message = 0, 0, 0, nil
	return m, nil
}

// keep appends part to the message. Room is made for twice of what was received at most, and for
// no more than the message can still need.
func (r *MessageReader) keep(part []byte) {
	need := len(r.message) + len(part)
	if need > cap(r.message) {
		room := uint64(2 * cap(r.message))
		if r.frame.final {
			room = min(room, uint64(need)+r.frame.length-r.received)
		}
		grown := make([]byte, len(r.message), max(uint64(need), room))
		copy(grown, r.message)
		r.message = grown
	}
	r.message = append(r.message, part...)
}

// wholeCharacters returns how many bytes of text are whole UTF-8 characters, and whether what
// follows them, three bytes at most, can still become one.
func wholeCharacters(text []byte) (size int, ok bool) {
	size = len(text)
	for back := 1; back < utf8.UTFMax && back <= len(text); back++ {
		start := len(text) - back
		if !utf8.RuneStart(text[start]) {
			continue
		}
		// FullRune is false only while the bytes may yet become a character: an overlong form or
		// a surrogate is refused at its second byte.
		if !utf8.FullRune(text[start:]) {
			size = start
		}
		break
	}
	return size, utf8.Valid(text[:size])
}

// controlMessage makes a message of a whole control frame.
func controlMessage(opcode Opcode, payload []byte) (Message, *ProtocolError) {
	if opcode != OpClose {
		return Message{Op: opcode, Data: payload}, nil
	}
	if len(payload) == 0 { // RFC 6455, 7.1.5
		return Message{Op: OpClose, Code: CloseNoStatus}, nil
	}
	code := CloseCode(binary.BigEndian.Uint16(payload))
	if !mayBeSent(code) { // RFC 6455, 7.4
		return Message{}, errCloseCode
	}
	if !utf8.Valid(payload[2:]) { // RFC 6455, 5.5.1
		return Message{}, errCloseReason
	}
	return Message{Op: OpClose, Data: payload[2:], Code: code}, nil
}
