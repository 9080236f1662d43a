package auth

import (
	"mime"
	"net/http"
	"net/netip"
	"strings"
)

// Guard keeps web pages away from a gateway without authentication, which trusts whoever reaches
// it: a page in a browser on the same machine reaches it too.
type Guard struct {
	// AnyHost is for a gateway that was told to serve more than loopback all the same
	// (insecure-no-auth): the Host may be any, and requests may come through a proxy. A present
	// Origin still must match the Host.
	AnyHost bool
	// Allowed lists further origins.
	Allowed Origins
}

// Check decides whether a request may be served without authentication. The Host must be a
// loopback name, by which a page whose own name was made to resolve to this machine (DNS
// rebinding) is found out; a present Origin must be of the Host or be allowed; nothing may have
// come through a proxy. publishing is set for requests that publish: their body must be declared
// as application/json, which a form can't do and which costs other pages a preflight. The error
// is a [*Refusal].
func (g Guard) Check(r *http.Request, publishing bool) error {
	if !g.AnyHost {
		if name, _, err := parseHost(r.Host, 80); err != nil || !isLoopbackName(name) {
			return &Refusal{Reason: HostForeign, message: "without authentication only a loopback Host is served (localhost, 127.0.0.1, [::1]); configure authentication, or set insecure-no-auth"}
		}
		if Forwards(r) {
			return &Refusal{Reason: Forwarded, message: "without authentication no request is served that came through a proxy; configure authentication, or set insecure-no-auth"}
		}
	}
	if err := CheckOrigin(r, SourceNone, g.Allowed, Proxies{}); err != nil {
		return err
	}
	if publishing && !IsJSON(r) {
		return &Refusal{Reason: MediaType, message: "publishing needs Content-Type: application/json"}
	}
	return nil
}

// Forwards reports whether the request came through a proxy that says so: Forwarded (RFC 7239),
// Via, X-Real-IP or any X-Forwarded header. The client is then somebody else than the peer.
func Forwards(r *http.Request) bool {
	for name := range r.Header {
		switch name {
		case "Forwarded", "Via", "X-Real-Ip":
			return true
		}
		if strings.HasPrefix(name, "X-Forwarded-") {
			return true
		}
	}
	return false
}

// IsJSON reports whether the body is declared, once, as application/json.
func IsJSON(r *http.Request) bool {
	values := r.Header["Content-Type"]
	if len(values) != 1 {
		return false
	}
	mediaType, _, err := mime.ParseMediaType(values[0])
	return err == nil && mediaType == "application/json"
}

// isLoopbackName reports whether a host, without its port, names this machine by definition:
// localhost and its subdomains (RFC 6761 6.3), 127.0.0.0/8 and ::1.
func isLoopbackName(host string) bool {
	host = strings.ToLower(host)
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	address, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && address.IsLoopback()
}
