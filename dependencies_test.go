package millrace_test

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

// TestDependenciesHaveReasons: docs/security.md lists the modules of go.mod, all of them and no other,
// those that we chose apart from those that these brought along.
func TestDependenciesHaveReasons(t *testing.T) {
	required := modulesOf(t, "go.mod", regexp.MustCompile(`(?m)^\t(\S+) v\S+$`))
	brought := modulesOf(t, "go.mod", regexp.MustCompile(`(?m)^\t(\S+) v\S+ // indirect$`))
	listed := modulesOf(t, "docs/security.md", regexp.MustCompile("(?m)^\\| `(\\S+\\.\\S+)` \\| [^|]+ \\| [^|]*\\|$"))
	listedBrought := modulesOf(t, "docs/security.md", regexp.MustCompile("(?m)^\\| `(\\S+\\.\\S+)` \\| [^|]+ \\|$"))
	for _, c := range []struct {
		what         string
		want, listed []string
	}{{"chosen", required, listed}, {"brought along", brought, listedBrought}} {
		for _, module := range c.want {
			if !slices.Contains(c.listed, module) {
				t.Errorf("%s is in go.mod and not in docs/security.md, among those %s: say what it is for", module, c.what)
			}
		}
		for _, module := range c.listed {
			if !slices.Contains(c.want, module) {
				t.Errorf("%s is in docs/security.md, among those %s, and not in go.mod: remove it", module, c.what)
			}
		}
	}
}

func modulesOf(t *testing.T, name string, pattern *regexp.Regexp) (modules []string) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range pattern.FindAllSubmatch(text, -1) {
		modules = append(modules, string(found[1]))
	}
	if len(modules) == 0 {
		t.Fatalf("%s names no module: the pattern that finds them is wrong", name)
	}
	return modules
}
