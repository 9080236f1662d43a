package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// cellTimeout bounds one measurement, whatever hangs.
const cellTimeout = 40 * time.Minute

// Run measures and gives what it found, also what it found before ctx ended or something failed;
// the error says why it is not whole. The result is nil where nothing was measured; what is
// wrong with o is an [*OptionError]. A measurement that fails is noted in [Result.Cells] and
// does not end the run.
func Run(ctx context.Context, o Options) (*Result, error) {
	settings, err := o.resolve()
	if err != nil {
		return nil, err
	}
	questions, err := pickScenarios(o.Scenarios, o.Full)
	if err != nil {
		return nil, err
	}
	subjects, err := pickSubjects(o.Subjects)
	if err != nil {
		return nil, err
	}
	where, err := place(o.AllCores)
	if err != nil {
		return nil, err
	}
	r := &runner{options: &o, settings: settings, where: where, began: time.Now()}
	if err := r.begin(questions); err != nil {
		return nil, err
	}
	p := planner{settings: settings, full: o.Full, named: len(o.Scenarios) > 0, wires: o.Wires, done: r.result.done}
	if p.named && len(o.Subjects) > 0 {
		for _, line := range unsuited(subjects, questions) {
			fmt.Fprintf(o.Progress, "skipped: %s\n", line)
		}
	}
	subjects = slices.DeleteFunc(subjects, func(one subject) bool { return !p.concerns(one, questions) })
	if len(subjects) == 0 {
		return nil, errOption("none of these scenarios can be asked of these subjects")
	}
	if p.present, err = r.present(subjects); err != nil {
		return nil, err
	}
	tasks := p.tasks(questions)
	restore, err := pinProcess(where.client)
	if err != nil {
		return nil, err
	}
	defer restore()
	return r.result, r.run(ctx, tasks)
}

// runner is one run.
type runner struct {
	options  *Options
	settings *Settings
	where    placement
	began    time.Time
	result   *Result
	earlier  float64 // seconds that runs before this one took
	progress *progress
}

// begin makes the result for questions: a new one, or the one of the run that is gone on with.
func (r *runner) begin(questions []scenario) error {
	r.result = &Result{
		Version: resultVersion, Started: r.began.UTC().Truncate(time.Second), Commands: []string{r.options.command()},
		Machine: thisMachine(r.options.Revision), Settings: *r.settings,
	}
	if !r.options.Append {
		return nil
	}
	before, err := ReadResult(r.options.Output)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	names := make([]string, len(questions))
	for i := range questions {
		names[i] = questions[i].name
	}
	if err := before.belongs(r.result, names); err != nil {
		return errOption("%s holds another run: %v", r.options.Output, err)
	}
	before.noteRevisions(r.result, names)
	before.resume(r.result)
	before.Settings.Rounds = max(before.Settings.Rounds, r.settings.Rounds)
	r.earlier, r.result = before.Seconds, before
	return nil
}

// present notes what each subject is, and gives those that can be measured here.
func (r *runner) present(asked []subject) ([]subject, error) {
	s, err := newSite(r.options, r.where)
	if err != nil {
		return nil, err
	}
	defer s.close()
	var here []subject
	notes := &Result{Started: r.result.Started}
	for _, one := range asked {
		about := About{Name: one.name(), About: one.about(), Skipped: one.missing(s)}
		if about.Skipped == "" {
			here = append(here, one)
		} else {
			fmt.Fprintf(r.options.Progress, "skipped: %s: %s\n", about.Name, about.Skipped)
		}
		notes.Subjects = append(notes.Subjects, about)
	}
	if len(here) == 0 {
		return nil, errors.New("none of the subjects can be measured on this machine")
	}
	r.result.resume(notes)
	return here, nil
}

// run does all tasks.
func (r *runner) run(ctx context.Context, tasks []task) error {
	r.progress = newProgress(r.options.Progress, r.options.Terminal, tasks, r.settings)
	for i := range tasks {
		if ctx.Err() != nil {
			break
		}
		t := &tasks[i]
		r.progress.begin(t)
		if t.asked[0].part.together != nil {
			r.together(ctx, t)
		} else {
			r.inTurn(ctx, t)
		}
		r.progress.end()
		if err := r.save(); err != nil {
			return err
		}
	}
	r.progress.finish()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("the run was ended early: %w", context.Cause(ctx))
	}
	return nil
}

// save writes what there is so far, so that whatever ends the harness loses one task at most.
func (r *runner) save() error {
	r.result.Seconds = r.earlier + time.Since(r.began).Seconds()
	if r.options.Output == "" {
		return nil
	}
	return r.result.Write(r.options.Output)
}

// inTurn asks the parts of a task one after the other on one stand. After one that failed the rest
// gets a new one.
func (r *runner) inTurn(ctx context.Context, t *task) {
	var current *stand
	for _, a := range t.asked {
		began := time.Now()
		c := r.cell(t.seats[0], a, t.round)
		err := func() (err error) {
			if current == nil {
				if current, err = r.newStand(); err != nil {
					return err
				}
			}
			c.stand = current
			ctx, cancel := context.WithTimeout(ctx, cellTimeout)
			defer cancel()
			return a.part.run(ctx, c)
		}()
		if ctx.Err() == nil { // what was cut off is no failure of the subject's
			r.keep(c, err, time.Since(began))
		}
		if err != nil && current != nil {
			current.site.close()
			current = nil
		}
	}
	if current != nil {
		current.site.close()
	}
}

// together asks one part of all seats of a task at the same time, each on a stand of its own.
func (r *runner) together(ctx context.Context, t *task) {
	began := time.Now()
	cells := make([]*cell, len(t.seats))
	for i, at := range t.seats {
		cells[i] = r.cell(at, t.asked[0], t.round)
		var err error
		if cells[i].stand, err = r.newStand(); err != nil {
			r.progress.note("failed: " + err.Error())
			return
		}
		defer cells[i].site.close()
	}
	bounded, cancel := context.WithTimeout(ctx, cellTimeout)
	defer cancel()
	errs := t.asked[0].part.together(bounded, cells)
	if ctx.Err() != nil {
		return
	}
	for i, c := range cells {
		r.keep(c, errs[i], time.Since(began))
	}
}

func (r *runner) newStand() (*stand, error) {
	s, err := newSite(r.options, r.where)
	if err != nil {
		return nil, err
	}
	return &stand{site: s}, nil
}

func (r *runner) cell(at seat, a asked, round int) *cell {
	return &cell{Cell: a.cell(at, round), subject: at.subject, ground: a.part.on, settings: r.settings, say: r.progress.note}
}

// keep puts what a cell gave into the result, and says what was lost or failed.
func (r *runner) keep(c *cell, err error, took time.Duration) {
	c.Seconds = took.Seconds()
	if err != nil {
		c.Failure = err.Error()
		r.progress.note(fmt.Sprintf("failed: %s: %v", &c.Cell, err))
	}
	for i := range c.samples {
		if missing := c.samples[i].missing(); missing != 0 {
			r.progress.note(fmt.Sprintf("%s, %s: %.0f of %.0f deliveries are missing", &c.Cell, c.samples[i].Case, missing, c.samples[i].Metrics[metricExpected]))
		}
	}
	r.result.put(c.Cell, c.samples)
}
