package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	connectLimit = 3 * time.Minute // for a whole crowd to become live
	// deliveryGrace is how long nothing must come before what is missing is called lost. Some
	// servers are seconds behind after a burst.
	deliveryGrace = 3 * time.Second
	// calmTimeMax is from the last handshake to the first measurement of CPU time, where loads
	// are not shorter.
	calmTimeMax = 500 * time.Millisecond
	calmTimeMin = 200 * time.Millisecond
)

// scenario is one question that is asked of every subject.
type scenario struct {
	name  string
	about string
	// suits says whether a subject can be asked at all; nil: every one can.
	suits func(subject) bool
	// usual says whether a subject is asked where nobody named the scenario; nil: every one is.
	usual func(subject) bool
	// quick says that it belongs to a look, too.
	quick bool
	// over is the one wire, or bothWires together, over which it is asked; empty: each in turn.
	over Wire
	// lacks says what a subject lacks that it does not suit.
	lacks string
	// once says that one round is enough, since it takes long.
	once bool
	// onceQuick says so of a look.
	onceQuick bool
	parts     []part
}

// part is a piece of a scenario: it is measured, and fails, as one.
type part struct {
	name string // empty where the scenario has only one
	on   ground
	// suits says whether a subject can be asked at all; nil: every one can.
	suits func(subject) bool
	// seconds says about how long it takes, all that it starts and ends included.
	seconds func(*Settings) float64
	run     func(ctx context.Context, c *cell) error
	// together, in place of run, measures all subjects and wires at the same time. It gives the
	// error of each cell, in order.
	together func(ctx context.Context, cells []*cell) []error
}

// ground is what must be there before a part begins. Within a round, the parts on one ground are
// asked one after the other of the same process and its crowd.
type ground int

const (
	groundBare   ground = iota // nothing: the part starts what it needs, and nobody else uses that
	groundShared               // the subject, and a crowd on one channel
	groundOwn                  // the subject, and a crowd of which each stream has its own channel
	groundModes                // as groundShared, of a subject that has namespaces of states and logs
)

