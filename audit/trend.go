package main

import (
	"math"
	"slices"
	"time"
)

// verdict is what a series shows.
type verdict uint8

const (
	verdictFew     verdict = iota // too few samples to judge
	verdictFlat                   // no rise, or none that is more than noise
	verdictFalling                // the same: nothing leaks downward
	verdictRising
)

func (v verdict) String() string {
	return [...]string{"too few samples", "flat", "flat, falls", "RISES"}[v]
}

const (
	// samplesMin is how many samples a verdict needs.
	samplesMin = 8
	// riseShare of the median is the rise that no verdict is made of: allocators and kernels round
	// by as much.
	riseShare = 0.03
	// riseSpreads is how many times the spread of the residuals the rise may be: 19 of 20 samples lie
	// that near the line, so the end of the line would pass for one more sample of its beginning.
	riseSpreads = 2
	// madScale makes of a median of absolute deviations what a standard deviation would be.
	madScale = 1.4826
)

// point is one value of a series.
type point struct {
	at    time.Duration // since the soak began
	value float64
}

// trend is what one series did once it was warm.
type trend struct {
	first, last, least, most, median float64
	slope                            float64 // an hour
	noise                            float64 // the spread of what the slope does not explain
	rise                             float64 // by the slope, over the time that counts
	allowed                          float64 // the rise that is still flat
	verdict                          verdict
}

// newTrend fits a line to the points from warmUp on: the slope is the median of the slopes between any
// two of them (Theil and Sen), which up to a quarter of wild points does not move, such as those that
// fall into a fault of Redis. The series is flat if the rise by that slope is no more than floor, riseShare of the
// median, or riseSpreads times the noise, whichever is largest.
func newTrend(points []point, warmUp time.Duration, floor float64) trend {
	points = slices.DeleteFunc(slices.Clone(points), func(p point) bool { return p.at < warmUp })
	if len(points) < samplesMin {
		return trend{}
	}
	values := make([]float64, 0, len(points))
	for _, p := range points {
		values = append(values, p.value)
	}
	t := trend{
		first: values[0], last: values[len(values)-1], least: slices.Min(values), most: slices.Max(values),
		median: medianOf(values), slope: slopeOf(points),
	}
	t.noise = noiseOf(points, t.slope)
	t.rise = t.slope * (points[len(points)-1].at - points[0].at).Hours()
	t.allowed = max(floor, riseShare*t.median, riseSpreads*t.noise)
	switch {
	case t.rise > t.allowed:
		t.verdict = verdictRising
	case t.rise < -t.allowed:
		t.verdict = verdictFalling
	default:
		t.verdict = verdictFlat
	}
	return t
}

// slopeOf is the median slope between any two points, an hour. An hour of samples has 45,000 pairs.
func slopeOf(points []point) float64 {
	slopes := make([]float64, 0, len(points)*(len(points)-1)/2)
	for i, p := range points {
		for _, q := range points[i+1:] {
			if q.at > p.at {
				slopes = append(slopes, (q.value-p.value)/(q.at-p.at).Hours())
			}
		}
	}
	return medianOf(slopes)
}

// noiseOf is how far the points lie from the line, as a standard deviation that wild points do not
// stretch.
func noiseOf(points []point, slope float64) float64 {
	residuals := make([]float64, 0, len(points))
	for _, p := range points {
		residuals = append(residuals, p.value-slope*p.at.Hours())
	}
	middle := medianOf(residuals)
	for index, one := range residuals {
		residuals[index] = math.Abs(one - middle)
	}
	return madScale * medianOf(residuals)
}

// medianOf is the middle one of the values, or the mean of the two in the middle. None gives 0.
func medianOf(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}
