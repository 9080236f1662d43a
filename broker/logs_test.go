package broker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/broker/brokertest"
	"github.com/millrace/millrace/internal/redistest"
	"github.com/millrace/millrace/proto"
)

const (
	trimmed = proto.GapTrimmed
	rewound = proto.GapRewound
	broken  = proto.GapBroker
)

// TestLogFollowsRedis changes a log in every way that Redis knows, each way in one transaction,
// so that only its end can be seen.
func TestLogFollowsRedis(t *testing.T) {
	t.Parallel()
	before := []string{"XADD K 10-1 data a", "XADD K 10-2 data b"}
	cases := []struct {
		name    string
		script  []string
		entries []string          // that must come after a and b
		holes   []proto.GapReason // that must be told
	}{
		{"append", []string{"XADD K 10-3 data c", "XADD K 11-0 data d"}, []string{"c", "d"}, nil},
		{"fields", []string{`XADD K 11-0 b "1 f 2`}, []string{`{"b":"\"1","f":"2"}`}, nil},
		{"data among fields", []string{"XADD K 11-0 b 1 data x"}, []string{"x"}, nil},
		{"trim what was read", []string{"XTRIM K MAXLEN 0", "XADD K 11-0 data c"}, []string{"c"}, nil},
		{"delete what was read", []string{"XDEL K 10-1 10-2", "XADD K 11-0 data c"}, []string{"c"}, nil},
		{"delete the last", []string{"XDEL K 10-2"}, nil, nil},
		{"each append trims", []string{"XADD K MAXLEN 1 11-0 data c"}, []string{"c"}, nil},
		{"trim what was not read", []string{"XADD K 11-0 data c", "XADD K MAXLEN 1 12-0 data d"}, []string{"d"}, []proto.GapReason{trimmed}},
		{"trim by position", []string{"XADD K 11-0 data c", "XADD K 12-0 data d", "XTRIM K MINID 12"}, []string{"d"}, []proto.GapReason{trimmed}},
		{"trim all", []string{"XADD K 11-0 data c", "XTRIM K MAXLEN 0"}, nil, []proto.GapReason{trimmed}},
		// This one only the sweep finds: what was read is there, and so is what follows.
		{"delete what was not read", []string{"XADD K 11-0 data c", "XADD K 12-0 data d", "XDEL K 11-0"}, []string{"d"}, []proto.GapReason{trimmed}},
		{"delete the key", []string{"DEL K"}, nil, []proto.GapReason{trimmed}},
		{"delete the key and begin anew", []string{"DEL K", "XADD K 11-0 data c"}, []string{"c"}, []proto.GapReason{rewound}},
		{"begin anew with more", []string{"DEL K", "XADD K 11-0 data c", "XADD K 12-0 data d", "XADD K 13-0 data e"}, []string{"c", "d", "e"}, []proto.GapReason{rewound}},
		{"begin anew from before", []string{"DEL K", "XADD K 1-0 data z"}, nil, []proto.GapReason{rewound}},
		{"another type", []string{"DEL K", "SET K x"}, nil, []proto.GapReason{trimmed}},
		{"expire", []string{"PEXPIRE K 1"}, nil, []proto.GapReason{trimmed}},
		{"rename over", []string{"XADD O 5-0 data o", "RENAME O K"}, nil, []proto.GapReason{rewound}},
		{"flush", []string{"FLUSHALL", "XADD K 11-0 data c"}, []string{"c"}, []proto.GapReason{rewound}},
	}
	for _, one := range cases {
		t.Run(one.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			b, r, _ := startSweeping(t, server, time.Second)
			client := clientOf(t, server)
			ready(t, b, r, logOf("K"))
			do(t, client, words(before...)...)
			r.WaitEntries(t, "K", 2)
			do(t, client, slices.Concat(words("MULTI"), words(one.script...), words("EXEC"))...)
			r.Wait(t, "the end", func() bool {
				return len(r.Holes("K")) >= len(one.holes) && len(r.Entries("K")) >= 2+len(one.entries)
			})
			if one.name != "another type" {
				do(t, client, words("XADD K 20-0 data end")...)
				r.WaitEntries(t, "K", 3+len(one.entries))
			}
			got := r.Entries("K")
			if want := append([]string{"a", "b"}, one.entries...); !slices.Equal(got[:len(want)], want) {
				t.Errorf("entries %q, want %q", got, want)
			}
			if holes := r.Holes("K"); !slices.Equal(holes, one.holes) {
				t.Errorf("holes %v, want %v", holes, one.holes)
			}
			checkUpdates(t, r, "K")
		})
	}
}

