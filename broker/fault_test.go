package broker_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/broker/brokertest"
	"github.com/millrace/millrace/internal/freeport"
	"github.com/millrace/millrace/internal/logtest"
	"github.com/millrace/millrace/internal/redistest"
)

// faultsSeen waits until the subscription was reported lost and mended more often than before.
func faultMended(t *testing.T, r *brokertest.Recorder, sub broker.Subscription, inject func()) {
	t.Helper()
	lost, mended := r.CountOf(brokertest.Lost, sub), r.CountOf(brokertest.Mended, sub)
	inject()
	r.Wait(t, "loss of "+sub.Channel, func() bool { return r.CountOf(brokertest.Lost, sub) > lost })
	r.Wait(t, "recovery of "+sub.Channel, func() bool { return r.CountOf(brokertest.Mended, sub) > mended })
}

// TestFaultsLoseNothingSilently breaks the connection in every way that a standalone server can
// and accounts for each number published meanwhile.
func TestFaultsLoseNothingSilently(t *testing.T) {
	faults := []struct {
		name   string
		inject func(*testing.T, *redistest.Server, *broker.Redis, *brokertest.Recorder)
	}{
		{"client kill type pubsub", func(t *testing.T, s *redistest.Server, _ *broker.Redis, r *brokertest.Recorder) {
			for range 3 {
				faultMended(t, r, plain("job:1"), func() { s.CLI(t, "CLIENT", "KILL", "TYPE", "pubsub") })
			}
		}},
		{"stall and go on", func(t *testing.T, s *redistest.Server, b *broker.Redis, r *brokertest.Recorder) {
			// On a machine that is busy otherwise one try may be late through no fault of ours.
			took := time.Hour
			for try := 0; try < 3 && took > 3*time.Second; try++ {
				faultMended(t, r, plain("job:1"), func() {
					r.Wait(t, "delivery", func() bool { return b.Health().Delivering })
					s.Stop()
					began := time.Now()
					r.Wait(t, "health to turn", func() bool { return !b.Health().Delivering })
					took = min(took, time.Since(began))
					if reason := b.Health().Reason; !strings.Contains(reason, s.Addr) {
						t.Errorf("reason %q does not name the server", reason)
					}
					s.Cont()
				})
			}
			if took > 3*time.Second {
				t.Errorf("a stalled server was noticed after %v", took)
			}
		}},
		{"restart", func(t *testing.T, s *redistest.Server, _ *broker.Redis, r *brokertest.Recorder) {
			faultMended(t, r, plain("job:1"), func() { s.Restart(t) })
		}},
	}
	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			b, r, _ := start(t, broker.RedisOptions{URL: server.URL()})
			ready(t, b, r, plain("job:1"), plain("job:2"), pattern("other:*"))
			publisher := publishNumbers(t, broker.Plain, at(server), "job:1", "job:2")
			r.WaitEvents(t, "job:1", 20)
			fault.inject(t, server, b, r)
			seen := len(r.Events("job:2"))
			r.WaitEvents(t, "job:2", seen+20)
			publisher.check(t, r)
			r.Wait(t, "health to turn back", func() bool { return b.Health().Delivering })
			if b.Stats().Reconnects == 0 || b.Stats().Losses == 0 {
				t.Errorf("stats tell of no fault: %+v", b.Stats())
			}
		})
	}
}

// TestKilledCommandConnection loses no event: it is not the one that events come by.
func TestKilledCommandConnection(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b, r, _ := start(t, broker.RedisOptions{URL: server.URL()})
	ready(t, b, r, plain("job:1"))
	for round := range 5 {
		kill(t, server, "flags=N")
		r.Wait(t, "publishing again", func() bool {
			message := broker.Message{Channel: "job:1", Payload: []byte(strconv.Itoa(round))}
			return publish(b, message) == nil
		})
		r.WaitEvents(t, "job:1", round+1)
	}
	if r.Count(brokertest.Lost) != 0 {
		t.Fatal("a loss was told")
	}
}

