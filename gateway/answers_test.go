package gateway_test

import (
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/gateway/auth"
)

// TestAnswers: every answer of a gateway without authentication.
func TestAnswers(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Limits: gateway.Limits{
		MaxHeaderBytes: 8 << 10, MaxEventBytes: 4 << 10, MaxSubscriptions: 3, HandshakeTimeout: 2 * time.Second,
	}})
	key := func(version, key string) string {
		return get("/ws", "Upgrade: websocket", "Connection: keep-alive, Upgrade", "Sec-WebSocket-Version: "+version, "Sec-WebSocket-Key: "+key)
	}
	h.check(t, []row{
		{"alive", get("/healthz"), 200, "", "Content-Type: application/json"},
		{"ready", get("/readyz"), 200, "", ""},
		{"ready with a memory broker", get("/readyz?redis"), 200, "", ""},
		{"stats", get("/api/realtime/stats"), 200, "", "Cache-Control: no-store"},
		{"the page", get("/"), 200, "", "Content-Type: text/html"},
		{"published", post(`{"channel":"job_progress:1","event":{"n":1}}`), 200, "", "Content-Type: application/json"},
		{"finished stream by header", get("/api/stream?channel=a:1", "Last-Event-ID: abc/end"), 204, "", ""},
		{"finished stream by query", get("/api/stream?channel=a:1&lastEventId=abc/end"), 204, "", ""},
		{"handshake with two connection options", key("13", "dGhlIHNhbXBsZSBub25jZQ=="), 101, "", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="},

		{"400 no channel", get("/api/stream"), 400, "bad_request", ""},
		{"400 too many channels", get("/api/stream?channel=a:1&channel=a:2&channel=a:3&channel=a:4"), 400, "bad_request", ""},
		{"400 channel without a colon", get("/api/stream?channel=plain"), 400, "bad_channel", ""},
		{"400 channel with four parts", get("/api/stream?channel=a:b:c:d"), 400, "bad_channel", ""},
		{"400 channel of a reserved type", get("/api/stream?channel=__millrace:1"), 400, "bad_channel", ""},
		{"400 channel with a pattern", get("/api/stream?channel=a:%5Ba-z%5D"), 400, "bad_channel", ""},
		{"400 channel with a line end", get("/api/stream?channel=a:1%0D%0AX"), 400, "bad_channel", ""},
		{"400 channel that is too long", get("/api/stream?channel=a:" + strings.Repeat("x", 129)), 400, "bad_channel", ""},
		{"400 wildcard of a namespace without", get("/api/stream?channel=a:*"), 400, "bad_channel", ""},
		{"400 broken escape", get("/api/stream?channel=a:1;b=2&channel=%41:1;"), 400, "bad_request", ""},
		{"400 unknown format", handshake("/ws?format=xml"), 400, "bad_request", ""},
		{"400 user with a control character", get("/api/stream?channel=a:1&userId=a%0Ab"), 400, "bad_request", ""},
		{"400 key that is no base64 of 16 bytes", key("13", "c2hvcnQ="), 400, "bad_request", ""},
		{"400 key of 24 other characters", key("13", strings.Repeat("*", 24)), 400, "bad_request", ""},
		{"400 two hosts", "GET / HTTP/1.1\nHost: HOST\nHost: HOST\n\n", 400, "bad_request", "Connection: close"},
		{"400 no host", "GET / HTTP/1.1\n\n", 400, "bad_request", ""},
		{"400 two origins", get("/healthz", "Origin: http://HOST", "Origin: http://HOST"), 400, "bad_request", ""},
		{"400 both lengths", request("POST", "/api/publish", "Content-Length: 5", "Transfer-Encoding: chunked") + "0\n\n", 400, "bad_request", ""},
		{"400 TLS", "\x16\x03\x01\x02\x00\x01\x00\x01", 400, "bad_request", ""},
		{"400 HTTP/2", "PRI * HTTP/2.0\n\nSM\n\n", 400, "bad_request", ""},

		{"404", get("/api/none"), 404, "not_found", ""},
		{"404 below a route", get("/api/stream/more?channel=a:1"), 404, "not_found", ""},
		{"404 HEAD", request("HEAD", "/api/none"), 404, "", ""},
		{"405 publish", get("/api/publish"), 405, "method_not_allowed", "Allow: POST, OPTIONS"},
		{"405 stream", request("POST", "/api/stream?channel=a:1", "Content-Length: 0"), 405, "method_not_allowed", "Allow: GET, HEAD, OPTIONS"},
		{"405 WebSocket", request("POST", "/ws", append([]string{"Content-Length: 0"}, upgrade...)...), 405, "method_not_allowed", "Allow: GET"},
		{"405 stats", request("DELETE", "/api/realtime/stats"), 405, "method_not_allowed", "Allow: GET"},
		{"405 the page", request("PUT", "/", "Content-Length: 0"), 405, "method_not_allowed", "Allow: GET"},
		{"408", "GET /healthz HTTP/1.1\nHost: HO", 408, "request_timeout", "Connection: close"},
		{"413 event", post(`{"channel":"a:1","event":"` + strings.Repeat("x", 4<<10) + `"}`), 413, "too_large", ""},
		{"413 body", request("POST", "/api/publish", "Content-Type: application/json", "Content-Length: 99999999"), 413, "body_too_large", ""},
		{"414", get("/api/stream?channel=" + strings.Repeat("x", 20_000)), 414, "uri_too_long", ""},
		{"415 form", request("POST", "/api/publish", "Content-Type: text/plain", "Content-Length: 2") + "{}", 415, "unsupported_media_type", ""},
		{"415 nothing said", request("POST", "/api/publish", "Content-Length: 2") + "{}", 415, "unsupported_media_type", ""},
		{"417", request("POST", "/api/publish", "Expect: miracles", "Content-Length: 2") + "{}", 417, "", ""},
		{"426 no upgrade", get("/ws"), 426, "upgrade_required", "Upgrade: websocket"},
		{"426 no upgrade names the version", get("/ws"), 426, "upgrade_required", "Sec-WebSocket-Version: 13"},
		{"426 an older version", key("8", "dGhlIHNhbXBsZSBub25jZQ=="), 426, "upgrade_required", "Sec-WebSocket-Version: 13"},
		{"426 a version of the future", key("14", "dGhlIHNhbXBsZSBub25jZQ=="), 426, "upgrade_required", "Sec-WebSocket-Version: 13"},
		{"431 long", get("/", "X-Long: "+strings.Repeat("x", 20_000)), 431, "headers_too_large", "Connection: close"},
		{"431 many", get("/", strings.Split(strings.Repeat("X-A: 1|", 200)+"X-B: 2", "|")...), 431, "headers_too_large", ""},
		{"505", "GET / HTTP/3.0\nHost: HOST\n\n", 505, "version_not_supported", ""},
		{"505 WebSocket on HTTP/1.0", strings.Replace(handshake("/ws"), "HTTP/1.1", "HTTP/1.0", 1), 505, "version_unsupported", ""},
	})
}

