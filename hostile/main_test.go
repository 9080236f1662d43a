package hostile

import (
	"flag"
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

var (
	// reportPath is where the table of robustness is written; empty: nowhere.
	reportPath = flag.String("report", "", "file to write the table to, which runs the cases one after the other")
	// crowdFactor multiplies the crowds.
	crowdFactor = flag.Int("crowd", 1, "how many times larger than usual the crowds are")
)

// patience is how long a test waits for what should happen at once. It is long, for a busy
// machine, and costs nothing where things work.
const patience = 90 * time.Second

// builds is the folder for the binary, made once and removed at the end.
var builds string

// logs looks at every line that any gateway of the suite logs.
var logs logwatch.Watch

// gatewayPath builds the gateway, once: without the race detector, which would be in the way of
// measuring memory.
var gatewayPath = sync.OnceValues(func() (string, error) {
	path := filepath.Join(builds, "millrace")
	output, err := exec.Command("go", "build", "-buildvcs=false", "-o", path, "../cmd/millrace").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building the gateway: %w\n%s", err, output)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if builds, err = os.MkdirTemp("", "millrace-hostile-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(builds)
	before := descriptors()
	logs.Secret("the secret of tokens", hmacSecret)
	logs.Secret("a payload", payloadMark)
	if code := m.Run(); code != 0 {
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
	if !poll(10*time.Second, func() bool { return len(descriptors()) <= len(before) }) {
		fmt.Fprintf(os.Stderr, "descriptors were left open: %v before, %v after\n", before, descriptors())
		return 1
	}
	if err := writeReport(*reportPath); err != nil {
		fmt.Fprintln(os.Stderr, err)
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
func poll(limit time.Duration, done func() bool) bool {
	deadline := time.Now().Add(limit)
	for !done() {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(20 * time.Millisecond)
	}
	return true
}

// crowd is the size of a crowd that is n in the small run.
func crowd(n int) int { return n * *crowdFactor }
