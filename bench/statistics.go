package bench

import (
	"math"
	"slices"
)

// spread is what several rounds gave for one figure.
type spread struct {
	Median, Min, Max float64
	Count            int
}

// spreadOf sums up values. Without any, its Count is 0.
func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{Median: math.NaN(), Min: math.NaN(), Max: math.NaN()}
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	median := sorted[middle]
	if len(sorted)%2 == 0 {
		median = (sorted[middle-1] + sorted[middle]) / 2
	}
	return spread{Median: median, Min: sorted[0], Max: sorted[len(sorted)-1], Count: len(sorted)}
}

// question names one figure of a table.
type question struct {
	scenario, of, metric string
	wire                 Wire
}

// values gives what a subject reached in each round that has a sample.
func (r *Result) values(subject string, q question) map[int]float64 {
	values := make(map[int]float64)
	for i := range r.Samples {
		s := &r.Samples[i]
		value, has := s.Metrics[q.metric]
		if has && s.Subject == subject && s.Scenario == q.scenario && s.Case == q.of && s.Wire == q.wire {
			values[s.Round] = value
		}
	}
	return values
}

// spread sums up what a subject reached over all rounds.
func (r *Result) spread(subject string, q question) spread {
	return spreadOf(inOrder(r.values(subject, q)))
}

// ratio sums up how a subject compares with another: the ratio is taken within each round, since
// the machine is not the same from round to round, and only then are rounds summed up.
func (r *Result) ratio(subject, to string, q question) spread {
	theirs := r.values(to, q)
	ratios := make(map[int]float64)
	for round, value := range r.values(subject, q) {
		if base := theirs[round]; base > 0 {
			ratios[round] = value / base
		}
	}
	return spreadOf(inOrder(ratios))
}

func inOrder(byRound map[int]float64) []float64 {
	var rounds []int
	for round := range byRound {
		rounds = append(rounds, round)
	}
	slices.Sort(rounds)
	values := make([]float64, len(rounds))
	for i, round := range rounds {
		values[i] = byRound[round]
	}
	return values
}
