package settings

import (
	"cmp"
	"fmt"
	"strings"
)

// Source says where a value came from. The zero value is a default.
type Source struct {
	// Flag or Environment is the name of the flag (with its dashes) or of the variable.
	Flag, Environment string
	// File, Line and Column are the place in the file; lines and columns count from 1, and 0
	// means that only the file is known.
	File         string
	Line, Column int
}

// String gives the source the way compilers do: FILE:LINE:COLUMN, --flag, or the variable's name.
func (s Source) String() string {
	switch {
	case s.Flag != "":
		return s.Flag
	case s.Environment != "":
		return s.Environment
	case s.File == "":
		return "default"
	case s.Line == 0:
		return s.File
	case s.Column == 0:
		return fmt.Sprintf("%s:%d", s.File, s.Line)
	default:
		return fmt.Sprintf("%s:%d:%d", s.File, s.Line, s.Column)
	}
}

// compare orders sources: the file from its first line to its last, then the rest as it was.
func (s Source) compare(other Source) int {
	if (s.File == "") != (other.File == "") {
		if s.File != "" {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(s.Line, other.Line), cmp.Compare(s.Column, other.Column))
}

// Problem is one thing that is wrong with the configuration.
type Problem struct {
	Source  Source
	Setting string // may be empty, and may be a path such as namespaces.chat.access
	Message string // what is wrong and what to do; never a secret
}

// Error gives the problem in one line.
func (p Problem) Error() string {
	var line strings.Builder
	if source := p.Source.String(); source != "default" {
		line.WriteString(source + ": ")
	}
	if p.Setting != "" && p.Source.Flag == "" && p.Source.Environment == "" {
		line.WriteString(p.Setting + ": ")
	}
	line.WriteString(p.Message)
	return line.String()
}

// Problems is everything that is wrong, as one error of as many lines.
type Problems []Problem

// Error gives one line a problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for index, problem := range p {
		lines[index] = problem.Error()
	}
	return strings.Join(lines, "\n")
}

// Usage says whether everything that is wrong stood on the command line.
func (p Problems) Usage() bool {
	for _, problem := range p {
		if problem.Source.Flag == "" {
			return false
		}
	}
	return len(p) > 0
}

// cut bounds what an error repeats of a user's text.
func cut(input string) string {
	if len(input) <= gotBytesMax {
		return input
	}
	return input[:gotBytesMax] + "..."
}

// suggestion names the known word that was probably meant, as the end of a sentence, or nothing.
func suggestion(input string, known []string) string {
	if near := nearest(input, known); near != "" {
		return fmt.Sprintf("; did you mean %s?", near)
	}
	return ""
}

// nearest finds the known word within a third of its letters, spelling of separators and case
// aside, and gives nothing where two are equally near.
func nearest(input string, known []string) string {
	best, bestDistance, tie := "", 0, false
	wanted := normal(input)
	if len(wanted) > gotBytesMax {
		return ""
	}
	for _, word := range known {
		distance := editDistance(wanted, normal(word))
		if distance > max(1, len(word)/3) {
			continue
		}
		switch {
		case best == "" || distance < bestDistance:
			best, bestDistance, tie = word, distance, false
		case distance == bestDistance:
			tie = true
		}
	}
	if tie {
		return ""
	}
	return best
}

// normal writes a name without case and separators, which people mix up most.
func normal(name string) string {
	return strings.NewReplacer("-", "", "_", "", ".", "", " ", "").Replace(strings.ToLower(name))
}

// editDistance counts the insertions, deletions, replacements and swaps of neighbours that make
// one word of the other (optimal string alignment, three rows).
func editDistance(from, to string) int {
	before, previous, current := make([]int, len(to)+1), make([]int, len(to)+1), make([]int, len(to)+1)
	for column := range previous {
		previous[column] = column
	}
	for row := 1; row <= len(from); row++ {
		current[0] = row
		for column := 1; column <= len(to); column++ {
			replaced := previous[column-1]
			if from[row-1] != to[column-1] {
				replaced++
			}
			current[column] = min(replaced, previous[column]+1, current[column-1]+1)
			if row > 1 && column > 1 && from[row-1] == to[column-2] && from[row-2] == to[column-1] {
				current[column] = min(current[column], before[column-2]+1)
			}
		}
		before, previous, current = previous, current, before
	}
	return previous[len(to)]
}
