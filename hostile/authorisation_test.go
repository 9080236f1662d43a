package hostile

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
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
		id: "F4", sent: "rights taken away under a stream of events; webhooks that hang, fail and are gone", authenticated: true,
		counts:  map[string]int{"request access_denied": some, "request broker_unavailable": maybe, "end disconnected": 3},
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

// withWebhooks makes namespaces whose webhooks are no good.
func withWebhooks(w *world) {
	hanging, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel, and nobody answers
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { hanging.Close() })
	failing, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { failing.Close() })
	go func() {
		for {
			c, err := failing.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			_, _ = c.Read(make([]byte, 4096))
			_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"allow\":true")) // and no more
			c.Close()
		}
	}()
	hook := func(name, address string) string {
		return fmt.Sprintf("  %s:\n    access: webhook\n    on_denied: error\n    webhook: {url: %q, timeout: 500ms}\n", name, "http://"+address+"/may")
	}
	w.abuse.file = "namespaces:\n  job_progress: {access: user}\n" +
		hook("hanging", hanging.Addr().String()) + hook("failing", failing.Addr().String()) + hook("gone", freeAddress(w.T))
}

func withdrawn(w *world) {
	alice := w.secret(sign(claimsOf("alice")))
	for _, name := range []string{"hanging:1", "failing:1", "gone:1"} {
		response, _ := w.asked("GET /api/stream?channel="+name+" HTTP/1.1", bearer(alice)[0])
		if response.StatusCode != 403 && response.StatusCode != 503 {
			w.Errorf("%s was answered %d: a webhook that does not answer must deny", name, response.StatusCode)
		}
		s := w.websocket("/ws", bearer(alice)...)
		s.await("connected")
		if answer := s.reply(`{"type":"subscribe","channel":"` + name + `"}`); answer.Type != "error" {
			w.Errorf("%s on a WebSocket was answered with %s", name, answer.text)
		}
		s.Close()
	}
	// The right goes while events come: what is published after the acknowledgement does not arrive.
	const channel = "job_progress:bystander" // which the feed fills
	streams := []*stream{w.stream("/api/stream?channel="+channel, bearer(alice)...).live(), w.stream("/api/stream?channel="+channel, bearer(alice)...).live()}
	socket := w.websocket("/ws?channel="+channel, bearer(alice)...)
	for range 3 {
		streams[0].await("an event", func(e sseEvent) bool { return parsed(e.data).N > 0 })
	}
	if status, body := w.gateway.ask("POST", "/api/admin/unsubscribe?user=alice&channel="+channel); status != 200 || !strings.Contains(string(body), `"unsubscribed":3`) {
		w.Fatalf("unsubscribing was answered %d %s", status, body)
	}
	last := w.feed.last() + 1 // one may be on its way to be published
	w.within(patience, "the feed goes on", func() bool { return w.feed.last() > last+20 })
	if status, body := w.gateway.ask("POST", "/api/admin/disconnect?user=alice"); status != 200 {
		w.Fatalf("disconnecting was answered %d %s", status, body)
	}
	heard := 0
	for _, s := range streams {
		for {
			e, err := s.next()
			if err != nil {
				break
			}
			heard = max(heard, parsed(e.data).N)
		}
	}
	for {
		text, err := socket.text()
		if err != nil {
			break
		}
		heard = max(heard, parsed(text).N)
	}
	if heard > last || heard == 0 {
		w.Errorf("event %d came, and the right was gone at %d", heard, last)
	}
	w.note("403 where the webhook hangs, breaks off or is gone; after the acknowledgement of an unsubscribe no later event came")
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
	for _, path := range []string{"/api/admin/explain?client=1", "/metrics", "/api/presence?channel=user:2"} {
		if response, _ := w.asked("GET "+path+" HTTP/1.1", alice); response.StatusCode != 404 && response.StatusCode != 403 {
			w.Errorf("%s was answered %d", path, response.StatusCode)
		}
	}
	if _, body := w.asked("GET /api/realtime/stats HTTP/1.1", alice); strings.Contains(body, "user:2") || strings.Contains(body, "bob") {
		w.Errorf("the statistics name a channel or a user: %s", body)
	}
	w.note("403 and access_denied, in the same words whether the channel lives or not; nothing in statistics or replay")
}
