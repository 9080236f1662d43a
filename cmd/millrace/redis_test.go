package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/redistest"
)

// tailing starts a tail of Redis that is subscribed when this returns.
func tailing(t *testing.T, server *redistest.Server, arguments ...string) *running {
	t.Helper()
	started := (&invocation{arguments: append([]string{"tail", "--redis", server.URL()}, arguments...)}).start(t)
	started.waitFor("subscribed at " + server.URL())
	return started
}

// datas gives the data of the JSON lines that tail printed, gaps aside.
func datas(t *testing.T, output string) (all []string) {
	t.Helper()
	for line := range strings.Lines(output) {
		var event struct {
			Event string
			Data  json.RawMessage
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if event.Event != "gap" {
			all = append(all, string(event.Data))
		}
	}
	return all
}

func TestPublishAndTailByRedis(t *testing.T) {
	server := redistest.Start(t)
	plain := tailing(t, server, "--json", "jobs:1")
	pattern := tailing(t, server, "--json", "jobs:*")
	other := tailing(t, server, "--json", "jobs:1", "--channel-prefix", "shop:")

	ran := (&invocation{arguments: []string{"publish", "-v", "jobs:1", `{"type":"progress","n":1}`, "--redis", server.URL()}}).run(t)
	if ran.code != 0 || ran.stdout != `{"published":1,"distributed":true}`+"\n" {
		t.Errorf("exit code %d: %s%s", ran.code, ran.stdout, ran.stderr)
	}
	// A worker that knows nothing of us.
	server.CLI(t, "PUBLISH", "jobs:2", `{"n":2}`)
	server.CLI(t, "PUBLISH", "shop:jobs:1", `{"n":3}`)
	server.CLI(t, "PUBLISH", "jobs:1", `not JSON`)

	plain.waitFor(`{"channel":"jobs:1","id":"","event":"progress","data":{"type":"progress","n":1}}`)
	plain.waitFor("jobs:1: a gateway would drop this event: ")
	plain.waitFor(`{"channel":"jobs:1","id":"","event":"message","data":"not JSON"}`)
	pattern.waitFor(`"data":{"type":"progress","n":1}}`)
	pattern.waitFor(`{"channel":"jobs:2","id":"","event":"message","data":{"n":2}}`)
	other.waitFor(`{"channel":"jobs:1","id":"","event":"message","data":{"n":3}}`)
	for _, started := range []*running{plain, pattern, other} {
		started.signal(syscall.SIGINT)
		if ended := started.wait(); ended.code != 0 {
			t.Errorf("exit code %d: %s", ended.code, ended.stderr)
		}
	}
}

func TestPublishLinesByRedisInOrder(t *testing.T) {
	server := redistest.Start(t)
	started := tailing(t, server, "--json", "jobs:1")
	const count = 3000
	var input strings.Builder
	for number := range count {
		fmt.Fprintln(&input, number)
	}
	ran := (&invocation{arguments: []string{"publish", "jobs:1", "-", "--redis", server.URL()}, input: strings.NewReader(input.String())}).run(t)
	if ran.code != 0 || ran.stdout != "" {
		t.Fatalf("exit code %d: %s%s", ran.code, ran.stdout, ran.stderr)
	}
	started.waitFor(fmt.Sprintf(`"data":%d}`, count-1))
	started.signal(syscall.SIGINT)
	got := datas(t, started.wait().stdout)
	if want := strings.Fields(input.String()); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%d of %d events arrived, or in another order", len(got), count)
	}
}

// Redis goes away under a tail: it stays, says so by a gap, and goes on.
func TestTailByRedisSurvivesALoss(t *testing.T) {
	server := redistest.Start(t)
	started := tailing(t, server, "--json", "jobs:1")
	server.CLI(t, "PUBLISH", "jobs:1", "1")
	started.waitFor(`"data":1}`)
	server.CLI(t, "CLIENT", "KILL", "TYPE", "pubsub")
	started.waitFor(`{"channel":"jobs:1","id":"","event":"gap","data":{"type":"gap","channel":"jobs:1","reason":"broker"}}`)
	server.CLI(t, "PUBLISH", "jobs:1", "2")
	started.waitFor(`"data":2}`)
	started.signal(syscall.SIGINT)
	if ended := started.wait(); ended.code != 0 {
		t.Errorf("exit code %d: %s", ended.code, ended.stderr)
	}
}

func TestShardedByRedis(t *testing.T) {
	server := redistest.Start(t)
	started := tailing(t, server, "--json", "--sharded", "jobs:1")
	server.CLI(t, "PUBLISH", "jobs:1", "1")
	if ran := (&invocation{arguments: []string{"publish", "--sharded", "jobs:1", "2", "--redis", server.URL()}}).run(t); ran.code != 0 {
		t.Fatalf("exit code %d: %s", ran.code, ran.stderr)
	}
	started.waitFor(`"data":2}`)
	started.signal(syscall.SIGINT)
	if got := datas(t, started.wait().stdout); fmt.Sprint(got) != "[2]" {
		t.Errorf("got %v: SSUBSCRIBE never hears PUBLISH", got)
	}
}

