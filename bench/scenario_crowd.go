package bench

import (
	"context"
	"fmt"
	"time"
)

const (
	// On the clients' cores, whose latency is measured comes before whoever is only there to be in
	// the server's way. Only root may set the first.
	nicenessMeasured = -10
	nicenessLoad     = 10

	besideChannels  = 1_000 // streams with a channel of their own beside a larger crowd, at most
	besidePerSecond = 500.0 // messages to them
	mixedAlone      = 4.0   // the part of the time in which they are alone is one of so many

	independenceReceivers = 10
	independenceFew       = 1_000
	independencePerSecond = 2_000.0
	independenceSlice     = 0.5 // seconds of load, before it is the other's turn

	fleetGateways  = 10
	fleetStreams   = 10 // of each
	fleetPerSecond = 1_000.0
)

func keepaliveSeconds(s *Settings) float64 { return 12 + s.Keepalive }

// runKeepalive watches what idle streams cost as time goes by. All servers are watched at the same
// time: they are almost idle, and each one's CPU time is its own.
func runKeepalive(ctx context.Context, cells []*cell) []error {
	errs := make([]error, len(cells))
	before := make([]int64, len(cells))
	for i, c := range cells {
		before[i], errs[i] = c.rest(ctx)
	}
	pause(ctx, secondsOf(cells[0].settings.Keepalive))
	for i, c := range cells {
		if errs[i] == nil {
			errs[i] = c.rested(before[i])
		}
	}
	return errs
}

// rest connects a crowd and gives the CPU time that the server has taken by then.
func (c *cell) rest(ctx context.Context) (int64, error) {
	l, err := c.crowded(ctx)
	if err != nil {
		return 0, err
	}
	if err := l.crowd.reset(); err != nil {
		return 0, err
	}
	return cpuTime(l.server.pids())
}

// rested keeps what the server has taken since.
func (c *cell) rested(before int64) error {
	after, err := cpuTime(c.crowd.server.pids())
	if err != nil {
		return err
	}
	reply, err := c.crowd.crowd.report()
	if err != nil {
		return err
	}
	if reply.Live != c.settings.Streams {
		return fmt.Errorf("%d of %d streams lived to the end: %s", reply.Live, c.settings.Streams, orNone(reply.Failure))
	}
	scale := float64(streamsDefault) / float64(c.settings.Streams) * 60 / c.settings.Keepalive
	c.add("idle", map[string]float64{
		metricCPUSeconds: seconds(after-before) * scale,
		metricStreams:    float64(c.settings.Streams),
		metricPings:      float64(reply.Pings),
	})
	return nil
}

func mixedSeconds(s *Settings) float64 { return s.Paced + 1.5 }

// runMixed measures how long messages to single streams take, alone and while each message of
// another channel goes to a whole crowd.
func runMixed(ctx context.Context, c *cell) error {
	l, err := c.crowded(ctx)
	if err != nil {
		return err
	}
	single, err := c.singleCrowd(ctx, l)
	if err != nil {
		return err
	}
	m, err := single.paced(ctx, c.singles(c.settings.Paced/mixedAlone))
	if err != nil {
		return fmt.Errorf("alone: %w", err)
	}
	if err := c.addLatency("alone", m, single); err != nil {
		return err
	}
	fanout := make(chan error, 1)
	go func() {
		_, err := l.paced(ctx, c.fanoutFor(c.settings.Paced*(1-1/mixedAlone)))
		fanout <- err
	}()
	m, err = single.paced(ctx, c.singles(c.settings.Paced*(1-1/mixedAlone)))
	if failure := <-fanout; failure != nil {
		return fmt.Errorf("the fan-out: %w", failure)
	}
	if err != nil {
		return fmt.Errorf("beside a fan-out: %w", err)
	}
	return c.addLatency("beside a fan-out", m, single)
}

