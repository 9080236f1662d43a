package gateway_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/gateway/auth"
)

// TestStatsShape: the answer has the members that the contract names, and of those kinds.
func TestStatsShape(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{})
	var got map[string]any
	if err := json.Unmarshal([]byte(h.ask(t, get("/api/realtime/stats")).body), &got); err != nil {
		t.Fatal(err)
	}
	const number, text, truth = "float64", "string", "bool"
	for path, kind := range map[string]string{
		"status": text, "uptimeSeconds": number,
		"sse.totalConnections": number, "sse.totalEvents": number,
		"websocket.totalConnections": number, "websocket.totalEvents": number,
		"channels.isConnected": truth, "channels.activeChannels": number, "channels.totalSubscriptions": number,
		"broker.kind": text, "broker.delivering": truth, "loops": "[]interface {}",
		"delivery.p50Ms": number, "delivery.p99Ms": number, "delivery.gaps": number, "delivery.conflated": number,
		"delivery.dropped": number, "memory.heapBytes": number, "memory.residentBytes": number,
		"delivery.recent.p50Ms": number, "delivery.recent.p99Ms": number, "delivery.recent.seconds": number,
		"delivery.gapsByReason.slow": number, "events.received": number, "events.dropped.not_json": number,
		"broker.nodesDelivering": number, "broker.canaryMs": number, "broker.horizonAgeMs": number, "ended": "map[string]interface {}",
	} {
		var value any = got
		for _, name := range strings.Split(path, ".") {
			members, _ := value.(map[string]any)
			value = members[name]
		}
		if found := fmt.Sprintf("%T", value); found != kind {
			t.Errorf("%s is a %s, want %s", path, found, kind)
		}
	}
	if got["status"] != "healthy" {
		t.Errorf("the status is %v", got["status"])
	}
}

// TestStatsAddUp: what went in and out is what is counted.
func TestStatsAddUp(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Namespaces: noReplay()})
	var streams []*stream
	for range 3 {
		for _, w := range everyWire {
			streams = append(streams, h.open(t, w, visit{channels: []string{"a:1", "a:2"}}))
		}
	}
	for n := range 10 {
		h.publish(t, fmt.Sprintf("a:%d", 1+n%2), fmt.Sprintf(`{"n":%d,"timestamp":%d}`, n, time.Now().UnixMilli()))
	}
	h.publish(t, "a:3", `{"nobody":"listens"}`)
	for _, s := range streams {
		for range 10 {
			s.said(t)
		}
	}
	stats := h.stats(t)
	events, webSockets, all := 3*uint64(len(sseWires)), 3*uint64(len(webSockets)), uint64(len(streams))
	for name, row := range map[string][2]uint64{
		"SSE streams":       {uint64(stats.SSE.TotalConnections), events},
		"SSE events":        {stats.SSE.TotalEvents, 10 * events},
		"WebSocket streams": {uint64(stats.WebSocket.TotalConnections), webSockets},
		"WebSocket events":  {stats.WebSocket.TotalEvents, 10 * webSockets},
		"channels":          {uint64(stats.Channels.ActiveChannels), 2},
		"subscriptions":     {uint64(stats.Channels.TotalSubscriptions), 2 * all},
		"published":         {stats.Broker.Published, 11},
		"received":          {stats.Events.Received, 10},
		"deliveries":        {stats.Delivery.Deliveries, 10 * all},
		"recent ones":       {stats.Delivery.Recent.Deliveries, 10 * all},
		"gaps":              {stats.Delivery.Gaps, 0},
		"dropped":           {stats.Delivery.Dropped, 0},
		"streams of loops":  {uint64(stats.Loops[0].Streams + stats.Loops[1].Streams), all},
	} {
		if row[0] != row[1] {
			t.Errorf("%s: %d are counted, want %d", name, row[0], row[1])
		}
	}
	if stats.Loops[0].Streams == 0 || stats.Loops[1].Streams == 0 {
		t.Errorf("one of two loops has all the streams: %+v", stats.Loops)
	}
	if stats.Delivery.P50Ms > stats.Delivery.P99Ms || stats.Delivery.P99Ms <= 0 {
		t.Errorf("deliveries took %v ms at the median, %v ms at 99%%", stats.Delivery.P50Ms, stats.Delivery.P99Ms)
	}
	if delays := h.metrics(t)["millrace_publisher_delay_seconds_count"]; delays != 10 {
		t.Errorf("%v events with a timestamp are in the histogram, want 10", delays)
	}
	for _, s := range streams {
		s.conn.Close()
	}
	within(t, patience, "all is given back", func() bool {
		stats = h.stats(t)
		return stats.SSE.TotalConnections+stats.WebSocket.TotalConnections+stats.Channels.TotalSubscriptions+stats.Channels.ActiveChannels == 0
	})
	if ended := stats.Ended["peer_closed"] + stats.Ended["peer_reset"]; ended != all {
		t.Errorf("%d of %d streams are counted as closed by their peers: %v", ended, all, stats.Ended)
	}
	if stats.SSE.TotalEvents+stats.WebSocket.TotalEvents != 10*all {
		t.Error("what was sent is forgotten with its streams")
	}
}

