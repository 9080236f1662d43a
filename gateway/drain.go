package gateway

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace/millrace/netio"
)

// drainPerTurn is how many streams of a loop are told to go in one turn.
const drainPerTurn = 256

// drainOrder is posted to a loop that is to send its streams away.
type drainOrder struct{}

// drainCursor is how far a loop has come in sending its streams away.
type drainCursor struct {
	under bool
	next  netio.Slot
}

func (s *sessions) beginDrain() { s.drain = drainCursor{under: true, next: 1} }

// drainSome sends the next few streams away, in order: WebSocket 1012, SSE a time to retry at and
// the end of the body. Their clients come back, to another gateway or to this one's successor.
func (s *sessions) drainSome() (more bool) {
	if !s.drain.under {
		return false
	}
	for range drainPerTurn {
		if s.drain.next > s.highest {
			s.drain.under = false // later arrivals are sent away as they come
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

// drainAll is the orderly end: readiness goes first, then new connections are refused, then the
// streams are sent away, at most DrainTimeout long.
func (g *Gateway) drainAll() error {
	start := time.Now()
	g.draining.Store(true)
	ctx, cancel := context.WithCancel(context.Background())
	if timeout := g.options.Limits.DrainTimeout; timeout != NoLimit {
		ctx, cancel = context.WithTimeout(ctx, timeout)
	}
	defer cancel()
	g.logger.Info("draining", "streams", g.admission.total.Load(), "timeout", g.options.Limits.DrainTimeout)
	g.desk.StopAccepting()
	for _, loop := range g.loops {
		_ = loop.Post(drainOrder{})
	}
	deskErr := g.desk.Shutdown(ctx)
	left := g.waitForStreams(ctx)
	if g.adminDesk != nil {
		_ = g.adminDesk.Shutdown(ctx)
	}
	g.logger.Info("drained", "took", time.Since(start).Round(time.Millisecond), "cut", left)
	if deskErr != nil {
		return fmt.Errorf("drain: %w", deskErr)
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
