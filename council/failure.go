package council

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Kind is why a model gave no score, as metrics spell it.
type Kind uint8

// The kinds.
const (
	Scored      Kind = iota // it did
	NoScore                 // its answer did not end as it was asked to
	TooLong                 // it said more than is taken
	Declined                // it would not answer
	RateLimited             // the provider's 429
	KeyRefused              // its 401 or 403
	Refused                 // another status under 500
	Failed                  // a status from 500 on, or an error in the middle of the answer
	BrokenOff               // the stream ended before the answer did
	BadFormat               // what came is not what the provider's protocol says
	Unreachable             // no connection, or it was lost
	TimedOut                // no whole answer in time
	Stopped                 // the council was ended
	KindCount
)

// String gives the kind in snake case.
func (k Kind) String() string {
	return [...]string{
		"scored", "no_score", "too_long", "declined", "rate_limited", "key_refused", "refused", "failed", "broken_off",
		"bad_format", "unreachable", "timed_out", "stopped",
	}[k]
}

// failure is why a model's answer is none. Its message is for viewers and holds nothing that came
// from outside but words that were checked to be plain; cause is for the operator's log.
type failure struct {
	kind    Kind
	message string
	cause   error
}

func (f *failure) Error() string { return f.message }

func (f *failure) Unwrap() error { return f.cause }

func fail(kind Kind, format string, arguments ...any) *failure {
	return &failure{kind: kind, message: fmt.Sprintf(format, arguments...)}
}

// Why a council ends before its models have.
var (
	errCancelled = errors.New("cancelled")
	errUnwatched = errors.New("nobody was watching any more")
	errDeadline  = errors.New("the council's time was over")
	errClosing   = errors.New("the gateway was stopped; ask again")
	errLost      = errors.New("the gateway that asked is gone; ask again")
)

// failureOf words an error of asking as a failure. ctx is that of the question, with timeout.
func failureOf(ctx context.Context, err error, timeout time.Duration) *failure {
	var known *failure
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, errTimeout):
		return fail(TimedOut, "no whole answer within %v", timeout)
	case errors.Is(cause, errDeadline):
		return fail(TimedOut, "%v", cause)
	case cause != nil:
		return fail(Stopped, "%v", cause)
	case errors.As(err, &known):
		return known
	}
	return &failure{kind: Unreachable, message: "the provider could not be reached, or the connection was lost", cause: withoutURL(err)}
}

// errTimeout is the cause that ends a question of a model whose own time is over.
var errTimeout = errors.New("council: timeout")

// withoutURL takes the address out of an error of net/http.
func withoutURL(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// statusFailure words an answer that is not 200. detail is the provider's own word for it, if it is
// a plain one.
func statusFailure(response *http.Response, detail string, now time.Time) *failure {
	what := strconv.Itoa(response.StatusCode)
	if detail = plainWord(detail); detail != "" {
		what += " " + detail
	}
	switch status := response.StatusCode; {
	case status == http.StatusTooManyRequests:
		if wait := retryAfter(response.Header.Get("Retry-After"), now); wait > 0 {
			return fail(RateLimited, "the provider is rate limiting this gateway (%s); try again in %v", what, wait)
		}
		return fail(RateLimited, "the provider is rate limiting this gateway (%s); try again later", what)
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return fail(KeyRefused, "the provider refuses this gateway's key (%s)", what)
	case status >= http.StatusInternalServerError:
		return fail(Failed, "the provider failed (%s)", what)
	default:
		return fail(Refused, "the provider refuses the request (%s)", what)
	}
}

// retryAfterMax is the longest wait that is repeated to a viewer.
const retryAfterMax = 24 * time.Hour

// retryAfter reads Retry-After (RFC 9110, 10.2.3), in whole seconds; 0 if it says nothing of use.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, retryAfterMax)
	}
	at, err := http.ParseTime(text)
	if err != nil || !at.After(now) {
		return 0
	}
	return min(at.Sub(now).Round(time.Second), retryAfterMax)
}

// plainWordBytesMax bounds a provider's word that is repeated.
const plainWordBytesMax = 48

// plainWord gives text if it is a word such as overloaded_error: nothing that could be a key, a part
// of a prompt or a sentence.
func plainWord(text string) string {
	if len(text) > plainWordBytesMax {
		return ""
	}
	for index := range len(text) {
		if c := text[index]; !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_') {
			return ""
		}
	}
	return text
}
