package broker

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	backoffMin = 100 * time.Millisecond
	backoffMax = 5 * time.Second
	// backoffForget is how long things must have gone well for the next fault to be met with the
	// shortest wait again: without it a server that cuts us right after every connect, for its
	// output buffer limit say, would be met ten times a second.
	backoffForget = 10 * time.Second
)

// backoff grows from backoffMin to backoffMax; its jitter keeps a fleet from returning at once.
// It belongs to one goroutine.
type backoff struct {
	next time.Duration
}

// step returns how long to wait now, between half and all of the growing bound.
func (b *backoff) step() time.Duration {
	bound := max(b.next, backoffMin)
	b.next = min(2*bound, backoffMax)
	return jitter(bound)
}

func (b *backoff) reset() { b.next = 0 }

// jitter returns a random time between half of d and d.
func jitter(d time.Duration) time.Duration {
	if d <= 1 {
		return d
	}
	return d/2 + rand.N(d/2)
}

// pause waits for d, for kick if that is not nil, or for the end of ctx, and reports whether ctx
// still lives.
func pause(ctx context.Context, d time.Duration, kick <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-kick:
	case <-ctx.Done():
		return false
	}
	return ctx.Err() == nil
}
