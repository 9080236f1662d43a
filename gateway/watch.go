package gateway

import (
	"context"
	"time"
)

// WatchLoops calls feed about once every interval, for as long as every loop turns, until ctx is
// done or another process has the streams, which is to be watched from then on. It is made for a
// watchdog that ends the process when nobody feeds it. While a loop leaves a
// question unanswered nothing is fed, and the log says so once an interval. feed runs on the
// caller's goroutine.
func (g *Gateway) WatchLoops(ctx context.Context, interval time.Duration, feed func()) {
	tick := time.NewTicker(max(interval, time.Millisecond))
	defer tick.Stop()
	ended := func() bool { return ctx.Err() != nil || g.lifetime.Err() != nil || g.isHandedOver() }
	for !ended() {
		err := g.loopsTurn(ctx, interval)
		switch {
		case ended():
			return
		case err == nil:
			feed()
		default:
			g.logger.Error("a loop does not turn, so the watchdog is not fed", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		case <-g.handedOver:
		}
	}
}

// isHandedOver reports whether another process has the streams.
func (g *Gateway) isHandedOver() bool {
	select {
	case <-g.handedOver:
		return true
	default:
		return false
	}
}
