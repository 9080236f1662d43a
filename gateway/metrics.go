package gateway

import (
	"bytes"
	"net/http"
	"strconv"

	"github.com/VictoriaMetrics/metrics"

	"github.com/millrace/millrace/council"
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
	e := newExposition(w)
	e.streams(s)
	e.events(s)
	e.loops(s.loops)
	e.councils(s.councils)
	g.exposeRequests(e)
	e.histogram("millrace_delivery_seconds", s.delivery)
	e.histogram("millrace_publisher_delay_seconds", s.hub.PublisherDelay)
	var process bytes.Buffer
	metrics.WriteProcessMetrics(&process)
	e.foreign(process.Bytes())
	_ = e.out.Flush() // fails only if the client has gone
}

func (e *exposition) streams(s *snapshot) {
	e.gauge("millrace_streams", s.sessions.sse, "wire", "sse")
	e.gauge("millrace_streams", s.sessions.websocket, "wire", "websocket")
	e.gauge("millrace_subscriptions", s.shards.Subscriptions)
	e.gauge("millrace_channels", s.hub.Channels)
	for reason, count := range s.ended() {
		name := endName(netio.Reason(reason))
		if netio.Reason(reason) != netio.ReasonNone && name != "own" {
			e.counter("millrace_streams_ended_total", count, "reason", name)
		}
	}
	e.counter("millrace_commands_total", s.sessions.commands)
	e.counter("millrace_commands_rate_limited_total", s.sessions.rateLimited)
}

// formNames are the wire forms as metrics spell them.
var formNames = [proto.FormCount]string{
	"sse", "sse_plain", "text", "envelope", "sse_without_id", "sse_plain_without_id",
	"sse_gzip", "sse_plain_gzip", "sse_gzip_without_id", "sse_plain_gzip_without_id", "text_deflate", "envelope_deflate",
	"sse_packed", "sse_plain_packed", "sse_packed_without_id", "sse_plain_packed_without_id", "text_packed", "envelope_packed",
}

func (e *exposition) events(s *snapshot) {
	e.counter("millrace_events_total", s.hub.Events)
	for reason := range hub.DropReasonCount {
		e.counter("millrace_events_dropped_total", s.hub.Dropped[reason], "reason", reason.String())
	}
	e.counter("millrace_events_throttled_total", s.hub.Throttled)
	for form, name := range formNames {
		e.counter("millrace_deliveries_total", s.shards.Delivered[form], "form", name)
	}
	e.counter("millrace_deliveries_dropped_total", s.shards.Dropped)
	e.counter("millrace_deliveries_conflated_total", s.shards.Conflated)
	e.counter("millrace_deliveries_caught_up_total", s.shards.CaughtUp)
	e.counter("millrace_deliveries_replayed_total", s.shards.Replayed)
	e.gauge("millrace_streams_behind", s.shards.Behind)
	e.gauge("millrace_replay_events", s.hub.ReplayEvents)
	e.gauge("millrace_replay_bytes", s.hub.ReplayBytes)
	e.counter("millrace_log_reads_total", s.hub.LogReads)
	e.counter("millrace_log_read_errors_total", s.hub.LogReadErrors)
	for reason := range proto.GapReasonCount {
		e.counter("millrace_gaps_total", s.shards.Gaps[reason], "reason", reason.String())
	}
	e.broker(s)
}

func (e *exposition) councils(s council.Stats) {
	e.gauge("millrace_councils", s.Running)
	e.counter("millrace_councils_total", s.Begun)
	for kind := range council.KindCount {
		e.counter("millrace_council_models_total", s.Outcomes[kind], "outcome", kind.String())
	}
}

