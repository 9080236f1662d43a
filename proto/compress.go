package proto

import (
	"bytes"
	"encoding/base64"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/millrace/millrace/proto/deflate"
)

// deflateBytesMin is the size of a WebSocket message from which compressing it is tried: what is
// shorter gains nothing.
const deflateBytesMin = 64

// compressed is what was made of an event for those who take it compressed.
type compressed struct {
	forms [FormCount - formPlainCount]atomic.Pointer[[]byte]
	after [FormSSEPlainGzipWithoutID + 1 - FormSSEGzip]atomic.Pointer[follower]
	// packed is the message compressed; empty where the payload itself is not longer.
	packed atomic.Pointer[[]byte]
}

// follower is a piece that fits behind the text of that number alone.
type follower struct {
	previous uint64
	bytes    []byte
}

// MayCompress says that nobody who hears the event could put it beside what another may not know,
// so that its compressed forms may be shorter than its plain ones; without it they only carry it.
// number, which is not 0, is given to one event of the process only; a payload of more than over
// bytes is packed. It is called before the event is shared.
func (e *Event) MayCompress(number uint64, over int) { e.number, e.packOver = number, over }

// Compressible reports whether [Event.MayCompress] was called.
func (e *Event) Compressible() bool { return e.number != 0 }

// Text is what a gzip stream says in one piece.
type Text struct {
	// Number is that of the event, and of its form; 0 for what nothing may follow on.
	Number uint64
	Bytes  []byte
}

// Text gives what a gzip form of the event says.
func (e *Event) Text(form Form) Text {
	text := Text{Bytes: e.Bytes(forms[form].plain)}
	if e.number != 0 {
		text.Number = e.number << 1
		if forms[form].plain == FormSSEPlainWithoutID {
			text.Number |= 1
		}
	}
	return text
}

// Tail gives the text without what no piece that follows on it can refer to, so that it may be kept.
func (t Text) Tail() Text {
	if len(t.Bytes) > 2*deflate.DictionaryBytesMax {
		t.Bytes = bytes.Clone(t.Bytes[len(t.Bytes)-deflate.DictionaryBytesMax:])
	}
	return t
}

// Piece is an event on its way into gzip streams: a form of it, and the text before it on which its
// short form follows.
type Piece struct {
	event    *Event
	form     Form
	previous Text
}

// Piece gives the event's piece in a gzip form. previous is an earlier event of the same channel in
// a form with the same ids, or a Text with number 0.
func (e *Event) Piece(form Form, previous Text) Piece { return Piece{e, form, previous} }

// Bytes gives the piece that fits behind anything, or the short one that fits behind the previous
// text. All callers share them; nobody may change them.
func (p Piece) Bytes(after bool) []byte {
	if after {
		return p.event.bytesAfter(p.form, p.previous)
	}
	return p.event.Bytes(p.form)
}

// bytesAfter gives the short piece. All who name the same previous text share one; another is made
// for who asks.
func (e *Event) bytesAfter(form Form, previous Text) []byte {
	place := &e.compression().after[form-FormSSEGzip]
	made := place.Load()
	if made == nil || made.previous != previous.Number {
		made = &follower{previous.Number, gzipPiece(form, e.Text(form).Bytes, previous.Bytes)}
		place.CompareAndSwap(nil, made)
	}
	return made.bytes
}

// compression gives the place of the compressed forms, made when first needed.
func (e *Event) compression() *compressed {
	if place := e.compressed.Load(); place != nil {
		return place
	}
	e.compressed.CompareAndSwap(nil, &compressed{})
	return e.compressed.Load()
}

func (e *Event) encodeCompressed(form Form) []byte {
	switch plain := e.Bytes(forms[form].plain); {
	case form.IsGzip():
		if e.number == 0 {
			return AppendGzipText(nil, form, plain)
		}
		return gzipPiece(form, plain, nil)
	case e.number == 0:
		return plain
	case form.IsDeflate():
		return e.encodeDeflate(form, plain)
	case len(e.payload) <= e.packOver || e.notice:
		return plain
	default:
		return e.encodePacked(form, plain)
	}
}

