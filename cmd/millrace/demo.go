package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/millrace/millrace/examples/workers/crew"
	"github.com/millrace/millrace/examples/workers/titancore"
	"github.com/millrace/millrace/gateway"
)

// demoUser is whom the demonstration alerts: a page without authentication is this user by
// ?userId=demo.
const demoUser = "demo"

// startWorkers runs the example workers in this process, on the gateway's own broker, until ctx is
// done or stop is called. stop waits for their end.
func startWorkers(ctx context.Context, served *gateway.Gateway, logger *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	broker := &demoBroker{gateway: served, values: make(map[string][]byte)}
	var working sync.WaitGroup
	working.Go(func() {
		renderer, err := titancore.NewRenderer("auto", true)
		if err == nil {
			err = crew.Run(ctx, crew.Options{Broker: broker, Users: []string{demoUser}, Renderer: renderer, Logger: logger.With("part", "demo")})
		}
		if err != nil {
			logger.Warn("the example workers ended", "error", err)
		}
	})
	return func() {
		cancel()
		working.Wait()
		broker.close()
	}
}

// demoStatesMax bounds how many states the example workers may read.
const demoStatesMax = 256

// demoBroker does for the example workers, by the gateway, what Redis does for workers elsewhere.
// Which of PUBLISH, XADD and SET it is, the mode of the channel's namespace says. Its methods are
// safe for use by many goroutines.
type demoBroker struct {
	gateway *gateway.Gateway

	mutex  sync.Mutex // guards what follows
	values map[string][]byte
	cancel []func()
}

func (b *demoBroker) Publish(ctx context.Context, channel string, event any) error {
	data, err := json.Marshal(event)
	if err != nil {
		return fmt.Errorf("event on %s: %w", channel, err)
	}
	_, err = b.gateway.Publish(ctx, gateway.Event{Channel: channel, Data: data})
	if errors.Is(err, gateway.ErrClosed) {
		return nil // a job that ends with us, and nobody is left to hear of it
	}
	return err
}

func (b *demoBroker) Append(ctx context.Context, channel string, event any) error {
	return b.Publish(ctx, channel, event)
}

func (b *demoBroker) Set(ctx context.Context, channel string, value any) error {
	return b.Publish(ctx, channel, value)
}

// Get gives the newest values that the gateway has told of. A channel is listened to from the
// first time on that it is asked for; its value is there a moment later.
func (b *demoBroker) Get(_ context.Context, channels ...string) ([][]byte, error) {
	values := make([][]byte, len(channels))
	for place, channel := range channels {
		if err := b.listen(channel); err != nil {
			return nil, err
		}
		b.mutex.Lock()
		values[place] = b.values[channel]
		b.mutex.Unlock()
	}
	return values, nil
}

// listen listens to a channel, unless that is done already.
func (b *demoBroker) listen(channel string) error {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if _, known := b.values[channel]; known {
		return nil
	}
	if len(b.values) == demoStatesMax {
		return fmt.Errorf("read %s: %d states are read already", channel, demoStatesMax)
	}
	cancel, err := b.gateway.Subscribe(channel, func(notice gateway.Notice) {
		if notice.Data == nil && !notice.Deleted {
			return // a gap; the newest value comes again
		}
		b.mutex.Lock()
		defer b.mutex.Unlock()
		b.values[channel] = notice.Data
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", channel, err)
	}
	b.values[channel] = nil
	b.cancel = append(b.cancel, cancel)
	return nil
}

// close stops listening.
func (b *demoBroker) close() {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	for _, cancel := range b.cancel {
		cancel()
	}
}
