package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/proto"
)

// dispatched is one event as a browser hands it over.
type dispatched struct {
	Event string `json:"event"`
	ID    string `json:"id"`
	Data  string `json:"data"`
}

// judgedNames are the event names that the browser is asked for.
var judgedNames = []string{"message", "alert", " padded", "naïve"}

// judgedStreams are event streams by the rules of WHATWG HTML, 9.2.5 and 9.2.6, one rule each.
var judgedStreams = []struct{ rule, stream string }{
	{"all fields", "id: 7\nevent: alert\ndata: x\nretry: 10\n\n"},
	{"no space behind colons", "id:7\ndata:x\n\n"},
	{"one space only is taken", "data:  x \n\n"},
	{"CR", "data: a\rdata: b\r\r"},
	{"CRLF", "data: a\r\ndata: b\r\n\r\n"},
	{"mixed line ends", "data: a\rdata: b\n\r\ndata: c\n\n"},
	{"field without colon", "data\n\n"},
	{"two empty lines of data", "data\ndata\n\n"},
	{"the standard's example with +2", "data: YHOO\ndata: +2\ndata: 10\n\n"},
	{"the standard's example with a comment", ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n"},
	{"the standard's example of empty data", "data\n\ndata\ndata\n\ndata:"},
	{"the standard's example of the space", "data:test\n\ndata: test\n\n"},
	{"no data, no event", "event: alert\nid: 7\n\ndata: x\n\n"},
	{"the name is forgotten with its event", "event: alert\ndata: x\n\ndata: y\n\n"},
	{"the last name counts", "event: other\nevent: alert\ndata: x\n\n"},
	{"an empty name is message", "event: alert\nevent\ndata: x\n\n"},
	{"id stays", "id: 7\ndata: x\n\ndata: y\n\n"},
	{"empty id resets", "id: 7\ndata: x\n\nid\ndata: y\n\n"},
	{"NUL in the id", "id: 7\x00\ndata: x\n\n"},
	{"id of an unfinished event", "id: 7\ndata: x\n\nid: 8\ndata: y\n"},
	{"id of an event without data", "id: 7\n\ndata: x\n\nid: 9\n\n"},
	{"comments", ": a\n:\ndata: x\n:b\n\n"},
	{"byte order mark", "\xef\xbb\xbfdata: x\n\n"},
	{"two byte order marks", "\xef\xbb\xbf\xef\xbb\xbfdata: x\n\ndata: y\n\n"},
	{"unknown fields", "x: y\nDATA: z\n data: a\ndata: x\n\n"},
	{"retries that are none", "retry: -1\nretry: 1.5\nretry: \nretry: 1 \ndata: x\n\n"},
	{"a colon in the value", "data: a: b\n\n"},
	{"a field named by its colon alone", ":data: x\ndata: y\n\n"},
	{"unfinished", "data: x\n"},
	{"nothing", ""},
}

// randomStreams are put together from what the rules are about.
func randomStreams(random *rand.Rand, count int) (streams []string) {
	words := []string{
		"\n", "\n", "\r", "\r\n", "data", "data", "data: ", "data:", "id", "id: ", "event: alert", "event", "retry: 5",
		":", " ", "x", "é", "\x00", "\u2028", "7", "unknown: ", "\xef\xbb\xbf",
	}
	for range count {
		var stream strings.Builder
		for range 5 + random.IntN(40) {
			stream.WriteString(words[random.IntN(len(words))])
		}
		streams = append(streams, stream.String())
	}
	return streams
}

// encodedStream is what the encoder makes of awkward events, and what must be heard of it.
func encodedStream(random *rand.Rand, form proto.Form, count int) (stream string, want []dispatched) {
	pieces := []string{"\n", "\r", "\r\n", " ", "", "id: forged", "event: forged", "data: forged", "retry: 0", ":", "\x00", "\u2028", "ü", `{"a":1}`}
	var wire []byte
	last := ""
	for n := range count {
		var data strings.Builder
		for range random.IntN(6) {
			data.WriteString(pieces[random.IntN(len(pieces))])
		}
		name := judgedNames[random.IntN(len(judgedNames))]
		id := ""
		if random.IntN(3) > 0 {
			id = "job_progress:j" + strconv.Itoa(n) + "/1-2"
			last = id
		}
		said := name
		if random.IntN(5) == 0 { // cannot be said: it is left out, and forges nothing
			said, name = name+"\nid: forged\ndata: forged\n\n", "message"
		}
		wire = proto.AppendSSE(wire, form, said, id, []byte(data.String()))
		wire = proto.AppendSSEComment(wire, form, "keep-alive")
		text := strings.ReplaceAll(strings.ReplaceAll(data.String(), "\r\n", "\n"), "\r", "\n")
		want = append(want, dispatched{name, last, text})
	}
	return string(proto.AppendSSEEnd(wire, form)), want
}

// decoded is what our own decoder makes of a stream, and the id that it would come back with.
func decoded(stream string) (events []dispatched, lastID string) {
	var d proto.SSEDecoder
	d.Feed([]byte(stream))
	for {
		event, ok := d.Next()
		if !ok {
			return events, d.LastID
		}
		events = append(events, dispatched{event.Event, event.ID, event.Data})
	}
}

// court serves each stream once. To who comes back it says that there is no more, and notes the id
// that was brought.
type court struct {
	heads, streams []string

	mutex   sync.Mutex
	visits  []int
	brought []string
}

func (c *court) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	number, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
	if err != nil || number >= len(c.streams) {
		fmt.Fprint(w, "<!DOCTYPE html>")
		return
	}
	c.mutex.Lock()
	c.visits[number]++
	first := c.visits[number] == 1
	if !first {
		c.brought[number] = r.Header.Get("Last-Event-ID")
	}
	c.mutex.Unlock()
	if !first {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	connection, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err) // the server's own connections can be taken
	}
	defer connection.Close()
	_, _ = connection.Write([]byte(c.heads[number] + c.streams[number])) // a browser that went away shows in what it heard
}

