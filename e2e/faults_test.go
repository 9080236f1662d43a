package e2e

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/freeport"
	"github.com/millrace/millrace/internal/redistest"
)

// truthTime is how soon readiness and stats must tell of a Redis that stopped delivering, or
// delivers again.
const truthTime = 3 * time.Second

// publisher is a worker that publishes numbered events at a steady pace for as long as it lives,
// and tries again while Redis is away, as a worker would.
type publisher struct {
	mutex sync.Mutex
	last  int // the highest number that Redis took
}

// startPublisher runs until the test ends.
func startPublisher(t *testing.T, address, channel string) *publisher {
	t.Helper()
	p := &publisher{}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.run(ctx, address, channel)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return p
}

func (p *publisher) run(ctx context.Context, address, channel string) {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	var connection net.Conn
	number := 1
	for {
		select {
		case <-ctx.Done():
			if connection != nil {
				connection.Close()
			}
			return
		case <-ticker.C:
		}
		if connection == nil {
			var err error
			if connection, err = net.DialTimeout("tcp", address, time.Second); err != nil {
				connection = nil
				continue
			}
		}
		if !publishOnce(connection, channel, fmt.Sprintf(`{"type":"job_progress","n":%d}`, number)) {
			connection.Close()
			connection = nil
			number++ // whether Redis passed it on is not known: never publish a number twice
			continue
		}
		p.mutex.Lock()
		p.last = number
		p.mutex.Unlock()
		number++
	}
}

func publishOnce(connection net.Conn, channel, payload string) bool {
	_ = connection.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := connection.Write(redistest.Encode("PUBLISH", channel, payload)); err != nil {
		return false
	}
	answer := make([]byte, 64)
	n, err := connection.Read(answer)
	return err == nil && n > 0 && answer[0] == ':'
}

func (p *publisher) number() int {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.last
}

// follower reads a client's numbered events and holds them to the promise: in order, none twice,
// and a missing number only beside a declared gap.
type follower struct {
	*client
	last   int  // number of the last event
	gap    bool // heard since the last event
	gaps   int
	misses int
}

// follow reads until the event of that number, or a later one, has come.
func (f *follower) follow(t *testing.T, until int) {
	t.Helper()
	deadline := time.Now().Add(patience + 10*time.Second)
	for f.last < until {
		h, ok := f.next(time.Until(deadline))
		if !ok {
			t.Fatalf("%s stopped at %d of %d with %s (%v), after %d gaps", f.name, f.last, until, h.Kind, f.err, f.gaps)
		}
		switch {
		case h.is("gap"):
			f.gap = true
			f.gaps++
			if reason := h.field("reason"); reason != "broker" {
				t.Errorf("%s: the gap's reason is %q, want broker", f.name, reason)
			}
			if channel := h.field("channel"); channel != "job_progress:load" {
				t.Errorf("%s: the gap's channel is %q", f.name, channel)
			}
		case h.Kind == "close" || h.Kind == "error" || h.is("server_error"):
			t.Fatalf("%s lost its stream: %+v", f.name, h)
		case h.field("n") != "":
			f.number(t, h)
		}
	}
}

func (f *follower) number(t *testing.T, h heard) {
	t.Helper()
	number, err := strconv.Atoi(h.field("n"))
	if err != nil {
		t.Fatalf("%s: %v in %s", f.name, err, h.Data)
	}
	switch {
	case f.last == 0 || number == f.last+1:
	case number <= f.last:
		t.Errorf("%s: %d came after %d: twice, or out of order", f.name, number, f.last)
	case f.gap:
		f.misses += number - f.last - 1
	default:
		t.Errorf("%s: %d came after %d and no gap was told: a silent loss", f.name, number, f.last)
	}
	f.last, f.gap = number, false
}

// load starts a Redis, a gateway, a publisher and one follower of each wire.
func load(t *testing.T) (*redistest.Server, *gateway, *publisher, []*follower) {
	t.Helper()
	redis := redistest.Start(t)
	g := startGateway(t, "--redis", redis.URL())
	var followers []*follower
	for _, k := range light {
		followers = append(followers, &follower{client: open(t, k, "http://"+g.address, "", "job_progress:load")})
	}
	worker := startPublisher(t, redis.Addr, "job_progress:load")
	follow(t, worker, followers, 100)
	return redis, g, worker, followers
}

// follow lets so many more events be published, and every follower hear them.
func follow(t *testing.T, worker *publisher, followers []*follower, more int) {
	t.Helper()
	target := worker.number() + more
	within(t, patience, "the publisher goes on", func() bool { return worker.number() >= target })
	for _, f := range followers {
		f.follow(t, target)
	}
}

