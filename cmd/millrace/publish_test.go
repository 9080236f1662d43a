package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// request is what one publish request held.
type request struct {
	authorization, contentType string
	channels                   []string
	events                     []string
	array                      bool
}

// receiver is a server of the publish route that notes what it gets.
type receiver struct {
	*httptest.Server

	mutex    sync.Mutex
	requests []request
	news     chan struct{}
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	made := &receiver{news: make(chan struct{}, 1)}
	made.Server = httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, incoming *http.Request) {
		if incoming.Method != http.MethodPost || incoming.URL.Path != "/base/api/publish" {
			http.NotFound(writer, incoming)
			return
		}
		noted, err := readPublish(incoming)
		if err != nil {
			http.Error(writer, err.Error(), http.StatusBadRequest)
			return
		}
		made.mutex.Lock()
		made.requests = append(made.requests, noted)
		made.mutex.Unlock()
		select {
		case made.news <- struct{}{}:
		default:
		}
		fmt.Fprintf(writer, "{\"published\": %d,\n\"ids\":[],\"distributed\":true}\n", len(noted.events))
	}))
	t.Cleanup(made.Close)
	return made
}

func readPublish(incoming *http.Request) (request, error) {
	noted := request{authorization: incoming.Header.Get("Authorization"), contentType: incoming.Header.Get("Content-Type")}
	body, err := io.ReadAll(incoming.Body)
	if err != nil {
		return noted, err
	}
	type item struct {
		Channel string
		Event   json.RawMessage
	}
	var items []item
	if noted.array = body[0] == '['; noted.array {
		err = json.Unmarshal(body, &items)
	} else {
		items = make([]item, 1)
		err = json.Unmarshal(body, &items[0])
	}
	for _, one := range items {
		noted.channels, noted.events = append(noted.channels, one.Channel), append(noted.events, string(one.Event))
	}
	return noted, err
}

// published gives all events so far, in order.
func (r *receiver) published() (events []string, requests []request) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for _, one := range r.requests {
		events = append(events, one.events...)
	}
	return events, append([]request(nil), r.requests...)
}

func TestPublishOne(t *testing.T) {
	server := newReceiver(t)
	ran := (&invocation{
		arguments:   []string{"publish", "jobs:1", `{"type":"x","text":"é<>&"}`, "--url", server.URL + "/base/"},
		environment: []string{"MILLRACE_TOKEN=hunter2"},
	}).run(t)
	if ran.code != 0 || ran.stdout != "" || ran.stderr != "" {
		t.Errorf("exit code %d, said %q %q", ran.code, ran.stdout, ran.stderr)
	}
	_, requests := server.published()
	want := request{authorization: "Bearer hunter2", contentType: "application/json", channels: []string{"jobs:1"}, events: []string{`{"type":"x","text":"é<>&"}`}}
	if len(requests) != 1 || fmt.Sprint(requests[0]) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", requests, want)
	}
}

func TestPublishVerbose(t *testing.T) {
	server := newReceiver(t)
	ran := (&invocation{arguments: []string{"publish", "-v", "jobs:1", "1"}, environment: []string{"MILLRACE_URL=" + server.URL + "/base"}}).run(t)
	if want := `{"published":1,"ids":[],"distributed":true}` + "\n"; ran.code != 0 || ran.stdout != want {
		t.Errorf("exit code %d, said %q, want %q; %s", ran.code, ran.stdout, want, ran.stderr)
	}
}

func TestPublishLinesInBulk(t *testing.T) {
	server := newReceiver(t)
	var input strings.Builder
	var want []string
	for number := range 5000 {
		want = append(want, fmt.Sprintf(`{"n":%d}`, number))
		fmt.Fprintf(&input, " %s\r\n\n", want[number])
	}
	ran := (&invocation{arguments: []string{"publish", "jobs:1", "-", "--url", server.URL + "/base"}, input: strings.NewReader(strings.TrimRight(input.String(), "\r\n"))}).run(t)
	if ran.code != 0 {
		t.Fatalf("exit code %d: %s", ran.code, ran.stderr)
	}
	events, requests := server.published()
	if strings.Join(events, "\n") != strings.Join(want, "\n") {
		t.Errorf("%d events arrived, or in another order", len(events))
	}
	for _, one := range requests {
		if len(one.events) > batchEventsMax || one.array != (len(one.events) > 1) {
			t.Errorf("a request of %d events, array %v", len(one.events), one.array)
		}
	}
	if len(requests) > 500 {
		t.Errorf("%d requests for %d events", len(requests), len(events))
	}
}

