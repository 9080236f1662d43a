package gateway

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"syscall"
	"time"
)

// The channels of the demonstration, one a mode unless namespaces say otherwise. demoChannel is
// where --demo publishes what this process measures of itself; the other two are what example
// workers would write.
const (
	demoChannel  = "system:millrace"
	demoJob      = "job_progress:job_123"
	demoCampaign = "campaign_metrics:camp_456"
)

// demoStep is the time between two events of the demonstration.
const demoStep = 500 * time.Millisecond

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

// jobProgress is one step of the example job: an entry of a log.
type jobProgress struct {
	Type      string  `json:"type"`
	JobID     string  `json:"jobId"`
	Stage     string  `json:"stage"`
	Progress  float64 `json:"progress"`
	Timestamp string  `json:"timestamp"`
}

// campaignMetrics is what the example campaign stands at: a state.
type campaignMetrics struct {
	Type        string  `json:"type"`
	CampaignID  string  `json:"campaignId"`
	Impressions int     `json:"impressions"`
	Clicks      int     `json:"clicks"`
	ClickRate   float64 `json:"clickRate"`
	Timestamp   string  `json:"timestamp"`
}

// demonstration is what the example workers remember.
type demonstration struct {
	cpu      time.Duration // used by the process at the last step
	at       time.Time     // of the last step
	step     int           // of the job
	campaign campaignMetrics
}

// demonstrate runs example workers, so that a page has something live of every mode to show: real
// measurements of this process, a job that runs again and again, and the numbers of a campaign.
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
		g.demoPublish(ctx, demoJob, demo.job(now))
		g.demoPublish(ctx, demoCampaign, demo.metrics(now))
		if stats, err := g.Stats(ctx); err == nil {
			g.demoPublish(ctx, demoChannel, demo.measure(stats, now))
		}
	}
}

func (g *Gateway) demoPublish(ctx context.Context, channel string, value any) {
	data, err := json.Marshal(value)
	if err == nil {
		_, err = g.Publish(ctx, Event{Channel: channel, Data: data})
	}
	if err != nil && ctx.Err() == nil {
		g.reports.warn(g.logger, "the demonstration could not publish", "channel", channel, "error", err)
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

// demoSteps is how many steps a run of the example job has.
const demoSteps = 20

// job is the next step of the example job, which begins anew after its last.
func (d *demonstration) job(now time.Time) jobProgress {
	d.step = d.step%demoSteps + 1
	stages := [...]string{"queued", "reading", "rendering", "writing", "done"}
	return jobProgress{
		Type: "job_progress", JobID: "job_123", Stage: stages[d.step*(len(stages)-1)/demoSteps],
		Progress: float64(d.step) / demoSteps, Timestamp: timestamp(now),
	}
}

// metrics lets people see and click the example campaign.
func (d *demonstration) metrics(now time.Time) campaignMetrics {
	c := &d.campaign
	c.Type, c.CampaignID, c.Timestamp = "campaign_metrics", "camp_456", timestamp(now)
	c.Impressions += 20 + rand.IntN(80)
	c.Clicks += rand.IntN(5)
	c.ClickRate = float64(10_000*c.Clicks/c.Impressions) / 10_000
	return *c
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
