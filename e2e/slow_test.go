package e2e

import (
	"testing"

	"github.com/millrace/millrace/internal/processtest"
	"github.com/millrace/millrace/internal/redistest"
)

// TestSlowReaders: readers that stop for longer than their queue lasts lose events, are told so
// (or closed), and cost nobody else one.
func TestSlowReaders(t *testing.T) {
	t.Parallel()
	const (
		batch   = 500
		batches = 24 // of some 75 KB each, against a queue of 256 KiB
	)
	for _, wire := range []string{"sse", "websocket"} {
		t.Run(wire, func(t *testing.T) {
			redis := redistest.Start(t)
			g := crowdGateway(t, "--redis", redis.URL(), "--max-queue-bytes", "256KiB")
			slow, quick := startCrowd(t, g, wire, "slow:1"), startCrowd(t, g, wire, "slow:1")
			slow.open(t, 20)
			quick.open(t, 20)
			slow.command(t, "stall 20")
			// A batch waits until the quick ones have had the one before: no burst is longer than
			// a queue, so whoever loses an event is slow.
			var report crowdReport
			for n := range batches {
				publishMany(t, redis, "slow:1", n*batch+1, batch)
				if !processtest.Poll(patience, func() bool { report = quick.report(t, (n+1)*batch); return report.Reached == 20 }) ||
					report.Disordered > 0 || report.Gaps > 0 {
					t.Fatalf("after batch %d the quick readers are %+v", n, report)
				}
			}
			slow.command(t, "resume")
			within(t, crowdPatience, "every slow reader hears of its gap", func() bool {
				report = slow.report(t, 0)
				return report.Gaps+report.Closed >= 20
			})
			publishMany(t, redis, "slow:1", batches*batch+1, batch)
			within(t, patience, "the slow readers go on", func() bool {
				report = slow.report(t, (batches+1)*batch)
				return report.Reached+report.Closed == 20
			})
			t.Logf("20 slow readers: %+v", report)
			if report.Disordered > 0 {
				t.Errorf("%d jumps in the numbers without a gap: some loss was silent", report.Disordered)
			}
		})
	}
}
