package gateway_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/gateway/access"
	"github.com/millrace/millrace/internal/redistest"
	"github.com/millrace/millrace/netio/handoff"
	"github.com/millrace/millrace/proto"
)

// fleeting is one namespace of mode events, in which nobody is subscribed without asking.
var fleeting = map[string]access.Namespace{"default": {}}

// fleet gives two gateways that share a Redis, both of which hear orders.
func fleet(t *testing.T, namespaces map[string]access.Namespace) (one, two *house, redis *redistest.Server) {
	t.Helper()
	one, redis = serveRedis(t, gateway.Options{Namespaces: namespaces}, gateway.Timings{})
	two = serveWith(t, gateway.Options{Namespaces: namespaces, Redis: redis.URL(), Loops: 3}, gateway.Timings{})
	two.awaitDelivery(t)
	for _, h := range []*house{one, two} {
		within(t, patience, "it follows the log of orders", func() bool { return h.stats(t).Broker.Tracked == 1 })
	}
	return one, two, redis
}

// order gives an operator's order and wants this answer.
func (h *house) order(t *testing.T, what, want string) {
	t.Helper()
	if got := h.ask(t, request("POST", "/api/admin/"+what)); got.status != 200 || strings.TrimSpace(got.body) != want {
		t.Errorf("%s was answered %d %s, want %s", what, got.status, got.body, want)
	}
}

// disconnected wants the stream to be ended by an operator.
func (s *stream) disconnected(t *testing.T) {
	t.Helper()
	if !s.wire.websocket {
		s.wordWith(t, "server_error", "code=disconnected")
	}
	s.ends(t, proto.ClosePolicy, "Disconnected")
}

// TestOrdersReachEveryGateway: what an operator asks of one gateway is done by the other, on every
// wire, and by each way of saying who is meant.
func TestOrdersReachEveryGateway(t *testing.T) {
	t.Parallel()
	one, two, _ := fleet(t, fleeting)
	onEvery(t, everyWire, func(t *testing.T, w wire) {
		open := func(user string, channels ...string) *stream {
			t.Helper()
			return two.open(t, w, visit{channels: channels, query: "userId=" + user})
		}
		byClient, byUser, byUserToo, byChannel := open("1", "a:1"), open("2", "a:1"), open("2", "a:1"), open("3", "a:2")
		stays := open("4", "a:1", "a:3")
		for _, step := range []struct {
			order string
			gone  []*stream
		}{
			{"disconnect?client=" + byClient.clientID, []*stream{byClient}},
			{"disconnect?user=2", []*stream{byUser, byUserToo}},
			{"disconnect?channel=a:2", []*stream{byChannel}},
		} {
			one.order(t, step.order, `{"disconnected":0,"distributed":true}`)
			for _, s := range step.gone {
				s.disconnected(t)
			}
		}
		for _, query := range []string{"&client=" + stays.clientID, "&user=4", ""} {
			one.order(t, "unsubscribe?channel=a:1"+query, `{"distributed":true,"unsubscribed":0}`)
			stays.wordWith(t, "unsubscribed", "channel=a:1")
			if !w.websocket {
				break // cannot subscribe again
			}
			stays.subscribe(t, "a:1")
		}
		one.publish(t, "a:3", `"goes on"`)
		stays.event(t, `"goes on"`)
		stays.conn.Close()
	})
}

// TestOrdersMeanTheWildcard: who hears a channel by its type's wildcard hears it.
func TestOrdersMeanTheWildcard(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Namespaces: map[string]access.Namespace{"wild": {Wildcard: true}, "other": {Wildcard: true}}})
	wild := h.open(t, enveloped, visit{channels: []string{"wild:*"}})
	other := h.open(t, enveloped, visit{channels: []string{"other:*"}})
	h.order(t, "disconnect?channel=wild:1", `{"disconnected":1,"distributed":true}`)
	wild.disconnected(t)
	other.alive(t)
}

// TestOrdersForOneGateway stay there.
func TestOrdersForOneGateway(t *testing.T) {
	t.Parallel()
	one, two, _ := fleet(t, fleeting)
	here := one.open(t, sse, visit{channels: []string{"a:1"}, query: "userId=1"})
	there := two.open(t, raw, visit{channels: []string{"a:1"}, query: "userId=1"})
	one.order(t, "disconnect?user=1&scope=gateway", `{"disconnected":1,"distributed":false}`)
	here.disconnected(t)
	// What is told now comes after what would have been told then.
	one.order(t, "unsubscribe?user=1&channel=a:1", `{"distributed":true,"unsubscribed":0}`)
	there.wordWith(t, "unsubscribed", "channel=a:1")
	there.alive(t)
}

