// Package polltest waits in tests for what must come about. Who asks processes, which costs them something, polls
// with internal/processtest.
package polltest

import (
	"testing"
	"time"
)

// Patience is how long [Eventually] waits. It is long, for a busy machine, and costs nothing where things work.
const Patience = time.Minute

// pollInterval is how often a condition is looked at.
const pollInterval = 2 * time.Millisecond

// Until looks at done until it says yes or limit has passed, and says which. It looks at least once.
func Until(limit time.Duration, done func() bool) bool { return Every(pollInterval, limit, done) }

// Every is [Until], but looks so often.
func Every(interval, limit time.Duration, done func() bool) bool {
	for deadline := time.Now().Add(limit); !done(); time.Sleep(interval) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// Eventually waits until done says yes, and fails the test at once where it does not within [Patience].
func Eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	if !Until(Patience, done) {
		t.Fatalf("not within %v: %s", Patience, what)
	}
}
