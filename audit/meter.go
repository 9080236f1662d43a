package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// series is one thing that is measured of a gateway again and again.
type series uint8

const (
	seriesResident series = iota
	seriesProportional
	seriesHeap
	seriesGoroutines
	seriesDescriptors
	seriesSpare
	seriesStreams
	seriesSubscriptions
	seriesChannels
	seriesCount
)

const mebibyte = 1 << 20

// about says of each series what it is, the unit of its numbers in the table, and the rise that is
// none: a fault of Redis can make a handful of descriptors and goroutines more at one end of the run.
var about = [seriesCount]struct {
	name  string
	unit  float64
	floor float64 // in that unit
}{
	seriesResident:      {"resident memory, MiB", mebibyte, 1},
	seriesProportional:  {"its own part (PSS), MiB", mebibyte, 1},
	seriesHeap:          {"Go heap, next collection, MiB", mebibyte, 1},
	seriesGoroutines:    {"goroutines", 1, 4},
	seriesDescriptors:   {"descriptors", 1, 4},
	seriesSpare:         {"descriptors beside streams", 1, 4},
	seriesStreams:       {"streams", 1, 4},
	seriesSubscriptions: {"subscriptions", 1, 4},
	seriesChannels:      {"channels", 1, 4},
}

func (s series) String() string { return about[s].name }

// values is one sample, in bytes and pieces.
type values [seriesCount]float64

// meter measures one gateway. It belongs to one goroutine.
type meter struct {
	gateway *gateway
	empty   values // before anybody came
	points  [seriesCount][]point
	missed  int // samples that the gateway did not answer in time
	reasons reasons
}

// reasons counts, in words, why streams ended and what was refused. What did not happen is left out.
type reasons map[string]float64

// reasonCounters are the metrics that count by reason, in the words of the report.
var reasonCounters = map[string]string{
	"millrace_streams_ended_total":    "streams ended",
	"millrace_desk_refused_total":     "connections refused",
	"millrace_requests_refused_total": "requests refused",
}

// faultReasons are those that mean a fault of the gateway's own.
var faultReasons = []string{"bug", "panic"}

// newMeter measures a gateway that nobody has come to yet.
func newMeter(g *gateway) (*meter, error) {
	m := &meter{gateway: g}
	var err error
	m.empty, err = g.measure()
	return m, err
}

// sample adds one sample, taken at that time since the soak began. A gateway that does not answer in time is
// measured the next time; one that has ended is an error.
func (m *meter) sample(at time.Duration) error {
	now, err := m.gateway.measure()
	switch {
	case err != nil && !m.gateway.running():
		return fmt.Errorf("a gateway ended: %s", m.gateway.words.String())
	case err != nil:
		m.missed++
		return nil
	}
	for one, value := range now {
		m.points[one] = append(m.points[one], point{at: at, value: value / about[one].unit})
	}
	return nil
}

// latest says what the last sample was.
func (m *meter) latest() string {
	words := make([]string, 0, seriesCount)
	for one := range seriesCount {
		if points := m.points[one]; len(points) > 0 {
			words = append(words, fmt.Sprintf("%s %.4g", one, points[len(points)-1].value))
		}
	}
	return strings.Join(words, "; ")
}

// trends judges all series.
func (m *meter) trends(warmUp time.Duration) (all [seriesCount]trend) {
	for one := range seriesCount {
		all[one] = newTrend(m.points[one], warmUp, about[one].floor)
	}
	return all
}

// leftoverSpare is how many goroutines and descriptors more a gateway may have than before anybody
// came: the runtime's own, and connections to Redis that are made when they are first needed.
const leftoverSpare = 8

// leftover waits until everything of the streams that have gone is given back, and says what is
// not.
func (m *meter) leftover(ctx context.Context, patience time.Duration) ([]string, error) {
	deadline := time.Now().Add(patience)
	for {
		now, err := m.gateway.measure()
		late := ctx.Err() != nil || time.Now().After(deadline)
		switch {
		case err != nil && !m.gateway.running():
			return nil, fmt.Errorf("a gateway ended: %s", m.gateway.words.String())
		case err != nil && late:
			return nil, err
		case err != nil:
			sleep(ctx, pollPause)
			continue
		}
		var left []string
		for _, one := range []series{seriesStreams, seriesSubscriptions, seriesGoroutines, seriesDescriptors} {
			spare := 0.0
			if one == seriesGoroutines || one == seriesDescriptors {
				spare = leftoverSpare
			}
			if now[one] > m.empty[one]+spare {
				left = append(left, fmt.Sprintf("has %g %s, and had %g before anybody came", now[one], one, m.empty[one]))
			}
		}
		if len(left) == 0 || late {
			return left, ctx.Err()
		}
		sleep(ctx, pollPause)
	}
}

