package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
)

// tailCommand is `millrace tail`.
type tailCommand struct {
	targetFlags
	kindFlags

	Channels []string `arg:"" name:"channel" help:"Channels, such as job_progress:job_123; TYPE:* where the namespace allows it."`
	JSON     bool     `name:"json" help:"Print each event as one line of JSON: channel, id, event, data."`
}

// Run prints until it is interrupted or the stream says that it is complete.
func (c *tailCommand) Run(world *process) error {
	channels, err := parseChannels(c.Channels)
	if err != nil {
		return err
	}
	chosen, err := c.resolve(world)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	output := newPrinter(world, c.JSON, channels)
	if err := c.check(chosen); err != nil {
		return err
	}
	if chosen.gateway != nil {
		err = newStream(chosen, channels, output).run(ctx)
	} else {
		err = c.tailRedis(ctx, chosen, channels, output)
	}
	if errors.Is(err, context.Canceled) {
		return nil // interrupted, which is how one ends it
	}
	return err
}
