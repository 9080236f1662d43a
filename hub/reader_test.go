package hub

import (
	"fmt"
	"testing"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/sockettest"
	"github.com/millrace/millrace/proto"
)

func TestReadsAreSharedAndBounded(t *testing.T) {
	const streams = 40
	h := logHarness(t, 2, nil)
	h.user = "ada"
	for _, payload := range numbers(1, 20) {
		h.logs.add("log:1", payload)
	}
	gate := make(chan struct{})
	h.logs.gate = gate
	var all []*stream
	for n := range streams {
		one := h.join(n%2, proto.FormText)
		one.subscribeFrom("log:1", h.hub.From(parse(t, "log:1"), "0"))
		all = append(all, one)
	}
	h.openLog("log:1")
	for n := range streams { // one log each for the same user
		channel := fmt.Sprintf("log:own%d", n)
		h.logs.add(channel, `"own"`)
		all[n].subscribeFrom(channel, h.hub.From(parse(t, channel), "0"))
		h.openLog(channel)
	}
	sockettest.Eventually(t, "the readers are busy", func() bool {
		h.logs.mutex.Lock()
		defer h.logs.mutex.Unlock()
		return h.logs.atOnce > 0
	})
	close(gate)
	want := append(numbers(1, 20), replayed("log:1", 20), `"own"`)
	for _, one := range all {
		equal(t, "both logs", one.read(len(want)), want)
	}
	h.logs.mutex.Lock()
	defer h.logs.mutex.Unlock()
	if h.logs.most > readsPerUserMax {
		t.Errorf("%d reads went on at once for one user", h.logs.most)
	}
	// Two pieces of the shared log, and one of each own.
	if h.logs.reads > 2*2+streams {
		t.Errorf("%d reads", h.logs.reads)
	}
}

// TestHoleEndsSharing reads a position of a log again that names other entries since a hole.
func TestHoleEndsSharing(t *testing.T) {
	h := logHarness(t, 1, nil)
	keep := h.join(0, proto.FormText)
	keep.subscribe("log:1")
	h.openLog("log:1")
	h.append("log:1", "1", "2")
	replay := func(want ...string) {
		t.Helper()
		one := h.join(0, proto.FormText)
		one.subscribeFrom("log:1", h.hub.From(parse(t, "log:1"), "0"))
		equal(t, "replay", one.read(len(want)), want)
	}
	replay("1", "2", replayed("log:1", 2))
	h.logs.rewind("log:1", broker.Position{})
	h.tellLog("log:1", 0)
	h.append("log:1", "3", "4")
	replay("3", "4", replayed("log:1", 2))
}

func TestReadsOfUsersTakeTurns(t *testing.T) {
	h := logHarness(t, 1, nil)
	r := h.hub.reader
	gate := make(chan struct{})
	h.logs.gate = gate
	shard := h.hub.Shard(0)
	ask := func(user string, n int) {
		key := readKey{channel: parse(t, fmt.Sprintf("log:%s%d", user, n)), count: 1}
		r.ask(key, broker.Position{}, user, shard, waiter{slot: 1})
	}
	for n := range 20 {
		ask("greedy", n)
	}
	ask("modest", 0)
	r.mutex.Lock()
	if n := r.users["greedy"].running; n != readsPerUserMax {
		t.Errorf("%d reads for one user", n)
	}
	if n := r.users["modest"].running; n != 1 {
		t.Errorf("%d reads for another user", n)
	}
	r.mutex.Unlock()
	for n := range 20 {
		ask("", n)
	}
	r.mutex.Lock()
	if r.running != readersMax {
		t.Errorf("%d reads go on", r.running)
	}
	r.mutex.Unlock()
	close(gate)
	sockettest.Eventually(t, "all were read", func() bool {
		r.mutex.Lock()
		defer r.mutex.Unlock()
		return r.running == 0 && len(r.users) == 0 && len(r.flights) == 0
	})
}

func TestFailedReadIsTriedAgain(t *testing.T) {
	h := logHarness(t, 1, nil)
	h.logs.add("log:1", "1")
	h.logs.failing = broker.ErrUnavailable
	one := h.join(0, proto.FormText)
	one.subscribeFrom("log:1", h.hub.From(parse(t, "log:1"), "0"))
	h.openLog("log:1")
	sockettest.Eventually(t, "a read failed", func() bool { return h.hub.Stats().LogReadErrors > 0 })
	h.logs.mutex.Lock()
	h.logs.failing = nil
	h.logs.mutex.Unlock()
	equal(t, "replay", one.read(2), []string{"1", replayed("log:1", 1)})
}

func TestStreamThatLeavesWhileReading(t *testing.T) {
	h := logHarness(t, 1, nil)
	gate := make(chan struct{})
	h.logs.gate = gate
	one, two := h.join(0, proto.FormText), h.join(0, proto.FormText)
	for _, channel := range []string{"log:1", "log:2"} {
		h.logs.add(channel, "1")
		two.subscribeFrom(channel, h.hub.From(parse(t, channel), "0"))
	}
	one.subscribeFrom("log:1", h.hub.From(parse(t, "log:1"), "0"))
	h.openLog("log:1")
	h.openLog("log:2")
	one.client.Close()
	two.unsubscribe("log:1")
	sockettest.Eventually(t, "it left", func() bool { return h.counters().Members == 1 })
	again := h.join(0, proto.FormText) // in the slot of the first
	if again.slot != one.slot {
		t.Fatalf("slot %d, not %d", again.slot, one.slot)
	}
	close(gate)
	equal(t, "the other log", two.read(2), []string{"1", replayed("log:2", 1)})
	two.silent()
	again.silent()
}

// TestDroppedReadLetsTheNextGoOn rewinds a log while it is being read for a stream that is to read
// another one after it.
func TestDroppedReadLetsTheNextGoOn(t *testing.T) {
	h := logHarness(t, 1, nil)
	gate := make(chan struct{})
	h.logs.gate = gate
	one := h.join(0, proto.FormText)
	for _, channel := range []string{"log:1", "log:2"} {
		h.logs.add(channel, "1")
		h.logs.add(channel, "2")
		one.subscribeFrom(channel, h.hub.From(parse(t, channel), channel+"/1-0/0"))
	}
	h.openLog("log:1")
	h.openLog("log:2")
	h.logs.rewind("log:1", broker.Position{})
	h.tellLog("log:1", 0)
	close(gate)
	equal(t, "both", one.read(4), []string{
		replayed("log:1", 0), gapText("log:1", "log:1/2-0/0", "rewound"), "2", replayed("log:2", 1),
	})
}
