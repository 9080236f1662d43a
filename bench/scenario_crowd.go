package bench

import (
	"context"
	"fmt"
	"time"
)

const (
	unicastPriority = -10 // niceness of a crowd whose latency matters while another is busy beside it

	besideChannels  = 1_000 // streams with a channel of their own beside a larger crowd, at most
	besidePerSecond = 500.0 // messages to them

	independenceReceivers = 10
	independenceFew       = 1_000
	independencePerSecond = 2_000.0

	fleetGateways  = 10
	fleetStreams   = 10 // of each
	fleetPerSecond = 1_000.0
)

// runKeepalive watches what idle streams cost as time goes by.
func runKeepalive(ctx context.Context, c *cell) error {
	l, err := c.crowded(ctx, false)
	if err != nil {
		return err
	}
	if err := l.crowd.reset(); err != nil {
		return err
	}
	before, err := cpuTime(l.server.pids())
	if err != nil {
		return err
	}
	pause(ctx, secondsOf(c.settings.Keepalive))
	after, err := cpuTime(l.server.pids())
	if err != nil {
		return err
	}
	reply, err := l.crowd.report()
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
	return ctx.Err()
}

// runMixed measures how long messages to single streams take, alone and while each message of
// another channel goes to a whole crowd.
func runMixed(ctx context.Context, c *cell) error {
	l, err := c.crowded(ctx, false)
	if err != nil {
		return err
	}
	single, err := c.beside(ctx, l.server)
	if err != nil {
		return err
	}
	to := c.singles(c.settings.Paced)
	m, err := single.paced(ctx, to)
	if err != nil {
		return fmt.Errorf("alone: %w", err)
	}
	if err := c.addLatency("alone", m, single); err != nil {
		return err
	}
	fanout := make(chan error, 1)
	go func() {
		_, err := l.paced(ctx, pace{
			first: sharedChannel, channels: 1, perSecond: c.settings.FanoutPerSecond,
			count: max(1, int(c.settings.Paced*c.settings.FanoutPerSecond)),
		})
		fanout <- err
	}()
	m, err = single.paced(ctx, to)
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

// beside starts a second crowd, each stream on a channel of its own, whose latency is of interest.
func (c *cell) beside(ctx context.Context, running *server) (*load, error) {
	crowd, err := c.site.crowd(ctx, unicastPriority)
	if err != nil {
		return nil, err
	}
	plan := running.plan(c.wire, c.besideStreams())
	plan.Own, plan.First = true, 1
	if _, err := crowd.connect(ctx, plan, connectLimit); err != nil {
		return nil, err
	}
	c.calm(ctx)
	return c.newLoad(running, crowd, 1)
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

// runStorm lets a whole crowd reconnect at once beside streams that stay and are spoken to.
func runStorm(ctx context.Context, c *cell) error {
	l, err := c.crowded(ctx, false)
	if err != nil {
		return err
	}
	single, err := c.beside(ctx, l.server)
	if err != nil {
		return err
	}
	m, err := single.paced(ctx, c.singles(c.settings.Paced))
	if err != nil {
		return fmt.Errorf("before: %w", err)
	}
	if err := c.addLatency("before", m, single); err != nil {
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
	m, err = single.paced(ctx, during)
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

// runIndependence compares the cost of an event for few with few and with many others connected.
func runIndependence(ctx context.Context, c *cell) error {
	running, err := c.start(ctx, startOptions{streams: c.settings.IdleHigh + independenceReceivers})
	if err != nil {
		return err
	}
	receivers, err := c.site.crowd(ctx, 0)
	if err != nil {
		return err
	}
	if _, err := receivers.connect(ctx, running.plan(c.wire, independenceReceivers), connectLimit); err != nil {
		return err
	}
	others, err := c.site.crowd(ctx, 0)
	if err != nil {
		return err
	}
	l, err := c.newLoad(running, receivers, independenceReceivers)
	if err != nil {
		return err
	}
	few := min(independenceFew, c.settings.Streams/10)
	for _, step := range []struct {
		name  string
		count int
	}{{"few others", few}, {"many others", c.settings.IdleHigh - few}} {
		plan := running.plan(c.wire, step.count)
		plan.Own, plan.First = true, 1
		if _, err := others.connect(ctx, plan, connectLimit); err != nil {
			return err
		}
		pause(ctx, 2*calmTimeMax)
		m, err := l.paced(ctx, pace{
			first: sharedChannel, channels: 1, perSecond: independencePerSecond, count: int(c.settings.Paced * independencePerSecond),
		})
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		c.add(step.name, m.counts(), map[string]float64{metricCPUPerEvent: seconds(m.cpu) * 1e6 / float64(m.sent)})
	}
	return nil
}

// runGateways measures what an event costs Redis with one gateway and with ten.
func runGateways(ctx context.Context, c *cell) error {
	for _, step := range []struct {
		name  string
		count int
	}{{"one", 1}, {"ten", fleetGateways}} {
		if err := c.gateways(ctx, step.name, step.count); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

func (c *cell) gateways(ctx context.Context, name string, count int) error {
	crowd, err := c.site.crowd(ctx, 0)
	if err != nil {
		return err
	}
	var fleet *server
	for range count {
		running, err := c.start(ctx, startOptions{streams: fleetStreams})
		if err != nil {
			return err
		}
		if _, err := crowd.connect(ctx, running.plan(c.wire, fleetStreams), connectLimit); err != nil {
			return err
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
		return err
	}
	redis := []int{c.site.redisServer.pid()}
	before, err := cpuTime(redis)
	if err != nil {
		return err
	}
	m, err := l.paced(ctx, pace{
		first: sharedChannel, channels: 1, perSecond: fleetPerSecond, count: int(c.settings.Paced * fleetPerSecond),
	})
	if err != nil {
		return err
	}
	after, err := cpuTime(redis)
	if err != nil {
		return err
	}
	c.add(name, m.counts(), map[string]float64{metricRedisCPU: seconds(after-before) * 1e6 / float64(m.sent)})
	return nil
}
