package hostile

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/sockettest"
)

// limitCases are the cases of letter G: limits and slow readers.
var limitCases = []abuse{
	{
		id: "G1", sent: "clients with a receive buffer of 2 KiB that never read, and a publisher at full speed", redis: true,
		arguments: []string{"--max-queue-bytes", "256KiB", "--max-queue-age", "1s", "--progress-timeout", "2s"},
		counts:    map[string]int{"end stalled": 2, "dropped": some, "gap slow": maybe},
		do:        deafReaders,
	},
	{
		id: "G2", sent: "a crowd of readers that stop, on one hot channel", redis: true, bytesSpare: 48 << 20,
		arguments: []string{"--max-queue-bytes", "256KiB"},
		counts:    map[string]int{"dropped": some, "gap slow": maybe},
		do:        slowCrowd,
	},
	{
		id: "G3", sent: "readers that take five bytes a second, for ever",
		arguments: []string{"--progress-timeout", "2s"},
		counts:    map[string]int{"end stalled": 2, "dropped": maybe, "gap slow": maybe},
		do:        drippingReaders,
	},
	{
		id: "G4", sent: "more connections than the gateway, an address, a /64 or a second may have; forged X-Forwarded-For", authenticated: true,
		arguments: []string{"--max-connections", "60", "--max-connections-per-address", "5", "--trusted-proxies", "127.0.0.0/8"},
		counts:    map[string]int{"request too_many_connections": some, "request overloaded": 2},
		do:        tooMany,
	},
	{
		id: "G5", sent: "101 subscriptions on a stream; 100 distinct channels on each of many", redis: true, bytesSpare: 32 << 20,
		file:   "namespaces:\n  job_progress:\n    replay: {size: 4, ttl: 100ms}\n",
		counts: map[string]int{"log-lines": maybe}, // two lines a channel, and a busy machine reads them late
		do:     manyChannels,
	},
	{
		id: "G6", sent: "peers that vanish without a FIN: idle on both wires, and with events on their way",
		arguments: []string{"--progress-timeout", "1s"},
		counts:    map[string]int{"end peer_timed_out": some, "end silent": maybe, "end stalled": maybe, "dropped": maybe},
		do:        vanished,
	},
}

// fill publishes count events of about size bytes on a channel, as fast as it can.
func (w *world) fill(channel string, count, size int) {
	w.Helper()
	payload := `{"fill":"` + strings.Repeat("x", size) + `"}`
	if w.redis != nil {
		commands := make([][]string, count)
		for n := range commands {
			commands[n] = []string{"PUBLISH", channel, payload}
		}
		w.pipeline(w.redis.Addr, commands)
		return
	}
	for range count {
		w.publish(channel, payload)
	}
}

// deaf opens a stream or a socket that will not be read, with a small receive buffer.
func (w *world) deaf(wire, channel string) *connection {
	w.Helper()
	c := w.dial()
	if err := c.SetReadBuffer(2048); err != nil {
		w.Fatal(err)
	}
	if wire == "sse" {
		c.say(w.head("GET /api/stream?channel="+channel+" HTTP/1.1", "Host: HOST"))
		c.stream().live()
		return c
	}
	c.say(w.head(append([]string{"GET /ws?channel=" + channel + " HTTP/1.1"}, handshake...)...))
	c.upgraded().await("subscribed")
	return c
}

func deafReaders(w *world) {
	readers := []*connection{w.deaf("sse", "job_progress:g1"), w.deaf("websocket", "job_progress:g1")}
	began := time.Now()
	w.fill("job_progress:g1", 4000, 1000)
	w.within(patience, "both are closed", func() bool { return w.counted()["end stalled"] == 2 })
	took := time.Since(began)
	for _, c := range readers {
		if rest, _ := c.over(); len(rest) > 512<<10 {
			w.Errorf("%d bytes were on their way to one that did not read: the kernel hid more than its buffers may", len(rest))
		}
	}
	w.held("4 MB of events against a queue of 256 KiB")
	w.note("events dropped at 256 KiB, closed as stalled %.1f s after the first event (limit 2 s)", took.Seconds())
}

