// Package leaktest fails a run of tests that leaves goroutines or descriptors behind.
package leaktest

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/freeport"
)

// patience is how long the kernel, and whoever closes late, may take to let go.
const patience = 5 * time.Second

// Netpoll ignores netpoll's poller, which lives as long as the process.
func Netpoll() goleak.Option {
	return goleak.IgnoreAnyFunction("github.com/cloudwego/netpoll.(*defaultPoll).Wait")
}

// Rueidis ignores what a client of rueidis that could not connect leaves: a goroutine that sleeps for
// up to a second.
func Rueidis() goleak.Option {
	return goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1")
}

// Run runs the tests of a package that has no more to look after, and gives the exit code of its
// TestMain.
func Run(m *testing.M, ignored ...goleak.Option) (code int) {
	watch := Begin(ignored...)
	return watch.End(m.Run())
}

// Watch knows what was there before the tests.
type Watch struct {
	ignored  []goleak.Option
	before   map[string]string // descriptors, and what they are of
	patience time.Duration
}

// Begin looks at what there is. ignored are goroutines that may stay.
func Begin(ignored ...goleak.Option) *Watch {
	// The first pipe makes the runtime open a poller, which it keeps.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	_, _ = freeport.Find() // keeps a descriptor as well
	return &Watch{ignored: ignored, before: descriptors(), patience: patience}
}

// End gives the exit code of a run that ended with code: 1 where that was 0 and [Watch.Check], or one of the
// caller's own checks, finds something, which it prints.
func (w *Watch) End(code int, checks ...func() error) int {
	if code != 0 {
		return code
	}
	for _, check := range append([]func() error{w.Check}, checks...) {
		if err := check(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

// Check says what is there now that was not, nil if nothing is.
func (w *Watch) Check() error {
	err := goleak.Find(w.ignored...)
	var left []string
	for deadline := time.Now().Add(w.patience); ; <-time.After(10 * time.Millisecond) {
		left = nil
		for descriptor, target := range descriptors() {
			if _, known := w.before[descriptor]; !known {
				left = append(left, descriptor+" -> "+target)
			}
		}
		if len(left) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return errors.Join(err, fmt.Errorf("descriptors are left open: %s", strings.Join(left, ", ")))
		}
		runtime.GC() // some are closed by it alone: pipes that the standard library keeps for copying
	}
}

// descriptors lists those of this process and what they are of, but for what the listing itself opens.
func descriptors() map[string]string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil // not Linux
	}
	open := make(map[string]string)
	for _, entry := range entries {
		target, err := os.Readlink("/proc/self/fd/" + entry.Name())
		if err == nil && !strings.HasPrefix(target, "/proc/") {
			open[entry.Name()] = target
		}
	}
	return open
}
