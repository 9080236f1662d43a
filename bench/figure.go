package bench

import (
	"fmt"
	"math"
)

// figure is one row of the tables: a metric of one case of a scenario.
type figure struct {
	scenario, of, metric string
	label                string
	format               func(float64) string
	// more says that more is better.
	more bool
	// floor says that the ratio to the floor means something.
	floor bool
	// plotted rows get a plot in the report.
	plotted bool
}

// figures lists all rows in the order of the tables.
func figures() []figure {
	return []figure{
		{scenario: "idle", of: "shared", metric: metricBytesPerStream, label: "process memory per idle stream, one shared channel", format: showBytes, plotted: true},
		{scenario: "idle", of: "own", metric: metricBytesPerStream, label: "same, each stream on its own channel", format: showBytes, plotted: true},
		{scenario: "idle", of: "own, token", metric: metricBytesPerStream, label: "same, each with a token's user and expiry", format: showBytes},
		{scenario: "idle", of: "shared", metric: metricKernelPerStream, label: "kernel memory per stream beside it, both ends", format: showBytes},
		{scenario: "connect", of: "no token", metric: metricCPUSeconds, label: "10,000 handshakes: CPU s", format: showSeconds, floor: true, plotted: true},
		{scenario: "connect", of: "token", metric: metricCPUSeconds, label: "same, with an HS256 token each", format: showSeconds},
		{scenario: "connect", of: "no token", metric: metricPerSecond, label: "handshakes a second", format: showCount, more: true, floor: true},
		{scenario: "fanout", of: "paced", metric: metricCPUPerMillion, label: "fan-out, paced: CPU s per million deliveries", format: showSeconds, floor: true, plotted: true},
		{scenario: "fanout", of: "paced", metric: metricP50, label: "same: p50", format: showMicros, floor: true},
		{scenario: "fanout", of: "paced", metric: metricP99, label: "same: p99", format: showMicros, floor: true, plotted: true},
		{scenario: "fanout", of: "paced", metric: metricP999, label: "same: p99.9", format: showMicros, floor: true},
		{scenario: "fanout", of: "burst", metric: metricCPUPerMillion, label: "bursts back to back: CPU s per million deliveries", format: showSeconds, floor: true, plotted: true},
		{scenario: "fanout", of: "burst", metric: metricPerSecond, label: "same: deliveries a second", format: showCount, more: true, floor: true, plotted: true},
		{scenario: "unicast", of: "steady", metric: metricCPUPerMillion, label: "unicast: CPU s per million deliveries", format: showSeconds, floor: true, plotted: true},
		{scenario: "unicast", of: "steady", metric: metricP50, label: "same: p50", format: showMicros, floor: true},
		{scenario: "unicast", of: "steady", metric: metricP99, label: "same: p99", format: showMicros, floor: true, plotted: true},
		{scenario: "unicast", of: "steady", metric: metricP999, label: "same: p99.9", format: showMicros, floor: true},
	}
}

func (f *figure) question(wire Wire) question {
	return question{scenario: f.scenario, of: f.of, metric: f.metric, wire: wire}
}

// showBytes shows a number of bytes.
func showBytes(bytes float64) string {
	switch size := math.Abs(bytes); {
	case size < 10_000:
		return fmt.Sprintf("%.0f B", bytes)
	case size < 10<<20:
		return fmt.Sprintf("%.1f KiB", bytes/(1<<10))
	case size < 10<<30:
		return fmt.Sprintf("%.1f MiB", bytes/(1<<20))
	default:
		return fmt.Sprintf("%.2f GiB", bytes/(1<<30))
	}
}

// showSeconds shows a time in seconds.
func showSeconds(s float64) string {
	switch {
	case s < 1:
		return fmt.Sprintf("%.3f", s)
	case s < 100:
		return fmt.Sprintf("%.2f", s)
	default:
		return fmt.Sprintf("%.0f", s)
	}
}

// showMicros shows a time that is given in microseconds.
func showMicros(micros float64) string {
	switch {
	case micros < 1_000:
		return fmt.Sprintf("%.0f us", micros)
	case micros < 100_000:
		return fmt.Sprintf("%.1f ms", micros/1e3)
	case micros < 1_000_000:
		return fmt.Sprintf("%.0f ms", micros/1e3)
	default:
		return fmt.Sprintf("%.2f s", micros/1e6)
	}
}

// showCount shows a number of things.
func showCount(n float64) string {
	switch {
	case n < 10_000:
		return fmt.Sprintf("%.0f", n)
	case n < 1_000_000:
		return fmt.Sprintf("%.1fk", n/1e3)
	default:
		return fmt.Sprintf("%.2fM", n/1e6)
	}
}

// showRatio shows a ratio; more digits near 1, where they matter.
func showRatio(ratio float64) string {
	switch {
	case ratio < 10:
		return fmt.Sprintf("%.2fx", ratio)
	default:
		return fmt.Sprintf("%.0fx", ratio)
	}
}
