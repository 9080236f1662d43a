package bench

import (
	"fmt"
	"path/filepath"
	"slices"
)

// ReadResults reads what several runs wrote and puts together what belongs together: the rounds of
// runs with the same settings follow one another. All rounds of a scenario have to be of one revision;
// different scenarios may be of different ones, which the report says. It gives one result, or two
// where some runs gave the server one core and others all.
func ReadResults(paths []string) ([]*Result, error) {
	var results []*Result
	for _, path := range paths {
		result, err := ReadResult(path)
		if err != nil {
			return nil, err
		}
		at := slices.IndexFunc(results, func(other *Result) bool { return other.Settings.Cores == result.Settings.Cores })
		if at < 0 {
			results = append(results, result)
			continue
		}
		if err := results[at].join(result); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
		}
	}
	return results, nil
}

// differs says in what runs of these settings cannot be put together, and is empty where they can.
// The number of rounds may differ.
func (s *Settings) differs(other *Settings) string {
	a, b := *s, *other
	a.Rounds, b.Rounds = 0, 0
	if a == b {
		return ""
	}
	return fmt.Sprintf("the settings are %+v, those of the other run %+v", b, a)
}

// belongs says why another run, which measured scenarios, is not one with this, or nil.
func (r *Result) belongs(other *Result, scenarios []string) error {
	if what := r.Settings.differs(&other.Settings); what != "" {
		return fmt.Errorf("it cannot be put together with another run: %s", what)
	}
	for _, name := range scenarios {
		ours, theirs := r.revision(name), other.revision(name)
		if r.rounds(name) > 0 && ours != theirs {
			return fmt.Errorf("it cannot be put together with another run: its %s is of revision %q, the other's of %q", name, theirs, ours)
		}
	}
	return nil
}

// revision is that of Millrace when a scenario was measured.
func (r *Result) revision(scenario string) string {
	if of, differs := r.Revisions[scenario]; differs {
		return of
	}
	return r.Machine.Revision
}

// noteRevisions notes for scenarios that another run adds of which revision they are.
func (r *Result) noteRevisions(other *Result, scenarios []string) {
	for _, name := range scenarios {
		if of := other.revision(name); of != r.revision(name) {
			if r.Revisions == nil {
				r.Revisions = make(map[string]string)
			}
			r.Revisions[name] = of
		}
	}
}

// rounds is the last round of a scenario; 0 if it was not measured.
func (r *Result) rounds(scenario string) int {
	last := 0
	for i := range r.Cells {
		if r.Cells[i].Scenario == scenario {
			last = max(last, r.Cells[i].Round)
		}
	}
	return last
}

// measuredScenarios names the scenarios that have cells.
func (r *Result) measuredScenarios() []string {
	var names []string
	for _, name := range ScenarioNames() {
		if r.rounds(name) > 0 {
			names = append(names, name)
		}
	}
	return names
}

// join adds the rounds of another run behind those of this one, scenario by scenario.
func (r *Result) join(other *Result) error {
	scenarios := other.measuredScenarios()
	if err := r.belongs(other, scenarios); err != nil {
		return err
	}
	r.noteRevisions(other, scenarios)
	behind := make(map[string]int)
	rounds := other.Settings.Rounds
	for _, name := range scenarios {
		if behind[name] = r.rounds(name); behind[name] > 0 {
			rounds = r.Settings.Rounds + other.Settings.Rounds
		}
	}
	for _, cell := range other.Cells {
		cell.Round += behind[cell.Scenario]
		r.Cells = append(r.Cells, cell)
	}
	for _, sample := range other.Samples {
		sample.Round += behind[sample.Scenario]
		r.Samples = append(r.Samples, sample)
	}
	r.Settings.Rounds = max(r.Settings.Rounds, rounds)
	r.resume(other)
	return nil
}

// resume notes a further run: its time, its command and its subjects.
func (r *Result) resume(run *Result) {
	if run.Started.Before(r.Started) {
		r.Started = run.Started
	}
	r.Seconds += run.Seconds
	for _, command := range run.Commands {
		if !slices.Contains(r.Commands, command) {
			r.Commands = append(r.Commands, command)
		}
	}
	for _, about := range run.Subjects {
		at := slices.IndexFunc(r.Subjects, func(known About) bool { return known.Name == about.Name })
		switch {
		case at < 0:
			r.Subjects = append(r.Subjects, about)
		case r.Subjects[at].Skipped != "":
			r.Subjects[at] = about
		}
	}
	order := SubjectNames()
	slices.SortStableFunc(r.Subjects, func(a, b About) int {
		return slices.Index(order, a.Name) - slices.Index(order, b.Name)
	})
}
