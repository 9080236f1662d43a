package netio

import (
	"bytes"
	"net/http"
	"strconv"
)

// deskFault is why a request is refused before any handler sees it.
type deskFault struct {
	status  int
	code    string // of the JSON error body
	message string // says what was wrong and what to do; holds nothing that the client sent
	refusal Refusal
}

func badRequest(message string) *deskFault {
	return &deskFault{http.StatusBadRequest, "bad_request", message, RefusedBadRequest}
}

// Faults are made once: refusing must be cheap.
var (
	faultURITooLong   = &deskFault{http.StatusRequestURITooLong, "uri_too_long", "the request line is longer than this server takes; shorten the URL", RefusedURITooLong}
	faultHeadTooLarge = &deskFault{http.StatusRequestHeaderFieldsTooLarge, "headers_too_large", "the request's headers are longer than this server takes; send fewer or shorter ones", RefusedHeadTooLarge}
	faultTooManyLines = &deskFault{http.StatusRequestHeaderFieldsTooLarge, "headers_too_large", "the request has more header lines than this server takes; send fewer", RefusedHeadTooLarge}
	faultBodyTooLarge = &deskFault{http.StatusRequestEntityTooLarge, "body_too_large", "the request's body is longer than this server takes; send less", RefusedBodyTooLarge}
	faultVersion      = &deskFault{http.StatusHTTPVersionNotSupported, "version_not_supported", "this server speaks HTTP/1.1 and HTTP/1.0 only", RefusedVersion}
	faultExpectation  = &deskFault{http.StatusExpectationFailed, "expectation_failed", "the only Expect this server knows is 100-continue", RefusedExpectation}
	faultTimeout      = &deskFault{http.StatusRequestTimeout, "request_timeout", "the request did not arrive in time; send it at once", RefusedHandshakeSlow}

	faultTLS          = badRequest("this looks like TLS, but the port speaks plain HTTP; use http:// or a proxy that ends TLS")
	faultPreface      = badRequest("this server does not speak HTTP/2 without a proxy; use HTTP/1.1")
	faultGarbage      = badRequest("this is not an HTTP request")
	faultControl      = badRequest("a control character stands in the request's head")
	faultLineFeed     = badRequest("a line of the request's head ends in LF alone; end lines with CR LF")
	faultBareReturn   = badRequest("a CR without LF stands in the request's head")
	faultRequestLine  = badRequest("the request line is not: method, space, path, space, version")
	faultMethod       = badRequest("this server is not a proxy: CONNECT is refused")
	faultTarget       = badRequest("the path must begin with / and hold printable ASCII only, without # or backslash")
	faultEscape       = badRequest("a % in the URL is not followed by two hex digits")
	faultCanonical    = badRequest("the path is not in canonical form: no empty, . or .. segments, and no escapes for what needs none")
	faultAsterisk     = badRequest("the target * goes with OPTIONS only")
	faultAuthority    = badRequest("the URL's authority differs from the Host header")
	faultFolded       = badRequest("a header line is folded or indented; send each header on one line")
	faultColon        = badRequest("a header line has no colon")
	faultHeaderName   = badRequest("a header's name is empty or holds characters that names may not hold")
	faultLength       = badRequest("Content-Length is not a decimal number")
	faultBothLengths  = badRequest("Content-Length and Transfer-Encoding exclude each other")
	faultCoding       = badRequest("the only Transfer-Encoding this server knows is chunked, once")
	faultCodingOnOld  = badRequest("Transfer-Encoding needs HTTP/1.1")
	faultBody         = badRequest("a GET or HEAD request with a body is refused")
	faultNoHost       = badRequest("the Host header is missing")
	faultHost         = badRequest("the Host header is not a host with an optional port")
	faultUnparsable   = badRequest("the request's head could not be parsed")
	faultBodyNotAsked = badRequest("the request's body could not be read")
)

// Headers that this package looks at, or that must not occur twice because one of the copies
// would be checked and the other one used.
const (
	headContentLength = iota
	headTransferEncoding
	headHost
	headOrigin
	headAuthorization
	headWebSocketKey
	headWebSocketVersion
	headExpect
	headUpgrade
	headOther
)

// headKnown must be in the order of the constants above.
var headKnown = [headOther]struct {
	name   string
	single bool
	twice  *deskFault
}{
	{"Content-Length", true, badRequest("Content-Length occurs twice")},
	{"Transfer-Encoding", true, badRequest("Transfer-Encoding occurs twice")},
	{"Host", true, badRequest("Host occurs twice")},
	{"Origin", true, badRequest("Origin occurs twice")},
	{"Authorization", true, badRequest("Authorization occurs twice")},
	{"Sec-WebSocket-Key", true, badRequest("Sec-WebSocket-Key occurs twice")},
	{"Sec-WebSocket-Version", true, badRequest("Sec-WebSocket-Version occurs twice")},
	{"Expect", false, nil},
	{"Upgrade", false, nil},
}

