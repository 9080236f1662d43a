package gateway_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/gateway/access"
	"github.com/millrace/millrace/proto"
)

// TestSendToClient: one stream is told, whatever its wire.
func TestSendToClient(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Loops: 3})
	onEvery(t, everyWire, func(t *testing.T, w wire) {
		first, second := h.open(t, w, visit{channels: []string{"a:1"}}), h.open(t, w, visit{channels: []string{"a:1"}})
		for _, payload := range []string{`{"type":"direct","n":1}`, `"text"`, `{"type":"connected"}`} {
			if err := h.SendToClient(t.Context(), first.clientID, []byte(payload)); err != nil {
				t.Fatal(err)
			}
			first.event(t, payload)
		}
		for _, bad := range []string{"", "{", "\"\xff\"", "{} {}"} {
			if err := h.SendToClient(t.Context(), first.clientID, []byte(bad)); err == nil {
				t.Errorf("%q was sent", bad)
			}
			if err := h.Complete(t.Context(), first.clientID, []byte(bad)); err == nil {
				t.Errorf("%q completed a stream", bad)
			}
		}
		h.publish(t, "a:1", `{"for":"both"}`)
		first.event(t, `{"for":"both"}`)
		second.event(t, `{"for":"both"}`)
	})
}

// TestNoClient: nobody is told where nobody is.
func TestNoClient(t *testing.T) {
	t.Parallel()
	h, other := serve(t, gateway.Options{}), serve(t, gateway.Options{})
	gone := h.open(t, raw, visit{})
	elsewhere := other.open(t, raw, visit{})
	gone.conn.Close()
	within(t, patience, "it is gone", func() bool { return h.stats(t).WebSocket.TotalConnections == 0 })
	successor := h.open(t, raw, visit{}) // may have its slot
	epoch, _, _ := strings.Cut(successor.clientID, "-")
	for _, id := range []string{gone.clientID, elsewhere.clientID, "", "-", "x", epoch, epoch + "-", epoch + "-zzzzzzzzzzzzz", epoch + "-0", epoch + "--1"} {
		for what, err := range map[string]error{
			"send":     h.SendToClient(t.Context(), id, []byte(`1`)),
			"error":    h.Error(t.Context(), id, "x", "y"),
			"complete": h.Complete(t.Context(), id, nil),
		} {
			if !errors.Is(err, gateway.ErrNoClient) {
				t.Errorf("%s to client %q: %v, want ErrNoClient", what, id, err)
			}
		}
	}
	successor.alive(t)
}

// TestComplete: a stream that is complete says so, ends in order, and is answered 204 ever after.
func TestComplete(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{})
	onEvery(t, everyWire, func(t *testing.T, w wire) {
		for data, want := range map[string]string{`{"score":0.78}`: "map[score:0.78]", "": ""} {
			s := h.open(t, w, visit{channels: []string{"a:1"}})
			h.publish(t, "a:1", `{"n":1}`)
			s.event(t, `{"n":1}`)
			var last []byte
			if data != "" {
				last = []byte(data)
			}
			if err := h.Complete(t.Context(), s.clientID, last); err != nil {
				t.Fatal(err)
			}
			complete := s.wordWith(t, "complete", "data="+want)
			s.ends(t, proto.CloseNormal, "Complete")
			if w.websocket {
				continue
			}
			if want := s.clientID + "/end"; complete.id != want {
				t.Errorf("the id is %q, want %q", complete.id, want)
			}
			if got := h.ask(t, get("/api/stream?channel=a:1", "Last-Event-ID: "+complete.id)); got.status != 204 {
				t.Errorf("coming back was answered %d, want 204", got.status)
			}
		}
	})
}

// TestError: a client is told that something failed, and its stream goes on.
func TestError(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{})
	onEvery(t, everyWire, func(t *testing.T, w wire) {
		s := h.open(t, w, visit{channels: []string{"a:1"}})
		if err := h.Error(t.Context(), s.clientID, "model_failed", "the model \"x\"\nfailed"); err != nil {
			t.Fatal(err)
		}
		name := "server_error"
		if w.websocket {
			name = "error"
		}
		s.wordWith(t, name, "code=model_failed", "message=the model \"x\"\nfailed")
		h.publish(t, "a:1", `{"n":1}`)
		s.event(t, `{"n":1}`)
	})
}