// scenarios gives all scenarios in the order of tables, and of questions on one ground: what asks
// more of the subject comes later.
func scenarios() []scenario {
	return []scenario{
		{name: "idle", quick: true, onceQuick: true, parts: idleParts(), about: "memory of idle streams: the slope between two crowd sizes, all on one channel and each on its own"},
		{
			name: "connect", quick: true, about: "handshakes, as fast as the server takes them, with and without an HS256 token where the subject takes one",
			parts: []part{
				{name: "no token", on: groundShared, run: runConnect, seconds: connectSeconds},
				{name: "token", run: runConnectTokens, suits: takesTokens, seconds: func(s *Settings) float64 {
					return connectSeconds(s) + standSeconds(s)
				}},
			},
		},
		{name: "fanout", quick: true, parts: onGround(groundShared, runFanout, fanoutSeconds), about: "one channel with all streams: messages at a steady rate, and bursts back to back"},
		{name: "unicast", quick: true, parts: onGround(groundOwn, runUnicast, unicastSeconds), about: "as many channels as streams, one stream each: messages at a steady rate to each in turn"},
		{name: "stalled", usual: isOurs, suits: takesSeveral, lacks: "no known way to subscribe a stream to two channels", parts: onGround(groundShared, runStalled, stalledSeconds), about: "one channel with all streams at 100 messages a second, alone and beside one client that reads nothing, in turn: latency of all others, and memory that it costs"},
		{name: "mixed", parts: onGround(groundShared, runMixed, mixedSeconds), about: "latency of messages to single streams, alone and while each message of another channel goes to all others"},
		{name: "storm", parts: onGround(groundShared, runStorm, stormSeconds), about: "all streams of a crowd reconnect at once: time until all are back, and what messages to streams beside them suffer"},
		{name: "restart", usual: isOurs, suits: isOurs, once: true, over: WebSocket, lacks: "no drain and no limit of new connections that is known here", parts: onGround(groundBare, runRestart, restartSeconds), about: "a rolling restart of three gateways, drained one after the other, with a limit of new connections that is below what comes back: time until all are back, and what messages to streams on the third suffer while the others are restarted"},
		{name: "independence", usual: isOurs, parts: onGround(groundBare, runIndependence, independenceSeconds), about: "CPU time of an event for ten streams, with 1,000 and with 18,000 others connected, in turn"},
		{name: "gateways", suits: isRedisFed, usual: isMain, parts: onGround(groundBare, runGateways, gatewaysSeconds), about: "one Redis that feeds one gateway, and ten: its CPU time for an event"},
		{name: "state", suits: keepsModes, lacks: lacksModes, parts: onGround(groundModes, runState, keyedSeconds), about: "latency from a SET on Redis to the client's socket, a value a stream, beside as many idle streams as a crowd has; no other server here reads values that workers set"},
		{name: "log", suits: keepsModes, lacks: lacksModes, parts: onGround(groundModes, runLog, keyedSeconds), about: "latency from an XADD on Redis to the client's socket, a log a stream, beside as many idle streams as a crowd has; no other server here reads logs that workers write"},
		{name: "tracked", suits: keepsModes, lacks: lacksModes, once: true, over: WebSocket, parts: onGround(groundBare, runTracked, trackedSeconds), about: "one Redis that tells one gateway, and ten, what becomes of 10,000 values that each of them hears: its CPU time for a change, and its memory for a key and gateway"},
		{name: "keepalive", suits: keepsAlive, usual: isMain, once: true, parts: []part{{together: runKeepalive, seconds: keepaliveSeconds}}, about: "CPU time of idle streams with the server's own keep-alives, all servers at the same time"},
		{name: "sse-gzip", once: true, suits: isOurs, usual: isOurs, over: SSE, parts: compressParts(gzipCases, gzipHeader), about: "event streams as gzip beside plain ones: bytes and CPU time of a message, by size, channels and batches"},
		{name: "ws-deflate", once: true, suits: deflates, over: WebSocket, parts: compressParts(deflateCases, deflateHeader), about: "WebSockets with permessage-deflate beside plain ones: the same"},
		{name: "million", suits: sharesPort, once: true, over: bothWires, parts: onGround(groundBare, runMillion, millionSeconds), about: "a fleet of processes on one port holds a million streams, half over each wire: memory, connecting, rest, and one event for all"},
	}
}

// onGround is the parts of a scenario that has only one.
func onGround(on ground, run func(context.Context, *cell) error, seconds func(*Settings) float64) []part {
	return []part{{on: on, run: run, seconds: seconds}}
}

// ScenarioNames lists all scenarios.
func ScenarioNames() []string {
	var names []string
	for _, one := range scenarios() {
		names = append(names, one.name)
	}
	return names
}

// pickScenarios gives the scenarios of the given names; without names, those of the size.
func pickScenarios(names []string, full bool) ([]scenario, error) {
	var picked []scenario
	for _, one := range scenarios() {
		if slices.Contains(names, one.name) || len(names) == 0 && (full || one.quick) {
			picked = append(picked, one)
		}
	}
	for _, name := range names {
		if !slices.Contains(ScenarioNames(), name) {
			return nil, errOption("there is no scenario %q: expected some of %s", name, strings.Join(ScenarioNames(), ", "))
		}
	}
	return picked, nil
}

// cell is one measurement that is being made, and what it gave so far. What it starts belongs to
// its stand, which ends it.
type cell struct {
	Cell
	subject  subject
	ground   ground
	settings *Settings
	*stand
	samples []Sample
	say     func(string) // to whoever watches
}

// stand is what cells on one ground share.
type stand struct {
	site   *site
	crowd  *load // on the ground's channels; nil until it is connected
	beside *load // single streams on channels of their own, beside a crowd; nil until connected
}

// add keeps what was measured.
func (c *cell) add(name string, metrics ...map[string]float64) {
	all := make(map[string]float64)
	for _, some := range metrics {
		maps.Copy(all, some)
	}
	c.samples = append(c.samples, Sample{
		Scenario: c.Scenario, Part: c.Part, Case: name, Subject: c.Subject, Wire: c.Wire, Round: c.Round, Metrics: all,
	})
}

// start starts the subject.
func (c *cell) start(ctx context.Context, o startOptions) (*server, error) {
	return c.subject.start(ctx, c.site, o)
}

