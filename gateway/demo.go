package gateway

import (
	"context"
	"encoding/json"
	"syscall"
	"time"
)

const (
	// demoChannel is where a gateway with Demo publishes what its process measures of itself.
	demoChannel = "system:millrace"
	// demoStep is the time between two measurements.
	demoStep = 500 * time.Millisecond
)

// measurement is one event of demoChannel.
type measurement struct {
	Type       string  `json:"type"`
	Streams    int     `json:"streams"`
	Events     uint64  `json:"events"`
	HeapBytes  uint64  `json:"heapBytes"`
	Goroutines int     `json:"goroutines"`
	CPUPercent float64 `json:"cpuPercent"`
	Timestamp  string  `json:"timestamp"`
}

// demonstration is what the last measurement leaves for the next.
type demonstration struct {
	cpu time.Duration // used by the process until then
	at  time.Time
}

// demonstrate measures this process, so that a page has something live to show.
func (g *Gateway) demonstrate(ctx context.Context) {
	tick := time.NewTicker(demoStep)
	defer tick.Stop()
	demo := demonstration{cpu: processorTime(), at: time.Now()}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		if stats, err := g.Stats(ctx); err == nil {
			g.demoPublish(ctx, demo.measure(stats, now))
		}
	}
}

func (g *Gateway) demoPublish(ctx context.Context, value measurement) {
	data, err := json.Marshal(value)
	if err == nil {
		_, err = g.Publish(ctx, Event{Channel: demoChannel, Data: data})
	}
	if err != nil && ctx.Err() == nil {
		g.reports.warn(g.logger, "the demonstration could not publish", "channel", demoChannel, "error", err)
	}
}

// measure says what the process has done since the last step.
func (d *demonstration) measure(stats Stats, now time.Time) measurement {
	cpu := processorTime()
	m := measurement{
		Type: "measurement", Streams: stats.SSE.TotalConnections + stats.WebSocket.TotalConnections,
		Events:    stats.SSE.TotalEvents + stats.WebSocket.TotalEvents,
		HeapBytes: stats.Memory.HeapBytes, Goroutines: stats.Memory.Goroutines,
		CPUPercent: float64(int(1000*(cpu-d.cpu).Seconds()/now.Sub(d.at).Seconds())) / 10,
		Timestamp:  timestamp(now),
	}
	d.cpu, d.at = cpu, now
	return m
}

func timestamp(now time.Time) string { return now.UTC().Format(time.RFC3339Nano) }

// processorTime is what the process has used of all processors.
func processorTime() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
