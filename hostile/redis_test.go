package hostile

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/millrace/millrace/internal/redistest"
)

// redisCases are the cases of letter H: Redis faults.
var redisCases = []abuse{
	{
		id: "H1", sent: "a Redis that is stopped (SIGSTOP) and holds its connections", redis: true, gaps: true,
		counts: map[string]int{"gap broker": some, "loss": some, "request broker_unavailable": some},
		do:     stalledRedis,
	},
	{
		id: "H2", sent: "CLIENT KILL TYPE pubsub three times, a restart, a Redis that is refused for two seconds", redis: true, gaps: true,
		counts: map[string]int{"gap broker": some, "loss": some, "request broker_unavailable": some},
		do:     lostRedis,
	},
	{
		id: "H3", sent: "a failover by Sentinel while the old primary is stopped, and goes on afterwards",
		do: failover,
	},
	{
		id: "H4", sent: "a slot of a Cluster that moves under SSUBSCRIBE",
		do: movedSlot,
	},
	{
		id: "H5", sent: "20 MB to a gateway that is stopped, past Redis's limit for its pub/sub client", redis: true, gaps: true,
		redisArguments: []string{"--client-output-buffer-limit", "pubsub 256kb 0 0"},
		counts:         map[string]int{"gap broker": some, "loss": some, "gap slow": maybe, "dropped": maybe}, bytesSpare: 64 << 20,
		do: cutOutput,
	},
	{
		id: "H6", sent: "Redis that answers NOAUTH, NOPERM, LOADING, READONLY, MOVED, OOM, is no Redis, has no such database",
		do: refusingRedis,
	},
	{
		id: "H7", sent: "payloads that are empty, binary, no JSON, 60,000 deep, 8 MB, in the name of our own channels", redis: true,
		counts: map[string]int{"event empty": 1, "event not_json": some, "event not_utf8": 2, "event too_large": 1},
		do:     hostilePayloads, bytesSpare: 48 << 20,
	},
	{
		id: "H8", sent: "the loss of every subscription at once; a subscribe while Redis stands still", redis: true, gaps: true,
		counts: map[string]int{"gap broker": some, "loss": some, "log-lines": maybe}, bytesSpare: 32 << 20,
		do: resubscribeStorm,
	},
	{
		id: "H9", sent: "a log that is made anew with lower ids; a subscription that is lost and comes back", redis: true, gaps: true,
		file:   "namespaces:\n  job_progress: {mode: events}\n  log: {mode: log}\n",
		counts: map[string]int{"gap rewound": maybe, "gap trimmed": maybe, "gap broker": some, "loss": some},
		do:     rewound,
	},
}

// gapsHeard waits until every bystander has heard a gap since it had heard so many.
func (w *world) gapsHeard(before []int, what string) []int {
	w.Helper()
	after := make([]int, len(w.bystanders))
	w.within(patience, what+": every bystander is told of a gap", func() bool {
		for i, b := range w.bystanders {
			b.mutex.Lock()
			after[i] = b.gaps
			b.mutex.Unlock()
			if after[i] <= before[i] {
				return false
			}
		}
		return true
	})
	return after
}

func (w *world) delivers() bool { return w.gateway.status("/readyz?redis") == 200 }

func stalledRedis(w *world) {
	w.redis.Stop()
	began := time.Now()
	w.within(patience, "/readyz?redis says no", func() bool { return !w.delivers() })
	noticed := time.Since(began)
	if status := w.gateway.status("/readyz"); status != 200 {
		w.Errorf("/readyz says %d: one hiccup of Redis must not take the fleet away", status)
	}
	w.redis.Cont()
	w.within(patience, "/readyz?redis says yes", w.delivers)
	w.gapsHeard(make([]int, 2), "a stopped Redis")
	w.note("noticed after %.1f s (stated: 3 s); `/readyz?redis` 503; a gap to both bystanders, then live", noticed.Seconds())
}

func lostRedis(w *world) {
	gaps := make([]int, len(w.bystanders))
	for n := range 3 {
		w.redis.CLI(w.T, "CLIENT", "KILL", "TYPE", "pubsub")
		gaps = w.gapsHeard(gaps, fmt.Sprint("kill ", n))
	}
	w.redis.Restart(w.T)
	gaps = w.gapsHeard(gaps, "a restart")
	w.redis.Kill()
	w.within(patience, "/readyz?redis says no", func() bool { return !w.delivers() })
	w.redis.Restart(w.T)
	w.within(patience, "/readyz?redis says yes", w.delivers)
	w.gapsHeard(gaps, "a Redis that was refused")
	w.note("5 losses, each told as a gap to both bystanders, then live")
}

