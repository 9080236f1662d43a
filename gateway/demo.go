package gateway

import (
	"context"
	"encoding/json"
	"syscall"
	"time"
)

// demoChannel is where --demo publishes what this process measures of itself.
const demoChannel = "system:millrace"

// measurement is one event of the demonstration.
type measurement struct {
	Type       string  `json:"type"`
	Streams    int     `json:"streams"`
	Events     uint64  `json:"events"`
	HeapBytes  uint64  `json:"heapBytes"`
	Goroutines int     `json:"goroutines"`
	CPUPercent float64 `json:"cpuPercent"`
	Timestamp  string  `json:"timestamp"`
}

// demonstrate publishes real numbers twice a second, so that a page has something live to show.
func (g *Gateway) demonstrate(ctx context.Context) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	lastCPU, lastTime := processorTime(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		stats, err := g.Stats(ctx)
		if err != nil {
			continue
		}
		cpu, now := processorTime(), time.Now()
		data, err := json.Marshal(measurement{
			Type: "measurement", Streams: stats.SSE.TotalConnections + stats.WebSocket.TotalConnections,
			Events:    stats.SSE.TotalEvents + stats.WebSocket.TotalEvents,
			HeapBytes: stats.Memory.HeapBytes, Goroutines: stats.Memory.Goroutines,
			CPUPercent: float64(int(1000*(cpu-lastCPU).Seconds()/now.Sub(lastTime).Seconds())) / 10,
			Timestamp:  now.UTC().Format(time.RFC3339Nano),
		})
		lastCPU, lastTime = cpu, now
		if err == nil {
			_, err = g.Publish(ctx, Event{Channel: demoChannel, Data: data})
		}
		if err != nil && ctx.Err() == nil {
			g.reports.warn(g.logger, "the demonstration could not publish", "error", err)
		}
	}
}

// processorTime is what the process has used of all processors.
func processorTime() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
