package handoff

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails the run if a test left a goroutine or an open descriptor behind.
func TestMain(m *testing.M) {
	// The first pipe makes the runtime open a poller, which it keeps.
	if r, w, err := os.Pipe(); err == nil {
		_ = r.Close()
		_ = w.Close()
	}
	before := openDescriptors()
	code := m.Run()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "goroutines left behind:", err)
		code = max(code, 1)
	}
	if after := openDescriptors(); after > before {
		fmt.Fprintf(os.Stderr, "descriptors left open: %d before, %d after\n", before, after)
		code = max(code, 1)
	}
	os.Exit(code)
}

func openDescriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0 // not Linux
	}
	return len(entries)
}
