package proto

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// EventIDBytesMax bounds an event's id, in bytes: it travels in a request's head.
const EventIDBytesMax = 512

// Why a payload or an id is refused; each is counted by its own name.
var (
	// ErrEmpty says that a payload has no byte but white space.
	ErrEmpty = errors.New("empty payload")
	// ErrNotJSON says that a payload is not one whole JSON value (RFC 8259), or nests deeper than
	// 10,000.
	ErrNotJSON = errors.New("payload is not JSON")
	// ErrNotUTF8 says that a payload is not valid UTF-8.
	ErrNotUTF8 = errors.New("payload is not UTF-8")
	// ErrBadID says that an id is longer than [EventIDBytesMax], not UTF-8, or holds a CR, LF or
	// NUL, which would forge a field of an event stream.
	ErrBadID = errors.New("bad event id")
)

// PayloadError says where a payload is at fault. Cause is [ErrEmpty], [ErrNotJSON] or
// [ErrNotUTF8], which errors.Is finds. It repeats nothing of the payload.
type PayloadError struct {
	Cause error
	// Offset is the byte of the payload at fault.
	Offset int
	// Problem says what was expected; empty where Cause says it all.
	Problem string
}

func (e *PayloadError) Error() string {
	message := e.Cause.Error() + ": at byte " + strconv.Itoa(e.Offset)
	if e.Problem != "" {
		message += ": " + e.Problem
	}
	return message
}

// Unwrap returns Cause.
func (e *PayloadError) Unwrap() error { return e.Cause }

// Event is one published event: immutable, and safe for use by many goroutines without a lock.
// It is written at most once per form in the ordinary course, when that form is first asked for.
type Event struct {
	channel   Channel
	id        string
	payload   []byte
	typ       string // refers to payload unless it held an escape
	timestamp span   // in payload; missing where there is none
	notice    bool   // a word of the gateway's own: never wrapped
	ends      bool   // nothing follows it

	number   uint64 // 0: the event must not be compressed
	packOver int    // a payload of more bytes is packed

	// forms holds what was written. Whoever comes first sets it; should two write at the same
	// time, the second throws its bytes away, so that all streams share one slice.
	forms [formPlainCount]atomic.Pointer[[]byte]
	// compressed is nil as long as nobody takes the event compressed.
	compressed atomic.Pointer[compressed]
}

// NewEvent makes an event of what was published on channel, which is no wildcard. The payload is
// kept, not copied: nobody may change it afterwards. It must be one JSON value in valid UTF-8,
// white space around it allowed; its size is the caller's to bound. id may be empty, which means
// that the event cannot be resumed from.
//
// Type and timestamp are looked for among the members of the payload where it is an object. As
// with JSON.parse in a browser, of several members of one name the last counts, names are
// compared byte by byte after unescaping, and a "type" that is not a string is no type.
//
// Errors are a [*PayloadError], [ErrBadID] or [ErrBadChannel].
func NewEvent(channel Channel, id string, payload []byte) (*Event, error) {
	if channel.IsZero() || channel.Wildcard() {
		return nil, newChannelError(channel.name, 0, "an event belongs to one channel, not to none and not to a wildcard")
	}
	if !validEventID(id) {
		return nil, ErrBadID
	}
	if !utf8.Valid(payload) {
		return nil, &PayloadError{Cause: ErrNotUTF8, Offset: invalidUTF8(payload)}
	}
	event := &Event{channel: channel, id: id, payload: payload}
	if err := event.read(); err != nil {
		return nil, err
	}
	return event, nil
}

// NewNotice makes an event of what the gateway itself has to say to all subscribers of a
// channel: a gap, a deleted, a batch, built by the Append functions of this package. It differs
// from NewEvent in that the message stands as it is in every form: FormText and FormEnvelope do
// not wrap it, though FormEnvelope puts a field "id" into it where there is an id, and FormSSE
// names it by its type although that is reserved. Never pass a publisher's payload to it.
func NewNotice(channel Channel, id string, message []byte) (*Event, error) {
	event, err := NewEvent(channel, id, message)
	if err != nil {
		return nil, err
	}
	event.notice = true
	return event, nil
}

// NewEnd makes the notice that ends a channel, and with it an event stream that gets it: its id is
// CHANNEL/end in every form of an event stream, FormSSEWithoutID included, and behind it stands what
// ends the stream in order ([AppendSSEEnd]). message is as [AppendComplete] writes it.
func NewEnd(channel Channel, message []byte) (*Event, error) {
	event, err := NewNotice(channel, string(AppendEndID(nil, channel.Name())), message)
	if err != nil {
		return nil, err
	}
	event.ends = true
	return event, nil
}

