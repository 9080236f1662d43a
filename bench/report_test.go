package bench

import (
	"bytes"
	"flag"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestSpread(t *testing.T) {
	tests := []struct {
		name   string
		values []float64
		want   spread
	}{
		{"one", []float64{3}, spread{Median: 3, Min: 3, Max: 3, Count: 1}},
		{"odd", []float64{5, 1, 3}, spread{Median: 3, Min: 1, Max: 5, Count: 3}},
		{"even", []float64{4, 1, 3, 2}, spread{Median: 2.5, Min: 1, Max: 4, Count: 4}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := spreadOf(test.values); got != test.want {
				t.Errorf("got %+v, expected %+v", got, test.want)
			}
		})
	}
	if got := spreadOf(nil); got.Count != 0 || !math.IsNaN(got.Median) {
		t.Errorf("of nothing: %+v", got)
	}
}

// TestRatioWithinRounds: the machine was half as fast in round 2, which no ratio may show.
func TestRatioWithinRounds(t *testing.T) {
	q := question{scenario: "s", of: "c", metric: "m", wire: SSE}
	sample := func(subject string, round int, value float64) Sample {
		return Sample{Scenario: "s", Case: "c", Wire: SSE, Subject: subject, Round: round, Metrics: map[string]float64{"m": value}}
	}
	r := Result{Samples: []Sample{
		sample("floor", 1, 10), sample("a", 1, 12),
		sample("floor", 2, 20), sample("a", 2, 24),
		sample("a", 3, 99), // the floor failed in this round
	}}
	if got, want := r.ratio("a", "floor", q), (spread{Median: 1.2, Min: 1.2, Max: 1.2, Count: 2}); got != want {
		t.Errorf("got %+v, expected %+v", got, want)
	}
	if got := r.ratio("floor", "b", q); got.Count != 0 {
		t.Errorf("ratio to a subject without samples: %+v", got)
	}
}

func TestReportGolden(t *testing.T) {
	result, err := ReadResult(filepath.Join("testdata", "result.json"))
	if err != nil {
		t.Fatal(err)
	}
	directory := t.TempDir()
	output := filepath.Join(directory, "BENCHMARKS.md")
	if err := WriteReport([]*Result{result}, output, filepath.Join(directory, "plots")); err != nil {
		t.Fatal(err)
	}
	compareGolden(t, "BENCHMARKS.md", readFile(t, output))
	var table bytes.Buffer
	result.PrintTable(&table)
	compareGolden(t, "table.txt", table.Bytes())
	for _, name := range []string{"idle-shared-processBytesPerStream.svg", "fanout-paced-cpuSecondsPerMillion.svg"} {
		if drawing := readFile(t, filepath.Join(directory, "plots", name)); !bytes.Contains(drawing, []byte("<svg")) {
			t.Errorf("%s is no SVG", name)
		}
	}
}

// TestReportAppendix: a run with all cores stands behind the tables of the one with one core,
// whichever comes first.
func TestReportAppendix(t *testing.T) {
	one, err := ReadResult(filepath.Join("testdata", "result.json"))
	if err != nil {
		t.Fatal(err)
	}
	all := *one
	all.Settings.Cores, all.Settings.Rounds, all.Commands = "all", 7, []string{"millrace bench --cores all"}
	directory := t.TempDir()
	output := filepath.Join(directory, "BENCHMARKS.md")
	for _, results := range [][]*Result{{one, &all}, {&all, one}} {
		if err := WriteReport(results, output, directory); err != nil {
			t.Fatal(err)
		}
		page := string(readFile(t, output))
		for _, want := range []string{
			"Figures are medians of 2 rounds", "medians of 7 rounds",
			"millrace bench --cores all --json all-cores.json", "millrace bench report result.json all-cores.json",
		} {
			if !strings.Contains(page, want) {
				t.Errorf("the page does not say %q", want)
			}
		}
	}
}

// TestTargets: each is about a figure that there is, and is missed and met on the right side of its
// bound.
func TestTargets(t *testing.T) {
	for _, one := range targets() {
		f := one.figure()
		if one.least != f.more {
			t.Errorf("%s: %s, but more is better: %v", f.full, one.rule(), f.more)
		}
		worse, better := one.bound*1.2, one.bound*0.8
		if one.least {
			worse, better = better, worse
		}
		if one.met(worse) || !one.met(better) || !one.met(one.bound) {
			t.Errorf("%s: %s is met at %v, or not at %v", f.full, one.rule(), worse, better)
		}
	}
}

