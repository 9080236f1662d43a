package broker_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/broker/brokertest"
	"github.com/millrace/millrace/internal/redistest"
)

const (
	linkEnded = "the connection by which redis tells what changed has ended"
	faultLine = "redis does not deliver"
)

// TestTrackingConnectionAlone: a connection for keys that ends alone is replaced alone. Keys are
// read again, and events go on without a gap.
func TestTrackingConnectionAlone(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b, r, lines := start(t, broker.RedisOptions{URL: server.URL()})
	ready(t, b, r, plain("job:1"), state("state:1"), logOf("log:1"))
	events := publishNumbers(t, broker.Plain, at(server), "job:1")
	states := publishNumbers(t, broker.State, at(server), "state:1")
	logs := publishNumbers(t, broker.Log, at(server), "log:1")
	r.WaitEntries(t, "log:1", 20)
	for range 3 {
		before := b.Stats().Reconnects
		kill(t, server, "flags=t")
		r.Wait(t, "another connection", func() bool { return b.Stats().Reconnects > before && b.Stats().Pending == 0 })
		r.WaitEntries(t, "log:1", len(r.Entries("log:1"))+20)
		horizon := b.Stats().Horizon
		r.Wait(t, "its canary", func() bool { return b.Stats().Horizon > horizon })
	}
	events.check(t, r)
	states.checkStates(t, r)
	logs.checkLogs(t, r)
	if r.Count(brokertest.Lost) != 0 || len(r.Holes("log:1")) != 0 {
		t.Errorf("%d subscriptions were lost, holes %v", r.Count(brokertest.Lost), r.Holes("log:1"))
	}
	if text := lines.String(); strings.Count(text, linkEnded) != 1 || strings.Contains(text, faultLine) {
		t.Errorf("lines:\n%s", text)
	}
	if stats := b.Stats(); stats.Tracked != 2 || stats.Subscribed != 3 || stats.SweepFound != 0 {
		t.Errorf("stats %+v", stats)
	}
}

// TestTrackingConnectionCut: Redis cuts whoever owes it too much. While one value is too large for
// that limit, and cuts the connection each time, events go on; once it may be read, it comes.
func TestTrackingConnectionCut(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b, r, lines := start(t, broker.RedisOptions{URL: server.URL()})
	ready(t, b, r, plain("job:1"), state("state:1"))
	server.CLI(t, "CONFIG", "SET", "client-output-buffer-limit", "normal 100000 0 0")
	large := strings.Repeat("x", 500_000)
	do(t, clientOf(t, server), []string{"SET", "state:1", large})
	r.Wait(t, "the news", func() bool { return strings.Contains(b.Health().Reason, "logs and states stand still") })
	server.CLI(t, "PUBLISH", "job:1", "still here")
	r.WaitEvents(t, "job:1", 1)
	if got := r.Values("state:1"); len(got) != 1 || b.Stats().Pending == 0 {
		t.Errorf("%d values came, stats %+v", len(got), b.Stats())
	}
	server.CLI(t, "CONFIG", "SET", "client-output-buffer-limit", "normal 0 0 0")
	r.WaitValue(t, "state:1", large)
	r.Wait(t, "a confirmation", func() bool { return b.Stats().Pending == 0 })
	r.Wait(t, "the good news", func() bool { return b.Health().Delivering && strings.Contains(lines.String(), "redis delivers again") })
	if text := lines.String(); strings.Count(text, linkEnded) != 1 || strings.Count(text, faultLine) != 1 || !strings.Contains(text, "client-output-buffer-limit") {
		t.Errorf("lines:\n%.2000s", text)
	}
	if r.Count(brokertest.Lost) != 0 {
		t.Errorf("%d subscriptions were lost", r.Count(brokertest.Lost))
	}
}

// TestTrackingConnectionShutOut: the connection ends when the password has changed, which the others
// have shown before.
func TestTrackingConnectionShutOut(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b, r, lines := start(t, broker.RedisOptions{URL: server.URL()})
	ready(t, b, r, plain("job:1"), state("state:1"))
	id := brokerIDs(t, server, "flags=t")[0]
	server.CLI(t, "CONFIG", "SET", "requirepass", "new")
	server.CLI(t, "--no-auth-warning", "-a", "new", "CLIENT", "KILL", "ID", id)
	r.Wait(t, "the news", func() bool {
		return strings.Contains(b.Health().Reason, "logs and states stand still") && strings.Contains(lines.String(), "cause=login")
	})
	server.CLI(t, "--no-auth-warning", "-a", "new", "PUBLISH", "job:1", "still here")
	r.WaitEvents(t, "job:1", 1)
	server.CLI(t, "--no-auth-warning", "-a", "new", "SET", "state:1", "new")
	server.CLI(t, "--no-auth-warning", "-a", "new", "CONFIG", "SET", "requirepass", "")
	r.WaitValue(t, "state:1", "new")
	r.Wait(t, "the good news", func() bool { return b.Health().Delivering && strings.Contains(lines.String(), "redis delivers again") })
	if r.Count(brokertest.Lost) != 0 || strings.Count(lines.String(), "cause=login") != 1 {
		t.Errorf("%d subscriptions were lost; lines:\n%s", r.Count(brokertest.Lost), lines)
	}
}

