package netio

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// deskChildVariable names the part that a re-executed test binary plays instead of testing.
const deskChildVariable = "NETIO_DESK_CHILD"

// deskChildren are those parts. Each returns an exit code.
var deskChildren = map[string]func() int{"exhausted": exhaustedChild}

func TestMain(m *testing.M) {
	if child, ok := deskChildren[os.Getenv(deskChildVariable)]; ok {
		os.Exit(child())
	}
	// netpoll's poller lives as long as the process: it is no leak, and neither are its descriptors.
	configureNetpoll()
	warmUp()
	before := openDescriptors()
	code := m.Run()
	if code == 0 {
		code = leaks(before)
	}
	os.Exit(code)
}

// warmUp makes netpoll start its poller, by serving nothing.
func warmUp() {
	desk, err := startDesk(DeskOptions{Handler: notFound, Adopt: adoptNothing})
	if err != nil {
		panic(err)
	}
	if err := shutDown(desk, time.Second); err != nil {
		panic(err)
	}
}

func leaks(before map[string]string) int {
	if err := goleak.Find(goleak.IgnoreAnyFunction("github.com/cloudwego/netpoll.(*defaultPoll).Wait")); err != nil {
		fmt.Fprintln(os.Stderr, "goroutines are left:", err)
		return 1
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		var left []string
		for fd, target := range openDescriptors() {
			if _, known := before[fd]; !known {
				left = append(left, fd+" -> "+target)
			}
		}
		if len(left) == 0 {
			return 0
		}
		if time.Now().After(deadline) {
			fmt.Fprintln(os.Stderr, "descriptors are left open:", strings.Join(left, ", "))
			return 1
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// openDescriptors lists this process's descriptors and what they are of, but for what the listing
// itself and Go's runtime open.
func openDescriptors() map[string]string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	descriptors := make(map[string]string)
	for _, entry := range entries {
		target, err := os.Readlink("/proc/self/fd/" + entry.Name())
		if err != nil || strings.HasPrefix(target, "/proc/") {
			continue
		}
		descriptors[entry.Name()] = target
	}
	return descriptors
}
