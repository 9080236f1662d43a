package proto

// Codes of errors and refusals, the same over HTTP, in WebSocket errors and in the SSE event
// server_error. Clients switch on them, so none ever changes.
const (
	CodeBadRequest           = "bad_request"
	CodeBadChannel           = "bad_channel"
	CodeUnauthorized         = "unauthorized"
	CodeAccessDenied         = "access_denied"
	CodeBadOrigin            = "bad_origin"
	CodeTooManyConnections   = "too_many_connections"
	CodeTooManySubscriptions = "too_many_subscriptions"
	CodeRateLimited          = "rate_limited"
	CodeUnknownCommand       = "unknown_command"
	CodeBrokerUnavailable    = "broker_unavailable"
	CodeDraining             = "draining"
	CodeOverloaded           = "overloaded"
	CodeTokenExpired         = "token_expired"
	CodeMethodNotAllowed     = "method_not_allowed"
	CodeUpgradeRequired      = "upgrade_required"
	CodeVersionUnsupported   = "version_unsupported"
)

// GapReason says why events may be missing.
type GapReason uint8

const (
	// GapSlow: the client was too slow, and what it could not take was dropped.
	GapSlow GapReason = iota
	// GapBroker: Redis, or the way to it, may have lost something.
	GapBroker
	// GapTrimmed: Redis no longer holds what came next.
	GapTrimmed
	// GapRewound: the log in Redis is not the one that the position was in.
	GapRewound
	// GapUnknownPosition: the position given is none that this gateway can go on from.
	GapUnknownPosition
	// GapReasonCount is the number of reasons, for tables indexed by GapReason.
	GapReasonCount
)

var gapReasons = [GapReasonCount]string{"slow", "broker", "trimmed", "rewound", "unknown_position"}

// String is the reason's name on the wire.
func (r GapReason) String() string {
	if r < GapReasonCount {
		return gapReasons[r]
	}
	return "unknown_reason"
}
