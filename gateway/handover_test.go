package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/gateway/access"
	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/internal/redistest"
	"github.com/millrace/millrace/netio/handoff"
	"github.com/millrace/millrace/proto"
)

// slowBuffer is the receive buffer of a client that is to be slow, in bytes.
const slowBuffer = 16 << 10

// fate is what becomes of one message of a hand-over, on its way through a relay.
type fate uint8

const (
	passes    fate = iota
	cutBefore      // the connection breaks before the new gateway has it
	cutAfter       // it breaks before the old gateway has the answer
)

// between makes the two ends of a connection with a relay in its middle, which asks meddle what becomes
// of each message; their numbers begin at 1. meddle may change a message.
func between(t testing.TB, meddle func(number int, m *handoff.Message) fate) (old, heir *handoff.Conn) {
	t.Helper()
	pair := func() (one, other *handoff.Conn) {
		one, file, err := handoff.Pair()
		if err != nil {
			t.Fatal(err)
		}
		if other, err = handoff.FromFile(file); err != nil {
			t.Fatal(err)
		}
		return one, other
	}
	old, fromOld := pair()
	toHeir, heir := pair()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer fromOld.Close()
		defer toHeir.Close()
		for number := 1; ; number++ {
			m, err := fromOld.Receive(context.Background())
			if err != nil {
				if err != io.EOF {
					t.Errorf("the relay does not hear the old gateway: %v", err)
				}
				return
			}
			what := meddle(number, &m)
			if what == cutBefore {
				m.CloseDescriptors()
				return
			}
			answer, err := toHeir.Call(context.Background(), m)
			m.CloseDescriptors()
			var refused *handoff.Refused
			switch {
			case what == cutAfter:
				return
			case errors.As(err, &refused):
				err = fromOld.Fail(errors.New(refused.Reason))
			case err == nil:
				err = fromOld.Done(answer.Body)
			}
			if err != nil {
				t.Errorf("the relay: %v", err)
				return
			}
		}
	}()
	t.Cleanup(func() {
		old.Close()
		heir.Close()
		<-done
	})
	return old, heir
}

// tryHandOver has the gateway hand over to a new one with these options. Exactly one of the two
// results says who serves.
func (h *house) tryHandOver(t testing.TB, options gateway.Options, meddle func(int, *handoff.Message) fate) (heir *house, err error) {
	t.Helper()
	return h.tryHandOverTo(t, options, gateway.Timings{}, meddle)
}

// tryHandOverTo is tryHandOver to a gateway with other waits.
func (h *house) tryHandOverTo(t testing.TB, options gateway.Options, waits gateway.Timings, meddle func(int, *handoff.Message) fate) (heir *house, err error) {
	t.Helper()
	oldEnd, heirEnd := between(t, meddle)
	type inherited struct {
		gateway *gateway.Gateway
		err     error
	}
	made := make(chan inherited, 1)
	go func() {
		var got inherited
		got.gateway, got.err = gateway.InheritWithTimings(context.Background(), completed(options), waits, heirEnd)
		heirEnd.Close()
		made <- got
	}()
	err = h.HandOver(context.Background(), oldEnd, "old", nil)
	oldEnd.Close()
	got := <-made
	switch {
	case err != nil && got.err == nil:
		t.Fatalf("both serve, though the old gateway was told %v", err)
	case err == nil && got.err != nil:
		t.Fatalf("nobody serves: the new gateway has %v", got.err)
	case err != nil:
		return nil, err
	}
	heir = run(t, got.gateway)
	if heir.address != h.address {
		t.Errorf("it serves on %s, not on %s", heir.address, h.address)
	}
	return heir, nil
}

// handOver is tryHandOver that must succeed; it returns when the old gateway has ended.
func (h *house) handOver(t testing.TB, options gateway.Options) (heir *house) {
	t.Helper()
	heir, err := h.tryHandOver(t, options, func(int, *handoff.Message) fate { return passes })
	if err != nil {
		t.Fatal(err)
	}
	h.stop(t)
	return heir
}

