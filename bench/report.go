package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const ourName = "millrace"

// WriteReport writes what a run found as a page of Markdown to output, and its plots as SVG into
// the directory plots, which it makes where it is missing. The page links to the plots relative to
// itself.
func WriteReport(r *Result, output, plots string) error {
	if len(r.Samples) == 0 {
		return fmt.Errorf("there is nothing to report: the run has no samples")
	}
	if err := os.MkdirAll(plots, 0o755); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	link, err := filepath.Rel(filepath.Dir(output), plots)
	if err != nil {
		link = plots
	}
	names, err := r.writePlots(plots)
	if err != nil {
		return err
	}
	page := r.page(filepath.ToSlash(link), names)
	if err := os.WriteFile(output, page, 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// page is the report. plots are the names of the plots' files, by figure.
func (r *Result) page(link string, plots map[string]string) []byte {
	var page bytes.Buffer
	r.writeIntroduction(&page)
	r.writeLosses(&page)
	r.writeTables(&page, link, plots)
	r.writeMethod(&page)
	r.writeSubjects(&page)
	return page.Bytes()
}

func (r *Result) writeIntroduction(page *bytes.Buffer) {
	fmt.Fprintf(page, "# Benchmarks\n\nWritten by `millrace bench report` from the samples of one run; do not edit.\n\n")
	fmt.Fprintf(page, "Measured on %s, in %.0f minutes, on %s with %d cores and %s of memory, %s, %s", r.Started.Format("2006-01-02"), max(1, r.Seconds/60),
		orUnknown(r.Machine.Processor), r.Machine.Cores, showBytes(float64(r.Machine.MemoryBytes)), orUnknown(r.Machine.Kernel), r.Machine.Go)
	if r.Machine.Revision != "" {
		fmt.Fprintf(page, ", Millrace at %s", r.Machine.Revision)
	}
	fmt.Fprintf(page, ". Load average at the start: %.2f.\n\n", r.Machine.LoadBefore)
	server := "Each server had one core of its own (Go servers with GOMAXPROCS=1); its crowd, Redis and the publisher had the others."
	if r.Settings.Cores == "all" {
		server = "Each server shared all cores with its crowd, Redis and the publisher."
	}
	fmt.Fprintf(page, "%s Figures are medians of %d rounds, the least and the most in brackets; \"x\" is the ratio to the floor "+
		"(a bare epoll loop with one write a delivery), taken within each round. Ratios hold from run to run and from machine to machine; absolute figures do not.\n\n", server, r.Settings.Rounds)
	fmt.Fprintf(page, "To repeat it:\n\n```sh\n%s --json result.json\nmillrace bench report result.json\n```\n\n", r.Command)
}

func orUnknown(text string) string {
	if text == "" {
		return "an unknown machine"
	}
	return text
}

// defeat is a figure in which another subject was better than ours.
type defeat struct {
	text  string
	ratio float64 // how many times worse ours is
}

// defeats lists where another server was better than ours in the median of the rounds, the worst
// first. The floor is no server.
func (r *Result) defeats() []defeat {
	var all []defeat
	for _, f := range figures() {
		for _, wire := range r.measuredWires() {
			ours := r.spread(ourName, f.question(wire))
			if ours.Count == 0 {
				continue
			}
			for _, name := range r.measuredSubjects() {
				if strings.HasPrefix(name, floorName) || strings.HasPrefix(name, ourName) {
					continue
				}
				theirs, ratio := r.spread(name, f.question(wire)), r.ratio(ourName, name, f.question(wire))
				if ratio.Count == 0 {
					continue
				}
				worse := ratio.Median
				if f.more {
					worse = 1 / worse
				}
				if worse > 1 {
					text := fmt.Sprintf("%s, over %s: %s has %s, Millrace %s (%s)", f.fullLabel(), wire, name,
						f.format(theirs.Median), f.format(ours.Median), showRatio(ratio.Median))
					all = append(all, defeat{text, worse})
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b defeat) int {
		switch {
		case a.ratio > b.ratio:
			return -1
		case a.ratio < b.ratio:
			return 1
		}
		return 0
	})
	return all
}

func (r *Result) writeLosses(page *bytes.Buffer) {
	fmt.Fprintf(page, "## Where we lose\n\n")
	defeats := r.defeats()
	if len(defeats) == 0 {
		fmt.Fprintf(page, "Nowhere in this run: no other server was better in the median of any figure.\n\n")
	}
	for _, one := range defeats {
		fmt.Fprintf(page, "- %s\n", one.text)
	}
	if len(defeats) > 0 {
		fmt.Fprintln(page)
	}
	fmt.Fprintf(page, "## What was lost\n\nEvery delivery was counted.\n\n")
	lost := append(r.losses(), r.Failures...)
	if len(lost) == 0 {
		fmt.Fprintf(page, "None was missing and none came twice, from any server.\n\n")
		return
	}
	for _, line := range lost {
		fmt.Fprintf(page, "- %s\n", line)
	}
	fmt.Fprintln(page)
}

// writeTables writes a table for each scenario and wire: a line for each subject.
func (r *Result) writeTables(page *bytes.Buffer, link string, plots map[string]string) {
	fmt.Fprintf(page, "## Results\n\n")
	for _, one := range scenarios() {
		var text bytes.Buffer
		for _, wire := range r.measuredWires() {
			r.writeTable(&text, one.name, wire)
		}
		if text.Len() == 0 {
			continue
		}
		about := []rune(one.about)
		fmt.Fprintf(page, "### %s\n\n%s%s.\n\n%s", one.name, strings.ToUpper(string(about[:1])), string(about[1:]), text.String())
		for _, f := range figures() {
			if name := plots[f.id()]; f.scenario == one.name && name != "" {
				fmt.Fprintf(page, "![%s](%s/%s)\n\n", f.fullLabel(), link, name)
			}
		}
	}
}

func (r *Result) writeTable(page *bytes.Buffer, scenario string, wire Wire) {
	var shown []figure
	for _, f := range figures() {
		has := func(name string) bool { return r.spread(name, f.question(wire)).Count > 0 }
		if f.scenario == scenario && slices.ContainsFunc(r.measuredSubjects(), has) {
			shown = append(shown, f)
		}
	}
	if len(shown) == 0 {
		return
	}
	fmt.Fprintf(page, "| over %s |", wire)
	for _, f := range shown {
		fmt.Fprintf(page, " %s |", f.fullLabel())
	}
	fmt.Fprintf(page, "\n| --- |%s\n", strings.Repeat(" --- |", len(shown)))
	for _, name := range r.measuredSubjects() {
		cells := make([]string, len(shown))
		for i := range shown {
			cells[i] = r.tableCell(name, &shown[i], wire)
		}
		if strings.Join(cells, "") != "" {
			fmt.Fprintf(page, "| %s | %s |\n", name, strings.Join(cells, " | "))
		}
	}
	fmt.Fprintln(page)
}

// tableCell is "median (least to most), ratio".
func (r *Result) tableCell(name string, f *figure, wire Wire) string {
	value := r.spread(name, f.question(wire))
	if value.Count == 0 {
		return ""
	}
	text := f.format(value.Median)
	if value.Count > 1 {
		text += fmt.Sprintf(" (%s to %s)", f.format(value.Min), f.format(value.Max))
	}
	if ratio := r.ratio(name, floorName, f.question(wire)); f.floor && ratio.Count > 0 && name != floorName {
		text += ", **" + showRatio(ratio.Median) + "**"
	}
	return text
}

func (r *Result) writeMethod(page *bytes.Buffer) {
	s := &r.Settings
	fmt.Fprintf(page, `## Method

- Crowds of %d streams are event loops in processes of their own: no goroutine and no buffer a stream, so that they
  take little of the machine. Memory is compared between %d and %d streams, %.0f s after the last handshake.
- Messages are JSON of %d bytes and carry the time at which they were due and their number within their channel. Latency is
  counted from the time due, not from the time sent, so that no delay hides another (coordinated omission); it
  includes the publisher, Redis where the server uses it, and the reader. Every delivery goes into an HDR histogram.
- Paced loads last %.0f s: fan-out %.0f messages a second to all streams, unicast %.0f a second to one stream each. Bursts
  are %d messages back to back to all, %d times, the next when the last has arrived.
- CPU time is user and system time of the server's processes alone, from the scheduler's account. The kernel's work for TCP
  is in it, and on loopback that of the receiving side too. Redis is not in it; the server's Redis client is.
- Process memory is the proportional set size of the server's processes. Kernel memory is the growth of the machine's slabs, for
  both ends of each connection, since both are on this machine.
- Servers take turns within each round, each started anew for each measurement.

`, s.Streams, s.IdleLow, s.IdleHigh, s.Settle, s.MessageBytes, s.Paced, s.FanoutPerSecond, s.UnicastPerSecond, s.BurstMessages, s.Bursts)
}

func (r *Result) writeSubjects(page *bytes.Buffer) {
	fmt.Fprintf(page, "## Servers and their settings\n\n")
	for _, about := range r.Subjects {
		if about.Skipped == "" {
			fmt.Fprintf(page, "- **%s**: %s\n", about.Name, about.About)
		}
	}
	for _, about := range r.Subjects {
		if about.Skipped != "" {
			fmt.Fprintf(page, "- %s was skipped: %s\n", about.Name, about.Skipped)
		}
	}
}
