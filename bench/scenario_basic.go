package bench

import (
	"context"
	"fmt"
	"time"
)

// runIdle compares memory at two sizes of one crowd, so that what the server costs without any
// stream does not count.
func runIdle(ctx context.Context, c *cell) error {
	if err := idleCase(ctx, c, "shared", false, false); err != nil {
		return err
	}
	if err := idleCase(ctx, c, "own", true, false); err != nil {
		return err
	}
	if _, takes := c.subject.(tokenTaker); takes {
		return idleCase(ctx, c, "own, token", true, true)
	}
	return nil
}

// idleLook is memory at one moment, in bytes.
type idleLook struct{ process, kernel int64 }

func idleCase(ctx context.Context, c *cell, name string, own, tokens bool) error {
	running, err := c.start(ctx, startOptions{tokens: tokens, streams: c.settings.IdleHigh})
	if err != nil {
		return err
	}
	defer stopAll(running.children)
	crowd, err := c.site.crowd(ctx, 0)
	if err != nil {
		return err
	}
	defer crowd.close()
	base, err := residentBytes(running.pids())
	if err != nil {
		return err
	}
	var looks [2]idleLook
	for i, size := range []int{c.settings.IdleLow, c.settings.IdleHigh - c.settings.IdleLow} {
		plan := running.plan(c.wire, size)
		plan.Own, plan.First = own, boolInt(own)
		if _, err := crowd.connect(ctx, plan, connectLimit); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		pause(ctx, secondsOf(c.settings.Settle))
		if looks[i].process, err = residentBytes(running.pids()); err != nil {
			return err
		}
		if looks[i].kernel, err = kernelBytes(); err != nil {
			return err
		}
	}
	reply, err := crowd.report()
	if err != nil {
		return err
	}
	if reply.Live != c.settings.IdleHigh {
		return fmt.Errorf("%s: %d of %d streams were live at the end: %s", name, reply.Live, c.settings.IdleHigh, reply.Failure)
	}
	added := float64(c.settings.IdleHigh - c.settings.IdleLow)
	c.add(name, map[string]float64{
		metricBytesPerStream:  float64(looks[1].process-looks[0].process) / added,
		metricKernelPerStream: float64(looks[1].kernel-looks[0].kernel) / added,
		metricBaseBytes:       float64(base),
		metricMemoryBytes:     float64(looks[1].process),
		metricSettleSeconds:   c.settings.Settle,
		metricStreams:         float64(c.settings.IdleHigh),
	})
	return ctx.Err()
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func stopAll(children []*child) {
	for _, c := range children {
		c.stop()
	}
}

// runConnect lets a crowd connect as fast as the server takes it, several times.
func runConnect(ctx context.Context, c *cell) error {
	if err := connectCase(ctx, c, "no token", false); err != nil {
		return err
	}
	if _, takes := c.subject.(tokenTaker); takes {
		return connectCase(ctx, c, "token", true)
	}
	return nil
}

func connectCase(ctx context.Context, c *cell, name string, tokens bool) error {
	running, err := c.start(ctx, startOptions{tokens: tokens})
	if err != nil {
		return err
	}
	defer stopAll(running.children)
	crowd, err := c.site.crowd(ctx, 0)
	if err != nil {
		return err
	}
	defer crowd.close()
	var cpu, took int64
	// The first connect warms the server up and does not count.
	for i := range c.settings.Connects + 1 {
		before, err := cpuTime(running.pids())
		if err != nil {
			return err
		}
		plan := running.plan(c.wire, c.settings.Streams)
		reply, err := crowd.connect(ctx, plan, connectLimit)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		pause(ctx, calmTimeMax/4) // what the server puts off until after the answer counts, too
		after, err := cpuTime(running.pids())
		if err != nil {
			return err
		}
		if i > 0 {
			cpu += after - before
			took += reply.LiveNanos - reply.DialNanos
		}
		if err := c.dropAll(ctx, crowd); err != nil {
			return err
		}
	}
	handshakes := float64(c.settings.Connects * c.settings.Streams)
	c.add(name, map[string]float64{
		metricCPUSeconds: seconds(cpu) / handshakes * streamsDefault,
		metricPerSecond:  handshakes / seconds(took),
	})
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

// runFanout sends to one channel that a whole crowd listens to.
func runFanout(ctx context.Context, c *cell) error {
	l, err := c.crowded(ctx, false)
	if err != nil {
		return err
	}
	m, err := l.paced(ctx, pace{
		first: sharedChannel, channels: 1, perSecond: c.settings.FanoutPerSecond,
		count: max(1, int(c.settings.Paced*c.settings.FanoutPerSecond)),
	})
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

// crowded starts the subject and a crowd of the ordinary size, all on one channel or each on its
// own, and opens a publisher.
func (c *cell) crowded(ctx context.Context, own bool) (*load, error) {
	running, err := c.start(ctx, startOptions{})
	if err != nil {
		return nil, err
	}
	crowd, err := c.site.crowd(ctx, 0)
	if err != nil {
		return nil, err
	}
	plan := running.plan(c.wire, c.settings.Streams)
	plan.Own, plan.First = own, boolInt(own)
	if _, err := crowd.connect(ctx, plan, connectLimit); err != nil {
		return nil, err
	}
	c.calm(ctx)
	receivers := c.settings.Streams
	if own {
		receivers = 1
	}
	return c.newLoad(running, crowd, receivers)
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

// runUnicast sends to as many channels as there are streams, one after the other.
func runUnicast(ctx context.Context, c *cell) error {
	l, err := c.crowded(ctx, true)
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
