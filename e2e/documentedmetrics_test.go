package e2e

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentedMetrics compares docs/metrics.md with what a gateway exposes, both ways.
func TestDocumentedMetrics(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]string) // the kind of each metric
	words := make(map[string]bool)        // all that stands in backticks
	for line := range strings.Lines(string(page)) {
		quoted := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(line, -1)
		for _, word := range quoted {
			words[word[1]] = true
		}
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !regexp.MustCompile("`(millrace|go|process)_").MatchString(cells[1]) {
			continue
		}
		for _, name := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(cells[1], -1) {
			if _, twice := documented[name[1]]; twice {
				t.Errorf("docs/metrics.md has %s twice", name[1])
			}
			documented[name[1]] = strings.TrimSpace(cells[2])
		}
	}

	text := startGateway(t).text(t, "/metrics")
	exposed := make(map[string]bool)
	for _, family := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(text, -1) {
		name, kind := family[1], family[2]
		exposed[name] = true
		switch is, there := documented[name]; {
		case !there:
			t.Errorf("docs/metrics.md lacks %s (%s): add a row that says what it means", name, kind)
		case is != kind && strings.HasPrefix(name, "millrace_"):
			t.Errorf("docs/metrics.md calls %s a %s; it is a %s", name, is, kind)
		}
	}
	for name := range documented {
		if strings.HasPrefix(name, "millrace_") && !exposed[name] {
			t.Errorf("docs/metrics.md has %s, which is not exposed", name)
		}
	}
	for _, sample := range regexp.MustCompile(`(?m)^(millrace_\w+)\{(\w+)="(\w+)"\} `).FindAllStringSubmatch(text, -1) {
		name, label, value := sample[1], sample[2], sample[3]
		if label != "le" && label != "loop" && !words[value] {
			t.Errorf("docs/metrics.md does not name %s of label %s of %s", value, label, name)
		}
	}
}