// checkUpdates holds the updates of a log to the form that they promise.
func checkUpdates(t *testing.T, r *brokertest.Recorder, channel string) {
	t.Helper()
	var at broker.Position
	for index, update := range r.Updates(channel) {
		if !update.Hole && index > 0 && update.From != at {
			t.Errorf("update %d goes on from %v, not %v", index, update.From, at)
		}
		at = update.From
		for _, entry := range update.Entries {
			if !at.Before(entry.Position) {
				t.Errorf("update %d: %v comes after %v", index, entry.Position, at)
			}
			at = entry.Position
		}
	}
}

// TestLogBackToBack appends ten thousand entries as fast as Redis takes them, from two sides.
func TestLogBackToBack(t *testing.T) {
	t.Parallel()
	const each = 5_000
	server := redistest.Start(t)
	b, r, _ := start(t, broker.RedisOptions{URL: server.URL()})
	ready(t, b, r, logOf("log:1"))
	done := make(chan struct{})
	for writer := range 2 {
		client := clientOf(t, server)
		go func() {
			for number := range each {
				built := client.B().Xadd().Key("log:1").Id("*").FieldValue().FieldValue("data", fmt.Sprintf("%d %d", writer, number)).Build()
				if err := client.Do(context.Background(), built).Error(); err != nil {
					t.Error(err)
				}
			}
			done <- struct{}{}
		}()
	}
	<-done
	<-done
	var next [2]int
	for _, payload := range r.WaitEntries(t, "log:1", 2*each) {
		var writer, number int
		if _, err := fmt.Sscan(payload, &writer, &number); err != nil || number != next[writer] {
			t.Fatalf("%q came instead of number %d (%v)", payload, next[writer], err)
		}
		next[writer]++
	}
	if stats := b.Stats(); stats.Holes != 0 || stats.SweepFound != 0 || len(r.Entries("log:1")) != 2*each {
		t.Fatalf("stats %+v", stats)
	}
	checkUpdates(t, r, "log:1")
}

// TestLargeEntries are read few at a time.
func TestLargeEntries(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b, r, _ := start(t, broker.RedisOptions{URL: server.URL()})
	ready(t, b, r, logOf("log:1"))
	client := clientOf(t, server)
	var commands [][]string
	for number := range 64 {
		commands = append(commands, []string{"XADD", "log:1", "*", "data", strconv.Itoa(number) + strings.Repeat(" ", 400_000)})
	}
	do(t, client, commands[:1]...)
	r.WaitEntries(t, "log:1", 1)
	do(t, client, slices.Concat(words("MULTI"), commands[1:], words("EXEC"))...)
	for number, payload := range r.WaitEntries(t, "log:1", 64) {
		if strings.TrimSpace(payload) != strconv.Itoa(number) {
			t.Fatalf("entry %d is %q", number, payload[:10])
		}
	}
	for _, update := range r.Updates("log:1") {
		if len(update.Entries) > 3 {
			t.Fatalf("%d entries of 400 KB were read at once", len(update.Entries))
		}
	}
}