// TestOrdersWhileAway: a gateway that is cut off from Redis does what was said meanwhile when it is
// back.
func TestOrdersWhileAway(t *testing.T) {
	t.Parallel()
	_, two, redis := fleet(t, fleeting)
	for round := range 4 {
		user := fmt.Sprint("cut-", round)
		s := two.open(t, raw, visit{query: "userId=" + user})
		for _, kind := range []string{"normal", "pubsub"} {
			redis.CLI(t, "CLIENT", "KILL", "TYPE", kind)
		}
		redis.CLI(t, "XADD", gateway.OrdersChannel, "*", "data", `{"v":1,"from":"elsewhere","do":"disconnect","user":"`+user+`"}`)
		s.disconnected(t)
	}
}

// TestOrdersDuringAnUpgrade: what another gateway orders while streams change hands is done once, by
// whoever has them: by the old process before its loops stand, by the new one after that.
func TestOrdersDuringAnUpgrade(t *testing.T) {
	t.Parallel()
	one, two, redis := fleet(t, fleeting)
	open := func(h *house, user string) *stream {
		t.Helper()
		return h.open(t, raw, visit{channels: []string{"a:1"}, query: "userId=" + user})
	}
	ends, stays := open(two, "ends"), open(two, "stays")
	witnesses := map[handoff.Kind]*stream{}
	const copied, standing = handoff.Kind(2), handoff.Kind(6) // see gateway/heritage.go
	for _, kind := range []handoff.Kind{copied, standing} {
		witnesses[kind] = open(one, fmt.Sprint("witness-", kind))
	}
	options := gateway.Options{Redis: redis.URL(), Namespaces: fleeting}
	heir, err := two.tryHandOver(t, options, func(_ int, m *handoff.Message) fate {
		witness := witnesses[m.Kind]
		if witness == nil {
			return passes
		}
		delete(witnesses, m.Kind)
		what := `"do":"disconnect","user":"ends"`
		if m.Kind == copied {
			what = `"do":"unsubscribe","channel":"a:1","user":"stays"`
		}
		for _, said := range []string{what, fmt.Sprintf(`"do":"disconnect","user":"witness-%d"`, m.Kind)} {
			redis.CLI(t, "XADD", gateway.OrdersChannel, "*", "data", `{"v":1,"from":"elsewhere",`+said+`}`)
		}
		witness.disconnected(t) // the other gateway has heard of both
		if m.Kind == copied {
			stays.wordWith(t, "unsubscribed", "channel=a:1")
			stays.subscribe(t, "a:1") // which no order speaks of
		}
		return passes
	})
	if err != nil || len(witnesses) > 0 {
		t.Fatalf("%v; it passed %d of the places", err, 2-len(witnesses))
	}
	two.stop(t)
	ends.disconnected(t)
	heir.publish(t, "a:1", `"goes on"`)
	stays.event(t, `"goes on"`)
	stays.alive(t)
}

// TestOrdersComeFirst: of a gateway that was cut off from Redis, whoever lost a right meanwhile is not
// sent what was written meanwhile.
func TestOrdersComeFirst(t *testing.T) {
	t.Parallel()
	_, h, redis := fleet(t, map[string]access.Namespace{"default": {}, "log": {Mode: access.Log}})
	const write = `for i = 2, #KEYS do redis.call('XADD', KEYS[1], '*', 'data', ARGV[i - 1]) end
		for i = 2, #KEYS do redis.call('XADD', KEYS[i], '*', 'data', ARGV[#ARGV]) end`
	for round := range 3 {
		var channels, orders []string
		for n := range 21 {
			channel, user := fmt.Sprintf("log:%d_%d", round, n), "1"
			if n == 20 {
				user = "somebody else"
			}
			channels = append(channels, channel)
			orders = append(orders, `{"v":1,"from":"elsewhere","do":"unsubscribe","user":"`+user+`","channel":"`+channel+`"}`)
		}
		s := h.open(t, raw, visit{channels: channels, query: "userId=1"})
		for _, kind := range []string{"normal", "pubsub"} {
			redis.CLI(t, "CLIENT", "KILL", "TYPE", kind)
		}
		keys := append([]string{"EVAL", write, strconv.Itoa(1 + len(channels)), gateway.OrdersChannel}, channels...)
		redis.CLI(t, slices.Concat(keys, orders, []string{`"written since"`})...)
		for _, channel := range channels[:20] {
			s.wordWith(t, "unsubscribed", "channel="+channel)
		}
		s.event(t, `"written since"`)
		s.alive(t)
		s.conn.Close()
	}
}

