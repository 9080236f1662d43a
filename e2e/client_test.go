package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// kind is one client that we did not write, on one wire.
type kind struct {
	name string
	sse  bool
	// command gives the program and its arguments for a path on a gateway.
	command func(t *testing.T, base, path string) []string
}

var (
	curl = kind{"curl", true, func(_ *testing.T, base, path string) []string {
		return []string{"curl", "--no-buffer", "--silent", "--show-error", "--fail-with-body", base + path}
	}}
	curlGzip = kind{"curl --compressed", true, func(t *testing.T, base, path string) []string {
		return append(curl.command(t, base, path), "--compressed")
	}}
	nodeZlib = kind{"node zlib", true, func(t *testing.T, base, path string) []string {
		return []string{node(t), driver("gunzip.js"), base + path}
	}}
	eventSource = kind{"Chromium EventSource", true, func(t *testing.T, base, path string) []string {
		return append([]string{node(t), driver("browser.js"), chromium(t), "eventsource", base, path}, eventNames...)
	}}
	npmWS = kind{"npm ws", false, func(t *testing.T, base, path string) []string {
		return []string{node(t), driver("ws.js"), "ws" + strings.TrimPrefix(base, "http") + path}
	}}
	pythonWS = kind{"python3-websockets", false, func(_ *testing.T, base, path string) []string {
		return []string{"/usr/bin/python3", driver("ws.py"), "ws" + strings.TrimPrefix(base, "http") + path}
	}}
	browserWS = kind{"Chromium WebSocket", false, func(t *testing.T, base, path string) []string {
		return []string{node(t), driver("browser.js"), chromium(t), "websocket", base, path}
	}}
)

// Firefox is not everywhere where there is a Chromium: only the tests of what browsers may do
// differently have it, and are skipped without.
var (
	firefoxEventSource = kind{"Firefox EventSource", true, func(t *testing.T, base, path string) []string {
		return append([]string{node(t), driver("firefox.js"), firefox(t), "eventsource", base, path}, eventNames...)
	}}
	firefoxWS = kind{"Firefox WebSocket", false, func(t *testing.T, base, path string) []string {
		return []string{node(t), driver("firefox.js"), firefox(t), "websocket", base, path}
	}}
)

// eventNames are those that an EventSource of the tests listens for.
var eventNames = []string{"connected", "message", "gap", "server_error", "job_progress", "measurement", "alert"}

// foreign is every client; light is one for each wire, for tests about something else. All but curl
// without --compressed take their events compressed.
var (
	foreign = []kind{curl, curlGzip, nodeZlib, eventSource, npmWS, pythonWS, browserWS}
	light   = []kind{curl, npmWS}
)

// printsText says whether the client prints the stream as it is, and not in the lines of
// drivers/lines.js.
func (k kind) printsText() bool {
	return k.name == curl.name || k.name == curlGzip.name || k.name == nodeZlib.name
}

// tellsStart says whether the client tells when it has started, which takes it long.
func (k kind) tellsStart() bool {
	return k.name == firefoxEventSource.name || k.name == firefoxWS.name
}

func driver(name string) string { return filepath.Join("drivers", name) }

// node prefers the one that .ci/deps fetched where the system's is too old for the browser driver.
func node(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat("node_modules/ws"); err != nil {
		t.Fatal("the npm packages of e2e are not installed: run make deps")
	}
	return nodePath()
}

func nodePath() string {
	if fetched, err := filepath.Abs("node_modules/node/bin/node"); err == nil && fileExists(fetched) {
		return fetched
	}
	return "node"
}

func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("no chromium found: run make deps")
	return ""
}

