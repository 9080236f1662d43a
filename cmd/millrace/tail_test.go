package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// visit is one connection of a stream: what the server does with it.
type visit func(writer http.ResponseWriter, incoming *http.Request)

// streamServer answers each connection with the next visit, and the last one ever after.
type streamServer struct {
	*httptest.Server

	mutex    sync.Mutex
	requests []*http.Request
	times    []time.Time
}

func newStreamServer(t *testing.T, visits ...visit) *streamServer {
	t.Helper()
	made := &streamServer{}
	made.Server = httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, incoming *http.Request) {
		made.mutex.Lock()
		number := min(len(made.requests), len(visits)-1)
		made.requests, made.times = append(made.requests, incoming), append(made.times, time.Now())
		made.mutex.Unlock()
		visits[number](writer, incoming)
	}))
	t.Cleanup(func() {
		made.CloseClientConnections()
		made.Close()
	})
	return made
}

// streaming sends text as an event stream and ends it.
func streaming(text string) visit {
	return func(writer http.ResponseWriter, _ *http.Request) {
		writer.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		_, _ = io.WriteString(writer, text)
	}
}

// staying sends text as an event stream and leaves it open.
func staying(text string) visit {
	return func(writer http.ResponseWriter, incoming *http.Request) {
		streaming(text)(writer, incoming)
		if err := http.NewResponseController(writer).Flush(); err != nil {
			panic(err)
		}
		<-incoming.Context().Done()
	}
}

func status(code int, body string) visit {
	return func(writer http.ResponseWriter, _ *http.Request) {
		writer.WriteHeader(code)
		_, _ = io.WriteString(writer, body)
	}
}

const welcome = "retry: 50\n\nevent: connected\ndata: {\"type\":\"connected\",\"clientId\":\"c\",\"userId\":\"alice\",\"channels\":[\"jobs:1\"]}\n\n"