// calm waits until the server has got over what was just asked of it. Some say that a stream is
// subscribed a moment before it is so.
func (c *cell) calm(ctx context.Context) {
	pause(ctx, min(calmTimeMax, max(calmTimeMin, secondsOf(c.settings.Paced)/2)))
}

func secondsOf(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// load is one crowd, one publisher and what is sent while the server is watched.
type load struct {
	server    *server
	crowd     *crowdClient
	publisher *publisher
	// receivers is how many streams each message reaches.
	receivers int
}

// newLoad opens a publisher for a server whose crowd is live.
func (c *cell) newLoad(to *server, crowd *crowdClient, receivers int) (*load, error) {
	f, err := c.site.feed(to)
	if err != nil {
		return nil, err
	}
	p, err := newPublisher(f, to.channel, c.settings.MessageBytes)
	if err != nil {
		return nil, err
	}
	return &load{server: to, crowd: crowd, publisher: p, receivers: receivers}, nil
}

// measured is what a load cost and how it arrived.
type measured struct {
	cpu      int64 // nanoseconds of the server
	sent     int   // messages
	expected uint64
	reply    crowdReply
}

// paced sends a steady load and waits until all of it has arrived or does no more.
func (l *load) paced(ctx context.Context, p pace) (*measured, error) {
	if err := l.crowd.reset(); err != nil {
		return nil, err
	}
	l.publisher.late.Reset()
	before, err := cpuTime(l.server.pids())
	if err != nil {
		return nil, err
	}
	sent, err := l.publisher.paced(ctx, p)
	if err != nil {
		return nil, err
	}
	return l.finish(ctx, before, sent)
}

// finish waits for the last deliveries of what was sent.
func (l *load) finish(ctx context.Context, cpuBefore int64, sent int) (*measured, error) {
	m := &measured{sent: sent, expected: uint64(sent) * uint64(l.receivers)}
	if _, err := l.crowd.delivered(ctx, m.expected, deliveryGrace); err != nil {
		return nil, err
	}
	after, err := cpuTime(l.server.pids())
	if err != nil {
		return nil, err
	}
	m.cpu = after - cpuBefore
	if m.reply, err = l.crowd.report(); err != nil {
		return nil, err
	}
	if m.reply.Dropped > 0 {
		return nil, fmt.Errorf("the server ended %d streams under load: %s", m.reply.Dropped, m.reply.Failure)
	}
	if m.reply.Deliveries == 0 {
		return nil, errors.New("not one message arrived")
	}
	return m, nil
}

// add counts another load in.
func (m *measured) add(other *measured) {
	m.cpu += other.cpu
	m.sent += other.sent
	m.expected += other.expected
	m.reply.Deliveries += other.reply.Deliveries
	m.reply.Lost += other.reply.Lost
	m.reply.Repeated += other.reply.Repeated
}

// counts gives the metrics of what arrived.
func (m *measured) counts() map[string]float64 {
	return map[string]float64{
		metricExpected: float64(m.expected), metricDeliveries: float64(m.reply.Deliveries),
		metricLost: float64(m.reply.Lost), metricRepeated: float64(m.reply.Repeated),
		metricCPUSeconds:    seconds(m.cpu),
		metricCPUPerMillion: seconds(m.cpu) / float64(m.reply.Deliveries) * 1e6,
	}
}

// latencies gives the metrics of how long it took.
func (m *measured) latencies() (map[string]float64, error) {
	h, err := m.reply.latency()
	if err != nil {
		return nil, err
	}
	return histogramMetrics(h), nil
}

func histogramMetrics(h *hdrhistogram.Histogram) map[string]float64 {
	micros := func(quantile float64) float64 { return float64(h.ValueAtQuantile(quantile)) / 1e3 }
	return map[string]float64{
		metricP50: micros(50), metricP99: micros(99), metricP999: micros(99.9), metricMax: float64(h.Max()) / 1e3,
	}
}

// lateness gives the metric of how late the publisher itself was, which is part of every latency.
func (p *publisher) lateness() map[string]float64 {
	return map[string]float64{metricLateP99: float64(p.late.ValueAtQuantile(99)) / 1e3}
}
