package bench

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const ourName = "millrace"

// WriteReport writes what runs found as a page of Markdown to output, and its plots as SVG into
// the directory plots, which it makes where it is missing. The page links to the plots relative to
// itself. results are those of [ReadResults]: the first with one core for the server is the report,
// another an appendix.
func WriteReport(results []*Result, output, plots string) error {
	page := report{link: plots}
	for _, r := range results {
		if page.Result == nil || page.Settings.Cores != "one" && r.Settings.Cores == "one" {
			page.appendix, page.Result = page.Result, r
		} else {
			page.appendix = r
		}
	}
	if page.Result == nil || len(page.Samples) == 0 {
		return errors.New("there is nothing to report: the run has no samples")
	}
	if err := os.MkdirAll(plots, 0o755); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if link, err := filepath.Rel(filepath.Dir(output), plots); err == nil {
		page.link = filepath.ToSlash(link)
	}
	var err error
	if page.plots, err = page.writePlots(plots); err != nil {
		return err
	}
	page.write()
	if err := os.WriteFile(output, []byte(page.text.String()), 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// report is a page under construction.
type report struct {
	*Result
	appendix *Result           // with the server on all cores; nil without
	link     string            // to the directory of the plots
	plots    map[string]string // the plots' files, by figure
	text     strings.Builder
}

func (p *report) say(format string, arguments ...any) { fmt.Fprintf(&p.text, format, arguments...) }

func (p *report) write() {
	p.introduce()
	p.judge()
	p.lose()
	p.tellLosses()
	p.say("## Results\n\n")
	p.tabulate(p.Result, true)
	if p.appendix != nil {
		p.say("## With all cores for everybody\n\nHere each server shared all cores with its crowd, Redis and the publisher; medians of %d rounds.\n\n", p.appendix.Settings.Rounds)
		p.tabulate(p.appendix, false)
	}
	p.explain()
	p.listSubjects()
}

func (p *report) introduce() {
	p.say("# Benchmarks\n\nWritten by `millrace bench report` from the samples of a run; do not edit.\n\n")
	p.say("Measured on %s, in %.0f minutes, on %s with %d cores and %s of memory, %s, %s", p.Started.Format("2006-01-02"), max(1, p.Seconds/60),
		orUnknown(p.Machine.Processor), p.Machine.Cores, showBytes(float64(p.Machine.MemoryBytes)), orUnknown(p.Machine.Kernel), p.Machine.Go)
	if p.Machine.Revision != "" {
		p.say(", Millrace at %s", p.Machine.Revision)
		if len(p.Revisions) > 0 {
			p.say(" where nothing else is said")
		}
	}
	p.say(". Load average at the start: %.2f.\n\n", p.Machine.LoadBefore)
	server := "Each server had one core of its own (Go servers with GOMAXPROCS=1); its crowd, Redis and the publisher had the others."
	if p.Settings.Cores == "all" {
		server = "Each server shared all cores with its crowd, Redis and the publisher."
	}
	p.say("%s Figures are medians of %d rounds, the least and the most in brackets; \"x floor\" is the ratio to the floor "+
		"(a bare epoll loop with one write a delivery), taken within each round. Ratios hold from run to run and from machine to machine; "+
		"absolute figures do not.\n\n", server, p.Settings.Rounds)
	commands := p.Commands
	files := "result.json"
	if p.appendix != nil {
		commands, files = slices.Concat(commands, p.appendix.Commands), "result.json all-cores.json"
	}
	p.say("To repeat it, from a clone: `make bench-full`, or\n\n```sh\n")
	for _, command := range commands {
		file := "result.json"
		if strings.Contains(command, "--cores all") {
			file = "all-cores.json"
		}
		p.say("%s --json %s\n", command, file)
	}
	p.say("millrace bench report %s\n```\n\n", files)
}

func orUnknown(text string) string {
	if text == "" {
		return "an unknown machine"
	}
	return text
}

// judge holds ours against its targets.
func (p *report) judge() {
	p.say("## Targets\n\nAbsolute bounds were set on one machine on one day. Where a floor, which does nothing of its own, " +
		"took its time then too, \"at that pace\" is what this run comes to there: the ratio to that floor, within each round, " +
		"times what the floor took when the bound was set.\n\n" +
		"| figure | wire | has to be | is | at that pace | |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, t := range targets() {
		any := false
		for _, wire := range p.measuredWires() {
			reached := t.reached(p.Result, wire)
			if reached.Count == 0 {
				continue
			}
			any = true
			scaled, atPace := t.atPace(p.Result, wire), ""
			if scaled.Count > 0 {
				atPace = showSpread(scaled, t.show)
			}
			verdict := "met"
			switch {
			case t.missed(reached, scaled):
				verdict = "**missed**"
			case !t.met(reached.Median):
				verdict = "met at that pace"
			}
			p.say("| %s | %s | %s | %s | %s | %s |\n", t.figure().full, wire, t.rule(), showSpread(reached, t.show), atPace, verdict)
		}
		if !any {
			p.say("| %s | | %s | | | not measured |\n", t.figure().full, t.rule())
		}
	}
	p.say("\n")
}

// showSpread is "MEDIAN (LEAST to MOST)".
func showSpread(s spread, format func(float64) string) string {
	text := format(s.Median)
	if s.Count > 1 {
		text += fmt.Sprintf(" (%s to %s)", format(s.Min), format(s.Max))
	}
	return text
}

// tellLosses says what did not arrive and what could not be measured.
func (p *report) tellLosses() {
	p.say("## What was lost\n\nEvery delivery was counted.\n\n")
	var lost []string
	for _, r := range []*Result{p.Result, p.appendix} {
		if r != nil {
			lost = append(append(lost, r.losses()...), r.Failures()...)
		}
	}
	if len(lost) == 0 {
		p.say("None was missing and none came twice, from any server.\n\n")
		return
	}
	for _, line := range lost {
		p.say("- %s\n", line)
	}
	p.say("\n")
}

// tabulate writes the tables of each scenario, and links to its plots.
func (p *report) tabulate(r *Result, plots bool) {
	for _, one := range scenarios() {
		var tables strings.Builder
		var drawn []string
		for _, table := range figuresByTitle(one.name) {
			r.writeTable(&tables, table)
			for _, f := range table {
				if name := p.plots[f.id()]; name != "" && plots {
					drawn = append(drawn, fmt.Sprintf("![%s](%s/%s)\n\n", f.full, p.link, name))
				}
			}
		}
		if tables.Len() == 0 {
			continue
		}
		p.say("### %s\n\n%s.%s\n\n%s%s", one.name, capital(one.about), r.measuredWith(one.name), &tables, strings.Join(drawn, ""))
	}
}

// measuredWith says of which revision a scenario is, if not of that of the report.
func (r *Result) measuredWith(scenario string) string {
	if of := r.revision(scenario); of != r.Machine.Revision {
		return fmt.Sprintf(" Measured with Millrace at %s.", cmp.Or(of, "an unknown revision"))
	}
	return ""
}

// capital makes the first letter of a text a capital.
func capital(text string) string {
	letters := []rune(text)
	return strings.ToUpper(string(letters[:1])) + string(letters[1:])
}

// figuresByTitle gives the figures of a scenario, table by table.
func figuresByTitle(scenario string) [][]figure {
	var tables [][]figure
	for _, f := range figures() {
		if f.scenario != scenario {
			continue
		}
		title, _ := f.title()
		at := slices.IndexFunc(tables, func(table []figure) bool {
			other, _ := table[0].title()
			return other == title
		})
		if at < 0 {
			tables = append(tables, []figure{f})
		} else {
			tables[at] = append(tables[at], f)
		}
	}
	return tables
}

// writeTable writes a line for each subject and wire, and a column for each figure and for its ratio
// to the floor. It writes nothing where nothing was measured.
func (r *Result) writeTable(out io.Writer, table []figure) {
	floored := func(f *figure) bool {
		return f.floor && slices.ContainsFunc(r.measuredWires(), func(wire Wire) bool { return r.spread(floorName, f.question(wire)).Count > 0 })
	}
	var lines []string
	for _, wire := range r.measuredWires() {
		for _, name := range r.measuredSubjects() {
			line, any := fmt.Sprintf("| %s | %s |", name, wire), false
			for _, f := range table {
				value := r.spread(name, f.question(wire))
				text := ""
				if value.Count > 0 {
					text, any = showSpread(value, f.format), true
				}
				line += " " + text + " |"
				if floored(&f) {
					ratio := ""
					if to := r.ratio(name, floorName, f.question(wire)); to.Count > 0 {
						ratio = showRatio(to.Median)
					}
					line += " " + ratio + " |"
				}
			}
			if any {
				lines = append(lines, line)
			}
		}
	}
	if len(lines) == 0 {
		return
	}
	title, _ := table[0].title()
	head, rule := "| "+title+" | wire |", "| --- | --- |"
	for _, f := range table {
		_, column := f.title()
		head, rule = head+" "+column+" |", rule+" --- |"
		if floored(&f) {
			head, rule = head+" x floor |", rule+" --- |"
		}
	}
	fmt.Fprintf(out, "%s\n%s\n%s\n\n", head, rule, strings.Join(lines, "\n"))
}
