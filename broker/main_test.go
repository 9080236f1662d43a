package broker_test

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain fails the run when goroutines or descriptors are left behind.
func TestMain(m *testing.M) {
	flag.Parse()
	// Most of these tests wait for a server to notice something.
	if err := flag.Set("test.parallel", "4"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	before := openDescriptors()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		// io.Copy between sockets, as in the proxies of these tests, splices through pipes that the
		// standard library pools and only the collector closes.
		deadline := time.Now().Add(3 * time.Second)
		for openDescriptors() > before+3 && time.Now().Before(deadline) {
			runtime.GC()
			time.Sleep(10 * time.Millisecond)
		}
		// The runtime's own poller takes up to three when the first socket is made.
		if after := openDescriptors(); after > before+3 {
			fmt.Fprintf(os.Stderr, "%d descriptors left open: %v\n", after-before, descriptorTargets())
			code = 1
		}
	}
	os.Exit(code)
}

// descriptorTargets says what the open descriptors are.
func descriptorTargets() (targets []string) {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, entry := range entries {
		target, _ := os.Readlink("/proc/self/fd/" + entry.Name())
		targets = append(targets, target)
	}
	return targets
}

func openDescriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}
