package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/proto"
)

// tailQueueMax bounds the events between Redis and a slow terminal. What does not fit is dropped
// and told as a gap, as a gateway would.
const tailQueueMax = 4096

// tailItem is an event, the end of a value, or word of a loss.
type tailItem struct {
	channel string
	id      string
	payload []byte
	deleted bool   // a state has no value
	gap     string // the reason of a loss, or ""
}

// redisTail prints what is published on Redis, without a gateway. The broker's callbacks post,
// the command's goroutine prints.
type redisTail struct {
	target *target
	output *printer

	queue     chan tailItem
	dropped   atomic.Int64
	confirmed chan int   // how many subscriptions, the first time
	refused   chan error // the first one

	shown map[string]bool // channels of which something was printed; the command's own
}

// tailRedis prints until ctx ends or Redis refuses a channel.
func (c *tailCommand) tailRedis(ctx context.Context, chosen *target, channels []proto.Channel, output *printer) error {
	subscriptions := make([]broker.Subscription, len(channels))
	for index, channel := range channels {
		kind, _, err := c.kindOf(chosen, channel)
		if err != nil {
			return err
		}
		subscriptions[index] = broker.Subscription{Channel: channel.Name(), Kind: kind}
	}
	tail := &redisTail{
		target: chosen, output: output,
		queue: make(chan tailItem, tailQueueMax), confirmed: make(chan int, len(channels)), refused: make(chan error, 1),
		shown: make(map[string]bool),
	}
	redis, err := startRedis(chosen, broker.Callbacks{
		Event: tail.event, Value: tail.value, Log: tail.log, Confirmed: tail.confirm, Refused: tail.refuse,
		Lost:   func([]broker.Subscription) {}, // told as a gap when it is mended
		Health: func(broker.Health) {},
	})
	if err != nil {
		return err
	}
	for _, subscription := range subscriptions {
		redis.Subscribe(subscription)
	}
	return errors.Join(tail.run(ctx, len(channels), redis.Health), redis.Close())
}

// event is the broker's callback. It does not wait.
func (t *redisTail) event(channel string, payload []byte, _ time.Time) {
	t.post(tailItem{channel: channel, payload: payload})
}

// value is the broker's callback: what a state is now.
func (t *redisTail) value(channel string, payload []byte, _ time.Time) {
	t.post(tailItem{channel: channel, payload: payload, deleted: payload == nil})
}

// log is the broker's callback: what was appended to a log.
func (t *redisTail) log(update broker.LogUpdate, _ time.Time) {
	if update.Hole {
		t.post(tailItem{channel: update.Channel, gap: update.Reason.String()})
	}
	for _, entry := range update.Entries {
		id := proto.AppendLogID(nil, update.Channel, entry.Position.Milliseconds, entry.Position.Sequence, update.Horizon)
		t.post(tailItem{channel: update.Channel, id: string(id), payload: entry.Payload})
	}
}

func (t *redisTail) post(item tailItem) {
	select {
	case t.queue <- item:
	default:
		t.dropped.Add(1)
	}
}

// confirm is the broker's callback.
func (t *redisTail) confirm(subscriptions []broker.Subscription, lost bool) {
	for _, subscription := range subscriptions {
		if lost {
			t.post(tailItem{channel: subscription.Channel, gap: proto.GapBroker.String()})
		}
	}
	select {
	case t.confirmed <- len(subscriptions):
	default:
	}
}

// refuse is the broker's callback.
func (t *redisTail) refuse(subscription broker.Subscription, err error) {
	select {
	case t.refused <- fmt.Errorf("subscribe to %s: Redis refuses: %w", subscription.Channel, err):
	default:
	}
}

// run prints until ctx ends, Redis refuses a channel, or it was not reached in time.
func (t *redisTail) run(ctx context.Context, wanted int, health func() broker.Health) error {
	deadline := time.NewTimer(redisWait)
	defer deadline.Stop()
	for waiting := wanted; ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-t.refused:
			return err
		case <-deadline.C:
			if waiting > 0 {
				return fmt.Errorf("subscribe at %s: Redis does not answer: %s; check that it runs and that --redis names it", t.target.redis, health().Reason)
			}
		case count := <-t.confirmed:
			if waiting > 0 && waiting <= count {
				t.output.note("subscribed at %s", t.target.redis)
			}
			waiting = max(0, waiting-count)
		case item := <-t.queue:
			if err := t.print(item); err != nil {
				return err
			}
		}
	}
}

// print prints an event with the name that a gateway would give it.
func (t *redisTail) print(item tailItem) error {
	if count := t.dropped.Swap(0); count > 0 {
		t.output.note("%d events came faster than they could be printed", count)
		if err := t.output.print(gapOf(item.channel, "slow")); err != nil {
			return err
		}
	}
	switch {
	case item.gap != "":
		return t.output.print(gapOf(item.channel, item.gap))
	case item.deleted && !t.shown[item.channel]:
		return nil // there is no value yet, and that is no news
	case item.deleted:
		return t.output.print(printed{channel: item.channel, event: "deleted", data: proto.AppendDeleted(nil, item.channel)})
	}
	t.shown[item.channel] = true
	name := "message"
	channel, err := proto.ParseChannel(item.channel)
	if err == nil {
		var event *proto.Event
		if event, err = proto.NewEvent(channel, "", item.payload); err == nil {
			name = eventName(event)
		}
	}
	if err != nil {
		t.output.note("%s: a gateway would drop this event: %v", printable(item.channel), err)
	}
	return t.output.print(printed{channel: item.channel, id: item.id, event: name, data: item.payload})
}

// eventName gives the name of the event on the SSE wire.
func eventName(event *proto.Event) string {
	if typ := event.Type(); typ != "" && !proto.Reserved(typ) {
		return typ
	}
	return "message"
}

// gapOf gives a gap in the form of a gateway's.
func gapOf(channel, reason string) printed {
	return printed{channel: channel, event: "gap", data: fmt.Appendf(nil, `{"type":"gap","channel":"%s","reason":"%s"}`, channel, reason)}
}