// TestLoginChanged: the operator changes who may come in, and then lets us in again. Each reason
// is one line; what happened to keys meanwhile is read, what happened to events is told as a loss.
func TestLoginChanged(t *testing.T) {
	admin := func(t *testing.T, s *redistest.Server, arguments ...string) {
		s.CLI(t, append([]string{"--no-auth-warning", "-u", "redis://admin:top@" + s.Addr}, arguments...)...)
	}
	for _, one := range []struct {
		name, user string
		shut, open []string
	}{
		{"a password is asked for", "", []string{"CONFIG", "SET", "requirepass", "new"}, []string{"CONFIG", "SET", "requirepass", ""}},
		{"the user is deleted", "gateway:pass@", []string{"ACL", "DELUSER", "gateway"}, []string{"ACL", "SETUSER", "gateway", "on", ">pass", "allkeys", "allchannels", "+@all"}},
		{"the user is switched off", "gateway:pass@", []string{"ACL", "SETUSER", "gateway", "off"}, []string{"ACL", "SETUSER", "gateway", "on"}},
	} {
		t.Run(one.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			server.CLI(t, "ACL", "SETUSER", "admin", "on", ">top", "allkeys", "allchannels", "+@all")
			server.CLI(t, "ACL", "SETUSER", "gateway", "on", ">pass", "allkeys", "allchannels", "+@all")
			b, r, lines := start(t, broker.RedisOptions{URL: "redis://" + one.user + server.Addr})
			admin(t, server, "SET", "state:1", "old")
			ready(t, b, r, plain("job:1"), state("state:1"), logOf("log:1"))
			admin(t, server, "XADD", "log:1", "*", "data", "1")
			r.WaitEntries(t, "log:1", 1)

			admin(t, server, one.shut...)
			admin(t, server, "CLIENT", "KILL", "TYPE", "pubsub")
			admin(t, server, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
			r.Wait(t, "notice", func() bool { return strings.Contains(lines.String(), "cause=login") && !b.Health().Delivering })
			if err := publish(b, broker.Message{Channel: "state:1", Kind: broker.State}); !errors.Is(err, broker.ErrUnavailable) {
				t.Errorf("publish: %v", err)
			}
			admin(t, server, "SET", "state:1", "new")
			admin(t, server, "XADD", "log:1", "*", "data", "2")
			admin(t, server, one.open...)

			r.WaitValue(t, "state:1", "new")
			r.WaitEntries(t, "log:1", 2)
			r.Wait(t, "the loss of events", func() bool { return r.CountOf(brokertest.Mended, plain("job:1")) == 1 })
			r.Wait(t, "the good news", func() bool { return strings.Contains(lines.String(), "redis delivers again") })
			if len(r.Holes("log:1")) != 0 {
				t.Errorf("holes %v in a log that was whole all the time", r.Holes("log:1"))
			}
			if text := lines.String(); strings.Count(text, "cause=login") != 1 || strings.Contains(text, "pass@") {
				t.Errorf("lines:\n%s", text)
			}
		})
	}
}

// TestLoading: a Redis that restarts answers for a while that it is still reading its data.
func TestLoading(t *testing.T) {
	t.Parallel()
	const keys = 4_000
	// Half a millisecond a key, with a look at the clients after each kilobyte.
	server := redistest.Start(t, "--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024")
	client := clientOf(t, server)
	sets := make([][]string, keys)
	for number := range sets {
		sets[number] = []string{"SET", fmt.Sprintf("other:%d", number), strconv.Itoa(number)}
	}
	do(t, client, sets...)
	do(t, client, words("SET state:1 old", "XADD log:1 * data 1", "SAVE")...)
	client.Close()
	b, r, lines := start(t, broker.RedisOptions{URL: server.URL()})
	ready(t, b, r, plain("job:1"), state("state:1"), logOf("log:1"))
	server.Restart(t)
	r.Wait(t, "the reason", func() bool { return strings.Contains(lines.String(), "cause=loading") })
	if err := publish(b, broker.Message{Channel: "log:1", Kind: broker.Log}); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("publish: %v", err)
	}
	r.Wait(t, "delivery", func() bool { return b.Health().Delivering && b.Stats().Pending == 0 })
	do(t, clientOf(t, server), words("SET state:1 new", "XADD log:1 * data 2")...)
	r.WaitValue(t, "state:1", "new")
	r.WaitEntries(t, "log:1", 1) // it was live only before
	if len(r.Holes("log:1")) == 0 || r.CountOf(brokertest.Mended, plain("job:1")) != 1 {
		t.Errorf("another run may have lost entries: holes %v", r.Holes("log:1"))
	}
	if strings.Count(lines.String(), "cause=loading") != 1 {
		t.Errorf("lines:\n%s", lines)
	}
}

