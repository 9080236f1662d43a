package access

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain fails the run if a test leaves a goroutine or a descriptor behind.
func TestMain(m *testing.M) {
	before := openDescriptors()
	code := m.Run()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "goroutines left behind:", err)
		code = max(code, 1)
	}
	for deadline := time.Now().Add(3 * time.Second); openDescriptors() > before && time.Now().Before(deadline); {
		<-time.After(10 * time.Millisecond)
	}
	if after := openDescriptors(); after > before {
		fmt.Fprintf(os.Stderr, "descriptors left behind: %d before, %d after\n", before, after)
		code = max(code, 1)
	}
	os.Exit(code)
}

// openDescriptors counts this process's descriptors, without the poller's own, which the runtime
// opens once and keeps.
func openDescriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	count := 0
	for _, entry := range entries {
		target, err := os.Readlink("/proc/self/fd/" + entry.Name())
		if err == nil && target != "anon_inode:[eventpoll]" && target != "anon_inode:[eventfd]" {
			count++
		}
	}
	return count
}
