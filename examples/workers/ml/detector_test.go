package ml

import (
	"math"
	"math/rand/v2"
	"testing"
)

// series makes samples: a level that trembles by a share of itself.
type series struct {
	random *rand.Rand
	level  float64
	share  float64
}

func newSeries(seed uint64, level, share float64) *series {
	return &series{random: rand.New(rand.NewPCG(seed, 1)), level: level, share: share}
}

func (s *series) next() float64 { return s.level * (1 + s.share*s.random.NormFloat64()) }

// feed gives count samples to a detector and says after which ones it alerted, from 1.
func (s *series) feed(d *Detector, count int) (alerts []int) {
	for place := range count {
		if _, outside := d.Add(s.next()); outside {
			alerts = append(alerts, place+1)
		}
	}
	return alerts
}

// TestFalseAlarms measures how often noise is taken for news: the bound is one in 10,000 samples.
func TestFalseAlarms(t *testing.T) {
	t.Parallel()
	const samples, runs = 4_000, 25
	heavy := func(random *rand.Rand) float64 { // one sample in 50 is wild
		value := random.NormFloat64()
		if random.IntN(50) == 0 {
			value *= 8
		}
		return 100 + 4*value
	}
	for name, noise := range map[string]func(*rand.Rand) float64{
		"normal":     func(random *rand.Rand) float64 { return 100 + 4*random.NormFloat64() },
		"even":       func(random *rand.Rand) float64 { return 100 + 10*random.Float64() },
		"wild":       heavy,
		"constant":   func(*rand.Rand) float64 { return 7 },
		"zero":       func(*rand.Rand) float64 { return 0 },
		"few values": func(random *rand.Rand) float64 { return 3 + 0.01*float64(random.IntN(2)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			alerts := 0
			for run := range runs {
				random := rand.New(rand.NewPCG(uint64(run), 2))
				detector := NewDetector(Band{})
				for range samples {
					if _, outside := detector.Add(noise(random)); outside {
						alerts++
					}
				}
			}
			t.Logf("%d false alarms in %d samples", alerts, samples*runs)
			if alerts > samples*runs/10_000 {
				t.Errorf("%d false alarms in %d samples are too many", alerts, samples*runs)
			}
		})
	}
}

// TestLevelShift: a shift is told once, within a few samples, and said with what was expected.
func TestLevelShift(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		factor float64
		within int
	}{
		{"halved", 0.5, BandDefault.Confirm},
		{"doubled", 2, BandDefault.Confirm},
		{"a third less", 0.67, BandDefault.Confirm + 3},
		{"half as much again", 1.5, BandDefault.Confirm + 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(100) {
				noise := newSeries(seed, 0.034, 0.04)
				detector := NewDetector(Band{})
				if early := noise.feed(detector, 60); len(early) > 0 {
					t.Fatalf("seed %d: alerted after %d samples of noise", seed, early[0])
				}
				noise.level *= test.factor
				told := noise.feed(detector, BandDefault.Adopt-1)
				if len(told) != 1 || told[0] > test.within {
					t.Fatalf("seed %d: alerted after samples %v of the shift, want once within %d", seed, told, test.within)
				}
			}
		})
	}
	detector := NewDetector(Band{})
	noise := newSeries(1, 100, 0.04)
	noise.feed(detector, 60)
	detector.Add(50)
	seen, outside := detector.Add(51)
	if !outside || seen.Value != 51 || math.Abs(seen.Expected-100) > 5 || seen.Low < 60 || seen.High > 140 || seen.Deviations() > -BandDefault.Enter {
		t.Errorf("told %+v (%v)", seen, outside)
	}
}

// TestOneAlertAnExcursion: the steps of a stay outside, by exact samples.
func TestOneAlertAnExcursion(t *testing.T) {
	t.Parallel()
	band := Band{Window: 10, Warmup: 4, Enter: 5, Exit: 2, Confirm: 2, Cooldown: 3, Adopt: 8, Floor: 0.1}
	// The band around 100 is 50 to 150; it is left again within 80 to 120.
	const in, out, low, between, between2 = 100, 200, 10, 130, 140
	for _, test := range []struct {
		name    string
		samples []float64
		want    []int // samples that alert, from 1
	}{
		{"one wild sample is none", []float64{out, in, out, in, low, in}, nil},
		{"two in a row are", []float64{in, out, out}, []int{3}},
		{"above, then below, is no row", []float64{out, low, out, low, in}, nil},
		{"no more is told of a stay", []float64{out, out, out, out, out, out}, []int{2}},
		{"between exit and enter it lasts", []float64{out, out, between, between2, between, out, out}, []int{2}},
		{"one sample inside is no end", []float64{out, out, in, out, in, out, in}, []int{2}},
		{"after the cooldown there is a next one", []float64{out, out, in, in, in, in, in, low, low}, []int{2, 9}},
		{"what begins in the cooldown is told when it is over", []float64{out, out, in, in, out, out, out, out}, []int{2, 7}},
		{"what ends in the cooldown is not told", []float64{out, out, in, in, out, out, in, in, in, in}, []int{2}},
		{"what stays is the new normal", []float64{out, out, out, out, out, out, out, out, out, out, out, out, in, in}, []int{2, 14}},
		{"no numbers are passed over", []float64{out, math.NaN(), math.Inf(1), out}, []int{4}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			detector := NewDetector(band)
			for range band.Window {
				if _, outside := detector.Add(in); outside {
					t.Fatal("alerted while it warmed up")
				}
			}
			var told []int
			for place, sample := range test.samples {
				if _, outside := detector.Add(sample); outside {
					told = append(told, place+1)
				}
			}
			if len(told) != len(test.want) || len(told) > 0 && !equal(told, test.want) {
				t.Errorf("alerted after samples %v, want %v", told, test.want)
			}
		})
	}
}

func equal(got, want []int) bool {
	for place := range want {
		if got[place] != want[place] {
			return false
		}
	}
	return true
}

// TestMemoryIsBounded: a detector keeps no more than its window, whatever comes.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	detector := NewDetector(Band{Window: 8, Warmup: 4, Enter: 5, Exit: 3, Confirm: 2, Adopt: 1_000_000, Floor: 0.02})
	for range 8 {
		detector.Add(1)
	}
	for _, value := range []float64{1000, 1} {
		for range 10_000 {
			detector.Add(value)
		}
		if len(detector.window) > 8 || len(detector.outside) > 8 || cap(detector.outside) > 64 || cap(detector.window) > 64 {
			t.Errorf("it keeps %d and %d samples, in room for %d and %d", len(detector.window), len(detector.outside),
				cap(detector.window), cap(detector.outside))
		}
	}
}
