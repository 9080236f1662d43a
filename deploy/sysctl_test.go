package deploy

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSysctl holds each kernel setting, or paragraph of them, to a reason above it and, where this kernel is Linux with
// /proc/sys to see, to a name that exists.
func TestSysctl(t *testing.T) {
	form := regexp.MustCompile(`^-?([a-z0-9_.-]+) = ([0-9,\- ]+)$`)
	seen := make(map[string]bool)
	reason := false
	for line := range strings.Lines(read(t, "sysctl/90-millrace.conf")) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "":
			reason = false
			continue
		case strings.HasPrefix(line, "# "):
			reason = true
			continue
		}
		found := form.FindStringSubmatch(line)
		if found == nil {
			t.Errorf("%q is no setting", line)
			continue
		}
		if !reason {
			t.Errorf("%s has no reason above it", found[1])
		}
		if seen[found[1]] {
			t.Errorf("%s is set twice", found[1])
		}
		seen[found[1]] = true
		if optional := strings.HasPrefix(line, "-"); !optional {
			wantSysctl(t, found[1])
		}
	}
	if len(seen) == 0 {
		t.Fatal("no settings found")
	}
}

// wantSysctl looks for the setting in this kernel. A container may hide part of /proc/sys.
func wantSysctl(t *testing.T, name string) {
	t.Helper()
	path := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		t.Logf("%s cannot be looked up here: %v", name, err)
		return
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("this kernel has no %s", name)
	}
}
