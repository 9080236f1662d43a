package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// broken says what was not as it must be, besides what the judged clients saw: promises to the
// throng, to visitors, what abuse was not ended, what was not given back, and what grows. A series with too few
// samples proves nothing, which is no breach.
func (t *strain) broken() []string {
	var words []string
	for index := range t.throngs {
		words = append(words, t.throngs[index].broken()...)
	}
	words = append(words, t.churn.broken()...)
	words = append(words, t.abuse.broken()...)
	words = append(words, t.leftover...)
	for number, one := range t.meters {
		for _, what := range one.reasons.broken() {
			words = append(words, fmt.Sprintf("gateway %d: %s", number+1, what))
		}
		for s, trend := range one.trends(t.plan.soak.warmUp) {
			if trend.verdict == verdictRising {
				words = append(words, fmt.Sprintf("gateway %d: %s rises: by %.4g, where %.4g is noise", number+1, series(s), trend.rise, trend.allowed))
			}
		}
	}
	return words
}

// print writes the tables of a soak, and what is broken.
func (t *strain) print(output io.Writer) {
	fmt.Fprintf(output, "\n%s\n%s\n\n", t.churn, t.abuse)
	t.printThrong(output)
	t.printTrends(output)
	for _, one := range t.broken() {
		fmt.Fprintln(output, one)
	}
}

func (t *strain) printThrong(output io.Writer) {
	table := tabwriter.NewWriter(output, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "crowd of\ton\tgateway\tstreams\tpublished\tevents\tgaps\tmissing, declared\tdisorder or missing, silent\tclosed\twith the last number\t")
	for _, r := range t.throngs {
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", r.part.mode, r.part.wire, r.part.gateway+1, r.part.streams,
			t.throng.number, r.Events, r.Gaps, r.Declared, r.Disordered, r.Failed+r.Closed, r.Reached)
	}
	_ = table.Flush()
}

func (t *strain) printTrends(output io.Writer) {
	for number, one := range t.meters {
		fmt.Fprintf(output, "\ngateway %d, every %v from %v on; %d samples, %d missed\n", number+1,
			t.plan.soak.sample.Round(time.Millisecond), t.plan.soak.warmUp, len(one.points[seriesStreams]), one.missed)
		table := tabwriter.NewWriter(output, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(table, "\tempty\tfirst\tlast\tleast\tmost\tmedian\tslope an hour\tnoise\trise\tallowed\tverdict\t")
		for s, trend := range one.trends(t.plan.soak.warmUp) {
			fmt.Fprintf(table, "%s\t%.5g\t%.5g\t%.5g\t%.5g\t%.5g\t%.5g\t%+.3g\t%.3g\t%+.3g\t%.3g\t%s\t\n", series(s), one.empty[s]/about[s].unit,
				trend.first, trend.last, trend.least, trend.most, trend.median, trend.slope, trend.noise, trend.rise, trend.allowed, trend.verdict)
		}
		_ = table.Flush()
		fmt.Fprintf(output, "\n%s\n", one.reasons)
	}
}
