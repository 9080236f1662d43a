package hostile

import (
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/leaktest"
	"github.com/millrace/millrace/internal/logwatch"
	"github.com/millrace/millrace/internal/processtest"
)

var (
	// reportPath is where the table of robustness is written; empty: nowhere.
	reportPath = flag.String("report", "", "file to write the table to, which runs the cases one after the other")
	// crowdFactor multiplies the crowds.
	crowdFactor = flag.Int("crowd", 1, "how many times larger than usual the crowds are")
)

// patience is how long a test waits for what should happen at once. It is long, for a busy
// machine, and costs nothing where things work.
const patience = 90 * time.Second

// builds is the folder for the binary, made once and removed at the end.
var builds string

// logs looks at every line that any gateway of the suite logs.
var logs logwatch.Watch

// gatewayPath builds the gateway, once: without the race detector, which would be in the way of
// measuring memory.
var gatewayPath = sync.OnceValues(func() (string, error) { return processtest.Build(builds, "millrace", "../cmd/millrace") })

func TestMain(m *testing.M) {
	if os.Getenv(hostVariable) != "" {
		os.Exit(haveHost())
	}
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if builds, err = os.MkdirTemp("", "millrace-hostile-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(builds)
	watch := leaktest.Begin()
	logs.Secret("the secret of tokens", hmacSecret)
	logs.Secret("a payload", payloadMark)
	if code := watch.End(m.Run(), logs.Verdict); code != 0 {
		return code
	}
	if err := writeReport(*reportPath); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// crowd is the size of a crowd that is n in the small run.
func crowd(n int) int { return n * *crowdFactor }
