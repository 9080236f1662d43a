package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

func TestPublishAndTailByAGateway(t *testing.T) {
	_, address := startGateway(t, invocation{})
	started := (&invocation{arguments: []string{"tail", "--json", "jobs:1", "news:all", "--url", address}}).start(t)
	started.waitFor("connected to " + address)
	ran := (&invocation{arguments: []string{"publish", "-v", "jobs:1", `{"type":"progress","n":1}`}, environment: []string{"MILLRACE_URL=" + address}}).run(t)
	if ran.code != 0 || !strings.Contains(ran.stdout, `"published":1`) || ran.stderr != "" {
		t.Fatalf("exit code %d: %s%s", ran.code, ran.stdout, ran.stderr)
	}
	started.waitFor(`"event":"progress","data":{"type":"progress","n":1}}`)

	const count = 2500
	var input strings.Builder
	for number := range count {
		fmt.Fprintln(&input, number)
	}
	ran = (&invocation{arguments: []string{"publish", "news:all", "-", "--url", address}, input: strings.NewReader(input.String())}).run(t)
	if ran.code != 0 || ran.stdout != "" {
		t.Fatalf("exit code %d: %s%s", ran.code, ran.stdout, ran.stderr)
	}
	started.waitFor(fmt.Sprintf(`"data":%d}`, count-1))
	started.signal(syscall.SIGINT)
	ended := started.wait()
	if got := datas(t, ended.stdout); ended.code != 0 || strings.Join(got[1:], "\n")+"\n" != input.String() {
		t.Errorf("exit code %d, %d of %d events, or in another order: %s", ended.code, len(got)-1, count, ended.stderr)
	}
	if !strings.Contains(ended.stdout, `{"channel":"jobs:1","id":"jobs:1/`) {
		t.Errorf("the channel is not told:\n%.300s", ended.stdout)
	}
}

// A token of ours opens what it names, and nothing else.
func TestTokensAtAGateway(t *testing.T) {
	secret := "MILLRACE_AUTH_HMAC_SECRET=" + testSecret
	_, address := startGateway(t, invocation{environment: []string{secret}})
	mint := func(arguments ...string) string {
		ran := (&invocation{arguments: append([]string{"token"}, arguments...), environment: []string{secret}}).run(t)
		if ran.code != 0 {
			t.Fatal(ran.stderr)
		}
		return "MILLRACE_TOKEN=" + strings.TrimSpace(ran.stdout)
	}
	writer, reader := mint("--sub", "worker", "--publish", "job_progress:*"), mint("--sub", "alice")
	for _, test := range []struct {
		name, command, token string
		code                 int
		stderr               string
	}{
		{"a right to publish", "publish job_progress:1 1", writer, 0, ""},
		{"no right to publish", "publish job_progress:1 1", reader, 1, "403 access_denied"},
		{"a right for another type", "publish alerts:alice 1", writer, 1, "403 access_denied"},
		{"no token", "publish job_progress:1 1", "X=", 1, "401 unauthorized"},
		{"a bad token", "publish job_progress:1 1", "MILLRACE_TOKEN=a.b.c", 1, "401 unauthorized"},
		{"tail without a token", "tail job_progress:1", "X=", 1, "401 unauthorized"},
		{"tail of somebody else's", "tail alerts:bob", reader, 1, "403 access_denied"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ran := (&invocation{arguments: append(strings.Fields(test.command), "--url", address), environment: []string{test.token}}).run(t)
			if ran.code != test.code || !strings.Contains(ran.stderr, test.stderr) || strings.Contains(ran.stderr, strings.TrimPrefix(test.token, "MILLRACE_TOKEN=")) && test.token != "X=" {
				t.Errorf("exit code %d: %s", ran.code, ran.stderr)
			}
		})
	}
	started := (&invocation{arguments: []string{"tail", "alerts:alice", "--url", address}, environment: []string{reader}}).start(t)
	started.waitFor("connected to " + address + " as alice")
}

// The gateway is restarted under a tail, which comes back by itself.
func TestTailSurvivesARestart(t *testing.T) {
	t.Parallel()
	first, address := startGateway(t, invocation{})
	started := (&invocation{arguments: []string{"tail", "--json", "jobs:1", "--url", address}}).start(t)
	started.waitFor("connected to " + address)
	publish := func(event string) {
		t.Helper()
		if ran := (&invocation{arguments: []string{"publish", "jobs:1", event, "--url", address}}).run(t); ran.code != 0 {
			t.Fatal(ran.stderr)
		}
	}
	publish("1")
	started.waitFor(`"data":1}`)
	first.signal(syscall.SIGTERM)
	if ended := first.wait(); ended.code != 0 {
		t.Fatalf("exit code %d:\n%s", ended.code, ended.stderr)
	}
	started.waitFor("again in")
	second := (&invocation{arguments: []string{"serve", "--listen", strings.TrimPrefix(address, "http://")}}).start(t)
	second.waitFor(`"serving http://`)
	started.waitFor(`"event":"gap"`)
	publish("2")
	started.waitFor(`"data":2}`)
	started.signal(syscall.SIGINT)
	ended := started.wait()
	if got := datas(t, ended.stdout); ended.code != 0 || fmt.Sprint(got) != "[1 2]" {
		t.Errorf("exit code %d, events %v: %s", ended.code, got, ended.stderr)
	}
}
