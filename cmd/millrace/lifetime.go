package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/millrace/millrace/gateway"
)

// lifetime is how long a gateway serves: until a signal ends it. Meanwhile it can be told to upgrade, by
// a signal or at its door.
type lifetime struct {
	ctx  context.Context // ends with the first SIGTERM or SIGINT
	stop func()
	door func()
	// visits are those who asked for an upgrade and have not heard how it ended.
	visits *sync.WaitGroup
}

// newLifetime begins one. exit is called at the second signal that ends.
func newLifetime(logger *slog.Logger, served *gateway.Gateway, exit func(code int)) *lifetime {
	ctx, cancel := context.WithCancel(context.Background())
	upgrades := newUpgrader(ctx, served, logger)
	stop := onSignals(ctx, logger, signalActions{
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
	life := &lifetime{ctx: ctx, stop: func() { stop(); cancel() }, door: func() {}}
	door, err := openDoor(upgrades)
	if err != nil {
		logger.Warn(err.Error())
	} else {
		life.door = func() { _ = door.Close() }
	}
	life.visits = &upgrades.visits
	return life
}

// end is the end of a gateway that has drained, or whose streams are another process's.
func (l *lifetime) end() {
	l.stop() // an upgrade that is under way fails
	l.door()
	l.visits.Wait()
}

// signalActions is what signals do.
type signalActions struct {
	drain   func()         // the first SIGTERM or SIGINT
	exit    func(code int) // the second
	upgrade func()         // SIGHUP; it must not wait
}

// onSignals acts on signals until stop is called. ctx ends when drain was called.
func onSignals(ctx context.Context, logger *slog.Logger, do signalActions) (stop func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
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
