package broker_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/broker/brokertest"
	"github.com/millrace/millrace/internal/redistest"
)

// TestSlotMigrationOfKeys moves slots whose keys are there, and one whose keys are not: of those
// Redis says nothing.
func TestSlotMigrationOfKeys(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, 3)
	b, r, _ := start(t, broker.RedisOptions{URL: cluster.URL()})
	there, absent := []broker.Subscription{state("{there}:s"), logOf("{there}:l")}, []broker.Subscription{state("{absent}:s"), logOf("{absent}:l")}
	ready(t, b, r, slices.Concat(there, absent, []broker.Subscription{logOf("log:other")})...)
	write := func(sub broker.Subscription, value string) {
		t.Helper()
		r.Wait(t, "the owner to take "+value, func() bool {
			return publish(b, broker.Message{Channel: sub.Channel, Kind: sub.Kind, Payload: []byte(value)}) == nil
		})
	}
	for _, sub := range there {
		write(sub, "before")
	}
	r.WaitEntries(t, "{there}:l", 1)
	for _, subs := range [][]broker.Subscription{there, absent} {
		slot := int(broker.Slot(subs[0].Channel))
		from := cluster.Owner(slot)
		to := cluster.Nodes[(slices.Index(cluster.Nodes, from)+1)%3]
		cluster.Migrate(t, slot, from, to)
		// Written at the new owner by somebody else, who does not make us ask for MOVED.
		to.CLI(t, "XADD", subs[1].Channel, "*", "data", "moved")
		to.CLI(t, "SET", subs[0].Channel, "moved")
		r.Wait(t, "what is at the new owner", func() bool {
			write(logOf("log:other"), "x") // carries the horizon, which must wait
			return slices.Contains(r.Values(subs[0].Channel), "moved") && slices.Contains(r.Entries(subs[1].Channel), "moved")
		})
		write(subs[1], "after")
		r.Wait(t, "the entry after", func() bool { return slices.Contains(r.Entries(subs[1].Channel), "after") })
		chunk, err := b.ReadLog(context.Background(), subs[1].Channel, broker.Position{}, 10)
		if err != nil || !slices.Equal(r.Entries(subs[1].Channel), payloads(chunk)) {
			t.Errorf("%s: handed over %q, Redis holds %q (%v)", subs[1].Channel, r.Entries(subs[1].Channel), payloads(chunk), err)
		}
		if holes := r.Holes(subs[1].Channel); len(holes) > 0 {
			t.Errorf("%s: holes %v though both nodes live", subs[1].Channel, holes)
		}
		checkUpdates(t, r, subs[1].Channel)
	}
	if err := brokertest.CheckHorizons(r.Records()); err != nil {
		t.Error(err)
	}
}

func payloads(chunk broker.LogChunk) []string {
	var all []string
	for _, entry := range chunk.Entries {
		all = append(all, string(entry.Payload))
	}
	return all
}

// TestClusterNodeStopsUnderKeys stalls and then kills one node: keys of the others go on, the
// horizon stands still, and the dead node's keys come back with it.
func TestClusterNodeStopsUnderKeys(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, 3)
	b, r, _ := start(t, broker.RedisOptions{URL: cluster.URL()})
	var subs []broker.Subscription
	var logs, states []string
	for number := range 9 {
		logs, states = append(logs, fmt.Sprintf("log:%d", number)), append(states, fmt.Sprintf("state:%d", number))
		subs = append(subs, logOf(logs[number]), state(states[number]))
	}
	ready(t, b, r, subs...)
	logWriter := publishNumbers(t, broker.Log, owner(cluster), logs...)
	stateWriter := publishNumbers(t, broker.State, owner(cluster), states...)
	logWriter.rate.Store(50)
	stateWriter.rate.Store(50)
	r.Wait(t, "a horizon", func() bool { return b.Stats().Horizon > 0 })
	victim := owner(cluster)(logs[0])
	var other string
	for _, name := range logs {
		if owner(cluster)(name) != victim {
			other = name
		}
	}
	node := cluster.Owner(int(broker.Slot(logs[0])))
	stopped := uint64(time.Now().UnixMilli())
	node.Stop()
	r.Wait(t, "notice", func() bool { return !b.Health().Delivering })
	seen := len(r.Entries(other))
	r.WaitEntries(t, other, seen+3) // the writer waits for each key of the stalled node
	if now := b.Stats().Horizon; now > stopped {
		t.Errorf("the horizon rose to %d, though a node stopped at %d", now, stopped)
	}
	node.Kill()
	node.Restart(t)
	r.Wait(t, "recovery", func() bool { return b.Health().Delivering && b.Stats().Pending == 0 })
	r.Wait(t, "the horizon to rise", func() bool { return b.Stats().Horizon > stopped })
	for _, name := range logs {
		before := len(r.Entries(name))
		r.WaitEntries(t, name, before+3)
		if holes := r.Holes(name); (len(holes) > 0) != (owner(cluster)(name) == victim) {
			t.Errorf("%s: holes %v", name, holes)
		}
	}
	stateWriter.checkStates(t, r)
	logWriter.checkLogs(t, r)
}

// TestClusterPublishGivesPositions in the order of the call, whatever node a log is on.
func TestClusterPublishGivesPositions(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, 3)
	b, r, _ := start(t, broker.RedisOptions{URL: cluster.URL()})
	ready(t, b, r)
	var messages []broker.Message
	for number := range 40 {
		kind := []broker.Kind{broker.Log, broker.State, broker.Plain, broker.Log}[number%4]
		messages = append(messages, broker.Message{Channel: fmt.Sprintf("key:%d:%d", kind, number%10), Kind: kind, Payload: []byte(strconv.Itoa(number))})
	}
	positions, err := b.Publish(context.Background(), messages)
	if err != nil || len(positions) != len(messages) {
		t.Fatalf("%d positions: %v", len(positions), err)
	}
	for index, message := range messages {
		if (positions[index] != broker.Position{}) != (message.Kind == broker.Log) {
			t.Fatalf("message %d of kind %d stands at %v", index, message.Kind, positions[index])
		}
		if message.Kind != broker.Log {
			continue
		}
		chunk, err := b.ReadLog(context.Background(), message.Channel, broker.Position{}, broker.ReadLogMax)
		at := slices.IndexFunc(chunk.Entries, func(entry broker.Entry) bool { return entry.Position == positions[index] })
		if err != nil || at < 0 || string(chunk.Entries[at].Payload) != string(message.Payload) {
			t.Fatalf("message %d does not stand at %v: %v", index, positions[index], err)
		}
	}
}
