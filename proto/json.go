package proto

import (
	"encoding/binary"
	"math/bits"
)

// This file reads JSON (RFC 8259) without building anything: one pass that judges the text and
// tells where the members of an object are. It exists beside sonic because sonic.Valid lets
// control characters and unknown escapes in strings pass, which JSON.parse in a browser refuses,
// and because a walk that stops early is what bounds a hostile message. Where a string has to be
// unescaped, sonic does it.

// jsonDepthMax bounds how deep arrays and objects nest; encoding/json draws the same line.
const jsonDepthMax = 10_000

// The problems of a text that is not JSON. They repeat nothing of the text.
const (
	problemNone       = ""
	problemEnd        = "the JSON text ends early"
	problemValue      = "a JSON value was expected"
	problemLiteral    = "only true, false and null are words in JSON"
	problemNumber     = "a malformed number"
	problemControl    = "a control character in a string; write it as an escape"
	problemEscape     = "an unknown escape in a string"
	problemKey        = "a member's name in double quotes was expected"
	problemColon      = "a colon was expected"
	problemCommaBrace = "a comma or } was expected"
	problemCommaList  = "a comma or ] was expected"
	problemTrailing   = "something follows the JSON value"
	problemDeep       = "arrays and objects nest deeper than 10,000"
	problemNotObject  = "a JSON object was expected"
	problemNotList    = "a JSON array was expected"
)

// span is a value's place in a text: text[span.start:span.end].
type span struct{ start, end int }

func (s span) of(text []byte) []byte { return text[s.start:s.end] }
func (s span) missing() bool         { return s.end == 0 }

// skipSpace returns the first place from position on that is no white space (RFC 8259, 2).
func skipSpace(text []byte, position int) int {
	for position < len(text) {
		switch text[position] {
		case ' ', '\n', '\r', '\t':
			position++
		default:
			return position
		}
	}
	return position
}

const (
	asciiQuoted   = '"'
	asciiEscape   = '\\'
	controlsBelow = 0x20

	// For looking at eight bytes at once.
	wordBytes    = 8
	everyByte    = 0x0101010101010101
	everyHigh    = 0x8080808080808080
	everyQuote   = asciiQuoted * everyByte
	everyEscape  = asciiEscape * everyByte
	everyControl = controlsBelow * everyByte
)

// skipString returns the place behind the closing quote of the string whose first byte, behind
// the opening quote, is at position (RFC 8259, 7). escaped tells whether it holds an escape.
// On a problem, end is where.
func skipString(text []byte, position int) (end int, escaped bool, problem string) {
	for {
		// Eight bytes at a time while none of them is a quote, a backslash or a control
		// character. A borrow can only mark a byte above one that is truly marked.
		for position+wordBytes <= len(text) {
			word := binary.LittleEndian.Uint64(text[position:])
			quotes, escapes := word^everyQuote, word^everyEscape
			found := (quotes-everyByte)&^quotes | (escapes-everyByte)&^escapes | (word-everyControl)&^word
			if found &= everyHigh; found != 0 {
				position += bits.TrailingZeros64(found) / 8
				break
			}
			position += wordBytes
		}
		if position >= len(text) {
			return len(text), escaped, problemEnd
		}
		switch c := text[position]; {
		case c == asciiQuoted:
			return position + 1, escaped, problemNone
		case c == asciiEscape:
			escaped = true
			if position, problem = skipEscape(text, position+1); problem != problemNone {
				return position, escaped, problem
			}
		case c < controlsBelow:
			return position, escaped, problemControl
		default:
			position++
		}
	}
}

// skipEscape returns the place behind the escape whose backslash is just before position.
func skipEscape(text []byte, position int) (end int, problem string) {
	if position >= len(text) {
		return len(text), problemEnd
	}
	switch text[position] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return position + 1, problemNone
	case 'u':
		for i := position + 1; i < position+5; i++ {
			if i >= len(text) {
				return len(text), problemEnd
			}
			if !isHex(text[i]) {
				return i, problemEscape
			}
		}
		return position + 5, problemNone
	}
	return position, problemEscape
}

