package hostile

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// row is what the table says of one case.
type row struct {
	abuse         abuse
	came          string
	load          string
	before, after cost
	longest, took time.Duration
	counts        string
}

var (
	rowsMutex sync.Mutex
	rows      []row
)

func addRow(w *world, before, after cost, took time.Duration) {
	w.mutex.Lock()
	came := strings.Join(w.came, "; ")
	w.mutex.Unlock()
	var counts []string
	for _, word := range slices.Sorted(maps.Keys(w.abuse.counts)) {
		if w.abuse.counts[word] != maybe {
			counts = append(counts, "`"+word+"`")
		}
	}
	rowsMutex.Lock()
	defer rowsMutex.Unlock()
	rows = append(rows, row{
		abuse: w.abuse, came: came, load: w.load, before: before, after: after,
		longest: w.longest(), took: took, counts: strings.Join(counts, ", "),
	})
}

const reportHead = `# Robustness

What hostile and broken peers did to a gateway, and what came back. ` + "`make hostile`" + ` writes this page: it runs every case against the
real binary, one after the other, with a Redis of its own where one is needed, over loopback; those of letter N, which are faults of
the network, between two network namespaces, which takes root.

Around each case an event stream and a WebSocket hear a numbered sequence, 40 events a second. Each case is held to five invariants: the
process lives; the bystanders miss nothing, and hear the next event within a second of its publication; descriptors, goroutines and
resident memory return to what they were (to within %d MiB, or what the case says); the case is counted by the names given here and by no other;
no line of the log, at level debug, holds a token, a payload or a control character.

**Latest** is the longest that an event took to a bystander while the case went on. **Memory** (resident, after a collection) and
**descriptors** are those of the gateway before and after.

`

// writeReport writes the page, unless it has no name.
func writeReport(path string) error {
	if path == "" {
		return nil
	}
	var page bytes.Buffer
	fmt.Fprintf(&page, reportHead, bytesSpare>>20)
	fmt.Fprintf(&page, "Run on %s with %d cores, %s, crowds times %d.\n\n", time.Now().Format("2006-01-02"), runtime.NumCPU(), runtime.Version(), *crowdFactor)
	page.WriteString("| case | sent | came back | counted as | load held | latest | memory, MiB | descriptors | took |\n")
	page.WriteString("| --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: |\n")
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.abuse.id[0], b.abuse.id[0]), cmp.Compare(len(a.abuse.id), len(b.abuse.id)), cmp.Compare(a.abuse.id, b.abuse.id))
	})
	for _, r := range rows {
		memory := fmt.Sprintf("%.1f → %.1f", mebibytes(r.before), mebibytes(r.after))
		descriptors := fmt.Sprintf("%d → %d", r.before.descriptors, r.after.descriptors)
		if r.abuse.mortal {
			memory, descriptors = fmt.Sprintf("%.1f, then it ends", mebibytes(r.before)), fmt.Sprint(r.before.descriptors)
		}
		fmt.Fprintf(&page, "| %s | %s | %s | %s | %s | %d ms | %s | %s | %.1f s |\n", r.abuse.id, cell(r.abuse.sent), cell(r.came), r.counts, cell(r.load),
			r.longest.Milliseconds(), memory, descriptors, r.took.Seconds())
	}
	if skipped := skippedCases(); len(skipped) > 0 {
		fmt.Fprintf(&page, "\nSkipped on that machine: %s.\n", strings.Join(skipped, ", "))
	}
	page.WriteString("\n## What is not tested here\n\n| case | what | why |\n| --- | --- | --- |\n")
	for _, one := range known {
		fmt.Fprintf(&page, "| %s | %s | %s |\n", one.id, cell(one.what), cell(one.reason))
	}
	return os.WriteFile(path, page.Bytes(), 0o644)
}

// skippedCases are those that have no row.
func skippedCases() (ids []string) {
	for _, one := range cases() {
		if !slices.ContainsFunc(rows, func(r row) bool { return r.abuse.id == one.id }) {
			ids = append(ids, one.id)
		}
	}
	return ids
}

func mebibytes(c cost) float64 { return float64(c.bytes) / (1 << 20) }

// cell makes text fit for a cell of a table.
func cell(text string) string { return strings.ReplaceAll(text, "|", "\\|") }
