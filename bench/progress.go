package bench

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress says how far a run is and how long it still takes: a bar to a person, plain lines to a
// file.
type progress struct {
	out      io.Writer
	bar      *progressbar.ProgressBar // nil without a terminal
	settings *Settings
	total    int // tasks
	done     int
	began    time.Time
	noted    bool // since begin

	// In seconds: what the plan says of all tasks, of those that are over, and of the current one,
	// and what those that are over took.
	planned, over, current, took float64
}

func newProgress(out io.Writer, terminal bool, tasks []task, s *Settings) *progress {
	whole := duration(tasks, s)
	p := &progress{out: out, settings: s, total: len(tasks), planned: whole.Seconds()}
	if len(tasks) == 0 {
		fmt.Fprintln(out, "everything was measured before; remove the file to measure it anew")
		return p
	}
	fmt.Fprintf(out, "%d tasks, rounds: %d, about %s\n", len(tasks), s.Rounds, showDuration(whole))
	if terminal {
		p.bar = progressbar.NewOptions(int(whole.Seconds()),
			progressbar.OptionSetWriter(out), progressbar.OptionSetPredictTime(true),
			progressbar.OptionSetWidth(30), progressbar.OptionFullWidth(), progressbar.OptionThrottle(100*time.Millisecond))
	}
	return p
}

// showDuration shows a time as one says it.
func showDuration(d time.Duration) string {
	if d < 100*time.Second {
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return fmt.Sprintf("%.0f minutes", d.Minutes())
}

// begin says what is measured next.
func (p *progress) begin(t *task) {
	p.began, p.noted, p.current = time.Now(), false, t.seconds(p.settings)
	if p.bar != nil {
		p.bar.Describe(t.String())
		return
	}
	fmt.Fprintf(p.out, "%d/%d %s:", p.done+1, p.total, t)
}

// note says something out of the ordinary, on a line of its own.
func (p *progress) note(text string) {
	if p.bar != nil {
		_ = p.bar.Clear()
	} else if !p.noted {
		fmt.Fprintln(p.out)
	}
	p.noted = true
	fmt.Fprintln(p.out, text)
}

func (p *progress) end() {
	took := time.Since(p.began).Seconds()
	p.done++
	p.over += p.current
	p.took += took
	if p.bar != nil {
		_ = p.bar.Set(int(p.over))
		return
	}
	fmt.Fprintf(p.out, " %.1f s, about %s left\n", took, showDuration(p.left()))
}

// left says about how long the rest takes, if the plan stays as wrong as it was so far.
func (p *progress) left() time.Duration {
	wrong := 1.0
	if p.over > 0 {
		wrong = p.took / p.over
	}
	return secondsOf(max(0, p.planned-p.over) * wrong)
}

func (p *progress) finish() {
	if p.bar != nil {
		_ = p.bar.Finish()
		fmt.Fprintln(p.out)
	}
}
