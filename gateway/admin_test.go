package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/internal/polltest"
	"github.com/millrace/millrace/proto"
)

func (h *house) explain(t testing.TB, client string) gateway.Explanation {
	t.Helper()
	var got answer
	polltest.Until(patience, func() bool { // a loop of a busy machine may not answer in time
		got = h.ask(t, get("/api/admin/explain?client="+client))
		return got.status != http.StatusServiceUnavailable
	})
	var explanation gateway.Explanation
	if err := json.Unmarshal([]byte(got.body), &explanation); err != nil || got.status != 200 {
		t.Fatalf("explain answered %d %.300s", got.status, got.body)
	}
	return explanation
}

// TestExplain: an operator sees how a stream stands, whatever its wire.
func TestExplain(t *testing.T) {
	t.Parallel()
	onEachBroker(t, gateway.Options{Limits: gateway.Limits{MaxQueueBytes: slowQueueBytes, ProgressTimeout: gateway.NoLimit}}, func(t *testing.T, writer writer) {
		h := writer.house
		var streams []*stream
		for _, w := range everyWire {
			streams = append(streams, h.open(t, w, visit{channels: []string{"log:1", "state:1", "events:1"}, query: "userId=456"}))
		}
		position := h.publish(t, "log:1", `1`).IDs[0]
		for _, s := range streams {
			s.event(t, "1")
		}
		h.publish(t, "events:1", `2`)
		for _, s := range streams {
			s.event(t, "2")
			e := h.explain(t, s.clientID)
			if e.Client != s.clientID || e.User != "456" || !e.Greeted || len(e.Channels) != 3 || e.Queue.Frames != 0 || e.Queue.BytesMax != slowQueueBytes {
				t.Errorf("%s: %+v", s.wire.name, e)
			}
			byChannel := map[string]gateway.ChannelExplanation{}
			for _, channel := range e.Channels {
				byChannel[channel.Channel] = channel
			}
			if log := byChannel["log:1"]; log.Mode != "log" || log.State != "live" || !samePosition(log.Position, position) {
				t.Errorf("%s: the log is %+v, want %s", s.wire.name, log, position)
			}
			if state, events := byChannel["state:1"], byChannel["events:1"]; state.Mode != "state" || events.Mode != "events" || events.Position == "" {
				t.Errorf("%s: the others are %+v and %+v", s.wire.name, state, events)
			}
			if e.Peer.RTTMs <= 0 || e.Peer.UnackedBytes < 0 || e.Peer.ProgressMs < 0 {
				t.Errorf("%s: the peer is %+v", s.wire.name, e.Peer)
			}
		}
		for _, s := range streams {
			if e := h.explain(t, s.clientID); e.State != "live" || e.Address != "" {
				t.Errorf("%s, which reads: %+v", s.wire.name, e)
			}
		}
		h.lag(t, "events:1", len(streams))
		for _, s := range streams {
			e := h.explain(t, s.clientID)
			at := slices.IndexFunc(e.Channels, func(c gateway.ChannelExplanation) bool { return c.Channel == "events:1" })
			if e.Channels[at].State != "dropping" || e.State != "dropping" || e.GapsDue != 1 || e.Dropped == 0 || e.Queue.Bytes == 0 {
				t.Errorf("%s, which does not read: %+v", s.wire.name, e)
			}
		}
		h.check(t, []row{
			{"no client", get("/api/admin/explain"), 400, "bad_request", ""},
			{"unknown", get("/api/admin/explain?client=x"), 404, "not_found", ""},
			{"of another life", get("/api/admin/explain?client=aaaaaaaa-1"), 404, "not_found", ""},
			{"no GET to disconnect", get("/api/admin/disconnect?client=x"), 405, "", "Allow: POST"},
		})
	})
}

// samePosition reports whether two ids of logs name the same entry; their horizons differ.
func samePosition(one, other string) bool {
	return one[:strings.LastIndexByte(one, '/')+1] == other[:strings.LastIndexByte(other, '/')+1]
}

