package bench

import (
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/millrace/millrace/internal/leaktest"
	"github.com/millrace/millrace/internal/processtest"
)

// builds is the folder for the program, made once and removed at the end.
var builds string

// built is the program that the tests start in its roles, built once.
var built = sync.OnceValues(func() (string, error) { return processtest.Build(builds, "millrace", "../cmd/millrace") })

func TestMain(m *testing.M) {
	// A run waits far more than it works.
	_ = flag.Set("test.parallel", "8")
	flag.Parse() // what the command line says comes last
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if builds, err = os.MkdirTemp("", "millrace-bench-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(builds)
	return leaktest.Run(m)
}

// program gives the path of a millrace built from this tree.
func program(t *testing.T) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