func isHex(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// skipDigits returns the first place from position on that is no digit.
func skipDigits(text []byte, position int) int {
	for position < len(text) && isDigit(text[position]) {
		position++
	}
	return position
}

// skipNumber returns the place behind the number at position (RFC 8259, 6).
func skipNumber(text []byte, position int) (end int, problem string) {
	if text[position] == '-' {
		position++
	}
	end = skipDigits(text, position)
	if end == position {
		return problemAt(text, end)
	}
	if text[position] == '0' && end > position+1 {
		return position + 1, problemNumber
	}
	if end < len(text) && text[end] == '.' {
		position = end + 1
		if end = skipDigits(text, position); end == position {
			return problemAt(text, end)
		}
	}
	if end < len(text) && (text[end] == 'e' || text[end] == 'E') {
		position = end + 1
		if position < len(text) && (text[position] == '+' || text[position] == '-') {
			position++
		}
		if end = skipDigits(text, position); end == position {
			return problemAt(text, end)
		}
	}
	return end, problemNone
}

func problemAt(text []byte, position int) (int, string) {
	if position >= len(text) {
		return len(text), problemEnd
	}
	return position, problemNumber
}

// skipLiteral returns the place behind word, which must be at position.
func skipLiteral(text []byte, position int, word string) (end int, problem string) {
	if len(text)-position < len(word) {
		return len(text), problemEnd
	}
	if string(text[position:position+len(word)]) != word {
		return position, problemLiteral
	}
	return position + len(word), problemNone
}

// skipScalar returns the place behind the string, number or literal at position.
func skipScalar(text []byte, position int) (end int, problem string) {
	switch c := text[position]; c {
	case asciiQuoted:
		end, _, problem = skipString(text, position+1)
		return end, problem
	case 't':
		return skipLiteral(text, position, "true")
	case 'f':
		return skipLiteral(text, position, "false")
	case 'n':
		return skipLiteral(text, position, "null")
	default:
		if c == '-' || isDigit(c) {
			return skipNumber(text, position)
		}
	}
	return position, problemValue
}

// skipKey returns the place of the value whose member's name is expected at position: behind the
// name, the colon and white space. key is the name without its quotes.
func skipKey(text []byte, position int) (value int, key span, escaped bool, problem string) {
	if position >= len(text) {
		return len(text), span{}, false, problemEnd
	}
	if text[position] != asciiQuoted {
		return position, span{}, false, problemKey
	}
	end, escaped, problem := skipString(text, position+1)
	if problem != problemNone {
		return end, span{}, escaped, problem
	}
	key = span{position + 1, end - 1}
	end = skipSpace(text, end)
	if end >= len(text) {
		return len(text), key, escaped, problemEnd
	}
	if text[end] != ':' {
		return end, key, escaped, problemColon
	}
	return skipSpace(text, end+1), key, escaped, problemNone
}

// nesting remembers which brackets are open, a bit each, without recursion: the innermost 64 in
// one word, those outside of it in a slice that only a deep text needs.
type nesting struct {
	depth int
	inner uint64
	outer []uint64
}

func (n *nesting) open(object bool) {
	if n.depth > 0 && n.depth%64 == 0 {
		n.outer = append(n.outer, n.inner)
	}
	n.inner <<= 1
	if object {
		n.inner |= 1
	}
	n.depth++
}

func (n *nesting) close() {
	n.depth--
	n.inner >>= 1
	if n.depth > 0 && n.depth%64 == 0 {
		n.inner = n.outer[len(n.outer)-1]
		n.outer = n.outer[:len(n.outer)-1]
	}
}

func (n *nesting) inObject() bool { return n.inner&1 != 0 }

// closer is the bracket that closes the innermost open one.
func (n *nesting) closer() byte {
	if n.inObject() {
		return '}'
	}
	return ']'
}

// skipValue returns the place behind the JSON value at position, which is no white space.
// depth is how many brackets are open around it. It takes linear time and no stack, however
// deep the value. On a problem, end is where.
func skipValue(text []byte, position, depth int) (end int, problem string) {
	var open nesting
	for {
		if position >= len(text) {
			return len(text), problemEnd
		}
		empty := false
		switch c := text[position]; c {
		case '{', '[':
			if depth+open.depth >= jsonDepthMax {
				return position, problemDeep
			}
			open.open(c == '{')
			position = skipSpace(text, position+1)
			if position >= len(text) {
				return len(text), problemEnd
			}
			if empty = text[position] == open.closer(); !empty {
				position, problem = skipToValue(text, position, &open)
			}
		default:
			position, problem = skipScalar(text, position)
			empty = true
		}
		if problem != problemNone {
			return position, problem
		}
		if !empty {
			continue
		}
		position, problem = skipAfterValue(text, position, &open)
		if problem != problemNone || open.depth == 0 {
			return position, problem
		}
	}
}

// skipToValue returns the place of the next member's or element's value, past its name.
func skipToValue(text []byte, position int, open *nesting) (value int, problem string) {
	if !open.inObject() {
		return position, problemNone
	}
	value, _, _, problem = skipKey(text, position)
	return value, problem
}

// skipAfterValue goes on behind a value: past the brackets that close now, past a comma, to the
// next value; or, when nothing is open any more, to the end of the whole value.
func skipAfterValue(text []byte, position int, open *nesting) (next int, problem string) {
	for open.depth > 0 {
		position = skipSpace(text, position)
		if position >= len(text) {
			return len(text), problemEnd
		}
		switch c := text[position]; {
		case c == ',':
			return skipToValue(text, skipSpace(text, position+1), open)
		case c == open.closer():
			open.close()
			position++
		case open.inObject():
			return position, problemCommaBrace
		default:
			return position, problemCommaList
		}
	}
	return position, problemNone
}
