// Package processtest holds what the suites share that test real binaries in processes of their own:
// they build them, and wait for what these do.
package processtest

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/millrace/millrace/internal/polltest"
)

// pollInterval is how often [Poll] asks.
const pollInterval = 20 * time.Millisecond

// Build builds the program whose source is in folder, with flags of `go build`, and gives its path: name
// in directory. The error holds what the compiler said.
func Build(directory, name, folder string, flags ...string) (path string, err error) {
	path = filepath.Join(directory, name)
	arguments := append([]string{"build", "-buildvcs=false", "-o", path}, flags...)
	output, err := exec.Command("go", append(arguments, folder)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", folder, err, output)
	}
	return path, nil
}

// Poll asks until the answer is yes or time is up, and says which. It asks at least once.
func Poll(limit time.Duration, done func() bool) bool {
	return polltest.Every(pollInterval, limit, done)
}