func slowCrowd(w *world) {
	count := crowd(300)
	for range count {
		w.deaf("websocket", "job_progress:g2")
	}
	quick := w.websocket("/ws?channel=job_progress:g2")
	quick.await("subscribed")
	before := w.measured()
	const rounds, batch = 8, 250
	began := time.Now()
	for range rounds {
		w.fill("job_progress:g2", batch, 500)
		for n := 0; n < batch; {
			text, err := quick.text()
			if err != nil {
				w.Fatal(err)
			}
			if parsed(text).Type == "gap" {
				w.Fatal("the quick reader lost events because of the slow ones")
			}
			n++
		}
	}
	took := time.Since(began)
	peak := w.measured()
	grown := peak.bytes - before.bytes
	if limit := 32<<20 + count*16<<10; grown > limit {
		w.Errorf("%d slow readers took %d bytes, want at most %d: events are shared, not copied", count, grown, limit)
	}
	w.held("%d slow readers, %d KiB queued for each, memory +%.1f MiB", count, 256, float64(grown)/(1<<20))
	w.note("%d events to the quick reader in %.1f s, none lost; the slow ones share bytes", rounds*batch, took.Seconds())
}

func drippingReaders(w *world) {
	readers := []*connection{w.deaf("sse", "job_progress:g3"), w.deaf("websocket", "job_progress:g3")}
	ended := make(chan time.Duration, len(readers))
	began := time.Now()
	for _, c := range readers {
		go func() {
			one := make([]byte, 1)
			for {
				if _, err := c.Read(one); err != nil {
					ended <- time.Since(began)
					return
				}
				time.Sleep(200 * time.Millisecond)
			}
		}()
	}
	w.fill("job_progress:g3", 100, 8000)
	w.within(patience, "both are closed", func() bool { return w.counted()["end stalled"] == 2 })
	took := time.Since(began)
	for _, c := range readers {
		c.Close()
	}
	for range readers {
		<-ended
	}
	w.note("closed as stalled after %.1f s (limit 2 s), though each read moved something", took.Seconds())
}

// handshakeFrom opens a WebSocket as a proxy would for an address, and gives the status.
func (w *world) handshakeFrom(user, forwarded string) int {
	w.Helper()
	c := w.dial()
	token := w.secret(sign(claimsOf(user)))
	c.say(w.head(append([]string{"GET /ws HTTP/1.1", "X-Forwarded-For: " + forwarded, "Authorization: Bearer " + token}, handshake...)...))
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		w.Fatalf("no answer: %v", err)
	}
	if response.StatusCode != 101 {
		c.Close()
	}
	if response.StatusCode == 429 && response.Header.Get("Retry-After") == "" {
		w.Error("429 without Retry-After")
	}
	return response.StatusCode
}