// TestGuardedAnswers: what authentication adds.
func TestGuardedAnswers(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{
		Auth:           gateway.AuthOptions{HMACSecret: secret},
		AllowedOrigins: []string{"https://app.example"},
	})
	listener := mintFor(t, "456")
	speaker := mint(t, auth.MintClaims{User: "456", Publish: []string{"job_progress:*"}})
	expired := mint(t, auth.MintClaims{User: "456", TTL: time.Minute, Now: time.Now().Add(-time.Hour)})
	one := "/api/stream?channel=job_progress:1"
	event := `{"channel":"job_progress:1","event":1}`
	h.check(t, []row{
		{"401 no token", get(one), 401, "unauthorized", "WWW-Authenticate: Bearer"},
		{"401 rubbish", get(one, bearer("rubbish")), 401, "unauthorized", ""},
		{"401 expired", get(one, bearer(expired)), 401, "unauthorized", ""},
		{"401 another's signature", get(one, bearer(listener[:len(listener)-6]+"AAAAAA")), 401, "unauthorized", ""},
		{"401 a bad token where none is needed", get("/api/realtime/stats", bearer("rubbish")), 401, "unauthorized", ""},
		{"401 publish", post(event), 401, "unauthorized", ""},
		{"400 two tokens", get(one+"&token="+speaker, bearer(listener)), 400, "bad_request", ""},
		{"403 another's channel", get("/api/stream?channel=alerts:457", bearer(listener)), 403, "access_denied", ""},
		{"403 one channel of two", get(one+"&channel=alerts:457", bearer(listener)), 403, "access_denied", ""},
		{"403 a type that nobody configured", get("/api/stream?channel=secret:1", bearer(listener)), 403, "access_denied", ""},
		{"403 a channel named by Last-Event-ID", get(one, bearer(listener), "Last-Event-ID: alerts:457/abcdefgh.12"), 403, "access_denied", ""},
		{"403 publish", post(event, bearer(listener)), 403, "access_denied", ""},
		{"403 publish elsewhere", post(`{"channel":"alerts:456","event":1}`, bearer(speaker)), 403, "access_denied", ""},
		{"403 publish, one of two", post(`[`+event+`,{"channel":"alerts:456","event":1}]`, bearer(speaker)), 403, "access_denied", ""},
		{"403 foreign origin", get(one, bearer(listener), "Origin: https://app.example.evil.example"), 403, "bad_origin", ""},
		{"403 null origin", get(one, bearer(listener), "Origin: null"), 403, "bad_origin", ""},
		{"403 allowed origin, other port", get(one, bearer(listener), "Origin: https://app.example:8443"), 403, "bad_origin", ""},
		{"403 allowed origin, other scheme", get(one, bearer(listener), "Origin: http://app.example"), 403, "bad_origin", ""},
		{"403 foreign origin of a WebSocket", handshake("/ws", bearer(listener), "Origin: https://evil.example"), 403, "bad_origin", ""},
		{"403 cookie without an origin", get(one, "Cookie: millrace_token="+listener), 403, "bad_origin", ""},
		{"403 cookie from elsewhere", get(one, "Cookie: millrace_token="+listener, "Sec-Fetch-Site: same-site"), 403, "bad_origin", ""},
		{"403 cookie of a WebSocket without an origin", handshake("/ws", "Cookie: millrace_token="+listener), 403, "bad_origin", ""},
		{"published", post(event, bearer(speaker)), 200, "", ""},
		{"an error that the page may read", get(one, "Origin: https://app.example"), 401, "unauthorized", "Access-Control-Allow-Origin: https://app.example"},
		{"an error of ws that the page may read", get("/ws", "Origin: https://app.example"), 426, "", "Access-Control-Allow-Origin: https://app.example"},
		{"HEAD of a stream that the page may read", request("HEAD", one, "Origin: https://app.example", bearer(listener)), 200, "", "Access-Control-Allow-Origin: https://app.example"},
		{"the end of a stream that the page may read", get(one, "Origin: https://app.example", "Last-Event-ID: abc/end", bearer(listener)), 204, "", "Access-Control-Allow-Origin: https://app.example"},
	})
	t.Run("one word for every bad token", func(t *testing.T) {
		want := h.ask(t, get(one, bearer("rubbish"))).body
		for _, token := range []string{expired, listener + "x", "a.b.c"} {
			if got := h.ask(t, get(one, bearer(token))).body; got != want {
				t.Errorf("this token is told %q, another one %q", got, want)
			}
		}
	})
}

