package hostile

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/processtest"
)

// parseCases are the cases of letter A: HTTP parse.
var parseCases = []abuse{
	{
		id: "A1", sent: "heads that come one byte at a time, or never, to a gateway of 1,024 descriptors",
		arguments: []string{"--handshake-timeout", "3s"}, descriptors: 1024,
		counts: map[string]int{"desk handshake_slow": some, "desk connections": maybe},
		do:     slowHeads,
	},
	{
		id: "A2", sent: "a header line of 64 KiB, 20,000 short headers, 101 headers, an address of 100 KiB",
		counts: map[string]int{"desk head_too_large": 3, "desk uri_too_long": 1},
		do:     largeHeads,
	},
	{
		id: "A3", sent: "two lengths, lengths that are none, codings, bodies on GET, each with a request hidden in the body",
		counts: map[string]int{"desk bad_request": len(lengthHeads)},
		do:     func(w *world) { badHeads(w, "POST", lengthHeads) },
	},
	{
		id: "A4", sent: "spaces before colons, folded lines, empty names, bare CR, NUL",
		counts: map[string]int{"desk bad_request": len(lineHeads)},
		do:     func(w *world) { badHeads(w, "GET", lineHeads) },
	},
	{
		id: "A5", sent: "two of each of Host, Origin, Authorization, Sec-WebSocket-Key and -Version",
		counts: map[string]int{"desk bad_request": 5},
		do:     duplicateHeads,
	},
	{
		id: "A6", sent: "requests behind an event stream's, frames behind a handshake, frames behind a refused one",
		counts: map[string]int{"request bad_request": 1, "desk bad_request": 1},
		do:     behindHeads,
	},
	{
		id: "A7", sent: "HTTP/2's preface, a TLS hello, PROXY headers, random bytes",
		arguments: []string{"--handshake-timeout", "2s"},
		counts:    map[string]int{"desk bad_request": some, "desk proxy_header": some, "desk handshake_slow": maybe, "desk version": maybe, "desk uri_too_long": maybe},
		do:        otherProtocols,
	},
	{
		id: "A8", sent: "paths with //, escapes, .., ;x, NUL, absolute addresses, towards the admin routes",
		counts: map[string]int{"desk bad_request": some, "request not_found": some},
		do:     pathTricks,
	},
}

// slowHeads opens more connections than the desk takes, half of them silent, half sending a byte
// now and then, and wants all gone in time.
func slowHeads(w *world) {
	const (
		count     = 400
		desk      = 1024 / 4 // the share of the descriptors that such connections may have
		handshake = 3 * time.Second
	)
	began := time.Now()
	var sockets []*connection
	for range count {
		sockets = append(sockets, w.dial())
	}
	// On a very slow machine the first are gone before the last has come.
	quick := time.Since(began) < handshake/2
	if refused := processtest.Poll(handshake/4, func() bool { return w.counted()["desk connections"] > 0 }); quick && !refused {
		w.Errorf("%d connections at once, and none was closed at accept", count)
	}
	costs := w.measured()
	if costs.descriptors > desk+64 {
		w.Errorf("%d silent connections hold %d descriptors: the desk may have %d", count, costs.descriptors, desk)
	}
	head := w.head("GET /healthz HTTP/1.1", "Host: HOST", "X-Slow: "+strings.Repeat("a", 4000))
	ended := make(chan struct{})
	go func() { // a byte each, until all have ended: had each restarted the time, none would end
		defer close(ended)
		for i := 0; i < len(head) && time.Since(began) < patience; i++ {
			for n := 0; n < count; n += 2 {
				sockets[n].say(head[i : i+1])
			}
			time.Sleep(100 * time.Millisecond)
			if time.Since(began) > 2*handshake+time.Second {
				return
			}
		}
	}()
	told, silent := 0, 0
	for _, c := range sockets {
		rest, over := c.over()
		switch {
		case !over:
			w.Fatalf("a connection without a whole head still lives after %v", time.Since(began))
		case strings.HasPrefix(string(rest), "HTTP/1.1 408 "):
			told++
		case len(rest) == 0:
			silent++
		default:
			w.Errorf("a slow head was answered %.60q", rest)
		}
	}
	took := time.Since(began)
	<-ended
	if took < handshake/2 || told == 0 {
		w.Errorf("%d were told 408 and all were gone after %v, want some, after %v", told, took, handshake)
	}
	w.held("%d connections, %d descriptors of 1,024 in use", count, costs.descriptors)
	w.note("408 to %d, a plain close to %d, all gone %.1f s after the first connected (limit 3 s)", told, silent, took.Seconds())
}

