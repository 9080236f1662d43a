package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/internal/redistest"
)

// patience is how long a test waits for what must come; it is only ever used up by a failure.
const patience = time.Minute

// house is a gateway that serves for one test.
type house struct {
	*gateway.Gateway
	address string
	cancel  context.CancelFunc
	ended   chan struct{} // closed when Run has returned, with err set
	err     error
}

// serve starts a gateway on a free port and stops it, drained, when the test ends.
func serve(t testing.TB, options gateway.Options) *house {
	t.Helper()
	return serveWith(t, options, gateway.Timings{})
}

func serveWith(t testing.TB, options gateway.Options, timings gateway.Timings) *house {
	t.Helper()
	g, err := gateway.NewWithTimings(completed(options), timings)
	if err != nil {
		t.Fatal(err)
	}
	return run(t, g)
}

// completed gives options what every house of a test has.
func completed(options gateway.Options) gateway.Options {
	if options.Listen == "" {
		options.Listen = "127.0.0.1:0"
	}
	if options.Loops == 0 {
		options.Loops = 2 // whatever the machine has: what crosses loops must be seen everywhere
	}
	if options.Logger == nil {
		options.Logger = slog.New(&kept)
	}
	return options
}

// run has a gateway serve until the test ends.
func run(t testing.TB, g *gateway.Gateway) *house {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	h := &house{Gateway: g, address: g.Addr().String(), cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(h.ended)
		h.err = g.Run(ctx)
	}()
	t.Cleanup(func() { h.stop(t) })
	return h
}

// serveRedis is serve with a Redis of the test's own; it returns when events are delivered.
func serveRedis(t testing.TB, options gateway.Options, timings gateway.Timings) (*house, *redistest.Server) {
	t.Helper()
	redis := redistest.Start(t)
	options.Redis = redis.URL()
	h := serveWith(t, options, timings)
	h.awaitDelivery(t)
	return h, redis
}

func (h *house) awaitDelivery(t testing.TB) {
	t.Helper()
	within(t, patience, "Redis delivers", func() bool { return h.stats(t).Broker.Delivering })
}

// stop drains the gateway and waits for its orderly end. It may be called twice.
func (h *house) stop(t testing.TB) {
	t.Helper()
	h.cancel()
	select {
	case <-h.ended:
		if h.err != nil {
			t.Errorf("Run ended with %v", h.err)
		}
	case <-time.After(2 * patience):
		t.Errorf("Run has not returned %v after its context was done", 2*patience)
	}
}

func (h *house) stats(t testing.TB) gateway.Stats {
	t.Helper()
	stats, err := h.Stats(context.Background())
	if err != nil {
		t.Fatalf("no statistics: %v", err)
	}
	return stats
}

// publish publishes one event by the library, and wants it taken.
func (h *house) publish(t testing.TB, channel, payload string) gateway.PublishResult {
	t.Helper()
	result, err := h.Publish(context.Background(), gateway.Event{Channel: channel, Data: []byte(payload)})
	if err != nil {
		t.Fatalf("publishing on %s: %v", channel, err)
	}
	return result
}

// answer is what came back to a request.
type answer struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body: nil where it ended in order
}

// code is the code of a JSON error; it fails the test where there is none, or no message.
func (a answer) code(t testing.TB) string {
	t.Helper()
	var told struct {
		Error struct{ Code, Message string }
	}
	if err := json.Unmarshal([]byte(a.body), &told); err != nil || told.Error.Message == "" {
		t.Errorf("the body is %.200q, want a JSON error with a message", a.body)
	}
	return told.Error.Code
}

// raw gives a request as it goes over the wire: "\n" becomes CR LF and HOST the gateway's address.
func (h *house) raw(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "\n", "\r\n"), "HOST", h.address)
}

// ask sends a request as raw bytes, which may be what no HTTP client would send, and reads one
// answer.
func (h *house) ask(t testing.TB, text string) answer {
	t.Helper()
	return askAt(t, h.address, h.raw(text))
}

func askAt(t testing.TB, address, request string) answer {
	t.Helper()
	conn := dial(t, address)
	defer conn.Close()
	return exchange(t, conn, request)
}

func dial(t testing.TB, address string) *net.TCPConn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.TCPConn)
}

// exchange sends a request on conn and reads one answer.
func exchange(t testing.TB, conn net.Conn, request string) answer {
	t.Helper()
	// Who refuses early may close before all is sent: what was answered still counts.
	_, _ = io.WriteString(conn, request)
	method, _, _ := strings.Cut(request, " ")
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("no answer to %.80q: %v", request, err)
	}
	if response.Close { // net/http takes it out of the header
		response.Header.Set("Connection", "close")
	}
	body, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(body), err}
}

// get is a whole GET request; header lines come without their line ends.
func get(target string, header ...string) string { return request("GET", target, header...) }

func request(method, target string, header ...string) string {
	lines := append([]string{method + " " + target + " HTTP/1.1", "Host: HOST"}, header...)
	return strings.Join(lines, "\n") + "\n\n"
}

// post is a whole publish request.
func post(body string, header ...string) string {
	header = append(header, "Content-Type: application/json", "Content-Length: "+strconv.Itoa(len(body)))
	return request("POST", "/api/publish", header...) + body
}

// upgrade is the head of a WebSocket handshake.
var upgrade = []string{
	"Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
}

func handshake(target string, header ...string) string {
	return get(target, append(append([]string(nil), upgrade...), header...)...)
}

func bearer(token string) string { return "Authorization: Bearer " + token }

// row is a request and the answer that it must get.
type row struct {
	name    string
	request string
	status  int
	code    string // of the JSON error; "" where there is none to look at
	header  string // "Name: text" that the answer must hold; "Name:" any value
}

func (h *house) check(t *testing.T, rows []row) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			answer := h.ask(t, row.request)
			if answer.status != row.status {
				t.Errorf("status %d, want %d: %.200s", answer.status, row.status, answer.body)
			}
			if row.code != "" {
				if code := answer.code(t); code != row.code {
					t.Errorf("code %q, want %q", code, row.code)
				}
			}
			name, value, _ := strings.Cut(row.header, ":")
			value = strings.TrimSpace(value)
			if got := strings.Join(answer.header.Values(name), ", "); name != "" && (got == "" || !strings.Contains(got, value)) {
				t.Errorf("%s is %q, want %q in it", name, got, value)
			}
		})
	}
}

// together runs work for each index on a goroutine of its own and waits for all.
func together(count int, work func(index int)) {
	var all sync.WaitGroup
	for index := range count {
		all.Go(func() { work(index) })
	}
	all.Wait()
}
