package hostile

import (
	"fmt"
	"net/url"
	"strings"
)

// authorisationCases are the cases of letter F.
var authorisationCases = []abuse{
	{
		id: "F1", sent: "handshakes with a user's cookie from foreign, null, absent and look-alike origins", authenticated: true,
		arguments: []string{"--allowed-origins", "https://good.example"},
		counts:    map[string]int{"request bad_origin": some},
		do:        foreignOrigins,
	},
	{
		id: "F2", sent: "event streams and preflights with credentials from foreign origins", authenticated: true,
		arguments: []string{"--allowed-origins", "https://good.example"},
		counts:    map[string]int{"request bad_origin": some},
		do:        foreignStreams,
	},
	{
		id: "F3", sent: "channels that differ from the granted one by case, escapes, dots, stars, prefixes", authenticated: true,
		file:   "namespaces:\n  job_progress: {access: user}\n  user: {access: token, on_denied: error}\n  alerts: {access: owner, on_denied: error}\n  default: {access: none, on_denied: error}\npersonal: []\n",
		counts: map[string]int{"request access_denied": some, "request bad_channel": some, "request bad_request": maybe},
		do:     nearlyGranted,
	},
	{
		id: "F4", sent: "rights taken away under a stream of events, while a webhook is asked, while Redis is away, of streams on two gateways; webhooks that hang, fail and are gone",
		authenticated: true, redis: true, gaps: true,
		counts: map[string]int{
			"request access_denied": some, "request broker_unavailable": maybe, "end disconnected": some, "gap broker": maybe, "loss": maybe,
		},
		prepare: withWebhooks, do: withdrawn,
	},
	{
		id: "F5", sent: "positions of channels that are not granted, and questions that would tell what exists", authenticated: true,
		file:   "namespaces:\n  job_progress: {access: user}\n  user: {access: token, on_denied: error}\n",
		counts: map[string]int{"request access_denied": some, "request not_found": some, "gap unknown_position": 1},
		do:     curious,
	},
}

func foreignOrigins(w *world) {
	cookie := "Cookie: millrace_token=" + w.secret(sign(claimsOf("alice")))
	bad := []string{
		"https://evil.example", "null", "https://good.example.evil.example", "https://evilgood.example", "http://good.example", "https://good.example:444",
		"https://good.example/", "https://GOOD.example@evil.example", "https://good.example evil", "https://", "good.example", "file://", "https://xgood.example",
		"ws://HOST", "http://127.0.0.1", "*", "",
	}
	refused := 0
	for _, origin := range bad {
		for _, path := range []string{"/ws", "/api/stream?channel=job_progress:f1"} {
			lines := append([]string{"GET " + path + " HTTP/1.1", cookie, "Origin: " + origin}, handshake...)
			c := w.dial()
			c.say(w.head(lines...))
			response, _ := c.answer()
			if response.StatusCode != 403 {
				w.Errorf("the origin %q at %s with a cookie was answered %d, want 403", origin, path, response.StatusCode)
			}
			if allowed := response.Header.Get("Access-Control-Allow-Origin"); allowed != "" {
				w.Errorf("the origin %q was answered with Access-Control-Allow-Origin %q", origin, allowed)
			}
			refused++
			c.Close()
		}
	}
	c := w.dial()
	c.say(w.head(append([]string{"GET /ws HTTP/1.1", cookie}, handshake...)...))
	if response, _ := c.answer(); response.StatusCode != 403 {
		w.Errorf("a cookie without an Origin was answered %d, want 403", response.StatusCode)
	}
	for _, origin := range []string{"https://good.example", "http://HOST"} {
		w.websocket("/ws", cookie, "Origin: "+origin).await("connected")
	}
	open := start{arguments: []string{"--auth-hmac-secret", hmacSecret, "--allowed-origins", "*"}, unready: true}.run(w.T)
	if code := open.exit(w.T, patience); code != 2 {
		w.Errorf("a gateway with allowed-origins * ended with %d, want 2", code)
	}
	w.note("403 before any 101 or 200, %d times; exact match only; `allowed-origins: *` is refused at start", refused+1)
}