// TestStatsOfRedis: an operator sees how long the way through Redis is, and how far logs were read.
func TestStatsOfRedis(t *testing.T) {
	t.Parallel()
	h, redis := serveRedis(t, gateway.Options{Namespaces: modes()}, gateway.Timings{})
	within(t, patience, "a horizon", func() bool {
		b := h.stats(t).Broker
		return b.CanaryMs > 0 && b.HorizonAgeMs > 0 && b.Nodes == 1 && b.NodesDelivering == 1
	})
	s := h.open(t, raw, visit{channels: []string{"events:1"}})
	within(t, patience, "what is no JSON is counted", func() bool {
		redis.CLI(t, "PUBLISH", "events:1", "{")
		return h.stats(t).Events.Dropped["not_json"] > 0
	})
	redis.Stop()
	defer redis.Cont()
	within(t, patience, "nothing delivers", func() bool {
		b := h.stats(t).Broker
		return b.NodesDelivering == 0 && !b.Delivering && b.Reason != ""
	})
	s.alive(t)
}

// TestAdmin: who may see the admin routes.
func TestAdmin(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Auth: gateway.AuthOptions{HMACSecret: secret}})
	user, admin := mintFor(t, "456"), mint(t, auth.MintClaims{User: "1", Admin: true})
	const forwarded = "X-Forwarded-For: 203.0.113.5"
	for _, target := range []string{"/metrics", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/symbol", "/debug/pprof/heap"} {
		h.check(t, []row{
			{target + " from loopback", get(target), 200, "", ""},
			{target + " of a page that says it is this machine", strings.Replace(get(target), "HOST", "evil.example", 1), 403, "access_denied", ""},
			{target + " by another name of this machine", strings.Replace(get(target), "HOST", "localhost", 1), 200, "", ""},
			{target + " from a proxy", get(target, forwarded), 403, "access_denied", ""},
			{target + " from a proxy that says it otherwise", get(target, "Forwarded: for=127.0.0.1"), 403, "access_denied", ""},
			{target + " of a user", get(target, forwarded, bearer(user)), 403, "access_denied", ""},
			{target + " of an admin", get(target, forwarded, bearer(admin)), 200, "", ""},
			{target + " with a bad token", get(target, bearer("x")), 401, "unauthorized", ""},
			{target + " of a page", get(target, "Origin: https://evil.example"), 403, "bad_origin", ""},
			{target + " by a cookie of any page", get(target, "Cookie: millrace_token="+admin), 403, "bad_origin", ""},
		})
	}
	// The operator's page is a document: a browser that opens it says so, and from where does not matter.
	const page, opens, shows = "/admin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"
	cookie := "Cookie: millrace_token="
	h.check(t, []row{
		{"the page from loopback", get(page), 200, "", "Content-Type: text/html"},
		{"the page from a proxy", get(page, forwarded), 403, "access_denied", ""},
		{"the page of a user", get(page, forwarded, bearer(user)), 403, "access_denied", ""},
		{"the page of an admin", get(page, forwarded, bearer(admin)), 200, "", ""},
		{"the page with a bad token", get(page, bearer("x")), 401, "unauthorized", ""},
		{"the page by an admin's token in the address", get(page+"?token="+admin, forwarded), 200, "", ""},
		{"the page opened by an admin's cookie", get(page, forwarded, opens, shows, cookie+admin), 200, "", ""},
		{"the page opened by it from a link elsewhere", get(page, forwarded, opens, shows, "Sec-Fetch-Site: cross-site", cookie+admin), 200, "", ""},
		{"the page opened by a user's cookie", get(page, forwarded, opens, shows, cookie+user), 403, "access_denied", ""},
		{"the page opened by a bad cookie", get(page, forwarded, opens, shows, cookie+"x"), 401, "unauthorized", ""},
		{"the page in a frame", get(page, forwarded, opens, "Sec-Fetch-Dest: iframe", cookie+admin), 403, "bad_origin", ""},
		{"the page fetched by a page elsewhere", get(page, forwarded, "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", cookie+admin), 403, "bad_origin", ""},
		{"no API opened by a cookie", get("/api/admin/streams", forwarded, opens, shows, cookie+admin), 403, "bad_origin", ""},
		{"the API for the page itself", get("/api/admin/streams", forwarded, "Sec-Fetch-Site: same-origin", cookie+admin), 200, "", ""},
		{"stats for the page itself", get("/api/realtime/stats", forwarded, "Sec-Fetch-Site: same-origin", cookie+admin), 200, "", ""},
	})
	h.check(t, []row{
		{"stats from loopback", get("/api/realtime/stats"), 200, "", ""},
		{"stats from a proxy", get("/api/realtime/stats", forwarded), 401, "unauthorized", ""},
		{"stats of a user", get("/api/realtime/stats", forwarded, bearer(user)), 200, "", ""},
		{"health from anywhere", get("/healthz", forwarded), 200, "", ""},
	})
}

