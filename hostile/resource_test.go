package hostile

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// resourceCases are the cases of letter I: resource exhaustion.
var resourceCases = []abuse{
	{
		id: "I1", sent: "400 connections to a gateway of 200 descriptors; a max-connections above them", descriptors: 200,
		redis: true, gaps: true,
		counts: map[string]int{"desk descriptors": some, "request overloaded": maybe, "gap broker": some, "loss": some},
		do:     noDescriptors,
	},
	{
		id: "I2", sent: "readers that do not read, each on channels of its own, against a gateway that may take 192 MiB", redis: true, bytesSpare: 64 << 20,
		redisArguments: []string{"--client-output-buffer-limit", "pubsub 0 0 0"}, // what the gateway does not take at once waits there
		arguments:      []string{"--max-replay-bytes", "4MiB", "--max-connections-per-user", "0"},
		counts: map[string]int{
			"end memory": some, "request overloaded": some, "gap slow": maybe, "dropped": maybe, "end stalled": maybe, "event nobody": maybe, "log-lines": maybe,
		},
		prepare: withLittleMemory, do: littleMemory,
	},
	{
		id: "I3", sent: "panics in a handler, in a callback of a loop, in a callback of the broker: put into the running gateway's memory", redis: true, gaps: true,
		counts: map[string]int{"desk panic": 1, "end bug": 1, "gap broker": some, "loss": some},
		do:     panicsInside,
	},
	{
		id: "I4", sent: "a crowd that connects to one hot channel and resets in one moment; one after the other, thousands that reset at every stage", redis: true, bytesSpare: 32 << 20,
		arguments: []string{"--max-connections-per-user", "0"},
		counts:    map[string]int{"desk bad_request": maybe, "desk handshake_slow": maybe, "desk connections": maybe, "log-lines": maybe},
		do:        connectAndReset,
	},
	{
		id: "I5", sent: "a log that nobody reads, at level debug, and an attacker who fills it; a log on a disk that is full",
		counts: map[string]int{"log-lines": some, "request not_found": 6000},
		do:     blockedLog,
	},
	{
		id: "I6", sent: "a wall clock that goes forward by an hour, back by two, and home: put into the running gateway's memory", redis: true, authenticated: true,
		counts: map[string]int{"request unauthorized": 2},
		do:     clockJumps,
	},
}

func noDescriptors(w *world) {
	over := start{arguments: []string{"--max-connections", "100000"}, descriptors: 200, unready: true}.run(w.T)
	if code := over.exit(w.T, patience); code != 2 || !strings.Contains(over.said(), "max-connections") {
		w.Errorf("a gateway whose max-connections is above its descriptors ended with %d: %s", code, over.said())
	}
	var sockets []*connection
	for range 400 {
		c := w.dial() // those that the gateway does not take wait in the kernel
		c.say(w.head("GET /api/stream?channel=job_progress:i1 HTTP/1.1", "Host: HOST"))
		sockets = append(sockets, c)
	}
	used := w.cpu()
	began := time.Now()
	<-time.After(2 * time.Second)
	used = w.cpu() - used
	if elapsed := time.Since(began); used > elapsed*6/10 {
		w.Errorf("with no descriptor left the gateway uses %v of processor time in %v: it spins", used, elapsed)
	}
	w.wantAlive()
	// What is kept back serves the operator, and Redis.
	if status := w.gateway.status("/healthz"); status != 200 {
		w.Errorf("the admin listener answers %d with no descriptor left for others", status)
	}
	if _, err := w.gateway.metrics(); err != nil {
		w.Errorf("with no descriptor left for others: %v", err)
	}
	// The log is a descriptor from the start: nothing has to be opened for a line, and each event of the
	// feed is one.
	said := len(w.gateway.lines())
	w.within(patience, "the log goes on", func() bool { return len(w.gateway.lines()) > said })
	w.redis.CLI(w.T, "CLIENT", "KILL", "TYPE", "pubsub")
	w.gapsHeard(make([]int, len(w.bystanders)), "a lost subscription")
	w.wantAlive()
	for _, c := range sockets {
		c.Close()
	}
	w.within(patience, "accepting goes on", func() bool {
		c := w.dial()
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		c.say(w.head("GET /healthz HTTP/1.1", "Host: HOST"))
		response, err := http.ReadResponse(c.reader, nil)
		return err == nil && response.StatusCode == http.StatusOK
	})
	w.held("400 connections against 200 descriptors, processor at %d%% of a core", used*100/(2*time.Second))
	w.note("refused at start where the limit cannot hold; what is over is closed at accept without spinning; streams go on, the admin listener answers, the log goes on, Redis is reconnected; accepting resumes")
}

