package broker_test

import (
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/redistest"
)

// TestCanaryDelay: the way through Redis and back is told, and one that nothing comes back from is
// told before it is given up. So is a horizon that stands still.
func TestCanaryDelay(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b, r, _ := start(t, broker.RedisOptions{URL: server.URL()})
	ready(t, b, r, plain("job:1"))
	r.Wait(t, "a canary and a horizon", func() bool {
		stats := b.Stats()
		return stats.CanaryDelay > 0 && stats.HorizonAge > 0
	})
	server.Stop()
	longest, stood := time.Duration(0), time.Duration(0)
	r.Wait(t, "delivery to fail", func() bool {
		stats := b.Stats()
		longest, stood = max(longest, stats.CanaryDelay), max(stood, stats.HorizonAge)
		return !b.Health().Delivering
	})
	if longest < time.Second || stood < time.Second {
		t.Errorf("until Redis was given up the canary's way took %v at most, and the horizon stood for %v", longest, stood)
	}
	server.Cont()
	r.Wait(t, "delivery again", func() bool {
		stats := b.Stats()
		return b.Health().Delivering && stats.CanaryDelay > 0 && stats.CanaryDelay < longest && stats.HorizonAge < stood
	})
}
