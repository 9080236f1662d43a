package gateway

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/millrace/millrace/netio"
)

// Streams are sent away evenly, so that their clients, who come back at once, do not all come in the
// same second: drainRate of them a second, or as many more as it takes to be done in half of
// DrainTimeout. The other half is for those that are slow to leave.
const (
	drainRate    = 1000
	drainStep    = 20 * time.Millisecond // between two orders to the loops
	drainPerTurn = 256                   // streams of a loop that are told to go in one turn, at most
)

// drainOrder is posted to a loop that is to send its streams away: those in the first so many of its
// slots. The part of the last order is 1.
type drainOrder struct{ part float64 }

// drainCursor is how far a loop has come in sending its streams away.
type drainCursor struct {
	next  netio.Slot // the first that was not looked at
	until netio.Slot // the first that stays for now
}

// goOnDrain takes an order. Streams that arrive in a slot behind the cursor are sent away as they come.
func (s *sessions) goOnDrain(order drainOrder) {
	s.drain.next = max(s.drain.next, 1)
	s.drain.until = netio.Slot(order.part*float64(s.highest)) + 1
}

// drainSome sends the next few streams away, in order: WebSocket 1012, SSE a time to retry at and
// the end of the body. Their clients come back, to another gateway or to this one's successor.
func (s *sessions) drainSome() (more bool) {
	for range drainPerTurn {
		if s.drain.next >= s.drain.until {
			return false
		}
		slot := s.drain.next
		s.drain.next++
		if s.at(slot).flags&sessionHere != 0 && s.loop.Open(slot) {
			s.leave(slot)
		}
	}
	return true
}

// drainTime is how long the streams that there are now take to be sent away.
func (g *Gateway) drainTime() time.Duration {
	whole := time.Duration(g.admission.total.Load()) * time.Second / drainRate
	if timeout := g.options.Limits.DrainTimeout; timeout != NoLimit {
		return min(whole, timeout/2)
	}
	return whole
}

// sendAway has all loops send their streams away within a time, and returns when all are told.
func (g *Gateway) sendAway(within time.Duration) {
	start := time.Now()
	tick := time.NewTicker(drainStep)
	defer tick.Stop()
	for {
		part := 1.0
		if passed := time.Since(start); passed < within {
			part = float64(passed) / float64(within)
		}
		for _, loop := range g.loops {
			_ = loop.PostAlways(drainOrder{part}) // one a step; a closed loop has no streams
		}
		if part == 1 {
			return
		}
		<-tick.C
	}
}

// drainAll is the orderly end: readiness goes first, then new connections are refused, then the
// streams are sent away, one after the other; all of it at most DrainTimeout long.
func (g *Gateway) drainAll() error {
	g.handing.Lock() // a hand-over that is under way ends first
	defer g.handing.Unlock()
	start := time.Now()
	g.draining.Store(true)
	ctx, cancel := context.WithCancel(context.Background())
	if timeout := g.options.Limits.DrainTimeout; timeout != NoLimit {
		ctx, cancel = context.WithTimeout(ctx, timeout)
	}
	defer cancel()
	g.logger.Info("draining", "streams", g.admission.total.Load(), "timeout", g.options.Limits.DrainTimeout)
	g.desk.StopAccepting()
	var away sync.WaitGroup
	away.Go(func() { g.sendAway(g.drainTime()) })
	deskErr := g.desk.Shutdown(ctx)
	away.Wait()
	left := g.waitForStreams(ctx)
	g.councils.drain(ctx)
	if g.adminDesk != nil {
		_ = g.adminDesk.Shutdown(ctx)
	}
	g.logger.Info("drained", "took", time.Since(start).Round(time.Millisecond), "cut", left)
	if deskErr != nil {
		return fmt.Errorf("drain: %w", deskErr)
	}
	return nil
}

// retiredTimeMax bounds how long a gateway whose streams were handed over stays for its councils, which
// have a bound of their own below it.
const retiredTimeMax = 15 * time.Minute

// retire ends a gateway whose streams and listeners another process has: requests are answered, streams
// that were ending come to their end, each for DrainTimeout at most, and councils are heard out.
func (g *Gateway) retire(ctx context.Context) error {
	start := time.Now()
	limited, cancel := context.WithTimeout(ctx, retiredTimeMax)
	defer cancel()
	requests := limited
	if timeout := g.options.Limits.DrainTimeout; timeout != NoLimit {
		var end context.CancelFunc
		requests, end = context.WithTimeout(limited, timeout)
		defer end()
	}
	err := g.desk.Shutdown(requests)
	if g.adminDesk != nil {
		_ = g.adminDesk.Shutdown(requests)
	}
	left := g.waitForStreams(requests)
	g.councils.drain(limited)
	g.logger.Info("retired", "took", time.Since(start).Round(time.Millisecond), "cut", left)
	if err != nil {
		return fmt.Errorf("retire: %w", err)
	}
	return nil
}

// waitForStreams waits until no stream is left or ctx is done, and says how many are.
func (g *Gateway) waitForStreams(ctx context.Context) int64 {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for g.admission.total.Load() > 0 {
		select {
		case <-ctx.Done():
			return g.admission.total.Load()
		case <-tick.C:
		}
	}
	return 0
}
