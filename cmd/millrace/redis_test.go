package main

import (
	"encoding/json"
	"fmt"
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

func TestRedisSaysNo(t *testing.T) {
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