// headLimits bounds a head; see [DeskOptions].
type headLimits struct {
	bytesMax, linesMax int
	bodyBytesMax       int64
}

// headScan reads a request's head before net/http does, since http.ReadRequest lets through
// what proxies and servers are known to disagree on (both lengths at once, folded lines, line
// ends of one's own): RFC 9112 sections 2 to 6. It is resumable, holds no reference to the
// bytes, and judges a line as soon as it is there. The zero value is ready.
type headScan struct {
	next      int // offset of the first byte not looked at
	line      int // offset of the first byte of the current line
	begin     int // offset of the request line (a CR LF before it is skipped, RFC 9112 2.2)
	lines     int // header lines so far
	inHeaders bool

	isGet, isHead, isOptions bool
	minor                    int // of the HTTP version: 0 or 1
	targetBegin, targetEnd   int // offsets
	hostBegin, hostEnd       int // offsets
	seen                     uint16
	contentLength            int64 // -1: not declared
	chunked                  bool
	expectContinue           bool
	upgrade                  bool
}

// advance looks at what is new in data, which holds the head from its first byte on. It returns
// the length of the head once it is complete, 0 while more is needed, or the fault.
func (h *headScan) advance(data []byte, limits headLimits) (end int, fault *deskFault) {
	if h.next == 0 && len(data) > 0 {
		h.contentLength = -1
		if fault := firstByteFault(data[0]); fault != nil {
			return 0, fault
		}
	}
	within := data[:min(len(data), limits.bytesMax)]
	for {
		at := h.next + plainPrefix(within[h.next:])
		h.next = at
		switch {
		case at == len(within) && len(within) < len(data):
			return 0, h.tooLong()
		case at == len(within):
			return 0, nil
		case within[at] == '\n':
			return 0, faultLineFeed
		case within[at] != '\r':
			return 0, faultControl
		case at+1 == len(data):
			return 0, nil // the LF is still to come
		case data[at+1] != '\n':
			return 0, faultBareReturn
		case at+1 == len(within):
			return 0, h.tooLong()
		}
		h.next = at + 2
		done, fault := h.endLine(data, data[h.line:at], limits)
		if fault != nil {
			return 0, fault
		}
		h.line = h.next
		if done {
			return h.line, h.conclude(data, limits)
		}
	}
}

// plainPrefix is the length of what holds no control character but the tab.
func plainPrefix(data []byte) int {
	for i, b := range data {
		if b < ' ' && b != '\t' || b == 0x7f {
			return i
		}
	}
	return len(data)
}

func (h *headScan) tooLong() *deskFault {
	if h.inHeaders {
		return faultHeadTooLarge
	}
	return faultURITooLong
}

// firstByteFault refuses at once what cannot become a request, so that a client that speaks
// another protocol and waits for an answer does not wait until the deadline.
func firstByteFault(b byte) *deskFault {
	const tlsHandshake = 0x16
	switch {
	case b == tlsHandshake:
		return faultTLS
	case b == '\r' || tokenBytes[b]:
		return nil
	case b == '\n':
		return faultLineFeed
	}
	return faultGarbage
}

// endLine takes in one complete line, and says whether it was the empty one that ends the head.
func (h *headScan) endLine(data, line []byte, limits headLimits) (done bool, fault *deskFault) {
	if !h.inHeaders {
		if len(line) == 0 {
			if h.line > 0 {
				return false, faultGarbage // more than one empty line before the request line
			}
			h.begin = h.next
			return false, nil
		}
		h.inHeaders = true
		return false, h.requestLine(line, h.line)
	}
	if len(line) == 0 {
		return true, nil
	}
	h.lines++
	if h.lines > limits.linesMax {
		return false, faultTooManyLines
	}
	return false, h.headerLine(line, h.line)
}

