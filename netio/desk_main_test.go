package netio

import (
	"fmt"
	"net"
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
	// The pollers of netpoll and of Go's runtime live as long as the process: they are no leak.
	configureNetpoll()
	if probe, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		probe.Close()
	}
	before := openDescriptors()
	code := m.Run()
	if code == 0 {
		code = leaks(before)
	}
	os.Exit(code)
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