// TestAdminListener: with an address of their own the admin routes are there, and nowhere else.
func TestAdminListener(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Auth: gateway.AuthOptions{HMACSecret: secret}, AdminListen: "127.0.0.1:0"})
	admin := &house{Gateway: h.Gateway, address: h.AdminAddr().String()}
	claims := bearer(mint(t, auth.MintClaims{User: "1", Admin: true}))
	admin.check(t, []row{
		{"metrics", get("/metrics"), 200, "", ""},
		{"metrics through a proxy", get("/metrics", "X-Forwarded-For: 203.0.113.5"), 200, "", ""},
		{"profiles", get("/debug/pprof/"), 200, "", ""},
		{"stats", get("/api/realtime/stats"), 200, "", ""},
		{"health", get("/healthz"), 200, "", ""},
		{"readiness", get("/readyz"), 200, "", ""},
		{"no streams", get("/api/stream?channel=job_progress:1", claims), 404, "not_found", ""},
		{"no WebSockets", handshake("/ws", claims), 404, "not_found", ""},
		{"no publishing", post(`{"channel":"job_progress:1","event":1}`, claims), 404, "not_found", ""},
		{"no dashboard", get("/"), 404, "not_found", ""},
		{"the operator's page", get("/admin"), 200, "", "Content-Type: text/html"},
		{"its script", get("/page/assets/admin.js"), 200, "", "Content-Type: text/javascript"},
		{"its list", get("/api/admin/streams"), 200, "", ""},
	})
	h.check(t, []row{
		{"no metrics elsewhere", get("/metrics", claims), 404, "not_found", ""},
		{"no operator's page elsewhere", get("/admin", claims), 404, "not_found", ""},
		{"no list elsewhere", get("/api/admin/streams", claims), 404, "not_found", ""},
		{"no profiles elsewhere", get("/debug/pprof/", claims), 404, "not_found", ""},
		{"health elsewhere too", get("/healthz"), 200, "", ""},
	})
}

// TestLog: what a run at level debug tells, and that the tests' own watch over it works.
func TestLog(t *testing.T) {
	h := serve(t, gateway.Options{Auth: gateway.AuthOptions{HMACSecret: secret}})
	token := mintFor(t, "logged")
	s := h.open(t, raw, visit{query: "token=" + token, channels: []string{"job_progress:logged"}})
	h.publish(t, "job_progress:logged", `{"payload":"kept-out-of-the-log"}`)
	h.ask(t, get("/api/stream?channel=job_progress:1&token="+token+"x"))
	kept.hide("kept-out-of-the-log")
	s.conn.Close()
	h.stop(t) // which writes what is left to be written
	for _, line := range []string{"stream connected", "user=logged", "job_progress:logged", "request refused", "msg=draining", "msg=drained", "msg=event"} {
		if !kept.holds(line) {
			t.Errorf("the log does not hold %q", line)
		}
	}
	var other keptLog
	other.hide("needle")
	other.text.WriteString("level=INFO msg=\"a needle in a line\"\n")
	if other.check() == nil {
		t.Error("the watch over the log finds nothing")
	}
}
