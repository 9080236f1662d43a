package gateway_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/council"
	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/internal/polltest"
)

// councilBrokers runs a test with councils of an oracle on one gateway with memory, on one with
// Redis, and, where it asks for a second house, on two with one Redis.
func councilBrokers(t *testing.T, timings gateway.Timings, test func(t *testing.T, o *oracle, here, there *house)) {
	t.Helper()
	options := func(o *oracle) gateway.Options { return gateway.Options{Council: o.settings()} }
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		o := newOracle(t)
		h := serveWith(t, options(o), timings)
		test(t, o, h, h)
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		o := newOracle(t)
		h, _ := serveRedis(t, options(o), timings)
		test(t, o, h, h)
	})
	t.Run("two gateways", func(t *testing.T) {
		t.Parallel()
		o := newOracle(t)
		one, two := twoHouses(t, options(o), timings)
		test(t, o, one, two)
	})
}

func TestDemoCouncil(t *testing.T) {
	t.Parallel()
	h := serveWith(t, gateway.Options{}, councilTimings)
	onEvery(t, sseWires, func(t *testing.T, w wire) {
		var header []string
		if w.zipped {
			header = append(header, "Accept-Encoding: gzip") // in vain
		}
		v := h.watch(t, w, get(councilQuery("prompt", councilPrompt, "userId", "1"), header...))
		if got := v.response.Header.Get("Content-Type"); got != "text/event-stream; charset=utf-8" || !v.demo {
			t.Errorf("Content-Type %q, demo %v", got, v.demo)
		}
		v.hearsOut(t)
		if len(v.scores) != 4 || len(v.verdict.Scores) != 4 || v.verdict.Mean == nil || v.verdict.Spread == nil || len(v.verdict.Times) != 4 || len(v.errors) != 0 {
			t.Errorf("scores %v, verdict %+v, errors %v", v.scores, v.verdict, v.errors)
		}
		for model, text := range v.texts {
			if len(text) < 20 || strings.Contains(text, `"score"`) {
				t.Errorf("%s says %q", model, text)
			}
		}
		if !strings.HasSuffix(v.last, "/end") {
			t.Fatalf("the last id is %q", v.last)
		}
		other := serveWith(t, gateway.Options{}, councilTimings)
		for _, one := range []*house{h, other} {
			if a := one.ask(t, get(councilQuery("prompt", councilPrompt), "Last-Event-ID: "+v.last)); a.status != 204 {
				t.Errorf("an EventSource that comes back to a council that is complete gets %d", a.status)
			}
		}
	})
	if s := h.stats(t).Council; s.Begun != uint64(len(sseWires)) || s.Running != 0 || s.Models["scored"] != 4*uint64(len(sseWires)) || !s.Demo {
		t.Errorf("%+v", s)
	}
}