func wantGaps(t *testing.T, followers []*follower) {
	t.Helper()
	for _, f := range followers {
		if f.gaps == 0 {
			t.Errorf("%s heard no gap, though its events were in doubt", f.name)
		}
		t.Logf("%s: %d events, %d gaps declared, %d events missed in them", f.name, f.last, f.gaps, f.misses)
	}
}

// TestKilledSubscriptions: Redis drops the gateway's pub/sub connection under load.
func TestKilledSubscriptions(t *testing.T) {
	t.Parallel()
	redis, _, worker, followers := load(t)
	for range 3 {
		redis.CLI(t, "CLIENT", "KILL", "TYPE", "pubsub")
		follow(t, worker, followers, 200)
	}
	wantGaps(t, followers)
}

// TestRestartedRedis: Redis is gone for a while and comes back empty, under load.
func TestRestartedRedis(t *testing.T) {
	redis, g, worker, followers := load(t)
	redis.Kill()
	within(t, truthTime, "/readyz?redis says 503", func() bool { return g.status("/readyz?redis") == 503 })
	within(t, truthTime, "stats say degraded", func() bool { return degraded(g.stats(t)) })
	if status := g.status("/readyz"); status != 200 {
		t.Errorf("/readyz says %d without Redis, want 200: one hiccup must not take the fleet away", status)
	}

	// Local subscribers are still reached, and the answer says that the others are not.
	payload := `{"type":"job_progress","while":"away"}`
	answer := g.publish(t, "", "job_progress:load", payload)
	if answer.status != 200 || answer.Distributed {
		t.Errorf("publish without Redis answered %+v, want 200 and distributed false", answer)
	}
	for _, f := range followers {
		f.await(t, "what was published without Redis", func(h heard) bool {
			f.gap = f.gap || h.is("gap")
			if h.is("gap") {
				f.gaps++
			}
			if h.field("n") != "" {
				f.number(t, h)
			}
			return h.Data == payload
		})
	}

	redis.Restart(t)
	within(t, patience, "/readyz?redis says 200 again", func() bool { return g.status("/readyz?redis") == 200 })
	within(t, truthTime, "stats say healthy again", func() bool { return !degraded(g.stats(t)) })
	follow(t, worker, followers, 200)
	wantGaps(t, followers)
}

// TestStalledRedis: Redis lives and holds its connections, and delivers nothing.
func TestStalledRedis(t *testing.T) {
	redis, g, worker, followers := load(t)
	redis.Stop()
	within(t, truthTime, "/readyz?redis says 503", func() bool { return g.status("/readyz?redis") == 503 })
	within(t, truthTime, "stats say degraded", func() bool { return degraded(g.stats(t)) })
	redis.Cont()
	within(t, patience, "/readyz?redis says 200 again", func() bool { return g.status("/readyz?redis") == 200 })
	within(t, truthTime, "stats say healthy again", func() bool { return !degraded(g.stats(t)) })
	follow(t, worker, followers, 200)
	wantGaps(t, followers)
}

func degraded(s stats) bool { return s.Status == "degraded" && !s.Channels.Connected }

// TestRedisComesLate: a gateway that starts before its Redis waits for it, unready, and then
// serves. A client that came early is told, not left in the dark.
func TestRedisComesLate(t *testing.T) {
	t.Parallel()
	port, err := freeport.Find()
	if err != nil {
		t.Fatal(err)
	}
	path, err := racy()
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{address: "127.0.0.1:" + freePort(t)}
	g.process = start(t, "millrace serve", path, "serve", "--listen", g.address, "--redis", "redis://127.0.0.1:"+strconv.Itoa(port))
	within(t, patience, "/healthz says 200", func() bool { return g.status("/healthz") == 200 })
	if status := g.status("/readyz"); status != 503 {
		t.Errorf("/readyz says %d before Redis was ever reached, want 503", status)
	}
	early := dial(t, curl, "http://"+g.address, "/api/stream?channel=job_progress:late")
	h := early.await(t, "server_error", func(h heard) bool { return h.is("server_error") })
	if h.field("code") != "broker_unavailable" {
		t.Errorf("a stream that Redis can't confirm heard %s, want broker_unavailable", h.Data)
	}
	if code := early.wait(t, patience); code != 0 {
		t.Errorf("curl ended with %d, want 0: an orderly end", code)
	}
	redis, err := redistest.RunOn(port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(redis.Close)
	within(t, patience, "/readyz says 200", func() bool { return g.status("/readyz") == 200 })
	c := open(t, npmWS, "http://"+g.address, "", "job_progress:late")
	redis.CLI(t, "PUBLISH", "job_progress:late", `{"late":true}`)
	c.event(t, `{"late":true}`)
}
