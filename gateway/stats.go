package gateway

import (
	"context"
	"errors"
	"net/http"
	"os"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/council"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// WireStats counts what one wire carries.
type WireStats struct {
	TotalConnections int    `json:"totalConnections"` // streams now
	TotalEvents      uint64 `json:"totalEvents"`      // events sent since the start
}

// ChannelStats counts channels.
type ChannelStats struct {
	IsConnected        bool `json:"isConnected"` // the broker delivers
	ActiveChannels     int  `json:"activeChannels"`
	TotalSubscriptions int  `json:"totalSubscriptions"`
}

// BrokerStats says how the broker does.
type BrokerStats struct {
	Kind            string `json:"kind"` // "redis" or "memory"
	Delivering      bool   `json:"delivering"`
	Reason          string `json:"reason,omitempty"` // why not
	Nodes           int    `json:"nodes"`            // that should deliver
	NodesDelivering int    `json:"nodesDelivering"`  // that do
	Events          uint64 `json:"events"`
	Published       uint64 `json:"published"`
	PublishErrors   uint64 `json:"publishErrors"`
	Reconnects      uint64 `json:"reconnects"`
	Losses          uint64 `json:"losses"`

	// Of logs and states.
	Reads         uint64 `json:"reads"`         // of keys
	Invalidations uint64 `json:"invalidations"` // changes that Redis told of
	SweepFound    uint64 `json:"sweepFound"`    // changes that Redis did not tell of; should be 0
	Holes         uint64 `json:"holes"`         // times that a log may have lost entries
	WrongTypes    uint64 `json:"wrongTypes"`    // reads that found a key of another type
	Tracked       int    `json:"tracked"`       // keys whose changes Redis now tells
	Horizon       uint64 `json:"horizon"`       // Redis time in ms up to which every log was read; 0: not known
	HorizonAgeMs  int64  `json:"horizonAgeMs"`  // since it last rose; should be a second or two. 0: not known

	// CanaryMs is the way of an event from here through Redis and back, as the last proof of
	// delivery took, of the slowest node; 0: memory, or none came back yet.
	CanaryMs float64 `json:"canaryMs"`
}

// LoopStats says what one loop did.
type LoopStats struct {
	Streams      int    `json:"streams"`
	Turns        uint64 `json:"turns"`
	Writes       uint64 `json:"writes"`
	ShortWrites  uint64 `json:"shortWrites"`
	BytesWritten uint64 `json:"bytesWritten"`
	QueuedBytes  int64  `json:"queuedBytes"`
	IOURing      bool   `json:"ioUring"` // many sockets are written to by one system call
	// LagMs is how long the loop took to come to this very question.
	LagMs float64 `json:"lagMs"`
}

// EventStats counts what was published for this gateway's channels.
type EventStats struct {
	Received uint64 `json:"received"` // and handed to whoever listens
	// Dropped counts what is for nobody, by reason: what is wrong with it.
	Dropped map[string]uint64 `json:"dropped"`
}

// DeliveryStats says how deliveries go. Times are from the broker's socket to the client's. What
// becomes of an event for a client that is too slow is one of dropped, conflated and caughtUp.
type DeliveryStats struct {
	P50Ms      float64 `json:"p50Ms"`
	P99Ms      float64 `json:"p99Ms"`
	Deliveries uint64  `json:"deliveries"`
	// Recent is what P50Ms, P99Ms and Deliveries are since the start, for the last seconds.
	Recent       RecentDelivery    `json:"recent"`
	Gaps         uint64            `json:"gaps"` // told to clients
	GapsByReason map[string]uint64 `json:"gapsByReason"`
	Dropped      uint64            `json:"dropped"`   // events that a slow client does not get; a gap tells it so
	Conflated    uint64            `json:"conflated"` // events and values that a newer one replaced for a slow client
	CaughtUp     uint64            `json:"caughtUp"`  // entries read again from a log, for one that was slow or came back
	Replayed     uint64            `json:"replayed"`  // events from memory, for one that came back
	Throttled    uint64            `json:"throttled"` // events that a newer one of their channel replaced for everybody
	Behind       int               `json:"behind"`    // streams that are behind on a channel now
	// Closed counts streams that were ended because their client did not read.
	Closed uint64 `json:"closed"`
}

// RecentDelivery says how deliveries went in the last 5 to 10 s, or, where nobody has asked for that
// long, since somebody did.
type RecentDelivery struct {
	Seconds    float64 `json:"seconds"` // what it is about
	Deliveries uint64  `json:"deliveries"`
	P50Ms      float64 `json:"p50Ms"` // 0: no deliveries
	P99Ms      float64 `json:"p99Ms"`
}

// ReplayStats says what is kept in memory for clients that come back.
type ReplayStats struct {
	Events int `json:"events"`
	Bytes  int `json:"bytes"`
}

// CouncilStats counts the councils of this gateway.
type CouncilStats struct {
	Running int    `json:"running"`
	Begun   uint64 `json:"begun"`
	Demo    bool   `json:"demo"` // no provider is configured: the built-in rubrics judge
	// Models counts how models ended, by reason; "scored" is what they are asked for.
	Models map[string]uint64 `json:"models"`
}

// MemoryStats is what the Go runtime says.
type MemoryStats struct {
	HeapBytes  uint64 `json:"heapBytes"`
	SysBytes   uint64 `json:"sysBytes"`
	Goroutines int    `json:"goroutines"`
	// ResidentBytes is what the kernel says that the process holds of memory; 0: it does not say.
	ResidentBytes uint64 `json:"residentBytes"`
}

// Stats is the answer of GET /api/realtime/stats.
type Stats struct {
	Status        string        `json:"status"` // healthy, degraded or draining
	UptimeSeconds int64         `json:"uptimeSeconds"`
	SSE           WireStats     `json:"sse"`
	WebSocket     WireStats     `json:"websocket"`
	Channels      ChannelStats  `json:"channels"`
	Broker        BrokerStats   `json:"broker"`
	Loops         []LoopStats   `json:"loops"`
	Events        EventStats    `json:"events"`
	Delivery      DeliveryStats `json:"delivery"`
	Replay        ReplayStats   `json:"replay"`
	Council       CouncilStats  `json:"council"`
	Memory        MemoryStats   `json:"memory"`
	// Ended counts streams that have ended, by reason; those reasons that were none are left out.
	Ended map[string]uint64 `json:"ended"`
}

// snapshot is everything that is counted anywhere, at about one moment.
type snapshot struct {
	loops    []netio.Stats
	delivery *hdrhistogram.Histogram // microseconds, all loops
	shards   hub.Counters            // all shards
	sessions sessionCounters         // all loops
	hub      hub.Stats
	broker   broker.Stats
	councils council.Stats
	health   broker.Health
	memory   MemoryStats
}

// take asks everybody. It fails if a loop does not answer.
func (g *Gateway) take(ctx context.Context) (*snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	s := &snapshot{hub: g.hub.Stats(), broker: g.broker.Stats(), councils: g.councils.all.Stats(), health: g.brokerHealth()}
	s.delivery = hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 2)
	for i, loop := range g.loops {
		stats, err := loop.Stats(ctx)
		if err != nil {
			return nil, err
		}
		var shard hub.Counters
		var here sessionCounters
		if err := loop.Do(ctx, func() {
			shard, here = g.hub.Shard(i).Counters(), g.sessions[i].counters
		}); err != nil {
			return nil, err
		}
		s.loops = append(s.loops, stats)
		s.delivery.Merge(stats.Delivery)
		s.shards.Add(shard)
		s.sessions.add(here)
	}
	s.memory = readMemory()
	return s, nil
}

