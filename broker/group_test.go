package broker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/broker/brokertest"
	"github.com/millrace/millrace/internal/freeport"
	"github.com/millrace/millrace/internal/redistest"
)

func TestContractCluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, 3)
	brokertest.Run(t, func(testing.TB) brokertest.Engine {
		engine := redisEngine(cluster.URL(), "")
		engine.ManyNodes = true
		return engine
	})
}

// TestClusterFromOneAddress finds the other nodes by itself.
func TestClusterFromOneAddress(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, 3)
	b, r, _ := start(t, broker.RedisOptions{URL: cluster.Nodes[1].URL()})
	subs := shardedSubs(30)
	ready(t, b, r, subs...)
	for _, sub := range subs {
		message := broker.Message{Channel: sub.Channel, Payload: []byte("x"), Kind: broker.Sharded}
		if _, err := b.Publish(context.Background(), []broker.Message{message}); err != nil {
			t.Fatal(err)
		}
		r.WaitEvents(t, sub.Channel, 1)
	}
	r.Wait(t, "three nodes", func() bool { return b.Health().Nodes == 3 && b.Health().NodesDelivering == 3 })
}

func shardedSubs(count int) []broker.Subscription {
	var subs []broker.Subscription
	for number := range count {
		subs = append(subs, sharded("shard:"+strconv.Itoa(number)))
	}
	return subs
}

// owner returns a function that says who owned each channel's slot at the start.
func owner(cluster *redistest.Cluster) func(string) string {
	return func(channel string) string { return cluster.Owner(int(broker.Slot(channel))).Addr }
}

// TestSlotMigration moves the slots of subscribed channels to another node, there and back.
func TestSlotMigration(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, 3)
	b, r, _ := start(t, broker.RedisOptions{URL: cluster.URL()})
	subs := shardedSubs(12)
	ready(t, b, r, subs...)
	var channels []string
	for _, sub := range subs {
		channels = append(channels, sub.Channel)
	}
	publisher := publishNumbers(t, broker.Sharded, owner(cluster), channels[1:]...)
	slot := int(broker.Slot(channels[0]))
	from := cluster.Owner(slot)
	to := cluster.Nodes[(slices.Index(cluster.Nodes, from)+1)%3]
	for round, move := range [][2]*redistest.Server{{from, to}, {to, from}, {from, to}} {
		faultMended(t, r, subs[0], func() { cluster.Migrate(t, slot, move[0], move[1]) })
		message := broker.Message{Channel: channels[0], Payload: []byte(strconv.Itoa(round)), Kind: broker.Sharded}
		if _, err := b.Publish(context.Background(), []broker.Message{message}); err != nil {
			t.Fatal(err)
		}
		r.WaitEvents(t, channels[0], round+1)
	}
	if got := r.Events(channels[0]); !slices.Equal(got, []string{"0", "1", "2"}) {
		t.Fatalf("got %q", got)
	}
	publisher.check(t, r)
	for _, sub := range subs[1:] {
		if b.Stats().Reconnects > 0 {
			break // a node was too slow for its canary: everything there was lost
		}
		if r.CountOf(brokertest.Lost, sub) != 0 && broker.Slot(sub.Channel) != uint16(slot) {
			t.Errorf("%s was lost although its slot stayed", sub.Channel)
		}
	}
}

// TestClusterNodeDies kills one node after the other: channels of the living go on, those of the
// dead come back with it, and plain channels move to a living node.
func TestClusterNodeDies(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, 3)
	b, r, _ := start(t, broker.RedisOptions{URL: cluster.URL()})
	subs := append(shardedSubs(12), plain("job:1"), pattern("other:*"))
	ready(t, b, r, subs...)
	channels := []string{}
	for _, sub := range subs[:12] {
		channels = append(channels, sub.Channel)
	}
	shardedPublisher := publishNumbers(t, broker.Sharded, owner(cluster), channels...)
	shardedPublisher.rate.Store(100)
	for index, victim := range cluster.Nodes {
		other := cluster.Nodes[(index+1)%3]
		victim.Kill()
		r.Wait(t, "notice of the dead node", func() bool { return !b.Health().Delivering })
		// Whoever carried the plain channel, it must work through a living node.
		seen := len(r.Events("job:1"))
		r.Wait(t, "plain channels through a living node", func() bool {
			if _, err := other.Command("PUBLISH", "job:1", "x"); err != nil {
				t.Fatal(err)
			}
			return len(r.Events("job:1")) > seen && b.Stats().Subscribed >= 2
		})
		victim.Restart(t)
		r.Wait(t, "the node to come back", func() bool { return b.Health().Delivering && b.Stats().Pending == 0 })
	}
	shardedPublisher.check(t, r)
	message := []broker.Message{{Channel: "job:1", Payload: []byte("end")}}
	if _, err := b.Publish(context.Background(), message); err != nil {
		t.Fatal(err)
	}
	r.Wait(t, "the end", func() bool { return slices.Contains(r.Events("job:1"), "end") })
	if r.CountOf(brokertest.Lost, plain("job:1")) == 0 {
		t.Error("the plain channel's node died and no loss was told")
	}
}

// TestClusterPlainNodeStays cuts the connections to the node of plain channels: another one may know
// less than this one has told, so the channels wait for it to come back.
func TestClusterPlainNodeStays(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, 3)
	b, r, _ := start(t, broker.RedisOptions{URL: cluster.URL()})
	ready(t, b, r, plain("job:1"))
	carrier := func() *redistest.Server {
		for _, node := range cluster.Nodes {
			if node.CLI(t, "PUBSUB", "NUMSUB", "job:1") == "job:1\n1" {
				return node
			}
		}
		return nil
	}
	first := carrier()
	if first == nil {
		t.Fatal("no node carries the channel")
	}
	for round := range 4 { // each time it takes longer to come back
		first.CLI(t, "CLIENT", "KILL", "TYPE", "pubsub")
		r.Wait(t, "recovery", func() bool { return r.CountOf(brokertest.Mended, plain("job:1")) == round+1 })
		if now := carrier(); now != first {
			t.Fatalf("round %d: the channel went from %s to another node", round, first.Addr)
		}
	}
}