// TestKeysForbidden are told as refused, and come once they are allowed.
func TestKeysForbidden(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.CLI(t, "ACL", "SETUSER", "gateway", "on", ">pass", "+@all", "allchannels", "~open:*", "~__millrace:*")
	b, err := broker.NewRedis(broker.RedisOptions{URL: "redis://gateway:pass@" + server.Addr, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	b.SetRefusedRetry(50 * time.Millisecond)
	r := brokertest.NewRecorder()
	t.Cleanup(func() { _ = b.Close() })
	if err := b.Start(r.Callbacks()); err != nil {
		t.Fatal(err)
	}
	secrets := []broker.Subscription{state("secret:1"), logOf("secret:2")}
	for _, sub := range append(secrets, state("open:1"), logOf("open:2")) {
		b.Subscribe(sub)
	}
	r.WaitConfirmed(t, state("open:1"), 1)
	r.WaitConfirmed(t, logOf("open:2"), 1)
	for _, sub := range secrets {
		r.Wait(t, "refusal", func() bool { return r.CountOf(brokertest.Refused, sub) == 1 })
	}
	for _, record := range r.Records() {
		if record.What == brokertest.Refused && !errors.Is(record.Err, broker.ErrRefused) {
			t.Fatalf("refused with %v", record.Err)
		}
	}
	if _, err := b.ReadLog(context.Background(), "secret:2", broker.Position{}, 1); !errors.Is(err, broker.ErrRefused) {
		t.Fatalf("read: %v", err)
	}
	server.CLI(t, "ACL", "SETUSER", "gateway", "~secret:*")
	server.CLI(t, "SET", "secret:1", "x")
	r.WaitConfirmed(t, secrets[0], 1)
	r.WaitConfirmed(t, secrets[1], 1)
	r.WaitValue(t, "secret:1", "x")
	if r.Count(brokertest.Lost) != 0 {
		t.Fatal("a loss was told")
	}
}

// TestInfoForbidden: who can't ask whether the server is another one must take it for one.
func TestInfoForbidden(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.CLI(t, "ACL", "SETUSER", "gateway", "on", ">pass", "+@all", "-info", "allchannels", "allkeys")
	b, r, _ := start(t, broker.RedisOptions{URL: "redis://gateway:pass@" + server.Addr})
	ready(t, b, r, logOf("log:1"))
	server.CLI(t, "XADD", "log:1", "*", "data", "a")
	r.WaitEntries(t, "log:1", 1)
	kill(t, server, "flags=t")
	r.Wait(t, "a hole", func() bool { return slices.Equal(r.Holes("log:1"), []proto.GapReason{broken}) })
	server.CLI(t, "XADD", "log:1", "*", "data", "b")
	r.WaitEntries(t, "log:1", 2)
	checkUpdates(t, r, "log:1")
}

// TestTrackingForbidden leaves events as they are.
func TestTrackingForbidden(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.CLI(t, "ACL", "SETUSER", "gateway", "on", ">pass", "+@all", "-client|tracking", "allchannels", "allkeys")
	b, r, lines := start(t, broker.RedisOptions{URL: "redis://gateway:pass@" + server.Addr})
	ready(t, b, r, plain("job:1"))
	if lines.String() != "" && strings.Contains(lines.String(), "WARN") {
		t.Fatalf("nobody asked for keys, and yet:\n%s", lines)
	}
	b.SetRefusedRetry(50 * time.Millisecond)
	b.Subscribe(state("state:1"))
	r.Wait(t, "refusal", func() bool { return r.CountOf(brokertest.Refused, state("state:1")) == 1 })
	if !b.Health().Delivering {
		t.Fatalf("health %+v", b.Health())
	}
	server.CLI(t, "ACL", "SETUSER", "gateway", "+client|tracking")
	server.CLI(t, "SET", "state:1", "x")
	r.WaitConfirmed(t, state("state:1"), 1)
	r.WaitValue(t, "state:1", "x")
	server.CLI(t, "SET", "state:1", "y")
	r.WaitValue(t, "state:1", "y")
	r.Wait(t, "the canary to come back", func() bool { return b.Stats().Horizon > 0 })
}
