package proto

import (
	"strconv"
	"unicode/utf8"
	"unsafe"

	"github.com/bytedance/sonic/unquote"
)

// walker steps through the members of an object or the elements of an array, judging the text
// as it goes. When next returns false, either problem tells what is wrong at position, or the
// text was good and position is behind the closing bracket.
type walker struct {
	text     []byte
	position int
	problem  string
	key      span // of the member's name, without its quotes
	escaped  bool // the name holds an escape
	value    span
	object   bool
	started  bool
}

// walkObject prepares to walk the object at position (white space may come before it).
func walkObject(text []byte, position int) walker {
	return newWalker(text, position, '{', problemNotObject)
}

// walkList prepares to walk the array at position (white space may come before it).
func walkList(text []byte, position int) walker {
	return newWalker(text, position, '[', problemNotList)
}

func newWalker(text []byte, position int, bracket byte, otherwise string) walker {
	w := walker{text: text, position: skipSpace(text, position), object: bracket == '{'}
	switch {
	case w.position >= len(text):
		w.problem = problemEnd
	case text[w.position] != bracket:
		w.problem = otherwise
	default:
		w.position++
	}
	return w
}

// next steps to the next member or element.
func (w *walker) next() bool {
	if w.problem != problemNone {
		return false
	}
	w.position = skipSpace(w.text, w.position)
	if w.position >= len(w.text) {
		w.problem = problemEnd
		return false
	}
	closer, otherwise := byte(']'), problemCommaList
	if w.object {
		closer, otherwise = '}', problemCommaBrace
	}
	switch c := w.text[w.position]; {
	case c == closer:
		w.position++
		return false
	case !w.started:
		w.started = true
	case c == ',':
		w.position = skipSpace(w.text, w.position+1)
	default:
		w.problem = otherwise
		return false
	}
	if w.object {
		if w.position, w.key, w.escaped, w.problem = skipKey(w.text, w.position); w.problem != problemNone {
			return false
		}
	}
	start := w.position
	w.position, w.problem = skipValue(w.text, start, 1)
	w.value = span{start, w.position}
	return w.problem == problemNone
}

// name returns the member's name. It refers to the text unless the name holds an escape.
func (w *walker) name() string {
	name := view(w.key.of(w.text))
	if w.escaped {
		return unescape(name)
	}
	return name
}

// end checks that nothing but white space follows from position on.
func (w *walker) end() {
	if w.problem != problemNone {
		return
	}
	if w.position = skipSpace(w.text, w.position); w.position < len(w.text) {
		w.problem = problemTrailing
	}
}

// Members calls visit with each member of the object that text is, in its order, and reports
// whether text is one JSON object and nothing else. Until then visit may have seen members of a
// text that is none. name is what stands between the quotes, escapes and all; value is the
// member's JSON without the white space around it; both refer to text. UTF-8 is not judged, names
// may occur twice. It allocates nothing.
func Members(text []byte, visit func(name, value []byte)) bool {
	w := walkObject(text, 0)
	for w.next() {
		visit(w.key.of(text), w.value.of(text))
	}
	w.end()
	return w.problem == problemNone
}

// stringValue returns the content of a JSON string, quotes and all, and whether it is one. The
// text is known to be good. The content refers to the text unless it holds an escape.
func stringValue(text []byte) (content string, ok bool) {
	if len(text) < 2 || text[0] != asciiQuoted {
		return "", false
	}
	content = view(text[1 : len(text)-1])
	for i := range len(content) {
		if content[i] == asciiEscape {
			return unescape(content), true
		}
	}
	return content, true
}

// unescape undoes the escapes of a string's content, which is known to be good. The escape of
// half a surrogate pair becomes U+FFFD.
func unescape(content string) string {
	plain, err := unquote.String(content)
	if err != 0 {
		// Cannot be: skipString has seen every escape.
		return ""
	}
	return plain
}

// view lets bytes be read as a string without a copy: right as long as nobody changes them.
func view(text []byte) string { return unsafe.String(unsafe.SliceData(text), len(text)) }

// appendQuoted appends text as a JSON string in quotes (RFC 8259, 7). What is not UTF-8 becomes
// U+FFFD.
func appendQuoted(dst []byte, text string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, asciiQuoted)
	start := 0
	for i := 0; i < len(text); {
		c := text[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(text[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(dst, text[start:i]...)
				dst = append(dst, `\ufffd`...)
				start = i + 1
			}
			i += size
			continue
		}
		i++
		if c >= controlsBelow && c != asciiQuoted && c != asciiEscape {
			continue
		}
		dst = append(dst, text[start:i-1]...)
		switch c {
		case asciiQuoted, asciiEscape:
			dst = append(dst, asciiEscape, c)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, `\u00`...)
			dst = append(dst, hex[c>>4], hex[c&0xf])
		}
		start = i
	}
	dst = append(dst, text[start:]...)
	return append(dst, asciiQuoted)
}

// jsonProblem words a problem and its place.
func jsonProblem(problem string, position int) string {
	return problem + " at byte " + strconv.Itoa(position)
}
