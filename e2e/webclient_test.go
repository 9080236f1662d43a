package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/redistest"
)

const webFolder = "../web"

// webClient and webExample build the package @millrace/client and the page of examples/react from
// the sources, once: what is published, and what a reader copies.
var (
	webClient = sync.OnceValues(func() (string, error) {
		return webBuild("client", "node_modules/typescript/bin/tsc", "--project", "client", "--outDir")
	})
	webExample = sync.OnceValues(func() (string, error) {
		return webBuild("example", "node_modules/vite/bin/vite.js", "build", "--config", "example.config.ts", "--logLevel", "warn", "--outDir")
	})
)

// webBuild runs a script of the web workspace whose last argument is the folder to write to.
func webBuild(name string, script ...string) (string, error) {
	folder := filepath.Join(builds, name)
	command := exec.Command(nodePath(), append(script, folder)...)
	command.Dir = webFolder
	if output, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s (make deps installs what it needs): %w\n%s", name, err, output)
	}
	return folder, nil
}

// tabs is one browser whose tabs hold streams of our own client: drivers/tabs.js.
type tabs struct {
	*process
	waiting map[int][]tabHeard // by tab: what a test has not asked for yet
}

// tabHeard is what one tab told.
type tabHeard struct {
	heard
	Tab int `json:"tab"`
}

func startTabs(t *testing.T, base string) *tabs {
	t.Helper()
	client, err := webClient()
	if err != nil {
		t.Fatal(err)
	}
	parser := filepath.Join(webFolder, "node_modules/eventsource-parser/dist")
	b := &tabs{waiting: make(map[int][]tabHeard)}
	b.process = start(t, "a browser with tabs", node(t), driver("tabs.js"), chromium(t), base, client, parser)
	b.polite = 5 * time.Second
	return b
}

// command is one line for the driver.
type command map[string]any

func (b *tabs) say(t *testing.T, c command) {
	t.Helper()
	line, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(b.input, "%s\n", line); err != nil {
		t.Fatalf("%s is gone: %v", b.name, err)
	}
}

// open opens a stream in a tab and waits until it is open.
func (b *tabs) open(t *testing.T, tab int, wire, path string, options command) {
	t.Helper()
	b.say(t, command{"tab": tab, "open": wire, "url": path, "options": options})
	b.status(t, tab, "open")
}

// do has something done to a tab, and waits until it is done.
func (b *tabs) do(t *testing.T, tab int, what string) {
	t.Helper()
	b.say(t, command{"tab": tab, "do": what})
	b.await(t, tab, what+" to be done", func(h heard) bool { return h.Kind == "done" && h.Reason == what })
}

func (b *tabs) status(t *testing.T, tab int, status string) {
	t.Helper()
	b.await(t, tab, "status "+status, func(h heard) bool { return h.Kind == "status" && h.Reason == status })
}

func (b *tabs) event(t *testing.T, tab int, payload string) heard {
	t.Helper()
	return b.await(t, tab, payload, func(h heard) bool { return h.Kind == "event" && h.Data == payload })
}

// await gives the first thing that a tab told and that matches. Earlier ones are passed over; those
// of other tabs are kept for them.
func (b *tabs) await(t *testing.T, tab int, what string, match func(heard) bool) heard {
	t.Helper()
	deadline := time.After(2 * patience)
	var before []string
	for {
		for len(b.waiting[tab]) > 0 {
			next := b.waiting[tab][0].heard
			b.waiting[tab] = b.waiting[tab][1:]
			if match(next) {
				return next
			}
			before = append(before, fmt.Sprintf("%+v", next))
		}
		select {
		case line, more := <-b.lines:
			var next tabHeard
			if !more || json.Unmarshal([]byte(line), &next) != nil {
				t.Fatalf("the browser ended with %q before tab %d told of %s; it told of %s", line, tab, what, strings.Join(before, " "))
			}
			if next.Kind == "complaint" {
				t.Errorf("tab %d complained: %s", next.Tab, next.Reason)
			}
			b.waiting[next.Tab] = append(b.waiting[next.Tab], next)
		case <-deadline:
			t.Fatalf("tab %d did not tell of %s; it told of %s; others: %+v", tab, what, strings.Join(before, " "), b.waiting)
		}
	}
}

