package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
)

// faultsShown bounds the breaches that are told in words.
const faultsShown = 20

// report is what came of an audit.
type report struct {
	plan      plan
	faults    *faults
	strain    *strain // of a soak, else nil
	published [modeCount]int
	rows      [modeCount][wireCount]counts
	clients   [wireCount]int
	broken    []string // one for each account with a breach
	refusals  map[string]int
	stats     []string
	unsettled int // clients that did not get to the end in time
	moves     int // connections beyond the first
}

// take judges what a client saw and adds it up.
func (r *report) take(c *client) {
	r.clients[c.wire]++
	r.moves += max(c.connections-1, 0)
	for _, one := range c.accounts {
		one.judge(r.plan.rewinds())
		r.rows[one.line.mode][c.wire].add(&one.counts)
		if one.counts.broken() > 0 {
			r.broken = append(r.broken, fmt.Sprintf("client %d (%s, %s): %s", c.number, c.wire, c.habit, one.fault))
		}
	}
	if r.refusals == nil {
		r.refusals = make(map[string]int)
	}
	for reason, count := range c.refusals {
		r.refusals[reason] += count
	}
}

func (h habit) String() string { return [...]string{"steady", "stalling", "moving", "returning"}[h] }

// passed reports whether all promises were kept, and in a soak nothing grows.
func (r *report) passed() bool {
	return len(r.broken) == 0 && (r.strain == nil || len(r.strain.broken()) == 0)
}

// print writes the table and the verdict.
func (r *report) print(output io.Writer) {
	fmt.Fprintf(output, "scenario %s, seed %d: %d clients on %d gateways, %d channels of each mode, %v; %s\n",
		r.plan.scenario, r.plan.seed, r.plan.clients, gatewayCount, r.plan.channels, r.plan.duration, r.faults)
	fmt.Fprintf(output, "clients connected again %d times; %d did not get to the end in time\n\n", r.moves, r.unsettled)
	table := tabwriter.NewWriter(output, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "mode\twire\tclients\tlistening\tpublished\texpected\tdelivered\tmissing, declared\tmissing, silent\tduplicates\tdisorder\tgaps\treplays\trepeated\tearly\t")
	for m := range modeCount {
		for w := range wireCount {
			row := &r.rows[m][w]
			fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", m, w, r.clients[w], row.accounts,
				r.published[m], row.expected, row.delivered, row.missingDeclared, row.missingSilent, row.duplicates,
				row.disorder+row.never, row.gaps, row.replays, row.repeats, row.early)
		}
	}
	_ = table.Flush()
	fmt.Fprintln(output)
	for number, stats := range r.stats {
		fmt.Fprintf(output, "gateway %d: %s\n", number+1, stats)
	}
	for _, reason := range slices.Sorted(maps.Keys(r.refusals)) {
		fmt.Fprintf(output, "connections that ended with %q: %d\n", reason, r.refusals[reason])
	}
	for index, one := range r.broken {
		if index == faultsShown {
			fmt.Fprintf(output, "... and %d more\n", len(r.broken)-faultsShown)
			break
		}
		fmt.Fprintln(output, one)
	}
	if r.strain != nil {
		r.strain.print(output)
	}
	switch {
	case !r.passed() && len(r.broken) > 0:
		fmt.Fprintf(output, "FAILED: a promise was broken to %d subscriptions\n", len(r.broken))
	case !r.passed():
		fmt.Fprintln(output, "FAILED: see above")
	case r.strain != nil:
		fmt.Fprintln(output, "PASSED: nothing was lost in silence, doubled or out of order, and nothing grows")
	default:
		fmt.Fprintln(output, "PASSED: nothing was lost in silence, doubled or out of order")
	}
}