// Who comes in the middle, here or elsewhere, by its id or back by Last-Event-ID, has each text so far
// as one event, and then what follows, as if it had been there all the time.
func TestCouncilIsJoined(t *testing.T) {
	t.Parallel()
	councilBrokers(t, councilTimings, func(t *testing.T, o *oracle, here, there *house) {
		first := here.watch(t, sse, get(councilQuery("prompt", councilPrompt, "userId", "1")))
		o.say("gpt", "Stripes ", "are ", "\"loud\" ", "<but> ", "fine.\n")
		o.say("perplexity", "Twelve euros")
		first.hears(t, func() bool {
			return strings.HasSuffix(first.texts["gpt"], "fine.\n") && first.texts["perplexity"] == "Twelve euros"
		})

		late := there.watch(t, sse, get(councilQuery("id", first.id, "userId", "1")))
		plain := there.watch(t, sse10, get(councilQuery("id", first.id, "userId", "1")))
		back := there.watch(t, sse, get(councilQuery("prompt", councilPrompt, "userId", "1"), "Last-Event-ID: "+first.last))
		again := here.watch(t, sse, get(councilQuery("prompt", councilPrompt, "userId", "1", "lastEventId", back.last)))
		joined := []*watcher{late, plain, back, again}
		for _, v := range joined {
			if v.id != first.id {
				t.Fatalf("it came to council %s, want %s", v.id, first.id)
			}
			v.hears(t, func() bool { return v.texts["perplexity"] != "" })
			if v.pieces != 2 || v.chunks != 0 || v.texts["gpt"] != first.texts["gpt"] {
				t.Errorf("%d whole texts, %d chunks: %q", v.pieces, v.chunks, v.texts["gpt"])
			}
		}
		o.say("gpt", "Sell them.")
		o.end("gpt", 0.8)
		o.say("perplexity", " is cheap.")
		o.end("perplexity", 0.6)
		all := append(joined, first)
		for _, v := range all {
			v.hearsOut(t)
			if v.texts["gpt"] != "Stripes are \"loud\" <but> fine.\nSell them.\n" || v.texts["perplexity"] != "Twelve euros is cheap.\n" || v.gaps > 0 {
				t.Errorf("it heard %q, %d gaps", v.texts, v.gaps)
			}
			if v.scores["gpt"] != 0.8 || v.scores["perplexity"] != 0.6 || *v.verdict.Mean != 0.7 || *v.verdict.Spread != 0.2 {
				t.Errorf("scores %v, verdict %+v", v.scores, v.verdict)
			}
		}
		behind := there.watch(t, sse, get(councilQuery("id", first.id, "userId", "1")))
		behind.hearsOut(t)
		if behind.pieces != 2 || behind.scores["gpt"] != 0.8 || *behind.verdict.Mean != 0.7 {
			t.Errorf("who comes when all is over hears %q, %v, %+v", behind.texts, behind.scores, behind.verdict)
		}
		o.with("gpt", func(s *speaker) {
			if s.requested != 1 {
				t.Errorf("the model was asked %d times", s.requested)
			}
		})
	})
}

func TestCouncilIsCancelled(t *testing.T) {
	t.Parallel()
	councilBrokers(t, councilTimings, func(t *testing.T, o *oracle, here, there *house) {
		v := here.watch(t, sse, get(councilQuery("prompt", councilPrompt, "userId", "1")))
		o.say("gpt", "I would say")
		o.end("perplexity", 0.5)
		v.hears(t, func() bool { return v.texts["gpt"] != "" && v.scores["perplexity"] != 0 })
		there.check(t, []row{
			{"another user's", request("DELETE", councilQuery("id", v.id, "userId", "2")), 404, "not_found", ""},
			{"nobody's", request("DELETE", councilQuery("id", v.id)), 404, "not_found", ""},
			{"one that never was", request("DELETE", councilQuery("id", "x", "userId", "1")), 404, "not_found", ""},
			{"none", request("DELETE", councilQuery("userId", "1")), 400, "bad_request", ""},
		})
		for range 2 { // twice is as good as once
			if a := there.ask(t, request("DELETE", councilQuery("id", v.id, "userId", "1"))); a.status != 204 {
				t.Fatalf("DELETE gets %d: %s", a.status, a.body)
			}
		}
		within(t, patience, "the upstream sees its request end", func() bool { return o.ended() == 1 })
		v.hearsOut(t)
		if !v.verdict.Cancelled || v.errors["gpt"] != "cancelled" || v.scores["perplexity"] != 0.5 || v.verdict.Scores["perplexity"] != 0.5 {
			t.Errorf("errors %v, verdict %+v", v.errors, v.verdict)
		}
	})
}