func largeHeads(w *world) {
	w.refused("a long line", w.head("GET / HTTP/1.1", "Host: HOST", "X-Long: "+strings.Repeat("a", 64<<10)), 431)
	w.refused("many headers", w.head("GET / HTTP/1.1", "Host: HOST", strings.Repeat("A: b\r\n", 20_000)+"C: d"), 431)
	w.refused("a long address", w.head("GET /"+strings.Repeat("a", 100<<10)+" HTTP/1.1", "Host: HOST"), 414)
	w.refused("101 header lines", w.head("GET / HTTP/1.1", "Host: HOST"+strings.Repeat("\r\nA: b", 100)), 431)
	if response, _ := w.asked("GET /healthz HTTP/1.1" + strings.Repeat("\r\nA: b", 98)); response.StatusCode != 200 {
		w.Errorf("100 header lines were answered with %d, want 200", response.StatusCode)
	}
	w.note("431 three times and 414, each with a close; 100 header lines are taken")
}

// badHead is a head that must be refused: the version, and the header lines behind Host.
type badHead struct {
	name, method, version string
	lines                 string
}

const hidden = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

var lengthHeads = []badHead{
	{"both lengths", "", "", "Content-Length: 4\r\nTransfer-Encoding: chunked"},
	{"both lengths, the other way", "", "", "Transfer-Encoding: chunked\r\nContent-Length: 4"},
	{"differing lengths", "", "", "Content-Length: 4\r\nContent-Length: 5"},
	{"a list of lengths", "", "", "Content-Length: 4, 4"},
	{"signed", "", "", "Content-Length: +5"},
	{"negative", "", "", "Content-Length: -5"},
	{"hexadecimal", "", "", "Content-Length: 0x5"},
	{"empty", "", "", "Content-Length: "},
	{"2^64", "", "", "Content-Length: 18446744073709551616"},
	{"a coding on HTTP/1.0", "", "HTTP/1.0", "Transfer-Encoding: chunked"},
	{"another coding", "", "", "Transfer-Encoding: gzip, chunked"},
	{"an unknown coding", "", "", "Transfer-Encoding: xchunked"},
	{"a coding with a tab", "", "", "Transfer-Encoding: \x0bchunked"},
	{"a body on GET", "GET", "", "Content-Length: 4"},
	{"chunks on GET", "GET", "", "Transfer-Encoding: chunked"},
	{"a body on a handshake", "GET", "", "Content-Length: 4\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="},
}

var lineHeads = []badHead{
	{"a space before the colon", "", "", "X-A : b"},
	{"a tab before the colon", "", "", "X-A\t: b"},
	{"a folded line", "", "", "X-A: b\r\n c"},
	{"an indented first line", "", "", " X-A: b"},
	{"an empty name", "", "", ": b"},
	{"no colon", "", "", "X-A"},
	{"a bare CR", "", "", "X-A: b\rX-B: c"},
	{"a NUL in a value", "", "", "X-A: b\x00c"},
	{"a NUL in a name", "", "", "X-\x00A: b"},
	{"an escape in a value", "", "", "X-A: \x1b[31m"},
	{"a DEL", "", "", "X-A: \x7f"},
	{"letters beyond ASCII in a name", "", "", "X-\xc3\xa9: b"},
}

// badHeads wants 400 and the end for each, and nothing of the request behind it.
func badHeads(w *world, method string, heads []badHead) {
	for _, one := range heads {
		if one.method == "" {
			one.method = method
		}
		if one.version == "" {
			one.version = "HTTP/1.1"
		}
		path := "/api/publish"
		if one.method == "GET" {
			path = "/api/realtime/stats"
		}
		w.refused(one.name, w.head(one.method+" "+path+" "+one.version, "Host: HOST", one.lines)+hidden, 400)
	}
	w.note("%d times 400 and a close; nothing behind was read as a request", len(heads))
}

func duplicateHeads(w *world) {
	for _, name := range []string{"Host: HOST", "Origin: http://HOST", "Authorization: Bearer a", handshake[3], handshake[4]} {
		lines := append([]string{"GET /ws HTTP/1.1"}, handshake...)
		if !strings.HasPrefix(name, "Host") && !strings.HasPrefix(name, "Sec-") {
			lines = append(lines, name)
		}
		w.refused(name, w.head(append(lines, name)...), 400)
	}
	w.note("5 times 400")
}

