package main

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/millrace/millrace/internal/leaktest"
	"github.com/millrace/millrace/internal/processtest"
)

// builds is the folder for the gateway, made once and removed at the end.
var builds string

// gatewayPath builds the gateway with the race detector, once, and crowdPath a crowd, which has only one
// goroutine.
var (
	gatewayPath = sync.OnceValues(func() (string, error) { return processtest.Build(builds, "millrace-race", "../cmd/millrace", "-race") })
	crowdPath   = sync.OnceValues(func() (string, error) { return processtest.Build(builds, "crowd", "../e2e/crowd") })
)

func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	var err error
	if builds, err = os.MkdirTemp("", "millrace-audit-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailed
	}
	defer os.RemoveAll(builds)
	return leaktest.Run(m)
}
