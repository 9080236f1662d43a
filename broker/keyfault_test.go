package broker_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/broker/brokertest"
	"github.com/millrace/millrace/internal/redistest"
	"github.com/millrace/millrace/proto"
)

// checkKeys ends a publisher of numbers to states and holds what came to the promise: the newest
// number comes, and none before an older one.
func (n *numbered) checkStates(t *testing.T, r *brokertest.Recorder) {
	t.Helper()
	n.end()
	for index, channel := range n.channels {
		if len(n.taken[index]) == 0 {
			t.Fatalf("%s: nothing was written", channel)
		}
		last := n.taken[index][len(n.taken[index])-1]
		// One that got no answer may have been taken too, and is newer.
		r.Wait(t, fmt.Sprintf("%s to be %d", channel, last), func() bool {
			values := r.Values(channel)
			got, _ := strconv.Atoi(values[len(values)-1])
			return got >= last
		})
	}
}

// checkLogs ends a publisher of numbers to logs and holds what came to the promise: each number
// that Redis took comes once and in order, or a hole is told in its place.
func (n *numbered) checkLogs(t *testing.T, r *brokertest.Recorder) {
	t.Helper()
	n.end()
	for index, channel := range n.channels {
		taken := n.taken[index]
		if len(taken) == 0 {
			t.Fatalf("%s: nothing was written", channel)
		}
		last := strconv.Itoa(taken[len(taken)-1])
		r.Wait(t, "the last number of "+channel, func() bool { return slices.Contains(r.Entries(channel), last) })
		if err := accountLog(taken, r.Updates(channel)); err != nil {
			t.Fatalf("%s: %v", channel, err)
		}
		checkUpdates(t, r, channel)
	}
	if err := brokertest.CheckHorizons(r.Records()); err != nil {
		t.Fatal(err)
	}
}

func accountLog(taken []int, updates []broker.LogUpdate) error {
	next, last := 0, -1
	hole := false // told since the last number
	for _, update := range updates {
		hole = hole || update.Hole
		for _, entry := range update.Entries {
			number, err := strconv.Atoi(string(entry.Payload))
			if err != nil {
				return err
			}
			if number <= last {
				return fmt.Errorf("%d came after %d", number, last)
			}
			last = number
			from := next
			for next < len(taken) && taken[next] < number {
				next++
			}
			if next > from && !hole {
				return fmt.Errorf("%d numbers before %d are missing and nobody said so", next-from, number)
			}
			if next < len(taken) && taken[next] == number {
				next++
			}
			hole = false
		}
	}
	if next < len(taken) {
		return fmt.Errorf("the last %d numbers did not come", len(taken)-next)
	}
	return nil
}

// TestAccountLog proves that the check of numbered entries, and that of horizons, can fail.
func TestAccountLog(t *testing.T) {
	update := func(hole bool, horizon uint64, numbers ...int) broker.LogUpdate {
		made := broker.LogUpdate{Hole: hole, Horizon: horizon}
		for _, number := range numbers {
			made.Entries = append(made.Entries, broker.Entry{
				Position: broker.Position{Milliseconds: uint64(number)}, Payload: []byte(strconv.Itoa(number)),
			})
		}
		return made
	}
	cases := []struct {
		name           string
		updates        []broker.LogUpdate
		good, horizons bool
	}{
		{"all there", []broker.LogUpdate{update(false, 0), update(false, 0, 1, 2), update(false, 2, 3)}, true, true},
		{"hole told before", []broker.LogUpdate{update(false, 0, 1), update(true, 1), update(false, 1, 3)}, true, true},
		{"hole told", []broker.LogUpdate{update(false, 0, 1), update(true, 1, 3)}, true, true},
		{"silent loss", []broker.LogUpdate{update(false, 0, 1), update(false, 1, 3)}, false, true},
		{"end missing", []broker.LogUpdate{update(false, 0, 1, 2)}, false, true},
		{"twice", []broker.LogUpdate{update(false, 0, 1, 2, 3), update(false, 0, 3)}, false, true},
		{"horizon too early", []broker.LogUpdate{update(false, 3, 1, 2), update(false, 3, 3)}, true, false},
	}
	for _, one := range cases {
		var records []brokertest.Record
		for _, update := range one.updates {
			records = append(records, brokertest.Record{What: brokertest.Log, Update: update})
		}
		if err := accountLog([]int{1, 2, 3}, one.updates); (err == nil) != one.good {
			t.Errorf("%s: %v", one.name, err)
		}
		if err := brokertest.CheckHorizons(records); (err == nil) != one.horizons {
			t.Errorf("%s: horizons: %v", one.name, err)
		}
	}
}

