package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// garbageRoom is how much garbage may gather before a collection, at least: with a few
	// megabytes alive, the runtime's default would collect after every few hundred handshakes.
	garbageRoom    = 16 << 20
	collectPercent = 100 // of the living heap, once that is larger than garbageRoom
	collectLook    = 5 * time.Second
	// boundPercent is how much of what bounds the process's memory Go's heap may take before it is
	// collected more often: less than where the gateway begins to refuse, so that garbage is no reason.
	boundPercent = 70
)

// tuneCollector lets a small heap gather garbageRoom before it is collected, and a large one as
// much as is alive. A GOGC of the user's own is left alone. GOMEMLIMIT, or [boundCollector], bounds both.
func tuneCollector(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	tick := time.NewTicker(collectLook)
	defer tick.Stop()
	for {
		metrics.Read(sample)
		debug.SetGCPercent(collectorPercent(sample[0].Value.Uint64()))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// collectorPercent is the GOGC for a heap of which live bytes were alive at the last collection.
func collectorPercent(live uint64) int {
	const smallest = 4 << 20 // below it the runtime counts as if it were this much
	return int(max(collectPercent, garbageRoom*100/max(live, smallest)))
}

// boundCollector has the collector keep the heap within its share of a bound, in bytes. A GOMEMLIMIT of
// the user's own is left alone.
func boundCollector(bound int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(bound / 100 * boundPercent)
	}
}