// TestSendToUserAndBroadcast: all streams of one user, and all streams.
func TestSendToUserAndBroadcast(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Broadcast: []string{"system:all"}})
	var mine, others []*stream
	for _, w := range everyWire {
		mine = append(mine, h.open(t, w, visit{query: "userId=456"}))
		others = append(others, h.open(t, w, visit{query: "userId=45"}), h.open(t, w, visit{}))
	}
	if _, err := h.SendToUser(t.Context(), "456", []byte(`{"type":"alert"}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Broadcast(t.Context(), []byte(`{"type":"notice"}`)); err != nil {
		t.Fatal(err)
	}
	for _, s := range mine {
		s.event(t, `{"type":"alert"}`)
	}
	for _, s := range append(mine, others...) {
		s.event(t, `{"type":"notice"}`)
	}
	if _, err := h.SendToUser(t.Context(), "no channel/name", []byte(`1`)); err == nil {
		t.Error("a user that can have no channel was sent something")
	}
	bare := serve(t, gateway.Options{Namespaces: map[string]access.Namespace{"a": {}}})
	if _, err := bare.SendToUser(t.Context(), "456", []byte(`1`)); err == nil {
		t.Error("a user was sent something without a personal type")
	}
	if _, err := bare.Broadcast(t.Context(), []byte(`1`)); err == nil {
		t.Error("something was broadcast without a broadcast channel")
	}
}

// notices is what a callback was told.
type notices struct {
	mutex sync.Mutex
	all   []gateway.Notice
}

func (n *notices) take(notice gateway.Notice) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	n.all = append(n.all, notice)
}

func (n *notices) texts() []string {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	var texts []string
	for _, notice := range n.all {
		text := notice.Channel + " " + notice.Gap + string(notice.Data)
		if notice.Deleted {
			text += "deleted"
		}
		texts = append(texts, text)
	}
	return texts
}

// TestSubscribe: the program itself listens, until it no longer does.
func TestSubscribe(t *testing.T) {
	t.Parallel()
	h, redis := serveRedis(t, gateway.Options{Namespaces: map[string]access.Namespace{"news": {Wildcard: true}, "a": {}}}, gateway.Timings{})
	for _, channel := range []string{"plain", "", "a:*", "__millrace:1"} {
		if _, err := h.Subscribe(channel, func(gateway.Notice) {}); err == nil {
			t.Errorf("%q was subscribed to", channel)
		}
	}
	var exact, all notices
	cancelExact, err := h.Subscribe("news:1", exact.take)
	if err != nil {
		t.Fatal(err)
	}
	cancelAll, err := h.Subscribe("news:*", all.take)
	if err != nil {
		t.Fatal(err)
	}
	defer cancelAll()
	hears := func(n *notices, want ...string) {
		t.Helper()
		within(t, patience, strings.Join(want, ", "), func() bool { return slices.Equal(n.texts(), want) })
	}
	// When the subscriptions are confirmed is not told, so publish until they are heard.
	within(t, patience, "both are confirmed", func() bool {
		h.publish(t, "news:1", `0`)
		return len(exact.texts()) > 0 && len(all.texts()) > 0
	})
	h.publish(t, "news:1", `"fence"`)
	fence := func(n *notices) {
		t.Helper()
		within(t, patience, "the fence", func() bool { return slices.Contains(n.texts(), `news:1 "fence"`) })
		n.mutex.Lock()
		defer n.mutex.Unlock()
		for _, notice := range n.all {
			if !strings.HasPrefix(notice.ID, "news:1/") {
				t.Errorf("the id is %q", notice.ID)
			}
		}
		n.all = nil
	}
	fence(&exact)
	fence(&all)
	h.publish(t, "news:1", `1`)
	h.publish(t, "news:2", `2`)
	hears(&exact, "news:1 1")
	hears(&all, "news:1 1", "news:2 2")
	redis.CLI(t, "CLIENT", "KILL", "TYPE", "pubsub")
	within(t, patience, "a gap is told", func() bool {
		return slices.Contains(exact.texts(), "news:1 broker") && slices.Contains(all.texts(), "news:* broker")
	})
	cancelExact()
	cancelExact()
	before := exact.texts()
	h.publish(t, "news:1", `3`)
	within(t, patience, "the other listener hears it", func() bool { return slices.Contains(all.texts(), "news:1 3") })
	if after := exact.texts(); !slices.Equal(before, after) {
		t.Errorf("after its end the callback was told %v", after)
	}
}

// TestSlowCallback: a callback that is too slow misses events, is told so, and holds up nobody.
func TestSlowCallback(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Limits: gateway.Limits{MaxQueueBytes: 8 << 20}})
	release := make(chan struct{})
	var slow notices
	cancel, err := h.Subscribe("a:1", func(n gateway.Notice) {
		slow.take(n)
		<-release
	})
	if err != nil {
		t.Fatal(err)
	}
	defer cancel()
	s := h.open(t, raw, visit{channels: []string{"a:1"}})
	h.publish(t, "a:1", `{"n":0}`)
	within(t, patience, "it is called", func() bool { return len(slow.texts()) == 1 })
	const count = 6000 // more than may wait for callbacks
	for from := 1; from < count; from += 500 {
		events := make([]gateway.Event, 500)
		for i := range events {
			events[i] = gateway.Event{Channel: "a:1", Data: fmt.Appendf(nil, `{"n":%d}`, from+i)}
		}
		if _, err := h.Publish(t.Context(), events...); err != nil {
			t.Fatal(err)
		}
	}
	s.numbers(t, 0, count)
	close(release)
	within(t, patience, "it is told of the gap", func() bool { return slices.Contains(slow.texts(), "a:1 slow") })
}

// TestPublishErrors: what the program may not publish, and who is told which event was wrong.
func TestPublishErrors(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Limits: gateway.Limits{MaxEventBytes: 100}})
	good := gateway.Event{Channel: "a:1", Data: []byte(`1`)}
	for name, bad := range map[string]gateway.Event{
		"channel": {Channel: "plain", Data: []byte(`1`)}, "wildcard": {Channel: "a:*", Data: []byte(`1`)},
		"nothing": {Channel: "a:1"}, "no JSON": {Channel: "a:1", Data: []byte(`{`)},
		"no UTF-8": {Channel: "a:1", Data: []byte("\"\xff\"")}, "too large": {Channel: "a:1", Data: []byte(`"` + strings.Repeat("x", 100) + `"`)},
	} {
		result, err := h.Publish(t.Context(), good, bad)
		if err == nil || !strings.Contains(err.Error(), "event 1") {
			t.Errorf("%s: %v, %v", name, result, err)
		}
	}
	if published := h.stats(t).Broker.Published; published != 0 {
		t.Errorf("%d events were published beside wrong ones", published)
	}
	if result, err := h.Publish(t.Context()); err != nil || !result.Distributed {
		t.Errorf("nothing was published with %v, %v", result, err)
	}
}

// TestClosed: what the methods of a gateway say that has ended.
func TestClosed(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{})
	s := h.open(t, raw, visit{})
	s.conn.Close()
	h.stop(t)
	_, published := h.Publish(t.Context(), gateway.Event{Channel: "a:1", Data: []byte(`1`)})
	_, counted := h.Stats(t.Context())
	_, subscribed := h.Subscribe("a:1", func(gateway.Notice) {})
	for what, err := range map[string]error{
		"Publish": published, "Stats": counted, "Subscribe": subscribed,
		"SendToClient": h.SendToClient(t.Context(), s.clientID, []byte(`1`)),
		"Error":        h.Error(t.Context(), s.clientID, "x", "y"),
		"Complete":     h.Complete(t.Context(), s.clientID, nil),
	} {
		if !errors.Is(err, gateway.ErrClosed) {
			t.Errorf("%s says %v, want ErrClosed", what, err)
		}
	}
}

// TestOwnHandler: a program's own routes beside the gateway's, whose own come first.
func TestOwnHandler(t *testing.T) {
	t.Parallel()
	own := http.NewServeMux()
	own.HandleFunc("GET /hello", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "hello %s", r.URL.Query().Get("name")) })
	own.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	own.HandleFunc("GET /panic", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	h := serve(t, gateway.Options{Handler: own})
	if got := h.ask(t, get("/hello?name=you")); got.status != 200 || got.body != "hello you" {
		t.Errorf("answered %d %q", got.status, got.body)
	}
	if got := h.ask(t, get("/healthz")); got.status != 200 {
		t.Errorf("the gateway's own route was answered %d", got.status)
	}
	if got := h.ask(t, get("/other")); got.status != 404 || strings.Contains(got.body, "error") {
		t.Errorf("what neither knows was answered %d %q, want the program's 404", got.status, got.body)
	}
}

// TestDemo: the demonstration measures its own process.
func TestDemo(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Demo: true})
	onEvery(t, everyWire, func(t *testing.T, w wire) {
		s := h.open(t, w, visit{channels: []string{"system:millrace"}})
		got := s.said(t)
		if got.kind != heardEvent || got.field("type") != "measurement" || got.field("timestamp") == "" {
			t.Errorf("heard %v", got)
		}
	})
}

// TestSubscribeInModes: what a program is told of a state and of a log.
func TestSubscribeInModes(t *testing.T) {
	t.Parallel()
	onEachBroker(t, gateway.Options{}, func(t *testing.T, writer writer) {
		h := writer.house
		writer.set(t, "state:1", "1")
		writer.add(t, "log:1", `"before"`)
		var state, late, log notices
		listen := func(n *notices, channel string) {
			t.Helper()
			cancel, err := h.Subscribe(channel, n.take)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(cancel)
		}
		tells := func(n *notices, want ...string) {
			t.Helper()
			within(t, patience, fmt.Sprintf("%v", want), func() bool { return slices.Equal(n.texts(), want) })
		}
		listen(&state, "state:1")
		tells(&state, "state:1 1")
		listen(&late, "state:1")
		tells(&late, "state:1 1")
		writer.set(t, "state:1", `{"type":"deleted"}`)
		tells(&state, "state:1 1", `state:1 {"type":"deleted"}`)
		listen(&log, "log:1")
		within(t, patience, "it listens", func() bool {
			h.publish(t, "log:1", `"fence"`)
			return slices.Contains(log.texts(), `log:1 "fence"`)
		})
		writer.add(t, "log:1", `"after"`)
		within(t, patience, "the entry", func() bool { return slices.Contains(log.texts(), `log:1 "after"`) })
		if slices.Contains(log.texts(), `log:1 "before"`) {
			t.Error("a listener of a log is told of the past")
		}
		if writer.redis == nil {
			return
		}
		writer.redis.CLI(t, "DEL", "state:1", "log:1")
		tells(&state, "state:1 1", `state:1 {"type":"deleted"}`, "state:1 deleted")
		within(t, patience, "the gap", func() bool { return slices.Contains(log.texts(), "log:1 trimmed") })
	})
}
