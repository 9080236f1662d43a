package gateway_test

import (
	"testing"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/internal/redistest"
)

// TestHandOverOnACluster: the new gateway hears the channels from the same nodes as the old one did, and
// nothing is lost between the two on any.
func TestHandOverOnACluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, 3)
	options := gateway.Options{Redis: cluster.URL(), Namespaces: modes(), Limits: gateway.Limits{
		MaxQueueBytes: 64 << 20, MaxQueueAge: gateway.NoLimit, ProgressTimeout: gateway.NoLimit,
	}}
	h := serveWith(t, options, gateway.Timings{})
	h.awaitDelivery(t)
	channels := []string{"events:1", "events:2", "events:3"}
	var readers []*stream
	var stops []func() int
	for i, channel := range channels {
		for _, w := range []wire{sse, raw} {
			readers = append(readers, h.open(t, w, visit{channels: []string{channel}}))
		}
		stops = append(stops, flood(t, cluster.Owner(i*5500).Addr, channel))
	}
	for range 2 {
		h = h.handOver(t, options)
	}
	for i := range channels {
		last := stops[i]()
		for _, s := range readers[2*i : 2*i+2] {
			s.numbers(t, 1, last)
		}
	}
}
