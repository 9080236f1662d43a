package gateway_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
)

// lineCounter is a slog.Handler that counts lines of level error.
type lineCounter struct{ lines atomic.Int64 }

func (*lineCounter) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelError
}

func (c *lineCounter) Handle(context.Context, slog.Record) error {
	c.lines.Add(1)
	return nil
}

func (c *lineCounter) WithAttrs([]slog.Attr) slog.Handler { return c }

func (c *lineCounter) WithGroup(string) slog.Handler { return c }

// TestWatchLoops: a watchdog is fed while every loop turns, and not while one of several is stuck.
func TestWatchLoops(t *testing.T) {
	t.Parallel()
	for stuck, name := range []string{"the first", "the last"} {
		t.Run(name, func(t *testing.T) {
			var misses lineCounter
			h := serve(t, gateway.Options{Loops: 2, Logger: slog.New(&misses)})
			ctx, cancel := context.WithCancel(t.Context())
			var feeds atomic.Int64
			watched := make(chan struct{})
			go func() {
				defer close(watched)
				h.WatchLoops(ctx, 20*time.Millisecond, func() { feeds.Add(1) })
			}()
			defer func() {
				cancel()
				<-watched
			}()
			within(t, patience, "it is fed, again and again", func() bool { return feeds.Load() >= 3 })

			release := h.StickLoop(stuck)
			before := misses.lines.Load()
			// The second question from here on was asked of a loop that was stuck already.
			within(t, patience, "the log says that it is not fed", func() bool { return misses.lines.Load() >= before+2 })
			fed := feeds.Load()
			within(t, patience, "the log says so again", func() bool { return misses.lines.Load() >= before+4 })
			if more := feeds.Load() - fed; more > 0 {
				t.Errorf("it was fed %d times while a loop was stuck", more)
			}
			release()
			within(t, patience, "it is fed again", func() bool { return feeds.Load() > fed })
		})
	}
}

// TestWatchLoopsEnds with the gateway, whose loops do not turn any more and are not missed.
func TestWatchLoopsEnds(t *testing.T) {
	t.Parallel()
	var misses lineCounter
	h := serve(t, gateway.Options{Logger: slog.New(&misses)})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		h.WatchLoops(context.Background(), time.Millisecond, func() {})
	}()
	h.stop(t)
	select {
	case <-watched:
	case <-time.After(patience):
		t.Fatal("it watches loops that have ended")
	}
}
