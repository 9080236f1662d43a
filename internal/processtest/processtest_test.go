package processtest_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/leaktest"
	"github.com/millrace/millrace/internal/processtest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

func TestPoll(t *testing.T) {
	asked := 0
	if !processtest.Poll(time.Minute, func() bool { asked++; return asked == 2 }) || asked != 2 {
		t.Errorf("a yes to the second question was not taken: asked %d times", asked)
	}
	if processtest.Poll(0, func() bool { return false }) {
		t.Error("no was taken for a yes")
	}
}

func TestBuildSaysWhatIsWrong(t *testing.T) {
	if _, err := processtest.Build(t.TempDir(), "nothing", "./nothing"); err == nil || !strings.Contains(err.Error(), "./nothing") {
		t.Errorf("a folder that is not there was built: %v", err)
	}
}
