package broker_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/broker/brokertest"
	"github.com/millrace/millrace/internal/redistest"
)

func state(channel string) broker.Subscription {
	return broker.Subscription{Channel: channel, Kind: broker.State}
}

func logOf(channel string) broker.Subscription {
	return broker.Subscription{Channel: channel, Kind: broker.Log}
}

// clientOf connects to a server beside the broker.
func clientOf(t testing.TB, server *redistest.Server) rueidis.Client {
	t.Helper()
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{server.Addr}, ForceSingleClient: true, DisableCache: true, DisableRetry: true,
		PipelineMultiplex: -1, RingScaleEachConn: 8,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// do sends commands in one go.
func do(t testing.TB, client rueidis.Client, lines ...[]string) {
	t.Helper()
	var commands []rueidis.Completed
	for _, line := range lines {
		commands = append(commands, client.B().Arbitrary(line...).Build())
	}
	for _, answer := range client.DoMulti(context.Background(), commands...) {
		if err := answer.Error(); err != nil && !rueidis.IsRedisNil(err) {
			t.Fatal(err)
		}
	}
}

// words takes commands apart that hold no spaces in their arguments.
func words(lines ...string) [][]string {
	var commands [][]string
	for _, line := range lines {
		commands = append(commands, strings.Fields(line))
	}
	return commands
}

// TestStateFollowsRedis changes a key in every way that Redis knows.
func TestStateFollowsRedis(t *testing.T) {
	t.Parallel()
	const none, any = brokertest.NoValue, "any"
	cases := []struct {
		name  string
		steps []string // commands, and what the key K must be told to hold after each
	}{
		{"set", []string{"SET K 1", "1", "SET K 2", "2", "APPEND K 3", "23", "INCR K", "24", "SETRANGE K 0 9", "94"}},
		{"empty string", []string{"SET K 1", "1", "EVAL redis.call('SET','K','') 0", "", "APPEND K 2", "2"}},
		{"delete", []string{"SET K 1", "1", "DEL K", none, "SET K 1", "1", "UNLINK K", none}},
		{"expire", []string{"SET K 1", "1", "PEXPIRE K 50", none}},
		{"set with expiry", []string{"SET K 1 PX 50", none, "SET K 2", "2"}},
		{"hash", []string{
			"HSET K b 2 a 1", `{"a":"1","b":"2"}`, "HSET K c 3", `{"a":"1","b":"2","c":"3"}`,
			"HDEL K a c", `{"b":"2"}`, "HINCRBY K b 1", `{"b":"3"}`, "HDEL K b", none,
		}},
		{"hash with what must be escaped", []string{"EVAL return(redis.call('HSET','K','a\"\\\\b',string.char(1,10))) 0", `{"a\"\\b":"\u0001\u000a"}`}},
		{"another type", []string{"LPUSH K 1", none, "DEL K", none, "SET K 1", "1", "DEL K", none, "XADD K * a 1", none}},
		{"string becomes hash becomes string", []string{
			"SET K 1", "1", "DEL K", none, "HSET K a 1", `{"a":"1"}`, "SET K 2", "2", "DEL K", none, "HSET K a 2", `{"a":"2"}`,
		}},
		{"rename over", []string{"SET K 1", "1", "SET O 2", any, "RENAME O K", "2", "RENAME K O", none, "COPY O K", "2"}},
		{"flushall", []string{"SET K 1", "1", "FLUSHALL", none, "SET K 2", "2", "FLUSHDB ASYNC", none}},
		{"transaction and script", []string{"EVAL redis.call('SET','K','1')redis.call('SET','K','2') 0", "2"}},
	}
	server := redistest.Start(t)
	b, r, _ := start(t, broker.RedisOptions{URL: server.URL()})
	client := clientOf(t, server)
	for number, one := range cases {
		name := "state:" + strconv.Itoa(number)
		b.Subscribe(state(name))
		r.WaitConfirmed(t, state(name), 1)
		for step := 0; step < len(one.steps); step += 2 {
			command := strings.Fields(strings.ReplaceAll(one.steps[step], "'K'", "'"+name+"'"))
			for index := range command {
				if command[index] == "K" {
					command[index] = name
				}
			}
			answer := client.Do(context.Background(), client.B().Arbitrary(command...).Build())
			if err := answer.Error(); err != nil && !rueidis.IsRedisNil(err) {
				t.Fatalf("%s: %s: %v", one.name, command, err)
			}
			if want := one.steps[step+1]; want != any {
				r.WaitValue(t, name, want)
			}
		}
	}
	if stats := b.Stats(); stats.SweepFound != 0 || stats.WrongTypes == 0 || stats.Reconnects != 0 {
		t.Fatalf("stats %+v", stats)
	}
}

// TestStateEvicted is told of keys that Redis drops for want of memory.
func TestStateEvicted(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--maxmemory-policy", "allkeys-lru")
	b, r, lines := start(t, broker.RedisOptions{URL: server.URL()})
	client := clientOf(t, server)
	do(t, client, words("SET state:1 here")...)
	ready(t, b, r, state("state:1"), logOf("log:1"))
	r.WaitValue(t, "state:1", "here")
	do(t, client, words("CONFIG SET maxmemory 1")...) // all goes that can
	r.Wait(t, "eviction", func() bool {
		_ = client.Do(context.Background(), client.B().Set().Key("other").Value("x").Build()).Error()
		values := r.Values("state:1")
		return values[len(values)-1] == brokertest.NoValue
	})
	// The prober looks once a minute; a new session looks at once.
	kill(t, server, "flags=P")
	r.Wait(t, "a warning", func() bool { return strings.Contains(lines.String(), "policy=allkeys-lru") })
}

// TestLargeStates hold no more of the memory than they may.
func TestLargeStates(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b, r, lines := start(t, broker.RedisOptions{URL: server.URL(), MaxValueBytes: 1000})
	client := clientOf(t, server)
	large := strings.Repeat("x", 1001)
	do(t, client, []string{"SET", "state:1", large}, []string{"HSET", "state:2", "a", large}, words("SET state:3 x")[0])
	many := []string{"HSET", "state:4"}
	for number := range 500 {
		many = append(many, strconv.Itoa(number), "x")
	}
	do(t, client, many)
	ready(t, b, r, state("state:1"), state("state:2"), state("state:3"), state("state:4"))
	r.WaitValue(t, "state:3", "x")
	for _, channel := range []string{"state:1", "state:2", "state:4"} {
		r.WaitConfirmed(t, state(channel), 1)
		if got := r.Values(channel); !slices.Equal(got, []string{brokertest.NoValue}) {
			t.Fatalf("%s gave %d values", channel, len(got))
		}
	}
	if calls(t, server, "hgetall") != 1 {
		t.Error("a hash with too many fields was read")
	}
	do(t, client, []string{"SET", "state:1", large[1:]}, words("DEL state:2")[0], words("HSET state:2 a 1")[0])
	r.WaitValue(t, "state:1", large[1:])
	r.WaitValue(t, "state:2", `{"a":"1"}`)
	if count := strings.Count(lines.String(), "too large"); count != 1 || b.Stats().TooLarge != 3 {
		t.Fatalf("%d lines, %+v", count, b.Stats())
	}
}

// TestBusyStateCostsLittle: a state that changes all the time is read a hundred times a second,
// and the last change is read.
func TestBusyStateCostsLittle(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b, r, _ := start(t, broker.RedisOptions{URL: server.URL()})
	ready(t, b, r, state("state:1"))
	client := clientOf(t, server)
	began, sets := time.Now(), 0
	for ; time.Since(began) < time.Second || sets < 500; sets++ {
		do(t, client, []string{"SET", "state:1", strconv.Itoa(sets)})
	}
	took := time.Since(began)
	r.WaitValue(t, "state:1", strconv.Itoa(sets-1))
	if reads, most := b.Stats().Reads, uint64(took/(10*time.Millisecond))+10; reads > most {
		t.Fatalf("%d SETs in %v cost %d reads, want at most %d", sets, took, reads, most)
	}
}

// TestOneSubscribeIsOneRead however often it is asked for.
func TestOneSubscribeIsOneRead(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b, r, _ := start(t, broker.RedisOptions{URL: server.URL()})
	do(t, clientOf(t, server), words("SET state:1 x")...)
	for range 10_000 {
		b.Subscribe(state("state:1"))
	}
	ready(t, b, r)
	r.WaitConfirmed(t, state("state:1"), 1)
	if reads := b.Stats().Reads; reads != 1 {
		t.Fatalf("%d reads", reads)
	}
}

// TestTrackingTableOverflow: beyond its table Redis says at random that keys have changed.
func TestTrackingTableOverflow(t *testing.T) {
	t.Parallel()
	const keys = 200
	server := redistest.Start(t, "--tracking-table-max-keys", "20")
	b, r, lines := start(t, broker.RedisOptions{URL: server.URL()})
	var subs []broker.Subscription
	for number := range keys {
		subs = append(subs, state(fmt.Sprintf("state:%d", number)), logOf(fmt.Sprintf("log:%d", number)))
	}
	ready(t, b, r, subs...)
	client := clientOf(t, server)
	for round := range 3 {
		for number := range keys {
			do(t, client, words(fmt.Sprintf("SET state:%d %d", number, round), fmt.Sprintf("XADD log:%d * data %d", number, round))...)
		}
	}
	for number := range keys {
		r.WaitValue(t, fmt.Sprintf("state:%d", number), "2")
		if got := r.WaitEntries(t, fmt.Sprintf("log:%d", number), 3); !slices.Equal(got, []string{"0", "1", "2"}) {
			t.Fatalf("log %d: %q", number, got)
		}
	}
	kill(t, server, "flags=P")
	r.Wait(t, "a warning", func() bool { return strings.Contains(lines.String(), "tracking-table-max-keys") })
}
