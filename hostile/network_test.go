package hostile

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"
)

// networkCases are cases of our own, besides those of the list: faults of the network, played between
// two hosts.
var networkCases = []abuse{
	{
		id: "N1", sent: "another host whose packets vanish, with streams on both wires: idle, with an event on its way, with more on their way than the kernel takes",
		authenticated: true, arguments: []string{"--progress-timeout", "1s"},
		counts:  map[string]int{"end peer_timed_out": 4, "end stalled": 2, "dropped": maybe, "gap slow": maybe},
		prepare: withFarPeers, do: vanishedHost,
	},
	{
		id: "N2", sent: "a Redis on another host whose packets vanish and come back; a gateway that starts meanwhile", gaps: true,
		file:    "namespaces:\n  job_progress: {mode: events}\n  log: {mode: log}\n  state: {mode: state}\n",
		counts:  map[string]int{"gap broker": some, "loss": some, "request broker_unavailable": some},
		prepare: withFarRedis, do: vanishedRedis,
	},
	{
		id: "N3", sent: "readers on another host with a receive window of about a kilobyte, who read all; who never read, with little and with much that waits",
		authenticated: true, arguments: []string{"--progress-timeout", "3s"},
		counts:  map[string]int{"end peer_timed_out": 2, "end stalled": 2, "dropped": maybe, "gap slow": maybe},
		prepare: withFarPeers, do: narrowReaders,
	},
}

// userTimeoutMore is how much longer than progress-timeout the kernel waits (TCP_USER_TIMEOUT).
const userTimeoutMore = 5 * time.Second

// lateness is what a busy machine may add to a time that the gateway keeps.
const lateness = 15 * time.Second

