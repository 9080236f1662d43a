package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/millrace/millrace/internal/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// read gives the text of a file of this repository, by its path from this folder.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// tool finds a program that some machines lack: in the PATH, in sbin, or where .ci/deps put what
// it took out of a Debian package. The test is skipped where it is in none.
func tool(t *testing.T, name string) string {
	t.Helper()
	for _, candidate := range []string{name, "/usr/sbin/" + name, "/sbin/" + name, filepath.Join("..", "bin", "debian", name)} {
		if path, err := exec.LookPath(candidate); err == nil {
			if path, err = filepath.Abs(path); err == nil {
				return path
			}
		}
	}
	t.Skipf("%s is not installed: make deps, as root on Debian, brings it", name)
	return ""
}

// run runs a program and gives what it printed; its failure fails the test.
func run(t *testing.T, program string, arguments ...string) string {
	t.Helper()
	output, err := exec.Command(program, arguments...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", filepath.Base(program), arguments, err, output)
	}
	return string(output)
}