// singles is the load of the streams beside a crowd.
func (c *cell) singles(duration float64) pace {
	return pace{first: 1, channels: c.besideStreams(), perSecond: besidePerSecond, count: int(duration * besidePerSecond)}
}

func (c *cell) besideStreams() int { return max(1, min(besideChannels, c.settings.Streams/10)) }

// singleCrowd gives the second crowd of the stand, each stream on a channel of its own, whose
// latency is of interest, not any more that of the first. It connects it where no cell before this
// one did.
func (c *cell) singleCrowd(ctx context.Context, first *load) (*load, error) {
	if c.beside != nil {
		return c.beside, nil
	}
	first.crowd.child.prioritize(nicenessLoad)
	crowd, err := c.connect(ctx, first.server, c.besideStreams(), 1, true)
	if err != nil {
		return nil, err
	}
	crowd.child.prioritize(nicenessMeasured)
	c.calm(ctx)
	c.beside, err = c.newLoad(first.server, crowd, 1)
	return c.beside, err
}

// addLatency keeps a load of which the latency matters and the server's CPU time does not.
func (c *cell) addLatency(name string, m *measured, l *load, more ...map[string]float64) error {
	latencies, err := m.latencies()
	if err != nil {
		return err
	}
	counts := m.counts()
	delete(counts, metricCPUPerMillion)
	c.add(name, append(more, counts, latencies, l.publisher.lateness())...)
	return nil
}

func stormSeconds(s *Settings) float64 { return 0.5 + 2*float64(s.Streams)/streamsDefault }

// runStorm lets a whole crowd reconnect at once beside streams that stay and are spoken to.
func runStorm(ctx context.Context, c *cell) error {
	l, err := c.crowded(ctx)
	if err != nil {
		return err
	}
	single, err := c.singleCrowd(ctx, l)
	if err != nil {
		return err
	}
	var back crowdReply
	var failure error
	over := make(chan struct{})
	go func() {
		defer close(over)
		back, failure = reconnect(ctx, l.crowd)
	}()
	during := c.singles(connectLimit.Seconds())
	during.stop = over
	m, err := single.paced(ctx, during)
	<-over
	if failure != nil {
		return fmt.Errorf("the storm: %w", failure)
	}
	if err != nil {
		return fmt.Errorf("during the storm: %w", err)
	}
	return c.addLatency("during", m, single, map[string]float64{
		metricSeconds: seconds(back.LiveNanos - back.DialNanos),
		metricStreams: float64(c.settings.Streams),
	})
}

// stormLead is how long messages are measured before the storm and after it.
const stormLead = 200 * time.Millisecond

// reconnect closes all streams of a crowd at once and waits until all are live again.
func reconnect(ctx context.Context, crowd *crowdClient) (crowdReply, error) {
	pause(ctx, stormLead)
	defer pause(ctx, stormLead)
	before, err := crowd.ask(crowdCommand{Op: "status"})
	if err != nil {
		return before, err
	}
	if _, err := crowd.ask(crowdCommand{Op: "reconnect"}); err != nil {
		return before, err
	}
	// Until they dial again the crowd is as live as before.
	dialing := func(r *crowdReply) bool { return r.DialNanos > before.DialNanos }
	if _, _, err := crowd.until(ctx, connectLimit, dialing); err != nil {
		return before, err
	}
	return crowd.live(ctx, connectLimit)
}

func independenceSeconds(s *Settings) float64 {
	return s.Paced + 3 + 3*float64(s.IdleHigh)/streamsDefault
}