// flood publishes numbered events on a channel until it is told to stop, and then gives the last
// number.
func flood(t testing.TB, address, channel string) (stop func() (last int)) {
	const burst = 5 // few enough to be read, beside the race detector, before WebSockets are silent for too long
	over, ended := make(chan struct{}), make(chan int)
	go func() {
		pace := time.NewTicker(25 * time.Millisecond)
		defer pace.Stop()
		for last := 0; ; last += burst {
			select {
			case <-over:
				ended <- last
				return
			case <-pace.C:
				publishNumbered(t, address, channel, last+1, last+burst, 0)
			}
		}
	}()
	return func() int {
		close(over)
		return <-ended
	}
}

// TestHandOverLosesNothing hands streams of every wire over, again and again, while events come. None
// of them reads before the end, so that there is something unsent to be handed over too.
func TestHandOverLosesNothing(t *testing.T) {
	t.Parallel()
	options := gateway.Options{Namespaces: modes(), Limits: gateway.Limits{
		MaxQueueBytes: 64 << 20, MaxQueueAge: gateway.NoLimit, ProgressTimeout: gateway.NoLimit,
	}}
	h, redis := serveRedis(t, options, gateway.Timings{})
	options.Redis = redis.URL()
	var readers []*stream
	for _, w := range everyWire {
		for range 3 {
			readers = append(readers, h.open(t, w, visit{channels: []string{"events:1"}}))
		}
	}
	stop := flood(t, redis.Addr, "events:1")
	const times = 3
	for range times {
		h = h.handOver(t, options)
	}
	last := stop()
	for _, s := range readers {
		s.numbers(t, 1, last)
		if explained := h.explain(t, s.clientID); explained.Client != s.clientID {
			t.Errorf("%s: %s is called %s now", s.wire.name, s.clientID, explained.Client)
		}
	}
	if s := h.stats(t); s.SSE.TotalConnections != 3*len(sseWires) || s.WebSocket.TotalConnections != 3*len(webSockets) {
		t.Errorf("there are %d event streams and %d WebSockets, want %d and %d", s.SSE.TotalConnections, s.WebSocket.TotalConnections, 3*len(sseWires), 3*len(webSockets))
	}
	later := h.open(t, sse, visit{channels: []string{"events:1"}})
	publishNumbered(t, redis.Addr, "events:1", last+1, last+1, 0)
	for _, s := range append(readers, later) {
		s.numbers(t, last+1, last+1)
	}
	t.Logf("%d events through %d hand-overs", last, times)
}

// TestHandOverOfStatesAndLogs: neither the value nor an entry comes twice, and what is written next
// comes once.
func TestHandOverOfStatesAndLogs(t *testing.T) {
	t.Parallel()
	options := gateway.Options{Namespaces: modes()}
	h, redis := serveRedis(t, options, gateway.Timings{})
	options.Redis = redis.URL()
	w := writer{house: h, redis: redis}
	w.set(t, "state:1", `{"v":1}`)
	w.add(t, "log:1", `{"e":1}`)
	s := h.open(t, raw, visit{channels: []string{"state:1"}})
	s.event(t, `{"v":1}`)
	s.subscribe(t, "state:none")
	s.command(t, `{"type":"subscribe","channel":"log:1","since":"0"}`)
	s.word(t, "subscribed")
	s.event(t, `{"e":1}`)
	s.word(t, "replayed")
	for round := 2; round < 5; round++ {
		h = h.handOver(t, options)
		s.alive(t)
		w.set(t, "state:1", fmt.Sprintf(`{"v":%d}`, round))
		s.event(t, fmt.Sprintf(`{"v":%d}`, round))
		w.add(t, "log:1", fmt.Sprintf(`{"e":%d}`, round))
		s.event(t, fmt.Sprintf(`{"e":%d}`, round))
	}
	w.set(t, "state:none", `{"now":1}`)
	s.event(t, `{"now":1}`)
}

