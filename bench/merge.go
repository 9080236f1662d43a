package bench

import (
	"fmt"
	"path/filepath"
	"slices"
)

// ReadResults reads what several runs wrote and puts together what belongs together: the rounds of
// runs with the same settings and revision follow one another. It gives one result, or two where
// some runs gave the server one core and others all.
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

// belongs says why another run is not one with this, or nil.
func (r *Result) belongs(other *Result) error {
	if what := r.Settings.differs(&other.Settings); what != "" {
		return fmt.Errorf("it cannot be put together with another run: %s", what)
	}
	if r.Machine.Revision != other.Machine.Revision {
		return fmt.Errorf("it cannot be put together with another run: it is of revision %q, the other of %q", other.Machine.Revision, r.Machine.Revision)
	}
	return nil
}

// join adds the rounds of another run behind those of this one.
func (r *Result) join(other *Result) error {
	if err := r.belongs(other); err != nil {
		return err
	}
	behind := 0
	for i := range r.Cells {
		behind = max(behind, r.Cells[i].Round)
	}
	for _, cell := range other.Cells {
		cell.Round += behind
		r.Cells = append(r.Cells, cell)
	}
	for _, sample := range other.Samples {
		sample.Round += behind
		r.Samples = append(r.Samples, sample)
	}
	r.Settings.Rounds += other.Settings.Rounds
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
