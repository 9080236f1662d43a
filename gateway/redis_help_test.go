package gateway_test

import (
	"os"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/redistest"
)

// freeze stops a Redis, and returns when it is stopped: its connections stay, nothing is answered.
// It goes on, at the latest, when the test ends.
func freeze(t testing.TB, redis *redistest.Server) {
	t.Helper()
	_, id, _ := strings.Cut(redis.CLI(t, "INFO", "server"), "process_id:")
	id, _, _ = strings.Cut(id, "\r\n")
	redis.Stop()
	t.Cleanup(redis.Cont)
	within(t, patience, "Redis is stopped", func() bool {
		status, err := os.ReadFile("/proc/" + strings.TrimSpace(id) + "/stat")
		if err != nil {
			t.Fatal(err)
		}
		_, state, _ := strings.Cut(string(status), ") ")
		return strings.HasPrefix(state, "T")
	})
}