// TestSentinelFailover kills the primary: the broker follows the Sentinels to the new one.
func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	group := redistest.StartSentinel(t)
	b, r, _ := start(t, broker.RedisOptions{URL: group.URL()})
	ready(t, b, r, plain("job:1"))
	if stats := b.Stats(); stats.Subscribed != 1 {
		t.Fatalf("stats %+v", stats)
	}
	publisher := publishNumbers(t, broker.Plain, at(group.Primary), "job:1")
	r.WaitEvents(t, "job:1", 10)
	publisher.end()
	faultMended(t, r, plain("job:1"), group.Primary.Kill)
	publishUntilHeard(t, r, group.Replica, "job:1", "after")
	if got := group.PrimaryPort(t); got != group.Replica.Port {
		t.Fatalf("primary on port %d, want the replica's %d", got, group.Replica.Port)
	}
	r.Wait(t, "health", func() bool { return b.Health().Delivering })
	if _, err := b.Publish(context.Background(), []broker.Message{{Channel: "job:1", Payload: []byte("end")}}); err != nil {
		t.Fatal(err)
	}
	r.Wait(t, "the end", func() bool { return slices.Contains(r.Events("job:1"), "end") })
}

// TestSentinelStalledPrimary stalls the primary until another is promoted and then lets it go
// on: for a while it still takes itself for the primary, and nobody may believe it.
func TestSentinelStalledPrimary(t *testing.T) {
	t.Parallel()
	group := redistest.StartSentinel(t)
	b, r, _ := start(t, broker.RedisOptions{URL: group.URL()})
	ready(t, b, r, plain("job:1"))
	faultMended(t, r, plain("job:1"), func() {
		group.Primary.Stop()
		r.Wait(t, "promotion", func() bool { return group.PrimaryPort(t) == group.Replica.Port })
		group.Primary.Cont()
	})
	publishUntilHeard(t, r, group.Replica, "job:1", "after")
	r.Wait(t, "health", func() bool { return b.Health().Delivering })
	before := len(r.Events("job:1"))
	if _, err := group.Primary.Command("PUBLISH", "job:1", "old"); err != nil {
		t.Fatal(err)
	}
	publishUntilHeard(t, r, group.Replica, "job:1", "end")
	if slices.Contains(r.Events("job:1")[before:], "old") {
		t.Fatal("the old primary is still listened to")
	}
}

// publishUntilHeard publishes on a server until the broker hears it: it may be on its way there.
func publishUntilHeard(t *testing.T, r *brokertest.Recorder, server *redistest.Server, channel, payload string) {
	t.Helper()
	r.Wait(t, "events of the new primary", func() bool {
		server.CLI(t, "PUBLISH", channel, payload)
		return slices.Contains(r.Events(channel), payload)
	})
}

func TestSentinelFaults(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	port, err := freeport.Find()
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct{ name, url, reason string }{
		{"nobody there", fmt.Sprintf("redis+sentinel://127.0.0.1:%d/mymaster", port), "refused"},
		{"no sentinel", "redis+sentinel://" + server.Addr + "/mymaster", "unknown command"},
	}
	for _, one := range cases {
		t.Run(one.name, func(t *testing.T) {
			b, r, _ := start(t, broker.RedisOptions{URL: one.url})
			r.Wait(t, "the reason", func() bool { return strings.Contains(b.Health().Reason, one.reason) })
			_, err := b.Publish(context.Background(), []broker.Message{{Channel: "job:1"}})
			if !errors.Is(err, broker.ErrUnavailable) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

// TestPlainNodeCutOff has the node of plain channels forget the others: it goes on, delivers its
// own canary and finds its Cluster sound, but hears nothing that is published elsewhere. Nor may
// its view of the Cluster, in which it is alone, be believed while the others are away.
func TestPlainNodeCutOff(t *testing.T) {
	for _, othersCut := range []bool{false, true} {
		t.Run(fmt.Sprintf("others cut %v", othersCut), func(t *testing.T) {
			t.Parallel()
			cluster := redistest.StartCluster(t, 3)
			b, r, _ := start(t, broker.RedisOptions{URL: cluster.URL()})
			ready(t, b, r, plain("job:1"))
			r.Wait(t, "one node to carry the channel", func() bool { return carrierOf(t, cluster, "job:1") != nil })
			carrier := carrierOf(t, cluster, "job:1")
			var other *redistest.Server
			for _, node := range cluster.Nodes {
				if node == carrier {
					continue
				}
				other = node
				carrier.CLI(t, "CLUSTER", "FORGET", node.CLI(t, "CLUSTER", "MYID"))
				if othersCut {
					node.CLI(t, "CLIENT", "KILL", "TYPE", "pubsub")
				}
			}
			publishUntilHeard(t, r, other, "job:1", "x")
			if r.CountOf(brokertest.Lost, plain("job:1")) == 0 {
				t.Fatal("no loss was told")
			}
		})
	}
}

func carrierOf(t *testing.T, cluster *redistest.Cluster, channel string) *redistest.Server {
	t.Helper()
	for _, node := range cluster.Nodes {
		if node.CLI(t, "PUBSUB", "NUMSUB", channel) == channel+"\n1" {
			return node
		}
	}
	return nil
}
