package e2e

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/millrace/millrace/internal/leaktest"
	"github.com/millrace/millrace/internal/logwatch"
	"github.com/millrace/millrace/internal/processtest"
)

// builds is the folder for binaries, made once and removed at the end.
var builds string

// logs looks at every line that any binary of ours logs.
var logs logwatch.Watch

// racy and plain build the gateway with and without the race detector, once. Behaviour is
// tested with it, memory and crowds without: it multiplies what a stream costs.
var (
	racy  = sync.OnceValues(func() (string, error) { return build("millrace-race", "../cmd/millrace", "-race") })
	plain = sync.OnceValues(func() (string, error) { return build("millrace", "../cmd/millrace") })
	// next is another build of the same source, which says that it is another version.
	next = sync.OnceValues(func() (string, error) {
		return build("millrace-next", "../cmd/millrace", "-ldflags=-X main.stamp=next")
	})
	racyNext = sync.OnceValues(func() (string, error) {
		return build("millrace-race-next", "../cmd/millrace", "-race", "-ldflags=-X main.stamp=next")
	})
	crowdPath = sync.OnceValues(func() (string, error) { return build("crowd", "./crowd") })

	workersPath = sync.OnceValues(func() (string, error) { return build("workers", "../examples/workers", "-race") })
)

func build(name, folder string, flags ...string) (string, error) {
	return processtest.Build(builds, name, folder, flags...)
}

func TestMain(m *testing.M) {
	if os.Getenv(relayVariable) != "" {
		os.Exit(relay())
	}
	if os.Getenv(machineVariable) != "" {
		os.Exit(becomeMachine())
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if builds, err = os.MkdirTemp("", "millrace-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(builds)
	watch := leaktest.Begin()
	logs.Secret("the secret of tokens", secret)
	logs.Secret("a password of Redis", aclPassword)
	logs.Secret("a password of Redis", redisPassword)
	return watch.End(m.Run(), logs.Verdict)
}