// webWires are the three ways of our client, each with the address that listens to channel.
var webWires = []struct {
	name string
	open func(b *tabs, t *testing.T, tab int, channel string, options command)
}{
	{"websocket", func(b *tabs, t *testing.T, tab int, channel string, options command) {
		options["channels"] = []string{channel}
		b.open(t, tab, "websocket", "/ws", options)
	}},
	{"fetch", func(b *tabs, t *testing.T, tab int, channel string, options command) {
		b.open(t, tab, "fetch", "/api/stream?"+url.Values{"channel": {channel}}.Encode(), options)
	}},
	{"eventsource", func(b *tabs, t *testing.T, tab int, channel string, options command) {
		options["events"] = []string{"job_progress"}
		options["tokenInQuery"] = true
		b.open(t, tab, "eventsource", "/api/stream?"+url.Values{"channel": {channel}}.Encode(), options)
	}},
}

// published sends an event until the tab has it: `open` of a shared WebSocket comes before its
// channels are confirmed.
func (g *gateway) published(t *testing.T, b *tabs, tab int, token, channel, payload string) heard {
	t.Helper()
	within(t, patience, "a listener on "+channel, func() bool { return g.stats(t).Channels.Subscriptions > 0 })
	g.publish(t, token, channel, payload)
	return b.event(t, tab, payload)
}

// TestWebClient: our client hears events on each wire, and comes back when the gateway does, on
// its own, with a gap for what it may have missed.
func TestWebClient(t *testing.T) {
	t.Parallel()
	for _, wire := range webWires {
		t.Run(wire.name, func(t *testing.T) {
			t.Parallel()
			g := startGateway(t)
			b := startTabs(t, "http://"+g.address)
			wire.open(b, t, 1, "job_progress:1", command{"reconnectInterval": 200})
			h := g.published(t, b, 1, "", "job_progress:1", `{"type":"job_progress","progress":0.5}`)
			if h.Event != "job_progress" || h.Reason != "job_progress:1" || !strings.HasPrefix(h.ID, "job_progress:1/") {
				t.Errorf("the event has name %q, channel %q and id %q", h.Event, h.Reason, h.ID)
			}
			again := g.restart(t)
			b.await(t, 1, "a gap", func(h heard) bool { return h.Kind == "gap" && h.Event == "job_progress:1" })
			again.published(t, b, 1, "", "job_progress:1", `{"type":"job_progress","progress":1}`)
		})
	}
}

// TestWebClientLog: of a log nothing is lost and nothing comes twice on any wire, though the gateway
// is killed and entries are added while there is none.
func TestWebClientLog(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "millrace.yaml")
	if err := os.WriteFile(file, []byte("namespaces:\n  job_progress: {mode: log, access: public}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, wire := range webWires {
		t.Run(wire.name, func(t *testing.T) {
			t.Parallel()
			redis := redistest.Start(t)
			arguments := []string{"--redis", redis.URL(), "--config", file}
			g := startGateway(t, arguments...)
			b := startTabs(t, "http://"+g.address)
			wire.open(b, t, 1, "job_progress:1", command{"reconnectInterval": 200})
			within(t, patience, "a subscription", func() bool { return g.stats(t).Channels.Subscriptions > 0 })
			added := 0
			add := func(count int) {
				for range count {
					added++
					redis.CLI(t, "XADD", "job_progress:1", "*", "data", fmt.Sprintf(`{"type":"job_progress","n":%d}`, added))
				}
			}
			heardAll := func(from int) {
				t.Helper()
				for n := from; n <= added; n++ {
					want := fmt.Sprintf(`{"type":"job_progress","n":%d}`, n)
					got := b.await(t, 1, want, func(h heard) bool { return h.Kind == "event" || h.Kind == "gap" })
					if got.Data != want {
						t.Fatalf("heard %+v, want %s", got, want)
					}
				}
			}
			add(5)
			heardAll(1)
			g.kill()
			add(5)
			g.restart(t, arguments...)
			add(5)
			heardAll(6)
		})
	}
}

