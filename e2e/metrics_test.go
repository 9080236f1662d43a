package e2e

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/redistest"
)

// metricLine is one sample of the text format that Prometheus reads; one line out of form makes
// it refuse the whole page.
var metricLine = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*(\{[a-zA-Z_][a-zA-Z0-9_]*="[^"\n]*"(, ?[a-zA-Z_][a-zA-Z0-9_]*="[^"\n]*")*\})? (-?[0-9.e+-]+|[+-]Inf|NaN)$`)

// TestMetrics reads them as Prometheus does, after something of everything has happened, and
// looks for what must never be in them: channels and users.
func TestMetrics(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	g := startGateway(t, "--redis", redis.URL())
	for _, k := range light {
		c := open(t, k, "http://"+g.address, "", "job_progress:counted")
		redis.CLI(t, "PUBLISH", "job_progress:counted", `{"type":"job_progress"}`)
		c.event(t, `{"type":"job_progress"}`)
	}
	redis.CLI(t, "PUBLISH", "job_progress:counted", "no JSON")
	named := dial(t, npmWS, "http://"+g.address, "/ws?userId=user_counted")
	named.await(t, "connected", func(h heard) bool { return h.is("connected") })

	var text string
	values := make(map[string]float64)
	within(t, patience, "the worthless event is counted", func() bool {
		text = g.text(t, "/metrics")
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			if name, value, ok := strings.Cut(line, " "); ok && !strings.HasPrefix(line, "#") {
				values[name], _ = strconv.ParseFloat(value, 64)
			}
		}
		return values[`millrace_events_dropped_total{reason="not_json"}`] == 1
	})
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if line != "" && !strings.HasPrefix(line, "#") && !metricLine.MatchString(line) {
			t.Errorf("Prometheus would refuse the page for this line: %s", line)
		}
	}
	for name, want := range map[string]float64{
		`millrace_streams{wire="sse"}`:                   1,
		`millrace_streams{wire="websocket"}`:             2,
		`millrace_broker_delivering`:                     1,
		`millrace_streams_ended_total{reason="bug"}`:     0,
		`millrace_events_dropped_total{reason="nobody"}`: 0,
	} {
		if got, there := values[name]; !there || got != want {
			t.Errorf("%s is %v (there: %v), want %v", name, got, there, want)
		}
	}
	if strings.Contains(text, "counted") {
		t.Error("a metric names a channel or a user")
	}
}
