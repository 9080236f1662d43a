package gateway_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/proto"
)

// testBound is a bound of memory of which a test says how much is taken.
type testBound struct {
	used  atomic.Int64
	fails atomic.Bool
	asked atomic.Int64
}

func (b *testBound) Limit() int64 { return 1000 }

func (b *testBound) Used() (int64, error) {
	b.asked.Add(1)
	if b.fails.Load() {
		return 0, errors.New("this test does not say")
	}
	return b.used.Load(), nil
}

// TestMemoryBound: near the bound no new stream is taken; nearer still those are closed whose clients
// do not read, or do not finish what they say; nobody else notices, and below it all is as before.
func TestMemoryBound(t *testing.T) {
	t.Parallel()
	bound := &testBound{}
	h := serve(t, gateway.Options{Namespaces: modes(), Memory: bound, Limits: gateway.Limits{MaxQueueBytes: slowQueueBytes, ProgressTimeout: gateway.NoLimit}})
	reads := h.open(t, raw, visit{channels: []string{"events:1"}})
	for _, w := range everyWire { // nobody reads these
		h.open(t, w, visit{channels: []string{"events:2"}})
	}
	slow := len(everyWire)
	h.lag(t, "events:2", slow)
	unfinished := masked(proto.OpText, strings.Repeat(" ", 32<<10)+`{"type":"ping"}`)
	h.open(t, raw, visit{}).send(t, unfinished[:len(unfinished)-1])
	slow++
	refused := func() bool { return h.ask(t, handshake("/ws")).status == 503 }
	if refused() {
		t.Fatal("a stream is refused, and no memory is taken")
	}
	bound.used.Store(820)
	within(t, patience, "new streams are refused", refused)
	onEvery(t, sseWires, func(t *testing.T, w wire) { h.wantSentAway(t, w) })
	if closed := h.stats(t).Ended["memory"]; closed != 0 {
		t.Errorf("%d streams are closed before it has come to that", closed)
	}
	bound.used.Store(870)
	within(t, patience, "those that do not read are closed", func() bool { return h.stats(t).Ended["memory"] == uint64(slow) })
	reads.alive(t)
	bound.used.Store(780)
	asked := bound.asked.Load()
	within(t, patience, "it was looked at again", func() bool { return bound.asked.Load() > asked+2 })
	if !refused() {
		t.Error("a stream is taken again before there is relief")
	}
	bound.used.Store(700)
	within(t, patience, "new streams are taken", func() bool { return !refused() })
	if closed := h.stats(t).Ended["memory"]; closed != uint64(slow) {
		t.Errorf("%d streams were closed, of which %d did not read", closed, slow)
	}
}

// TestMemoryBoundUnknown: a bound that cannot be asked refuses nobody.
func TestMemoryBoundUnknown(t *testing.T) {
	t.Parallel()
	bound := &testBound{}
	bound.used.Store(999)
	bound.fails.Store(true)
	h := serve(t, gateway.Options{Memory: bound})
	within(t, patience, "it was asked", func() bool { return bound.asked.Load() > 0 })
	h.open(t, raw, visit{}).alive(t)
}
