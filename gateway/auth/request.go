package auth

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Names under which a token travels.
const (
	// Subprotocol is what is answered to a WebSocket handshake that offers it.
	Subprotocol = "millrace.v1"
	// CookieName is the cookie that a token may come in.
	CookieName = "millrace_token"

	queryName         = "token"
	subprotocolPrefix = "bearer."
)

// Source says where a token was found.
type Source uint8

const (
	// SourceNone is no token: whoever asks is anonymous.
	SourceNone Source = iota
	// SourceHeader is Authorization: Bearer (RFC 6750 2.1).
	SourceHeader
	// SourceSubprotocol is the WebSocket subprotocol bearer.TOKEN.
	SourceSubprotocol
	// SourceQuery is ?token=.
	SourceQuery
	// SourceCookie is the cookie millrace_token. It alone is sent by a browser unasked, so it
	// alone needs proof of the page it comes from ([CheckOrigin]).
	SourceCookie
)

// String names the source as a log may.
func (s Source) String() string {
	switch s {
	case SourceNone:
		return "none"
	case SourceHeader:
		return "header"
	case SourceSubprotocol:
		return "subprotocol"
	case SourceQuery:
		return "query"
	case SourceCookie:
		return "cookie"
	default:
		return "unknown"
	}
}

// Credential is the token that a request carries.
type Credential struct {
	// Token is empty with SourceNone, and only then.
	Token  string
	Source Source
	// Subprotocol is what to answer as Sec-WebSocket-Protocol: [Subprotocol] if it was offered,
	// else empty.
	Subprotocol string
}

// Format prints the source and hides the token, whatever the verb.
func (c Credential) Format(state fmt.State, _ rune) {
	_, _ = fmt.Fprintf(state, "credential from %s", c.Source)
}

// FromRequest finds the token of a request. The header, the subprotocol and the query are what a
// caller chose to send: where more than one of them is there they must agree, or the request is
// refused as bad. The cookie is what a browser adds by itself: it counts only where there is none
// of the others. An empty ?token= or cookie is no token; an Authorization of another scheme than
// Bearer, which a proxy in between may have needed, is passed over. Every error is a [*Refusal]
// with the code bad_request.
func FromRequest(r *http.Request) (Credential, error) {
	var found Credential
	header, err := headerToken(r.Header)
	if err != nil {
		return Credential{}, err
	}
	if err := found.add(header, SourceHeader); err != nil {
		return Credential{}, err
	}
	protocol, offered, err := subprotocolToken(r.Header)
	if err != nil {
		return Credential{}, err
	}
	if offered {
		found.Subprotocol = Subprotocol
	}
	if err := found.add(protocol, SourceSubprotocol); err != nil {
		return Credential{}, err
	}
	query, err := queryToken(r.URL.RawQuery)
	if err != nil {
		return Credential{}, err
	}
	if err := found.add(query, SourceQuery); err != nil {
		return Credential{}, err
	}
	if found.Source != SourceNone {
		return found, nil
	}
	cookie, err := cookieToken(r)
	if err != nil {
		return Credential{}, err
	}
	if cookie != "" {
		found.Token, found.Source = cookie, SourceCookie
	}
	return found, nil
}

// add takes a token of one source; what is there already must be the same.
func (c *Credential) add(token string, source Source) error {
	switch {
	case token == "":
		return nil
	case c.Source == SourceNone:
		c.Token, c.Source = token, source
		return nil
	case c.Token != token:
		return refuseCredentials("the request carries different tokens (%s and %s); send one", c.Source, source)
	default:
		return nil
	}
}

func refuseCredentials(format string, arguments ...any) error {
	return &Refusal{Reason: Credentials, message: fmt.Sprintf(format, arguments...)}
}

// headerToken reads Authorization: Bearer. The scheme's name has no case (RFC 9110 11.1).
func headerToken(header http.Header) (string, error) {
	values := header["Authorization"]
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 {
		return "", refuseCredentials("the request has %d Authorization headers; send one", len(values))
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", nil
	}
	token = strings.Trim(token, " ")
	if token == "" || strings.ContainsAny(token, " \t,") {
		return "", refuseCredentials("Authorization: Bearer must be followed by one token")
	}
	return token, nil
}

// subprotocolToken reads the list of RFC 6455 11.3.4, which may be spread over several lines.
func subprotocolToken(header http.Header) (token string, offered bool, err error) {
	for _, line := range header["Sec-Websocket-Protocol"] {
		for name := range strings.SplitSeq(line, ",") {
			name = strings.Trim(name, " \t")
			if name == Subprotocol {
				offered = true
				continue
			}
			bearer, isBearer := strings.CutPrefix(name, subprotocolPrefix)
			if !isBearer {
				continue
			}
			if bearer == "" || (token != "" && token != bearer) {
				return "", false, refuseCredentials("Sec-WebSocket-Protocol must hold one bearer.TOKEN at most")
			}
			token = bearer
		}
	}
	if token != "" && !offered {
		return "", false, refuseCredentials("Sec-WebSocket-Protocol holds bearer.TOKEN but not %s, which is what would be answered; offer both", Subprotocol)
	}
	return token, offered, nil
}

// queryToken reads ?token= without parsing the rest of the query.
func queryToken(rawQuery string) (string, error) {
	if !mayHoldToken(rawQuery) {
		return "", nil
	}
	var token string
	seen := false
	for pair := range strings.SplitSeq(rawQuery, "&") {
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(rawName)
		if err != nil || name != queryName {
			continue // a broken name is for who parses the whole query to refuse
		}
		value, err := url.QueryUnescape(rawValue)
		if err != nil {
			return "", refuseCredentials("?token= holds a broken %%-escape")
		}
		if seen && value != token {
			return "", refuseCredentials("the query holds more than one token; send one")
		}
		token, seen = value, true
	}
	return token, nil
}

// mayHoldToken spares the usual query the work: the name is written plainly or with an escape.
func mayHoldToken(rawQuery string) bool {
	return strings.Contains(rawQuery, queryName) || strings.Contains(rawQuery, "%")
}

// cookieToken reads the cookie. A neighbour domain can add a second one of the same name, so two
// that differ are refused and not chosen between.
func cookieToken(r *http.Request) (string, error) {
	if len(r.Header["Cookie"]) == 0 {
		return "", nil
	}
	var token string
	for place, cookie := range r.CookiesNamed(CookieName) {
		if place > 0 && cookie.Value != token {
			return "", refuseCredentials("the request holds more than one cookie %s; clear them and sign in again", CookieName)
		}
		token = cookie.Value
	}
	return token, nil
}