// kill ends the connections of the broker whose line in CLIENT LIST holds a text.
func kill(t *testing.T, server *redistest.Server, holds string) {
	t.Helper()
	for _, id := range brokerIDs(t, server, holds) {
		server.CLI(t, "CLIENT", "KILL", "ID", id)
	}
}

// brokerIDs returns the ids of those connections, of which there must be one.
func brokerIDs(t *testing.T, server *redistest.Server, holds string) []string {
	t.Helper()
	var ids []string
	for line := range strings.Lines(server.CLI(t, "CLIENT", "LIST")) {
		if strings.Contains(line, "name=millrace") && strings.Contains(line, holds) {
			id, _, _ := strings.Cut(strings.TrimPrefix(line, "id="), " ")
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		t.Fatalf("no connection has %s", holds)
	}
	return ids
}

// TestStalledPublish returns in time, says that the broker is away, and publishes again later.
func TestStalledPublish(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b, r, _ := start(t, broker.RedisOptions{URL: server.URL()})
	ready(t, b, r)
	server.Stop()
	message := []broker.Message{{Channel: "job:1", Payload: []byte("x")}}
	results := make(chan error, 100)
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	began := time.Now()
	for range cap(results) {
		go func() {
			_, err := b.Publish(ctx, message)
			results <- err
		}()
	}
	for range cap(results) {
		if err := <-results; !errors.Is(err, broker.ErrUnavailable) {
			t.Fatalf("got %v", err)
		}
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Fatalf("took %v with a deadline of half a second", took)
	}
	r.Wait(t, "notice", func() bool { return !b.Health().Delivering })
	if _, err := b.Publish(context.Background(), message); !errors.Is(err, broker.ErrUnavailable) {
		t.Fatalf("got %v", err)
	}
	server.Cont()
	r.Wait(t, "publishing again", func() bool { return publish(b, message...) == nil })
	if got := b.Stats().PublishErrors; got < uint64(cap(results))+1 {
		t.Fatalf("%d errors counted", got)
	}
}

func TestRedisComesLater(t *testing.T) {
	t.Parallel()
	port, err := freeport.Find()
	if err != nil {
		t.Fatal(err)
	}
	b, r, lines := start(t, broker.RedisOptions{URL: "redis://127.0.0.1:" + strconv.Itoa(port)})
	b.Subscribe(plain("job:1"))
	r.Wait(t, "a reason", func() bool { return strings.Contains(b.Health().Reason, "refused") })
	if health := b.Health(); health.Reached || health.Delivering {
		t.Fatalf("health %+v", health)
	}
	if _, err := b.Publish(context.Background(), []broker.Message{{Channel: "job:1"}}); !errors.Is(err, broker.ErrUnavailable) {
		t.Fatalf("got %v", err)
	}
	server, err := redistest.RunOn(port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	ready(t, b, r, plain("job:1"))
	first := slices.IndexFunc(r.Records(), func(record brokertest.Record) bool { return record.Sub == plain("job:1") })
	if record := r.Records()[first]; record.What != brokertest.Confirmed {
		t.Fatalf("the first word about the channel is %s", record.What)
	}
	if count := strings.Count(lines.String(), "cause=refused"); count != 1 {
		t.Fatalf("%d lines, want 1:\n%s", count, lines)
	}
}

// TestRefusals meets servers that answer but do not let us in: one line each, no hot loop, no
// password anywhere.
func TestRefusals(t *testing.T) {
	const secret = "correct-horse"
	cases := []struct {
		name  string
		url   func(*testing.T) (string, *redistest.Server)
		cause string
	}{
		{"noauth", func(t *testing.T) (string, *redistest.Server) {
			s := redistest.Start(t, "--requirepass", "other")
			return s.URL(), s
		}, "login"},
		{"wrong password", func(t *testing.T) (string, *redistest.Server) {
			s := redistest.Start(t, "--requirepass", "other")
			return "redis://:" + secret + "@" + s.Addr, s
		}, "login"},
		{"unknown user", func(t *testing.T) (string, *redistest.Server) {
			s := redistest.Start(t)
			return "redis://somebody:" + secret + "@" + s.Addr, s
		}, "login"},
		{"replica", func(t *testing.T) (string, *redistest.Server) {
			primary := redistest.Start(t)
			s := redistest.Start(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(primary.Port))
			return s.URL(), s
		}, "replica"},
		{"several addresses without a cluster", func(t *testing.T) (string, *redistest.Server) {
			s := redistest.Start(t)
			return s.URL() + "," + redistest.Start(t).Addr, s
		}, "mode"},
		{"tls spoken to a plain port", func(t *testing.T) (string, *redistest.Server) {
			s := redistest.Start(t)
			return "rediss://:" + secret + "@" + s.Addr, s
		}, "timeout"},
	}
	for _, one := range cases {
		t.Run(one.name, func(t *testing.T) {
			t.Parallel()
			url, server := one.url(t)
			b, r, lines := start(t, broker.RedisOptions{URL: url})
			b.Subscribe(plain("job:1"))
			r.Wait(t, "a line", func() bool { return strings.Contains(lines.String(), "redis does not deliver") })
			deadline := time.Now().Add(1500 * time.Millisecond)
			r.Wait(t, "some tries", func() bool { return time.Now().After(deadline) })
			text := lines.String()
			if strings.Count(text, "\n") != 1 || !strings.Contains(text, "cause="+one.cause) || !strings.Contains(text, "advice=") {
				t.Errorf("lines:\n%s", text)
			}
			if strings.Contains(text+b.Health().Reason, secret) {
				t.Error("the password is told")
			}
			if b.Health().Delivering || b.Health().Reason == "" {
				t.Errorf("health %+v", b.Health())
			}
			_, err := b.Publish(context.Background(), []broker.Message{{Channel: "job:1"}})
			if !errors.Is(err, broker.ErrUnavailable) || strings.Contains(err.Error(), secret) {
				t.Errorf("publish: %v", err)
			}
			_ = b.Close()
			// Every try takes at most two connections; backoff allows about five in this time.
			if got := connections(t, server); got > 25 {
				t.Errorf("%d connections in 1.5 s", got)
			}
		})
	}
}

func connections(t *testing.T, server *redistest.Server) int {
	t.Helper()
	arguments := []string{"INFO", "stats"}
	if info, err := server.Command(arguments...); err != nil || strings.Contains(info, "NOAUTH") {
		arguments = append([]string{"--no-auth-warning", "-a", "other"}, arguments...)
	}
	_, rest, _ := strings.Cut(server.CLI(t, arguments...), "total_connections_received:")
	digits, _, _ := strings.Cut(rest, "\r\n")
	count, err := strconv.Atoi(digits)
	if err != nil {
		t.Fatal(err)
	}
	return count
}

// TestLoginMended lets a broker in as soon as the server does.
func TestLoginMended(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--requirepass", "other")
	b, r, lines := start(t, broker.RedisOptions{URL: server.URL()})
	b.Subscribe(plain("job:1"))
	r.Wait(t, "refusal", func() bool { return strings.Contains(b.Health().Reason, "NOAUTH") })
	server.CLI(t, "--no-auth-warning", "-a", "other", "CONFIG", "SET", "requirepass", "")
	ready(t, b, r, plain("job:1"))
	r.Wait(t, "the good news", func() bool { return strings.Contains(lines.String(), "redis delivers again") })
}

// TestBlackHole is a server that takes connections and never answers.
func TestBlackHole(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var taken atomic.Int64
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			taken.Add(1)
			t.Cleanup(func() { _ = connection.Close() })
		}
	}()
	b, r, lines := start(t, broker.RedisOptions{URL: "redis://" + listener.Addr().String()})
	r.Wait(t, "a line and a second try", func() bool {
		return strings.Contains(lines.String(), "cause=timeout") && taken.Load() == 2
	})
	began := time.Now()
	_ = b.Close()
	if took := time.Since(began); took > time.Second {
		t.Fatalf("Close took %v", took)
	}
}

