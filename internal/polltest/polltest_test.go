package polltest_test

import (
	"os"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/leaktest"
	"github.com/millrace/millrace/internal/polltest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

func TestUntil(t *testing.T) {
	asked := 0
	if !polltest.Until(time.Minute, func() bool { asked++; return asked == 2 }) || asked != 2 {
		t.Errorf("a yes to the second question was not taken: asked %d times", asked)
	}
	if polltest.Until(0, func() bool { return false }) {
		t.Error("no was taken for a yes")
	}
}