// gauges are the metrics of a gateway that are series; of one with labels the sum.
var gauges = map[string]series{
	"millrace_streams":              seriesStreams,
	"millrace_subscriptions":        seriesSubscriptions,
	"millrace_channels":             seriesChannels,
	"go_goroutines":                 seriesGoroutines,
	"go_memstats_next_gc_bytes":     seriesHeap,
	"process_resident_memory_bytes": seriesResident,
}

// measure asks the gateway and the kernel.
func (g *gateway) measure() (values, error) {
	var all values
	said, err := g.ask("/metrics")
	if err != nil {
		return all, fmt.Errorf("ask a gateway for its metrics: %w", err)
	}
	if said.status != http.StatusOK {
		return all, fmt.Errorf("ask a gateway for its metrics: status %d", said.status)
	}
	folder := filepath.Join("/proc", strconv.Itoa(g.command.Process.Pid))
	open, err := countEntries(filepath.Join(folder, "fd"))
	if err != nil {
		return all, err
	}
	rollup, err := os.ReadFile(filepath.Join(folder, "smaps_rollup"))
	if err != nil {
		return all, err
	}
	if err := all.takeMetrics(said.body); err != nil {
		return all, err
	}
	if all[seriesProportional], err = kibibytes(rollup, "Pss:"); err != nil {
		return all, err
	}
	all[seriesDescriptors] = float64(open)
	all[seriesSpare] = all[seriesDescriptors] - all[seriesStreams]
	return all, nil
}

// takeMetrics reads the gauges in Prometheus's text format.
func (v *values) takeMetrics(text []byte) error {
	seen := make(map[series]bool)
	for line := range bytes.Lines(text) {
		name, rest, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		name, _, _ = strings.Cut(name, "{")
		one, wanted := gauges[name]
		if !wanted {
			continue
		}
		value, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return fmt.Errorf("read the metric %s: %w", name, err)
		}
		v[one] += value
		seen[one] = true
	}
	if len(seen) != len(gauges) {
		return fmt.Errorf("a gateway tells %d of %d metrics", len(seen), len(gauges))
	}
	return nil
}

// reasons asks the gateway for what it counted by reason.
func (g *gateway) reasons() (reasons, error) {
	said, err := g.ask("/metrics")
	if err != nil {
		return nil, fmt.Errorf("ask a gateway for its metrics: %w", err)
	}
	all := make(reasons)
	for line := range strings.Lines(string(said.body)) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), "{")
		words, wanted := reasonCounters[name]
		if !wanted {
			continue
		}
		_, rest, _ = strings.Cut(rest, `="`)
		reason, text, _ := strings.Cut(rest, `"} `)
		count, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("read the metric %s: %w", name, err)
		}
		if count > 0 {
			all[words+", "+reason] = count
		}
	}
	return all, nil
}

// broken says which faults of its own the gateway counted.
func (r reasons) broken() []string {
	var words []string
	for what, count := range r {
		if _, reason, _ := strings.Cut(what, ", "); slices.Contains(faultReasons, reason) {
			words = append(words, fmt.Sprintf("%s: %g", what, count))
		}
	}
	return words
}

// String names all reasons with their counts.
func (r reasons) String() string {
	words := make([]string, 0, len(r))
	for _, what := range slices.Sorted(maps.Keys(r)) {
		words = append(words, fmt.Sprintf("%s: %g", what, r[what]))
	}
	return strings.Join(words, "; ")
}

// kibibytes reads a line of the kernel's such as "Pss: 1234 kB", and gives bytes.
func kibibytes(text []byte, name string) (float64, error) {
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) < 2 || fields[0] != name {
			continue
		}
		number, err := strconv.ParseFloat(fields[1], 64)
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", name, err)
		}
		return number * 1024, nil
	}
	return 0, fmt.Errorf("the kernel does not tell %s", name)
}

// countEntries is how many entries a folder has.
func countEntries(path string) (int, error) {
	folder, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer folder.Close()
	names, err := folder.Readdirnames(-1)
	return len(names), err
}