func TestTailPrintsForMachines(t *testing.T) {
	server := newStreamServer(t, streaming(welcome+
		": keep-alive\n\n"+
		"id: jobs:1/e.1\nevent: progress\ndata: {\"n\": 1,\ndata: \"a\":[]}\n\n"+
		"id: jobs:2:bob/e.2\ndata: \"<é>\"\n\n"+
		"event: gap\ndata: {\"type\":\"gap\",\"channel\":\"jobs:1\",\"after\":\"\",\"reason\":\"slow\"}\n\n"+
		"data: not JSON\n\n"+
		"event: server_error\ndata: {\"code\":\"token_expired\",\"message\":\"m\"}\n\n"+
		"id: s/end\nevent: complete\ndata: {}\n\n"+
		"data: never shown\n\n"))
	ran := (&invocation{arguments: []string{"tail", "--json", "jobs:1", "jobs:2:bob", "--url", server.URL + "/base"}, environment: []string{"MILLRACE_TOKEN=hunter2"}}).run(t)
	want := []string{
		`{"channel":"jobs:1","id":"jobs:1/e.1","event":"progress","data":{"n":1,"a":[]}}`,
		`{"channel":"jobs:2:bob","id":"jobs:2:bob/e.2","event":"message","data":"\u003cé\u003e"}`,
		`{"channel":"jobs:1","id":"","event":"gap","data":{"type":"gap","channel":"jobs:1","after":"","reason":"slow"}}`,
		`{"channel":"","id":"","event":"message","data":"not JSON"}`,
		`{"channel":"","id":"","event":"server_error","data":{"code":"token_expired","message":"m"}}`,
		`{"channel":"s","id":"s/end","event":"complete","data":{}}`,
	}
	if got := strings.TrimSpace(ran.stdout); ran.code != 0 || got != strings.Join(want, "\n") {
		t.Errorf("exit code %d\ngot\n%s\nwant\n%s\n%s", ran.code, got, strings.Join(want, "\n"), ran.stderr)
	}
	if !strings.Contains(ran.stderr, "connected to "+server.URL+"/base as alice: jobs:1") || !strings.Contains(ran.stderr, "the stream is complete") {
		t.Errorf("said %s", ran.stderr)
	}
	for _, line := range strings.Split(strings.TrimSpace(ran.stdout), "\n") {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
	incoming := server.requests[0]
	if incoming.URL.Path != "/base/api/stream" || fmt.Sprint(incoming.URL.Query()["channel"]) != "[jobs:1 jobs:2:bob]" ||
		incoming.Header.Get("Authorization") != "Bearer hunter2" || incoming.Header.Get("Accept") != "text/event-stream" {
		t.Errorf("request %s %v", incoming.URL, incoming.Header)
	}
}

func TestTailPrintsForPeople(t *testing.T) {
	server := newStreamServer(t, streaming(welcome+
		"id: jobs:1/e.1\nevent: progress\ndata: {\"n\": 1}\n\n"+
		"id: jobs:1/e.2\ndata: \"\x1b[2J\u009b\u202e\"\n\n"+
		"event: complete\ndata: {}\n\n"))
	ran := (&invocation{arguments: []string{"tail", "jobs:1", "--url", server.URL}}).run(t)
	lines := strings.Split(strings.TrimSpace(ran.stdout), "\n")
	for index, want := range []string{
		"  jobs:1  progress  {\"n\":1}",
		"  jobs:1  message   \"\\u001b[2J\\u009b\\u202e\"",
		"  jobs:1  complete  {}",
	} {
		const timeWidth = len("15:04:05.000")
		if index >= len(lines) || len(lines[index]) < timeWidth || lines[index][timeWidth:] != want {
			t.Errorf("line %d of\n%s\nwant %q", index+1, ran.stdout, want)
		}
	}
	if strings.ContainsRune(ran.stdout, 0x1b) {
		t.Error("there are colours, or commands, though this is no terminal")
	}
}

func TestTailColours(t *testing.T) {
	var output strings.Builder
	made := &printer{output: &output, colour: true, now: func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC) }}
	for _, event := range []printed{
		{channel: "a:1", event: "message", data: []byte("1")},
		{channel: "a:1", event: "gap", data: []byte("2")},
		{channel: "a:123", event: "server_error", data: []byte("3")},
	} {
		if err := made.print(event); err != nil {
			t.Fatal(err)
		}
	}
	want := "\x1b[2m03:04:05.678\x1b[0m  \x1b[36ma:1\x1b[0m  message  1\n" +
		"\x1b[2m03:04:05.678\x1b[0m  \x1b[36ma:1\x1b[0m  \x1b[33mgap    \x1b[0m  \x1b[33m2\x1b[0m\n" +
		"\x1b[2m03:04:05.678\x1b[0m  \x1b[36ma:123\x1b[0m  \x1b[31mserver_error\x1b[0m  \x1b[31m3\x1b[0m\n"
	if output.String() != want {
		t.Errorf("got\n%q\nwant\n%q", output.String(), want)
	}
}

// The stream comes back with the id of the last event, after the time that the gateway asked for.
func TestTailResumes(t *testing.T) {
	server := newStreamServer(t,
		streaming(welcome+"id: jobs:1/e.7\ndata: 1\n\nid: jobs:1/e.8\ndata: 2\n\nid: jobs:1/e.9\ndata: cut off"),
		status(http.StatusServiceUnavailable, "the proxy is restarting"),
		streaming("retry: 200\n\n"), // draining
		streaming("id: jobs:1/e.8\ndata: 2\n\nid: jobs:1/e.9\ndata: 3\n\nevent: replayed\ndata: {\"channel\":\"jobs:1\",\"count\":2}\n\nid: jobs:1/e.9\ndata: 4\n\n"),
		status(http.StatusNoContent, ""),
	)
	ran := (&invocation{arguments: []string{"tail", "--json", "jobs:1", "--url", server.URL}}).run(t)
	var got []string
	for _, line := range strings.Split(strings.TrimSpace(ran.stdout), "\n") {
		var event struct{ Data json.RawMessage }
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		got = append(got, string(event.Data))
	}
	if ran.code != 0 || fmt.Sprint(got) != "[1 2 3 4]" {
		t.Errorf("exit code %d, events %v\n%s", ran.code, got, ran.stderr)
	}
	var ids []string
	for _, incoming := range server.requests {
		ids = append(ids, incoming.Header.Get("Last-Event-ID"))
	}
	if fmt.Sprint(ids) != "[ jobs:1/e.8 jobs:1/e.8 jobs:1/e.8 jobs:1/e.9]" {
		t.Errorf("last ids %q", ids)
	}
	if waited := server.times[3].Sub(server.times[2]); waited < 200*time.Millisecond || waited > 3*time.Second {
		t.Errorf("waited %s, the gateway asked for 200ms", waited)
	}
}

