package gateway_test

import (
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace/millrace/gateway"
)

// TestWithoutAuthentication: this machine is served and believed, and web pages of elsewhere are
// kept out.
func TestWithoutAuthentication(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{})
	_, port, err := net.SplitHostPort(h.address)
	if err != nil {
		t.Fatal(err)
	}
	as := func(host, request string) string { return strings.Replace(request, "HOST", host+":"+port, 1) }
	one := get("/api/stream?channel=job_progress:1")
	event := `{"channel":"job_progress:1","event":1}`
	typed := func(contentType string) string {
		return request("POST", "/api/publish", "Content-Type: "+contentType, "Content-Length: "+strconv.Itoa(len(event))) + event
	}
	h.check(t, []row{
		{"localhost", as("localhost", get("/healthz")), 200, "", ""},
		{"a name under localhost", as("app.localhost", get("/api/realtime/stats")), 200, "", ""},
		{"another loopback address", as("127.1.2.3", get("/api/realtime/stats")), 200, "", ""},
		{"IPv6", as("[::1]", get("/api/realtime/stats")), 200, "", ""},
		{"foreign host", as("evil.example", one), 403, "bad_origin", ""},
		{"foreign host, WebSocket", as("evil.example", handshake("/ws")), 403, "bad_origin", ""},
		{"foreign host, publish", as("evil.example", post(event)), 403, "bad_origin", ""},
		{"foreign host, stats", as("evil.example", get("/api/realtime/stats")), 403, "bad_origin", ""},
		{"foreign host, metrics", as("evil.example", get("/metrics")), 403, "bad_origin", ""},
		{"foreign host, profiles", as("evil.example", get("/debug/pprof/cmdline")), 403, "bad_origin", ""},
		{"a host that begins like one of ours", as("127.0.0.1.evil.example", one), 403, "bad_origin", ""},
		{"a host that ends like one of ours", as("evillocalhost", one), 403, "bad_origin", ""},
		{"own origin", get("/api/realtime/stats", "Origin: http://HOST"), 200, "", ""},
		{"foreign origin", get("/api/stream?channel=job_progress:1", "Origin: http://evil.example"), 403, "bad_origin", ""},
		{"foreign origin, WebSocket", handshake("/ws", "Origin: http://evil.example"), 403, "bad_origin", ""},
		{"foreign origin, publish", post(event, "Origin: http://evil.example"), 403, "bad_origin", ""},
		{"foreign origin, profiles", get("/debug/pprof/", "Origin: http://evil.example"), 403, "bad_origin", ""},
		{"own host, other port", get("/api/stream?channel=job_progress:1", "Origin: http://127.0.0.1:1"), 403, "bad_origin", ""},
		{"null origin", handshake("/ws", "Origin: null"), 403, "bad_origin", ""},
		{"forwarded for", get("/api/stream?channel=job_progress:1", "X-Forwarded-For: 127.0.0.1"), 403, "bad_origin", ""},
		{"forwarded", handshake("/ws", "Forwarded: for=127.0.0.1"), 403, "bad_origin", ""},
		{"via", post(event, "Via: 1.1 proxy"), 403, "bad_origin", ""},
		{"real address", get("/metrics", "X-Real-IP: 127.0.0.1"), 403, "bad_origin", ""},
		{"a form", typed("application/x-www-form-urlencoded"), 415, "unsupported_media_type", ""},
		{"plain text", typed("text/plain"), 415, "unsupported_media_type", ""},
		{"what only looks like JSON", typed("text/plain; x=application/json"), 415, "unsupported_media_type", ""},
		{"JSON with a character set", typed("application/json; charset=utf-8"), 200, "", ""},
	})
	onEvery(t, everyWire, func(t *testing.T, w wire) {
		s := h.open(t, w, visit{query: "userId=123", channels: []string{"anything:goes"}})
		other := h.open(t, w, visit{query: "userId=1234", channels: []string{"anything:goes"}})
		if s.user != "123" {
			t.Errorf("the user is %q", s.user)
		}
		h.publish(t, "alerts:123", `{"for":"123"}`)
		h.publish(t, "anything:goes", `{"for":"all"}`)
		s.event(t, `{"for":"123"}`)
		s.event(t, `{"for":"all"}`)
		other.event(t, `{"for":"all"}`)
	})
}