// must fails the case for what its own means could not do.
func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// ends gives the times at which streams have ended for a reason, in order, as the gateway's log has them.
func (w *world) ends(reason string) (times []time.Time) {
	w.Helper()
	for _, line := range w.gateway.lines() {
		var said struct {
			Time        time.Time
			Msg, Reason string
		}
		if json.Unmarshal([]byte(line), &said) == nil && said.Msg == "stream ended" && said.Reason == reason {
			times = append(times, said.Time)
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	return times
}

// endWithin waits until so many streams have ended for a reason, and wants the last of them to have ended
// between two times after began. It gives that time.
func (w *world) endWithin(count int, reason string, began time.Time, least, most time.Duration) time.Duration {
	w.Helper()
	w.within(most+patience, fmt.Sprintf("%d streams are ended as %s", count, reason), func() bool { return len(w.ends(reason)) >= count })
	took := w.ends(reason)[count-1].Sub(began)
	if took < least || took > most+lateness {
		w.Errorf("stream %d to end as %s did so after %v, want %v to %v", count, reason, took, least, most)
	}
	return took
}

// acknowledged reports whether the client that was greeted so has acknowledged all that was sent to it.
func (w *world) acknowledged(greeting string) bool {
	var client struct{ ClientID string }
	if err := json.Unmarshal([]byte(greeting), &client); err != nil {
		w.Fatalf("the greeting is %s: %v", greeting, err)
	}
	status, body := w.gateway.ask(http.MethodGet, "/api/admin/explain?client="+client.ClientID)
	var explained struct{ Peer struct{ UnackedBytes int } }
	return status == http.StatusOK && json.Unmarshal(body, &explained) == nil && explained.Peer.UnackedBytes == 0
}

func vanishedHost(w *world) {
	const progress, keepAlive, ping = time.Second, 15 * time.Second, 30 * time.Second
	far := w.fromFar()
	for _, channel := range []string{"idle", "few", "many"} {
		s := far.stream("/api/stream?channel=job_progress:n1_"+channel, bearer(w.token)...)
		socket := far.websocket("/ws?channel=job_progress:n1_"+channel, bearer(w.token)...)
		greetings := []string{
			s.await("connected", func(e sseEvent) bool { return e.name == "connected" }).data, socket.await("connected").text,
		}
		socket.await("subscribed")
		for _, greeting := range greetings { // nothing is on its way to one who is idle
			w.within(patience, "all is acknowledged", func() bool { return w.acknowledged(greeting) })
		}
	}
	w.must(w.far.vanish())
	began := time.Now()
	w.publish("job_progress:n1_few", `{"n":1}`)
	w.fill("job_progress:n1_many", 100, 8000)
	stalled := w.endWithin(2, "stalled", began, progress, progress+userTimeoutMore)
	few := w.endWithin(2, "peer_timed_out", began, userTimeoutMore, progress+userTimeoutMore)
	sse := w.endWithin(3, "peer_timed_out", began, progress+userTimeoutMore, keepAlive+progress+userTimeoutMore)
	socket := w.endWithin(4, "peer_timed_out", began, progress+userTimeoutMore, ping+progress+userTimeoutMore)
	for _, c := range far.opened {
		c.reset()
	}
	w.held("6 streams of a host that is gone")
	w.note("`stalled` after %.1f s where more waited than the kernel takes (limit 1 s); `peer_timed_out` after %.1f s with an event on its way (TCP_USER_TIMEOUT of 6 s), and idle after %.1f s on SSE, %.1f s on WebSocket: 6 s after the next sign of life; the log says the same",
		stalled.Seconds(), few.Seconds(), sse.Seconds(), socket.Seconds())
}

// follower hears the entries of a log and the values of a state, numbered from 1 on.
type follower struct {
	w            *world
	wire         string
	next         func() (string, error)
	entry, state int // heard last
}

// follow reads until an entry and a value have come, and holds the stream to the promise: no entry is
// missing or comes twice, no value is older than the one before, and no gap, for Redis holds them all.
func (f *follower) follow(entry, state int) {
	f.w.Helper()
	for f.entry < entry || f.state < state {
		text, err := f.next()
		if err != nil {
			f.w.Fatalf("%s: after entry %d and value %d: %v", f.wire, f.entry, f.state, err)
		}
		var one struct {
			Type, Channel string
			Entry, State  int
		}
		_ = json.Unmarshal([]byte(text), &one) // what is not JSON is none of these
		switch {
		case one.Type == "gap":
			f.w.Errorf("%s: a gap on %s, of which Redis has lost nothing", f.wire, one.Channel)
		case one.Entry > 0:
			if one.Entry != f.entry+1 {
				f.w.Errorf("%s: entry %d came after %d", f.wire, one.Entry, f.entry)
			}
			f.entry = one.Entry
		case one.State > 0:
			if one.State < f.state {
				f.w.Errorf("%s: value %d came after %d", f.wire, one.State, f.state)
			}
			f.state = one.State
		}
	}
}

func vanishedRedis(w *world) {
	add := func(number int) {
		w.redisCommand("XADD", "log:n2", "*", "data", fmt.Sprintf(`{"entry":%d}`, number))
		w.redisCommand("SET", "state:n2", fmt.Sprintf(`{"state":%d}`, number))
	}
	const channels = "?channel=log:n2&channel=state:n2"
	events, socket := w.stream("/api/stream"+channels).live(), w.websocket("/ws"+channels)
	socket.await("subscribed")
	socket.await("subscribed")
	followers := []*follower{
		{w: w, wire: "SSE", next: func() (string, error) {
			e, err := events.next()
			return e.data, err
		}},
		{w: w, wire: "WebSocket", next: socket.text},
	}
	follow := func(number int) {
		for _, f := range followers {
			f.follow(number, number)
		}
	}
	add(1)
	follow(1)

	began := time.Now()
	w.must(w.far.vanish())
	w.within(patience, "/readyz?redis says no", func() bool { return !w.delivers() })
	noticed := time.Since(began)
	if limit := 3 * time.Second; noticed > limit && *reportPath != "" { // when it has the machine for itself
		w.Errorf("it was noticed after %v, and %v is promised", noticed, limit)
	}
	w.wantDegraded()
	late := start{arguments: []string{"--redis", w.farRedisURL()}, unready: true}.run(w.T)
	w.within(patience, "a gateway that starts now is alive", func() bool { return late.status("/healthz") == 200 })
	if status := late.status("/readyz"); status != 503 {
		w.Errorf("a gateway that never reached Redis says %d at /readyz, want 503", status)
	}
	for number := 2; number <= 6; number++ {
		add(number)
	}
	from := w.feed.last()
	w.within(patience, "the feed goes on, on the other host", func() bool { return w.feed.last() > from+40 })

	w.must(w.far.comeBack())
	began = time.Now()
	follow(6)
	w.within(patience, "/readyz?redis says yes", w.delivers)
	back := time.Since(began)
	w.gapsHeard(make([]int, len(w.bystanders)), "a Redis that vanished")
	add(7)
	follow(7)
	w.within(patience, "the gateway that started meanwhile is ready", func() bool { return late.status("/readyz") == 200 })
	w.note("noticed after %.1f s (stated: 3 s): `/readyz?redis` 503, `degraded`, a line of the log, publishing says so; %.1f s after its packets came back, on both wires, every entry of a log, none twice, and a state's newest value; a gap to both bystanders, then live; the gateway that started meanwhile is ready by itself",
		noticed.Seconds(), back.Seconds())
}

// wantDegraded wants the gateway to say in every way that Redis does not deliver, and to be ready all the same.
func (w *world) wantDegraded() {
	w.Helper()
	if status := w.gateway.status("/readyz"); status != 200 {
		w.Errorf("/readyz says %d: one hiccup of Redis must not take the fleet away", status)
	}
	if s, err := w.gateway.stats(); err != nil || s.Status != "degraded" || s.Channels.Connected {
		w.Errorf("the statistics say %+v (%v), want degraded, and not connected", s, err)
	}
	if status, body := w.publishHTTP("", "log:n2", `{"entry":0}`); status != 503 || !strings.Contains(body, "broker_unavailable") {
		w.Errorf("publishing on a log was answered %d %s, want 503 broker_unavailable", status, body)
	}
	if status, body := w.publishHTTP("", "job_progress:n2", `{"local":1}`); status != 200 || !strings.Contains(body, `"distributed":false`) {
		w.Errorf("publishing an event was answered %d %s, want 200, not distributed", status, body)
	}
	w.within(patience, "the log says that Redis does not deliver", func() bool {
		return slices.ContainsFunc(w.gateway.lines(), func(line string) bool {
			return strings.Contains(line, `"redis does not deliver"`)
		})
	})
}

// narrow is the control of a connection with the smallest receive window that the kernel gives.
func narrow(_, _ string, raw syscall.RawConn) error {
	var failure error
	err := raw.Control(func(fd uintptr) { failure = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 1) })
	if err != nil {
		return err
	}
	return failure
}

// narrowStream opens a stream from w.far through a small window, and gives what reads its next text.
func (w *world) narrowStream(wire, channel string) (c *connection, next func() (string, error)) {
	w.Helper()
	c = dialAt(w.T, w.far, w.gateway.address, narrow)
	if wire == "sse" {
		c.say(w.head("GET /api/stream?channel="+channel+" HTTP/1.1", "Host: HOST", bearer(w.token)[0]))
		s := c.stream().live()
		return c, func() (string, error) {
			e, err := s.next()
			return e.data, err
		}
	}
	c.say(w.head(slices.Concat([]string{"GET /ws?channel=" + channel + " HTTP/1.1"}, handshake, bearer(w.token))...))
	s := c.upgraded()
	s.await("subscribed")
	return c, s.text
}

func narrowReaders(w *world) {
	const progress, events = 3 * time.Second, 200
	var connections []*connection
	read := make(chan error, 2)
	for _, wire := range []string{"sse", "websocket"} {
		for _, channel := range []string{"job_progress:n3_little", "job_progress:n3_much"} {
			c, _ := w.narrowStream(wire, channel)
			connections = append(connections, c)
		}
		c, next := w.narrowStream(wire, "job_progress:n3_read")
		connections = append(connections, c)
		go func() { read <- readNumbers(wire, next, events) }()
	}
	began := time.Now()
	for number := range events {
		w.publish("job_progress:n3_read", fmt.Sprintf(`{"n":%d,"fill":%q}`, number+1, strings.Repeat("x", 300)))
	}
	for range cap(read) {
		if err := <-read; err != nil {
			w.Error(err)
		}
	}
	readers := time.Since(began)
	began = time.Now()
	w.fill("job_progress:n3_little", 10, 500) // more than the window, less than the kernel takes
	w.fill("job_progress:n3_much", 100, 8000)
	much := w.endWithin(2, "stalled", began, progress, progress+userTimeoutMore)
	little := w.endWithin(2, "peer_timed_out", began, progress+userTimeoutMore-time.Second, progress+userTimeoutMore)
	for _, c := range connections {
		c.reset()
	}
	w.note("who reads has all %d events in order, on both wires, after %.1f s; who does not is `stalled` after %.1f s (limit 3 s), or, where all that waits is the kernel's, `peer_timed_out` after %.1f s (TCP_USER_TIMEOUT of 8 s), though the peer's kernel answers every probe",
		events, readers.Seconds(), much.Seconds(), little.Seconds())
}

// readNumbers reads so many numbered events, each once and in order, and no gap.
func readNumbers(wire string, next func() (string, error), count int) error {
	for number := 1; number <= count; {
		text, err := next()
		if err != nil {
			return fmt.Errorf("%s: after %d events: %w", wire, number-1, err)
		}
		switch one := parsed(text); {
		case one.Type == "gap":
			return fmt.Errorf("%s: a gap after %d events", wire, number-1)
		case one.N == 0: // none of ours
		case one.N != number:
			return fmt.Errorf("%s: %d came, want %d", wire, one.N, number)
		default:
			number++
		}
	}
	return nil
}