// A council goes on as long as somebody watches it, anywhere, and ends a while after.
func TestCouncilIsUnwatched(t *testing.T) {
	t.Parallel()
	timings := councilTimings
	timings.Council.Unwatched = 2 * time.Second
	councilBrokers(t, timings, func(t *testing.T, o *oracle, here, there *house) {
		first := here.watch(t, sse, get(councilQuery("prompt", councilPrompt, "userId", "1")))
		second := there.watch(t, sse, get(councilQuery("id", first.id, "userId", "1")))
		first.conn.Close()
		left := time.Now()
		// More than twice as long as it would go on alone.
		if polltest.Until(5*timings.Council.Unwatched/2, func() bool { return o.ended() > 0 }) {
			t.Fatalf("the council ended after %v, although it was watched", time.Since(left))
		}
		o.say("gpt", "Still here.")
		second.hears(t, func() bool { return second.texts["gpt"] != "" })
		second.conn.Close()
		within(t, patience, "the requests end", func() bool { return o.ended() == 2 })
		within(t, patience, "the council is over", func() bool { return here.stats(t).Council.Running == 0 })
		behind := there.watch(t, sse, get(councilQuery("id", first.id, "userId", "1")))
		behind.hearsOut(t)
		if behind.texts["gpt"] != "Still here." || !strings.Contains(behind.errors["gpt"], "nobody was watching") {
			t.Errorf("it said %q, and ended with %q", behind.texts, behind.errors)
		}
	})
}

// A viewer that does not read holds nobody up, costs no memory, and has all of it when it reads.
func TestCouncilWithASlowViewer(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	h := serveWith(t, gateway.Options{Council: o.settings(), Limits: gateway.Limits{MaxQueueAge: time.Second}}, councilTimings)
	quick := h.watch(t, sse, get(councilQuery("prompt", councilPrompt)))
	conn := dial(t, h.address)
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(h.raw(get(councilQuery("id", quick.id))))); err != nil {
		t.Fatal(err)
	}
	slow := watchOn(t, hear(t, sse, conn))
	want := ""
	for index := range 600 {
		piece := strings.Repeat(string(rune('a'+index%26)), 100)
		want += piece
		o.say("gpt", piece)
		if index%10 == 0 {
			quick.hears(t, func() bool { return len(quick.texts["gpt"]) >= len(want) })
		}
	}
	within(t, patience, "the slow one is behind", func() bool {
		o.say("perplexity", ".")
		return h.stats(t).Delivery.Behind > 0
	})
	queued := int64(0)
	for _, loop := range h.stats(t).Loops {
		queued += loop.QueuedBytes
	}
	if queued > 256<<10 {
		t.Errorf("%d bytes are queued", queued)
	}
	o.end("gpt", 1)
	o.end("perplexity", 1)
	quick.hearsOut(t)
	slow.hearsOut(t)
	for _, v := range []*watcher{quick, slow} {
		if v.texts["gpt"] != want+"\n" || v.gaps > 0 || len(v.scores) != 2 {
			t.Errorf("%d bytes of %d, %d gaps, scores %v", len(v.texts["gpt"]), len(want), v.gaps, v.scores)
		}
	}
}

// While Redis hangs nothing is lost, and nothing comes twice when it goes on.
func TestCouncilOutlivesARedisThatHangs(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	h, redis := serveRedis(t, gateway.Options{Council: o.settings()}, councilTimings)
	v := h.watch(t, sse, get(councilQuery("prompt", councilPrompt)))
	o.say("gpt", "Before. ")
	v.hears(t, func() bool { return v.texts["gpt"] != "" })
	freeze(t, redis)
	o.say("gpt", "Meanwhile. ")
	within(t, patience, "Redis is missed", func() bool { return !h.stats(t).Broker.Delivering })
	o.say("gpt", "Still. ")
	h.check(t, []row{{"a council without Redis", get(councilQuery("prompt", councilPrompt)), 503, "broker_unavailable", "Retry-After:"}})
	redis.Cont()
	o.say("gpt", "After.")
	o.end("gpt", 1)
	o.end("perplexity", 1)
	v.hearsOut(t)
	if want := "Before. Meanwhile. Still. After.\n"; v.texts["gpt"] != want {
		t.Errorf("it heard %q, want %q", v.texts["gpt"], want)
	}
}