// TestTooManyConnections: 429 for one user, and for one address behind a trusted proxy.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{
		InsecureNoAuth: true, TrustedProxies: []string{"127.0.0.0/8"},
		Limits: gateway.Limits{MaxConnectionsPerUser: 2, MaxConnectionsPerAddress: 2},
	})
	one := "/api/stream?channel=job_progress:1"
	open := func(w wire, query string, header ...string) *stream {
		return h.open(t, w, visit{channels: []string{"job_progress:1"}, query: query, header: header})
	}
	mine, _ := open(sse, "userId=1"), open(raw, "userId=1")
	open(enveloped, "", "X-Forwarded-For: 198.51.100.1, 203.0.113.5")
	open(sse10, "", "X-Forwarded-For: 203.0.113.5")
	open(raw, "", "X-Forwarded-For: 2001:db8:1:2::1")
	open(sse, "", "X-Forwarded-For: 2001:db8:1:2:ffff::2")
	h.check(t, []row{
		{"429 user", get(one + "&userId=1"), 429, "too_many_connections", "Retry-After:"},
		{"429 user, WebSocket", handshake("/ws?userId=1"), 429, "too_many_connections", "Retry-After:"},
		{"429 address", get(one, "X-Forwarded-For: 203.0.113.5"), 429, "too_many_connections", "Retry-After:"},
		{"429 address, WebSocket", handshake("/ws", "X-Forwarded-For: 203.0.113.5"), 429, "too_many_connections", "Retry-After:"},
		{"429 address, with a hop made up", get(one, "X-Forwarded-For: 192.0.2.7, 203.0.113.5"), 429, "too_many_connections", ""},
		{"429 another address of the same /64", get(one, "X-Forwarded-For: 2001:db8:1:2:3::9"), 429, "too_many_connections", ""},
	})
	open(sse, "userId=2")
	open(sse, "", "X-Forwarded-For: 203.0.113.6")
	open(sse, "", "X-Forwarded-For: 2001:db8:1:3::1")
	for range 3 {
		open(sse, "") // loopback peers are not counted by address
	}
	mine.conn.Close()
	within(t, patience, "the place is free again", func() bool {
		return h.ask(t, request("HEAD", one+"&userId=1")).status == 200 && opens(t, h, one+"&userId=1")
	})
}

