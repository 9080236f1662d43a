package bench

import (
	"context"
	"fmt"
	"time"
)

// idleParts: what a stream's own channel costs, and what a token adds, are questions apart.
func idleParts() []part {
	return []part{
		{name: "shared", on: groundShared, run: runIdleShared, seconds: idleSeconds},
		{name: "own", on: groundOwn, run: runIdleOwn, seconds: idleSeconds},
		{name: "own, token", run: runIdleTokens, suits: takesTokens, seconds: func(s *Settings) float64 {
			return idleSeconds(s) + standSeconds(s)
		}},
	}
}

func idleSeconds(s *Settings) float64 {
	return 2*s.Settle + 0.5 + 2*float64(s.IdleHigh-s.Streams)/streamsDefault
}

func runIdleShared(ctx context.Context, c *cell) error { return c.idle(ctx, false, false) }
func runIdleOwn(ctx context.Context, c *cell) error    { return c.idle(ctx, true, false) }
func runIdleTokens(ctx context.Context, c *cell) error { return c.idle(ctx, true, true) }

// idle compares memory at two sizes of one crowd, so that what the server costs without any
// stream does not count. It leaves a crowd of the ordinary size on the stand.
func (c *cell) idle(ctx context.Context, own, tokens bool) error {
	running, err := c.start(ctx, startOptions{tokens: tokens})
	if err != nil {
		return err
	}
	base, err := residentBytes(running.pids())
	if err != nil {
		return err
	}
	crowd, err := c.site.crowd(ctx)
	if err != nil {
		return err
	}
	extra, err := c.site.crowd(ctx)
	if err != nil {
		return err
	}
	defer extra.close()
	plan := running.plan(c.Wire, c.settings.IdleLow)
	plan.Own, plan.First = own, boolInt(own)
	if _, err := crowd.connect(ctx, plan, connectLimit); err != nil {
		return err
	}
	low, err := c.look(ctx, running)
	if err != nil {
		return err
	}
	plan.Count = c.settings.Streams - c.settings.IdleLow
	if _, err := crowd.connect(ctx, plan, connectLimit); err != nil {
		return err
	}
	plan.Count, plan.First = c.settings.IdleHigh-c.settings.Streams, plan.First+c.settings.Streams*boolInt(own)
	if _, err := extra.connect(ctx, plan, connectLimit); err != nil {
		return err
	}
	high, err := c.look(ctx, running)
	if err != nil {
		return err
	}
	if err := allLive(c.settings.IdleHigh, crowd, extra); err != nil {
		return err
	}
	added := float64(c.settings.IdleHigh - c.settings.IdleLow)
	c.add(c.Part, map[string]float64{
		metricBytesPerStream:  float64(high.process-low.process) / added,
		metricKernelPerStream: float64(high.kernel-low.kernel) / added,
		metricBaseBytes:       float64(base),
		metricMemoryBytes:     float64(high.process),
		metricSettleSeconds:   c.settings.Settle,
		metricStreams:         float64(c.settings.IdleHigh),
	})
	extra.close()
	c.calm(ctx)
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.settle(running, crowd, own)
}

// settle makes a crowd that is live the one of the stand.
func (c *cell) settle(running *server, crowd *crowdClient, own bool) error {
	receivers := c.settings.Streams
	if own {
		receivers = 1
	}
	var err error
	c.crowd, err = c.newLoad(running, crowd, receivers)
	return err
}

// allLive says what is wrong where crowds do not have so many streams in all.
func allLive(want int, crowds ...*crowdClient) error {
	live, failure := 0, ""
	for _, crowd := range crowds {
		reply, err := crowd.report()
		if err != nil {
			return err
		}
		live += reply.Live
		failure += reply.Failure
	}
	if live != want {
		return fmt.Errorf("%d of %d streams were live at the end: %s", live, want, orNone(failure))
	}
	return nil
}

// idleLook is memory at one moment, in bytes.
type idleLook struct{ process, kernel int64 }