// TestDisconnect: an operator ends one stream, or all of a user.
func TestDisconnect(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Namespaces: modes(), Loops: 3})
	ask := func(query, want string) {
		t.Helper()
		if got := h.ask(t, request("POST", "/api/admin/disconnect?"+query)); got.status != 200 || strings.TrimSpace(got.body) != want {
			t.Errorf("disconnecting %s was answered %d %s, want %s", query, got.status, got.body, want)
		}
	}
	gone := func(s *stream) {
		t.Helper()
		if !s.wire.websocket {
			s.wordWith(t, "server_error", "code=disconnected")
		}
		s.ends(t, proto.ClosePolicy, "Disconnected")
	}
	onEvery(t, everyWire, func(t *testing.T, w wire) {
		first := h.open(t, w, visit{channels: []string{"log:1"}, query: "userId=1"})
		second := h.open(t, w, visit{channels: []string{"log:1"}, query: "userId=1"})
		other := h.open(t, w, visit{channels: []string{"log:1"}, query: "userId=2"})
		third := h.open(t, w, visit{channels: []string{"log:1"}, query: "userId=1"})
		ask("client="+first.clientID, `{"disconnected":1,"distributed":true}`)
		gone(first)
		ask("user=1", `{"disconnected":2,"distributed":true}`)
		gone(second)
		gone(third)
		ask("user=1", `{"disconnected":0,"distributed":true}`)
		h.publish(t, "log:1", `"goes on"`)
		other.event(t, `"goes on"`)
		h.check(t, []row{
			{"who is gone", request("POST", "/api/admin/disconnect?client="+first.clientID), 404, "not_found", ""},
			{"nobody", request("POST", "/api/admin/disconnect"), 400, "bad_request", ""},
			{"both", request("POST", "/api/admin/disconnect?user=1&client=x"), 400, "bad_request", ""},
			{"a page elsewhere", request("POST", "/api/admin/disconnect?user=2", "Origin: https://evil.example"), 403, "bad_origin", ""},
		})
		other.conn.Close()
	})
	within(t, patience, "all are counted", func() bool {
		return h.metrics(t)[`millrace_streams_ended_total{reason="disconnected"}`] == float64(3*len(everyWire))
	})
}

// TestUnsubscribeByAdmin: an operator takes a channel from one stream, or from all of a user.
func TestUnsubscribeByAdmin(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Namespaces: modes(), Loops: 3})
	onEvery(t, everyWire, func(t *testing.T, w wire) {
		var streams []*stream
		for range 3 {
			streams = append(streams, h.open(t, w, visit{channels: []string{"log:1", "log:2"}, query: "userId=1"}))
		}
		for _, step := range []struct {
			query string
			count int
		}{{"client=" + streams[0].clientID, 1}, {"user=1", 2}} {
			got := h.ask(t, request("POST", "/api/admin/unsubscribe?channel=log:1&"+step.query))
			if want := fmt.Sprintf(`{"distributed":true,"unsubscribed":%d}`, step.count); got.status != 200 || strings.TrimSpace(got.body) != want {
				t.Errorf("%s was answered %d %s, want %s", step.query, got.status, got.body, want)
			}
		}
		h.publish(t, "log:1", `"not for them"`)
		h.publish(t, "log:2", `"for them"`)
		for _, s := range streams {
			s.wordWith(t, "unsubscribed", "channel=log:1")
			s.event(t, `"for them"`)
			s.conn.Close()
		}
		h.check(t, []row{{"no channel", request("POST", "/api/admin/unsubscribe?user=1"), 400, "bad_channel", ""}})
		within(t, patience, "they are gone", func() bool { return h.stats(t).Channels.TotalSubscriptions == 0 })
	})
}

// TestAdminAPIIsForAdmins: the admin API is not for anybody, on no listener.
func TestAdminAPIIsForAdmins(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Auth: gateway.AuthOptions{HMACSecret: secret}, AdminListen: "127.0.0.1:0"})
	apart := &house{Gateway: h.Gateway, address: h.AdminAddr().String()}
	together := serve(t, gateway.Options{Auth: gateway.AuthOptions{HMACSecret: secret}})
	admin, user := bearer(mint(t, auth.MintClaims{User: "1", Admin: true})), bearer(mintFor(t, "2"))
	const forwarded = "X-Forwarded-For: 203.0.113.5"
	for _, try := range []struct{ path, query, method string }{
		{"/api/admin/explain", "client=x", "GET"},
		{"/api/admin/disconnect", "client=x", "POST"},
		{"/api/admin/unsubscribe", "client=x&channel=a:1", "POST"},
	} {
		path, target, method := try.path, try.path+"?"+try.query, try.method
		h.check(t, []row{{path + " on the other address", request(method, target, admin), 404, "not_found", ""}})
		apart.check(t, []row{
			{path + " on its own", request(method, target), 404, "not_found", ""},
		})
		together.check(t, []row{
			{path + " from loopback", request(method, target), 404, "not_found", ""},
			{path + " of a user through a proxy", request(method, target, forwarded, user), 403, "access_denied", ""},
			{path + " of an admin through a proxy", request(method, target, forwarded, admin), 404, "not_found", ""},
			{path + " of nobody through a proxy", request(method, target, forwarded), 403, "access_denied", ""},
		})
	}
	apart.check(t, []row{
		{"a page that reaches the admin listener", request("POST", "/api/admin/disconnect?user=1", "Origin: https://evil.example"), 403, "bad_origin", ""},
	})
}
