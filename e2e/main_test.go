package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/logwatch"
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
	path := filepath.Join(builds, name)
	arguments := append([]string{"build", "-buildvcs=false", "-o", path}, flags...)
	output, err := exec.Command("go", append(arguments, folder)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", folder, err, output)
	}
	return path, nil
}

func TestMain(m *testing.M) {
	if os.Getenv(relayVariable) != "" {
		os.Exit(relay())
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
	before := descriptors()
	logs.Secret("the secret of tokens", secret)
	logs.Secret("a password of Redis", aclPassword)
	logs.Secret("a password of Redis", redisPassword)
	code := m.Run()
	if code != 0 {
		return code
	}
	if err := logs.Verdict(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "goroutines were left behind:", err)
		return 1
	}
	if !poll(5*time.Second, func() bool { return len(descriptors()) <= len(before) }) {
		fmt.Fprintf(os.Stderr, "descriptors were left open: %v before, %v after\n", before, descriptors())
		return 1
	}
	return 0
}

// descriptors names what this process has open, the runtime's own epoll and eventfd aside: they
// come with the first socket and stay.
func descriptors() []string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	var open []string
	for _, entry := range entries {
		target, err := os.Readlink("/proc/self/fd/" + entry.Name())
		if err != nil || target == "anon_inode:[eventpoll]" || target == "anon_inode:[eventfd]" {
			continue
		}
		open = append(open, target)
	}
	return open
}

// poll asks until the answer is yes or time is up, and says which.
func poll(patience time.Duration, done func() bool) bool {
	deadline := time.Now().Add(patience)
	for !done() {
		if time.Now().After(deadline) {
			return false
		}
		<-time.After(20 * time.Millisecond)
	}
	return true
}