func behindHeads(w *world) {
	// A request behind an event stream's is not read: what the stream brings is its own.
	c := w.dial()
	c.say(w.head("GET /api/stream?channel=job_progress:a6 HTTP/1.1", "Host: HOST") + hidden +
		string(httpPublish("", "job_progress:a6", `{"forged":true}`)))
	s := c.stream().live()
	w.publish("job_progress:a6", `{"real":true}`)
	if e := s.await("an event", func(e sseEvent) bool { return e.data != "" }); e.data != `{"real":true}` {
		w.Errorf("behind a pipelined request the stream brought %q", e.data)
	}
	// Frames in the handshake's segment, and cut in the middle, are frames.
	for _, cut := range []int{0, 1, 20} {
		c := w.dial()
		lines := w.head(append([]string{"GET /ws HTTP/1.1"}, handshake...)...)
		early := frame(fin|opText, `{"type":"ping","ref":"early"}`)
		c.say(lines + early[:cut])
		c.say(early[cut:])
		if pong := c.upgraded().await("pong"); pong.Ref != "early" {
			w.Errorf("a frame cut at %d was answered with %s", cut, pong.text)
		}
	}
	// Frames behind a handshake that is refused are not carried out.
	for name, bad := range map[string]string{"a bad key": "Sec-WebSocket-Key: short", "a bad version line": "Sec-WebSocket-Version : 13"} {
		c := w.dial()
		lines := append([]string{"GET /ws HTTP/1.1"}, handshake[:3]...)
		if name == "a bad key" {
			lines = append(lines, handshake[3])
		}
		c.say(w.head(append(lines, bad)...) + frame(fin|opText, `{"type":"publish","channel":"job_progress:a6","event":{"forged":true}}`))
		if response, _ := c.answer(); response.StatusCode != http.StatusBadRequest {
			w.Errorf("%s was answered with %s", name, response.Status)
		}
		if rest, ended := c.over(); !ended || strings.Contains(string(rest), "published") {
			w.Errorf("%s: behind the refusal came %q", name, rest)
		}
	}
	w.publish("job_progress:a6", `{"last":true}`)
	if e := s.await("an event", func(e sseEvent) bool { return e.data != "" }); e.data != `{"last":true}` {
		w.Errorf("a refused handshake's frame was carried out: the stream brought %q", e.data)
	}
	w.note("the stream goes on and nothing behind it is read; early frames are answered; frames behind a refusal are not carried out")
}

// otherProtocols sends what is no HTTP, and wants a refusal or an end in time, and never 200.
func otherProtocols(w *world) {
	random := rand.New(rand.NewPCG(1, 7))
	noise := func(first byte) string {
		text := []byte{first}
		for range 4000 {
			text = append(text, byte(random.Uint32()))
		}
		return string(text)
	}
	sent := map[string]string{
		"HTTP/2":              "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
		"TLS":                 "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x5a", 500),
		"PROXY v1":            "PROXY TCP4 10.9.8.7 10.0.0.1 1 2\r\n" + hidden,
		"PROXY v2":            "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x0a\x09\x08\x07\x0a\x00\x00\x01\x00\x01\x00\x02" + hidden,
		"PROXY v2, too long":  "\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff\x0a\x09\x08\x07",
		"PROXY v2, too short": "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x00\x0a\x09\x08\x07" + hidden,
		"a Redis command":     "*1\r\n$4\r\nPING\r\n",
		"an empty line":       "\n",
	}
	for i := range 40 {
		sent[fmt.Sprintf("noise %d", i)] = noise(byte(i * 6))
	}
	refused, closed := 0, 0
	for name, bytes := range sent {
		c := w.dial()
		began := time.Now()
		c.say(bytes)
		rest, ended := c.over()
		switch {
		case !ended || time.Since(began) > patience/2:
			w.Errorf("%s: still open after %v", name, time.Since(began))
		case strings.HasPrefix(string(rest), "HTTP/1.1 4") || strings.HasPrefix(string(rest), "HTTP/1.1 505"):
			refused++
			if strings.Count(string(rest), "HTTP/1.1 ") > 1 {
				w.Errorf("%s: answered more than once: %.200q", name, rest)
			}
		case len(rest) == 0:
			closed++
		default:
			w.Errorf("%s: answered with %.80q", name, rest)
		}
		c.Close()
	}
	w.note("%d refused with one answer, %d closed without", refused, closed)
}

// pathTricks looks for a way from the public listener to routes that are not there.
func pathTricks(w *world) {
	paths := []string{
		"//healthz", "/%68ealthz", "/api/../metrics", "/api/%2e%2e/metrics", "/healthz;x", "/healthz/", "/healthz%00", "/healthz%2f",
		"/%2fmetrics", "//metrics", "/metrics", "/metrics/", "/METRICS", "/debug/pprof/", "/debug/pprof/heap", "/debug//pprof/", "/./metrics",
		"/api/admin/explain?client=1", "/api/admin/../admin/explain", "/api\\admin", "/metrics?", "/metrics#x", "http://HOST/metrics",
		"http://HOST//metrics", "http://evil.example/metrics", "http:///metrics", "HTTP://HOST/metrics", "/metrics%20", "/admin", "*",
	}
	for _, path := range paths {
		response, body := w.asked("GET " + path + " HTTP/1.1")
		if response.StatusCode != 400 && response.StatusCode != 404 {
			w.Errorf("%s was answered with %d", path, response.StatusCode)
		}
		if strings.Contains(body, "millrace_") || strings.Contains(body, "profile") {
			w.Errorf("%s reached an admin route: %.100s", path, body)
		}
	}
	for _, path := range []string{"/healthz", "http://HOST/healthz"} {
		if response, _ := w.asked("GET " + path + " HTTP/1.1"); response.StatusCode != 200 {
			w.Errorf("%s was answered with %d, want 200", path, response.StatusCode)
		}
	}
	w.note("400 or 404 to all %d; one form of each path is served", len(paths))
}
