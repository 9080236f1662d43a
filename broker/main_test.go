package broker_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/millrace/millrace/internal/leaktest"
)

// TestMain fails the run when goroutines or descriptors are left behind.
func TestMain(m *testing.M) {
	flag.Parse()
	// Most of these tests wait for a server to notice something.
	if err := flag.Set("test.parallel", "4"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(leaktest.Run(m))
}