// Ends reports whether the event ends its channel: see [NewEnd].
func (e *Event) Ends() bool { return e.ends }

func validEventID(id string) bool {
	return len(id) <= EventIDBytesMax && !strings.ContainsAny(id, "\r\n\x00") && utf8.ValidString(id)
}

// invalidUTF8 returns the place of the first byte that is not UTF-8.
func invalidUTF8(text []byte) int {
	position := 0
	for position < len(text) {
		r, size := utf8.DecodeRune(text[position:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		position += size
	}
	return position
}

// read judges the payload and finds its type and timestamp in one pass.
func (e *Event) read() error {
	text := e.payload
	start := skipSpace(text, 0)
	if start == len(text) {
		return &PayloadError{Cause: ErrEmpty}
	}
	if text[start] != '{' {
		end, problem := skipValue(text, start, 0)
		w := walker{text: text, position: end, problem: problem}
		w.end()
		return w.payloadError()
	}
	var typ span
	w := walkObject(text, start)
	for w.next() {
		switch w.name() {
		case "type":
			typ = w.value
		case "timestamp":
			e.timestamp = w.value
		}
	}
	if w.end(); w.problem != problemNone {
		return w.payloadError()
	}
	e.typ, _ = stringValue(typ.of(text))
	return nil
}

// payloadError returns the walker's problem as an error, nil where there is none.
func (w *walker) payloadError() error {
	if w.problem == problemNone {
		return nil
	}
	return &PayloadError{Cause: ErrNotJSON, Offset: w.position, Problem: w.problem}
}

// Channel is where the event was published.
func (e *Event) Channel() Channel { return e.channel }

// ID is the event's id, or empty.
func (e *Event) ID() string { return e.id }

// Payload is what was published. It must not be changed.
func (e *Event) Payload() []byte { return e.payload }

// Type is the payload's "type" where that is a string, else empty. It can be of any length and
// hold any character; [Event.Bytes] puts it on an SSE event line only if it is a plain word.
func (e *Event) Type() string { return e.typ }

// Timestamp is when the publisher says that the event was: the payload's "timestamp", a string
// as of RFC 3339 or a number of milliseconds since 1970-01-01 UTC. False where there is none, it
// is something else, or its year is not 1 to 9999.
func (e *Event) Timestamp() (time.Time, bool) {
	if e.timestamp.missing() {
		return time.Time{}, false
	}
	raw := e.timestamp.of(e.payload)
	if text, ok := stringValue(raw); ok {
		at, err := time.Parse(time.RFC3339Nano, text)
		return at, err == nil
	}
	if raw[0] != '-' && !isDigit(raw[0]) {
		return time.Time{}, false
	}
	number := view(raw)
	if milliseconds, err := strconv.ParseInt(number, 10, 64); err == nil {
		return timeOf(float64(milliseconds), milliseconds, 0)
	}
	milliseconds, err := strconv.ParseFloat(number, 64)
	if err != nil { // out of range, as 1e400 is
		return time.Time{}, false
	}
	whole, part := math.Modf(milliseconds)
	return timeOf(whole, int64(whole), int64(part*1e6))
}

// timeOf returns the time that is so many milliseconds, and nanoseconds more, since 1970, if its
// year is one that RFC 3339 can write.
func timeOf(rough float64, milliseconds, nanoseconds int64) (time.Time, bool) {
	const first, last = -62135596800000, 253402300799999 // years 1 to 9999
	if rough < first || rough > last {
		return time.Time{}, false
	}
	return time.UnixMilli(milliseconds).Add(time.Duration(nanoseconds)), true
}

// Member gives what the payload, where it is an object, holds under name: the content of a string,
// or a number, true or false as it is written. False where there is no such member, or it is of
// another kind, or the payload is not JSON. Of several members of one name the last counts.
func Member(payload []byte, name string) (value string, ok bool) {
	w := walkObject(payload, 0)
	var found span
	for w.next() {
		if w.name() == name {
			found = w.value
		}
	}
	if w.end(); w.problem != problemNone || found.missing() {
		return "", false
	}
	raw := found.of(payload)
	switch raw[0] {
	case asciiQuoted:
		return stringValue(raw)
	case '{', '[', 'n':
		return "", false
	default:
		return view(raw), true
	}
}

// Bytes returns the event as it goes on a wire in the given form, written when first asked for.
// All callers share one slice per form, which nobody may change. form is below FormCount.
func (e *Event) Bytes(form Form) []byte {
	place := e.place(form)
	if written := place.Load(); written != nil {
		return *written
	}
	return e.write(form, place)
}

// place is where the bytes of a form are kept.
func (e *Event) place(form Form) *atomic.Pointer[[]byte] {
	if form < formPlainCount {
		return &e.forms[form]
	}
	return &e.compression().forms[form-formPlainCount]
}

// write writes a form and returns the bytes that all share: its own, or those of whoever was
// faster.
func (e *Event) write(form Form, place *atomic.Pointer[[]byte]) []byte {
	bytes := e.encode(form)
	if place.CompareAndSwap(nil, &bytes) {
		return bytes
	}
	return *place.Load()
}

func (e *Event) encode(form Form) []byte {
	switch form {
	case FormSSE, FormSSEPlain:
		if e.ends {
			return AppendSSEEnd(AppendSSE(nil, form, e.sseName(), e.id, e.payload), form)
		}
		return AppendSSE(nil, form, e.sseName(), e.id, e.payload)
	case FormSSEWithoutID:
		if e.ends {
			return e.Bytes(FormSSE) // the client must learn that it is over, whatever it missed
		}
		return AppendSSE(nil, FormSSE, e.sseName(), "", e.payload)
	case FormSSEPlainWithoutID:
		if e.ends {
			return e.Bytes(FormSSEPlain)
		}
		return AppendSSE(nil, FormSSEPlain, e.sseName(), "", e.payload)
	case FormText:
		if e.notice || !Reserved(e.typ) {
			return AppendFrame(nil, OpText, e.payload)
		}
		return e.Bytes(FormEnvelope)
	case FormEnvelope:
		if e.notice && e.id == "" {
			return e.Bytes(FormText)
		}
		if e.notice {
			return AppendFrame(nil, OpText, e.noticeWithID())
		}
		return e.encodeEnvelope(e.payload)
	default:
		return e.encodeCompressed(form)
	}
}

// noticeWithID is the message, an object, with the id as its first field: what SSE says in a line of
// its own, an envelope says inside.
func (e *Event) noticeWithID() []byte {
	dst := make([]byte, 0, len(`{"id":"",`)+len(e.id)+len(e.payload))
	dst = append(dst, `{"id":`...)
	dst = appendQuoted(dst, e.id)
	dst = append(dst, ',')
	return append(dst, e.payload[1:]...) // the Append functions begin with the brace
}

// encodeEnvelope writes head and message, with data in the payload's place, into one allocation of
// the right size.
func (e *Event) encodeEnvelope(data []byte) []byte {
	const frame = `{"type":"event","channel":"","id":"","data":}`
	size := len(frame) + len(e.channel.name) + len(e.id) + len(data)
	var escapes []byte
	if e.id != "" {
		var room [64]byte
		escapes = appendQuoted(room[:0], e.id)
		size += len(escapes) - len(e.id) - 2
	} else {
		size -= len(`"id":"",`)
	}
	dst := make([]byte, 0, size+serverHeaderBytesMax)
	dst = appendServerHeader(dst, OpText, size)
	dst = append(dst, `{"type":"event","channel":"`...)
	dst = append(dst, e.channel.name...) // holds nothing that JSON escapes
	dst = append(dst, '"', ',')
	if e.id != "" {
		dst = append(dst, `"id":`...)
		dst = append(dst, escapes...)
		dst = append(dst, ',')
	}
	dst = append(dst, `"data":`...)
	dst = append(dst, data...)
	return append(dst, '}')
}

// eventNameBytesMax bounds the name on an event line, in bytes.
const eventNameBytesMax = 64

// nameByte marks the bytes of plain words.
var nameByte = byteSet("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")

// sseName is the name for the event line: the payload's type if it is a plain word that is not
// reserved, else "message", for which no line is written.
func (e *Event) sseName() string {
	if e.typ == "" || len(e.typ) > eventNameBytesMax {
		return eventMessage
	}
	for i := range len(e.typ) {
		if !nameByte[e.typ[i]] {
			return eventMessage
		}
	}
	if !e.notice && Reserved(e.typ) {
		return eventMessage
	}
	return e.typ
}

// Reserved reports whether a payload's type is a word of the protocol's own, which a publisher
// may use but which must never be taken for the gateway's.
func Reserved(typ string) bool {
	switch typ {
	case "connected", "subscribed", "unsubscribed", "published", "pong", "error", "server_error",
		"gap", "replayed", "batch", "compressed", "deleted", "complete", "event", "open", "message",
		"refresh":
		return true
	}
	return false
}
