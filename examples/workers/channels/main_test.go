package channels_test

import (
	"testing"

	"go.uber.org/goleak"
)

// A client of rueidis that could not connect leaves a goroutine that sleeps for up to a second.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"))
}