// opens tells whether a stream can be had; it is closed again.
func opens(t *testing.T, h *house, target string) bool {
	t.Helper()
	conn := dial(t, h.address)
	defer conn.Close()
	if _, err := conn.Write([]byte(h.raw(get(target)))); err != nil {
		t.Fatal(err)
	}
	return hear(t, sse, conn).response.StatusCode == 200
}

// TestUntrustedProxy: whoever is not a trusted proxy cannot say that it is somebody else.
func TestUntrustedProxy(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{InsecureNoAuth: true, Limits: gateway.Limits{MaxConnectionsPerAddress: 1}})
	for range 3 { // loopback, whatever it claims
		h.open(t, sse, visit{channels: []string{"a:1"}, header: []string{"X-Forwarded-For: 203.0.113.5"}})
	}
}

// TestOverloaded: a gateway that is full says so, to each wire in the words that it obeys.
func TestOverloaded(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Limits: gateway.Limits{MaxConnections: 1}})
	only := h.open(t, raw, visit{})
	h.check(t, []row{{"503 WebSocket", handshake("/ws"), 503, "overloaded", "Retry-After:"}})
	onEvery(t, sseWires, func(t *testing.T, w wire) { h.wantSentAway(t, w) })
	only.conn.Close()
	within(t, patience, "the place is free again", func() bool { return h.stats(t).WebSocket.TotalConnections == 0 })
	h.open(t, raw, visit{})
}

// wantSentAway asks for an event stream and wants 200, a time to retry at and the orderly end: an
// EventSource would never come back after any other status.
func (h *house) wantSentAway(t testing.TB, w wire) {
	t.Helper()
	conn := dial(t, h.address)
	defer conn.Close()
	wantSentAway(t, exchange(t, conn, h.raw(w.request(visit{channels: []string{"job_progress:1"}}))))
}

func wantSentAway(t testing.TB, answer answer) {
	t.Helper()
	if answer.status != 200 || answer.header.Get("Content-Type") != "text/event-stream; charset=utf-8" {
		t.Errorf("the answer is %d %q, want 200 and an event stream", answer.status, answer.header.Get("Content-Type"))
	}
	if answer.err != nil {
		t.Errorf("the body did not end in order: %v", answer.err)
	}
	wantRetry(t, answer.body)
	if strings.Contains(answer.body, "data:") || strings.Contains(answer.body, "event:") {
		t.Errorf("more than a retry was said: %q", answer.body)
	}
}

// TestBrokerUnavailable: a Redis that was never reached makes the gateway unready.
func TestBrokerUnavailable(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Redis: "redis://127.0.0.1:1"})
	h.check(t, []row{
		{"alive all the same", get("/healthz"), 200, "", ""},
		{"503 not ready", get("/readyz"), 503, "broker_unavailable", "Retry-After:"},
		{"503 not ready with redis", get("/readyz?redis"), 503, "broker_unavailable", "Retry-After:"},
	})
}