// A council whose gateway has died is completed by one that has a viewer.
func TestCouncilWhoseGatewayDied(t *testing.T) {
	t.Parallel()
	h, redis := serveRedis(t, gateway.Options{}, councilTimings)
	redis.CLI(t, "XADD", "council:lost:1", "*", "data", `{"council":{"models":[{"model":"a","label":"A"},{"model":"b","label":"B"}],"demo":false,"ends":1000}}`)
	redis.CLI(t, "XADD", "council:lost:1", "*", "data", `{"model":"a","chunk":"I wou"}`)
	redis.CLI(t, "XADD", "council:lost:1", "*", "data", `{"model":"b","score":0.5,"reason":"so"}`)
	v := h.watch(t, sse, get(councilQuery("id", "lost", "userId", "1")))
	v.hearsOut(t)
	if v.texts["a"] != "I wou" || !strings.Contains(v.errors["a"], "is gone") || v.verdict.Scores["b"] != 0.5 || v.verdict.Errors["a"] == "" {
		t.Errorf("%q, %v, %+v", v.texts, v.errors, v.verdict)
	}
	if left := strings.TrimSpace(redis.CLI(t, "PTTL", "council:lost:1")); left == "-1" || left == "-2" {
		t.Errorf("its log goes in %s ms", left)
	}
	h.check(t, []row{{"cancelled once more", request("DELETE", councilQuery("id", "lost", "userId", "1")), 204, "", ""}})
}

// A gateway that ends completes what it runs; its viewers elsewhere hear so.
func TestCouncilWhoseGatewayEnds(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	options := gateway.Options{Council: o.settings(), Limits: gateway.Limits{DrainTimeout: time.Second}}
	one, two := twoHouses(t, options, councilTimings)
	first := one.watch(t, sse, get(councilQuery("prompt", councilPrompt)))
	o.say("gpt", "I would")
	second := two.watch(t, sse, get(councilQuery("id", first.id)))
	second.hears(t, func() bool { return second.texts["gpt"] != "" })
	one.cancel()
	second.hearsOut(t)
	if second.texts["gpt"] != "I would" || !strings.Contains(second.errors["gpt"], "gateway was stopped") || second.verdict.Cancelled {
		t.Errorf("%q, %v, %+v", second.texts, second.errors, second.verdict)
	}
	<-one.ended
	within(t, patience, "the upstream sees its requests end", func() bool { return o.ended() == 2 })
}

// The log of a council does not stay in Redis.
func TestCouncilLogGoes(t *testing.T) {
	t.Parallel()
	h, redis := serveRedis(t, gateway.Options{}, councilTimings)
	v := h.watch(t, sse, get(councilQuery("prompt", councilPrompt, "userId", "a user: of/its own")))
	names := strings.Fields(redis.CLI(t, "KEYS", "council:*"))
	if len(names) != 1 || !strings.HasPrefix(names[0], "council:"+v.id+":=") {
		t.Fatalf("keys %q", names)
	}
	v.hearsOut(t)
	left, err := strconv.Atoi(strings.TrimSpace(redis.CLI(t, "TTL", names[0])))
	if err != nil || left > 600 || left < 600-int(patience.Seconds()) {
		t.Errorf("its log goes in %d s, want 600: %v", left, err)
	}
	if log := redis.CLI(t, "XRANGE", names[0], "-", "+"); strings.Contains(log, "zebra") {
		t.Errorf("the prompt is in the log: %s", log)
	}
}

func TestCouncilNeedsAToken(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	h := serveWith(t, gateway.Options{Auth: gateway.AuthOptions{HMACSecret: secret}, Council: o.settings()}, councilTimings)
	one, two := mintFor(t, "one"), mintFor(t, "two")
	v := h.watch(t, sse, get(councilQuery("prompt", councilPrompt), bearer(one)))
	h.check(t, []row{
		{"no token", get(councilQuery("prompt", councilPrompt)), 401, "unauthorized", ""},
		{"no token, to join", get(councilQuery("id", v.id)), 401, "unauthorized", ""},
		{"no token, to end", request("DELETE", councilQuery("id", v.id)), 401, "unauthorized", ""},
		{"somebody else, to join", get(councilQuery("id", v.id), bearer(two)), 404, "not_found", ""},
		{"somebody else, to come back", get(councilQuery("prompt", councilPrompt), bearer(two), "Last-Event-ID: "+v.last), 404, "not_found", ""},
		{"somebody else, to end", request("DELETE", councilQuery("id", v.id), bearer(two)), 404, "not_found", ""},
		{"by the other route", get("/api/stream?channel=council:"+v.id+":one", bearer(one)), 403, "access_denied", ""},
		{"by the other route, as a position", get("/api/stream?channel=alerts:one&lastEventId="+v.last, bearer(one)), 403, "access_denied", ""},
		{"publishing", post(`{"channel":"council:` + v.id + `:one","event":{"model":"gpt","chunk":"x"}}`), 401, "unauthorized", ""},
		{"publishing with a token for all", withHeader(post(`{"channel":"council:`+v.id+`:one","event":{"model":"gpt","chunk":"x"}}`), bearer(mint(t, mintAll))), 403, "access_denied", ""},
		{"publishing a word of gateways", withHeader(post(`{"channel":"councils:all","event":{"cancel":"council:`+v.id+`:one"}}`), bearer(mint(t, mintAll))), 403, "access_denied", ""},
	})
	joined := h.watch(t, sse, get(councilQuery("id", v.id, "token", one)))
	o.end("gpt", 1)
	o.end("perplexity", 1)
	joined.hearsOut(t)
	v.hearsOut(t)
}