// TestHandOverOfWhatIsHalf: a message that has come in part, what a client may still do, and the end of
// its token.
func TestHandOverOfWhatIsHalf(t *testing.T) {
	t.Parallel()
	options := gateway.Options{
		Namespaces: map[string]access.Namespace{"events": {Access: access.User}}, Auth: gateway.AuthOptions{HMACSecret: secret},
		Limits: gateway.Limits{MaxConnectionsPerUser: 2},
	}
	h, redis := serveRedis(t, options, gateway.Timings{})
	options.Redis = redis.URL()
	token := mint(t, auth.MintClaims{User: "456", TTL: time.Hour, Publish: []string{"events:*"}})
	s := h.open(t, raw, visit{header: []string{bearer(token)}})
	soon := h.open(t, raw, visit{header: []string{bearer(mint(t, auth.MintClaims{User: "456", TTL: 4 * time.Second}))}})
	command := masked(proto.OpText, `{"type":"publish","channel":"events:1","event":{"half":true},"ref":"whole"}`)
	half := len(command) / 2
	s.send(t, append(masked(proto.OpText, `{"type":"ping","ref":"before"}`), command[:half]...))
	s.wordWith(t, "pong", "ref=before")
	h = h.handOver(t, options)
	s.send(t, command[half:])
	s.wordWith(t, "published", "ref=whole")
	if third := h.ask(t, handshake("/ws", bearer(token))); third.status != 429 {
		t.Errorf("a third stream of the user was answered %d, want 429", third.status)
	}
	soon.ends(t, proto.ClosePolicy, "Token expired")
	s.alive(t)
}

// TestHandOverOfReplays: who was away during the hand-over gets from the new gateway what it missed at the
// old one, and since.
func TestHandOverOfReplays(t *testing.T) {
	t.Parallel()
	options := gateway.Options{Namespaces: modes()}
	h, redis := serveRedis(t, options, gateway.Timings{})
	options.Redis = redis.URL()
	heard := h.open(t, enveloped, visit{channels: []string{"events:1"}})
	alone := h.open(t, enveloped, visit{channels: []string{"events:alone"}})
	stays := h.open(t, sse, visit{channels: []string{"events:1"}})
	publishNumbered(t, redis.Addr, "events:1", 1, 5, 0)
	publishNumbered(t, redis.Addr, "events:alone", 1, 5, 0)
	position := func(s *stream) (id string) {
		for want := 1; want <= 5; want++ {
			h := s.said(t)
			if got, _ := numberOf(h.text); int(got) != want {
				t.Fatalf("heard %v, want event %d", h, want)
			}
			if want == 3 {
				id = h.id
			}
		}
		s.conn.Close()
		return id
	}
	after, afterAlone := position(heard), position(alone)
	within(t, patience, "nobody hears events:alone", func() bool { return h.stats(t).WebSocket.TotalConnections == 0 })
	publishNumbered(t, redis.Addr, "events:alone", 6, 6, 0)
	h = h.handOver(t, options)
	publishNumbered(t, redis.Addr, "events:alone", 7, 7, 0)
	publishNumbered(t, redis.Addr, "events:1", 6, 7, 0)
	stays.numbers(t, 1, 7) // so has the new gateway
	for channel, id := range map[string]string{"events:1": after, "events:alone": afterAlone} {
		s := h.resume(t, enveloped, channel, id)
		s.numbers(t, 4, 7)
		s.wordWith(t, "replayed", "count=4")
	}
}

