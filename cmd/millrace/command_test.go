package main

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway/auth"
)

const testSecret = "0123456789abcdef0123456789abcdef"

func TestExitCodes(t *testing.T) {
	folder := t.TempDir()
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("good.yaml", "max-subscriptions: 5\n")
	write("wrong.yaml", "max-subscriptions: many\nlistn: x\n")
	for _, test := range []struct {
		name        string
		arguments   string
		environment []string
		code        int
		stdout      string // a part of it; empty: it must be empty
		stderr      string // likewise
	}{
		{name: "help", arguments: "--help", code: 0, stdout: "Usage: millrace"},
		{name: "help of a command", arguments: "serve --help", code: 0, stdout: "$MILLRACE_MAX_QUEUE_BYTES"},
		{name: "no command", arguments: "", code: 2, stderr: "`millrace --help` shows"},
		{name: "an unknown command", arguments: "srve", code: 2, stderr: `did you mean "serve"?`},
		{name: "an unknown flag", arguments: "serve --lisen x", code: 2, stderr: `did you mean "--listen"?`},
		{name: "a flag of the wrong kind", arguments: "serve --max-queue-bytes lots", code: 2, stderr: "expected a size in bytes, such as"},
		{name: "a flag out of bounds", arguments: "serve --max-queue-bytes 1", code: 2, stderr: "--max-queue-bytes: 1 is out of bounds"},
		{name: "a combination of flags", arguments: "serve --listen 0.0.0.0:0", code: 2, stderr: "--listen: 0.0.0.0:0 can be reached by other machines"},
		{name: "a wrong variable", arguments: "serve", environment: []string{"MILLRACE_LOOPS=many"}, code: 1, stderr: "MILLRACE_LOOPS: expected a whole number"},
		{name: "a wrong file", arguments: "serve --config wrong.yaml", code: 1, stderr: "millrace: wrong.yaml:1:20: max-subscriptions: expected a whole number"},
		{name: "check, good", arguments: "check", code: 0, stdout: "settings: ok: listen 127.0.0.1:8080"},
		{name: "check, a good file", arguments: "check --config good.yaml", code: 0, stdout: "good.yaml: ok: "},
		{name: "check, a wrong file", arguments: "check --config wrong.yaml", code: 1, stderr: `millrace: wrong.yaml:2:1: unknown setting "listn"; did you mean listen?`},
		{name: "check, a wrong flag", arguments: "check --max-queue-bytes 1", code: 1, stderr: "--max-queue-bytes: 1 is out of bounds"},
		{name: "check, no file", arguments: "check --config none.yaml", code: 1, stderr: "--config: there is no file none.yaml"},
		{name: "check, more than the system gives", arguments: "check --max-connections 100000000", code: 1, stderr: "--max-connections: 100000000 streams need as many descriptors"},
		{name: "bench, help", arguments: "bench run --help", code: 0, stdout: "fanout"},
		{name: "bench, an unknown scenario", arguments: "bench nope", code: 2, stderr: `there is no scenario "nope"`},
		{name: "bench, an unknown subject", arguments: "bench idle --subjects nope", code: 2, stderr: `there is no subject "nope"`},
		{name: "bench, both sizes", arguments: "bench --quick --full", code: 2, stderr: "--quick and --full"},
		{name: "bench, nothing to go on with", arguments: "bench idle --append", code: 2, stderr: "needs the file"},
		{name: "bench report, no file", arguments: "bench report none.json", code: 1, stderr: "none.json"},
		{name: "version", arguments: "version", code: 0, stdout: "rueidis"},
		{name: "token without a secret", arguments: "token --sub alice", code: 1, stderr: "there is no secret to sign with"},
		{name: "token without a user", arguments: "token", code: 2, stderr: "--sub"},
		{name: "token, no whole seconds", arguments: "token --sub a --ttl 1ms", code: 2, stderr: "--ttl: expected whole seconds"},
		{name: "publish, a bad channel", arguments: "publish jobs {}", code: 2, stderr: "bad channel"},
		{name: "publish, a wildcard", arguments: "publish jobs:* {}", code: 2, stderr: "jobs:* is a wildcard"},
		{name: "publish, no JSON", arguments: "publish jobs:1 {", code: 2, stderr: "not an event"},
		{name: "publish, two targets", arguments: "publish jobs:1 {} --url http://a --redis redis://b", code: 2, stderr: "--redis and --url exclude each other"},
		{name: "publish, a token in the URL", arguments: "publish jobs:1 {} --url http://a/?token=hunter2", code: 2, stderr: "$MILLRACE_TOKEN"},
		{name: "publish, sharded at a gateway", arguments: "publish jobs:1 {} --sharded", code: 2, stderr: "--sharded goes with --redis"},
		{name: "publish, nobody there", arguments: "publish jobs:1 {} --url http://127.0.0.1:1", code: 1, stderr: "no gateway answers at http://127.0.0.1:1"},
		{name: "publish, no Redis there", arguments: "publish jobs:1 {} --redis redis://u:hunter2@127.0.0.1:1", code: 1, stderr: "publish jobs:1 at redis://u:redacted@127.0.0.1:1"},
		{name: "tail, a bad channel", arguments: "tail jobs", code: 2, stderr: "bad channel"},
		{name: "tail, nobody there", arguments: "tail jobs:1 --url http://127.0.0.1:1", code: 1, stderr: "start one with `millrace serve`"},
		{name: "tail, a wrong Redis address", arguments: "tail jobs:1 --redis hunter2", code: 2, stderr: "--redis"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ran := (&invocation{arguments: strings.Fields(test.arguments), environment: test.environment, folder: folder}).run(t)
			if ran.code != test.code {
				t.Errorf("exit code %d, want %d", ran.code, test.code)
			}
			for stream, pair := range map[string][2]string{"output": {ran.stdout, test.stdout}, "error": {ran.stderr, test.stderr}} {
				if !strings.Contains(pair[0], pair[1]) || pair[1] == "" && pair[0] != "" {
					t.Errorf("standard %s %q, want %q in it", stream, pair[0], pair[1])
				}
				if strings.Contains(pair[0], "hunter2") {
					t.Errorf("a secret is on standard %s: %s", stream, pair[0])
				}
			}
		})
	}
}

