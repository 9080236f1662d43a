package gateway

import (
	"context"
	"runtime/debug"
	"time"
)

const (
	trimLook     = 500 * time.Millisecond // between two looks
	trimArrivals = 500                    // arrivals that leave enough garbage behind to be worth a collection
	trimQuiet    = 20                     // arrivals between two looks that still count as quiet
)

// trim gives memory back after a wave of arrivals. A handshake leaves some kilobytes of garbage
// behind, a stream a few hundred bytes of living memory; the collector, which only allocation
// sets off, would let the garbage of the last wave stand for as long as the crowd is idle. It
// collects once, when the wave is over: with slabs that hold no pointers that takes about a
// millisecond for 10,000 streams.
func (g *Gateway) trim(ctx context.Context) {
	tick := time.NewTicker(trimLook)
	defer tick.Stop()
	var last, trimmed uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		arrivals := g.desk.Stats().Parked
		if arrivals-last <= trimQuiet && arrivals-trimmed >= trimArrivals {
			debug.FreeOSMemory()
			trimmed = arrivals
		}
		last = arrivals
	}
}
