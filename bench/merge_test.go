package bench

import (
	"path/filepath"
	"strings"
	"testing"
)

// written writes a result of one round of the fan-out and gives its path.
func written(t *testing.T, name, cores, revision string, value float64) string {
	t.Helper()
	return writtenOf(t, "fanout", name, cores, revision, value)
}

// writtenOf does so of any scenario.
func writtenOf(t *testing.T, scenario, name, cores, revision string, value float64) string {
	t.Helper()
	r := Result{
		Version: resultVersion, Seconds: 10, Commands: []string{"millrace bench fanout"},
		Machine: Machine{Revision: revision}, Settings: Settings{Cores: cores, Rounds: 1, Streams: 10},
		Subjects: []About{{Name: "floor", About: "the floor."}},
		Cells:    []Cell{{Scenario: scenario, Subject: "floor", Wire: SSE, Round: 1}},
		Samples: []Sample{{
			Scenario: scenario, Case: "paced", Subject: "floor", Wire: SSE, Round: 1,
			Metrics: map[string]float64{metricCPUPerMillion: value},
		}},
	}
	path := filepath.Join(t.TempDir(), name)
	if err := r.Write(path); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadResults(t *testing.T) {
	results, err := ReadResults([]string{
		written(t, "a.json", "one", "1", 5), written(t, "all.json", "all", "1", 9), written(t, "b.json", "one", "1", 7),
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != 2 {
		t.Fatalf("%d results, expected one for each number of cores", len(results))
	}
	q := question{scenario: "fanout", of: "paced", metric: metricCPUPerMillion, wire: SSE}
	if got, want := results[0].spread("floor", q), (spread{Median: 6, Min: 5, Max: 7, Count: 2}); got != want {
		t.Errorf("on one core: %+v, expected %+v", got, want)
	}
	if got := results[1].spread("floor", q); got.Count != 1 || got.Median != 9 {
		t.Errorf("on all cores: %+v", got)
	}
	if r := results[0]; r.Settings.Rounds != 2 || r.Seconds != 20 || len(r.Commands) != 1 || len(r.Subjects) != 1 {
		t.Errorf("two runs of one round are put together as %+v", r)
	}
}

// TestReadResultsOfRevisions: scenarios may be of different revisions, the rounds of one may not.
func TestReadResultsOfRevisions(t *testing.T) {
	fanout, state := written(t, "a.json", "one", "1", 5), writtenOf(t, "state", "b.json", "one", "2", 7)
	results, err := ReadResults([]string{fanout, state})
	if err != nil {
		t.Fatal(err)
	}
	r := results[0]
	if r.revision("fanout") != "1" || r.revision("state") != "2" || r.Settings.Rounds != 1 {
		t.Errorf("fanout of %q, state of %q, %d rounds", r.revision("fanout"), r.revision("state"), r.Settings.Rounds)
	}
	for i := range r.Cells {
		if r.Cells[i].Round != 1 {
			t.Errorf("%s", r.Cells[i].String())
		}
	}
	if r.measuredWith("fanout") != "" || !strings.Contains(r.measuredWith("state"), "at 2") {
		t.Errorf("the report says %q of one and %q of the other", r.measuredWith("fanout"), r.measuredWith("state"))
	}
	joined := filepath.Join(t.TempDir(), "joined.json")
	if err := r.Write(joined); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadResults([]string{joined, writtenOf(t, "state", "c.json", "one", "2", 8)}); err != nil {
		t.Errorf("another round of the same revision: %v", err)
	}
	for _, revision := range []string{"1", "3"} {
		_, err := ReadResults([]string{joined, writtenOf(t, "state", "c.json", "one", revision, 8)})
		if err == nil || !strings.Contains(err.Error(), "state is of revision") {
			t.Errorf("another round of revision %s: %v", revision, err)
		}
	}
}

func TestReadResultsRefuses(t *testing.T) {
	first := written(t, "a.json", "one", "1", 5)
	if _, err := ReadResults([]string{first, written(t, "b.json", "one", "2", 5)}); err == nil || !strings.Contains(err.Error(), `b.json`) || !strings.Contains(err.Error(), "revision") {
		t.Errorf("of another revision: %v", err)
	}
	other, err := ReadResult(first)
	if err != nil {
		t.Fatal(err)
	}
	other.Settings.Streams = 11
	path := filepath.Join(t.TempDir(), "c.json")
	if err := other.Write(path); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadResults([]string{first, path}); err == nil || !strings.Contains(err.Error(), "settings") {
		t.Errorf("with other settings: %v", err)
	}
}

// TestResultPut: a second try takes the place of the first, with all that the first gave.
func TestResultPut(t *testing.T) {
	var r Result
	cell := Cell{Scenario: "idle", Part: "own", Subject: "floor", Wire: SSE, Round: 1}
	other := cell
	other.Part = "shared"
	sample := func(c Cell, value float64) []Sample {
		return []Sample{{Scenario: c.Scenario, Part: c.Part, Case: c.Part, Subject: c.Subject, Wire: c.Wire, Round: c.Round, Metrics: map[string]float64{"m": value}}}
	}
	r.put(other, sample(other, 1))
	failed := cell
	failed.Failure = "it fell over"
	r.put(failed, sample(cell, 2))
	if r.done(&cell) || !r.done(&other) || len(r.Failures()) != 1 || !strings.Contains(r.Failures()[0], "idle (own), floor over sse: it fell over") {
		t.Errorf("after a failure: %q", r.Failures())
	}
	r.put(cell, sample(cell, 3))
	if !r.done(&cell) || len(r.Failures()) != 0 || len(r.Cells) != 2 || len(r.Samples) != 2 || r.Samples[1].Metrics["m"] != 3 {
		t.Errorf("after a second try: %+v", r)
	}
}