// readMemory asks the runtime without stopping the world.
func readMemory() MemoryStats {
	samples := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/sched/goroutines:goroutines"},
	}
	metrics.Read(samples)
	return MemoryStats{
		HeapBytes: samples[0].Value.Uint64(), SysBytes: samples[1].Value.Uint64(),
		Goroutines: int(samples[2].Value.Uint64()), ResidentBytes: residentBytes(),
	}
}

// residentBytes is the second number of /proc/self/statm (proc(5)), which is in pages.
func residentBytes() uint64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize())
}

func (c *sessionCounters) add(other sessionCounters) {
	c.sse += other.sse
	c.websocket += other.websocket
	c.commands += other.commands
	c.rateLimited += other.rateLimited
}

// Stats gives the statistics of this gateway. It fails if a loop does not answer within 2 s, and
// with [ErrClosed] if the gateway has ended.
func (g *Gateway) Stats(ctx context.Context) (Stats, error) {
	s, err := g.take(ctx)
	if errors.Is(err, netio.ErrLoopClosed) {
		err = ErrClosed
	}
	if err != nil {
		return Stats{}, err
	}
	stats := Stats{
		Status:        "healthy",
		UptimeSeconds: int64(time.Since(g.started).Seconds()),
		SSE:           WireStats{TotalConnections: s.sessions.sse},
		WebSocket:     WireStats{TotalConnections: s.sessions.websocket},
		Channels: ChannelStats{
			IsConnected: s.health.Delivering, ActiveChannels: s.hub.Channels, TotalSubscriptions: s.shards.Subscriptions,
		},
		Broker:   s.brokerStats(g.brokerName()),
		Delivery: s.deliveryStats(),
		Replay:   ReplayStats{Events: s.hub.ReplayEvents, Bytes: s.hub.ReplayBytes},
		Council:  councilStats(s.councils),
		Memory:   s.memory,
		Events:   s.eventStats(),
		Ended:    make(map[string]uint64),
	}
	stats.Delivery.Recent = g.window.recent(s.delivery, time.Now())
	for reason, count := range s.ended() {
		if count > 0 {
			stats.Ended[endName(netio.Reason(reason))] = count
		}
	}
	for form, delivered := range s.shards.Delivered {
		if proto.Form(form).IsSSE() {
			stats.SSE.TotalEvents += delivered
		} else {
			stats.WebSocket.TotalEvents += delivered
		}
	}
	for _, loop := range s.loops {
		stats.Loops = append(stats.Loops, LoopStats{
			Streams: loop.Open, Turns: loop.Turns, Writes: loop.Writes, ShortWrites: loop.ShortWrites,
			BytesWritten: loop.BytesWritten, QueuedBytes: loop.OutboxBytes, IOURing: loop.Ring, LagMs: milliseconds(loop.Lag),
		})
	}
	switch {
	case g.draining.Load():
		stats.Status = "draining"
	case !s.health.Delivering:
		stats.Status = "degraded"
	}
	return stats, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// councilStats names what was counted; what never happened is left out.
func councilStats(s council.Stats) CouncilStats {
	stats := CouncilStats{Running: s.Running, Begun: s.Begun, Demo: s.Demo, Models: make(map[string]uint64)}
	for kind, count := range s.Outcomes {
		if count > 0 {
			stats.Models[council.Kind(kind).String()] = count
		}
	}
	return stats
}

func (s *snapshot) brokerStats(kind string) BrokerStats {
	return BrokerStats{
		Kind: kind, Delivering: s.health.Delivering, Reason: s.health.Reason, Nodes: s.health.Nodes, NodesDelivering: s.health.NodesDelivering,
		Events: s.broker.Events, Published: s.broker.Published, PublishErrors: s.broker.PublishErrors,
		Reconnects: s.broker.Reconnects, Losses: s.broker.Losses,
		Reads: s.broker.Reads, Invalidations: s.broker.Invalidations, SweepFound: s.broker.SweepFound,
		Holes: s.broker.Holes, WrongTypes: s.broker.WrongTypes, Tracked: s.broker.Tracked, Horizon: s.broker.Horizon,
		HorizonAgeMs: s.broker.HorizonAge.Milliseconds(), CanaryMs: milliseconds(s.broker.CanaryDelay),
	}
}

func (s *snapshot) eventStats() EventStats {
	stats := EventStats{Received: s.hub.Events, Dropped: make(map[string]uint64, hub.DropReasonCount)}
	for reason := range hub.DropReasonCount {
		stats.Dropped[reason.String()] = s.hub.Dropped[reason]
	}
	return stats
}

// ended counts by [netio.Reason] the streams that have ended, on all loops.
func (s *snapshot) ended() (ended [256]uint64) {
	for _, loop := range s.loops {
		for reason, count := range loop.Ended {
			ended[reason] += count
		}
	}
	return ended
}

func (s *snapshot) deliveryStats() DeliveryStats {
	stats := DeliveryStats{
		P50Ms:      float64(s.delivery.ValueAtQuantile(50)) / 1000,
		P99Ms:      float64(s.delivery.ValueAtQuantile(99)) / 1000,
		Deliveries: uint64(s.delivery.TotalCount()),
		Dropped:    s.shards.Dropped, Conflated: s.shards.Conflated, CaughtUp: s.shards.CaughtUp,
		Replayed: s.shards.Replayed, Throttled: s.hub.Throttled, Behind: s.shards.Behind,
		GapsByReason: make(map[string]uint64, proto.GapReasonCount),
	}
	for reason, gaps := range s.shards.Gaps {
		stats.Gaps += gaps
		stats.GapsByReason[proto.GapReason(reason).String()] = gaps
	}
	for _, loop := range s.loops {
		stats.Closed += loop.Ended[endSlow] + loop.Ended[netio.ReasonStalled]
	}
	return stats
}

// serveStats is GET /api/realtime/stats: for whoever may use the gateway at all, since it names
// nobody and no channel.
func (g *Gateway) serveStats(w http.ResponseWriter, r *http.Request) {
	if !isAdminListener(r) {
		who, _, err := g.identify(r, false)
		if err == nil && g.verifier != nil && who.Anonymous && g.mayAdminister(r) != nil {
			err = refuse(refuseUnauthorized, "the statistics need a token")
		}
		if err != nil {
			g.answer(w, r, refusalOf(err))
			return
		}
	}
	stats, err := g.Stats(r.Context())
	if err != nil {
		g.answer(w, r, refuse(refuseOverloaded, "a loop does not answer"))
		return
	}
	answerJSON(w, http.StatusOK, stats)
}