func TestCheckSaysEverything(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "c.yaml"), []byte("loops: x\ndemo: 1\nredis: y\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ran := (&invocation{arguments: []string{"check", "--config", "c.yaml", "--print"}, folder: folder, environment: []string{"MILLRACE_DRAIN_TIMEOUT=1"}}).run(t)
	if lines := strings.Count(ran.stderr, "\n"); lines != 4 || ran.code != 1 || ran.stdout != "" {
		t.Errorf("exit code %d, %d lines:\n%s%s", ran.code, lines, ran.stderr, ran.stdout)
	}
}

// What --print prints is a valid configuration, and serve refuses its placeholder.
func TestCheckPrint(t *testing.T) {
	folder := t.TempDir()
	printed := (&invocation{
		arguments:   []string{"check", "--print", "--redis", "redis://u:hunter2@h:1", "--loops", "2"},
		environment: []string{"MILLRACE_AUTH_HMAC_SECRET=" + testSecret},
	}).run(t)
	if printed.code != 0 || strings.Contains(printed.stdout, "hunter2") || strings.Contains(printed.stdout, testSecret) ||
		!strings.Contains(printed.stdout, "loops: 2 # --loops\n") {
		t.Fatalf("exit code %d\n%s%s", printed.code, printed.stdout, printed.stderr)
	}
	if err := os.WriteFile(filepath.Join(folder, "printed.yaml"), []byte(printed.stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	again := (&invocation{arguments: []string{"check", "--config", "printed.yaml"}, folder: folder}).run(t)
	if again.code != 0 || !strings.Contains(again.stdout, "ok") || !strings.Contains(again.stderr, "placeholder") {
		t.Errorf("exit code %d\n%s%s", again.code, again.stdout, again.stderr)
	}
	for _, command := range []string{"serve", "token --sub a"} {
		refused := (&invocation{arguments: append(strings.Fields(command), "--config", "printed.yaml"), folder: folder}).run(t)
		if refused.code != 1 || !strings.Contains(refused.stderr, "placeholder") || refused.stdout != "" {
			t.Errorf("%s: exit code %d\n%s%s", command, refused.code, refused.stdout, refused.stderr)
		}
	}
}

// A provider's key is printed no more than a secret, wherever it came from.
func TestCheckPrintsNoCouncilKey(t *testing.T) {
	folder := t.TempDir()
	printed := (&invocation{arguments: []string{"check", "--print"}, environment: []string{"ANTHROPIC_API_KEY=" + testSecret}}).run(t)
	if printed.code != 0 || strings.Contains(printed.stdout+printed.stderr, testSecret) || !strings.Contains(printed.stdout, "anthropic:") {
		t.Fatalf("exit code %d\n%s%s", printed.code, printed.stdout, printed.stderr)
	}
	if err := os.WriteFile(filepath.Join(folder, "printed.yaml"), []byte(printed.stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	refused := (&invocation{arguments: []string{"serve", "--config", "printed.yaml"}, folder: folder}).run(t)
	if refused.code != 1 || !strings.Contains(refused.stderr, "placeholder") || refused.stdout != "" {
		t.Errorf("exit code %d\n%s%s", refused.code, refused.stdout, refused.stderr)
	}
}

func TestTokenIsAccepted(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "secret"), []byte(testSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	ran := (&invocation{folder: folder, arguments: []string{
		"token", "--auth-hmac-secret-file", "secret", "--sub", "alice", "--channels", "a:*,b:1", "--publish", "a:1", "--admin", "--ttl", "90m",
		"--auth-audience", "shop", "--auth-issuer", "us", "--user-claim", "uid",
	}}).run(t)
	if ran.code != 0 || ran.stderr != "" || strings.Count(ran.stdout, "\n") != 1 {
		t.Fatalf("exit code %d: %s%s", ran.code, ran.stdout, ran.stderr)
	}
	verifier, err := auth.New(t.Context(), auth.Options{HMACSecret: []byte(testSecret), Audience: "shop", Issuer: "us", UserClaim: "uid"})
	if err != nil {
		t.Fatal(err)
	}
	identity, err := verifier.Verify(t.Context(), strings.TrimSpace(ran.stdout))
	if err != nil {
		t.Fatal(err)
	}
	life := identity.Expires.Sub(started).Round(time.Minute)
	if identity.User != "alice" || !identity.Admin || life != 90*time.Minute {
		t.Errorf("%+v, good for %s", identity, life)
	}
}

func TestVersionNamesTheLibraries(t *testing.T) {
	var output strings.Builder
	err := printVersion(&output, &debug.BuildInfo{
		GoVersion: "go1.2", Main: debug.Module{Version: "v3.4.5"},
		Deps: []*debug.Module{
			{Path: "github.com/gobwas/ws", Version: "v1.5.0"},
			{Path: "github.com/redis/rueidis", Version: "v1", Replace: &debug.Module{Version: "v2"}},
		},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"millrace  v3.4.5", "commit    abc with local changes", "go        go1.2 ",
		"netpoll   not linked", "ws        v1.5.0", "rueidis   v2 (replaced)", "sonic     not linked", "compress  not linked",
	} {
		if !strings.Contains(output.String(), line) {
			t.Errorf("%q is missing in\n%s", line, &output)
		}
	}
}
