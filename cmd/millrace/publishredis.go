package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/proto"
)

// Times for a Redis that does not answer at first.
const (
	// redisWait is how long it is tried before the command gives up.
	redisWait = 5 * time.Second
	// redisRetry is the pause between two tries to publish.
	redisRetry = 50 * time.Millisecond
)

// redisPublisher publishes by Redis itself, through the gateway's own broker, so that every form
// of address that a gateway understands works here too.
type redisPublisher struct {
	target  *target
	broker  broker.Broker
	kind    broker.Kind
	reached bool // Redis has taken something
}

func newRedisPublisher(chosen *target, sharded bool) (*redisPublisher, error) {
	made := &redisPublisher{target: chosen}
	if sharded {
		made.kind = broker.Sharded
	}
	redis, err := startRedis(chosen, broker.Callbacks{
		Event:     func(string, []byte, time.Time) {},
		Confirmed: func([]broker.Subscription, bool) {},
		Lost:      func([]broker.Subscription) {},
		Refused:   func(broker.Subscription, error) {},
		Health:    func(broker.Health) {},
		Value:     func(string, []byte, time.Time) {},
		Log:       func(broker.LogUpdate, time.Time) {},
	})
	if err != nil {
		return nil, err
	}
	made.broker = redis
	return made, nil
}

// startRedis makes a broker that begins to connect. Nothing is logged: what goes wrong is told by
// the command.
func startRedis(chosen *target, callbacks broker.Callbacks) (broker.Broker, error) {
	redis, err := broker.NewRedis(broker.RedisOptions{
		URL: string(chosen.redis), ChannelPrefix: string(chosen.settings.ChannelPrefix), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, fmt.Errorf("--redis: %w", err)
	}
	if err := redis.Start(callbacks); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to %s: %w", chosen.redis, err), redis.Close())
	}
	return redis, nil
}

// publish gives an answer in the form of a gateway's.
func (p *redisPublisher) publish(ctx context.Context, channel proto.Channel, events [][]byte) (string, error) {
	messages := make([]broker.Message, len(events))
	for index, event := range events {
		messages[index] = broker.Message{Channel: channel.Name(), Payload: event, Kind: p.kind}
	}
	if err := p.try(ctx, messages); err != nil {
		return "", fmt.Errorf("publish %s at %s: %w; check that Redis runs and that --redis names it", channel.Name(), p.target.redis, err)
	}
	p.reached = true
	return fmt.Sprintf(`{"published":%d,"distributed":true}`, len(events)), nil
}

// try waits for the first connection. Once Redis was reached a failure is told at once: the
// events may have arrived, and sending them again is the user's decision.
func (p *redisPublisher) try(ctx context.Context, messages []broker.Message) error {
	deadline := time.Now().Add(redisWait)
	for {
		_, err := p.broker.Publish(ctx, messages)
		if err == nil || p.reached || !errors.Is(err, broker.ErrUnavailable) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(redisRetry)
	}
}

func (p *redisPublisher) close() error { return p.broker.Close() }
