package deploy

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// rule is one alert of prometheus/alerts.yaml.
type rule struct {
	Alert       string            `yaml:"alert"`
	Expression  string            `yaml:"expr"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func alerts(t *testing.T) []rule {
	t.Helper()
	var file struct {
		Groups []struct {
			Rules []rule `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "prometheus/alerts.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	var all []rule
	for _, group := range file.Groups {
		all = append(all, group.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("no alert found")
	}
	return all
}

// TestAlertsInPrometheus lets promtool read the rules and try each on samples.
func TestAlertsInPrometheus(t *testing.T) {
	promtool := tool(t, "promtool")
	run(t, promtool, "check", "rules", "prometheus/alerts.yaml")
	run(t, promtool, "test", "rules", "prometheus/alerts_test.yaml")
}

// TestAlerts holds each alert to being complete: tried both ways, with a severity, and with a link
// to a heading of the runbook that names it.
func TestAlerts(t *testing.T) {
	tried := read(t, "prometheus/alerts_test.yaml")
	sections := sectionsOf(read(t, "../docs/runbook.md"))
	const page = "https://github.com/millrace/millrace/blob/main/docs/runbook.md#"
	for _, alert := range alerts(t) {
		if severity := alert.Labels["severity"]; severity != "page" && severity != "ticket" {
			t.Errorf("%s has severity %q, want page or ticket", alert.Alert, severity)
		}
		if alert.Annotations["summary"] == "" {
			t.Errorf("%s has no summary", alert.Alert)
		}
		if strings.Count(tried, "alertname: "+alert.Alert+",") == 0 || !regexp.MustCompile(`alertname="`+alert.Alert+`"}`).MatchString(tried) {
			t.Errorf("alerts_test.yaml does not try %s both ways", alert.Alert)
		}
		anchor, ok := strings.CutPrefix(alert.Annotations["runbook_url"], page)
		if !ok || !strings.Contains(sections[anchor], "`"+alert.Alert+"`") {
			t.Errorf("%s links to %q: no heading of docs/runbook.md that names it", alert.Alert, alert.Annotations["runbook_url"])
		}
	}
	for anchor, text := range sections {
		for _, name := range regexp.MustCompile("Alert `(\\w+)`").FindAllStringSubmatch(text, -1) {
			if !slices.ContainsFunc(alerts(t), func(r rule) bool { return r.Alert == name[1] }) {
				t.Errorf("docs/runbook.md#%s names the alert %s, which does not exist", anchor, name[1])
			}
		}
	}
}

// sectionsOf gives the text below each heading of a page, by the anchor that the heading has where
// such pages are shown.
func sectionsOf(page string) map[string]string {
	sections := make(map[string]string)
	var anchor string
	code := false
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "```") {
			code = !code
		}
		if title := strings.TrimLeft(line, "#"); title != line && !code {
			anchor = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), "")
			anchor = strings.ReplaceAll(anchor, " ", "-")
		}
		sections[anchor] += line
	}
	return sections
}

// knownMetrics are the names of docs/metrics.md, which a test in e2e compares with what a gateway
// exposes; a histogram has three series.
func knownMetrics(t *testing.T) map[string]bool {
	t.Helper()
	known := map[string]bool{"up": true}
	for _, row := range regexp.MustCompile("(?m)^\\| (`[a-z].*?) \\| (\\w+) \\|").FindAllStringSubmatch(read(t, "../docs/metrics.md"), -1) {
		for _, name := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(row[1], -1) {
			if row[2] == "histogram" {
				known[name[1]+"_bucket"], known[name[1]+"_sum"], known[name[1]+"_count"] = true, true, true
				continue
			}
			known[name[1]] = true
		}
	}
	return known
}

var metricName = regexp.MustCompile(`\b(?:millrace|go|process)_\w+`)

// wantKnown complains of every metric in an expression that no gateway exposes.
func wantKnown(t *testing.T, known map[string]bool, where, expression string) {
	t.Helper()
	names := metricName.FindAllString(expression, -1)
	if len(names) == 0 && !strings.Contains(expression, "up{") {
		t.Errorf("%s asks for no metric: %s", where, expression)
	}
	for _, name := range names {
		if !known[name] {
			t.Errorf("%s asks for %s, which docs/metrics.md does not know", where, name)
		}
	}
}

func TestMetricsOfAlertsAndRunbookExist(t *testing.T) {
	known := knownMetrics(t)
	for _, alert := range alerts(t) {
		wantKnown(t, known, alert.Alert, alert.Expression)
	}
	for _, quoted := range regexp.MustCompile("`[^`]*`").FindAllString(read(t, "../docs/runbook.md"), -1) {
		for _, name := range metricName.FindAllString(quoted, -1) {
			if !known[name] && !known[name+"_bucket"] {
				t.Errorf("docs/runbook.md speaks of %s, which docs/metrics.md does not know", name)
			}
		}
	}
}
