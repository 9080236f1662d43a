package gateway_test

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace/millrace/gateway"
)

// metrics asks for /metrics and reads it as strictly as the text format allows.
func (h *house) metrics(t testing.TB) map[string]float64 {
	t.Helper()
	got := h.ask(t, get("/metrics", "Connection: close"))
	if got.status != 200 || !strings.HasPrefix(got.header.Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Fatalf("/metrics answered %d %q", got.status, got.header.Get("Content-Type"))
	}
	parsed, err := parseMetrics(got.body)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

var (
	typeLine   = regexp.MustCompile(`^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram|summary|untyped)$`)
	helpLine   = regexp.MustCompile(`^# HELP [a-zA-Z_:][a-zA-Z0-9_:]* .*$`)
	sampleLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)((?:\{[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"(?:, ?[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*")*\})?) (\S+)$`)
)

// parseMetrics reads the Prometheus text format 0.0.4. Every sample belongs to a family whose TYPE
// came once and before it, the samples of a family stand together, and no series comes twice.
func parseMetrics(text string) (map[string]float64, error) {
	samples := make(map[string]float64)
	types := make(map[string]string)
	family := ""
	var done []string
	if !strings.HasSuffix(text, "\n") {
		return nil, fmt.Errorf("the last line has no end: %.80q", text[max(0, len(text)-80):])
	}
	for number, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if found := typeLine.FindStringSubmatch(line); found != nil {
			if types[found[1]] != "" {
				return nil, fmt.Errorf("line %d: a second TYPE of %s", number+1, found[1])
			}
			done = append(done, family)
			family, types[found[1]] = found[1], found[2]
			continue
		}
		if helpLine.MatchString(line) {
			continue
		}
		found := sampleLine.FindStringSubmatch(line)
		if found == nil {
			return nil, fmt.Errorf("line %d is no sample: %q", number+1, line)
		}
		name, series := found[1], found[1]+found[2]
		if types[family] == "histogram" || types[family] == "summary" {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				if name == family+suffix {
					name = family
				}
			}
		}
		if name != family {
			return nil, fmt.Errorf("line %d: %s has no TYPE before it (its family is not %s; finished are %d)", number+1, name, family, len(done))
		}
		value, err := strconv.ParseFloat(found[3], 64)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number+1, err)
		}
		if _, twice := samples[series]; twice {
			return nil, fmt.Errorf("line %d: the series %s comes twice", number+1, series)
		}
		samples[series] = value
	}
	return samples, nil
}

// TestMetricsFormat: the parser above refuses what it should, so that it means something that it
// accepts ours.
func TestMetricsFormat(t *testing.T) {
	for name, text := range map[string]string{
		"no type":        "a 1\n",
		"two types":      "# TYPE a counter\na 1\n# TYPE a counter\n",
		"a series twice": "# TYPE a counter\na{b=\"1\"} 1\na{b=\"1\"} 2\n",
		"torn apart":     "# TYPE a counter\na{b=\"1\"} 1\n# TYPE c counter\nc 1\na{b=\"2\"} 2\n",
		"bad label":      "# TYPE a counter\na{b=1} 1\n",
		"bad number":     "# TYPE a counter\na one\n",
		"no line end":    "# TYPE a counter\na 1",
	} {
		if _, err := parseMetrics(text); err == nil {
			t.Errorf("%s: the parser takes %q", name, text)
		}
	}
	if got, err := parseMetrics("# TYPE a histogram\na_bucket{le=\"+Inf\"} 2\na_sum 0.5\na_count 2\n"); err != nil || got["a_count"] != 2 {
		t.Errorf("a good histogram is refused: %v", err)
	}
}

// TestMetrics: the numbers add up, and no label names a channel or a user.
func TestMetrics(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{LogLinesDropped: func() uint64 { return 7 }})
	for _, w := range everyWire {
		s := h.open(t, w, visit{channels: []string{"job_progress:metered", "job_progress:second"}, query: "userId=metereduser"})
		defer s.event(t, `{"last":true}`)
	}
	for range 5 {
		h.ask(t, get("/api/none"))
	}
	h.publish(t, "job_progress:metered", `{"last":true}`)
	var got map[string]float64
	within(t, patience, "all are delivered", func() bool {
		got = h.metrics(t)
		return got["millrace_delivery_seconds_count"] == float64(len(everyWire))
	})
	events, webSockets := float64(len(sseWires)), float64(len(webSockets))
	all := events + webSockets
	for series, want := range map[string]float64{
		`millrace_streams{wire="sse"}`: events, `millrace_streams{wire="websocket"}`: webSockets,
		"millrace_subscriptions": 3 * all, "millrace_channels": 3, "millrace_events_total": 1,
		`millrace_deliveries_total{form="sse"}`: 1, `millrace_deliveries_total{form="sse_plain"}`: 1,
		`millrace_deliveries_total{form="text"}`: 1, `millrace_deliveries_total{form="envelope"}`: 1,
		`millrace_deliveries_total{form="sse_gzip"}`: 1, `millrace_deliveries_total{form="sse_plain_gzip"}`: 1,
		`millrace_deliveries_total{form="text_deflate"}`: 1, `millrace_deliveries_total{form="envelope_deflate"}`: 1,
		`millrace_requests_refused_total{code="not_found"}`: 5, "millrace_commands_total": webSockets,
		`millrace_streams_ended_total{reason="bug"}`: 0, `millrace_gaps_total{reason="slow"}`: 0,
		`millrace_delivery_seconds_bucket{le="+Inf"}`: all, "millrace_broker_delivering": 1,
		"millrace_desk_parked_total": all, "millrace_log_lines_dropped_total": 7, `millrace_desk_refused_total{reason="bug"}`: 0,
	} {
		if value, known := got[series]; !known || value != want {
			t.Errorf("%s is %v (known: %v), want %v", series, value, known, want)
		}
	}
	if got["millrace_loop_streams{loop=\"0\"}"]+got["millrace_loop_streams{loop=\"1\"}"] != all {
		t.Errorf("the loops have %v and %v streams together", got["millrace_loop_streams{loop=\"0\"}"], got["millrace_loop_streams{loop=\"1\"}"])
	}
	wantBuckets(t, got, "millrace_delivery_seconds")
	wantBuckets(t, got, "millrace_publisher_delay_seconds")
	for series := range got {
		if strings.Contains(series, "metered") {
			t.Errorf("a label names a channel or a user: %s", series)
		}
	}
}

// wantBuckets checks that a histogram's buckets only grow, and end at its count.
func wantBuckets(t testing.TB, samples map[string]float64, name string) {
	t.Helper()
	type bucket struct{ bound, count float64 }
	var buckets []bucket
	for series, count := range samples {
		if bound, ok := strings.CutPrefix(series, name+`_bucket{le="`); ok {
			value, err := strconv.ParseFloat(strings.TrimSuffix(bound, `"}`), 64)
			if err != nil {
				t.Fatal(err)
			}
			buckets = append(buckets, bucket{value, count})
		}
	}
	slices.SortFunc(buckets, func(a, b bucket) int { return int(1e6*min(a.bound, 1e3)) - int(1e6*min(b.bound, 1e3)) })
	if len(buckets) < 2 || buckets[len(buckets)-1].count != samples[name+"_count"] {
		t.Fatalf("%s: the buckets are %v, the count %v", name, buckets, samples[name+"_count"])
	}
	for i := 1; i < len(buckets); i++ {
		if buckets[i].count < buckets[i-1].count {
			t.Errorf("%s: the bucket %v holds less than %v", name, buckets[i], buckets[i-1])
		}
	}
}
