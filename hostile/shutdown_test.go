package hostile

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/millrace/millrace/internal/processtest"
	"github.com/millrace/millrace/internal/redistest"
)

// shutdownCases are the cases of letter J: shutdown and upgrade.
var shutdownCases = []abuse{
	{
		id: "J1", sent: "SIGTERM to a crowd on both wires, with events on their way", redis: true, mortal: true,
		arguments: []string{"--drain-timeout", "10s", "--max-connections-per-user", "0"},
		do:        drained,
	},
	{
		id: "J2", sent: "SIGTERM with slow readers, with Redis stopped, during start, twice; SIGHUP", redis: true,
		do: endings,
	},
	{
		id: "J3", sent: "SIGKILL, and a start on the same port",
		do: killed,
	},
	{
		id: "J4", sent: "a rolling restart of two gateways under a log that is published to, with clients that resume", redis: true,
		do: rolling,
	},
}

// at is the world with another gateway in it, for its connections.
func (w *world) at(g *gateway) *world {
	return &world{T: w.T, abuse: w.abuse, gateway: g, redis: w.redis, redisHost: w.redisHost, token: w.token}
}

func drained(w *world) {
	count := crowd(200)
	ends := make([]time.Time, 2*count)
	told := make([]string, 2*count)
	sockets, streams := make([]*socket, count), make([]*stream, count)
	for n := range count {
		sockets[n] = w.websocket("/ws?channel=job_progress:j1")
		sockets[n].await("subscribed")
		streams[n] = w.stream("/api/stream?channel=job_progress:j1").live()
	}
	half := w.dial()
	ready := w.head("GET /readyz HTTP/1.1", "Host: HOST")
	half.say(ready[:20])
	w.publish("job_progress:j1", `{"last":"word"}`)
	began := time.Now()
	w.gateway.signal(syscall.SIGTERM)
	var waiting sync.WaitGroup
	for n := range count {
		waiting.Go(func() { told[n], ends[n] = sentAway(sockets[n].text), time.Now() })
		waiting.Go(func() {
			told[count+n] = sentAway(func() (string, error) {
				e, err := streams[n].next()
				return e.data, err
			})
			ends[count+n] = time.Now()
		})
	}
	w.within(patience, "new connections are refused", func() bool {
		c, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + w.gateway.address + "/healthz")
		if err == nil {
			c.Body.Close()
		}
		return err != nil
	})
	half.say(ready[20:])
	if response, body := half.answer(); response.StatusCode != 503 || !strings.Contains(body, "draining") {
		w.Errorf("/readyz says %d %s while draining, want 503", response.StatusCode, body)
	}
	waiting.Wait()
	for n, how := range told {
		if want := []string{"last, Service restart", "last, EOF"}[n/count]; how != want {
			w.Errorf("stream %d was sent away with %q, want %q", n, how, want)
		}
	}
	slices.SortFunc(ends, time.Time.Compare)
	spread := ends[len(ends)-1].Sub(ends[0])
	if spread < 100*time.Millisecond {
		w.Errorf("all %d streams were sent away within %v: not spread", len(ends), spread)
	}
	if code := w.gateway.exit(w.T, patience); code != 0 {
		w.Errorf("the gateway ended with %d, want 0", code)
	}
	w.held("%d streams", 2*count)
	w.note("listener closed, `/readyz` 503, all queued events sent, 1012 and an orderly end spread over %.1f s, exit 0 after %.1f s", spread.Seconds(), time.Since(began).Seconds())
}

// sentAway reads a stream to its end, and says whether the last event came and how it ended. An
// event stream that ends in order ends with EOF behind its last chunk; a cut one does not.
func sentAway(next func() (string, error)) string {
	last := ""
	for {
		text, err := next()
		switch closing, isClose := err.(closedError); {
		case isClose && closing.code == 1012:
			return last + closing.reason
		case err != nil:
			return last + err.Error()
		case text == `{"last":"word"}`:
			last = "last, "
		}
	}
}

func endings(w *world) {
	limit := []string{"--drain-timeout", "3s"}
	ends := func(name string, g *gateway, code int, most time.Duration) {
		began := time.Now()
		g.signal(syscall.SIGTERM)
		if got := g.exit(w.T, most+patience); got != code {
			w.Errorf("%s: ended with %d, want %d:\n%s", name, got, code, g.said())
		}
		w.note("%s: exit %d after %.1f s", name, code, time.Since(began).Seconds())
	}
	slow := start{arguments: append(limit, "--redis", w.redis.URL())}.run(w.T)
	for range crowd(50) {
		w.at(slow).deaf("websocket", "job_progress:j2")
	}
	w.fill("job_progress:j2", 1000, 500)
	ends("slow readers", slow, 0, 3*time.Second)

	other := redistest.Start(w.T)
	deaf := start{arguments: append(limit, "--redis", other.URL())}.run(w.T)
	w.at(deaf).websocket("/ws?channel=job_progress:j2").await("subscribed")
	other.Stop()
	ends("Redis stopped", deaf, 0, 3*time.Second)
	other.Cont()

	early := start{arguments: append(limit, "--redis", "redis://"+freeAddress(w.T)), unready: true}.run(w.T)
	w.within(patience, "it is on its way", func() bool { return len(early.lines()) > 0 })
	ends("during start", early, 0, 3*time.Second)

	twice := start{arguments: []string{"--drain-timeout", "1h"}}.run(w.T)
	w.at(twice).deaf("websocket", "job_progress:j2")
	half := w.at(twice).dial()
	half.say("GET /healthz HTTP/1.1\r\n") // in hand, so that it cannot end by itself
	twice.signal(syscall.SIGTERM)
	w.within(patience, "it drains", func() bool { return strings.Contains(twice.said(), "draining") })
	ends("a second SIGTERM", twice, 1, time.Second)

	alone := w.at(start{}.run(w.T))
	alone.redis = nil
	s := alone.stream("/api/stream?channel=job_progress:j2").live()
	alone.gateway.signal(syscall.SIGHUP)
	w.within(patience, "SIGHUP is answered", func() bool {
		return strings.Contains(alone.gateway.said(), "the upgrade failed; this process serves on")
	})
	alone.publish("job_progress:j2", `{"n":1}`)
	s.await("the event", func(e sseEvent) bool { return e.data == `{"n":1}` })
	w.note("SIGHUP without Redis: it serves on, and the log says why")
}