func TestPublishLargeLinesInSmallBatches(t *testing.T) {
	server := newReceiver(t)
	line := `"` + strings.Repeat("x", 400<<10) + `"`
	ran := (&invocation{arguments: []string{"publish", "jobs:1", "-", "--url", server.URL + "/base"}, input: strings.NewReader(strings.Repeat(line+"\n", 8))}).run(t)
	events, requests := server.published()
	if ran.code != 0 || len(events) != 8 || len(requests) < 3 {
		t.Errorf("exit code %d, %d events in %d requests: %s", ran.code, len(events), len(requests), ran.stderr)
	}
}

// A line is published as soon as it is there, not when a batch is full or the input ends.
func TestPublishDoesNotWaitForMore(t *testing.T) {
	server := newReceiver(t)
	started := (&invocation{arguments: []string{"publish", "jobs:1", "-", "--url", server.URL + "/base"}}).start(t)
	for number := range 3 {
		if _, err := fmt.Fprintf(started.stdin, "%d\n", number); err != nil {
			t.Fatal(err)
		}
		deadline := time.After(patience)
		for {
			if events, _ := server.published(); len(events) == number+1 {
				break
			}
			select {
			case <-server.news:
			case <-deadline:
				t.Fatalf("line %d did not arrive", number)
			}
		}
	}
	if err := started.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if ended := started.wait(); ended.code != 0 {
		t.Errorf("exit code %d: %s", ended.code, ended.stderr)
	}
}

func TestPublishStopsAtABadLine(t *testing.T) {
	for _, test := range []struct{ name, bad, want string }{
		{"no JSON", "hunter2", "line 3: not an event"},
		{"no UTF-8", "\"\xff\"", "line 3: not an event"},
		{"too large", `"` + strings.Repeat("x", 300) + `"`, "line 3: the event has 302 bytes; max-event-bytes allows 256"},
		{"far too large", `"` + strings.Repeat("x", 1<<20) + `"`, "line 3: more than 256 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := newReceiver(t)
			ran := (&invocation{
				arguments: []string{"publish", "jobs:1", "-", "--url", server.URL + "/base"}, environment: []string{"MILLRACE_MAX_EVENT_BYTES=256"},
				input: strings.NewReader("1\n2\n" + test.bad + "\n4\n"),
			}).run(t)
			events, _ := server.published()
			if ran.code != 1 || !strings.Contains(ran.stderr, test.want) || fmt.Sprint(events) != "[1 2]" {
				t.Errorf("exit code %d, published %v, said %s", ran.code, events, ran.stderr)
			}
			if strings.Contains(ran.stderr, "hunter2") {
				t.Error("the payload is told")
			}
		})
	}
}

func TestPublishRefused(t *testing.T) {
	for _, test := range []struct {
		name   string
		status int
		header http.Header
		body   string
		want   string
	}{
		{"no token", 401, nil, `{"error":{"code":"unauthorized","message":"who are you"}}`, "401 unauthorized: who are you; give a valid token in $MILLRACE_TOKEN"},
		{"no right", 403, nil, `{"error":{"code":"access_denied","message":"no"}}`, "403 access_denied: no; the token must allow it"},
		{"away", 503, http.Header{"Retry-After": {"7"}}, `{"error":{"code":"broker_unavailable","message":"Redis is away"}}`, "503 broker_unavailable: Redis is away; try again in 7s"},
		{"a web page", 404, nil, `<html>`, "404 Not Found; is this the address of a Millrace gateway?"},
		{"a redirect", 302, http.Header{"Location": {"http://127.0.0.1:1/"}}, ``, "302 Found; it wants to send us elsewhere"},
		{"another server", 200, nil, `{"ok":true}`, "is not a gateway's answer"},
		{"a part only", 200, nil, `{"published":0}`, "published 0 of 1 events"},
		{"commands for the terminal", 400, nil, `{"error":{"code":"bad_request","message":"\u001b[2J\u009b"}}`, `bad_request: \u001b[2J\u009b`},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, _ *http.Request) {
				for name, values := range test.header {
					writer.Header()[name] = values
				}
				writer.WriteHeader(test.status)
				_, _ = io.WriteString(writer, test.body)
			}))
			defer server.Close()
			ran := (&invocation{arguments: []string{"publish", "jobs:1", "1", "--url", server.URL, "--token", "hunter2"}}).run(t)
			if ran.code != 1 || !strings.Contains(ran.stderr, test.want) || strings.Contains(ran.stderr, "hunter2") {
				t.Errorf("exit code %d, said %s", ran.code, ran.stderr)
			}
		})
	}
}

func TestPublishWarnsWhenOnlyLocal(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(writer, `{"published":1,"distributed":false}`)
	}))
	defer server.Close()
	ran := (&invocation{arguments: []string{"publish", "jobs:1", "1", "--url", server.URL}}).run(t)
	if ran.code != 0 || ran.stdout != "" || !strings.Contains(ran.stderr, "Redis is away") {
		t.Errorf("exit code %d, said %q %q", ran.code, ran.stdout, ran.stderr)
	}
}