func foreignStreams(w *world) {
	good := bearer(w.secret(sign(claimsOf("alice"))))[0]
	for _, origin := range []string{"https://evil.example", "null", "https://good.example.evil.example"} {
		for _, line := range []string{
			"GET /api/stream?channel=job_progress:f2 HTTP/1.1", "GET /api/realtime/stats HTTP/1.1", "OPTIONS /api/stream HTTP/1.1", "OPTIONS /api/publish HTTP/1.1",
		} {
			response, _ := w.asked(line, good, "Origin: "+origin, "Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization")
			if got := response.Header.Get("Access-Control-Allow-Origin"); got != "" {
				w.Errorf("%s from %s: Access-Control-Allow-Origin is %q", line, origin, got)
			}
			if !strings.Contains(response.Header.Get("Vary"), "Origin") {
				w.Errorf("%s from %s: Vary is %q", line, origin, response.Header.Get("Vary"))
			}
			if strings.Contains(line, "/api/stream?") && response.StatusCode != 403 {
				w.Errorf("%s from %s: answered %d, want 403", line, origin, response.StatusCode)
			}
		}
	}
	s := w.stream("/api/stream?channel=job_progress:f2", good, "Origin: https://good.example")
	if s.header.Get("Access-Control-Allow-Origin") != "https://good.example" || s.header.Get("Access-Control-Allow-Credentials") != "true" ||
		!strings.Contains(s.header.Get("Vary"), "Origin") {
		w.Errorf("the listed origin is answered with %v", s.header)
	}
	s.live()
	w.note("no Access-Control-Allow-Origin for a foreign origin, never `*`; `Vary: Origin`; the listed one by name")
}

// nearlyGranted asks for what differs from user:1 (granted) and alerts:1 (owned) by a little.
func nearlyGranted(w *world) {
	claims := claimsOf("1")
	claims["channels"] = []string{"user:1", "team:*"}
	good := w.secret(sign(claims))
	near := []string{
		"user:10", "user:01", "User:1", "USER:1", "user:1.", "user:1*", "user:1 ", " user:1", "user:*", "user:", "user:1:2", "user:1:1", "user:１", "user:1\x00",
		"user:1%2F", "team:1", "users:1", "alerts:10", "alerts:2", "alerts:1:2", "alerts:*", "*:1", "*",
	}
	for _, name := range near {
		c := w.dial()
		c.say(w.head("GET /api/stream?channel="+url.QueryEscape(name)+" HTTP/1.1", "Host: HOST", bearer(good)[0]))
		if response, body := c.answer(); response.StatusCode != 403 && response.StatusCode != 400 {
			w.Errorf("%q was answered %d %s", name, response.StatusCode, body)
		}
		c.Close()
	}
	s := w.websocket("/ws", bearer(good)...)
	s.await("connected")
	for _, name := range near {
		if strings.ContainsAny(name, "\x00") {
			continue
		}
		if answer := s.reply(fmt.Sprintf(`{"type":"subscribe","channel":%q}`, name)); answer.Type != "error" {
			w.Errorf("%q on a WebSocket was answered with %s", name, answer.text)
		}
	}
	for _, path := range []string{"user:1", "user%3A1", "%75ser:1", "alerts:1", "alerts:x:1"} {
		w.stream("/api/stream?channel="+path, bearer(good)...).live().Close()
	}
	w.note("403 or 400 for %d near misses on both wires; the granted ones in every escape", len(near))
}

