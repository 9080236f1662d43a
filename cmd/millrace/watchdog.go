package main

import (
	"context"
	"log/slog"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/millrace/millrace/gateway"
)

// watchdogFeeds is how often systemd hears from us in the time after which it gives us up.
const watchdogFeeds = 3

// feedWatchdog feeds systemd's watchdog, where it watches this process (WatchdogSec=), for as long
// as every loop turns. Otherwise systemd ends the process, by SIGABRT, at which Go prints where each
// goroutine stands, and starts another. stop ends the feeding and waits for it.
func feedWatchdog(served *gateway.Gateway, logger *slog.Logger) (stop func()) {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		logger.Warn("the watchdog of systemd is not fed", "error", err)
	}
	if limit == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		served.WatchLoops(ctx, limit/watchdogFeeds, func() { notify(logger, daemon.SdNotifyWatchdog) })
	}()
	return func() {
		cancel()
		<-ended
	}
}