// TestHandOverCutAtEveryMessage breaks the connection between the two gateways before and after each
// message in turn: everybody is served by one of them, whichever that is, and hears each event once.
func TestHandOverCutAtEveryMessage(t *testing.T) {
	t.Parallel()
	options := gateway.Options{Namespaces: modes()}
	h, redis := serveRedis(t, options, gateway.Timings{})
	options.Redis = redis.URL()
	var readers []*stream
	for _, w := range everyWire {
		readers = append(readers, h.open(t, w, visit{channels: []string{"events:1"}}))
	}
	last, kept, whole := 0, 0, false
	for number := 1; !whole; number++ {
		for _, how := range []fate{cutBefore, cutAfter} {
			var reached atomic.Bool
			heir, err := h.tryHandOver(t, options, func(n int, _ *handoff.Message) fate {
				if n != number {
					return passes
				}
				reached.Store(true)
				return how
			})
			if err == nil {
				h.stop(t)
				h = heir
			} else {
				kept++
			}
			whole = whole || !reached.Load()
			publishNumbered(t, redis.Addr, "events:1", last+1, last+10, 0)
			last += 10
			for _, s := range readers {
				s.numbers(t, last-9, last)
			}
		}
	}
	if kept < 8 {
		t.Errorf("the old gateway went on %d times; the relay cut too little", kept)
	}
	t.Logf("%d hand-overs were cut", kept)
}

// TestHandOverOfFields: what a newer version tells is passed over where that may be, and else refused.
func TestHandOverOfFields(t *testing.T) {
	t.Parallel()
	options := gateway.Options{Namespaces: modes()}
	h, redis := serveRedis(t, options, gateway.Timings{})
	options.Redis = redis.URL()
	s := h.open(t, raw, visit{channels: []string{"events:1"}})
	for number := 1; number <= 4; number++ {
		_, err := h.tryHandOver(t, options, func(n int, m *handoff.Message) fate {
			if n == number {
				m.Body = handoff.Append(m.Body, handoff.Must(1000), "of tomorrow")
			}
			return passes
		})
		if !errors.As(err, new(*handoff.Refused)) {
			t.Errorf("a field that must be understood, in message %d: %v, want a refusal", number, err)
		}
		s.alive(t)
	}
	heir, err := h.tryHandOver(t, options, func(_ int, m *handoff.Message) fate {
		m.Body = handoff.Append(m.Body, handoff.May(1000), "of tomorrow")
		return passes
	})
	if err != nil {
		t.Fatal(err)
	}
	h.stop(t)
	s.alive(t)
	heir.publish(t, "events:1", `{"n":1}`)
	s.event(t, `{"n":1}`)
}

// TestHandOverNeedsRedis: a gateway that can't hand over says so and serves on.
func TestHandOverNeedsRedis(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{})
	s := h.open(t, raw, visit{channels: []string{"news:1"}})
	if h.CheckHandOver() == nil {
		t.Error("it says that it could")
	}
	if _, err := h.tryHandOver(t, gateway.Options{}, func(int, *handoff.Message) fate { return passes }); err == nil {
		t.Fatal("it did")
	}
	h.publish(t, "news:1", `{"n":1}`)
	s.event(t, `{"n":1}`)
}

// TestHandOverOfReadersThatLag: a stream that reads a log from Redis goes on where it was, and one whose
// events were dropped is told so, though another process dropped them.
func TestHandOverOfReadersThatLag(t *testing.T) {
	t.Parallel()
	options := gateway.Options{Namespaces: modes(), Limits: gateway.Limits{MaxQueueBytes: slowQueueBytes, ProgressTimeout: gateway.NoLimit}}
	h, redis := serveRedis(t, options, gateway.Timings{})
	options.Redis = redis.URL()
	const channel, count, piece = "job_progress:order", 1000, 100 // see throughGap
	var events, logs []*stream
	for _, w := range everyWire {
		events = append(events, h.open(t, w, visit{channels: []string{channel}, buffer: slowBuffer}))
		logs = append(logs, h.open(t, w, visit{channels: []string{"log:lag"}, buffer: slowBuffer}))
	}
	const pad = 1000
	for from := 1; from < count; from += piece {
		publishNumbered(t, redis.Addr, channel, from, from+piece-1, pad)
		addNumbered(t, redis.Addr, "log:lag", from, from+piece-1, pad)
	}
	for i := range everyWire {
		within(t, patience, "readers lag", func() bool {
			return h.explain(t, events[i].clientID).State == "dropping" && h.explain(t, logs[i].clientID).State == "catching_up"
		})
	}
	h = h.handOver(t, options)
	together(len(everyWire), func(i int) { logs[i].numbers(t, 1, count) })
	together(len(everyWire), func(i int) {
		if end := events[i].throughGap(t, count); end == count {
			t.Errorf("%s holds everything, though it had stalled", events[i].wire.name)
		}
	})
	publishNumbered(t, redis.Addr, channel, count+1, count+1, 0)
	addNumbered(t, redis.Addr, "log:lag", count+1, count+1, 0)
	for _, s := range append(events, logs...) {
		s.numbers(t, count+1, count+1)
	}
}