// TestPaceOfABound: a bound that a slow machine misses is held against what the floor took there, round
// by round.
func TestPaceOfABound(t *testing.T) {
	const handshakes = "connect"
	sample := func(subject, of string, round int, seconds float64) Sample {
		return Sample{Scenario: handshakes, Case: of, Subject: subject, Wire: SSE, Round: round, Metrics: map[string]float64{metricCPUSeconds: seconds}}
	}
	for _, c := range []struct {
		name          string
		ours, floor   float64
		scaled        float64
		met, isMissed bool
	}{
		{"a machine as fast, and met", 0.25, 0.17, 0.25, true, false},
		{"a machine half as fast, and met at that pace", 0.50, 0.34, 0.25, false, false},
		{"a machine twice as fast, and met by that alone", 0.25, 0.085, 0.50, true, false},
		{"missed at any pace", 0.70, 0.34, 0.35, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &Result{Samples: []Sample{
				sample(ourName, "no token", 1, c.ours), sample(floorName, "no token", 1, c.floor),
				sample(ourName, "token", 1, c.ours*1.4),
			}}
			for _, of := range []string{"no token", "token"} {
				i := slices.IndexFunc(targets(), func(one target) bool { return one.scenario == handshakes && one.of == of })
				one := targets()[i]
				reached, scaled := one.reached(r, SSE), one.atPace(r, SSE)
				want := c.scaled
				if of == "token" {
					want *= 1.4
				}
				if math.Abs(scaled.Median-want) > 1e-9 {
					t.Errorf("%s: %v at the pace of the bound, not %v", of, scaled.Median, want)
				}
				if one.met(reached.Median) != c.met || one.missed(reached, scaled) != c.isMissed {
					t.Errorf("%s: met %v, missed %v", of, one.met(reached.Median), one.missed(reached, scaled))
				}
			}
		})
	}
	if one := (&target{scenario: "idle", of: "shared", metric: metricBytesPerStream, bound: 200}); one.atPace(&Result{}, SSE).Count != 0 {
		t.Error("a target without a pace has one")
	}
}

func TestFiguresHaveTitles(t *testing.T) {
	for _, f := range figures() {
		if title, column := f.title(); title == "" || column == "" {
			t.Errorf("%q is not TITLE: COLUMN", f.full)
		}
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func compareGolden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if difference := cmp.Diff(string(readFile(t, path)), string(got)); difference != "" {
		t.Errorf("%s is not as it was (-was +is); run the test with -update if it should be so:\n%s", name, difference)
	}
}

func TestResultRoundTrip(t *testing.T) {
	result, err := ReadResult(filepath.Join("testdata", "result.json"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "again.json")
	if err := result.Write(path); err != nil {
		t.Fatal(err)
	}
	again, err := ReadResult(path)
	if err != nil {
		t.Fatal(err)
	}
	if difference := cmp.Diff(result, again); difference != "" {
		t.Error(difference)
	}
}

func TestReadResultRefuses(t *testing.T) {
	for name, text := range map[string]string{"not JSON": "x", "of another version": `{"version":99}`} {
		path := filepath.Join(t.TempDir(), "result.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadResult(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := WriteReport([]*Result{{}}, "x", "y"); err == nil {
		t.Error("a report of nothing was written")
	}
}

func TestOptionsRefuse(t *testing.T) {
	tests := []struct {
		name    string
		options Options
		says    string
	}{
		{"unknown scenario", Options{Scenarios: []string{"nope"}}, `no scenario "nope"`},
		{"unknown subject", Options{Subjects: []string{"nope"}}, `no subject "nope"`},
		{"a scenario that the subject cannot be asked", Options{Scenarios: []string{"gateways"}, Subjects: []string{"floor"}}, "none of these scenarios"},
		{"a subject without the wire", Options{Scenarios: []string{"fanout"}, Subjects: []string{"nbio"}, Wires: []Wire{SSE}}, "none of these scenarios"},
		{"nothing to go on with", Options{Append: true}, "needs the file"},
		{"too many streams", Options{Streams: streamsMax + 1}, "expected"},
		{"too few streams", Options{Streams: 1}, "expected"},
		{"no rounds", Options{Rounds: -1}, "round"},
		{"no time", Options{Duration: 1}, "half a second"},
		{"no fleet", Options{Million: 1}, "fleet"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, err := Run(t.Context(), test.options); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, expected an error that says %q", err, test.says)
			}
		})
	}
}