// The channels of councils are nobody's, also where there is no authentication.
func TestCouncilChannelsAreNotOpen(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	h := serveWith(t, gateway.Options{Council: o.settings()}, councilTimings)
	v := h.watch(t, sse, get(councilQuery("prompt", councilPrompt)))
	channel := "council:" + v.id
	h.check(t, []row{
		{"SSE", get("/api/stream?channel=" + channel), 403, "access_denied", ""},
		{"publish", post(`{"channel":"` + channel + `","event":{}}`), 403, "access_denied", ""},
		{"publish to gateways", post(`{"channel":"councils:all","event":{}}`), 403, "access_denied", ""},
	})
	onEvery(t, webSockets, func(t *testing.T, w wire) {
		s := h.open(t, w, visit{})
		s.command(t, `{"type":"subscribe","channel":"`+channel+`"}`)
		s.wordWith(t, "error", "code=access_denied", "channel="+channel)
		s.command(t, `{"type":"publish","channel":"`+channel+`","event":{}}`)
		s.wordWith(t, "error", "code=access_denied")
		s.alive(t)
	})
	if _, err := h.Publish(context.Background(), gateway.Event{Channel: channel, Data: []byte(`{}`)}); err == nil {
		t.Error("the library publishes in a council")
	}
	o.end("gpt", 1)
	o.end("perplexity", 1)
	v.hearsOut(t)
	if v.texts["gpt"] != "\n" && v.texts["gpt"] != "" {
		t.Errorf("it heard %q", v.texts)
	}
}

