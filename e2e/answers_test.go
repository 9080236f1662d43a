package e2e

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ask sends raw bytes and reads one answer: what is refused is often what no HTTP client would
// send.
func ask(t *testing.T, address, request string) (*http.Response, string) {
	t.Helper()
	connection, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(patience))
	// A gateway that refuses early may close before all is sent: what it answered still counts.
	_, _ = io.WriteString(connection, request)
	method, _, _ := strings.Cut(request, " ")
	response, err := http.ReadResponse(bufio.NewReader(connection), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("no answer to %.80q: %v", request, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil && response.StatusCode >= 400 {
		t.Fatalf("reading the answer to %.80q: %v", request, err)
	}
	return response, string(body)
}

// answer is one row of a table of requests: what is sent, and what must come back.
type answer struct {
	name    string
	request string // "HOST" stands for the gateway's address, "\n" for the line's end
	status  int
	code    string // of the JSON error, "" where there is none
	header  string // "Name: value" that must be in it; "Name:" for any value
}

func checkAnswers(t *testing.T, g *gateway, answers []answer) {
	t.Helper()
	for _, row := range answers {
		t.Run(row.name, func(t *testing.T) {
			request := strings.ReplaceAll(strings.ReplaceAll(row.request, "\n", "\r\n"), "HOST", g.address)
			response, body := ask(t, g.address, request)
			if response.StatusCode != row.status {
				t.Errorf("status %d, want %d: %s", response.StatusCode, row.status, body)
			}
			if row.code != "" {
				var told struct {
					Error struct{ Code, Message string }
				}
				if err := json.Unmarshal([]byte(body), &told); err != nil || told.Error.Code != row.code || told.Error.Message == "" {
					t.Errorf("the body is %q, want the error %s with a message", body, row.code)
				}
			}
			if name, value, _ := strings.Cut(row.header, ": "); row.header != "" {
				name = strings.TrimSuffix(name, ":")
				got := response.Header.Get(name)
				if name == "Connection" && response.Close { // which the reader took out
					got = "close"
				}
				if got == "" || value != "" && !strings.Contains(got, value) {
					t.Errorf("%s is %q, want %q", name, got, value)
				}
			}
		})
	}
}

const (
	upgradeHead = "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n"
	jsonHead    = "Host: HOST\nContent-Type: application/json\n"
)

// post gives a publish request with a body of the right length.
func post(body string) string {
	return "POST /api/publish HTTP/1.1\n" + jsonHead + "Content-Length: " + strconv.Itoa(len(body)) + "\n\n" + body
}

// TestOpenAnswers: every answer of a gateway without authentication.
func TestOpenAnswers(t *testing.T) {
	t.Parallel()
	g := startGateway(t, "--max-header-bytes", "8192", "--max-event-bytes", "4096", "--handshake-timeout", "2s")
	checkAnswers(t, g, []answer{
		{"alive", "GET /healthz HTTP/1.1\nHost: HOST\n\n", 200, "", ""},
		{"ready", "GET /readyz HTTP/1.1\nHost: HOST\n\n", 200, "", ""},
		{"ready without Redis configured", "GET /readyz?redis HTTP/1.1\nHost: HOST\n\n", 200, "", ""},
		{"stats", "GET /api/realtime/stats HTTP/1.1\nHost: HOST\n\n", 200, "", "Content-Type: application/json"},
		{"metrics", "GET /metrics HTTP/1.1\nHost: HOST\n\n", 200, "", "Content-Type: text/plain"},
		{"the page", "GET / HTTP/1.1\nHost: HOST\n\n", 200, "", "Content-Security-Policy:"},
		{"published", post(`{"channel":"job_progress:1","event":{"n":1}}`), 200, "", "Content-Type: application/json"},
		{"published many", post(`[{"channel":"a:1","event":1},{"channel":"b:2","event":2}]`), 200, "", ""},

		{"400 no channel", "GET /api/stream HTTP/1.1\nHost: HOST\n\n", 400, "bad_request", ""},
		{"400 bad channel", "GET /api/stream?channel=no-colon HTTP/1.1\nHost: HOST\n\n", 400, "bad_channel", ""},
		{"400 reserved type", "GET /api/stream?channel=__millrace:1 HTTP/1.1\nHost: HOST\n\n", 400, "bad_channel", ""},
		{"400 pattern", "GET /api/stream?channel=job_progress:%5Ba-z%5D HTTP/1.1\nHost: HOST\n\n", 400, "bad_channel", ""},
		{"400 publish without a channel", post(`{"event":1}`), 400, "bad_channel", ""},
		{"400 publish without an event", post(`{"channel":"a:1"}`), 400, "bad_request", ""},
		{"400 publish of no JSON", post(`{"channel":"a:1","event":{]}`), 400, "bad_request", ""},
		{"400 publish of a bad channel", post(`{"channel":"a b:1","event":1}`), 400, "bad_channel", ""},
		{"400 publish, one of two bad", post(`[{"channel":"a:1","event":1},{"channel":"b","event":2}]`), 400, "bad_channel", ""},
		{"400 bare CR in a header", "GET / HTTP/1.1\nHost: HOST\nX-A: a\rb\n\n", 400, "bad_request", "Connection: close"},
		{"400 two hosts", "GET / HTTP/1.1\nHost: HOST\nHost: HOST\n\n", 400, "bad_request", ""},
		{"400 no host", "GET / HTTP/1.1\n\n", 400, "bad_request", ""},
		{"400 two lengths", "POST /api/publish HTTP/1.1\n" + jsonHead + "Content-Length: 1\nContent-Length: 2\n\n{}", 400, "bad_request", ""},
		{"400 length and chunks", "POST /api/publish HTTP/1.1\n" + jsonHead + "Content-Length: 5\nTransfer-Encoding: chunked\n\n0\n\n", 400, "bad_request", ""},
		{"400 no HTTP", "\x16\x03\x01\x02\n\n\n\n", 400, "", ""},
		{"400 bad key", "GET /ws HTTP/1.1\nHost: HOST\n" + strings.Replace(upgradeHead, "dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", 1) + "\n", 400, "bad_request", ""},

		{"403 foreign origin, WebSocket", "GET /ws HTTP/1.1\nHost: HOST\nOrigin: https://evil.example\n" + upgradeHead + "\n", 403, "bad_origin", ""},
		{"403 foreign origin, SSE", "GET /api/stream?channel=a:1 HTTP/1.1\nHost: HOST\nOrigin: https://evil.example\n\n", 403, "bad_origin", ""},
		{"403 null origin", "GET /api/stream?channel=a:1 HTTP/1.1\nHost: HOST\nOrigin: null\n\n", 403, "bad_origin", ""},
		{"403 foreign host", "GET /api/stream?channel=a:1 HTTP/1.1\nHost: evil.example\n\n", 403, "", ""},

		{"404", "GET /api/none HTTP/1.1\nHost: HOST\n\n", 404, "not_found", ""},
		{"405 publish", "GET /api/publish HTTP/1.1\nHost: HOST\n\n", 405, "method_not_allowed", "Allow: POST"},
		{"405 stream", "DELETE /api/stream?channel=a:1 HTTP/1.1\nHost: HOST\n\n", 405, "method_not_allowed", "Allow: GET"},
		{"405 WebSocket", "POST /ws HTTP/1.1\nHost: HOST\nContent-Length: 0\n" + upgradeHead + "\n", 405, "method_not_allowed", "Allow: GET"},
		{"408", "GET / HTTP/1.1\nHost: HO", 408, "", ""},
		{"413", post(`{"channel":"a:1","event":"` + strings.Repeat("a", 4096) + `"}`), 413, "", ""},
		{"414", "GET /api/stream?channel=" + strings.Repeat("a", 20_000) + " HTTP/1.1\nHost: HOST\n\n", 414, "", ""},
		{"415", "POST /api/publish HTTP/1.1\nHost: HOST\nContent-Type: text/plain\nContent-Length: 2\n\n{}", 415, "", ""},
		{"426 no upgrade", "GET /ws HTTP/1.1\nHost: HOST\n\n", 426, "", "Upgrade: websocket"},
		{"426 old version", "GET /ws HTTP/1.1\nHost: HOST\n" + strings.Replace(upgradeHead, "13", "8", 1) + "\n", 426, "", "Sec-WebSocket-Version: 13"},
		{"431", "GET / HTTP/1.1\nHost: HOST\nX-Long: " + strings.Repeat("a", 20_000) + "\n\n", 431, "", "Connection: close"},
		{"505", "GET / HTTP/2.0\nHost: HOST\n\n", 505, "", ""},

		{"413 too many events", post("[" + strings.Repeat(`{"channel":"a:1","event":1},`, 1000) + `{"channel":"a:1","event":1}]`), 413, "too_large", ""},
		{"400 an empty list", post("[]"), 400, "bad_request", ""},
		{"403 through a proxy", "GET /api/stream?channel=a:1 HTTP/1.1\nHost: HOST\nX-Forwarded-For: 10.0.0.1\n\n", 403, "", ""},
		{"a path that climbs", "GET /page/../metrics HTTP/1.1\nHost: HOST\n\n", 400, "", ""},
		{"HEAD of health", "HEAD /healthz HTTP/1.1\nHost: HOST\n\n", 200, "", ""},
		{"OPTIONS of the stream", "OPTIONS /api/stream HTTP/1.1\nHost: HOST\n\n", 204, "", "Allow: GET"},
		{"HEAD of the page", "HEAD / HTTP/1.1\nHost: HOST\n\n", 200, "", "Content-Type: text/html"},
		{"HEAD of stats", "HEAD /api/realtime/stats HTTP/1.1\nHost: HOST\n\n", 200, "", "Content-Type: application/json"},
		{"OPTIONS", "OPTIONS /api/publish HTTP/1.1\nHost: HOST\n\n", 204, "", "Allow: POST"},
	})
}

// TestGuardedAnswers: what authentication, origins and limits add.
func TestGuardedAnswers(t *testing.T) {
	t.Parallel()
	g := startGateway(t, "--auth-hmac-secret", secret, "--allowed-origins", "https://app.example",
		"--max-connections-per-user", "2")
	listener, speaker := token(t, "--sub", "456"), token(t, "--sub", "456", "--publish", "job_progress:*")
	admin := token(t, "--sub", "789", "--admin")
	bearer := func(token string) string { return "Authorization: Bearer " + token + "\n" }
	publish := func(token, body string) string {
		return strings.Replace(post(body), "\n", "\n"+bearer(token), 1)
	}
	stream := "GET /api/stream?channel=job_progress:1 HTTP/1.1\nHost: HOST\n"
	preflight := "OPTIONS /api/publish HTTP/1.1\nHost: HOST\nAccess-Control-Request-Method: POST\nAccess-Control-Request-Headers: authorization, content-type\nOrigin: "
	checkAnswers(t, g, []answer{
		{"401 no token", stream + "\n", 401, "unauthorized", ""},
		{"401 bad token", stream + bearer("rubbish") + "\n", 401, "unauthorized", ""},
		{"401 publish without a token", post(`{"channel":"job_progress:1","event":1}`), 401, "unauthorized", ""},
		{"403 another's channel", "GET /api/stream?channel=alerts:999 HTTP/1.1\nHost: HOST\n" + bearer(listener) + "\n", 403, "access_denied", ""},
		{"403 unknown type", "GET /api/stream?channel=secret:1 HTTP/1.1\nHost: HOST\n" + bearer(listener) + "\n", 403, "access_denied", ""},
		{"403 no right to publish", publish(listener, `{"channel":"job_progress:1","event":1}`), 403, "access_denied", ""},
		{"403 publish elsewhere", publish(speaker, `{"channel":"alerts:456","event":1}`), 403, "access_denied", ""},
		{"published", publish(speaker, `{"channel":"job_progress:1","event":1}`), 200, "", ""},
		{"403 foreign origin", stream + bearer(listener) + "Origin: https://app.example.evil.example\n\n", 403, "bad_origin", ""},
		{"403 cookie without an origin", stream + "Cookie: millrace_token=" + listener + "\n\n", 403, "bad_origin", ""},
		{"400 two tokens that differ", strings.Replace(stream, "job_progress:1", "job_progress:1&token="+speaker, 1) + bearer(listener) + "\n", 400, "bad_request", ""},
		{"403 metrics through a proxy", "GET /metrics HTTP/1.1\nHost: HOST\nX-Forwarded-For: 10.0.0.1\n\n", 403, "", ""},
		{"403 profiles through a proxy", "GET /debug/pprof/ HTTP/1.1\nHost: HOST\nForwarded: for=10.0.0.1\n\n", 403, "", ""},
		{"metrics with an admin's token", "GET /metrics HTTP/1.1\nHost: HOST\nX-Forwarded-For: 10.0.0.1\n" + bearer(admin) + "\n", 200, "", "Content-Type: text/plain"},
		{"preflight", preflight + "https://app.example\n\n", 204, "", "Access-Control-Allow-Origin: https://app.example"},
		{"preflight names the headers", preflight + "https://app.example\n\n", 204, "", "Access-Control-Allow-Headers: Authorization"},
		{"preflight varies", preflight + "https://app.example\n\n", 204, "", "Vary: Origin"},
	})

	t.Run("foreign preflight is not allowed", func(t *testing.T) {
		request := strings.ReplaceAll(strings.ReplaceAll(preflight+"https://evil.example\n\n", "\n", "\r\n"), "HOST", g.address)
		response, _ := ask(t, g.address, request)
		if got := response.Header.Get("Access-Control-Allow-Origin"); got != "" {
			t.Errorf("a foreign origin is allowed: %q", got)
		}
	})
	t.Run("429 too many connections of one user", func(t *testing.T) {
		for range 2 {
			open(t, npmWS, "http://"+g.address, listener, "job_progress:1")
		}
		checkAnswers(t, g, []answer{
			{"429", stream + bearer(listener) + "\n", 429, "too_many_connections", "Retry-After:"},
		})
	})
}

// TestOverloaded: a gateway that is full says so, and to each wire in the words that it obeys.
func TestOverloaded(t *testing.T) {
	t.Parallel()
	g := startGateway(t, "--max-connections", "1")
	open(t, npmWS, "http://"+g.address, "", "job_progress:1")
	checkAnswers(t, g, []answer{
		{"503 WebSocket", "GET /ws HTTP/1.1\nHost: HOST\n" + upgradeHead + "\n", 503, "overloaded", "Retry-After:"},
	})
	t.Run("SSE is sent away in its own words", func(t *testing.T) {
		wantSentAway(t, g.address)
	})
}

// wantSentAway asks for a stream and wants 200, a retry time and the end: a browser's
// EventSource would never come back after any other status.
func wantSentAway(t *testing.T, address string) {
	t.Helper()
	response, body := ask(t, address, "GET /api/stream?channel=job_progress:1 HTTP/1.1\r\nHost: "+address+"\r\n\r\n")
	if response.StatusCode != 200 || !strings.HasPrefix(response.Header.Get("Content-Type"), "text/event-stream") {
		t.Errorf("the answer is %d %q, want 200 and an event stream", response.StatusCode, response.Header.Get("Content-Type"))
	}
	var retry int
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, "retry: "); ok {
			retry, _ = strconv.Atoi(strings.TrimSpace(value))
		}
		if strings.HasPrefix(line, "event: connected") {
			t.Error("the stream says connected, and is none")
		}
	}
	if retry < 500 || retry > 60_000 {
		t.Errorf("retry is %d ms in %q, want a jittered few seconds", retry, body)
	}
}

// TestOldHTTP: HTTP/1.0 has no chunks; its stream is ended by the connection's end.
func TestOldHTTP(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	connection, err := net.Dial("tcp", g.address)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(connection, "GET /api/stream?channel=job_progress:1 HTTP/1.0\r\nHost: "+g.address+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(connection)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != 200 || len(response.TransferEncoding) > 0 || !response.Close {
		t.Fatalf("the answer is %d, transfer encoding %v, close %v: want 200, none, true", response.StatusCode, response.TransferEncoding, response.Close)
	}
	lines := bufio.NewScanner(response.Body)
	want := `data: {"old":"but live"}`
	for lines.Scan() {
		switch {
		case lines.Text() == "event: connected":
			g.publish(t, "", "job_progress:1", `{"old":"but live"}`)
		case lines.Text() == want:
			return
		}
	}
	t.Fatalf("the stream ended before the event: %v", lines.Err())
}
