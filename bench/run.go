package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// cellTimeout bounds one measurement, whatever hangs.
const cellTimeout = 40 * time.Minute

// Run measures and gives what it found, also what it found before ctx ended or something failed;
// the error says why it is not whole. The result is nil where nothing was measured; what is
// wrong with o is an [*OptionError]. A measurement that fails is noted in [Result.Failures] and
// does not end the run.
func Run(ctx context.Context, o Options) (*Result, error) {
	settings, err := o.resolve()
	if err != nil {
		return nil, err
	}
	asked, err := pickScenarios(o.Scenarios, o.Full)
	if err != nil {
		return nil, err
	}
	measured, err := pickSubjects(o.Subjects)
	if err != nil {
		return nil, err
	}
	where, err := place(o.AllCores)
	if err != nil {
		return nil, err
	}
	result := &Result{
		Version: resultVersion, Started: time.Now().UTC().Truncate(time.Second), Command: o.command(),
		Machine: thisMachine(o.Revision), Settings: *settings,
	}
	r := &runner{options: &o, settings: settings, where: where, result: result}
	present, err := r.present(measured)
	if err != nil {
		return nil, err
	}
	restore, err := pinProcess(where.client)
	if err != nil {
		return nil, err
	}
	defer restore()
	cells := r.cells(asked, present)
	r.progress = newProgress(o.Progress, o.Terminal, len(cells))
	for i := range cells {
		if ctx.Err() != nil {
			break
		}
		r.measure(ctx, &cells[i])
	}
	r.progress.finish()
	result.Seconds = time.Since(result.Started).Seconds()
	if err := ctx.Err(); err != nil {
		return result, fmt.Errorf("the run was ended early: %w", context.Cause(ctx))
	}
	return result, nil
}

// runner is one run.
type runner struct {
	options  *Options
	settings *Settings
	where    placement
	result   *Result
	progress *progress
}

// task is a cell that is still to be measured.
type task struct {
	scenario scenario
	subject  subject
	wire     Wire
	round    int
}

func (t *task) String() string {
	return fmt.Sprintf("round %d, %s, %s over %s", t.round, t.scenario.name, t.subject.name(), t.wire)
}

// present notes what each subject is, and gives those that can be measured here.
func (r *runner) present(asked []subject) ([]subject, error) {
	s, err := newSite(r.options, r.where)
	if err != nil {
		return nil, err
	}
	defer s.close()
	var here []subject
	for _, one := range asked {
		about := About{Name: one.name(), About: one.about(), Skipped: one.missing(s)}
		if about.Skipped == "" {
			here = append(here, one)
		} else {
			fmt.Fprintf(r.options.Progress, "skipped: %s: %s\n", about.Name, about.Skipped)
		}
		r.result.Subjects = append(r.result.Subjects, about)
	}
	if len(here) == 0 {
		return nil, errors.New("none of the subjects can be measured on this machine")
	}
	return here, nil
}

// cells puts the measurements in order: within a round, the subjects of a scenario one after the
// other, so that what changes on the machine in the meantime changes for all of them.
func (r *runner) cells(asked []scenario, present []subject) []task {
	var tasks []task
	for round := 1; round <= r.settings.Rounds; round++ {
		for _, question := range asked {
			if round > 1 && (question.once || question.onceQuick && !r.options.Full) {
				continue
			}
			wires := r.options.Wires
			if question.bothWires {
				wires = []Wire{bothWires}
			}
			for _, wire := range wires {
				for _, one := range present {
					if speaks(one, wire) && (question.suits == nil || question.suits(one)) {
						tasks = append(tasks, task{scenario: question, subject: one, wire: wire, round: round})
					}
				}
			}
		}
	}
	return tasks
}

func speaks(one subject, wire Wire) bool {
	spoken := one.wires()
	return slices.Contains(spoken, wire) || wire == bothWires && len(spoken) == len(Wires())
}

// measure does one task and keeps its samples, or notes why there are none.
func (r *runner) measure(ctx context.Context, t *task) {
	r.progress.begin(t.String())
	samples, err := r.attempt(ctx, t)
	switch {
	case ctx.Err() != nil:
		return // what was cut off is no failure of the subject's
	case err != nil:
		failure := fmt.Sprintf("%s: %v", t, err)
		r.result.Failures = append(r.result.Failures, failure)
		r.progress.note("failed: " + failure)
	}
	for i := range samples {
		if missing := samples[i].missing(); missing != 0 {
			r.progress.note(fmt.Sprintf("%s, %s: %.0f of %.0f deliveries are missing", t, samples[i].Case, missing, samples[i].Metrics[metricExpected]))
		}
	}
	r.result.Samples = append(r.result.Samples, samples...)
	r.progress.end()
}

func (r *runner) attempt(ctx context.Context, t *task) (samples []Sample, err error) {
	ctx, cancel := context.WithTimeout(ctx, cellTimeout)
	defer cancel()
	s, err := newSite(r.options, r.where)
	if err != nil {
		return nil, err
	}
	defer s.close()
	c := &cell{
		scenario: t.scenario.name, subject: t.subject, wire: t.wire, round: t.round,
		settings: r.settings, site: s, say: r.progress.note,
	}
	err = t.scenario.run(ctx, c)
	return c.samples, err
}
