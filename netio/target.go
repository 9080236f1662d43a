package netio

import "bytes"

// targetFault judges a request-target. One canonical form reaches the handlers: "/a/b?query" with
// printable ASCII only, no empty, "." or ".." segments, and percent escapes only for what cannot
// stand for itself, so that whoever compares paths (a route, a proxy's rule, an access check)
// compares the same bytes. absolute-form is taken (RFC 9112 3.2.2 demands it) and cut down to
// this form.
func targetFault(target []byte) *deskFault {
	path := target
	if authority, absolute := cutAuthority(target); absolute {
		path = target[bytes.Index(target, []byte("//"))+2+len(authority):]
		if len(path) == 0 || !isHost(authority) || len(authority) == 0 {
			return faultTarget
		}
	}
	if len(path) == 0 || path[0] != '/' {
		return faultTarget
	}
	path, query, _ := bytes.Cut(path, []byte{'?'})
	if fault := escapesFault(path, true); fault != nil {
		return fault
	}
	if fault := escapesFault(query, false); fault != nil {
		return fault
	}
	return segmentsFault(path)
}

// cutAuthority takes the authority from a target in absolute-form.
func cutAuthority(target []byte) (authority []byte, absolute bool) {
	for _, scheme := range []string{"http://", "https://"} {
		if len(target) >= len(scheme) && bytes.EqualFold(target[:len(scheme)], []byte(scheme)) {
			rest := target[len(scheme):]
			if end := bytes.IndexAny(rest, "/?"); end >= 0 {
				rest = rest[:end]
			}
			return rest, true
		}
	}
	return nil, false
}

// escapesFault checks the characters and percent escapes of a path or a query. In a path what
// needs no escape must not have one (RFC 3986 6.2.2.2), and what must not be there may not come
// as an escape either: controls, slash, backslash.
func escapesFault(part []byte, isPath bool) *deskFault {
	for i := 0; i < len(part); i++ {
		b := part[i]
		if b <= ' ' || b >= 0x7f || b == '#' || isPath && b == '\\' {
			return faultTarget
		}
		if b != '%' {
			continue
		}
		if i+2 >= len(part) {
			return faultEscape
		}
		high, low := hexValue(part[i+1]), hexValue(part[i+2])
		if high < 0 || low < 0 {
			return faultEscape
		}
		if isPath && !mayBeEscaped(byte(high<<4|low)) {
			return faultCanonical
		}
		i += 2
	}
	return nil
}

func mayBeEscaped(b byte) bool {
	switch {
	case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9':
		return false
	case b < ' ' || b == 0x7f:
		return false
	}
	return bytes.IndexByte([]byte(`-._~/\`), b) < 0
}

// segmentsFault refuses empty, "." and ".." segments. A slash at the end is fine.
func segmentsFault(path []byte) *deskFault {
	rest := path[1:]
	for {
		segment, after, more := bytes.Cut(rest, []byte{'/'})
		if len(segment) == 0 && more || string(segment) == "." || string(segment) == ".." {
			return faultCanonical
		}
		if !more {
			return nil
		}
		rest = after
	}
}

func hexValue(b byte) int {
	switch {
	case '0' <= b && b <= '9':
		return int(b - '0')
	case 'a' <= b && b <= 'f':
		return int(b-'a') + 10
	case 'A' <= b && b <= 'F':
		return int(b-'A') + 10
	}
	return -1
}

// isHost says whether value is made of what a host and port are made of (RFC 9110 7.2). An empty
// Host is legal.
func isHost(value []byte) bool {
	for _, b := range value {
		if !hostBytes[b] {
			return false
		}
	}
	return true
}

// isToken says whether value is a token (RFC 9110 5.6.2).
func isToken(value []byte) bool {
	for _, b := range value {
		if !tokenBytes[b] {
			return false
		}
	}
	return len(value) > 0
}

var (
	tokenBytes = byteSet("!#$%&'*+-.^_`|~")
	hostBytes  = byteSet("-._~:[]")
)

// byteSet is the letters, the digits and others.
func byteSet(others string) (set [256]bool) {
	for b := '0'; b <= '9'; b++ {
		set[b] = true
	}
	for b := 'a'; b <= 'z'; b++ {
		set[b], set[b-'a'+'A'] = true, true
	}
	for _, b := range []byte(others) {
		set[b] = true
	}
	return set
}
