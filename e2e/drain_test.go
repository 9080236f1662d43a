package e2e

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/redistest"
)

// TestDrain: at SIGTERM every stream is told in its own words that it should come back, nothing
// that was published before is lost, and the process ends in time with 0.
func TestDrain(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	g := startGateway(t, "--redis", redis.URL(), "--drain-timeout", "10s")
	base := "http://" + g.address
	clients := make(map[string]*client)
	for _, k := range foreign {
		clients[k.name] = open(t, k, base, "", "job_progress:1")
	}
	stubborn := upgrade(t, g.address) // never answers the close
	payload := `{"type":"job_progress","last":"words"}`
	redis.CLI(t, "PUBLISH", "job_progress:1", payload)
	for _, c := range clients {
		c.event(t, payload)
	}

	g.signal(syscall.SIGTERM)
	for _, k := range []kind{npmWS, pythonWS, browserWS} {
		h := clients[k.name].await(t, "the close", func(h heard) bool { return h.Kind == "close" })
		if h.Code != 1012 {
			t.Errorf("%s was closed with %d %q, want 1012", k.name, h.Code, h.Reason)
		}
	}
	stream := clients[curl.name]
	stream.await(t, "a retry time", func(h heard) bool { return h.Kind == "retry" })
	if code := stream.wait(t, patience); code != 0 {
		t.Errorf("curl ended with %d, want 0: a stream ends in order, with its last chunk (%s)", code, stream.complaints())
	}
	// A browser that was sent away in order comes back by itself, and not as closed for good.
	h := clients[eventSource.name].await(t, "the end", func(h heard) bool { return h.Kind == "error" })
	if h.Reason != "connecting" {
		t.Errorf("EventSource is %s after the drain, want connecting", h.Reason)
	}
	if code := g.wait(t, 12*time.Second); code != 0 {
		t.Errorf("the gateway ended with %d, want 0", code)
	}
	if code := stubborn.closed(t); code != 1012 {
		t.Errorf("the stubborn socket was closed with %d, want 1012", code)
	}
}

// TestAnswersWhileDraining finishes requests that were begun before the drain: new connections are
// refused, but what is in somebody's hands is still answered, in words that say what is going on.
func TestAnswersWhileDraining(t *testing.T) {
	t.Parallel()
	g := startGateway(t, "--drain-timeout", "10s")
	ready := halfAsked(t, g.address, "/readyz")
	alive := halfAsked(t, g.address, "/healthz")
	stream := halfAsked(t, g.address, "/api/stream?channel=job_progress:1")
	g.signal(syscall.SIGTERM)
	within(t, patience, "new connections are refused", func() bool { return g.status("/healthz") == 0 })

	response, body := ready()
	if response.StatusCode != 503 || !strings.Contains(body, "draining") || response.Header.Get("Retry-After") == "" {
		t.Errorf("/readyz says %d %q, want 503, draining and Retry-After", response.StatusCode, body)
	}
	if response, _ := alive(); response.StatusCode != 200 {
		t.Errorf("/healthz says %d while draining, want 200: the process is alive", response.StatusCode)
	}
	response, body = stream()
	if response.StatusCode != 200 || !strings.Contains(body, "retry:") || strings.Contains(body, "connected") {
		t.Errorf("SSE while draining got %d %q, want 200, a retry time and the end", response.StatusCode, body)
	}
	if code := g.wait(t, 12*time.Second); code != 0 {
		t.Errorf("the gateway ended with %d, want 0", code)
	}
}

// halfAsked sends the first half of a request, and gives a function that sends the rest.
func halfAsked(t *testing.T, address, path string) func() (*http.Response, string) {
	t.Helper()
	connection, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	_ = connection.SetDeadline(time.Now().Add(2 * patience))
	if _, err := io.WriteString(connection, "GET "+path+" HTTP/1.1\r\nHo"); err != nil {
		t.Fatal(err)
	}
	return func() (*http.Response, string) {
		t.Helper()
		if _, err := io.WriteString(connection, "st: "+address+"\r\n\r\n"); err != nil {
			t.Fatalf("asking %s: %v", path, err)
		}
		response, err := http.ReadResponse(bufio.NewReader(connection), nil)
		if err != nil {
			t.Fatalf("asking %s: %v", path, err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatalf("reading the answer to %s: %v", path, err)
		}
		return response, string(body)
	}
}

// TestSecondSignal: who asks twice does not want to wait.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	g := startGateway(t, "--drain-timeout", "10m")
	upgrade(t, g.address)
	g.signal(syscall.SIGTERM)
	within(t, patience, "the listener is closed", func() bool { return g.status("/healthz") == 0 })
	g.signal(syscall.SIGTERM)
	g.wait(t, patience)
}
