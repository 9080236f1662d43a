package bench

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// measuredSubjects gives the names of the subjects that have samples, in the order of the tables.
func (r *Result) measuredSubjects() []string {
	has := make(map[string]bool)
	for i := range r.Samples {
		has[r.Samples[i].Subject] = true
	}
	var names []string
	for _, about := range r.Subjects {
		if has[about.Name] {
			names = append(names, about.Name)
		}
	}
	return names
}

// measuredWires gives the wires that have samples.
func (r *Result) measuredWires() []Wire {
	var wires []Wire
	for _, wire := range append(Wires(), bothWires) {
		for i := range r.Samples {
			if r.Samples[i].Wire == wire {
				wires = append(wires, wire)
				break
			}
		}
	}
	return wires
}

// PrintTable writes, for each wire, medians and their ratios to the floor, and all that is missing.
func (r *Result) PrintTable(out io.Writer) {
	for _, wire := range r.measuredWires() {
		names := r.measuredSubjects()
		rows := [][]string{append([]string{"over " + string(wire)}, names...)}
		for _, f := range figures() {
			if row, any := r.row(&f, wire, names); any {
				rows = append(rows, row)
			}
		}
		printColumns(out, rows)
		fmt.Fprintln(out)
	}
	for _, line := range r.losses() {
		fmt.Fprintln(out, line)
	}
	for _, failure := range r.Failures() {
		fmt.Fprintln(out, "failed:", failure)
	}
	for _, about := range r.Subjects {
		if about.Skipped != "" {
			fmt.Fprintf(out, "skipped: %s: %s\n", about.Name, about.Skipped)
		}
	}
}

// row gives a figure of all subjects, and whether there is any.
func (r *Result) row(f *figure, wire Wire, names []string) (row []string, any bool) {
	row = []string{f.label}
	for _, name := range names {
		value := r.spread(name, f.question(wire))
		text := ""
		if value.Count > 0 {
			any = true
			text = f.format(value.Median)
			if ratio := r.ratio(name, floorName, f.question(wire)); f.floor && ratio.Count > 0 && name != floorName {
				text += " " + showRatio(ratio.Median)
			}
		}
		row = append(row, text)
	}
	return row, any
}

// losses says, a line each, which samples miss deliveries or repeat some.
func (r *Result) losses() []string {
	var lines []string
	for i := range r.Samples {
		s := &r.Samples[i]
		missing, repeated := s.missing(), s.Metrics[metricRepeated]
		if missing == 0 && repeated == 0 {
			continue
		}
		lines = append(lines, fmt.Sprintf("lost: %s over %s, %s (%s), round %d: %.0f of %.0f deliveries missing, %.0f repeated",
			s.Subject, s.Wire, s.Scenario, s.Case, s.Round, missing, s.Metrics[metricExpected], repeated))
	}
	return lines
}

// printColumns writes rows with their columns aligned.
func printColumns(out io.Writer, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, text := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(text))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, text := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text))
			if i == 0 {
				line.WriteString(text + pad)
			} else {
				line.WriteString("  " + pad + text)
			}
		}
		fmt.Fprintln(out, strings.TrimRight(line.String(), " "))
	}
}