// TestPermissions: a user that may listen to some channels gets those, is told of the others,
// and gets them when they are allowed.
func TestPermissions(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	// No more than the advice of the log line names.
	server.CLI(t, "ACL", "SETUSER", "gateway", "on", ">pass", "resetchannels", "&job:*", "&__millrace:*",
		"+subscribe", "+unsubscribe", "+psubscribe", "+punsubscribe", "+ssubscribe", "+sunsubscribe",
		"+publish", "+spublish", "+multi", "+exec", "+ping")
	b, r, lines := start(t, broker.RedisOptions{URL: "redis://gateway:pass@" + server.Addr})
	b.SetRefusedRetry(300 * time.Millisecond)
	for number := range 20 {
		b.Subscribe(plain("job:" + strconv.Itoa(number)))
	}
	b.Subscribe(plain("secret:1"))
	r.WaitConfirmed(t, plain("job:19"), 1)
	r.Wait(t, "refusal", func() bool { return r.CountOf(brokertest.Refused, plain("secret:1")) == 1 })
	if r.Count(brokertest.Refused) != 1 || b.Stats().Subscribed != 20 || b.Stats().Pending != 1 {
		t.Fatalf("%d refused, stats %+v", r.Count(brokertest.Refused), b.Stats())
	}
	b.Subscribe(plain("secret:1")) // somebody else asks too
	r.Wait(t, "a second refusal", func() bool { return r.CountOf(brokertest.Refused, plain("secret:1")) >= 2 })
	for _, record := range r.Records() {
		if record.What == brokertest.Refused && !errors.Is(record.Err, broker.ErrRefused) {
			t.Fatalf("refused with %v", record.Err)
		}
	}
	messages := []broker.Message{{Channel: "job:1", Payload: []byte("a")}, {Channel: "secret:1", Payload: []byte("b")}}
	_, err := b.Publish(context.Background(), messages)
	if !errors.Is(err, broker.ErrRefused) || !strings.Contains(err.Error(), "NOPERM") {
		t.Fatalf("publish: %v", err)
	}
	if _, err := b.Publish(context.Background(), messages[:1]); err != nil {
		t.Fatal(err)
	}
	if got := r.WaitEvents(t, "job:1", 1); len(got) != 1 {
		t.Fatalf("%d events: a refused call was published in part", len(got))
	}
	// Widening a user's channels leaves its connections alone.
	server.CLI(t, "ACL", "SETUSER", "gateway", "&secret:*")
	r.WaitConfirmed(t, plain("secret:1"), 1)
	if count := strings.Count(lines.String(), "cause=permission"); count != 1 {
		t.Fatalf("%d lines:\n%s", count, lines)
	}
}

