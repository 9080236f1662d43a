package gateway_test

import (
	"fmt"
	"testing"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/internal/redistest"
)

// readsPerUser is how many reads of logs may go on at once for one user (hub.readsPerUserMax).
const readsPerUser = 4

// TestLogReadsOfOneUser: a user whose many streams come back at once has a few reads under way at a
// time, and another user does not wait for all of them.
func TestLogReadsOfOneUser(t *testing.T) {
	t.Parallel()
	const streams = 12
	h, redis := serveRedis(t, gateway.Options{Namespaces: modes()}, gateway.Timings{})
	keeper := h.open(t, enveloped, visit{channels: []string{"log:1"}})
	var ids []string
	for n := range streams + 2 { // a position for each, one for somebody else, and what comes after
		redis.CLI(t, "XADD", "log:1", "*", "data", fmt.Sprint(n))
		ids = append(ids, keeper.event(t, fmt.Sprint(n)).id)
	}
	// On a machine that is so busy that the gateway finds out first that Redis is stopped, it is
	// tried again.
	for try := range 5 {
		if readsOfOneUser(t, h, redis, ids) {
			return
		}
		t.Logf("try %d took too long", try+1)
	}
	t.Fatal("Redis was always noticed to be stopped before the reads were counted")
}

// readsOfOneUser counts reads while Redis answers none, and reports false if that was noticed before.
func readsOfOneUser(t *testing.T, h *house, redis *redistest.Server, ids []string) bool {
	t.Helper()
	last := len(ids) - 1
	var greedy []*stream
	for range last - 1 {
		greedy = append(greedy, h.open(t, enveloped, visit{query: "userId=greedy"}))
	}
	modest := h.open(t, enveloped, visit{query: "userId=modest"})
	within(t, patience, "Redis to deliver", func() bool { return h.stats(t).Broker.Delivering })
	before := h.metrics(t)["millrace_log_reads_total"]
	freeze(t, redis)
	reads := func(want float64) (noticed bool) {
		var now float64
		within(t, patience, fmt.Sprintf("%v reads", want), func() bool {
			now = h.metrics(t)["millrace_log_reads_total"] - before
			noticed = !h.stats(t).Broker.Delivering
			return now >= want || noticed
		})
		if now > want && !noticed {
			t.Fatalf("%v reads are under way, expected %v", now, want)
		}
		return noticed
	}
	noticed := false
	for n, s := range greedy {
		s.since(t, "log:1", ids[n]) // each from a position of its own, so that none shares a read
	}
	noticed = reads(readsPerUser) || noticed
	modest.since(t, "log:1", ids[last-1])
	noticed = reads(readsPerUser+1) || noticed
	redis.Cont()
	for from, s := range append(greedy, modest) {
		for next := from + 1; next <= last; next++ {
			s.event(t, fmt.Sprint(next))
		}
		s.wordWith(t, "replayed", "channel=log:1", fmt.Sprintf("count=%d", last-from))
	}
	return !noticed
}
