package gateway

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/internal/names"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// setUpBroker makes the broker, and with it the source that the hub asks.
func (g *Gateway) setUpBroker(from *heritage) error {
	if g.options.Redis == "" {
		memory := broker.NewMemory(broker.MemoryOptions{Logger: g.logger})
		g.broker = memory
		g.source.Subscribe = func(sub broker.Subscription, _ names.Place) { memory.Subscribe(sub) }
	} else {
		redis, err := broker.NewRedis(broker.RedisOptions{
			URL: g.options.Redis, ChannelPrefix: g.options.ChannelPrefix, Names: &g.names, Logger: g.logger, PlainOn: from.plain,
			MaxValueBytes: g.options.Limits.MaxEventBytes, // NoLimit means the same there
		})
		if err != nil {
			return err // and no *Redis that is nil in an interface that is not
		}
		g.broker = redis
		g.source.Subscribe = redis.SubscribeNamed
		if err := from.divide(redis); err != nil {
			return err
		}
	}
	g.source.Unsubscribe, g.source.ReadLog, g.source.Prefer = g.broker.Unsubscribe, g.broker.ReadLog, preferOrders(g.broker.Prefer)
	return nil
}

// setUpLoops makes hub and loops, and has the broker feed them.
func (g *Gateway) setUpLoops(from *heritage) (err error) {
	limits := g.options.Limits
	g.hub, err = hub.New(hub.Options{
		Loops: g.options.Loops, Epoch: g.epoch,
		Source: g.source, Names: &g.names,
		Events: hub.Events{
			Subscribed: func(shard *hub.Shard, slot netio.Slot, channel proto.Channel) {
				g.sessions[shard.Loop().Index()].subscribed(slot, channel)
			},
			User: func(shard *hub.Shard, slot netio.Slot) string {
				s := g.sessions[shard.Loop().Index()]
				return s.who(s.at(slot)).User
			},
			Ended: func(shard *hub.Shard, slot netio.Slot) { g.sessions[shard.Loop().Index()].complete(slot) },
			Mail:  func(shard *hub.Shard, item any) { g.sessions[shard.Loop().Index()].mail(item) },
		},
		RulesOf:       g.rules.of,
		MaxQueueBytes: limits.MaxQueueBytes, MaxQueueAge: max(limits.MaxQueueAge, 0),
		MaxEventBytes: limits.MaxEventBytes, MaxSubscriptions: limits.MaxSubscriptions, MaxReplayBytes: limits.MaxReplayBytes,
	})
	if err != nil {
		return err
	}
	for index := range g.options.Loops {
		one := newSessions(g, g.hub.Shard(index))
		loop, err := netio.NewLoop(netio.LoopOptions{Index: index, FirstTick: from.firstTick(index), StallLimit: limits.ProgressTimeout, WithoutRing: g.options.WithoutIOURing}, one.events())
		if err != nil {
			return err
		}
		one.attach(loop)
		g.sessions = append(g.sessions, one)
		g.loops = append(g.loops, loop)
		go loop.Run() // at once: should the next one fail, Close waits for this one to stop
	}
	g.publisher = newPublisher(g)
	if err := g.broker.Start(g.callbacks()); err != nil {
		return err
	}
	g.listenForWrongMode()
	g.listenForOrders(from)
	return nil
}

// callbacks are how the broker tells the hub.
func (g *Gateway) callbacks() broker.Callbacks {
	return broker.Callbacks{
		Event: g.event,
		Value: func(channel string, payload []byte, received time.Time) {
			g.updates.pass(func() { g.value(channel, payload, received) })
		},
		Log: func(update broker.LogUpdate, received time.Time) {
			g.updates.pass(func() { g.log(update, received) })
		},
		Confirmed: g.hub.Confirmed,
		Lost:      g.hub.Lost,
		Refused: func(subscription broker.Subscription, err error) {
			g.reports.warn(g.logger, "redis refuses a subscription", "channel", subscription.Channel, "error", err)
		},
		Health: func(health broker.Health) { g.health.Store(&health) },
	}
}

// listenForWrongMode subscribes to what a worker might publish by PUBLISH on channels that are
// keys: nobody gets it, so an operator has to hear of it. Types that only the default namespace
// knows have no pattern and are not heard.
func (g *Gateway) listenForWrongMode() {
	types := g.rules.keyed()
	slices.Sort(types)
	for _, typ := range types {
		g.broker.Subscribe(broker.Subscription{Channel: typ + ":*", Kind: broker.Pattern})
	}
}

// event takes what was published on a channel.
func (g *Gateway) event(channel string, payload []byte, received time.Time) {
	id, err := g.hub.Event(channel, payload, received)
	if err == nil {
		if id != "" && g.debugs() {
			g.logger.Debug("event", "channel", channel, "id", id)
		}
		return
	}
	if kind := g.rules.of(channelType(channel)).Kind; isKeyed(kind) {
		g.reports.warn(g.logger, "a PUBLISH reached nobody: the mode of the channel's namespace is another", "channel", channel,
			"mode", modeName(kind), "do", fmt.Sprintf("have the worker use %s, or set the mode of this namespace to events", workerCommands[kind]))
		return
	}
	g.reports.warn(g.logger, "a published event was dropped", "error", err)
}

// workerCommands are the commands by which workers write what is a key.
var workerCommands = map[broker.Kind]string{broker.State: "SET or HSET", broker.Log: "XADD"}

// updateGate lets through what is told of states and logs, or holds it back. It is safe for many
// goroutines, each of which keeps its order.
type updateGate struct {
	mutex   sync.RWMutex // an update runs under it
	holding bool
	keeping sync.Mutex
	held    []func()
}

// pass runs update now, or when the gate is opened. What is held is bounded by the time that a
// hand-over may take.
func (u *updateGate) pass(update func()) {
	u.mutex.RLock()
	defer u.mutex.RUnlock()
	if !u.holding {
		update()
		return
	}
	u.keeping.Lock()
	defer u.keeping.Unlock()
	u.held = append(u.held, update)
}

// hold closes the gate: on return no update runs.
func (u *updateGate) hold() {
	u.mutex.Lock()
	defer u.mutex.Unlock()
	u.holding = true
}

// release runs what was held and opens the gate.
func (u *updateGate) release() {
	u.mutex.Lock()
	defer u.mutex.Unlock()
	for _, update := range u.held {
		update()
	}
	u.held, u.holding = nil, false
}

// value takes what a state is now.
func (g *Gateway) value(channel string, payload []byte, received time.Time) {
	if err := g.hub.Value(channel, payload, received); err != nil {
		g.reports.warn(g.logger, "the value of a state was dropped; its listeners keep the last good one", "error", err)
	} else if g.debugs() {
		g.logger.Debug("value", "channel", channel, "bytes", len(payload))
	}
}

// log takes what was appended to a log.
func (g *Gateway) log(update broker.LogUpdate, received time.Time) {
	if update.Channel == ordersChannel {
		g.ordersCame(update)
		return
	}
	if err := g.hub.Log(update, received); err != nil {
		g.reports.warn(g.logger, "an entry of a log was dropped", "error", err)
	}
	if update.Hole {
		g.reports.warn(g.logger, "a log has lost entries; its listeners are told of a gap", "channel", update.Channel,
			"reason", update.Reason.String(), "after", update.From.String())
	}
	if len(update.Entries) > 0 && g.debugs() {
		g.logger.Debug("entries", "channel", update.Channel, "count", len(update.Entries), "last", update.Entries[len(update.Entries)-1].Position.String())
	}
}
