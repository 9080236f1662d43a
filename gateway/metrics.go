package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net/http"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/VictoriaMetrics/metrics"

	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// serveMetrics is GET /metrics in Prometheus's text format. No label holds a channel or a user:
// all label values are from fixed sets.
func (g *Gateway) serveMetrics(w http.ResponseWriter, r *http.Request) {
	s, err := g.take(r.Context())
	if err != nil {
		g.answer(w, r, refuse(refuseOverloaded, "a loop does not answer"))
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	out := bufio.NewWriter(w)
	defer out.Flush()
	g.writeStreamMetrics(out, s)
	g.writeEventMetrics(out, s)
	g.writeLoopMetrics(out, s)
	g.writeRefusalMetrics(out)
	writeHistogram(out, "millrace_delivery_seconds", s.delivery)
	writeHistogram(out, "millrace_publisher_delay_seconds", s.hub.PublisherDelay)
	metrics.WriteProcessMetrics(out)
}

func counter(w io.Writer, name string, value uint64) { metrics.WriteCounterUint64(w, name, value) }

func gauge(w io.Writer, name string, value int) {
	metrics.WriteGaugeUint64(w, name, uint64(max(value, 0)))
}

func (g *Gateway) writeStreamMetrics(w io.Writer, s *snapshot) {
	gauge(w, `millrace_streams{wire="sse"}`, s.sessions.sse)
	gauge(w, `millrace_streams{wire="websocket"}`, s.sessions.websocket)
	gauge(w, "millrace_subscriptions", s.shards.Subscriptions)
	gauge(w, "millrace_channels", s.hub.Channels)
	var ended [256]uint64
	for _, loop := range s.loops {
		for reason, count := range loop.Ended {
			ended[reason] += count
		}
	}
	for reason := range ended {
		name := endName(netio.Reason(reason))
		if netio.Reason(reason) == netio.ReasonNone || name == "own" {
			continue
		}
		counter(w, fmt.Sprintf("millrace_streams_ended_total{reason=%q}", name), ended[reason])
	}
	counter(w, "millrace_commands_total", s.sessions.commands)
	counter(w, "millrace_commands_rate_limited_total", s.sessions.rateLimited)
}

func (g *Gateway) writeEventMetrics(w io.Writer, s *snapshot) {
	counter(w, "millrace_events_total", s.hub.Events)
	for reason := range hub.DropReasonCount {
		counter(w, fmt.Sprintf("millrace_events_dropped_total{reason=%q}", reason), s.hub.Dropped[reason])
	}
	for form := range proto.FormCount {
		counter(w, fmt.Sprintf("millrace_deliveries_total{form=%q}", form), s.shards.Delivered[form])
	}
	counter(w, "millrace_deliveries_skipped_total", s.shards.Skipped)
	for reason := range proto.GapReasonCount {
		counter(w, fmt.Sprintf("millrace_gaps_total{reason=%q}", reason), s.shards.Gaps[reason])
	}
	delivering := 0
	if s.health.Delivering {
		delivering = 1
	}
	gauge(w, "millrace_broker_delivering", delivering)
	gauge(w, "millrace_broker_nodes", s.health.Nodes)
	gauge(w, "millrace_broker_subscriptions", s.broker.Subscribed)
	counter(w, "millrace_broker_events_total", s.broker.Events)
	counter(w, "millrace_broker_published_total", s.broker.Published)
	counter(w, "millrace_broker_publish_errors_total", s.broker.PublishErrors)
	counter(w, "millrace_broker_reconnects_total", s.broker.Reconnects)
	counter(w, "millrace_broker_losses_total", s.broker.Losses)
}

func (g *Gateway) writeLoopMetrics(w io.Writer, s *snapshot) {
	for i, loop := range s.loops {
		label := fmt.Sprintf("{loop=\"%d\"}", i)
		gauge(w, "millrace_loop_streams"+label, loop.Open)
		counter(w, "millrace_loop_turns_total"+label, loop.Turns)
		counter(w, "millrace_loop_writes_total"+label, loop.Writes)
		counter(w, "millrace_loop_short_writes_total"+label, loop.ShortWrites)
		counter(w, "millrace_loop_written_bytes_total"+label, loop.BytesWritten)
		counter(w, "millrace_loop_reads_total"+label, loop.Reads)
		gauge(w, "millrace_loop_queued_bytes"+label, int(loop.OutboxBytes))
		gauge(w, "millrace_loop_slab_bytes"+label, loop.SlabBytes)
	}
}

func (g *Gateway) writeRefusalMetrics(w io.Writer) {
	for code := range g.refused {
		counter(w, fmt.Sprintf("millrace_requests_refused_total{code=%q}", refusals[code].name), g.refused[code].Load())
	}
	counter(w, "millrace_log_lines_dropped_total", g.loopLog.dropped.Load())
	desk := g.desk.Stats()
	counter(w, "millrace_desk_accepted_total", desk.Accepted)
	counter(w, "millrace_desk_requests_total", desk.Requests)
	counter(w, "millrace_desk_parked_total", desk.Parked)
	counter(w, "millrace_desk_abandoned_total", desk.Abandoned)
	gauge(w, "millrace_desk_connections", desk.Connections)
	gauge(w, "millrace_desk_requests_in_flight", desk.InFlight)
	desk.Refusals(func(name string, count uint64) {
		counter(w, fmt.Sprintf("millrace_desk_refused_total{reason=%q}", name), count)
	})
}

// histogramBounds are the upper bounds of buckets, in microseconds.
var histogramBounds = [...]int64{50, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000, 30_000_000}

// writeHistogram writes a histogram of microseconds as one of seconds.
func writeHistogram(w io.Writer, name string, h *hdrhistogram.Histogram) {
	fmt.Fprintf(w, "# TYPE %s histogram\n", name)
	bars := h.Distribution()
	var below int64
	next := 0
	for _, bound := range histogramBounds {
		for next < len(bars) && bars[next].To <= bound {
			below += bars[next].Count
			next++
		}
		fmt.Fprintf(w, "%s_bucket{le=\"%g\"} %d\n", name, float64(bound)/1e6, below)
	}
	fmt.Fprintf(w, "%s_bucket{le=\"+Inf\"} %d\n", name, h.TotalCount())
	fmt.Fprintf(w, "%s_sum %g\n%s_count %d\n", name, h.Mean()*float64(h.TotalCount())/1e6, name, h.TotalCount())
}