// look waits until a server has got over its handshakes, and looks at memory.
func (c *cell) look(ctx context.Context, running *server) (look idleLook, err error) {
	pause(ctx, secondsOf(c.settings.Settle))
	if look.process, err = residentBytes(running.pids()); err != nil {
		return look, err
	}
	look.kernel, err = kernelBytes()
	return look, err
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func connectSeconds(s *Settings) float64 {
	return float64(s.Connects) * (1.5 + 1.5*float64(s.Streams)/streamsDefault)
}

// runConnect lets the crowd of the stand connect again, as fast as the server takes it: the first
// time, which does not count, has warmed the server up.
func runConnect(ctx context.Context, c *cell) error {
	l, err := c.crowded(ctx)
	if err != nil {
		return err
	}
	return c.handshakes(ctx, l.server, l.crowd)
}

// runConnectTokens does the same with a token for each stream, on a server that demands them.
func runConnectTokens(ctx context.Context, c *cell) error {
	running, err := c.start(ctx, startOptions{tokens: true})
	if err != nil {
		return err
	}
	crowd, err := c.connect(ctx, running, c.settings.Streams, sharedChannel, false)
	if err != nil {
		return err
	}
	return c.handshakes(ctx, running, crowd)
}

// handshakes ends a crowd's streams and lets it connect anew, several times.
func (c *cell) handshakes(ctx context.Context, running *server, crowd *crowdClient) error {
	var cpu, took int64
	for range c.settings.Connects {
		if err := c.dropAll(ctx, crowd); err != nil {
			return err
		}
		before, err := cpuTime(running.pids())
		if err != nil {
			return err
		}
		reply, err := crowd.connect(ctx, running.plan(c.Wire, c.settings.Streams), connectLimit)
		if err != nil {
			return err
		}
		pause(ctx, calmTimeMax/2) // what the server puts off until after the answer counts, too
		after, err := cpuTime(running.pids())
		if err != nil {
			return err
		}
		cpu += after - before
		took += reply.LiveNanos - reply.DialNanos
	}
	handshakes := float64(c.settings.Connects * c.settings.Streams)
	c.add(c.Part, map[string]float64{
		metricCPUSeconds: seconds(cpu) / handshakes * streamsDefault,
		metricPerSecond:  handshakes / seconds(took),
	})
	c.calm(ctx)
	return ctx.Err()
}

// dropAll closes a crowd's streams and gives the server time to notice.
func (c *cell) dropAll(ctx context.Context, crowd *crowdClient) error {
	if _, err := crowd.ask(crowdCommand{Op: "drop"}); err != nil {
		return err
	}
	if _, _, err := crowd.until(ctx, connectLimit, func(r *crowdReply) bool { return r.Live == 0 }); err != nil {
		return err
	}
	c.calm(ctx)
	return ctx.Err()
}

func fanoutSeconds(s *Settings) float64 { return s.Paced + 0.5 + 3*float64(s.Bursts) }

// runFanout sends to one channel that a whole crowd listens to.
func runFanout(ctx context.Context, c *cell) error {
	l, err := c.crowded(ctx)
	if err != nil {
		return err
	}
	m, err := l.paced(ctx, c.fanoutFor(c.settings.Paced))
	if err != nil {
		return fmt.Errorf("paced: %w", err)
	}
	latencies, err := m.latencies()
	if err != nil {
		return err
	}
	c.add("paced", m.counts(), latencies, l.publisher.lateness())
	return c.bursts(ctx, l)
}

// fanoutFor is the load of a fan-out that lasts so many seconds.
func (c *cell) fanoutFor(duration float64) pace {
	return pace{
		first: sharedChannel, channels: 1, perSecond: c.settings.FanoutPerSecond,
		count: max(1, int(duration*c.settings.FanoutPerSecond)),
	}
}

// connect starts a crowd of so many streams, on channel first, or on channels of their own from it.
func (c *cell) connect(ctx context.Context, running *server, count, first int, own bool) (*crowdClient, error) {
	crowd, err := c.site.crowd(ctx)
	if err != nil {
		return nil, err
	}
	plan := running.plan(c.Wire, count)
	plan.Own, plan.First = own, first
	_, err = crowd.connect(ctx, plan, connectLimit)
	return crowd, err
}

// crowded gives the crowd of the stand, and connects it where no cell before this one did.
func (c *cell) crowded(ctx context.Context) (*load, error) {
	if c.crowd != nil {
		return c.crowd, nil
	}
	running, err := c.start(ctx, startOptions{modes: c.ground == groundModes})
	if err != nil {
		return nil, err
	}
	own := c.ground == groundOwn
	crowd, err := c.connect(ctx, running, c.settings.Streams, boolInt(own), own)
	if err != nil {
		return nil, err
	}
	c.calm(ctx)
	if err := c.settle(running, crowd, own); err != nil {
		return nil, err
	}
	return c.crowd, nil
}

// bursts sends many messages at once, waits until all have arrived, and does it again.
func (c *cell) bursts(ctx context.Context, l *load) error {
	if err := l.crowd.reset(); err != nil {
		return err
	}
	before, err := cpuTime(l.server.pids())
	if err != nil {
		return err
	}
	var took int64
	each := uint64(c.settings.BurstMessages) * uint64(l.receivers)
	for i := range c.settings.Bursts {
		began, err := l.publisher.burst(sharedChannel, c.settings.BurstMessages)
		if err != nil {
			return fmt.Errorf("burst: %w", err)
		}
		reply, err := l.crowd.delivered(ctx, each*uint64(i+1), deliveryGrace)
		if err != nil {
			return err
		}
		took += reply.LastNanos - began
		pause(ctx, 100*time.Millisecond)
	}
	m, err := l.finish(ctx, before, c.settings.Bursts*c.settings.BurstMessages)
	if err != nil {
		return fmt.Errorf("burst: %w", err)
	}
	c.add("burst", m.counts(), map[string]float64{metricPerSecond: float64(m.reply.Deliveries) / seconds(took)})
	return nil
}

func unicastSeconds(s *Settings) float64 { return s.Paced + 0.5 }

// runUnicast sends to as many channels as there are streams, one after the other.
func runUnicast(ctx context.Context, c *cell) error {
	l, err := c.crowded(ctx)
	if err != nil {
		return err
	}
	m, err := l.paced(ctx, pace{
		first: 1, channels: c.settings.Streams, perSecond: c.settings.UnicastPerSecond,
		count: int(c.settings.Paced * c.settings.UnicastPerSecond),
	})
	if err != nil {
		return err
	}
	latencies, err := m.latencies()
	if err != nil {
		return err
	}
	c.add("steady", m.counts(), latencies, l.publisher.lateness())
	return nil
}
