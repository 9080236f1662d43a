package auth

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// originBytesMax bounds an Origin: the longest host name, a scheme and a port.
const originBytesMax = 300

// origin is a web origin (RFC 6454 4) in the one form in which two are compared: scheme and host
// in lower case, the port always there (0 for a scheme without a default port).
type origin struct {
	scheme, host string
	port         uint16
}

// Origins is the list of origins whose pages may connect besides the host's own. The zero value
// allows no other. It is immutable and safe for concurrent use.
type Origins struct {
	allowed map[origin]struct{}
}

// ParseOrigins reads exact origins, scheme://host or scheme://host:port. There is no wildcard:
// with credentials it would let every page of the web in. Other schemes than http and https are
// taken too, for applications that are no pages (capacitor://localhost). The error names what is
// wrong with which entry.
func ParseOrigins(list []string) (Origins, error) {
	origins := Origins{allowed: make(map[origin]struct{}, len(list))}
	for _, text := range list {
		parsed, err := parseOrigin(text)
		if err != nil {
			return Origins{}, fmt.Errorf("allowed origin %q: %w; write scheme://host or scheme://host:port", text, err)
		}
		origins.allowed[parsed] = struct{}{}
	}
	return origins, nil
}

func (o Origins) has(one origin) bool {
	_, allowed := o.allowed[one]
	return allowed
}

// CheckOrigin decides whether a page may use the request, before anything is done with it. A
// present Origin must be the Host's own or be allowed, exactly; "null" and two Origins never are.
// With a cookie (source) an absent Origin needs Sec-Fetch-Site: same-origin in its place; without
// one it is no page that asks. The error is a [*Refusal] with the code bad_origin.
//
// The Host's own means the same host and port, and the same scheme where the scheme that the page
// sees is known: TLS here, or X-Forwarded-Proto from one of the trusted proxies. Elsewhere http
// and https both count, because a proxy that ends TLS may be in between; a browser that says
// Sec-Fetch-Site otherwise (same host, other scheme or port) is believed.
func CheckOrigin(r *http.Request, source Source, allowed Origins, trusted Proxies) error {
	fetchSite := r.Header.Get("Sec-Fetch-Site")
	values := r.Header["Origin"]
	if len(values) == 0 {
		if source == SourceCookie && fetchSite != "same-origin" {
			return &Refusal{Reason: OriginMissing, message: "a cookie counts only with an Origin header or Sec-Fetch-Site: same-origin; send the token in Authorization instead"}
		}
		return nil
	}
	if len(values) > 1 {
		return refuseOrigin("the request has more than one Origin header")
	}
	page, err := parseOrigin(values[0])
	if err != nil {
		return refuseOrigin("the Origin header is refused: " + err.Error())
	}
	if allowed.has(page) {
		return nil
	}
	if !page.isHost(r.Host, publicScheme(r, trusted)) {
		return refuseOrigin("pages of this origin may not connect; it must be the Host itself or be listed in allowed-origins")
	}
	if fetchSite != "" && fetchSite != "same-origin" {
		return refuseOrigin("the browser says that the page is not of the same origin (scheme and port count); list it in allowed-origins if it may connect")
	}
	return nil
}

// Opens reports whether a browser says that it asks for a document to show in a window of its own,
// not in a frame and not by a script (Fetch Metadata, Sec-Fetch-Mode and Sec-Fetch-Dest).
func Opens(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) &&
		r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

func refuseOrigin(message string) error {
	return &Refusal{Reason: OriginForeign, message: message}
}

// isHost reports whether the origin is the one that a request to host came to; an empty scheme
// stands for http or https.
func (o origin) isHost(host, scheme string) bool {
	if o.scheme != "http" && o.scheme != "https" {
		return false
	}
	if scheme != "" && o.scheme != scheme {
		return false
	}
	name, port, err := parseHost(host, defaultPort(o.scheme))
	return err == nil && name == o.host && port == o.port
}

// publicScheme is the scheme that the page sees, or "" if nobody who can be believed says it.
func publicScheme(r *http.Request, trusted Proxies) string {
	if r.TLS != nil {
		return "https"
	}
	if !trusted.Contains(peerAddress(r)) {
		return ""
	}
	if scheme := r.Header.Get("X-Forwarded-Proto"); scheme == "http" || scheme == "https" {
		return scheme
	}
	return ""
}

// parseOrigin reads the serialization of RFC 6454 6.2, strictly. The error holds no part of text.
func parseOrigin(text string) (origin, error) {
	switch {
	case text == "null":
		return origin{}, errors.New("null stands for any page that hides where it comes from")
	case strings.Contains(text, "*"):
		return origin{}, errors.New("wildcards are not supported")
	case len(text) > originBytesMax:
		return origin{}, errors.New("too long")
	}
	scheme, host, found := strings.Cut(text, "://")
	if !found {
		return origin{}, errors.New("it has no scheme")
	}
	scheme = strings.ToLower(scheme)
	if !isScheme(scheme) {
		return origin{}, errors.New("the scheme is none")
	}
	name, port, err := parseHost(host, defaultPort(scheme))
	if err != nil {
		return origin{}, err
	}
	return origin{scheme: scheme, host: name, port: port}, nil
}

// isScheme holds RFC 3986 3.1, for lower case.
func isScheme(scheme string) bool {
	for position := range len(scheme) {
		b := scheme[position]
		if 'a' <= b && b <= 'z' {
			continue
		}
		if position == 0 || ((b < '0' || b > '9') && b != '+' && b != '-' && b != '.') {
			return false
		}
	}
	return scheme != ""
}

func defaultPort(scheme string) uint16 {
	switch scheme {
	case "http":
		return 80
	case "https":
		return 443
	default:
		return 0
	}
}

// parseHost reads host or host:port (RFC 3986 3.2.2, 3.2.3), the host as an ASCII name or an
// address, IPv6 in brackets. What follows a name in a URL (user, path, query) has no place.
func parseHost(text string, port uint16) (string, uint16, error) {
	host, digits, hasPort := text, "", false
	if colon := strings.LastIndexByte(text, ':'); colon > strings.LastIndexByte(text, ']') {
		host, digits, hasPort = text[:colon], text[colon+1:], true
	}
	if hasPort {
		number, err := strconv.ParseUint(digits, 10, 16)
		if err != nil || number == 0 || digits[0] == '+' || digits[0] == '0' {
			return "", 0, errors.New("the port is no number from 1 to 65535")
		}
		port = uint16(number)
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		address, err := netip.ParseAddr(host[1 : len(host)-1])
		if err != nil || !address.Is6() || address.Zone() != "" {
			return "", 0, errors.New("the address in brackets is no IPv6 address")
		}
		return "[" + address.String() + "]", port, nil
	}
	if !isHostName(host) {
		return "", 0, errors.New("the host is no name or address (international names as xn--)")
	}
	return strings.ToLower(host), port, nil
}

// isHostName is stricter than RFC 3986's reg-name: the letters, digits, dots, hyphens and
// underscores that host names in use are made of.
func isHostName(host string) bool {
	for position := range len(host) {
		b := host[position]
		switch {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b == '.', b == '-', b == '_':
		default:
			return false
		}
	}
	return host != ""
}
