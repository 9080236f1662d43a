package ml

import (
	"math"
	"slices"
)

// Band says when a metric has left its band. The zero value is [BandDefault].
type Band struct {
	// Window is how many samples the band is made of.
	Window int
	// Warmup is how many samples there must be before anything is judged.
	Warmup int
	// Enter is how far from the middle, in deviations, an excursion begins; Exit, which is less,
	// where it ends. What lies between keeps its state.
	Enter, Exit float64
	// Confirm is how many samples in a row, on one side, make a beginning or an end.
	Confirm int
	// Cooldown is how many samples after an excursion's end none is told.
	Cooldown int
	// Adopt is how many samples an excursion may last: what stays longer is the new normal.
	Adopt int
	// Floor is the least deviation, as a share of the middle: what hardly moves at all is not an
	// alarm as soon as it moves a little.
	Floor float64
}

// BandDefault suits numbers that come a few times a second to once an hour and tremble by some
// percent.
var BandDefault = Band{
	Window: 32, Warmup: 12, Enter: 5, Exit: 3, Confirm: 2, Cooldown: 10, Adopt: 48, Floor: 0.02,
}

// gaussian makes a median of absolute deviations the standard deviation of numbers that spread as
// most do.
const gaussian = 1.4826

// Excursion is what a detector tells once of each stay outside the band.
type Excursion struct {
	Value     float64
	Expected  float64 // the middle of the band
	Deviation float64 // of the samples in the window
	Low, High float64 // the band
}

// Deviations is how far out the value is, negative below.
func (e Excursion) Deviations() float64 { return (e.Value - e.Expected) / e.Deviation }

// Detector judges the samples of one metric. The middle of its band is the median of the last
// samples that were inside, its width their median absolute deviation: neither is moved by a few
// wild samples, as a mean and a standard deviation would be. What is outside does not count, so
// that a fall does not become normal while it is looked at.
//
// A Detector is for one goroutine.
type Detector struct {
	band     Band
	window   []float64 // samples that were inside, the oldest first
	outside  []float64 // samples of the stay outside, or of what may become one, the newest Window
	side     float64   // of the stay: 1 above, -1 below
	streak   int       // samples in a row that speak for a change
	away     int       // samples of the stay; 0: inside
	told     bool      // the stay was told
	cooldown int       // samples for which none is told

	scratch []float64
}

// NewDetector makes one that has seen nothing.
func NewDetector(band Band) *Detector {
	if band == (Band{}) {
		band = BandDefault
	}
	return &Detector{band: band}
}

// Add judges the next sample, and says once of each stay outside the band that it is one: at a
// sample that is outside, when the stay is confirmed and no cooldown lasts. What is no number is
// passed over.
func (d *Detector) Add(value float64) (Excursion, bool) {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return Excursion{}, false
	}
	if d.cooldown > 0 {
		d.cooldown--
	}
	if len(d.window) < d.band.Warmup {
		d.window = append(d.window, value)
		return Excursion{}, false
	}
	seen := d.measure(value)
	if d.away == 0 {
		d.inside(value, seen.Deviations())
	} else {
		d.stay(value, seen.Deviations())
	}
	if d.away > 0 && d.streak == 0 && !d.told && d.cooldown == 0 {
		d.told = true
		return seen, true
	}
	return Excursion{}, false
}

// inside takes a sample while the metric is in its band.
func (d *Detector) inside(value, deviations float64) {
	side := math.Copysign(1, deviations)
	if math.Abs(deviations) < d.band.Enter {
		d.streak, d.outside = 0, d.outside[:0]
		d.learn(value)
		return
	}
	if side != d.side {
		d.streak, d.side, d.outside = 0, side, d.outside[:0]
	}
	d.streak++
	d.outside = append(d.outside, value)
	if d.streak >= d.band.Confirm {
		d.away, d.streak, d.told = d.streak, 0, false
	}
}

// stay takes a sample while the metric is outside.
func (d *Detector) stay(value, deviations float64) {
	d.away++
	d.outside = append(d.outside, value)
	if len(d.outside) > d.band.Window {
		d.outside = d.outside[1:]
	}
	if deviations*d.side < d.band.Exit {
		d.streak++
	} else {
		d.streak = 0
	}
	switch {
	case d.streak >= d.band.Confirm:
		d.leave()
	case d.away >= d.band.Adopt:
		d.window = append(d.window[:0], d.outside...)
		d.leave()
	}
}

// leave ends the stay outside.
func (d *Detector) leave() {
	if d.told {
		d.cooldown = d.band.Cooldown
	}
	d.away, d.streak, d.told, d.side, d.outside = 0, 0, false, 0, nil
}

// learn takes a sample into the window.
func (d *Detector) learn(value float64) {
	if len(d.window) >= d.band.Window {
		d.window = append(d.window[:0], d.window[1:]...)
	}
	d.window = append(d.window, value)
}

// measure holds a value against the band.
func (d *Detector) measure(value float64) Excursion {
	middle := d.median(func(sample float64) float64 { return sample })
	deviation := gaussian * d.median(func(sample float64) float64 { return math.Abs(sample - middle) })
	deviation = max(deviation, d.band.Floor*math.Abs(middle), math.SmallestNonzeroFloat64)
	return Excursion{
		Value: value, Expected: middle, Deviation: deviation,
		Low: middle - d.band.Enter*deviation, High: middle + d.band.Enter*deviation,
	}
}

// median gives the median of what of makes of the samples in the window.
func (d *Detector) median(of func(float64) float64) float64 {
	d.scratch = d.scratch[:0]
	for _, sample := range d.window {
		d.scratch = append(d.scratch, of(sample))
	}
	slices.Sort(d.scratch)
	half := len(d.scratch) / 2
	if len(d.scratch)%2 == 1 {
		return d.scratch[half]
	}
	return d.scratch[half-1] + (d.scratch[half]-d.scratch[half-1])/2
}