func firefox(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"firefox-esr", "firefox"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("there is no Firefox on this machine")
	return ""
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// heard is one thing that a client reported: the line protocol of drivers/lines.js.
type heard struct {
	Kind   string `json:"kind"`
	Event  string `json:"event"`
	ID     string `json:"id"`
	Data   string `json:"data"`
	Code   int    `json:"code"`
	Reason string `json:"reason"`
}

// field reads one field of a JSON object in Data, "" where there is none.
func (h heard) field(name string) string {
	var object map[string]any
	if json.Unmarshal([]byte(h.Data), &object) != nil || object[name] == nil {
		return ""
	}
	return fmt.Sprint(object[name])
}

// is says whether the gateway itself said this: an SSE event of that name, or a WebSocket message
// of that type.
func (h heard) is(word string) bool {
	if h.Kind == "event" {
		return h.Event == word
	}
	return h.Kind == "message" && h.field("type") == word
}

// client is one running foreign client.
type client struct {
	*process
	kind  kind
	block heard // the SSE event that curl's lines are forming
}

// open runs a client and waits until it is live on its channels: an SSE stream names them in its
// address and hears `connected`; a WebSocket subscribes and hears `subscribed` for each.
func open(t *testing.T, k kind, base, token string, channels ...string) *client {
	t.Helper()
	query := url.Values{}
	if token != "" {
		query.Set("token", token)
	}
	path := "/ws"
	if k.sse {
		path = "/api/stream"
		query["channel"] = channels
	}
	c := dial(t, k, base, path+"?"+query.Encode())
	c.await(t, "connected", func(h heard) bool { return h.is("connected") })
	if !k.sse {
		c.subscribe(t, channels...)
	}
	return c
}

// dial runs a client on a path and waits for nothing.
func dial(t *testing.T, k kind, base, path string) *client {
	t.Helper()
	command := k.command(t, base, path)
	c := &client{process: start(t, k.name, command[0], command[1:]...), kind: k}
	if k.name != curl.name && k.name != curlGzip.name {
		c.polite = 2 * time.Second // a browser is closed by its driver
	}
	if k.tellsStart() {
		c.await(t, "its own start", func(h heard) bool { return h.Kind == "started" })
	}
	return c
}

func (c *client) send(t *testing.T, text string) {
	t.Helper()
	line, err := json.Marshal(map[string]string{"send": text})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(c.input, "%s\n", line); err != nil {
		t.Fatalf("%s is gone: %v", c.name, err)
	}
}

func (c *client) subscribe(t *testing.T, channels ...string) {
	t.Helper()
	command, err := json.Marshal(map[string]any{"type": "subscribe", "channels": channels})
	if err != nil {
		t.Fatal(err)
	}
	c.send(t, string(command))
	for _, channel := range channels {
		c.await(t, "subscribed to "+channel, func(h heard) bool {
			return h.is("subscribed") && h.field("channel") == channel
		})
	}
}

// next gives the next thing that the client reports; ok is false at its end or when time is up.
func (c *client) next(limit time.Duration) (h heard, ok bool) {
	deadline := time.After(limit)
	for {
		select {
		case line, more := <-c.lines:
			if !more {
				return heard{Kind: "end"}, false
			}
			if h, whole := c.take(line); whole {
				return h, true
			}
		case <-deadline:
			return heard{Kind: "nothing"}, false
		}
	}
}

// take turns a line of the client's output into what was heard. Of one that prints the stream as it
// is, the lines are the stream's own.
func (c *client) take(line string) (heard, bool) {
	if !c.kind.printsText() {
		var h heard
		if json.Unmarshal([]byte(line), &h) != nil {
			return heard{Kind: "nonsense", Data: line}, true
		}
		return h, true
	}
	name, value, _ := strings.Cut(line, ":")
	value = strings.TrimPrefix(value, " ")
	switch name {
	case "":
		h := c.block
		c.block = heard{}
		if line != "" { // a comment
			c.block = h
			return heard{Kind: "comment", Data: value}, true
		}
		if h.Kind == "" {
			return h, false
		}
		if h.Event == "" {
			h.Event = "message"
		}
		return h, true
	case "id":
		c.block.ID = value
	case "event":
		c.block.Event = value
	case "data":
		if c.block.Kind == "event" {
			value = c.block.Data + "\n" + value
		}
		c.block.Kind, c.block.Data = "event", value
	case "retry":
		return heard{Kind: "retry", Data: value}, true
	default:
		return heard{Kind: "nonsense", Data: line}, true
	}
	return heard{}, false
}

// await reads until what is asked for is heard, and gives it. What comes before is passed over.
func (c *client) await(t *testing.T, what string, match func(heard) bool) heard {
	t.Helper()
	deadline := time.Now().Add(patience)
	var before []string
	for {
		h, ok := c.next(time.Until(deadline))
		if !ok {
			t.Fatalf("%s did not hear %s; it heard %s, then %s (%v)", c.name, what, strings.Join(before, " "), h.Kind, c.err)
		}
		if (h.Kind == "message" || h.Kind == "event") && !json.Valid([]byte(h.Data)) {
			t.Fatalf("%s heard what is no JSON: %s", c.name, h.Data)
		}
		if match(h) {
			return h
		}
		if len(before) < 50 {
			before = append(before, fmt.Sprintf("%+v", h))
		}
	}
}

// event awaits the event whose payload is exactly this text.
func (c *client) event(t *testing.T, payload string) heard {
	t.Helper()
	return c.await(t, payload, func(h heard) bool { return h.Data == payload })
}