func TestTailGivesUp(t *testing.T) {
	for _, test := range []struct {
		name   string
		visits []visit
		want   string
	}{
		{"a bad token", []visit{status(401, `{"error":{"code":"unauthorized","message":"no"}}`)}, "401 unauthorized: no; give a valid token"},
		{"overloaded from the start", []visit{status(503, "")}, "503 Service Unavailable"},
		{"a web page", []visit{func(writer http.ResponseWriter, _ *http.Request) {
			writer.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(writer, "data: x\n\n")
		}}, "the answer is no event stream"},
		{"a redirect", []visit{func(writer http.ResponseWriter, incoming *http.Request) {
			http.Redirect(writer, incoming, "/elsewhere", http.StatusFound)
		}}, "it wants to send us elsewhere"},
		{"a right that was taken away", []visit{streaming(welcome), status(403, `{"error":{"code":"access_denied","message":"gone"}}`)}, "403 access_denied: gone"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := newStreamServer(t, test.visits...)
			ran := (&invocation{arguments: []string{"tail", "jobs:1", "--url", server.URL, "--token", "hunter2"}}).run(t)
			if ran.code != 1 || !strings.Contains(ran.stderr, test.want) || strings.Contains(ran.stderr, "hunter2") || ran.stdout != "" {
				t.Errorf("exit code %d, said %s%s", ran.code, ran.stdout, ran.stderr)
			}
		})
	}
}

func TestTailEndsWellWhenInterrupted(t *testing.T) {
	for name, visits := range map[string][]visit{
		"while streaming": {staying(welcome + "data: 1\n\n")},
		"while waiting":   {streaming("retry: 60000\n\ndata: 1\n\n")},
	} {
		for _, number := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			t.Run(name+", "+number.String(), func(t *testing.T) {
				server := newStreamServer(t, visits...)
				started := (&invocation{arguments: []string{"tail", "--json", "jobs:1", "--url", server.URL}}).start(t)
				started.waitFor(`"data":1`)
				if name == "while waiting" {
					started.waitFor("again in")
				}
				started.signal(number)
				if ended := started.wait(); ended.code != 0 || strings.Contains(ended.stderr, "cancel") {
					t.Errorf("exit code %d: %s", ended.code, ended.stderr)
				}
			})
		}
	}
}

func TestWaitBacksOff(t *testing.T) {
	made := &stream{retry: time.Second}
	var waits []time.Duration
	for range 8 {
		waits = append(waits, made.wait(io.EOF))
	}
	for index, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30, 30} {
		least, most := want*time.Second, want*time.Second*6/5
		if waits[index] < least || waits[index] > most {
			t.Errorf("wait %d is %s, want %s to %s", index, waits[index], least, most)
		}
	}
	made = &stream{retry: 5 * time.Minute}
	made.wait(io.EOF)
	if waited := made.wait(io.EOF); waited < 5*time.Minute || waited > 6*time.Minute {
		t.Errorf("waited %s, though the gateway asked for 5m", waited)
	}
	made = &stream{retry: time.Second}
	if waited := made.wait(&refusal{retryAfter: 10 * time.Second}); waited < 10*time.Second {
		t.Errorf("waited %s, though the answer said Retry-After: 10", waited)
	}
}

func TestRecentIDsAreBounded(t *testing.T) {
	recent := newRecentIDs()
	for number := range 3 * recentIDsMax {
		if recent.repeated(fmt.Sprint(number)) {
			t.Fatal("a new id is called repeated")
		}
	}
	if len(recent.known) != recentIDsMax || len(recent.order) != recentIDsMax {
		t.Errorf("%d ids are known, %d in order", len(recent.known), len(recent.order))
	}
	last, first := fmt.Sprint(3*recentIDsMax-1), fmt.Sprint(0)
	if recent.repeated(last) {
		t.Error("an id is dropped outside a resume")
	}
	recent.resume(true)
	if !recent.repeated(last) || recent.repeated(first) {
		t.Error("in a resume the ids that are remembered are dropped, and no others")
	}
	recent.replayed()
	if recent.repeated(last) {
		t.Error("an id is dropped after the replay")
	}
}