// TestKeyFaultsLoseNothing breaks the connections in every way that a standalone server can. It
// loses nothing meanwhile, so that no hole may be told where the server lived on.
func TestKeyFaultsLoseNothing(t *testing.T) {
	faults := []struct {
		name      string
		arguments []string
		inject    func(*testing.T, *redistest.Server, *broker.Redis, *brokertest.Recorder)
		hole      bool // must be told
		onlyHole  bool // and the last entries may be gone
	}{
		{"kill the tracking connection", nil, func(t *testing.T, s *redistest.Server, b *broker.Redis, r *brokertest.Recorder) {
			for range 3 {
				sessions := b.Stats().Reconnects
				kill(t, s, "flags=t")
				r.Wait(t, "a new session", func() bool { return b.Stats().Reconnects > sessions && b.Health().Delivering })
			}
		}, false, false},
		{"kill the pub/sub connection", nil, func(t *testing.T, s *redistest.Server, b *broker.Redis, r *brokertest.Recorder) {
			s.CLI(t, "CLIENT", "KILL", "TYPE", "pubsub")
			r.Wait(t, "a new session", func() bool { return b.Stats().Reconnects > 0 && b.Health().Delivering })
		}, false, false},
		{"kill the command connection", nil, func(t *testing.T, s *redistest.Server, b *broker.Redis, r *brokertest.Recorder) {
			kill(t, s, "flags=N")
			r.Wait(t, "a new connection", func() bool { return b.Stats().Reconnects > 0 })
		}, false, false},
		{"stall and go on", nil, func(t *testing.T, s *redistest.Server, b *broker.Redis, r *brokertest.Recorder) {
			s.Stop()
			began := time.Now()
			r.Wait(t, "health to turn", func() bool { return !b.Health().Delivering })
			if took := time.Since(began); took > 6*time.Second { // 3 s where nothing else runs
				t.Errorf("noticed after %v", took)
			}
			s.Cont()
		}, false, false},
		{"restart with data", []string{"--appendonly", "yes", "--appendfsync", "always"}, func(t *testing.T, s *redistest.Server, _ *broker.Redis, _ *brokertest.Recorder) {
			s.Restart(t)
		}, true, false},
		{"restart without data", nil, func(t *testing.T, s *redistest.Server, _ *broker.Redis, _ *brokertest.Recorder) {
			s.Restart(t)
		}, true, true},
	}
	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, fault.arguments...)
			b, r, _ := start(t, broker.RedisOptions{URL: server.URL()})
			subs := []broker.Subscription{state("state:1"), state("state:2"), logOf("log:1"), logOf("log:2"), logOf("log:quiet")}
			ready(t, b, r, subs...)
			states := publishNumbers(t, broker.State, at(server), "state:1", "state:2")
			logs := publishNumbers(t, broker.Log, at(server), "log:1", "log:2")
			r.WaitEntries(t, "log:1", 20)
			fault.inject(t, server, b, r)
			r.Wait(t, "delivery", func() bool { return b.Health().Delivering && b.Stats().Pending == 0 })
			seen := len(r.Entries("log:2"))
			r.WaitEntries(t, "log:2", seen+20)
			states.checkStates(t, r)
			logs.checkLogs(t, r)
			for _, channel := range []string{"log:1", "log:2", "log:quiet"} {
				if holes := r.Holes(channel); (len(holes) > 0) != fault.hole {
					t.Errorf("%s: holes %v", channel, holes)
				}
			}
			for _, sub := range subs {
				if r.CountOf(brokertest.Lost, sub)+r.CountOf(brokertest.Mended, sub) > 0 || r.CountOf(brokertest.Confirmed, sub) != 1 {
					t.Errorf("%s was reported lost, or confirmed more than once", sub.Channel)
				}
			}
			if stats := b.Stats(); stats.SweepFound != 0 || stats.Horizon == 0 {
				t.Errorf("stats %+v", stats)
			}
		})
	}
}