// TestHandOverOfConflated: what was put off for a slow reader goes along.
func TestHandOverOfConflated(t *testing.T) {
	t.Parallel()
	options := gateway.Options{Namespaces: modes(), Limits: gateway.Limits{MaxQueueBytes: slowQueueBytes, ProgressTimeout: gateway.NoLimit}}
	h, redis := serveRedis(t, options, gateway.Timings{})
	options.Redis = redis.URL()
	const count, piece = 1000, 100
	var readers []*stream
	for _, w := range everyWire {
		readers = append(readers, h.open(t, w, visit{channels: []string{"conflated:1"}, buffer: slowBuffer}))
	}
	for from := 1; from < count; from += piece {
		publishNumbered(t, redis.Addr, "conflated:1", from, from+piece-1, 1000)
	}
	for _, s := range readers {
		within(t, patience, "the reader lags", func() bool { return h.explain(t, s.clientID).State == "conflating" })
	}
	h.handOver(t, options)
	together(len(readers), func(i int) {
		before := 0
		readers[i].until(t, "the newest event", func(h heard) bool {
			got, _ := numberOf(h.text)
			if h.kind == heardEvent && int(got) <= before {
				t.Errorf("%s: %d came after %d", readers[i].wire.name, got, before)
			}
			before = int(got)
			return before == count
		})
	})
}

// TestHandOverToOtherRules: where a channel is of another kind now, its listeners are told that they may
// have missed something, and hear what it brings.
func TestHandOverToOtherRules(t *testing.T) {
	t.Parallel()
	options := gateway.Options{Namespaces: modes()}
	h, redis := serveRedis(t, options, gateway.Timings{})
	s := h.open(t, raw, visit{channels: []string{"events:1", "log:1"}})
	others := modes()
	others["events"], others["log"] = others["log"], others["state"]
	h.handOver(t, gateway.Options{Redis: redis.URL(), Namespaces: others})
	s.wordWith(t, "gap", "channel=events:1", "reason=unknown_position")
	redis.CLI(t, "SET", "log:1", `{"value":1}`)
	s.event(t, `{"value":1}`)
	redis.CLI(t, "XADD", "events:1", "*", "data", `{"entry":1}`)
	s.event(t, `{"entry":1}`)
}

// addNumbered adds {"n":FROM,"pad":..} to {"n":TO,..} to a log in one go.
func addNumbered(t testing.TB, address, channel string, from, to, pad int) {
	t.Helper()
	conn := dial(t, address)
	defer conn.Close()
	var commands []byte
	for n := from; n <= to; n++ {
		commands = append(commands, redistest.Encode("XADD", channel, "*", "data", fmt.Sprintf(`{"n":%d,"pad":"%s"}`, n, padding(pad)))...)
	}
	if _, err := conn.Write(commands); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(conn)
	for range to - from + 1 {
		for _, begins := range "$1" { // the length of an id, and the id
			if line, err := answers.ReadString('\n'); err != nil || rune(line[0]) != begins {
				t.Fatalf("Redis answered %q (%v)", line, err)
			}
		}
	}
}