func connectAndReset(w *world) {
	count := crowd(1000)
	before := w.redisCalls("unsubscribe")
	var sockets []*connection
	for n := range count {
		c := w.dial()
		c.say(w.head(fmt.Sprintf("GET /api/stream?channel=job_progress:i4&channel=job_progress:i4_%d HTTP/1.1", n%100), "Host: HOST"))
		sockets = append(sockets, c)
	}
	for _, c := range sockets {
		c.stream().live()
	}
	used := w.cpu()
	began := time.Now()
	for _, c := range sockets {
		c.reset()
	}
	w.within(patience, "every subscription is given back", func() bool {
		s, err := w.gateway.stats()
		return err == nil && s.Channels.Subscriptions == len(w.bystanders)
	})
	took := time.Since(began)
	used = w.cpu() - used
	if each := used / time.Duration(count); each > 3*time.Millisecond {
		w.Errorf("a reset costs %v of processor time each", each)
	}
	if calls := w.redisCalls("unsubscribe") - before; calls > count/5 {
		w.Errorf("%d resets made %d calls of UNSUBSCRIBE", count, calls)
	}
	comers, each := w.comeAndGo()
	w.held("%d streams with two channels each; then %d connections one after the other", count, comers)
	w.note("all gone %.1f s after the first reset, %d us of processor time each; %d us for each that came and went", took.Seconds(), used.Microseconds()/int64(count), each.Microseconds())
}

// comeAndGo has a crowd connect and reset at once, in the middle of a head, behind a request for an
// event stream, and behind a handshake: as many as they are, in small groups. It gives their number
// and the gateway's processor time for each.
func (w *world) comeAndGo() (comers int, each time.Duration) {
	comers = crowd(crowd(4000)) // 100,000 in the large run
	stages := []string{
		"", "GET /ws HT", w.head("GET /api/stream?channel=job_progress:i4 HTTP/1.1", "Host: HOST"),
		w.head(append([]string{"GET /ws?channel=job_progress:i4 HTTP/1.1"}, handshake...)...),
	}
	used := w.cpu()
	var groups sync.WaitGroup
	for group := range 8 {
		groups.Go(func() {
			for n := group; n < comers; n += 8 {
				c, err := net.DialTimeout("tcp", w.gateway.address, patience)
				if err != nil {
					w.Errorf("connection %d: %v", n, err)
					return
				}
				_, _ = io.WriteString(c, stages[n%len(stages)])
				_ = c.(*net.TCPConn).SetLinger(0)
				c.Close()
			}
		})
	}
	groups.Wait()
	w.within(patience, "every subscription is given back", func() bool {
		s, err := w.gateway.stats()
		return err == nil && s.Channels.Subscriptions == len(w.bystanders)
	})
	return comers, (w.cpu() - used) / time.Duration(comers)
}

// blockedLog keeps the log's pipe from being read, and fills it.
func blockedLog(w *world) {
	s := w.websocket("/ws?channel=job_progress:i5")
	s.await("subscribed")
	w.gateway.stuck.Lock()
	unlock := func() { w.gateway.stuck.Unlock() }
	locked := true
	defer func() {
		if locked {
			unlock()
		}
	}()
	// More lines than the pipe and the queue before it hold, a hundred requests a connection.
	answered := 0
	for range 60 {
		c := w.dial()
		c.say(strings.Repeat(w.head("GET /nothing/"+strings.Repeat("x", 100)+" HTTP/1.1", "Host: HOST"), 100))
		for range 100 {
			if response, _ := c.answer(); response.StatusCode == http.StatusNotFound {
				answered++
			}
		}
		c.Close()
	}
	w.publish("job_progress:i5", `{"n":5}`)
	s.wantText(`{"n":5}`)
	for range 20 {
		w.websocket("/ws").await("connected")
	}
	w.wantAlive()
	unlock()
	locked = false
	// /dev/full takes what is written to it as a full disk does: not at all (ENOSPC).
	full := w.at(start{log: "/dev/full"}.run(w.T))
	for range 20 {
		full.websocket("/ws").await("connected")
	}
	full.within(patience, "the lines that the disk did not take are counted", func() bool { return full.counted()["log-lines"] > 0 })
	w.note("%d requests answered, streams begun and events delivered with the log's pipe full; streams begun with its disk full", answered)
}