// TestInsecure: who says that everybody may come gets everybody, but no page of elsewhere.
func TestInsecure(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{InsecureNoAuth: true})
	h.check(t, []row{
		{"any host", strings.Replace(get("/api/realtime/stats"), "HOST", "gateway.example", 1), 200, "", ""},
		{"its own origin", strings.Replace(get("/api/realtime/stats", "Origin: https://gateway.example"), "HOST", "gateway.example", 1), 200, "", ""},
		{"through a proxy", get("/api/realtime/stats", "X-Forwarded-For: 203.0.113.5"), 200, "", ""},
		{"foreign origin", strings.Replace(get("/api/realtime/stats", "Origin: https://evil.example"), "HOST", "gateway.example", 1), 403, "bad_origin", ""},
		{"the admin routes through a proxy", get("/metrics", "X-Forwarded-For: 203.0.113.5"), 403, "access_denied", ""},
	})
}

// TestOptions: what New refuses, and that it says which option is wrong.
func TestOptions(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, row := range map[string]struct {
		options gateway.Options
		want    string
	}{
		"open to others without authentication": {gateway.Options{Listen: "0.0.0.0:0"}, "listen: 0.0.0.0:0"},
		"every address":                         {gateway.Options{Listen: ":0"}, "listen: "},
		"no port":                               {gateway.Options{Listen: "127.0.0.1"}, "listen: "},
		"a port that is taken":                  {gateway.Options{Listen: taken.Addr().String()}, "listen: "},
		"an admin port that is taken":           {gateway.Options{Listen: "127.0.0.1:0", AdminListen: taken.Addr().String()}, "admin-listen: "},
		"no admin port":                         {gateway.Options{Listen: "127.0.0.1:0", AdminListen: "x"}, "admin-listen: "},
		"a short secret":                        {gateway.Options{Listen: "127.0.0.1:0", Auth: gateway.AuthOptions{HMACSecret: []byte("short")}}, "32"},
		"a key that is none":                    {gateway.Options{Listen: "127.0.0.1:0", Auth: gateway.AuthOptions{PublicKeyPEM: []byte("x")}}, "PEM"},
		"an origin with a path":                 {gateway.Options{Listen: "127.0.0.1:0", AllowedOrigins: []string{"https://a.example/x"}}, "allowed-origins"},
		"an origin with a wildcard":             {gateway.Options{Listen: "127.0.0.1:0", AllowedOrigins: []string{"https://*.example"}}, "allowed-origins"},
		"a proxy that is none":                  {gateway.Options{Listen: "127.0.0.1:0", TrustedProxies: []string{"proxy"}}, "trusted-proxies"},
		"a broadcast that is no channel":        {gateway.Options{Listen: "127.0.0.1:0", Broadcast: []string{"all"}}, "broadcast"},
		"a personal type that is none":          {gateway.Options{Listen: "127.0.0.1:0", Personal: []string{"a:b"}}, "personal"},
		"loops":                                 {gateway.Options{Listen: "127.0.0.1:0", Loops: 64}, "loops"},
		"a queue too small":                     {gateway.Options{Listen: "127.0.0.1:0", Limits: gateway.Limits{MaxQueueBytes: 1000}}, "max-queue-bytes"},
		"a negative limit":                      {gateway.Options{Listen: "127.0.0.1:0", Limits: gateway.Limits{MaxSubscriptions: -2}}, "max-subscriptions"},
		"messages without bound":                {gateway.Options{Listen: "127.0.0.1:0", Limits: gateway.Limits{MaxMessageBytes: gateway.NoLimit}}, "max-message-bytes"},
		"more streams than descriptors":         {gateway.Options{Listen: "127.0.0.1:0", Limits: gateway.Limits{MaxConnections: 1 << 30}}, "max-connections"},
		"a Redis address that is none":          {gateway.Options{Listen: "127.0.0.1:0", Redis: "http://127.0.0.1"}, "redis"},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := gateway.New(row.options)
			if err == nil {
				g.Close()
				t.Fatal("it was taken")
			}
			if !strings.Contains(err.Error(), row.want) {
				t.Errorf("the error is %q, want %q in it", err, row.want)
			}
			if strings.Contains(err.Error(), "short") && name == "a short secret" {
				t.Errorf("the error repeats the secret: %q", err)
			}
		})
	}
	t.Run("checked without a start", func(t *testing.T) {
		if err := (gateway.Options{Listen: "0.0.0.0:80"}).Check(); err == nil || !strings.Contains(err.Error(), "insecure-no-auth") {
			t.Errorf("the check says %v, want what to do", err)
		}
		if err := (gateway.Options{}).Check(); err != nil {
			t.Errorf("the default is refused: %v", err)
		}
	})
	t.Run("closed without having run", func(t *testing.T) {
		g, err := gateway.New(gateway.Options{Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		g.Close()
		g.Close()
	})
}
