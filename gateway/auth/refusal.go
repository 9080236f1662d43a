package auth

import (
	"log/slog"
	"net/http"
)

// Reason says why a request or a token was refused. Its names are a bounded set, fit for a metric
// label and a log line; a client is never told the reason of a bad token.
type Reason uint8

const (
	// Malformed is a token that is no signed JWT: not three parts, not base64url, not JSON, a
	// header parameter of the wrong type.
	Malformed Reason = iota
	// TooLong is a token of more than [TokenBytesMax] bytes; it is refused unread.
	TooLong
	// Algorithm is a token whose algorithm is not the one pinned to its key, "none" included, or
	// whose header makes an extension critical (RFC 7515 4.1.11: none is understood here).
	Algorithm
	// Signature is a signature that does not verify.
	Signature
	// Expired is a token whose exp lies in the past by more than the skew.
	Expired
	// NotYetValid is a token whose nbf lies in the future by more than the skew.
	NotYetValid
	// Audience is a token without the configured audience.
	Audience
	// Issuer is a token without the configured issuer.
	Issuer
	// Subject is a token whose user claim is absent, empty, too long or no plain text.
	Subject
	// Claims is a token with a claim of the wrong form: exp that is no number or is absent where
	// it is required, channels that are no patterns, admin that is no boolean.
	Claims
	// KeyUnknown is a token whose key is not in the key set.
	KeyUnknown
	// KeyFetch is a token whose key could not be looked up: the key set is out of reach.
	KeyFetch

	// Credentials is a request that carries a credential twice, in two versions, or in a form
	// that is none.
	Credentials
	// OriginForeign is a page of an origin that is neither the host's own nor allowed.
	OriginForeign
	// OriginMissing is a cookie that came without proof of the page it came from.
	OriginMissing
	// HostForeign is a Host that is no loopback name, at a gateway without authentication.
	HostForeign
	// Forwarded is a request that came through a proxy, at a gateway without authentication.
	Forwarded
	// MediaType is a body that is not declared as application/json.
	MediaType

	// ReasonCount is the number of reasons: each Reason is smaller.
	ReasonCount
)

var reasonNames = [ReasonCount]string{
	"malformed", "too_long", "algorithm", "signature", "expired", "not_yet_valid", "audience",
	"issuer", "subject", "claims", "key_unknown", "key_fetch",
	"credentials", "origin_foreign", "origin_missing", "host_foreign", "forwarded", "media_type",
}

// String gives the name of the reason in snake case.
func (r Reason) String() string {
	if r >= ReasonCount {
		return "unknown"
	}
	return reasonNames[r]
}

// Refusal is the error of every function of this package that judges a request or a token. It is
// immutable and may be shared.
type Refusal struct {
	// Reason is for the log and the counter.
	Reason Reason
	// message is what the client may read; empty for every reason that concerns a token.
	message string
}

// The refusals of tokens hold nothing but their reason, so one of each is enough for all.
var tokenRefusals = func() (all [Credentials]*Refusal) {
	for reason := range all {
		all[reason] = &Refusal{Reason: Reason(reason)}
	}
	return all
}()

// refuseToken gives the shared refusal of one of the token reasons.
func refuseToken(reason Reason) *Refusal { return tokenRefusals[reason] }

// Error is what the client may be told. For every bad token it is the same word.
func (r *Refusal) Error() string {
	if r.message == "" {
		return "unauthorized"
	}
	return r.message
}

// Code is the error code of the HTTP answer: unauthorized, bad_request, bad_origin or
// unsupported_media_type.
func (r *Refusal) Code() string {
	switch r.Reason {
	case Credentials:
		return "bad_request"
	case OriginForeign, OriginMissing, HostForeign, Forwarded:
		return "bad_origin"
	case MediaType:
		return "unsupported_media_type"
	default:
		return "unauthorized"
	}
}

// Status is the status code of the HTTP answer: 401, 400, 403 or 415.
func (r *Refusal) Status() int {
	switch r.Reason {
	case Credentials:
		return http.StatusBadRequest
	case OriginForeign, OriginMissing, HostForeign, Forwarded:
		return http.StatusForbidden
	case MediaType:
		return http.StatusUnsupportedMediaType
	default:
		return http.StatusUnauthorized
	}
}

// LogValue logs the reason, which the message of a bad token does not tell.
func (r *Refusal) LogValue() slog.Value { return slog.StringValue(r.Reason.String()) }