// TestPublishByMode: what is written where, by the flag or by the namespaces of the configuration.
func TestPublishByMode(t *testing.T) {
	server := redistest.Start(t)
	config := filepath.Join(t.TempDir(), "c.yaml")
	namespaces := "namespaces:\n  jobs: {mode: log, maxlen: 2}\n  metrics: {mode: state}\n"
	if err := os.WriteFile(config, []byte(namespaces), 0o600); err != nil {
		t.Fatal(err)
	}
	publish := func(arguments ...string) outcome {
		return (&invocation{arguments: append([]string{"publish", "-v", "--redis", server.URL()}, arguments...)}).run(t)
	}
	for _, test := range []struct {
		name      string
		arguments []string
		command   []string // what redis-cli then says
		want      string
	}{
		{"state by the flag", []string{"a:1", `{"n":1}`, "--mode", "state"}, []string{"GET", "a:1"}, `{"n":1}`},
		{"log by the flag", []string{"a:2", `{"n":2}`, "--mode", "log"}, []string{"XLEN", "a:2"}, "1"},
		{"state by the file", []string{"metrics:1", `{"n":3}`, "--config", config}, []string{"GET", "metrics:1"}, `{"n":3}`},
		{"log by the file", []string{"jobs:1", `{"n":4}`, "--config", config}, []string{"XLEN", "jobs:1"}, "1"},
		{"events by the flag", []string{"jobs:2", "5", "--config", config, "--mode", "events"}, []string{"EXISTS", "jobs:2"}, "0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ran := publish(test.arguments...)
			if ran.code != 0 {
				t.Fatalf("exit code %d: %s", ran.code, ran.stderr)
			}
			if got := strings.TrimSpace(server.CLI(t, test.command...)); got != test.want {
				t.Errorf("%v is %q, want %q", test.command, got, test.want)
			}
			var answer struct{ IDs []string }
			if err := json.Unmarshal([]byte(ran.stdout), &answer); err != nil {
				t.Fatal(err)
			}
			if isLog := test.command[0] == "XLEN"; isLog != (len(answer.IDs) == 1) || isLog && !strings.HasPrefix(answer.IDs[0], test.arguments[0]+"/") {
				t.Errorf("the answer is %s", ran.stdout)
			}
		})
	}
	for name, arguments := range map[string][]string{
		"a mode that there is not": {"a:1", "1", "--mode", "queue"},
		"sharded and a log":        {"a:1", "1", "--mode", "log", "--sharded"},
	} {
		t.Run(name, func(t *testing.T) {
			if ran := publish(arguments...); ran.code != 2 {
				t.Errorf("exit code %d: %s", ran.code, ran.stderr)
			}
		})
	}
}

// TestTailByMode: a state's value at once and its end, a log's entries with their ids.
func TestTailByMode(t *testing.T) {
	server := redistest.Start(t)
	server.CLI(t, "SET", "metrics:1", `{"n":1}`)
	state := tailing(t, server, "--json", "--mode", "state", "metrics:1", "metrics:none")
	log := tailing(t, server, "--json", "--mode", "log", "jobs:1")
	state.waitFor(`{"channel":"metrics:1","id":"","event":"message","data":{"n":1}}`)
	server.CLI(t, "SET", "metrics:1", `{"type":"metrics","n":2}`)
	state.waitFor(`{"channel":"metrics:1","id":"","event":"metrics","data":{"type":"metrics","n":2}}`)
	server.CLI(t, "DEL", "metrics:1")
	state.waitFor(`{"channel":"metrics:1","id":"","event":"deleted","data":{"type":"deleted","channel":"metrics:1"}}`)
	server.CLI(t, "XADD", "jobs:1", "7-1", "data", `{"n":1}`)
	log.waitFor(`{"channel":"jobs:1","id":"jobs:1/7-1/`)
	server.CLI(t, "DEL", "jobs:1")
	log.waitFor(`"event":"gap"`)
	for _, started := range []*running{state, log} {
		started.signal(syscall.SIGINT)
		ended := started.wait()
		if ended.code != 0 || strings.Contains(ended.stdout, "metrics:none") {
			t.Errorf("exit code %d: %s%s", ended.code, ended.stdout, ended.stderr)
		}
	}
}

func TestRedisSaysNo(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--requirepass", "opensesame")
	for _, command := range []string{"publish jobs:1 1", "tail jobs:1"} {
		t.Run(strings.Fields(command)[0], func(t *testing.T) {
			t.Parallel()
			address := strings.Replace(server.URL(), "redis://", "redis://:hunter2@", 1)
			began := time.Now()
			ran := (&invocation{arguments: append(strings.Fields(command), "--redis", address)}).run(t)
			if ran.code != 1 || ran.stdout != "" || !strings.Contains(ran.stderr, ":redacted@") || strings.Contains(ran.stderr, "hunter2") {
				t.Errorf("exit code %d: %s%s", ran.code, ran.stdout, ran.stderr)
			}
			if took := time.Since(began); took > redisWait+5*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}
