package gateway

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// exposition writes metrics in Prometheus's text format 0.0.4: the TYPE of a family once, before
// its samples, which must be written one after the other. Errors show at the end, by Flush.
type exposition struct {
	out    *bufio.Writer
	family string
	kind   string
}

func newExposition(w io.Writer) *exposition { return &exposition{out: bufio.NewWriter(w)} }

// begin goes on to a family, unless it is the one at hand.
func (e *exposition) begin(family, kind string) {
	if family != e.family {
		e.family, e.kind = family, kind
		fmt.Fprintf(e.out, "# TYPE %s %s\n", family, kind)
	}
}

// counter writes a sample; labels come in pairs, a name and a value of a fixed set.
func (e *exposition) counter(family string, value uint64, labels ...string) {
	e.begin(family, "counter")
	e.sample(family, strconv.FormatUint(value, 10), labels)
}

func (e *exposition) gauge(family string, value int, labels ...string) {
	e.begin(family, "gauge")
	e.sample(family, strconv.Itoa(max(value, 0)), labels)
}

func (e *exposition) sample(name, value string, labels []string) {
	e.out.WriteString(name)
	for i := 0; i+1 < len(labels); i += 2 {
		separator := byte(',')
		if i == 0 {
			separator = '{'
		}
		e.out.WriteByte(separator)
		fmt.Fprintf(e.out, "%s=%q", labels[i], labels[i+1])
	}
	if len(labels) > 0 {
		e.out.WriteByte('}')
	}
	e.out.WriteByte(' ')
	e.out.WriteString(value)
	e.out.WriteByte('\n')
}

// histogramBounds are the upper bounds of buckets, in microseconds.
var histogramBounds = [...]int64{50, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000, 30_000_000}

// histogram writes a histogram of microseconds as one of seconds.
func (e *exposition) histogram(family string, h *hdrhistogram.Histogram) {
	e.begin(family, "histogram")
	bars := h.Distribution()
	var below int64
	next := 0
	for _, bound := range histogramBounds {
		for next < len(bars) && bars[next].To <= bound {
			below += bars[next].Count
			next++
		}
		e.sample(family+"_bucket", strconv.FormatInt(below, 10), []string{"le", seconds(float64(bound))})
	}
	e.sample(family+"_bucket", strconv.FormatInt(h.TotalCount(), 10), []string{"le", "+Inf"})
	e.sample(family+"_sum", seconds(h.Mean()*float64(h.TotalCount())), nil)
	e.sample(family+"_count", strconv.FormatInt(h.TotalCount(), 10), nil)
}

func seconds(microseconds float64) string {
	return strconv.FormatFloat(microseconds/1e6, 'g', -1, 64)
}

// foreign copies metrics that somebody else has written, and adds the TYPE where a family has
// none: whether one is written is a switch of that library for the whole process, which belongs
// to the program that we are part of.
func (e *exposition) foreign(text []byte) {
	for line := range bytes.Lines(text) {
		sample := string(line)
		if strings.HasPrefix(sample, "#") {
			if words := strings.Fields(sample); len(words) >= 4 && words[1] == "TYPE" {
				e.family, e.kind = words[2], words[3]
			}
		} else if name := sample[:max(strings.IndexAny(sample, "{ "), 0)]; !e.covers(name) {
			e.begin(familyOf(name, sample))
		}
		e.out.WriteString(sample)
	}
}

// covers reports whether name belongs to the family at hand.
func (e *exposition) covers(name string) bool {
	rest, ok := strings.CutPrefix(name, e.family)
	if !ok || rest == "" {
		return ok
	}
	switch e.kind {
	case "histogram":
		return rest == "_bucket" || rest == "_sum" || rest == "_count"
	case "summary":
		return rest == "_sum" || rest == "_count"
	}
	return false
}

// familyOf tells a family by its first sample.
func familyOf(name, sample string) (family, kind string) {
	base, isBucket := strings.CutSuffix(name, "_bucket")
	switch {
	case isBucket && strings.Contains(sample, `le="`):
		return base, "histogram"
	case strings.Contains(sample, `{quantile="`):
		return name, "summary"
	case strings.HasSuffix(name, "_total"):
		return name, "counter"
	default:
		return name, "gauge"
	}
}