// numbers publishes a rising number on a channel by a command until the test ends, whichever
// address is the right one at the time, and is told by hear of what comes.
func (w *world) numbers(publish func(number int) error) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for number := 1; ; number++ {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				_ = publish(number) // what Redis does not take is in a gap, or nobody's
			}
		}
	}()
	w.Cleanup(func() {
		close(stop)
		<-done
	})
}

// followed reads a socket's numbers until enough came, behind a gap if there is to be one, and
// holds it to the promise.
func (s *socket) followed(enough int, awaitGap bool) (gaps int) {
	s.t.Helper()
	last, since, gap := 0, 0, false
	_ = s.SetDeadline(time.Now().Add(2 * patience))
	for since < enough {
		text, err := s.text()
		if err != nil {
			s.t.Fatalf("after %d and %d gaps: %v", last, gaps, err)
		}
		one := parsed(text)
		switch {
		case one.Type == "gap":
			gaps++
			gap = true
		case one.N == 0:
		case last > 0 && one.N != last+1 && !gap:
			s.t.Fatalf("%d came after %d and no gap was told", one.N, last)
		default:
			if one.N <= last {
				s.t.Fatalf("%d came after %d", one.N, last)
			}
			last, gap = one.N, false
			if gaps > 0 || !awaitGap {
				since++
			}
		}
	}
	return gaps
}

func failover(w *world) {
	group := redistest.StartSentinel(w.T)
	g := start{arguments: []string{"--redis", group.URL()}}.run(w.T)
	s := w.at(g).websocket("/ws?channel=job_progress:h3")
	s.await("subscribed")
	w.numbers(func(number int) error {
		address, err := group.PrimaryAddr()
		if err != nil {
			return err
		}
		connection, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return err
		}
		defer connection.Close()
		_ = connection.SetDeadline(time.Now().Add(time.Second))
		if _, err := connection.Write(redistest.Encode("PUBLISH", "job_progress:h3", fmt.Sprintf(`{"n":%d}`, number))); err != nil {
			return err
		}
		_, err = connection.Read(make([]byte, 64))
		return err
	})
	s.followed(20, false)
	began := time.Now()
	group.Primary.Stop()
	gaps := s.followed(20, true)
	took := time.Since(began)
	group.Primary.Cont()
	s.followed(100, false) // while it learns that it is no primary any more
	w.within(patience, "/readyz?redis says yes", func() bool { return g.status("/readyz?redis") == 200 })
	w.note("%d gaps told, live from the new primary %.1f s after the old one stopped", gaps, took.Seconds())
}

func movedSlot(w *world) {
	cluster := redistest.StartCluster(w.T, 2)
	g := start{
		arguments: []string{"--redis", cluster.URL()},
		file:      "namespaces:\n  job_progress: {sharded: true}\n",
	}.run(w.T)
	s := w.at(g).websocket("/ws?channel=job_progress:h4")
	s.await("subscribed")
	slot := cluster.Slot(w.T, "job_progress:h4")
	from := cluster.Owner(slot)
	to := cluster.Nodes[0]
	if to == from {
		to = cluster.Nodes[1]
	}
	var owner atomic.Pointer[redistest.Server]
	owner.Store(from)
	w.numbers(func(number int) error {
		_, err := owner.Load().Command("SPUBLISH", "job_progress:h4", fmt.Sprintf(`{"n":%d}`, number))
		return err
	})
	s.followed(5, false)
	began := time.Now()
	cluster.Migrate(w.T, slot, from, to)
	owner.Store(to)
	gaps := s.followed(10, true)
	w.note("%d gaps told, live from the slot's new owner after %.1f s", gaps, time.Since(began).Seconds())
}

func cutOutput(w *world) {
	s := w.websocket("/ws?channel=job_progress:h5")
	s.await("subscribed")
	before := w.reconnects()
	w.gateway.signal(syscall.SIGSTOP)
	w.fill("job_progress:h5", 200, 100_000)
	w.gateway.signal(syscall.SIGCONT)
	s.await("gap")
	w.gapsHeard(make([]int, len(w.bystanders)), "a cut subscription")
	w.publish("job_progress:h5", `{"last":1}`)
	for {
		text, err := s.text()
		if err != nil {
			w.Fatal(err)
		}
		if text == `{"last":1}` {
			break
		}
	}
	again := w.reconnects() - before
	if again > 10 {
		w.Errorf("the gateway reconnected %d times", again)
	}
	w.held("20 MB behind a subscription of 256 KB")
	w.note("a gap to all, live again after %d reconnects", again)
}

