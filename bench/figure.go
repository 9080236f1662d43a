package bench

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// figure is one row of the tables: a metric of one case of a scenario.
type figure struct {
	scenario, of, metric string
	// label names it in a table on a terminal, where "same" is what stands above it.
	label string
	// full is its whole name, "TITLE: COLUMN": where it stands in the report, and its unit.
	full   string
	format func(float64) string
	// more says that more is better.
	more bool
	// floor says that the ratio to the floor means something.
	floor bool
	// plotted rows get a plot in the report.
	plotted bool
}

// figures lists all rows in the order of the tables.
func figures() []figure {
	return slices.Concat(usualFigures(), compressFigures("sse-gzip", "gzip", gzipCases), compressFigures("ws-deflate", "deflate", deflateCases))
}

func usualFigures() []figure {
	return []figure{
		{scenario: "idle", of: "shared", metric: metricBytesPerStream, label: "process memory per idle stream, one shared channel", full: "an idle stream on a shared channel: process memory", format: showBytes, plotted: true},
		{scenario: "idle", of: "own", metric: metricBytesPerStream, label: "same, each stream on its own channel", full: "an idle stream on its own channel: process memory", format: showBytes, plotted: true},
		{scenario: "idle", of: "own, token", metric: metricBytesPerStream, label: "same, each with a token's user and expiry", full: "an idle stream on its own channel, with a token's user and expiry: process memory", format: showBytes},
		{scenario: "idle", of: "shared", metric: metricKernelPerStream, label: "kernel memory per stream beside it, both ends", full: "an idle stream on a shared channel: kernel memory, both ends", format: showBytes},
		{scenario: "connect", of: "no token", metric: metricCPUSeconds, label: "10,000 handshakes: CPU s", full: "10,000 handshakes: CPU s", format: showSeconds, floor: true, plotted: true},
		{scenario: "connect", of: "token", metric: metricCPUSeconds, label: "same, with an HS256 token each", full: "10,000 handshakes with an HS256 token each: CPU s", format: showSeconds},
		{scenario: "connect", of: "no token", metric: metricPerSecond, label: "handshakes a second", full: "10,000 handshakes: handshakes a second", format: showCount, more: true, floor: true},
		{scenario: "fanout", of: "paced", metric: metricCPUPerMillion, label: "fan-out, paced: CPU s per million deliveries", full: "fan-out, paced: CPU s per million deliveries", format: showSeconds, floor: true, plotted: true},
		{scenario: "fanout", of: "paced", metric: metricP50, label: "same: p50", full: "fan-out, paced: p50", format: showMicros},
		{scenario: "fanout", of: "paced", metric: metricP99, label: "same: p99", full: "fan-out, paced: p99", format: showMicros, floor: true, plotted: true},
		{scenario: "fanout", of: "paced", metric: metricP999, label: "same: p99.9", full: "fan-out, paced: p99.9", format: showMicros},
		{scenario: "fanout", of: "burst", metric: metricCPUPerMillion, label: "bursts back to back: CPU s per million deliveries", full: "bursts back to back: CPU s per million deliveries", format: showSeconds, floor: true, plotted: true},
		{scenario: "fanout", of: "burst", metric: metricPerSecond, label: "same: deliveries a second", full: "bursts back to back: deliveries a second", format: showCount, more: true, floor: true, plotted: true},
		{scenario: "unicast", of: "steady", metric: metricCPUPerMillion, label: "unicast: CPU s per million deliveries", full: "unicast: CPU s per million deliveries", format: showSeconds, floor: true, plotted: true},
		{scenario: "unicast", of: "steady", metric: metricP50, label: "same: p50", full: "unicast: p50", format: showMicros},
		{scenario: "unicast", of: "steady", metric: metricP99, label: "same: p99", full: "unicast: p99", format: showMicros, floor: true, plotted: true},
		{scenario: "unicast", of: "steady", metric: metricP999, label: "same: p99.9", full: "unicast: p99.9", format: showMicros},
		{scenario: "mixed", of: "alone", metric: metricP99, label: "unicast to 1,000: p99", full: "unicast to 1,000, alone: p99", format: showMicros, floor: true},
		{scenario: "mixed", of: "beside a fan-out", metric: metricP50, label: "same, while 5/s go to all others: p50", full: "unicast to 1,000 while 5/s go to all others: p50", format: showMicros, floor: true},
		{scenario: "mixed", of: "beside a fan-out", metric: metricP99, label: "same: p99", full: "unicast to 1,000 while 5/s go to all others: p99", format: showMicros, floor: true, plotted: true},
		{scenario: "stalled", of: "alone", metric: metricP99, label: "100/s to all: p99", full: "100/s to all, alone: p99", format: showMicros},
		{scenario: "stalled", of: "beside", metric: metricP99, label: "same, beside one that reads nothing: p99", full: "100/s to all, beside one that reads nothing: p99", format: showMicros},
		{scenario: "stalled", of: "beside", metric: metricTimesAlone, label: "same, times that without it", full: "100/s to all, beside one that reads nothing: p99, times that without it", format: showRatio},
		{scenario: "stalled", of: "beside", metric: metricGrowthBytes, label: "same: process memory that it adds", full: "100/s to all, beside one that reads nothing: process memory that it adds", format: showBytes},
		{scenario: "storm", of: "during", metric: metricSeconds, label: "all reconnect at once: seconds until all are back", full: "all reconnect at once: seconds until all are back", format: showSeconds, floor: true, plotted: true},
		{scenario: "storm", of: "during", metric: metricP99, label: "unicast to 1,000 beside it: p99", full: "unicast to 1,000 during the storm: p99", format: showMicros, floor: true},
		{scenario: "storm", of: "during", metric: metricMax, label: "same: longest", full: "unicast to 1,000 during the storm: longest", format: showMicros, floor: true},
		{scenario: "restart", of: "alone", metric: metricP99, label: "unicast to 1,000 on one of three gateways: p99", full: "unicast to 1,000 on one of three gateways, alone: p99", format: showMicros},
		{scenario: "restart", of: "rolling", metric: metricP99, label: "same, while the other two are restarted: p99", full: "unicast to 1,000 while the other two of three gateways are restarted: p99", format: showMicros},
		{scenario: "restart", of: "rolling", metric: metricTimesAlone, label: "same, times that alone", full: "unicast to 1,000 while the other two of three gateways are restarted: p99, times that alone", format: showRatio},
		{scenario: "restart", of: "rolling", metric: metricPeakOfLimit, label: "new connections a second, at most: times accept-rate", full: "a rolling restart: new connections a second of a gateway, at most, times accept-rate", format: showRatio},
		{scenario: "restart", of: "rolling", metric: metricSeconds, label: "seconds until all three are restarted and all are back", full: "a rolling restart: seconds until all three gateways are restarted and all streams are back", format: showSeconds},
		{scenario: "independence", of: "few others", metric: metricCPUPerEvent, label: "an event for 10, few others: CPU us", full: "an event for 10, few others: CPU us", format: showPlain, floor: true},
		{scenario: "independence", of: "many others", metric: metricCPUPerEvent, label: "same, many others: CPU us", full: "an event for 10, many others: CPU us", format: showPlain, floor: true},
		{scenario: "independence", of: "many others", metric: metricTimesFew, label: "same, times that with few others", full: "an event for 10, many others: times that with few", format: showRatio},
		{scenario: "gateways", of: "one", metric: metricRedisCPU, label: "an event, one gateway: CPU us of Redis", full: "an event, one gateway: CPU us of Redis", format: showPlain},
		{scenario: "gateways", of: "ten", metric: metricRedisCPU, label: "same, ten gateways: CPU us of Redis", full: "an event, ten gateways: CPU us of Redis", format: showPlain},
		{scenario: "gateways", of: "ten", metric: metricPerGateway, label: "same, for each further gateway", full: "an event, ten gateways: CPU us of Redis for each further gateway", format: showPlain},
		{scenario: "state", of: "steady", metric: metricP50, label: "SET to the client's socket: p50", full: "SET to the client's socket: p50", format: showMicros},
		{scenario: "state", of: "steady", metric: metricP99, label: "same: p99", full: "SET to the client's socket: p99", format: showMicros},
		{scenario: "log", of: "steady", metric: metricP50, label: "XADD to the client's socket: p50", full: "XADD to the client's socket: p50", format: showMicros},
		{scenario: "log", of: "steady", metric: metricP99, label: "same: p99", full: "XADD to the client's socket: p99", format: showMicros},
		{scenario: "tracked", of: "one", metric: metricRedisCPU, label: "a change that one gateway hears: CPU us of Redis", full: "a change of a value, one gateway: CPU us of Redis", format: showPlain},
		{scenario: "tracked", of: "ten", metric: metricRedisCPU, label: "same, ten gateways hear it: CPU us of Redis", full: "a change of a value, ten gateways: CPU us of Redis", format: showPlain},
		{scenario: "tracked", of: "ten", metric: metricPerGateway, label: "same, for each further gateway", full: "a change of a value, ten gateways: CPU us of Redis for each further gateway", format: showPlain},
		{scenario: "tracked", of: "one", metric: metricRedisPerKey, label: "a value that one gateway hears: memory of Redis", full: "a tracked value, one gateway: memory of Redis", format: showBytes},
		{scenario: "tracked", of: "ten", metric: metricRedisPerKey, label: "same, ten gateways hear it: memory of Redis", full: "a tracked value, ten gateways: memory of Redis", format: showBytes},
		{scenario: "keepalive", of: "idle", metric: metricCPUSeconds, label: "10,000 idle streams, kept alive: CPU s a minute", full: "10,000 idle streams, kept alive: CPU s a minute", format: showSeconds},
		{scenario: "million", of: "connect", metric: metricStreams, label: "streams of the fleet", full: "the fleet: streams", format: showWhole, more: true},
		{scenario: "million", of: "connect", metric: metricProcesses, label: "its processes", full: "the fleet: processes", format: showWhole},
		{scenario: "million", of: "connect", metric: metricSeconds, label: "seconds to connect all", full: "the fleet: seconds to connect all", format: showSeconds},
		{scenario: "million", of: "connect", metric: metricRefused, label: "handshakes refused and tried again", full: "the fleet: handshakes refused and tried again", format: showWhole},
		{scenario: "million", of: "connect", metric: metricMemoryBytes, label: "process memory, sum of PSS", full: "the fleet: process memory, sum of PSS", format: showBytes},
		{scenario: "million", of: "connect", metric: metricStreamsBytes, label: "of that, the streams' share", full: "the fleet: process memory, the streams' share", format: showBytes},
		{scenario: "million", of: "connect", metric: metricBytesPerStream, label: "same, per stream", full: "the fleet: process memory per stream", format: showBytes},
		{scenario: "million", of: "connect", metric: metricKernelBytes, label: "kernel memory, both ends", full: "the fleet: kernel memory, both ends", format: showBytes},
		{scenario: "million", of: "rest", metric: metricSeconds, label: "at rest, kept alive: seconds watched", full: "the fleet at rest, kept alive: seconds watched", format: showWhole},
		{scenario: "million", of: "rest", metric: metricCPUSeconds, label: "same: CPU s a minute", full: "the fleet at rest, kept alive: CPU s a minute", format: showSeconds},
		{scenario: "million", of: "broadcast", metric: metricFirstSeconds, label: "one event for all: seconds to the first", full: "one event for all: seconds to the first", format: showSeconds},
		{scenario: "million", of: "broadcast", metric: metricP50, label: "same: p50", full: "one event for all: p50", format: showMicros},
		{scenario: "million", of: "broadcast", metric: metricP99, label: "same: p99", full: "one event for all: p99", format: showMicros},
		{scenario: "million", of: "broadcast", metric: metricSeconds, label: "same: seconds to the last", full: "one event for all: seconds to the last", format: showSeconds},
		{scenario: "million", of: "broadcast", metric: metricDeliveries, label: "same: deliveries", full: "one event for all: deliveries", format: showWhole, more: true},
		{scenario: "million", of: "broadcast", metric: metricCPUPerMillion, label: "same: CPU s per million deliveries", full: "one event for all: CPU s per million deliveries", format: showSeconds},
	}
}

func (f *figure) question(wire Wire) question {
	return question{scenario: f.scenario, of: f.of, metric: f.metric, wire: wire}
}

// title is what the figures of one table of the report have in common, column what this one is.
func (f *figure) title() (title, column string) {
	title, column, _ = strings.Cut(f.full, ": ")
	return title, column
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

// showPlain shows a number with three digits or so.
func showPlain(n float64) string {
	if n < 100 {
		return fmt.Sprintf("%.1f", n)
	}
	return fmt.Sprintf("%.0f", n)
}

// showWhole shows a whole number.
func showWhole(n float64) string { return fmt.Sprintf("%.0f", n) }

// showRatio shows a ratio; more digits near 1, where they matter.
func showRatio(ratio float64) string {
	switch {
	case ratio < 10:
		return fmt.Sprintf("%.2fx", ratio)
	default:
		return fmt.Sprintf("%.0fx", ratio)
	}
}