// TestWebClientTokens: a token opens each wire, and a bad one is refused with a reason.
func TestWebClientTokens(t *testing.T) {
	t.Parallel()
	g := startGateway(t, "--auth-hmac-secret", secret)
	b := startTabs(t, "http://"+g.address)
	good := token(t, "--sub", "456", "--publish", "*")
	for tab, wire := range webWires {
		wire.open(b, t, tab, "alerts:456", command{"token": good, "user": "456"})
		g.published(t, b, tab, good, "alerts:456", fmt.Sprintf(`{"type":"job_progress","n":%d}`, tab))
	}
	b.say(t, command{"tab": 9, "open": "fetch", "url": "/api/stream?channel=alerts:456", "options": command{"token": "bad", "user": "x"}})
	b.await(t, 9, "a refusal", func(h heard) bool { return h.Kind == "error" && strings.HasPrefix(h.Reason, "unauthorized") })
	b.say(t, command{"tab": 8, "open": "fetch", "url": "/api/stream?channel=alerts:457", "options": command{"token": good, "user": "456"}})
	b.await(t, 8, "a refusal", func(h heard) bool { return h.Kind == "error" && strings.HasPrefix(h.Reason, "access_denied") })
	b.status(t, 8, "failed")
}

// TestSevenTabs: a browser opens six connections to a host over HTTP/1.1, so seven tabs with a
// stream each would hang. They share one, whoever of them is closed.
func TestSevenTabs(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	b := startTabs(t, "http://"+g.address)
	const last = 7
	for tab := 1; tab <= last; tab++ {
		b.open(t, tab, "fetch", "/api/stream?channel=job_progress:1", nil)
	}
	for closed := range 3 {
		within(t, patience, "one connection", func() bool { return g.stats(t).SSE.Connections == 1 })
		payload := fmt.Sprintf(`{"type":"job_progress","closed":%d}`, closed)
		g.publish(t, "", "job_progress:1", payload)
		for tab := closed + 1; tab <= last; tab++ {
			b.event(t, tab, payload)
		}
		b.do(t, closed+1, "close") // the one that has the connection: it came first
		b.status(t, closed+2, "open")
	}
}

// TestSleepingTabs: a tab that is frozen, left for another page, or stands still without a word
// hands the connection on, and is back with all that it needs to know.
func TestSleepingTabs(t *testing.T) {
	t.Parallel()
	cases := []struct{ name, sleep, wake string }{
		{"frozen", "freeze", "thaw"},
		{"in the back/forward cache", "leave", "back"},
		{"suspended without a word", "pause", "resume"},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			g := startGateway(t)
			b := startTabs(t, "http://"+g.address)
			options := command{"channels": []string{"job_progress:1"}}
			b.open(t, 1, "websocket", "/ws", options)
			g.published(t, b, 1, "", "job_progress:1", `{"n":1}`)
			b.open(t, 2, "websocket", "/ws", options)
			g.publish(t, "", "job_progress:1", `{"n":2}`)
			b.event(t, 1, `{"n":2}`)
			b.event(t, 2, `{"n":2}`)

			b.do(t, 1, test.sleep)
			g.publish(t, "", "job_progress:1", `{"n":3}`) // before the second tab can have taken over
			b.await(t, 2, `{"n":3}`, func(h heard) bool {
				if h.Kind == "gap" {
					t.Errorf("the second tab has a gap (%s), though it went on from where it was", h.Reason)
				}
				return h.Data == `{"n":3}`
			})

			b.do(t, 1, test.wake)
			within(t, patience, "one connection", func() bool { return g.stats(t).WebSocket.Connections == 1 })
			// It missed an event, unless its old socket still had it, and may miss another while it asks
			// the second tab how things stand: it hears of either.
			g.publish(t, "", "job_progress:1", `{"n":4}`)
			told := false
			b.await(t, 1, "what it missed", func(h heard) bool {
				told = told || h.Kind == "gap" && h.Reason == "asleep" || h.Data == `{"n":3}`
				return told || h.Data == `{"n":4}`
			})
			if !told {
				t.Error("the first tab heard the next event, and not a word of the one that it missed")
			}
			b.event(t, 2, `{"n":4}`)
			g.publish(t, "", "job_progress:1", `{"n":5}`)
			b.event(t, 2, `{"n":5}`)
			b.await(t, 1, "the last event, or the gap that it fell into", func(h heard) bool {
				if h.Kind == "gap" {
					g.publish(t, "", "job_progress:1", `{"n":5}`)
				}
				return h.Data == `{"n":5}`
			})
		})
	}
}

