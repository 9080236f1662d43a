package bench

import (
	"cmp"
	"fmt"
)

// target is a figure that ours has to reach.
type target struct {
	scenario, of, metric string
	// to is the subject to whose figure ours is compared, round by round; empty: the figure itself
	// is what counts.
	to    string
	bound float64
	// least says that the bound is the least allowed, not the most.
	least bool
	// by is how fast the machine was for which an absolute bound was set; zero: not known.
	by boundPace
}

// boundPace is what a floor took on the machine for which a bound was set. A floor does nothing of its
// own, so it tells how fast a machine is.
type boundPace struct {
	subject string
	of      string // the case that tells, where it is not the target's own
	figure  float64
}

// The units are those of the metrics. The absolute bounds are for the machine that the project was
// planned on, where the floors took what their paces say; ratios hold anywhere.
func targets() []target {
	return []target{
		{scenario: "idle", of: "shared", metric: metricBytesPerStream, bound: 200},
		{scenario: "idle", of: "own", metric: metricBytesPerStream, bound: 400},
		{scenario: "idle", of: "own, token", metric: metricBytesPerStream, bound: 400},
		{scenario: "connect", of: "no token", metric: metricCPUSeconds, bound: 0.28, by: boundPace{subject: floorName, figure: 0.17}},
		{scenario: "connect", of: "token", metric: metricCPUSeconds, bound: 0.40, by: boundPace{subject: floorName, of: "no token", figure: 0.17}},
		{scenario: "fanout", of: "paced", metric: metricCPUPerMillion, to: floorName, bound: 1.10},
		{scenario: "fanout", of: "paced", metric: metricCPUPerMillion, to: uwebsockets{}.name(), bound: 1.00},
		{scenario: "fanout", of: "paced", metric: metricP99, to: floorName, bound: 1.15},
		{scenario: "fanout", of: "burst", metric: metricCPUPerMillion, bound: 0.45, by: boundPace{subject: floorName, figure: 5.6}},
		{scenario: "fanout", of: "burst", metric: metricPerSecond, bound: 2e6, least: true},
		{scenario: "unicast", of: "steady", metric: metricCPUPerMillion, bound: 35, by: boundPace{subject: floorName, figure: 22.5}},
		{scenario: "unicast", of: "steady", metric: metricP99, bound: 120, by: boundPace{subject: floorName, figure: 110}},
		{scenario: "mixed", of: "beside a fan-out", metric: metricP99, bound: 2_000},
		{scenario: "stalled", of: "beside", metric: metricTimesAlone, bound: 1.10},
		{scenario: "stalled", of: "beside", metric: metricGrowthBytes, bound: 1e6},
		{scenario: "restart", of: "rolling", metric: metricTimesAlone, bound: 1.20},
		{scenario: "restart", of: "rolling", metric: metricPeakOfLimit, bound: 1.10},
		{scenario: "state", of: "steady", metric: metricP99, bound: 5_000},
		{scenario: "log", of: "steady", metric: metricP99, bound: 5_000},
		{scenario: "independence", of: "many others", metric: metricTimesFew, bound: 1.10},
		{scenario: "million", of: "connect", metric: metricStreams, bound: 1e6, least: true},
		{scenario: "million", of: "connect", metric: metricMemoryBytes, bound: 1.5e9},
		{scenario: "million", of: "connect", metric: metricStreamsBytes, bound: 400e6},
	}
}

// figure is the row of the tables that the target is about.
func (t *target) figure() *figure {
	for _, f := range figures() {
		if f.scenario == t.scenario && f.of == t.of && f.metric == t.metric {
			return &f
		}
	}
	panic(fmt.Sprintf("bench: no figure is %s, %s, %s", t.scenario, t.of, t.metric))
}

// reached is how far ours came over a wire.
func (t *target) reached(r *Result, wire Wire) spread {
	if t.to != "" {
		return r.ratio(ourName, t.to, t.figure().question(wire))
	}
	return r.spread(ourName, t.figure().question(wire))
}

// atPace is how far ours would have come over a wire on the machine for which the bound was set: its
// ratio to the floor, within each round, times what the floor took there.
func (t *target) atPace(r *Result, wire Wire) spread {
	if t.by.subject == "" {
		return spreadOf(nil)
	}
	ours := t.figure().question(wire)
	floors := ours
	floors.of = cmp.Or(t.by.of, ours.of)
	theirs := r.values(t.by.subject, floors)
	scaled := make(map[int]float64)
	for round, value := range r.values(ourName, ours) {
		if base := theirs[round]; base > 0 {
			scaled[round] = value / base * t.by.figure
		}
	}
	return spreadOf(inOrder(scaled))
}

// missed says whether neither what ours reached nor what it comes to at the pace of the bound is good enough.
func (t *target) missed(reached, scaled spread) bool {
	return !t.met(reached.Median) && (scaled.Count == 0 || !t.met(scaled.Median))
}

// met says whether a value is good enough.
func (t *target) met(value float64) bool {
	if t.least {
		return value >= t.bound
	}
	return value <= t.bound
}

// show shows a value of the target's kind.
func (t *target) show(value float64) string {
	if t.to != "" {
		return showRatio(value)
	}
	return t.figure().format(value)
}

// rule says what has to be reached.
func (t *target) rule() string {
	rule := "at most "
	if t.least {
		rule = "at least "
	}
	rule += t.show(t.bound)
	if t.to != "" {
		rule += " " + t.to
	}
	return rule
}