func TestCouncilRequests(t *testing.T) {
	t.Parallel()
	settings := council.Settings{MaxPromptBytes: 100, PerMinute: 2, MaxPerUser: 2}
	o := newOracle(t)
	seats := o.settings()
	settings.OpenAI = seats.OpenAI
	h := serveWith(t, gateway.Options{Council: settings, AllowedOrigins: []string{"https://app.example.com"}}, councilTimings)
	long := strings.Repeat("x", 101)
	h.check(t, []row{
		{"no prompt", get(councilRoute), 400, "bad_request", ""},
		{"an empty prompt", get(councilQuery("prompt", "")), 400, "bad_request", ""},
		{"not UTF-8", get(councilRoute + "?prompt=%ff"), 400, "bad_request", ""},
		{"a broken escape", get(councilRoute + "?prompt=%f"), 400, "bad_request", ""},
		{"a long prompt", get(councilQuery("prompt", long)), 413, "too_large", ""},
		{"a long prompt, posted", postCouncil(`{"prompt":"` + long + `"}`), 413, "too_large", ""},
		{"a body that is longer than a prompt can be", postCouncil(`{"prompt":"` + strings.Repeat("x", 3000) + `"}`), 413, "too_large", ""},
		{"a body that is no JSON", postCouncil(`prompt=x`), 400, "bad_request", ""},
		{"a prompt that is no text", postCouncil(`{"prompt":7}`), 400, "bad_request", ""},
		{"a form", strings.Replace(postCouncil(`prompt=x`), "application/json", "application/x-www-form-urlencoded", 1), 415, "unsupported_media_type", ""},
		{"HEAD", request("HEAD", councilQuery("prompt", councilPrompt)), 200, "", "Content-Type: text/event-stream"},
		{"OPTIONS", request("OPTIONS", councilRoute), 204, "", "Allow: GET, HEAD, POST, DELETE, OPTIONS"},
		{"PUT", request("PUT", councilRoute, "Content-Length: 0"), 405, "method_not_allowed", "Allow: GET, HEAD, POST, DELETE, OPTIONS"},
		{"a foreign page", get(councilQuery("prompt", councilPrompt), "Origin: https://evil.example"), 403, "bad_origin", ""},
		{"an image of a foreign page", get(councilQuery("prompt", councilPrompt), "Sec-Fetch-Site: cross-site"), 403, "bad_origin", ""},
		{"a link of a sister's page", get(councilQuery("prompt", councilPrompt), "Sec-Fetch-Site: same-site"), 403, "bad_origin", ""},
		{"an unknown council", get(councilQuery("id", "unknown")), 404, "not_found", ""},
		{"an id that none can have", get(councilQuery("id", "a:b c")), 404, "not_found", ""},
		{"an unknown council, come back to", get(councilQuery("prompt", councilPrompt), "Last-Event-ID: council:unknown/1-0/0"), 404, "not_found", ""},
	})
	if s := h.stats(t).Council; s.Begun != 0 {
		t.Fatalf("%d councils were begun by requests that were refused", s.Begun)
	}
	posted := h.watch(t, sse, postCouncil(`{"prompt":"`+councilPrompt+`"}`, "Origin: https://app.example.com"))
	if got := posted.response.Header.Get("Access-Control-Allow-Origin"); got != "https://app.example.com" {
		t.Errorf("Access-Control-Allow-Origin is %q", got)
	}
	odd := h.watch(t, sse, get(councilQuery("prompt", councilPrompt, "lastEventId", "nonsense")))
	h.check(t, []row{
		{"a third at once", get(councilQuery("prompt", councilPrompt)), 429, "rate_limited", "Retry-After: 5"},
		{"another user", request("DELETE", councilQuery("id", posted.id, "userId", "2")), 404, "not_found", ""},
		{"ended by its address' own", request("DELETE", councilQuery("id", posted.id)), 204, "", ""},
	})
	o.end("gpt", 0.5)
	odd.hearsOut(t)
	posted.hearsOut(t)
	often := h.ask(t, get(councilQuery("prompt", councilPrompt)))
	if often.status != 429 || often.code(t) != "rate_limited" {
		t.Errorf("the third in a minute gets %d: %s", often.status, often.body)
	}
	if wait := often.header.Get("Retry-After"); len(wait) == 0 || len(wait) > 2 || wait == "0" {
		t.Errorf("Retry-After is %q", wait)
	}
}

func postCouncil(body string, header ...string) string {
	return strings.Replace(post(body, header...), "/api/publish", councilRoute, 1)
}

// withHeader adds a line to the head of a request.
func withHeader(request, line string) string {
	return strings.Replace(request, "Host: HOST\n", "Host: HOST\n"+line+"\n", 1)
}

// mintAll may publish wherever anybody may.
var mintAll = auth.MintClaims{User: "one", Publish: []string{"*"}}

// A gateway that drains begins no councils: its clients come back elsewhere.
func TestCouncilWhileDraining(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	h := serveWith(t, gateway.Options{Council: o.settings(), Limits: gateway.Limits{DrainTimeout: 5 * time.Second}}, councilTimings)
	v := h.watch(t, sse, get(councilQuery("prompt", councilPrompt)))
	h.cancel()
	heard := v.until(t, "the end", func(one heard) bool { return one.kind == heardEnd || one.kind == heardCut })
	if heard.kind != heardEnd || !v.decoder.HasRetry {
		t.Errorf("it heard %v", heard)
	}
	<-h.ended
	within(t, patience, "the upstream sees its requests end", func() bool { return o.ended() == 2 })
}
