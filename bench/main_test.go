package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain fails the run if a test left a goroutine or an open descriptor behind.
func TestMain(m *testing.M) {
	before := openDescriptors()
	code := m.Run()
	if directory := built.directory; directory != "" {
		os.RemoveAll(directory)
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "goroutines left behind:", err)
		code = max(code, 1)
	}
	deadline := time.Now().Add(3 * time.Second)
	for openDescriptors() > before && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	// The runtime's own poller takes up to three when the first socket or pipe is made.
	if after := openDescriptors(); after > before+3 {
		fmt.Fprintf(os.Stderr, "descriptors left open: %d before, %d after\n", before, after)
		code = max(code, 1)
	}
	os.Exit(code)
}

func openDescriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}

// built is the program that the tests start in its roles, built once.
var built struct {
	once      sync.Once
	directory string
	err       error
}

// program gives the path of a millrace built from this tree.
func program(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.directory, built.err = os.MkdirTemp("", "millrace-bench-test-"); built.err != nil {
			return
		}
		output, err := exec.Command("go", "build", "-buildvcs=false", "-o", filepath.Join(built.directory, "millrace"), "../cmd/millrace").CombinedOutput()
		if err != nil {
			built.err = fmt.Errorf("%w: %s", err, output)
		}
	})
	if built.err != nil {
		t.Fatalf("build the program under test: %v", built.err)
	}
	return filepath.Join(built.directory, "millrace")
}
