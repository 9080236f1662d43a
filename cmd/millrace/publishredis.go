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
	maxLen  int  // of a log
	reached bool // Redis has taken something
}

func newRedisPublisher(chosen *target, kind broker.Kind, maxLen int) (*redisPublisher, error) {
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
	return &redisPublisher{target: chosen, broker: redis, kind: kind, maxLen: maxLen}, nil
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

// publish gives an answer in the form of a gateway's: with the ids of what was added to a log,
// which say nothing of other logs (a horizon of 0).
func (p *redisPublisher) publish(ctx context.Context, channel proto.Channel, events [][]byte) (string, error) {
	messages := make([]broker.Message, len(events))
	for index, event := range events {
		messages[index] = broker.Message{Channel: channel.Name(), Payload: event, Kind: p.kind, MaxLen: p.maxLen}
	}
	positions, err := p.try(ctx, messages)
	if err != nil {
		return "", fmt.Errorf("publish %s at %s: %w; check that Redis runs and that --redis names it", channel.Name(), p.target.redis, err)
	}
	p.reached = true
	var ids []byte
	for index, position := range positions {
		if index == 0 {
			ids = append(ids, `,"ids":[`...)
		} else {
			ids = append(ids, ',')
		}
		ids = append(ids, '"') // a channel's name needs no escape
		ids = append(proto.AppendLogID(ids, channel.Name(), position.Milliseconds, position.Sequence, 0), '"')
	}
	if len(ids) > 0 {
		ids = append(ids, ']')
	}
	return fmt.Sprintf(`{"published":%d%s,"distributed":true}`, len(events), ids), nil
}

// try waits for the first connection. Once Redis was reached a failure is told at once: the
// events may have arrived, and sending them again is the user's decision.
func (p *redisPublisher) try(ctx context.Context, messages []broker.Message) ([]broker.Position, error) {
	deadline := time.Now().Add(redisWait)
	for {
		positions, err := p.broker.Publish(ctx, messages)
		if err == nil || p.reached || !errors.Is(err, broker.ErrUnavailable) || time.Now().After(deadline) {
			return positions, err
		}
		time.Sleep(redisRetry)
	}
}

func (p *redisPublisher) close() error { return p.broker.Close() }
