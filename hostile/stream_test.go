package hostile

import (
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode"
)

// eventStreamCases are the cases of letter B: SSE.
var eventStreamCases = []abuse{
	{
		id: "B1", sent: "events whose type or id holds LF, CR, CRLF or NUL, by PUBLISH", redis: true,
		file: "namespaces:\n  job_progress:\n    id_field: id\n",
		do:   forgedFields,
	},
	{
		id: "B2", sent: "payloads with CR, LF, CRLF, U+2028, a leading space, nothing, 1,000,000 bytes on a line", redis: true,
		do: lineEnds,
	},
	{
		id: "B3", sent: "ids to go on from: 64 KiB, controls, another epoch's, another channel's, numbers past 2^63",
		arguments: []string{"--max-header-bytes", "128KiB"},
		counts:    map[string]int{"gap unknown_position": some, "desk bad_request": 2},
		do:        strangeIDs,
	},
	{
		id: "B4", sent: "half-closes, and resets while events are written",
		do: halfClosed,
	},
	{
		id: "B5", sent: "nothing for 16 s, as a proxy that ends idle connections would see it",
		do: idleStream,
	},
}

// forgedFields publishes what would forge a field if it were written as it is.
func forgedFields(w *world) {
	s := w.stream("/api/stream?channel=job_progress:b1").live()
	bad := []string{
		`a\nevent: forged`, `a\rdata: forged`, `a\r\n\r\ndata: forged`, `a\u0000b`, `\n`, `a\u2028b`, `a\u0085b`, `a: b`, ``, strings.Repeat("a", 100_000),
	}
	var payloads []string
	for _, text := range bad {
		payloads = append(payloads, `{"type":"`+text+`","n":0}`, `{"id":"`+text+`","retry":"`+text+`"}`)
	}
	for _, payload := range payloads {
		w.publish("job_progress:b1", payload)
	}
	for _, payload := range payloads {
		e, err := s.next()
		if err != nil {
			w.Fatal(err)
		}
		if e.data != payload {
			w.Fatalf("published %.80q, heard %.80q", payload, e.data)
		}
		if e.name != "message" {
			w.Errorf("%.80q came as the event %q", payload, e.name)
		}
		if strings.ContainsFunc(e.id, unicode.IsControl) || strings.Contains(e.id, "forged") || len(e.id) > 1024 {
			w.Errorf("%.80q came with the id %q", payload, e.id)
		}
	}
	w.note("%d events, each once, all named message, no forged field", len(payloads))
}

func lineEnds(w *world) {
	s := w.stream("/api/stream?channel=job_progress:b2").live()
	payloads := []string{
		"{\"a\":\r1}", "{\"a\":\n1}", "{\"a\":\r\n1}", "\r\n{\"a\":1}\n", "\n\n\"x\"\r\r", "{\"a\":1}\n\r\n", "\"\u2028\u2029\"", " {\"a\":1}", "  1", `""`,
		`"` + strings.Repeat("a", 1_000_000) + `"`, "\t[]",
	}
	for _, payload := range payloads {
		w.publish("job_progress:b2", payload)
	}
	normal := strings.NewReplacer("\r\n", "\n", "\r", "\n")
	for _, payload := range payloads {
		e, err := s.next()
		if err != nil {
			w.Fatal(err)
		}
		if e.data != normal.Replace(payload) {
			w.Errorf("published %.80q, heard %.80q", payload, e.data)
		}
	}
	w.note("%d events, each once and whole, line ends as LF", len(payloads))
}