// requestLine takes in "method SP request-target SP HTTP-version" (RFC 9112 3), each separated by
// exactly one space.
func (h *headScan) requestLine(line []byte, offset int) *deskFault {
	method, rest, found := bytes.Cut(line, []byte{' '})
	if !found || !isToken(method) {
		return faultRequestLine
	}
	target, version, found := bytes.Cut(rest, []byte{' '})
	if !found {
		return faultRequestLine
	}
	switch string(version) {
	case "HTTP/1.1":
		h.minor = 1
	case "HTTP/1.0":
		h.minor = 0
	default:
		if string(method) == "PRI" && string(version) == "HTTP/2.0" {
			return faultPreface
		}
		if isVersion(version) {
			return faultVersion
		}
		return faultRequestLine
	}
	switch string(method) {
	case "GET":
		h.isGet = true
	case "HEAD":
		h.isHead = true
	case "OPTIONS":
		h.isOptions = true
	case "CONNECT":
		return faultMethod
	}
	h.targetBegin = offset + len(method) + 1
	h.targetEnd = h.targetBegin + len(target)
	if string(target) == "*" {
		if !h.isOptions {
			return faultAsterisk
		}
		return nil
	}
	return targetFault(target)
}

// isVersion says whether version is an HTTP-version (RFC 9112 2.3), if perhaps not one of ours.
func isVersion(version []byte) bool {
	const form = "HTTP/d.d"
	if len(version) != len(form) {
		return false
	}
	for i, b := range version {
		if form[i] == 'd' && (b < '0' || b > '9') || form[i] != 'd' && b != form[i] {
			return false
		}
	}
	return true
}

// headerLine takes in one field line (RFC 9112 5): no space before the colon, no folding.
func (h *headScan) headerLine(line []byte, offset int) *deskFault {
	if line[0] == ' ' || line[0] == '\t' {
		return faultFolded
	}
	name, value, found := bytes.Cut(line, []byte{':'})
	if !found {
		return faultColon
	}
	if !isToken(name) {
		return faultHeaderName
	}
	known := knownHeader(name)
	if known == headOther {
		return nil
	}
	if headKnown[known].single && h.seen&(1<<known) != 0 {
		return headKnown[known].twice
	}
	h.seen |= 1 << known
	trimmed := bytes.TrimLeft(value, " \t")
	begin := offset + len(line) - len(trimmed)
	trimmed = bytes.TrimRight(trimmed, " \t")
	return h.knownValue(known, trimmed, begin)
}

// knownHeader finds a header of headKnown by its name.
func knownHeader(name []byte) int {
	first := name[0] | 0x20 // lower case, if it is a letter
	for i := range headKnown {
		known := headKnown[i].name
		if len(known) == len(name) && known[0]|0x20 == first && bytes.EqualFold(name, []byte(known)) {
			return i
		}
	}
	return headOther
}

// knownValue takes in the value of a header that this package has to understand. begin is its offset.
func (h *headScan) knownValue(known int, value []byte, begin int) *deskFault {
	switch known {
	case headContentLength:
		length, ok := parseLength(value)
		if !ok {
			return faultLength
		}
		h.contentLength = length
	case headTransferEncoding:
		if !bytes.EqualFold(value, []byte("chunked")) {
			return faultCoding
		}
		h.chunked = true
	case headHost:
		if !isHost(value) {
			return faultHost
		}
		h.hostBegin, h.hostEnd = begin, begin+len(value)
	case headExpect:
		if !bytes.EqualFold(value, []byte("100-continue")) {
			return faultExpectation
		}
		h.expectContinue = true
	case headUpgrade:
		h.upgrade = len(value) > 0
	}
	return nil
}

// parseLength reads 1*DIGIT (RFC 9110 8.6); strconv alone would take a sign.
func parseLength(value []byte) (length int64, ok bool) {
	for _, b := range value {
		if b < '0' || b > '9' {
			return 0, false
		}
	}
	length, err := strconv.ParseInt(string(value), 10, 64)
	return length, err == nil
}

// conclude judges the head as a whole.
func (h *headScan) conclude(data []byte, limits headLimits) *deskFault {
	hasHost := h.seen&(1<<headHost) != 0
	switch {
	case h.minor == 1 && !hasHost:
		return faultNoHost
	case h.chunked && h.contentLength >= 0:
		return faultBothLengths
	case h.chunked && h.minor == 0:
		return faultCodingOnOld
	case (h.isGet || h.isHead) && (h.chunked || h.contentLength > 0):
		return faultBody
	case h.contentLength > limits.bodyBytesMax:
		return faultBodyTooLarge
	}
	target := data[h.targetBegin:h.targetEnd]
	if authority, absolute := cutAuthority(target); absolute {
		if !bytes.EqualFold(authority, data[h.hostBegin:h.hostEnd]) || !hasHost {
			return faultAuthority
		}
	}
	return nil
}

// hasBody says whether bytes of a body follow the head.
func (h *headScan) hasBody() bool { return h.chunked || h.contentLength > 0 }

// isAbsolute says whether the target is in absolute-form (RFC 9112 3.2.2).
func (h *headScan) isAbsolute(data []byte) bool {
	return data[h.targetBegin] != '/' && data[h.targetBegin] != '*'
}
