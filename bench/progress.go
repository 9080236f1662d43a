package bench

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress says how far a run is: a bar to a person, plain lines to a file.
type progress struct {
	out   io.Writer
	bar   *progressbar.ProgressBar // nil without a terminal
	total int
	done  int
	began time.Time
	noted bool // since begin
}

func newProgress(out io.Writer, terminal bool, total int) *progress {
	p := &progress{out: out, total: total}
	if terminal {
		p.bar = progressbar.NewOptions(total,
			progressbar.OptionSetWriter(out), progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(true),
			progressbar.OptionSetWidth(30), progressbar.OptionFullWidth(), progressbar.OptionThrottle(100*time.Millisecond))
	}
	return p
}

// begin says what is measured next.
func (p *progress) begin(what string) {
	p.began, p.noted = time.Now(), false
	if p.bar != nil {
		p.bar.Describe(what)
		return
	}
	fmt.Fprintf(p.out, "%d/%d %s:", p.done+1, p.total, what)
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
	p.done++
	if p.bar != nil {
		_ = p.bar.Add(1)
		return
	}
	fmt.Fprintf(p.out, " %.1f s\n", time.Since(p.began).Seconds())
}

func (p *progress) finish() {
	if p.bar != nil {
		_ = p.bar.Finish()
		fmt.Fprintln(p.out)
	}
}