func (w *world) reconnects() int {
	w.Helper()
	m, err := w.gateway.metrics()
	if err != nil {
		w.Fatal(err)
	}
	return int(m["millrace_broker_reconnects_total"])
}

// falseRedis answers every command with one line, and counts its connections.
func falseRedis(w *world, line string) (address string, connections *atomic.Int32) {
	w.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { listener.Close() })
	connections = new(atomic.Int32)
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				text := make([]byte, 4096)
				for {
					n, err := c.Read(text)
					if err != nil {
						return
					}
					for range strings.Count(string(text[:n]), "*") {
						if _, err := io.WriteString(c, line+"\r\n"); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	return listener.Addr().String(), connections
}

func refusingRedis(w *world) {
	password := w.secret("hostile-password-4711")
	locked := redistest.Start(w.T, "--requirepass", "another one")
	narrow := redistest.Start(w.T)
	narrow.CLI(w.T, "ACL", "SETUSER", "narrow", "on", ">"+password, "+ping", "+hello", "+client")
	urls := map[string]string{
		"NOAUTH": locked.URL(), "a wrong password": "redis://:" + password + "@" + locked.Addr, "NOPERM": "redis://narrow:" + password + "@" + narrow.Addr,
		"a wrong database": narrow.URL() + "/99",
	}
	tries := make(map[string]*atomic.Int32)
	for name, line := range map[string]string{
		"LOADING": "-LOADING Redis is loading the dataset in memory", "READONLY": "-READONLY You can't write against a read only replica.",
		"MOVED": "-MOVED 1 127.0.0.1:1", "OOM": "-OOM command not allowed", "an HTTP server": "HTTP/1.1 400 Bad Request", "noise": "\x00\xff\xfe{}",
	} {
		address, connections := falseRedis(w, line)
		urls[name], tries[name] = "redis://:"+password+"@"+address, connections
	}
	gateways := make(map[string]*gateway)
	for name, url := range urls {
		gateways[name] = start{arguments: []string{"--redis", url}, unready: true}.run(w.T)
	}
	for name, g := range gateways {
		w.within(patience, name+": the process is up", func() bool { return g.ended() || g.status("/healthz") == 200 })
	}
	<-time.After(3 * time.Second) // in which a hot loop would show
	lines := 0
	for name, g := range gateways {
		if g.ended() {
			w.Errorf("%s: the gateway ended:\n%s", name, g.said())
			continue
		}
		if status := g.status("/readyz"); status != 503 {
			w.Errorf("%s: /readyz says %d, want 503", name, status)
		}
		told := 0
		for _, line := range g.lines() {
			if strings.Contains(line, password) {
				w.Errorf("%s: a line of the log holds the password: %s", name, line)
			}
			if strings.Contains(line, `"WARN"`) || strings.Contains(line, `"ERROR"`) {
				told++
			}
		}
		if told == 0 || told > 15 {
			w.Errorf("%s: %d warnings, want one to a few:\n%s", name, told, g.said())
		}
		lines += told
		if connections := tries[name]; connections != nil && connections.Load() > 60 {
			w.Errorf("%s: %d connections in three seconds", name, connections.Load())
		}
	}
	w.note("for %d kinds: alive, `/readyz` 503, %d warnings in all, slower and slower tries, no password in the log", len(gateways), lines)
}

func hostilePayloads(w *world) {
	s := w.websocket("/ws?channel=job_progress:h7")
	s.await("subscribed")
	for _, payload := range []string{
		"", "\x00\x01\x02\xff\xfe", "\"\xff\"", "no JSON " + payloadMark, "{", `{"a":1}{"b":2}`, "*1\r\n$4\r\nPING\r\n", `{"n":NaN}`, strings.Repeat("[", 60_000),
		`"` + strings.Repeat("x", 8<<20) + `"`, "\xef\xbb\xbf{}",
	} {
		w.publish("job_progress:h7", payload)
	}
	// Our own channels are not a way in.
	for _, channel := range []string{"__millrace:canary", "__millrace:h7", "__keyspace@0__:job_progress:h7", "job_progress:", "job_progress:h7\r\n"} {
		w.redisCommand("PUBLISH", channel, `{"channel":"job_progress:h7","data":{"forged":1}}`)
	}
	whole := []string{strings.Repeat("[", 5000) + strings.Repeat("]", 5000), `{"v":999,"type":"event","channel":"other:1","data":{"x":1}}`, `{"last":1}`}
	for _, payload := range whole {
		w.publish("job_progress:h7", payload)
	}
	var heard []string
	for len(heard) == 0 || heard[len(heard)-1] != whole[2] {
		text, err := s.text()
		if err != nil {
			w.Fatal(err)
		}
		heard = append(heard, text)
	}
	// What is deep and whole is an event like another, or is dropped; what is named like our own
	// words comes in an envelope.
	for _, text := range heard {
		if strings.Contains(text, "forged") || len(text) > 100_000 || strings.Contains(text, payloadMark) {
			w.Errorf("heard %.100q", text)
		}
	}
	w.note("dropped and counted by cause; %d of 14 payloads were events, nothing forged", len(heard))
}

func resubscribeStorm(w *world) {
	count := crowd(20)
	var sockets []*socket
	for n := range count {
		names := make([]string, 100)
		for i := range names {
			names[i] = `"job_progress:h8_` + strconv.Itoa(n) + "_" + strconv.Itoa(i) + `"`
		}
		s := w.websocket("/ws")
		s.command(`{"type":"subscribe","channels":[` + strings.Join(names, ",") + `]}`)
		for range 100 {
			s.await("subscribed")
		}
		sockets = append(sockets, s)
	}
	calls := w.redisCalls("subscribe")
	began := time.Now()
	w.redis.CLI(w.T, "CLIENT", "KILL", "TYPE", "pubsub")
	for _, s := range sockets {
		for range 100 {
			s.await("gap")
		}
	}
	took := time.Since(began)
	if calls = w.redisCalls("subscribe") - calls; calls > count*10 || calls == 0 {
		w.Errorf("%d channels came back by %d calls of SUBSCRIBE", 100*count, calls)
	}
	w.publish("job_progress:h8_0_99", `{"back":1}`)
	sockets[0].wantText(`{"back":1}`)
	// Nothing is called subscribed before Redis has confirmed it.
	w.redis.Stop()
	sockets[0].command(`{"type":"unsubscribe","channel":"job_progress:h8_0_0"}`)
	sockets[0].await("unsubscribed")
	sockets[0].command(`{"type":"subscribe","channel":"job_progress:h8_new"}`)
	_ = sockets[0].SetReadDeadline(time.Now().Add(time.Second))
	for {
		text, err := sockets[0].text()
		if err != nil {
			break
		}
		if parsed(text).Type == "subscribed" {
			w.Error("subscribed was said while Redis stood still")
		}
	}
	w.redis.Cont()
	w.held("%d channels of %d streams", 100*count, count)
	w.note("all back after %.1f s by %d SUBSCRIBEs, a gap on each; `subscribed` waits for Redis", took.Seconds(), calls)
}

func rewound(w *world) {
	s := w.websocket("/ws?format=envelope&channel=log:h9&channel=job_progress:h9")
	for range 2 {
		s.await("subscribed")
	}
	number := 0
	event := func() string {
		for {
			text, err := s.text()
			if err != nil {
				w.Fatal(err)
			}
			if one := parsed(text); one.Type == "event" || one.Type == "gap" {
				return text
			}
		}
	}
	for _, id := range []string{"9000000000000-0", "9000000000000-1"} {
		number++
		w.redisCommand("XADD", "log:h9", id, "data", fmt.Sprintf(`{"entry":%d}`, number))
		if text := event(); !strings.Contains(text, fmt.Sprintf(`{"entry":%d}`, number)) {
			w.Errorf("heard %s, want entry %d", text, number)
		}
	}
	w.redisCommand("DEL", "log:h9")
	w.redisCommand("XADD", "log:h9", "5-0", "data", `{"entry":3}`)
	// The log goes on from its last entry, so that none comes twice: what was added before the
	// gateway looked is within the gap.
	gap := event()
	if one := parsed(gap); one.Type != "gap" || one.Reason != "rewound" && one.Reason != "trimmed" {
		w.Errorf("after the log was made anew came %s, want a gap", gap)
	}
	w.redisCommand("XADD", "log:h9", "6-0", "data", `{"entry":4}`)
	for text := ""; !strings.Contains(text, `{"entry":4}`); {
		if text = event(); strings.Contains(text, `{"entry":1}`) || strings.Contains(text, `{"entry":2}`) {
			w.Errorf("heard %s again", text)
		}
	}
	// Ids of events rise across a lost subscription.
	w.redis.CLI(w.T, "CLIENT", "KILL", "TYPE", "pubsub")
	for parsed(event()).Channel != "job_progress:h9" {
	}
	w.publish("job_progress:h9", `{"after":1}`)
	if text := event(); !strings.Contains(text, `{"after":1}`) {
		w.Errorf("after the gap came %s", text)
	}
	w.note("a gap (%s) before the first entry with a lower id; a gap (broker) before what follows a lost subscription", parsed(gap).Reason)
}