// TestCanaryForbidden delivers events but does not claim to be sure of it, until it may.
func TestCanaryForbidden(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.CLI(t, "ACL", "SETUSER", "gateway", "on", ">pass", "+@all", "resetchannels", "&job:*")
	b, r, lines := start(t, broker.RedisOptions{URL: "redis://gateway:pass@" + server.Addr})
	b.Subscribe(plain("job:1"))
	r.WaitConfirmed(t, plain("job:1"), 1)
	r.Wait(t, "a line", func() bool { return strings.Contains(lines.String(), "__millrace:canary:") })
	server.CLI(t, "PUBLISH", "job:1", "x")
	r.WaitEvents(t, "job:1", 1)
	if health := b.Health(); health.Delivering || !strings.Contains(health.Reason, "NOPERM") {
		t.Fatalf("health %+v", health)
	}
	server.CLI(t, "ACL", "SETUSER", "gateway", "&__millrace:*")
	r.Wait(t, "proof", func() bool { return b.Health().Delivering })
	if r.Count(brokertest.Lost) != 0 {
		t.Fatal("a loss was told")
	}
}

// TestOutputBufferLimit: a reader that was held up is cut by Redis; the loss is told.
func TestOutputBufferLimit(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--client-output-buffer-limit", "pubsub 1mb 1mb 10")
	held := make(chan struct{})
	recorder := brokertest.NewRecorder()
	callbacks := recorder.Callbacks()
	event := callbacks.Event
	callbacks.Event = func(channel string, payload []byte, received time.Time) {
		if channel == "job:hold" {
			<-held
		}
		event(channel, payload, received)
	}
	b, err := broker.NewRedis(broker.RedisOptions{URL: server.URL(), Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	if err := b.Start(callbacks); err != nil {
		t.Fatal(err)
	}
	ready(t, b, recorder, plain("job:1"), plain("job:hold"))
	server.CLI(t, "PUBLISH", "job:hold", "x")
	large := strings.Repeat("x", 1<<20)
	cut := false
	for range 50 {
		if _, err := b.Publish(context.Background(), []broker.Message{{Channel: "job:1", Payload: []byte(large)}}); err != nil {
			t.Fatal(err)
		}
		if cut = server.CLI(t, "PUBSUB", "NUMSUB", "job:1") == "job:1\n0"; cut {
			break
		}
	}
	if !cut {
		t.Fatal("Redis did not cut the reader")
	}
	close(held)
	recorder.Wait(t, "loss", func() bool { return recorder.CountOf(brokertest.Lost, plain("job:1")) == 1 })
	recorder.Wait(t, "recovery", func() bool { return recorder.CountOf(brokertest.Mended, plain("job:1")) == 1 })
}

// TestPanickingCallback costs the connection, or nothing, but not the process.
func TestPanickingCallback(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	recorder := brokertest.NewRecorder()
	callbacks := recorder.Callbacks()
	event, confirmed := callbacks.Event, callbacks.Confirmed
	callbacks.Event = func(channel string, payload []byte, received time.Time) {
		if string(payload) == "panic" {
			panic("a defect")
		}
		event(channel, payload, received)
	}
	callbacks.Confirmed = func(subs []broker.Subscription, lost bool) {
		if subs[0].Channel == "job:panic" {
			panic("another defect")
		}
		confirmed(subs, lost)
	}
	lines := &logtest.Text{}
	b, err := broker.NewRedis(broker.RedisOptions{URL: server.URL(), Logger: slog.New(slog.NewTextHandler(lines, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	if err := b.Start(callbacks); err != nil {
		t.Fatal(err)
	}
	ready(t, b, recorder, plain("job:1"))
	server.CLI(t, "PUBLISH", "job:1", "panic")
	recorder.Wait(t, "recovery", func() bool { return recorder.CountOf(brokertest.Mended, plain("job:1")) == 1 })
	b.Subscribe(plain("job:panic"))
	recorder.Wait(t, "both lines with their stacks", func() bool {
		return strings.Contains(lines.String(), "a defect") && strings.Contains(lines.String(), "another defect") &&
			strings.Contains(lines.String(), "fault_test.go")
	})
	server.CLI(t, "PUBLISH", "job:1", "x")
	recorder.WaitEvents(t, "job:1", 1)
}

// TestDemotedPrimary: a primary that becomes a replica lives and delivers its own canary.
func TestDemotedPrimary(t *testing.T) {
	t.Parallel()
	server, other := redistest.Start(t), redistest.Start(t)
	b, r, lines := start(t, broker.RedisOptions{URL: server.URL()})
	ready(t, b, r, plain("job:1"))
	server.CLI(t, "REPLICAOF", "127.0.0.1", strconv.Itoa(other.Port))
	r.Wait(t, "notice", func() bool {
		return !b.Health().Delivering && r.CountOf(brokertest.Lost, plain("job:1")) == 1
	})
	r.Wait(t, "the reason", func() bool { return strings.Contains(lines.String(), "cause=replica") })
	server.CLI(t, "REPLICAOF", "NO", "ONE")
	ready(t, b, r, plain("job:1"))
}
