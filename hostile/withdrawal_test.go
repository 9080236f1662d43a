package hostile

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"time"
)

// gatedWebhook answers for a minute. Who takes from asked knows that a question is there, who takes from
// answered lets it be answered.
type gatedWebhook struct {
	asked, answered chan struct{}
	denies          atomic.Bool
}

func (g *gatedWebhook) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	_, _ = io.Copy(io.Discard, request.Body)
	for _, gate := range []chan struct{}{g.asked, g.answered} {
		select {
		case gate <- struct{}{}:
		case <-request.Context().Done():
			return
		}
	}
	response.Header().Set("Cache-Control", "max-age=60")
	response.Header().Set("Connection", "close") // else the gateway keeps a descriptor for a minute, and the case waits
	if g.denies.Load() {
		response.WriteHeader(http.StatusForbidden)
	}
}

// withWebhooks makes namespaces whose webhooks are no good, and one whose webhook takes its time.
func withWebhooks(w *world) {
	hanging, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel, and nobody answers
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { hanging.Close() })
	failing, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { failing.Close() })
	go func() {
		for {
			c, err := failing.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			_, _ = c.Read(make([]byte, 4096))
			_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"allow\":true")) // and no more
			c.Close()
		}
	}()
	w.webhook = &gatedWebhook{asked: make(chan struct{}), answered: make(chan struct{})}
	slow := httptest.NewServer(w.webhook)
	w.Cleanup(slow.Close)
	hook := func(name, address, timeout string) string {
		return fmt.Sprintf("  %s:\n    access: webhook\n    on_denied: error\n    webhook: {url: %q, timeout: %s}\n", name, "http://"+address+"/may", timeout)
	}
	w.abuse.file = "namespaces:\n  job_progress: {access: user}\n  log: {access: user, mode: log}\n" +
		hook("hanging", hanging.Addr().String(), "500ms") + hook("failing", failing.Addr().String(), "500ms") + hook("gone", freeAddress(w.T), "500ms") +
		hook("slow", slow.Listener.Addr().String(), "30s")
}

// take waits at a gate of the webhook.
func (w *world) take(gate <-chan struct{}, what string) {
	w.Helper()
	select {
	case <-gate:
	case <-time.After(patience):
		w.Fatalf("%s: not within %v", what, patience)
	}
}

// order gives an operator's order to the case's gateway, and wants an answer with that status and text.
func (w *world) order(what string, status int, text string) {
	w.Helper()
	if got, body := w.gateway.ask(http.MethodPost, "/api/admin/"+what); got != status || !strings.Contains(string(body), text) {
		w.Fatalf("%s was answered %d %s, want %d with %s", what, got, body, status, text)
	}
}

// listener is a stream of either wire: what reads its next text.
type listener struct {
	wire string
	next func() (string, error)
}

// listeners opens a stream of each wire.
func (w *world) listeners(token string, channels ...string) []listener {
	w.Helper()
	query := "?channel=" + strings.Join(channels, "&channel=")
	events, socket := w.stream("/api/stream"+query, bearer(token)...).live(), w.websocket("/ws"+query, bearer(token)...)
	for range channels {
		socket.await("subscribed")
	}
	return []listener{
		{"SSE", func() (string, error) {
			e, err := events.next()
			return e.data, err
		}},
		{"WebSocket", socket.text},
	}
}

// hear reads on until a message of that type comes, and gives it. What may not come any more is a failure.
func (w *world) hear(l listener, kind string, never func(said) bool) said {
	w.Helper()
	for {
		text, err := l.next()
		if err != nil {
			w.Fatalf("%s did not bring %s: %v", l.wire, kind, err)
		}
		one := parsed(text)
		if never(one) {
			w.Errorf("%s heard %s, and the right to it was gone", l.wire, text)
		}
		if one.Type == kind {
			return one
		}
	}
}

func nothing(said) bool { return false }

