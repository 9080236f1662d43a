package bench

import (
	"context"
	"fmt"
	"time"
)

const (
	lacksModes = "no states and logs that workers write with plain commands of Redis"

	trackedGateways  = 10
	trackedKeys      = 10_000 // that each gateway hears
	trackedEach      = 1_000  // that one stream hears
	trackedPerSecond = 500.0  // changes
)

func keyedSeconds(s *Settings) float64 { return s.Paced + 2 }

func runState(ctx context.Context, c *cell) error { return c.keyed(ctx, stateKeys) }
func runLog(ctx context.Context, c *cell) error   { return c.keyed(ctx, logKeys) }

// keyed measures how long a write to a key takes to the client, beside the crowd of the stand,
// which is idle.
func (c *cell) keyed(ctx context.Context, keys keyspace) error {
	l, err := c.crowded(ctx)
	if err != nil {
		return err
	}
	l.crowd.child.prioritize(nicenessLoad)
	writing := l.server.speaking(keys)
	crowd, err := c.connect(ctx, writing, c.besideStreams(), 1, true)
	if err != nil {
		return err
	}
	defer crowd.close()
	crowd.child.prioritize(nicenessMeasured)
	c.calm(ctx)
	single, err := c.newLoad(writing, crowd, 1)
	if err != nil {
		return err
	}
	m, err := single.paced(ctx, c.singles(c.settings.Paced))
	if err != nil {
		return err
	}
	return c.addLatency("steady", m, single)
}

func trackedSeconds(s *Settings) float64 { return s.Paced + 15 }

// runTracked compares what a change of a tracked key costs Redis with one gateway that hears it, and
// with ten.
func runTracked(ctx context.Context, c *cell) error {
	one, err := c.tracked(ctx, 1)
	if err != nil {
		return fmt.Errorf("one gateway: %w", err)
	}
	ten, err := c.tracked(ctx, trackedGateways)
	if err != nil {
		return fmt.Errorf("ten gateways: %w", err)
	}
	further := (ten[metricRedisCPU] - one[metricRedisCPU]) / (trackedGateways - 1)
	c.add("one", one)
	c.add("ten", ten, map[string]float64{metricPerGateway: further})
	return nil
}

// tracked has so many gateways hear all keys, and changes these.
func (c *cell) tracked(ctx context.Context, count int) (map[string]float64, error) {
	gateways := make([]*server, count)
	var children []*child
	defer func() { stopAll(children) }()
	for i := range gateways {
		var err error
		if gateways[i], err = c.start(ctx, startOptions{modes: true}); err != nil {
			return nil, err
		}
		children = append(children, gateways[i].children...)
	}
	crowd, err := c.site.crowd(ctx)
	if err != nil {
		return nil, err
	}
	defer crowd.close()
	all := gateways[0].speaking(stateKeys)
	all.children = children
	l, err := c.newLoad(all, crowd, count)
	if err != nil {
		return nil, err
	}
	if err := l.fill(c.site.redisAddress); err != nil {
		return nil, err
	}
	before, err := redisFigure(c.site.redisAddress, "memory", "used_memory")
	if err != nil {
		return nil, err
	}
	for i, one := range gateways {
		plan := one.plan(WebSocket, trackedKeys/trackedEach)
		plan.Steps, plan.Channel = one.several[WebSocket], stateKeys.channel
		plan.Each, plan.First = trackedEach, 1-i*trackedKeys // streams are numbered through all gateways
		if _, err := crowd.connect(ctx, plan, connectLimit); err != nil {
			return nil, err
		}
	}
	if err := c.awaitTracked(ctx, count*trackedKeys); err != nil {
		return nil, err
	}
	if _, err := crowd.delivered(ctx, uint64(count*trackedKeys), deliveryGrace); err != nil {
		return nil, err
	}
	after, err := redisFigure(c.site.redisAddress, "memory", "used_memory")
	if err != nil {
		return nil, err
	}
	metrics, err := c.change(ctx, l)
	if err != nil {
		return nil, err
	}
	metrics[metricRedisPerKey] = (after - before) / trackedKeys
	return metrics, nil
}

// fill writes every key once to a Redis that was emptied, and so has forgotten what it told others.
func (l *load) fill(address string) error {
	if _, err := askRedis(address, "FLUSHALL"); err != nil {
		return err
	}
	now := monotonic()
	for i := range trackedKeys {
		if err := l.publisher.add(1+i, now); err != nil {
			return err
		}
	}
	if err := l.publisher.feed.send(); err != nil {
		return err
	}
	return l.publisher.feed.settle()
}

// awaitTracked waits until Redis remembers for so many keys, each counted once for each gateway, that
// it has to tell their changes.
func (c *cell) awaitTracked(ctx context.Context, want int) error {
	deadline := time.Now().Add(connectLimit)
	for {
		tracked, err := redisFigure(c.site.redisAddress, "stats", "tracking_total_items")
		if err != nil || int(tracked) >= want {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("redis tracks %.0f of %d keys after %v", tracked, want, connectLimit)
		}
		pause(ctx, statusInterval)
	}
}

// change changes the keys in turn and gives what that cost.
func (c *cell) change(ctx context.Context, l *load) (map[string]float64, error) {
	redis := []int{c.site.redisServer.pid()}
	before, err := cpuTime(redis)
	if err != nil {
		return nil, err
	}
	m, err := l.paced(ctx, pace{
		first: 1, channels: trackedKeys, perSecond: trackedPerSecond, count: int(c.settings.Paced * trackedPerSecond),
	})
	if err != nil {
		return nil, err
	}
	after, err := cpuTime(redis)
	if err != nil {
		return nil, err
	}
	metrics := m.counts()
	metrics[metricRedisCPU] = seconds(after-before) * 1e6 / float64(m.sent)
	return metrics, nil
}