// TestOutOfMemory: a Redis at maxmemory takes no more. What it refuses is refused in its words;
// all that is there, and what goes, is still told.
func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--maxmemory-policy", "noeviction")
	client := clientOf(t, server)
	do(t, client, words("SET state:1 one", "SET state:2 two", "XADD log:1 * data 1")...)
	b, r, lines := start(t, broker.RedisOptions{URL: server.URL()})
	ready(t, b, r, plain("job:1"), state("state:1"), logOf("log:1"))
	do(t, client, words("CONFIG SET maxmemory 1")...)
	for _, message := range []broker.Message{
		{Channel: "state:1", Kind: broker.State, Payload: []byte("more")},
		{Channel: "log:1", Kind: broker.Log, Payload: []byte("more")},
	} {
		if err := publish(b, message); !errors.Is(err, broker.ErrRefused) || !strings.Contains(err.Error(), "OOM") || !strings.Contains(err.Error(), "maxmemory") {
			t.Errorf("%s: %v", message.Channel, err)
		}
	}
	if err := publish(b, broker.Message{Channel: "job:1", Payload: []byte("x")}); err != nil {
		t.Error(err)
	}
	r.WaitEvents(t, "job:1", 1)
	ready(t, b, r, state("state:2"))
	r.WaitValue(t, "state:2", "two")
	if entries, err := b.ReadLog(context.Background(), "log:1", broker.Position{}, 10); err != nil || len(entries.Entries) != 1 {
		t.Errorf("the log gives %+v, %v", entries, err)
	}
	do(t, client, words("DEL state:1")...)
	r.WaitValue(t, "state:1", brokertest.NoValue)
	r.Wait(t, "a line", func() bool { return strings.Contains(lines.String(), "cause=memory") })
	do(t, client, words("CONFIG SET maxmemory 0")...)
	now, _ := strconv.ParseUint(strings.TrimSpace(strings.SplitN(server.CLI(t, "TIME"), "\n", 2)[0]), 10, 64)
	r.Wait(t, "the horizon to go on", func() bool { return b.Stats().Horizon >= now*1000 })
	if strings.Count(lines.String(), "cause=memory") != 1 || r.Count(brokertest.Lost) != 0 {
		t.Errorf("%d subscriptions were lost; lines:\n%s", r.Count(brokertest.Lost), lines)
	}
	if _, err := b.Publish(context.Background(), []broker.Message{{Channel: "log:1", Kind: broker.Log, Payload: []byte("2")}}); err != nil {
		t.Error(err)
	}
	r.WaitEntries(t, "log:1", 1)
}

// TestPubSubCutReadsKeys: when Redis cuts the connection of events, which takes the session with
// it, keys are read again and nothing of them is missing.
func TestPubSubCutReadsKeys(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--client-output-buffer-limit", "pubsub 1mb 1mb 1")
	b, r, _ := start(t, broker.RedisOptions{URL: server.URL()})
	ready(t, b, r, plain("job:1"), state("state:1"), logOf("log:1"))
	logs := publishNumbers(t, broker.Log, at(server), "log:1")
	states := publishNumbers(t, broker.State, at(server), "state:1")
	r.WaitEntries(t, "log:1", 10)
	// One event over the limit is enough: Redis cuts before it writes.
	large := strings.Repeat("x", 2<<20)
	r.Wait(t, "the cut", func() bool {
		_ = publish(b, broker.Message{Channel: "job:1", Payload: []byte(large)})
		return r.CountOf(brokertest.Lost, plain("job:1")) > 0
	})
	r.Wait(t, "recovery", func() bool { return r.CountOf(brokertest.Mended, plain("job:1")) > 0 && b.Stats().Pending == 0 })
	r.WaitEntries(t, "log:1", len(r.Entries("log:1"))+20)
	states.checkStates(t, r)
	logs.checkLogs(t, r)
	if len(r.Holes("log:1")) != 0 {
		t.Errorf("holes %v", r.Holes("log:1"))
	}
}