// TestOffline: where the browser knows that there is no network a client says so, and it is back as
// soon as there is one, however long the pause that it was in.
func TestOffline(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	b := startTabs(t, "http://"+g.address)
	b.open(t, 1, "fetch", "/api/stream?channel=job_progress:1", command{"reconnectInterval": 600_000})
	g.published(t, b, 1, "", "job_progress:1", `{"n":1}`)
	b.do(t, 1, "offline") // which cuts no connection that is open
	again := g.restart(t)
	b.status(t, 1, "offline")
	b.do(t, 1, "online")
	again.published(t, b, 1, "", "job_progress:1", `{"n":2}`)
}

// TestExampleReact drives the page that a reader copies: it shows what is published, opens one
// socket under React's Strict Mode, and draws no more often than the browser does.
func TestExampleReact(t *testing.T) {
	t.Parallel()
	folder, err := webExample()
	if err != nil {
		t.Fatal(err)
	}
	g := startGateway(t)
	c := &client{process: start(t, "the example's reader", node(t), driver("example.js"), chromium(t), "http://"+g.address, folder)}
	c.polite = 5 * time.Second
	shown := func(text string) {
		t.Helper()
		c.await(t, text, func(h heard) bool {
			if h.Kind == "complaint" {
				t.Errorf("the console complained: %s", h.Reason)
			}
			return h.Kind == "shown" && strings.Contains(h.Data, text)
		})
	}
	shown("open")
	within(t, patience, "one subscription", func() bool { return g.stats(t).Channels.Subscriptions == 1 })
	g.publish(t, "", "job_progress:job_123", `{"type":"job_progress","jobId":"job_123","progress":0.75}`)
	shown("75 %")
	if s := g.stats(t); s.WebSocket.Connections != 1 {
		t.Errorf("the page opened %d sockets, want one", s.WebSocket.Connections)
	}

	counts := func() (texts, frames int) {
		t.Helper()
		c.send(t, "counts")
		h := c.await(t, "counts", func(h heard) bool { return h.Kind == "counts" })
		var counted struct{ Texts, Frames int }
		if err := json.Unmarshal([]byte(h.Data), &counted); err != nil {
			t.Fatal(err)
		}
		return counted.Texts, counted.Frames
	}
	counts()
	const events = 10_000
	for batch := range events / 1000 {
		g.publishMany(t, "job_progress:job_123", 1000, func(n int) string {
			return fmt.Sprintf(`{"type":"job_progress","jobId":"job_123","progress":%g}`, float64(batch*1000+n+1)/(2*events))
		})
	}
	shown("50 %")
	texts, frames := counts()
	t.Logf("%d events: %d changes of the page in %d frames", events, texts, frames)
	if texts > frames+1 || texts == 0 {
		t.Errorf("%d changes of the page in %d frames, want at most one a frame", texts, frames)
	}
}

func TestExampleReactIsShort(t *testing.T) {
	text, err := os.ReadFile("../examples/react/main.tsx")
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(string(text), "\n"); lines >= 40 {
		t.Errorf("examples/react/main.tsx has %d lines; a reader copies fewer than 40", lines)
	}
}

// TestWebClientPacked: our client undoes messages compressed on each wire, and nobody behind it knows
// that there were any.
func TestWebClientPacked(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	b := startTabs(t, "http://"+g.address)
	for tab, one := range []struct {
		wire, path string
		options    command
	}{
		{"websocket", "/ws?compress=envelope", command{"channels": []string{"job_progress:1"}}},
		{"fetch", "/api/stream?channel=job_progress:1&compress=envelope", command{}},
		{"eventsource", "/api/stream?channel=job_progress:1&compress=envelope", command{"events": []string{"job_progress"}}},
	} {
		b.open(t, tab, one.wire, one.path, one.options)
		within(t, patience, "its subscription", func() bool { return g.stats(t).Channels.Subscriptions > tab })
		payload := fmt.Sprintf(`{"type":"job_progress","wire":%q,"log":%q}`, one.wire, strings.Repeat("one line of many; ", 200))
		h := g.published(t, b, tab, "", "job_progress:1", payload)
		if h.Event != "job_progress" || h.Reason != "job_progress:1" || !strings.HasPrefix(h.ID, "job_progress:1/") {
			t.Errorf("over %s the event has name %q, channel %q and id %q", one.wire, h.Event, h.Reason, h.ID)
		}
	}
	if got := g.metric(t, `millrace_deliveries_total{form="sse_packed"}`) + g.metric(t, `millrace_deliveries_total{form="envelope_packed"}`); got < 3 {
		t.Errorf("%v events went out to who asked for them packed", got)
	}
}