func tooMany(w *world) {
	people := 0
	for name, address := range map[string]func(n int) string{
		"one address":                  func(int) string { return "203.0.113.7" },
		"one address, forged in front": func(n int) string { return fmt.Sprintf("198.51.100.%d, 203.0.113.8", n) },
		"one /64":                      func(n int) string { return fmt.Sprintf("2001:db8:0:1:%x::%x", n*7919, n) },
		"one address, mapped":          func(n int) string { return []string{"203.0.113.9", "::ffff:203.0.113.9"}[n%2] },
	} {
		good := 0
		for n := range 9 {
			people++
			switch status := w.handshakeFrom(fmt.Sprint("user", people), address(n)); status {
			case 101:
				good++
			case 429:
			default:
				w.Errorf("%s: answered %d", name, status)
			}
		}
		if good != 5 {
			w.Errorf("%s has %d streams, want 5", name, good)
		}
	}
	for n := range 36 { // each from an address of its own, up to max-connections with the bystanders
		if status := w.handshakeFrom(fmt.Sprint("guest", n), fmt.Sprintf("192.0.2.%d", n)); status != 101 {
			w.Fatalf("stream %d was answered %d", n, status)
		}
	}
	w.within(patience, "the gateway is full", func() bool {
		m, err := w.gateway.metrics()
		return err == nil && m[`millrace_streams{wire="websocket"}`]+m[`millrace_streams{wire="sse"}`] >= 58
	})
	for w.handshakeFrom("late", "192.0.2.200") == 101 { // up to two places are left
		people++
		if people > 60 {
			w.Fatal("max-connections does not hold")
		}
	}
	s := w.stream("/api/stream?channel=job_progress:g4", bearer(w.token)...)
	if _, err := s.next(); err == nil {
		w.Error("an event stream beyond max-connections is held")
	}
	limited := w.at(start{arguments: []string{"--accept-rate", "1", "--handshake-timeout", "10m"}}.run(w.T))
	for range 200 {
		limited.dial()
	}
	closed := 0
	w.within(patience, "most of 200 connections at once are closed with an accept-rate of 1", func() bool {
		closed = limited.counted()["desk accept_rate"]
		return closed >= 100
	})
	if m, err := limited.gateway.metrics(); err != nil || m["millrace_desk_connections"] < 1 {
		w.Errorf("%v connections are held (%v), want at least one", m["millrace_desk_connections"], err)
	}
	w.held("60 streams, the limit")
	w.note("429 with Retry-After beyond 5 for an address or /64, whatever is forged; 503, and a retry on SSE, when full; %d of 200 closed at accept by accept-rate", closed)
}

func manyChannels(w *world) {
	count := crowd(40)
	before := strings.Count(w.redis.CLI(w.T, "PUBSUB", "CHANNELS"), "\n")
	var sockets []*socket
	for n := range count {
		names := make([]string, 100)
		for i := range names {
			names[i] = fmt.Sprintf(`"job_progress:g5_%d_%d"`, n, i)
		}
		s := w.websocket("/ws")
		s.command(`{"type":"subscribe","channels":[` + strings.Join(names, ",") + `]}`)
		sockets = append(sockets, s)
	}
	for _, s := range sockets {
		for range 100 {
			s.await("subscribed")
		}
		if answer := s.reply(`{"type":"subscribe","channel":"job_progress:g5"}`); answer.Code != "too_many_subscriptions" {
			w.Errorf("subscription 101 was answered with %s", answer.text)
		}
	}
	held := w.measured()
	for _, s := range sockets {
		s.Close()
	}
	w.within(patience, "Redis holds no subscription of theirs", func() bool {
		return strings.Count(w.redis.CLI(w.T, "PUBSUB", "CHANNELS"), "\n") <= before
	})
	w.held("%d streams, %d channels, %.1f MiB", count, 100*count, float64(held.bytes)/(1<<20))
	w.note("too_many_subscriptions at 101; all %d subscriptions in Redis are given back", 100*count)
}

// vanish drops whatever comes for a connection, as where a cable is cut.
func (c *connection) vanish() {
	c.t.Helper()
	if err := sockettest.Vanish(c.TCPConn); err != nil {
		c.t.Fatal(err)
	}
}

func vanished(w *world) {
	busy := w.stream("/api/stream?channel=" + feedChannel).live()
	idle := []*connection{w.stream("/api/stream?channel=job_progress:g6").live().connection, w.websocket("/ws?channel=job_progress:g6").connection}
	streams := func() int {
		m, err := w.gateway.metrics()
		if err != nil {
			w.Fatal(err)
		}
		return int(m[`millrace_streams{wire="sse"}`] + m[`millrace_streams{wire="websocket"}`])
	}
	w.within(patience, "all are there", func() bool { return streams() == len(w.bystanders)+3 })
	busy.vanish()
	for _, c := range idle {
		c.vanish()
	}
	began := time.Now()
	w.within(patience, "the one with events on their way is gone", func() bool { return streams() < len(w.bystanders)+3 })
	soon := time.Since(began)
	w.within(patience+time.Minute, "the idle ones are gone", func() bool { return streams() == len(w.bystanders) })
	w.note("gone after %.0f s with events on their way (TCP_USER_TIMEOUT of 6 s), idle ones within %.0f s, after their next sign of life", soon.Seconds(), time.Since(began).Seconds())
}