// wantDisconnected reads to the end, which must be an operator's doing.
func (l listener) wantDisconnected(w *world) {
	w.Helper()
	last := ""
	for {
		text, err := l.next()
		if err == nil {
			last = text
			continue
		}
		var closing closedError
		if errors.As(err, &closing) && closing.reason == "Disconnected" || errors.Is(err, io.EOF) && parsed(last).Code == "disconnected" {
			return
		}
		w.Fatalf("%s ended with %v after %q, want an operator to have ended it", l.wire, err, last)
	}
}

func withdrawn(w *world) {
	w.wantNoFromBrokenWebhooks()
	w.takenUnderEvents()
	w.takenWhileAsked()
	w.takenOnTwoGateways()
}

func (w *world) wantNoFromBrokenWebhooks() {
	alice := w.secret(sign(claimsOf("alice")))
	for _, name := range []string{"hanging:1", "failing:1", "gone:1"} {
		response, _ := w.asked("GET /api/stream?channel="+name+" HTTP/1.1", bearer(alice)[0])
		if response.StatusCode != 403 && response.StatusCode != 503 {
			w.Errorf("%s was answered %d: a webhook that does not answer must deny", name, response.StatusCode)
		}
		s := w.websocket("/ws", bearer(alice)...)
		s.await("connected")
		if answer := s.reply(`{"type":"subscribe","channel":"` + name + `"}`); answer.Type != "error" {
			w.Errorf("%s on a WebSocket was answered with %s", name, answer.text)
		}
		s.Close()
	}
	w.note("403 where a webhook hangs, breaks off or is gone")
}

// takenUnderEvents: what is published after the acknowledgement does not arrive.
func (w *world) takenUnderEvents() {
	alice := w.secret(sign(claimsOf("alice")))
	all := append(w.listeners(alice, feedChannel), w.listeners(alice, feedChannel)...)
	heard := make([]int, len(all))
	for i, l := range all {
		heard[i] = w.hear(l, "", nothing).N // an event of the feed has no type
	}
	w.order("unsubscribe?user=alice&channel="+feedChannel, 200, `"unsubscribed":4`)
	last := w.feed.last() + 1 // one may be on its way to be published
	w.within(patience, "the feed goes on", func() bool { return w.feed.last() > last+20 })
	w.order("disconnect?user=alice", 200, `"disconnected":4`)
	for i, l := range all {
		for text, err := l.next(); err == nil; text, err = l.next() {
			heard[i] = max(heard[i], parsed(text).N)
		}
		if heard[i] > last || heard[i] == 0 {
			w.Errorf("%s: event %d came, and the right was gone at %d", l.wire, heard[i], last)
		}
	}
	w.note("after the acknowledgement of an unsubscribe no later event came")
}

// takenWhileAsked: the right goes while the webhook is asked, for a stream that comes in and for a
// command; and a yes from before is not believed to who comes back.
func (w *world) takenWhileAsked() {
	alice := w.secret(sign(claimsOf("alice")))
	coming := w.dial()
	coming.say(w.head("GET /api/stream?channel=slow:1&channel=job_progress:f4 HTTP/1.1", "Host: HOST", bearer(alice)[0]))
	w.take(w.webhook.asked, "the webhook is asked")
	socket := w.websocket("/ws?channel=job_progress:f4", bearer(alice)...)
	socket.await("subscribed")
	socket.command(`{"type":"subscribe","channel":"slow:2"}`)
	w.take(w.webhook.asked, "the webhook is asked")
	w.order("unsubscribe?user=alice&channel=slow:1", 200, `"unsubscribed":0`) // there is no stream yet
	w.order("unsubscribe?user=alice&channel=slow:2", 200, `"unsubscribed":1`)
	w.take(w.webhook.answered, "the webhook answers")
	w.take(w.webhook.answered, "the webhook answers")
	events := coming.stream().live()
	socket.await("unsubscribed")
	for _, channel := range []string{"slow:1", "slow:2", "job_progress:f4"} {
		w.publish(channel, `{"type":"`+strings.ReplaceAll(channel, ":", "_")+`"}`)
	}
	late := func(one said) bool { return strings.HasPrefix(one.Type, "slow_") }
	w.hear(listener{"SSE", func() (string, error) {
		e, err := events.next()
		return e.data, err
	}}, "job_progress_f4", late)
	w.hear(listener{"WebSocket", socket.text}, "job_progress_f4", late)

	comes := func() *connection {
		c := w.dial()
		c.say(w.head("GET /api/stream?channel=slow:3 HTTP/1.1", "Host: HOST", bearer(alice)[0]))
		w.take(w.webhook.asked, "the webhook is asked")
		w.take(w.webhook.answered, "the webhook answers")
		return c
	}
	comes().stream().live()
	w.webhook.denies.Store(true)
	w.order("disconnect?user=alice", 200, `"disconnected":3`)
	if response, body := comes().answer(); response.StatusCode != 403 {
		w.Errorf("who was sent away came back by the webhook's yes from before: %d %s", response.StatusCode, body)
	}
	w.note("a right that goes while the webhook is asked does not come by its answer, for streams on their way in and for commands; a yes from before counts no more")
}