func curious(w *world) {
	claims := claimsOf("alice")
	claims["channels"] = []string{"user:1"}
	alice := bearer(w.secret(sign(claims)))[0]
	owner := claimsOf("bob")
	owner["channels"] = []string{"user:2"}
	s := w.stream("/api/stream?channel=user:2", bearer(w.secret(sign(owner)))...).live()
	w.publish("user:2", `{"secret":"`+payloadMark+`"}`)
	id := s.await("the event", func(e sseEvent) bool { return e.data != "" }).id
	var messages []string
	for _, other := range []string{"user:2", "user:none"} {
		for _, path := range []string{
			"/api/stream?channel=user:1&lastEventId=" + url.QueryEscape(strings.Replace(id, "user:2", other, 1)),
			"/api/stream?channel=user:1&since=" + url.QueryEscape(other+"/0-0/0"),
			"/api/stream?channel=" + other + "&since=0",
		} {
			response, body := w.asked("GET "+path+" HTTP/1.1", alice)
			if response.StatusCode != 403 || strings.Contains(body, payloadMark) {
				w.Errorf("%s was answered %d %s", path, response.StatusCode, body)
			}
			messages = append(messages, strings.ReplaceAll(body, other, "CHANNEL"))
		}
	}
	for i, message := range messages {
		if message != messages[0] {
			w.Errorf("answer %d tells another thing than the first: %s and %s", i, message, messages[0])
		}
	}
	socket := w.websocket("/ws", alice)
	socket.await("connected")
	for _, since := range []string{`"` + id + `"`, `{"user:2":"` + id + `"}`, `"0"`} {
		if answer := socket.reply(`{"type":"subscribe","channel":"user:2","since":` + since + `}`); answer.Code != "access_denied" {
			w.Errorf("since %s was answered with %s", since, answer.text)
		}
	}
	// The granted channel does not replay the other's events by the other's id.
	socket.command(`{"type":"subscribe","channel":"user:1","since":"` + id + `"}`)
	socket.command(`{"type":"ping","ref":"end"}`)
	for {
		text, err := socket.text()
		if err != nil || strings.Contains(text, payloadMark) {
			w.Fatalf("heard %q (%v)", text, err)
		}
		if parsed(text).Type == "pong" {
			break
		}
	}
	for _, path := range []string{"/api/admin/explain?client=1", "/metrics"} {
		if response, _ := w.asked("GET "+path+" HTTP/1.1", alice); response.StatusCode != 404 && response.StatusCode != 403 {
			w.Errorf("%s was answered %d", path, response.StatusCode)
		}
	}
	w.wantNoPresence(alice)
	if _, body := w.asked("GET /api/realtime/stats HTTP/1.1", alice); strings.Contains(body, "user:2") || strings.Contains(body, "bob") {
		w.Errorf("the statistics name a channel or a user: %s", body)
	}
	w.note("403 and access_denied, in the same words whether the channel lives or not; nothing in statistics or replay; who else is there is told nobody, however they ask")
}

// wantNoPresence asks who is there, in the ways of servers that would tell: of a channel that lives and
// is another's, of one that nobody has, and of the own one. The answer is a refusal, and the same for all.
func (w *world) wantNoPresence(alice string) {
	socket := w.websocket("/ws", alice)
	socket.await("connected")
	for _, ask := range []string{
		`{"type":"presence","channel":"CHANNEL"}`, `{"type":"presence_stats","channel":"CHANNEL"}`, `{"type":"who","channel":"CHANNEL"}`,
		`{"type":"history","channel":"CHANNEL"}`, `{"id":1,"presence":{"channel":"CHANNEL"}}`, `{"id":1,"presence_stats":{"channel":"CHANNEL"}}`,
		`{"type":"subscribe","channel":"CHANNEL:presence"}`, `{"type":"subscribe","channel":"__presence:CHANNEL"}`,
		"GET /api/presence?channel=CHANNEL HTTP/1.1", "GET /api/presence_stats?channel=CHANNEL HTTP/1.1", "GET /api/channels HTTP/1.1",
		"GET /api/realtime/channels/CHANNEL HTTP/1.1", "GET /.well-known/mercure/subscriptions HTTP/1.1", "GET /ws/CHANNEL/presence HTTP/1.1",
	} {
		answers := make(map[string]bool)
		for _, channel := range []string{"user:2", "user:none", "user:1"} {
			question, answer, refused := strings.ReplaceAll(ask, "CHANNEL", channel), "", false
			if strings.HasPrefix(question, "{") {
				one := socket.reply(question)
				answer, refused = one.text, one.Type == "error"
			} else {
				response, body := w.asked(question, alice)
				answer, refused = body, response.StatusCode == 404
			}
			if !refused {
				w.Errorf("%s was answered with %s", question, answer)
			}
			answers[strings.ReplaceAll(answer, channel, "CHANNEL")] = true
		}
		if len(answers) != 1 {
			w.Errorf("the answers to %s differ, which tells what exists: %v", ask, answers)
		}
	}
}