// TestSentinelFailoverOfLogs stalls the primary until a replica is promoted. What the old one
// takes after it goes on belongs to nobody.
func TestSentinelFailoverOfLogs(t *testing.T) {
	t.Parallel()
	group := redistest.StartSentinel(t)
	b, r, _ := start(t, broker.RedisOptions{URL: group.URL()})
	ready(t, b, r, logOf("log:1"), logOf("log:quiet"), state("state:1"))
	group.Primary.CLI(t, "XADD", "log:quiet", "*", "data", "x")
	group.Primary.CLI(t, "SET", "state:1", "old")
	r.WaitEntries(t, "log:quiet", 1)
	r.Wait(t, "the replica to have it", func() bool {
		return group.Replica.CLI(t, "GET", "state:1") == "old" && group.Replica.CLI(t, "XLEN", "log:quiet") == "1"
	})
	// The replica hears nothing from here on, and the primary takes what will be lost.
	group.Replica.Stop()
	for number := range 10 {
		group.Primary.CLI(t, "XADD", "log:1", "*", "data", strconv.Itoa(number))
	}
	r.WaitEntries(t, "log:1", 10)
	group.Primary.Stop()
	group.Replica.Cont()
	r.Wait(t, "promotion", func() bool { return group.PrimaryPort(t) == group.Replica.Port })
	group.Primary.Cont()
	r.Wait(t, "holes", func() bool { return len(r.Holes("log:1")) > 0 && len(r.Holes("log:quiet")) > 0 })
	if got := r.Holes("log:quiet"); !slices.Equal(got, []proto.GapReason{broken}) {
		t.Errorf("a log that is as it was: %v", got)
	}
	group.Replica.CLI(t, "XADD", "log:1", "*", "data", "new")
	group.Replica.CLI(t, "SET", "state:1", "new")
	r.WaitValue(t, "state:1", "new")
	if got := r.WaitEntries(t, "log:1", 11); got[10] != "new" {
		t.Fatalf("got %q", got[10])
	}
	checkUpdates(t, r, "log:1")
	if err := brokertest.CheckHorizons(r.Records()); err != nil {
		t.Error(err)
	}
}

// TestManyKeysAfterReconnect reads ten thousand keys anew, the preferred first.
func TestManyKeysAfterReconnect(t *testing.T) {
	const keys, preferred = 10_000, 100
	server := redistest.Start(t)
	b, r, _ := start(t, broker.RedisOptions{URL: server.URL()})
	client := clientOf(t, server)
	var subs []broker.Subscription
	sets := [][]string{{"CLIENT", "ID"}}
	for number := range keys {
		subs = append(subs, state(fmt.Sprintf("state:%d", number)))
		sets = append(sets, []string{"SET", subs[number].Channel, "a"})
	}
	do(t, client, sets...)
	ready(t, b, r, subs...)
	if reads := b.Stats().Reads; reads > keys+keys/10 { // the sweep may have begun
		t.Errorf("%d keys took %d reads", keys, reads)
	}
	b.Prefer(subs[keys-preferred:])
	for index := range sets[1:] {
		sets[1+index][2] = "b"
	}
	// In one go, so that all is written before anybody is back.
	sets[0] = []string{"CLIENT", "KILL", "ID", brokerIDs(t, server, "flags=t")[0]}
	began := time.Now()
	do(t, client, sets...)
	r.Wait(t, "all values", func() bool { return r.Count(brokertest.Value) >= 2*keys && b.Stats().Tracked == keys })
	if took := time.Since(began); took > 6*time.Second { // half a second where nothing else runs
		t.Errorf("it took %v", took)
	}
	first := r.Records()
	first = slices.DeleteFunc(first, func(record brokertest.Record) bool { return string(record.Payload) != "b" })
	for _, record := range first[:preferred] {
		if !slices.Contains(subs[keys-preferred:], state(record.Channel)) {
			t.Fatalf("%s came before the preferred", record.Channel)
		}
	}
}

// TestBrokerAwayForKeys says so.
func TestBrokerAwayForKeys(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b, r, _ := start(t, broker.RedisOptions{URL: server.URL()})
	ready(t, b, r)
	server.Kill()
	r.Wait(t, "notice", func() bool { return !b.Health().Delivering })
	for _, kind := range []broker.Kind{broker.State, broker.Log} {
		if err := publish(b, broker.Message{Channel: "x:1", Kind: kind}); !errors.Is(err, broker.ErrUnavailable) {
			t.Errorf("kind %d: %v", kind, err)
		}
	}
}
