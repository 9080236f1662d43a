package main

import (
	"math/rand/v2"
	"testing"
	"time"
)

// hour is an hour of samples, each of which value makes of the share of the hour that has gone.
func hour(value func(share float64) float64) []point {
	const count = 360
	points := make([]point, 0, count)
	for index := range count {
		share := float64(index) / count
		points = append(points, point{at: time.Duration(share * float64(time.Hour)), value: value(share)})
	}
	return points
}

// TestTrend tells a leak from noise: that is all that makes a soak more than an hour of waiting.
func TestTrend(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	noise := func(spread float64) float64 { return random.NormFloat64() * spread }
	cases := []struct {
		name   string
		points []point
		want   verdict
	}{
		{"still", hour(func(float64) float64 { return 100 }), verdictFlat},
		{"nothing at all", hour(func(float64) float64 { return 0 }), verdictFlat},
		{"noise alone", hour(func(float64) float64 { return 100 + noise(10) }), verdictFlat},
		{"a leak", hour(func(share float64) float64 { return 100 + 10*share }), verdictRising},
		{"a leak under noise", hour(func(share float64) float64 { return 100 + 10*share + noise(3) }), verdictRising},
		{"a leak in steps", hour(func(share float64) float64 { return 100 + float64(int(share*6))*2 }), verdictRising},
		{"a leak that garbage hides", hour(func(share float64) float64 {
			return 100 + 20*share + float64(int(share*360)%5)
		}), verdictRising},
		{"spikes", hour(func(share float64) float64 {
			if int(share*360)%6 == 0 {
				return 1000 * share
			}
			return 100 + noise(1)
		}), verdictFlat},
		{"a rise while it warms up", hour(func(share float64) float64 { return 100 + min(share, 1.0/6)*300 }), verdictFlat},
		{"a rise that is rounding", hour(func(share float64) float64 { return 100 + 2*share }), verdictFlat},
		{"a fall", hour(func(share float64) float64 { return 100 - 10*share }), verdictFalling},
		{"too few", hour(func(share float64) float64 { return 100 * share })[:samplesMin+59], verdictFew},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := newTrend(c.points, 10*time.Minute, 0.5); got.verdict != c.want {
				t.Errorf("it is taken for %q, want %q: %+v", got.verdict, c.want, got)
			}
		})
	}
}

// TestTrendIsMeasured checks the numbers behind a verdict.
func TestTrendIsMeasured(t *testing.T) {
	got := newTrend(hour(func(share float64) float64 { return 50 + 12*share }), 30*time.Minute, 0)
	near := func(what string, got, want float64) {
		t.Helper()
		if got < want-0.1 || got > want+0.1 {
			t.Errorf("%s is %g, want %g", what, got, want)
		}
	}
	near("the first value", got.first, 56)
	near("the last value", got.last, 62)
	near("the median", got.median, 59)
	near("the slope an hour", got.slope, 12)
	near("the rise", got.rise, 6)
	near("the noise", got.noise, 0)
}
