package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/internal/cgroup"
	"github.com/millrace/millrace/internal/settings"
)

// serveCommand is `millrace serve`.
type serveCommand struct {
	settings.Settings `embed:""`
}

// Run serves until a signal ends it. The first SIGTERM or SIGINT drains, the second exits at once.
func (c *serveCommand) Run(world *process) error {
	loaded, keys := checked(c.Settings, world)
	if len(loaded.Problems) > 0 {
		return loaded.Problems
	}
	if keys.Placeholder() {
		return settings.ErrPlaceholder
	}
	configured := &loaded.Settings
	if configured.CouncilPlaceholder() {
		return settings.ErrCouncilPlaceholder
	}
	lines := newLogQueue(world.stderr)
	defer lines.close()
	logger := newLogger(lines, isTerminal(world.stderr), &configured.LogSettings)
	for _, warning := range loaded.Warnings {
		logger.Warn(warning.Error())
	}
	sockets, err := takeSockets(activation.Files(true)) // and no child finds the variables
	if err != nil {
		return err
	}
	sockets.announce(logger)
	options := gatewayOptions(configured, keys, logger)
	options.Listener, options.AdminListener = sockets.serves, sockets.admin
	options.LogLinesDropped = lines.dropped.Load
	if bound := cgroup.Own(); bound != nil {
		options.Memory = bound
		boundCollector(bound.Limit())
	}
	served, err := gateway.New(options)
	if err != nil {
		return explainListen(err, configured)
	}
	ctx, stop := drainOnSignal(logger, func(code int) {
		lines.close()
		os.Exit(code)
	})
	defer stop()
	go tuneCollector(ctx)
	if configured.Demo {
		defer startWorkers(ctx, served, logger)()
	}
	announce(logger, served.Addr(), configured)
	defer feedWatchdog(served, logger)()
	if err := served.Run(ctx); err != nil {
		return explainListen(err, configured)
	}
	return nil
}

// checked loads the settings and finds everything that is wrong with them, also what only the
// gateway itself knows.
func checked(flags settings.Settings, world *process) (*settings.Loaded, settings.Keys) {
	loaded := settings.Load(flags, world.given, world.environment)
	keys := loaded.Check()
	if len(loaded.Problems) == 0 {
		if err := gatewayOptions(&loaded.Settings, keys, nil).Check(); err != nil {
			loaded.Note(err)
		}
	}
	return loaded, keys
}

// announce says in one line where the gateway serves, warns of what is open, and tells systemd
// that we are ready: the gateway listens already.
func announce(logger *slog.Logger, address net.Addr, configured *settings.Settings) {
	if configured.InsecureNoAuth && !configured.Authenticated() && !settings.Address(address.String()).Loopback() {
		logger.Warn("there is no authentication: whoever reaches this address may read and publish everything", "listen", address.String())
	}
	source := "this process's memory"
	if configured.Redis != "" {
		source = configured.Redis.String()
	}
	logger.Info("serving "+addressOf(settings.Address(address.String())), "source", source, "authentication", configured.Authenticated())
	notify(logger, daemon.SdNotifyReady)
}

// notify tells systemd, where it started this process, how far we are.
func notify(logger *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		logger.Warn("systemd could not be told", "state", state, "error", err)
	}
}

// drainOnSignal gives a context that the first SIGTERM or SIGINT ends; the second one calls exit,
// at once. stop ends the watch.
func drainOnSignal(logger *slog.Logger, exit func(code int)) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case received := <-signals:
				if ctx.Err() != nil && received != syscall.SIGHUP {
					logger.Warn("a second signal ends the gateway at once", "signal", received.String())
					exit(exitFailure)
				}
				handleSignal(logger, received, cancel)
			case <-ended:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(ended)
		cancel()
	}
}

// handleSignal acts on one signal.
func handleSignal(logger *slog.Logger, received os.Signal, drain func()) {
	if received == syscall.SIGHUP {
		logger.Info("SIGHUP is ignored: settings are read at start only, so restart to change them")
		return
	}
	logger.Info("told to end: streams are drained first; a second signal ends at once", "signal", received.String())
	notify(logger, daemon.SdNotifyStopping)
	drain()
}

// explainListen adds to a failure to listen what to do about it.
func explainListen(err error, configured *settings.Settings) error {
	hint := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		_, port, _ := net.SplitHostPort(string(configured.Listen))
		if admin := string(configured.AdminListen); admin != "" && strings.Contains(err.Error(), admin) {
			_, port, _ = net.SplitHostPort(admin)
		}
		hint = fmt.Sprintf("another program, perhaps another gateway, has this port (`ss -ltnp 'sport = :%s'` shows which): "+
			"stop it, choose another address with --listen, or give --reuse-port to every gateway that shares it", port)
	case errors.Is(err, syscall.EACCES):
		hint = "this user may not use that port: choose one above 1023 with --listen, or grant CAP_NET_BIND_SERVICE"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		hint = "this machine has no such address: choose one that `ip address` shows, or 0.0.0.0 for all, with --listen"
	default:
		return fmt.Errorf("serve: %w", err)
	}
	return fmt.Errorf("serve: %w; %s", err, hint)
}