// takenOnTwoGateways: the right goes on a gateway that was not asked, also while it, or both, are cut
// off from Redis.
func (w *world) takenOnTwoGateways() {
	password := w.secret("a-password-of-the-second-gateway")
	w.redis.CLI(w.T, "ACL", "SETUSER", "two", "on", ">"+password, "~*", "&*", "+@all")
	two := w.at(start{
		arguments: []string{"--redis", "redis://two:" + password + "@" + w.redis.Addr, "--auth-hmac-secret", hmacSecret}, file: w.abuse.file,
	}.run(w.T))
	carol := w.secret(sign(claimsOf("carol")))
	all := two.listeners(carol, feedChannel, "log:taken", "log:kept")
	w.within(patience, "the second gateway follows the orders", func() bool {
		m, err := two.gateway.metrics()
		return err == nil && m["millrace_broker_tracked_keys"] == 3 // two logs and that of the orders
	})

	began := time.Now()
	w.order("unsubscribe?user=carol&channel="+feedChannel, 200, `"distributed":true`)
	for _, l := range all {
		w.hear(l, "unsubscribed", nothing)
	}
	took := time.Since(began)
	if took > time.Second && *reportPath != "" { // when it has the machine for itself
		w.Errorf("the right was gone on the other gateway after %v, and a second is promised", took)
	}
	w.redisCommand("XADD", "log:kept", "*", "data", `{"type":"kept"}`)
	for _, l := range all {
		w.hear(l, "kept", func(one said) bool { return one.N > 0 })
	}

	w.redis.CLI(w.T, "ACL", "SETUSER", "two", "off")
	w.redis.CLI(w.T, "CLIENT", "KILL", "USER", "two")
	w.within(patience, "the second gateway is cut off from Redis", func() bool { return !two.delivers() })
	w.order("unsubscribe?user=carol&channel=log:taken", 200, `"distributed":true`)
	for _, log := range []string{"taken", "kept"} {
		w.redisCommand("XADD", "log:"+log, "*", "data", `{"type":"`+log+`"}`)
	}
	w.redis.CLI(w.T, "ACL", "SETUSER", "two", "on")
	for _, l := range all {
		w.hear(l, "unsubscribed", func(one said) bool { return one.Type == "taken" })
		w.hear(l, "kept", func(one said) bool { return one.Type == "taken" })
	}

	w.redis.Stop()
	w.within(patience, "Redis is away", func() bool { return !w.delivers() })
	w.order("disconnect?user=carol", 503, "broker_unavailable")
	w.redis.Cont()
	w.within(patience, "Redis is back", func() bool { return w.delivers() && two.delivers() })
	w.order("disconnect?user=carol", 200, `"distributed":true`)
	for _, l := range all {
		l.wantDisconnected(w)
	}
	w.note("on a second gateway it was gone %.2f s after the first was asked (stated: 1 s); one that was cut off from Redis meanwhile sends nothing that its log got since; with Redis away the answer is 503, and the next order counts", took.Seconds())
}