// broker writes what Redis, or the memory in its place, did.
func (e *exposition) broker(s *snapshot) {
	delivering := 0
	if s.health.Delivering {
		delivering = 1
	}
	e.gauge("millrace_broker_delivering", delivering)
	e.gauge("millrace_broker_nodes", s.health.Nodes)
	e.gauge("millrace_broker_nodes_delivering", s.health.NodesDelivering)
	e.gauge("millrace_broker_canary_microseconds", int(s.broker.CanaryDelay.Microseconds()))
	e.gauge("millrace_broker_subscriptions", s.broker.Subscribed)
	e.counter("millrace_broker_events_total", s.broker.Events)
	e.counter("millrace_broker_published_total", s.broker.Published)
	e.counter("millrace_broker_publish_errors_total", s.broker.PublishErrors)
	e.counter("millrace_broker_reconnects_total", s.broker.Reconnects)
	e.counter("millrace_broker_losses_total", s.broker.Losses)
	e.counter("millrace_broker_reads_total", s.broker.Reads)
	e.counter("millrace_broker_invalidations_total", s.broker.Invalidations)
	e.counter("millrace_broker_sweep_found_total", s.broker.SweepFound)
	e.counter("millrace_broker_holes_total", s.broker.Holes)
	e.counter("millrace_broker_wrong_types_total", s.broker.WrongTypes)
	e.counter("millrace_broker_values_too_large_total", s.broker.TooLarge)
	e.gauge("millrace_broker_tracked_keys", s.broker.Tracked)
	e.gauge("millrace_broker_horizon_milliseconds", int(s.broker.Horizon))
	e.gauge("millrace_broker_horizon_age_milliseconds", int(s.broker.HorizonAge.Milliseconds()))
}

func (e *exposition) loops(loops []netio.Stats) {
	for _, family := range []struct {
		name  string
		gauge bool
		value func(netio.Stats) uint64
	}{
		{"millrace_loop_streams", true, func(s netio.Stats) uint64 { return uint64(s.Open) }},
		{"millrace_loop_turns_total", false, func(s netio.Stats) uint64 { return s.Turns }},
		{"millrace_loop_writes_total", false, func(s netio.Stats) uint64 { return s.Writes }},
		{"millrace_loop_short_writes_total", false, func(s netio.Stats) uint64 { return s.ShortWrites }},
		{"millrace_loop_written_bytes_total", false, func(s netio.Stats) uint64 { return s.BytesWritten }},
		{"millrace_loop_reads_total", false, func(s netio.Stats) uint64 { return s.Reads }},
		{"millrace_loop_queued_bytes", true, func(s netio.Stats) uint64 { return uint64(max(s.OutboxBytes, 0)) }},
		{"millrace_loop_lag_microseconds", true, func(s netio.Stats) uint64 { return uint64(max(s.Lag.Microseconds(), 0)) }},
		{"millrace_loop_slab_bytes", true, func(s netio.Stats) uint64 { return uint64(s.SlabBytes) }},
	} {
		for index, loop := range loops {
			if family.gauge {
				e.gauge(family.name, int(family.value(loop)), "loop", strconv.Itoa(index))
			} else {
				e.counter(family.name, family.value(loop), "loop", strconv.Itoa(index))
			}
		}
	}
}

// exposeRequests writes what was asked and refused, by the gateway and by its desk.
func (g *Gateway) exposeRequests(e *exposition) {
	for code := range g.refused {
		e.counter("millrace_requests_refused_total", g.refused[code].Load(), "code", refusals[code].name)
	}
	for outcome, name := range orderOutcomes {
		e.counter("millrace_orders_total", g.orders.counts[outcome].Load(), "outcome", name)
	}
	linesDropped := g.loopLog.dropped.Load()
	if g.options.LogLinesDropped != nil {
		linesDropped += g.options.LogLinesDropped()
	}
	e.counter("millrace_log_lines_dropped_total", linesDropped)
	desk := g.desk.Stats()
	e.counter("millrace_desk_accepted_total", desk.Accepted)
	e.counter("millrace_desk_requests_total", desk.Requests)
	e.counter("millrace_desk_parked_total", desk.Parked)
	e.counter("millrace_desk_abandoned_total", desk.Abandoned)
	e.gauge("millrace_desk_connections", desk.Connections)
	e.gauge("millrace_desk_requests_in_flight", desk.InFlight)
	desk.Refusals(func(name string, count uint64) {
		e.counter("millrace_desk_refused_total", count, "reason", name)
	})
}
