package auth

import (
	"net/http"
	"strings"
)

// preflightSeconds is how long a browser may keep the answer to a preflight.
const preflightSeconds = "600"

// CORS adds to an answer's header what lets the request's page read it (Fetch 3.2): its exact
// origin if it is allowed, with credentials, and nothing otherwise. Vary names Origin in every
// case, so that no cache gives one page's answer to another. Call it for every answer, errors
// included, that a page might read; a second call changes nothing.
func (o Origins) CORS(header http.Header, r *http.Request) {
	addVary(header, "Origin")
	if page := o.allowedPage(r); page != "" {
		header.Set("Access-Control-Allow-Origin", page)
		header.Set("Access-Control-Allow-Credentials", "true")
		header.Set("Access-Control-Expose-Headers", "Retry-After")
	}
}

// AppendCORS appends what [Origins.CORS] adds, as header lines, for an answer that is written by
// hand.
func (o Origins) AppendCORS(dst []byte, r *http.Request) []byte {
	if page := o.allowedPage(r); page != "" {
		dst = append(dst, "Access-Control-Allow-Credentials: true\r\nAccess-Control-Allow-Origin: "...)
		dst = append(dst, page...) // which is an origin, and holds nothing that ends a line
		dst = append(dst, "\r\nAccess-Control-Expose-Headers: Retry-After\r\n"...)
	}
	return append(dst, "Vary: Origin\r\n"...)
}

// allowedPage is the request's origin if it is one of those allowed, else "".
func (o Origins) allowedPage(r *http.Request) string {
	values := r.Header["Origin"]
	if len(values) != 1 {
		return ""
	}
	if page, err := parseOrigin(values[0]); err != nil || !o.has(page) {
		return ""
	}
	return values[0]
}

// Preflight adds to the answer to a preflight what [Origins.CORS] adds and, if the origin is
// allowed, which methods and headers the page may use. methods are those of the route.
func (o Origins) Preflight(header http.Header, r *http.Request, methods ...string) {
	o.CORS(header, r)
	addVary(header, "Access-Control-Request-Method", "Access-Control-Request-Headers")
	if header.Get("Access-Control-Allow-Origin") == "" {
		return
	}
	header.Set("Access-Control-Allow-Methods", strings.Join(methods, ", "))
	header.Set("Access-Control-Allow-Headers", "Authorization, Last-Event-ID, Content-Type")
	header.Set("Access-Control-Max-Age", preflightSeconds)
}

// addVary adds names that Vary does not hold yet.
func addVary(header http.Header, names ...string) {
	for _, name := range names {
		if !varies(header, name) {
			header.Add("Vary", name)
		}
	}
}

func varies(header http.Header, name string) bool {
	for _, line := range header["Vary"] {
		for held := range strings.SplitSeq(line, ",") {
			if held = strings.TrimSpace(held); held == "*" || strings.EqualFold(held, name) {
				return true
			}
		}
	}
	return false
}
