package gateway_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/gateway"
)

// routeTable is every route, as a loopback peer sees it.
var routeTable = []struct {
	target string
	get    int // the status of GET
	allow  []string
}{
	{"/ws", 426, []string{"GET", "HEAD", "OPTIONS"}},
	{"/api/stream?channel=job_progress:1", 200, []string{"GET", "HEAD", "OPTIONS"}},
	{"/api/publish", 405, []string{"POST", "OPTIONS"}},
	{"/api/realtime/stats", 200, []string{"GET", "HEAD", "OPTIONS"}},
	{"/healthz", 200, []string{"GET", "HEAD", "OPTIONS"}},
	{"/readyz", 200, []string{"GET", "HEAD", "OPTIONS"}},
	{"/metrics", 200, []string{"GET", "HEAD", "OPTIONS"}},
	{"/debug/pprof/", 200, []string{"GET", "HEAD", "POST", "OPTIONS"}},
	{"/", 200, []string{"GET", "HEAD", "OPTIONS"}},
	{"/admin", 200, []string{"GET", "HEAD", "OPTIONS"}},
	{"/page/assets/dashboard.js", 200, []string{"GET", "HEAD", "OPTIONS"}},
}

// TestHeadAndOptions: HEAD is GET without the body, OPTIONS says what there is, everywhere.
func TestHeadAndOptions(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{AllowedOrigins: []string{"https://app.example"}})
	for _, route := range routeTable {
		t.Run(route.target, func(t *testing.T) {
			head := h.ask(t, request("HEAD", route.target, "Connection: close"))
			if head.status != route.get || head.body != "" {
				t.Errorf("HEAD answered %d and %d bytes, want %d and none", head.status, len(head.body), route.get)
			}
			if strings.HasPrefix(route.target, "/api/stream") {
				wantStreamHead(t, head)
			}
			options := h.ask(t, request("OPTIONS", route.target))
			if options.status != 204 || options.body != "" {
				t.Errorf("OPTIONS answered %d %q", options.status, options.body)
			}
			allow := strings.Split(options.header.Get("Allow"), ", ")
			slices.Sort(allow)
			want := slices.Sorted(slices.Values(route.allow))
			if !slices.Equal(allow, want) {
				t.Errorf("Allow is %v, want %v", allow, want)
			}
		})
	}
	if got := h.ask(t, request("OPTIONS", "*")); got.status/100 != 2 || got.header.Get("Allow") == "" {
		t.Errorf("OPTIONS * answered %d, Allow %q", got.status, got.header.Get("Allow"))
	}
}

// wantStreamHead checks the headers of an event stream.
func wantStreamHead(t testing.TB, answer answer) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Type":      "text/event-stream; charset=utf-8",
		"Cache-Control":     "no-store, no-transform",
		"X-Accel-Buffering": "no",
	} {
		if got := answer.header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// TestCrossOrigin: pages of exact origins may ask with credentials, others learn nothing, and no
// cache mixes the two up.
func TestCrossOrigin(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{AllowedOrigins: []string{"https://app.example"}})
	for _, route := range routeTable {
		for origin, allowed := range map[string]bool{
			"https://app.example": true, "https://evil.example": false, "null": false,
			"https://app.example.evil.example": false, "https://app.example:8443": false,
		} {
			t.Run(route.target+" from "+origin, func(t *testing.T) {
				method := strings.TrimSuffix(route.allow[0], ",")
				got := h.ask(t, request("OPTIONS", route.target, "Origin: "+origin,
					"Access-Control-Request-Method: "+method, "Access-Control-Request-Headers: authorization,last-event-id"))
				wantCORS(t, got, origin, allowed)
				if vary := strings.Join(got.header.Values("Vary"), ", "); !strings.Contains(vary, "Access-Control-Request-Method") || !strings.Contains(vary, "Access-Control-Request-Headers") {
					t.Errorf("Vary of a preflight is %q", vary)
				}
				methods, headers := got.header.Get("Access-Control-Allow-Methods"), got.header.Get("Access-Control-Allow-Headers")
				if allowed != strings.Contains(methods, method) || allowed != (headers == "Authorization, Last-Event-ID, Content-Type") {
					t.Errorf("a page of %s may use the methods %q and headers %q", origin, methods, headers)
				}
			})
		}
	}
	onEvery(t, sseWires, func(t *testing.T, w wire) {
		s := h.open(t, w, visit{channels: []string{"a:1"}, header: []string{"Origin: https://app.example"}})
		wantCORS(t, answer{header: s.response.Header}, "https://app.example", true)
		s = h.open(t, w, visit{channels: []string{"a:1"}})
		wantCORS(t, answer{header: s.response.Header}, "", false)
	})
	t.Run("an end that is not awaited", func(t *testing.T) {
		got := h.ask(t, get("/api/stream?channel=a:1", "Last-Event-ID: abc/end", "Origin: https://app.example"))
		wantCORS(t, got, "https://app.example", true)
	})
}

func wantCORS(t testing.TB, answer answer, origin string, allowed bool) {
	t.Helper()
	if vary := strings.Join(answer.header.Values("Vary"), ", "); !strings.Contains(vary, "Origin") {
		t.Errorf("Vary is %q, want Origin in it", vary)
	}
	gotOrigin, credentials := answer.header.Get("Access-Control-Allow-Origin"), answer.header.Get("Access-Control-Allow-Credentials")
	if allowed && (gotOrigin != origin || credentials != "true") {
		t.Errorf("allowed are %q, credentials %q, want %q and true", gotOrigin, credentials, origin)
	}
	if !allowed && gotOrigin+credentials != "" {
		t.Errorf("allowed are %q, credentials %q, want nothing", gotOrigin, credentials)
	}
}

// TestRoutingTricks: no spelling of a path reaches what its canonical form does not, least of all
// the admin routes from the public listener.
func TestRoutingTricks(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{AdminListen: "127.0.0.1:0"})
	for _, target := range []string{
		"/metrics", "//metrics", "/./metrics", "/admin", "/admin/", "/page/admin.html", "/page/../metrics", "/page/%2e%2e/metrics", "/metrics/", "/METRICS",
		"/metrics;x", "/metrics%00", "/metrics%20", "/%6detrics", "/metrics%2f", "/api/stream/../../metrics", "\\metrics",
		"/debug/pprof/", "/debug/pprof", "/debug/pprof/heap", "/debug/pprof/cmdline", "/debug//pprof/", "/debug/%70prof/",
		"/page/..%2fmetrics", "/healthz/../metrics", "http://admin/metrics", "http://127.0.0.1/metrics", "/metrics#x",
	} {
		t.Run(target, func(t *testing.T) {
			got := h.ask(t, get(target))
			if got.status != 400 && got.status != 404 {
				t.Errorf("answered %d: %.100s", got.status, got.body)
			}
		})
	}
	for _, target := range []string{"//api/stream?channel=a:1", "/api//stream?channel=a:1", "/%61pi/stream?channel=a:1", "/api/./stream?channel=a:1", "/api/x/../stream?channel=a:1", "/api/stream%3fchannel=a:1"} {
		t.Run(target, func(t *testing.T) {
			if got := h.ask(t, get(target)); got.status != 400 && got.status != 404 {
				t.Errorf("answered %d", got.status)
			}
		})
	}
	t.Run("absolute form of this host", func(t *testing.T) {
		if got := h.ask(t, get("http://HOST/healthz")); got.status != 200 {
			t.Errorf("answered %d, want 200 (RFC 9112 3.2.2)", got.status)
		}
	})
}