// TestOrdersThatAreNone are counted and change nothing.
func TestOrdersThatAreNone(t *testing.T) {
	t.Parallel()
	one, two, redis := fleet(t, fleeting)
	s := one.open(t, raw, visit{channels: []string{"a:1"}, query: "userId=1"})
	for _, test := range []struct{ name, payload, outcome string }{
		{"not JSON", `disconnect everybody`, "malformed"},
		{"empty", ``, "malformed"},
		{"an array", `[1]`, "malformed"},
		{"no version", `{"do":"disconnect","user":"1"}`, "foreign"},
		{"a later version", `{"v":2,"do":"disconnect","user":"1"}`, "foreign"},
		{"nobody", `{"v":1,"from":"x","do":"disconnect"}`, "malformed"},
		{"two at once", `{"v":1,"from":"x","do":"disconnect","user":"1","channel":"a:1"}`, "malformed"},
		{"another verb", `{"v":1,"from":"x","do":"dance","user":"1"}`, "malformed"},
		{"a field more", `{"v":1,"from":"x","do":"disconnect","user":"1","address":"192.0.2.1"}`, "malformed"},
		{"a user of another type", `{"v":1,"from":"x","do":"disconnect","user":1}`, "malformed"},
		{"no channel", `{"v":1,"from":"x","do":"unsubscribe","user":"1","channel":"a"}`, "malformed"},
		{"an internal channel", `{"v":1,"from":"x","do":"unsubscribe","channel":"__millrace:control"}`, "malformed"},
		{"long", `{"v":1,"from":"x","do":"` + strings.Repeat("disconnect", 10_000) + `"}`, "malformed"},
	} {
		sample := `millrace_orders_total{outcome="` + test.outcome + `"}`
		before := one.metrics(t)[sample]
		redis.CLI(t, "XADD", gateway.OrdersChannel, "*", "data", test.payload)
		within(t, patience, test.name+" is counted", func() bool { return one.metrics(t)[sample] == before+1 })
	}
	redis.CLI(t, "XADD", gateway.OrdersChannel, "*", "verb", "disconnect", "user", "1") // without a field data
	two.order(t, "unsubscribe?user=1&channel=a:1", `{"distributed":true,"unsubscribed":0}`)
	s.wordWith(t, "unsubscribed", "channel=a:1")
	within(t, patience, "the last one alone is carried out", func() bool {
		return one.metrics(t)[`millrace_orders_total{outcome="done"}`] == 1
	})
	if done := two.metrics(t)[`millrace_orders_total{outcome="done"}`]; done != 0 {
		t.Errorf("who gave the order carried out %v again", done)
	}
	s.alive(t)
}

// TestOrdersWithoutRedis: the gateway that was asked does its part, and says that it is not all.
func TestOrdersWithoutRedis(t *testing.T) {
	t.Parallel()
	one, _, redis := fleet(t, fleeting)
	s := one.open(t, raw, visit{channels: []string{"a:1"}, query: "userId=1"})
	freeze(t, redis)
	got := one.ask(t, request("POST", "/api/admin/disconnect?user=1"))
	if got.status != 503 || got.code(t) != "broker_unavailable" || !strings.Contains(got.body, "done to 1 streams") {
		t.Errorf("it answered %d %s", got.status, got.body)
	}
	s.disconnected(t)
}

// TestUnclearOrders are refused: one that was meant for somebody must not go to everybody.
func TestUnclearOrders(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{})
	h.check(t, []row{
		{"an empty user", request("POST", "/api/admin/disconnect?user="), 400, "bad_request", ""},
		{"an empty client", request("POST", "/api/admin/unsubscribe?channel=a:1&client="), 400, "bad_request", ""},
		{"an empty user beside a client", request("POST", "/api/admin/unsubscribe?channel=a:1&client=x&user="), 400, "bad_request", ""},
		{"client and user", request("POST", "/api/admin/unsubscribe?channel=a:1&client=x&user=1"), 400, "bad_request", ""},
		{"user and channel", request("POST", "/api/admin/disconnect?user=1&channel=a:1"), 400, "bad_request", ""},
		{"no channel's name", request("POST", "/api/admin/disconnect?channel=a"), 400, "bad_channel", ""},
		{"another scope", request("POST", "/api/admin/disconnect?user=1&scope=all"), 400, "bad_request", ""},
		{"who publishes an order", post(`{"channel":"` + gateway.OrdersChannel + `","event":{"v":1,"from":"x","do":"disconnect","user":"1"}}`), 400, "bad_channel", ""},
	})
}

// FuzzReadOrder: whatever stands in the log, what is understood of it names somebody.
func FuzzReadOrder(f *testing.F) {
	for _, seed := range []string{
		`{"v":1,"from":"k3x9qpwm","do":"disconnect","user":"456"}`,
		`{"v":1,"from":"k3x9qpwm","do":"unsubscribe","client":"k3x9qpwm-1a","channel":"a:1"}`,
		`{"v":1,"from":"k3x9qpwm","do":"unsubscribe","channel":"a:*"}`,
		`{"v":2}`, `[]`, `null`, `{"V":1,"DO":"disconnect","user":""}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		do, client, user, channel, err := gateway.ReadOrder(payload)
		switch {
		case err != nil:
		case do == "disconnect" && client == "" && user == "" && channel == "",
			do == "unsubscribe" && channel == "",
			do != "disconnect" && do != "unsubscribe":
			t.Errorf("%q is %s of client %q, user %q, channel %q", payload, do, client, user, channel)
		}
	})
}
