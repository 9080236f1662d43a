package netio

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails the package if a test left a goroutine or a descriptor behind.
func TestMain(m *testing.M) {
	before := openDescriptors()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(
			goleak.IgnoreTopFunction("github.com/cloudwego/netpoll.(*defaultPoll).Wait"),
			goleak.IgnoreAnyFunction("github.com/cloudwego/netpoll.(*defaultPoll).Wait"),
		); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		// netpoll's pollers keep an epoll instance and an eventfd each for ever.
		if after := openDescriptors(); after > before+descriptorsOfPollers {
			fmt.Fprintf(os.Stderr, "descriptors: %d before the tests, %d after\n", before, after)
			code = 1
		}
	}
	os.Exit(code)
}

const descriptorsOfPollers = 8

func openDescriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}