// encodeDeflate compresses a frame's payload (RFC 7692, 7.2.1).
func (e *Event) encodeDeflate(form Form, plain []byte) []byte {
	if form == FormTextDeflate && !e.notice && Reserved(e.typ) {
		return e.Bytes(FormEnvelopeDeflate)
	}
	text := framePayload(plain)
	if len(text) < deflateBytesMin {
		return plain
	}
	payload, shorter := deflate.AppendMessage(nil, text)
	if !shorter {
		return plain
	}
	return AppendDeflateFrame(nil, OpText, payload)
}

// encodePacked puts the payload into the message compressed.
func (e *Event) encodePacked(form Form, plain []byte) []byte {
	message := e.pack()
	switch {
	case len(message) == 0:
		return plain
	case form == FormTextPacked && Reserved(e.typ):
		return e.Bytes(FormEnvelopePacked)
	case form == FormTextPacked:
		return AppendFrame(nil, OpText, message)
	case form == FormEnvelopePacked:
		return e.encodeEnvelope(message)
	}
	id := e.id
	if form.WithoutID() == form {
		id = ""
	}
	return AppendSSE(nil, form, "compressed", id, message)
}

// pack gives the message compressed, empty where the payload itself is not longer.
func (e *Event) pack() []byte {
	place := &e.compression().packed
	if made := place.Load(); made != nil {
		return *made
	}
	zipped := deflate.AppendGzip(nil, e.payload)
	const head, tail = `{"type":"compressed","encoding":"gzip","data":"`, `"}`
	message := make([]byte, 0, len(head)+base64.StdEncoding.EncodedLen(len(zipped))+len(tail))
	message = append(message, head...)
	message = base64.StdEncoding.AppendEncode(message, zipped)
	message = append(message, tail...)
	if len(message) >= len(e.payload) {
		message = nil
	}
	if place.CompareAndSwap(nil, &message) {
		return message
	}
	return *place.Load()
}

// AppendGzipText appends a piece of a gzip stream that says text as it is and fits behind anything:
// what the gateway says to one stream, which is not compressed. form is a gzip form.
func AppendGzipText(dst []byte, form Form, text []byte) []byte {
	return appendGzipChunk(dst, form, deflate.AppendStored(nil, text))
}

// AppendGzipStart appends the head of a gzip stream, and what it says first.
func AppendGzipStart(dst []byte, form Form, text []byte) []byte {
	return appendGzipChunk(dst, form, deflate.AppendStored([]byte(deflate.GzipHead), text))
}

// AppendGzipEnd appends what ends a gzip event stream in order, after text with that CRC-32 and
// length: its last block and checksum, and the last, empty chunk where there are chunks.
func AppendGzipEnd(dst []byte, form Form, sum, length uint32) []byte {
	dst = appendGzipChunk(dst, form, deflate.AppendGzipEnd(nil, sum, length))
	if form.chunked() {
		dst = AppendSSEEnd(dst, FormSSE)
	}
	return dst
}

// blocks lends room for a block that is on its way into a piece.
var blocks = sync.Pool{New: func() any { return new([]byte) }}

// blockRoomMax is the largest room, in bytes, that is kept for another block.
const blockRoomMax = 64 << 10

// gzipPiece compresses text behind a dictionary, which may be empty, into a piece of its own.
func gzipPiece(form Form, text, dictionary []byte) []byte {
	room := blocks.Get().(*[]byte)
	block := deflate.AppendBlock((*room)[:0], text, dictionary)
	piece := appendGzipChunk(nil, form, block)
	if cap(block) <= blockRoomMax {
		*room = block
	}
	blocks.Put(room)
	return piece
}

// appendGzipChunk puts a chunk around a piece of a gzip stream (RFC 9112, 7.1), where there are chunks.
func appendGzipChunk(dst []byte, form Form, piece []byte) []byte {
	if !form.chunked() {
		return append(dst, piece...)
	}
	dst = grow(dst, len(piece)+chunkOverhead(FormSSE, len(piece)))
	dst = strconv.AppendUint(dst, uint64(len(piece)), 16)
	dst = append(dst, '\r', '\n')
	dst = append(dst, piece...)
	return append(dst, '\r', '\n')
}