// runIndependence compares the cost of an event for few streams with few and with many others
// connected: two servers, which get a slice of the load in turn, so that what changes on the
// machine in the meantime changes for both.
func runIndependence(ctx context.Context, c *cell) error {
	few := min(independenceFew, c.settings.Streams/10)
	names := [2]string{"few others", "many others"}
	var loads [2]*load
	for i, others := range []int{few, c.settings.IdleHigh} {
		var err error
		if loads[i], err = c.amongOthers(ctx, independenceChannel+i, others); err != nil {
			return fmt.Errorf("%s: %w", names[i], err)
		}
	}
	c.calm(ctx)
	var sums [2]measured
	slices := max(1, int(c.settings.Paced/independenceSlice/2))
	for range slices {
		for i, l := range loads {
			m, err := l.paced(ctx, pace{
				first: independenceChannel + i, channels: 1, perSecond: independencePerSecond,
				count: int(independenceSlice * independencePerSecond),
			})
			if err != nil {
				return fmt.Errorf("%s: %w", names[i], err)
			}
			sums[i].add(m)
		}
	}
	var each [2]float64
	for i := range sums {
		each[i] = seconds(sums[i].cpu) * 1e6 / float64(sums[i].sent)
		c.add(names[i], sums[i].counts(), map[string]float64{
			metricCPUPerEvent: each[i], metricTimesFew: each[i] / each[0],
		})
	}
	return nil
}

// independenceChannel is the number of the first server's channel for the receivers, behind those
// of the others. The second server's is the next: both may hear one Redis.
const independenceChannel = 18_001

// amongOthers starts a server with others on channels of their own, and ten streams on a channel.
func (c *cell) amongOthers(ctx context.Context, channel, others int) (*load, error) {
	running, err := c.start(ctx, startOptions{})
	if err != nil {
		return nil, err
	}
	if _, err := c.connect(ctx, running, others, 1, true); err != nil {
		return nil, err
	}
	receivers, err := c.connect(ctx, running, independenceReceivers, channel, false)
	if err != nil {
		return nil, err
	}
	return c.newLoad(running, receivers, independenceReceivers)
}

func gatewaysSeconds(s *Settings) float64 { return s.Paced + 6 }

// runGateways measures what an event costs Redis with one gateway and with ten.
func runGateways(ctx context.Context, c *cell) error {
	m, one, err := c.gateways(ctx, 1)
	if err != nil {
		return fmt.Errorf("one: %w", err)
	}
	c.add("one", m.counts(), map[string]float64{metricRedisCPU: one})
	m, ten, err := c.gateways(ctx, fleetGateways)
	if err != nil {
		return fmt.Errorf("ten: %w", err)
	}
	c.add("ten", m.counts(), map[string]float64{metricRedisCPU: ten, metricPerGateway: (ten - one) / (fleetGateways - 1)})
	return nil
}

func stopAll(children []*child) {
	for _, c := range children {
		c.stop()
	}
}

// gateways loads so many of them and gives what an event cost Redis, in microseconds.
func (c *cell) gateways(ctx context.Context, count int) (*measured, float64, error) {
	crowd, err := c.site.crowd(ctx)
	if err != nil {
		return nil, 0, err
	}
	var fleet *server
	for range count {
		running, err := c.start(ctx, startOptions{})
		if err != nil {
			return nil, 0, err
		}
		if _, err := crowd.connect(ctx, running.plan(c.Wire, fleetStreams), connectLimit); err != nil {
			return nil, 0, err
		}
		if fleet != nil {
			running.children = append(running.children, fleet.children...)
		}
		fleet = running
	}
	defer stopAll(fleet.children)
	c.calm(ctx)
	l, err := c.newLoad(fleet, crowd, count*fleetStreams)
	if err != nil {
		return nil, 0, err
	}
	redis := []int{c.site.redisServer.pid()}
	before, err := cpuTime(redis)
	if err != nil {
		return nil, 0, err
	}
	m, err := l.paced(ctx, pace{
		first: sharedChannel, channels: 1, perSecond: fleetPerSecond, count: int(c.settings.Paced / 2 * fleetPerSecond),
	})
	if err != nil {
		return nil, 0, err
	}
	after, err := cpuTime(redis)
	if err != nil {
		return nil, 0, err
	}
	return m, seconds(after-before) * 1e6 / float64(m.sent), nil
}