// verdict is the next line that the judge says.
func verdict(t *testing.T, judge *process) string {
	t.Helper()
	select {
	case line, more := <-judge.lines:
		if more {
			return line
		}
		t.Fatalf("the browser ended:\n%s", judge.complaints())
	case <-time.After(3 * patience):
		t.Fatalf("the browser said nothing for %v", 3*patience)
	}
	return ""
}

// TestRulesOfEventStreams has Chromium judge event streams: what it hands over is what our decoder
// makes of the same bytes, and what our encoder was given. The id with which it comes back is the one
// that our decoder has.
func TestRulesOfEventStreams(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(20261126, 6455))
	c := &court{}
	var rules []string
	var want [][]dispatched
	var lastIDs []string
	add := func(rule, head, stream string, events []dispatched, lastID string) {
		rules, want, lastIDs = append(rules, rule), append(want, events), append(lastIDs, lastID)
		c.heads, c.streams = append(c.heads, head), append(c.streams, stream)
	}
	plain := string(proto.AppendSSEHead(nil, false, nil))
	for _, judged := range judgedStreams {
		events, lastID := decoded(judged.stream)
		add(judged.rule, plain, judged.stream, events, lastID)
	}
	for n, stream := range randomStreams(random, 150) {
		events, lastID := decoded(stream)
		add("random stream "+strconv.Itoa(n), plain, stream, events, lastID)
	}
	for name, form := range map[string]proto.Form{"the encoder, in chunks": proto.FormSSE, "the encoder, plain": proto.FormSSEPlain} {
		stream, events := encodedStream(random, form, 300)
		add(name, string(proto.AppendSSEHead(nil, form == proto.FormSSE, nil)), stream, events, events[len(events)-1].ID)
	}
	c.visits, c.brought = make([]int, len(c.streams)), make([]string, len(c.streams))
	server := httptest.NewServer(c)
	defer server.Close()
	judge := start(t, "Chromium as the judge", node(t), append([]string{driver("rules.js"), chromium(t), server.URL, strconv.Itoa(len(rules))}, judgedNames...)...)
	for number, rule := range rules {
		var heard heard
		var got []dispatched
		line := verdict(t, judge)
		if err := json.Unmarshal([]byte(line), &heard); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if err := json.Unmarshal([]byte(heard.Data), &got); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		expected := slices.DeleteFunc(want[number], func(e dispatched) bool { return !slices.Contains(judgedNames, e.Event) })
		if len(got)+len(expected) > 0 {
			if difference := cmp.Diff(expected, got); difference != "" {
				t.Errorf("%s: %q: Chromium hands over something else: %s", rule, c.streams[number], difference)
			}
		}
		c.mutex.Lock()
		if c.brought[number] != strings.Trim(lastIDs[number], " ") { // as a header has it
			t.Errorf("%s: %q: Chromium came back with the id %q, and our decoder has %q", rule, c.streams[number], c.brought[number], lastIDs[number])
		}
		c.mutex.Unlock()
	}
}
