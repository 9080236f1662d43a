package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/millrace/millrace/gateway"
)

// lifetime is how long a gateway serves: until a signal ends it. Meanwhile it can be told to upgrade, by
// a signal or at its door.
type lifetime struct {
	ctx      context.Context // ends with the first SIGTERM or SIGINT
	stop     func()
	upgrades *upgrader
}

// newLifetime begins one, with signals from [catchSignals]. exit is called at the second one that ends.
func newLifetime(logger *slog.Logger, served *gateway.Gateway, signals chan os.Signal, exit func(code int)) *lifetime {
	ctx, cancel := context.WithCancel(context.Background())
	upgrades := newUpgrader(ctx, served, logger)
	if err := upgrades.openDoor(); err != nil {
		logger.Warn(err.Error())
	}
	stop := onSignals(ctx, signals, logger, signalActions{
		drain: func() {
			if !upgrades.retired.Load() { // else it is no news to systemd
				notify(logger, daemon.SdNotifyStopping)
			}
			cancel()
		},
		exit: exit,
		upgrade: func() {
			upgrades.visits.Go(func() { _, _ = upgrades.upgrade("", nil) }) // the log says how it went
		},
	})
	return &lifetime{ctx: ctx, stop: func() { stop(); cancel() }, upgrades: upgrades}
}

// end is the end of a gateway that has drained, or whose streams are another process's.
func (l *lifetime) end() {
	l.stop() // an upgrade that is under way fails
	l.upgrades.closeDoor()
	l.upgrades.visits.Wait()
}

// signalActions is what signals do.
type signalActions struct {
	drain   func()         // the first SIGTERM or SIGINT
	exit    func(code int) // the second
	upgrade func()         // SIGHUP; it must not wait
}

// catchSignals has the signals wait, instead of ending the process, that a gateway acts on.
func catchSignals() chan os.Signal {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	return signals
}

// onSignals acts on signals until stop is called. ctx ends when drain was called.
func onSignals(ctx context.Context, signals chan os.Signal, logger *slog.Logger, do signalActions) (stop func()) {
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case received := <-signals:
				switch {
				case received == syscall.SIGHUP:
					logger.Info("SIGHUP: upgrading, which reads the settings anew")
					do.upgrade()
				case ctx.Err() != nil:
					logger.Warn("a second signal ends the gateway at once", "signal", received.String())
					do.exit(exitFailure)
				default:
					logger.Info("told to end: streams are drained first; a second signal ends at once", "signal", received.String())
					do.drain()
				}
			case <-ended:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(ended)
	}
}
