package council

import (
	"sync"
	"time"
)

// limitKeysMax bounds the users that are remembered. Beyond it all others share one place, so that a
// crowd of made-up names gains nothing.
const limitKeysMax = 100_000

// rateLimit lets each user begin so many councils a minute, as many at once (GCRA: of each user one
// time is kept, at which all that was begun is paid for).
type rateLimit struct {
	perMinute int

	mutex sync.Mutex
	paid  map[string]time.Time
	swept time.Time
}

func newRateLimit(perMinute int) *rateLimit {
	return &rateLimit{perMinute: perMinute, paid: make(map[string]time.Time)}
}

// take counts one more of a user, or says how long it has to wait.
func (l *rateLimit) take(key string, now time.Time) (wait time.Duration) {
	interval := time.Minute / time.Duration(l.perMinute)
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if now.Sub(l.swept) > time.Minute {
		l.swept = now
		for other, at := range l.paid {
			if at.Before(now) {
				delete(l.paid, other)
			}
		}
	}
	if _, known := l.paid[key]; !known && len(l.paid) >= limitKeysMax {
		key = ""
	}
	at := l.paid[key]
	if at.Before(now) {
		at = now
	}
	next := at.Add(interval)
	if ahead := next.Sub(now) - time.Minute; ahead > 0 {
		return ahead
	}
	l.paid[key] = next
	return 0
}