func strangeIDs(w *world) {
	w.publish("job_progress:b3", `{"old":1}`)
	w.publish("job_progress:other", `{"old":2}`)
	ids := map[string]string{
		"64 KiB":               strings.Repeat("a", 64<<10),
		"an unknown epoch":     "job_progress:b3/zzzzzzzz.1",
		"another channel":      "job_progress:other/zzzzzzzz.1",
		"past 2^63":            "job_progress:b3/zzzzzzzz.9223372036854775808",
		"past 2^64":            "job_progress:b3/zzzzzzzz.99999999999999999999",
		"a bare number":        "99999999999999999999",
		"a negative one":       "job_progress:b3/zzzzzzzz.-1",
		"a log's":              "job_progress:b3/18446744073709551615-18446744073709551615/18446744073709551615",
		"letters":              "job_progress:b3/é.1",
		"many slashes":         strings.Repeat("/", 1000),
		"an unknown id_field":  "job_progress:b3/=nothing",
		"an empty position":    "job_progress:b3/",
		"a channel of its own": "a:b",
	}
	for name, id := range ids {
		for place, path := range map[string]string{"header": "", "query": "&lastEventId=" + url.QueryEscape(id)} {
			var lines []string
			if path == "" {
				lines = []string{"Last-Event-ID: " + id}
			}
			s := w.stream("/api/stream?channel=job_progress:b3"+path, lines...).live()
			e := s.await("anything", func(e sseEvent) bool { return e.data != "" })
			if e.name != "gap" || !strings.Contains(e.data, "unknown_position") || !strings.Contains(e.data, "job_progress:b3") {
				w.Errorf("%s in the %s: the first event is %s %.200s, want a gap", name, place, e.name, e.data)
			}
			s.Close()
		}
	}
	for name, control := range map[string]string{"NUL": "\x00", "escape": "\x1b"} {
		w.refused(name, w.head("GET /api/stream?channel=job_progress:b3 HTTP/1.1", "Host: HOST", "Last-Event-ID: a"+control+"b"), 400)
	}
	s := w.stream("/api/stream?channel=job_progress:b3&lastEventId=%00%0d%0aid:%20forged").live()
	if e := s.await("anything", func(e sseEvent) bool { return e.data != "" }); e.name != "gap" || strings.Contains(s.lastID, "forged") {
		w.Errorf("controls in the query: the first event is %s %q with id %q, want a gap", e.name, e.data, s.lastID)
	}
	w.publish("job_progress:b3", `{"live":1}`)
	s.await("what is live", func(e sseEvent) bool { return e.data == `{"live":1}` })
	w.note("a gap (unknown_position), then live, for %d ids in both places; 400 for raw control bytes", len(ids))
}

// halfClosed ends streams in the two ways of TCP, and wants everything of theirs gone at once.
func halfClosed(w *world) {
	count := crowd(40)
	var streams []*stream
	for range 2 * count {
		streams = append(streams, w.stream("/api/stream?channel=job_progress:b4").live())
	}
	stop := make(chan struct{})
	done := make(chan struct{})
	payload := `{"fill":"` + strings.Repeat("x", 2000) + `"}`
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				w.publish("job_progress:b4", payload)
			}
		}
	}()
	for _, s := range streams[:count] {
		if err := s.CloseWrite(); err != nil {
			w.Error(err)
		}
		if _, err := s.next(); err == nil {
			for err == nil {
				_, err = s.next()
			}
		}
	}
	for _, s := range streams[count:] {
		s.reset()
	}
	w.within(patience, "every subscription is given back", func() bool {
		s, err := w.gateway.stats()
		return err == nil && s.Channels.Subscriptions == len(w.bystanders)
	})
	close(stop)
	<-done
	used := w.cpu()
	<-time.After(time.Second)
	if used = w.cpu() - used; used > 700*time.Millisecond {
		w.Errorf("with nobody left the gateway uses %v of processor time in a second: it spins", used)
	}
	w.held("%d event streams, 200 events of 2 KB a second", 2*count)
	w.note("half-close ends the stream; a reset frees it; all subscriptions gone")
}

func idleStream(w *world) {
	s := w.stream("/api/stream?channel=job_progress:b5")
	for name, want := range map[string]string{"Cache-Control": "no-store", "X-Accel-Buffering": "no"} {
		if got := s.header.Get(name); !strings.Contains(got, want) {
			w.Errorf("%s is %q, want %s", name, got, want)
		}
	}
	s.live()
	w.publish("job_progress:b5", `{"a":1}`)
	id := s.await("an event", func(e sseEvent) bool { return e.data != "" }).id
	began := time.Now()
	e, err := s.next()
	if err != nil {
		w.Fatal(err)
	}
	took := time.Since(began)
	if e.comment != "keep-alive" || e.id != id || id == "" {
		w.Errorf("an idle stream heard %+v, want a comment that leaves the id %q as it is", e, id)
	}
	if took < 10*time.Second {
		w.Errorf("the comment came after %v, want about 15 s", took)
	}
	w.note("`: keep-alive` after %s; the last id stays; no-store, X-Accel-Buffering: no", fmt.Sprintf("%.1f s", took.Seconds()))
}
