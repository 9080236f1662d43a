package gateway

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/proto"
)

// refusalCode is why a request was refused: the code in the answer, and the counter.
type refusalCode uint8

const (
	refuseBadRequest refusalCode = iota
	refuseBadChannel
	refuseUnauthorized
	refuseAccessDenied
	refuseBadOrigin
	refuseNotFound
	refuseMethod
	refuseTooLarge
	refuseMediaType
	refuseUpgrade
	refuseVersion
	refuseTooManyConnections
	refuseRateLimited
	refuseDraining
	refuseOverloaded
	refuseBroker
	refusalCount
)

// refusals gives each code its name and its HTTP status (contract: errors).
var refusals = [refusalCount]struct {
	name   string
	status int
}{
	{proto.CodeBadRequest, http.StatusBadRequest},
	{proto.CodeBadChannel, http.StatusBadRequest},
	{proto.CodeUnauthorized, http.StatusUnauthorized},
	{proto.CodeAccessDenied, http.StatusForbidden},
	{proto.CodeBadOrigin, http.StatusForbidden},
	{"not_found", http.StatusNotFound},
	{proto.CodeMethodNotAllowed, http.StatusMethodNotAllowed},
	{"too_large", http.StatusRequestEntityTooLarge},
	{"unsupported_media_type", http.StatusUnsupportedMediaType},
	{proto.CodeUpgradeRequired, http.StatusUpgradeRequired},
	{proto.CodeVersionUnsupported, http.StatusHTTPVersionNotSupported},
	{proto.CodeTooManyConnections, http.StatusTooManyRequests},
	{proto.CodeRateLimited, http.StatusTooManyRequests},
	{proto.CodeDraining, http.StatusServiceUnavailable},
	{proto.CodeOverloaded, http.StatusServiceUnavailable},
	{proto.CodeBrokerUnavailable, http.StatusServiceUnavailable},
}

// refusalCounts counts refusals by code.
type refusalCounts [refusalCount]atomic.Uint64

// refusal is a request's refusal: what is wrong, and what to do about it.
type refusal struct {
	code    refusalCode
	message string
	header  http.Header // may be nil
}

func (r *refusal) Error() string { return refusals[r.code].name + ": " + r.message }

func refuse(code refusalCode, message string) *refusal { return &refusal{code: code, message: message} }

// refusalOf words an error of the packages below as a refusal.
func refusalOf(err error) *refusal {
	var own *refusal
	var who *auth.Refusal
	var handshake *proto.UpgradeError
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &who):
		return refuse(codeNamed(who.Code()), who.Error())
	case errors.As(err, &handshake):
		return &refusal{code: codeNamed(handshake.Code), message: handshake.Message, header: handshake.Header}
	case errors.Is(err, proto.ErrBadChannel):
		return refuse(refuseBadChannel, err.Error())
	default:
		return refuse(refuseBadRequest, err.Error())
	}
}

func codeNamed(name string) refusalCode {
	for code := range refusals {
		if refusals[code].name == name {
			return refusalCode(code)
		}
	}
	return refuseBadRequest
}

// answer writes r as the answer to a request and counts it.
func (g *Gateway) answer(w http.ResponseWriter, r *http.Request, refused *refusal) {
	g.refused[refused.code].Add(1)
	g.origins.CORS(w.Header(), r)
	for name, values := range refused.header {
		w.Header()[name] = values
	}
	what := refusals[refused.code]
	switch what.status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", "Bearer")
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if w.Header().Get("Retry-After") == "" {
			w.Header().Set("Retry-After", strconv.Itoa(1+rand.IntN(3)))
		}
	}
	answerJSON(w, what.status, map[string]any{"error": map[string]string{"code": what.name, "message": refused.message}})
	g.logger.Debug("request refused", "method", r.Method, "path", r.URL.Path, "code", what.name)
}

// answerJSON writes value as JSON. What cannot be encoded is a defect.
func answerJSON(w http.ResponseWriter, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}

// answerLater tells an EventSource to come back: any status but 200 would make it give up for
// good, so it gets a stream that says when to retry, and ends.
func (g *Gateway) answerLater(w http.ResponseWriter, r *http.Request, code refusalCode) {
	g.refused[code].Add(1)
	g.origins.CORS(w.Header(), r)
	setStreamHeader(w.Header())
	w.Header().Set("Connection", "close")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(proto.AppendSSERetry(nil, proto.FormSSEPlain, g.retryWait()))
}

// setStreamHeader sets what a parked event stream says by [proto.AppendSSEHead].
func setStreamHeader(header http.Header) {
	header.Set("Content-Type", "text/event-stream; charset=utf-8")
	header.Set("Cache-Control", "no-store, no-transform")
	header.Set("X-Accel-Buffering", "no")
}

// retryWait is how long an SSE client is told to wait before it comes back: 3 s as in the seed,
// spread, so that those who left together do not return together.
func (g *Gateway) retryWait() time.Duration {
	return retryTime + time.Duration(rand.Int64N(int64(retryTime)))
}

const retryTime = 3 * time.Second

// methodRefusal says which methods would do.
func methodRefusal(methods []string) *refusal {
	allow := strings.Join(methods, ", ")
	return &refusal{
		code: refuseMethod, message: "this route takes " + allow,
		header: http.Header{"Allow": {allow}},
	}
}