func killed(w *world) {
	first := start{}.run(w.T)
	s := w.at(first).stream("/api/stream?channel=job_progress:j3").live()
	w.at(first).publish("job_progress:j3", `{"n":1}`)
	id := s.await("the event", func(e sseEvent) bool { return e.data == `{"n":1}` }).id
	first.signal(syscall.SIGKILL)
	<-first.exited
	again := start{address: first.address}.run(w.T)
	s = w.at(again).stream("/api/stream?channel=job_progress:j3", "Last-Event-ID: "+id).live()
	if e := s.await("anything", func(e sseEvent) bool { return e.data != "" }); e.name != "gap" {
		w.Errorf("after a restart the first event is %s %s, want a gap", e.name, e.data)
	}
	w.at(again).publish("job_progress:j3", `{"n":2}`)
	next := s.await("the event", func(e sseEvent) bool { return e.data == `{"n":2}` }).id
	if epoch := func(id string) string { return id[:strings.IndexByte(id, '.')] }; epoch(next) == epoch(id) {
		w.Errorf("the epoch of the former life goes on: %s after %s", next, id)
	}
	w.note("starts on the same port; a gap (unknown_position) for the old id; a new epoch in ids")
}

// resumer is a client of J4 that comes back, to the one gateway or the other, with the last id.
type resumer struct {
	last          atomic.Int64 // the highest number that was heard
	gaps, returns int
	problem       string
}

func (r *resumer) run(ctx context.Context, addresses []string, turn int) {
	id := ""
	for ctx.Err() == nil && r.problem == "" {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addresses[turn%2]+"/api/stream?channel=log:j4", http.NoBody)
		if err != nil {
			r.problem = err.Error()
			return
		}
		turn++
		if id != "" {
			request.Header.Set("Last-Event-ID", id)
		}
		response, err := admins.Transport.RoundTrip(request)
		if err != nil {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		r.returns++
		r.read(response.Body, &id)
		response.Body.Close()
	}
}

// read follows one stream to its end, and holds it to the promise: continuity, or a gap.
func (r *resumer) read(body io.Reader, id *string) {
	s := newStream(body)
	s.lastID = *id
	gap, last := false, int(r.last.Load())
	for {
		e, err := s.next()
		if err != nil {
			return
		}
		*id = s.lastID
		one := parsed(e.data)
		switch {
		case e.name == "gap":
			gap = true
			r.gaps++
		case one.N == 0 || one.N == last: // none of the log's, or one that is known by its id
		case one.N < last:
			r.problem = fmt.Sprintf("%d came after %d", one.N, last)
		case one.N != last+1 && last > 0 && !gap:
			r.problem = fmt.Sprintf("%d came after %d and no gap was told", one.N, last)
		default:
			last, gap = one.N, false
			r.last.Store(int64(last))
		}
	}
}

func rolling(w *world) {
	const file = "namespaces:\n  log: {mode: log}\n"
	begin := func(address string) *gateway {
		return start{arguments: []string{"--redis", w.redis.URL(), "--drain-timeout", "5s"}, file: file, address: address}.run(w.T)
	}
	gateways := []*gateway{begin(""), begin("")}
	addresses := []string{gateways[0].address, gateways[1].address}
	var published atomic.Int64
	ctx, stop := context.WithCancel(context.Background())
	clients := make([]*resumer, crowd(20))
	var running sync.WaitGroup
	for n := range clients {
		clients[n] = new(resumer)
		running.Go(func() { clients[n].run(ctx, addresses, n) })
	}
	publishing := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for number := 1; ; number++ {
			select {
			case <-publishing:
				return
			case <-time.After(5 * time.Millisecond):
			}
			w.redisCommand("XADD", "log:j4", "*", "data", fmt.Sprintf(`{"n":%d}`, number))
			published.Store(int64(number))
		}
	}()
	later := func(more int64) {
		from := published.Load()
		w.within(patience, "the log goes on", func() bool { return published.Load() > from+more })
	}
	later(50)
	for round := range 2 {
		for n, g := range gateways {
			g.signal(syscall.SIGTERM)
			if code := g.exit(w.T, patience); code != 0 {
				w.Errorf("round %d: gateway %d ended with %d", round, n, code)
			}
			later(20)
			gateways[n] = begin(addresses[n])
			later(50)
		}
	}
	close(publishing)
	<-done
	processtest.Poll(patience, func() bool { // who does not hear all shows below
		return !slices.ContainsFunc(clients, func(c *resumer) bool { return c.last.Load() != published.Load() })
	})
	stop()
	running.Wait()
	gaps, returns := 0, 0
	for n, c := range clients {
		if c.problem != "" {
			w.Errorf("client %d: %s", n, c.problem)
		}
		if c.last.Load() != published.Load() {
			w.Errorf("client %d heard %d of %d", n, c.last.Load(), published.Load())
		}
		gaps += c.gaps
		returns += c.returns
	}
	w.held("%d clients, %d entries, 4 restarts", len(clients), published.Load())
	w.note("%d connections in all; every client has every entry or a gap (%d gaps told); no silent loss", returns, gaps)
}
