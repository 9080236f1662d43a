package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/internal/cgroup"
	"github.com/millrace/millrace/internal/settings"
	"github.com/millrace/millrace/netio/handoff"
)

// serveCommand is `millrace serve`.
type serveCommand struct {
	settings.Settings `embed:""`
}

// Run serves until a signal ends it, or until another process serves in its place. The first SIGTERM or
// SIGINT drains, the second exits at once; SIGHUP upgrades.
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
	before, err := predecessor(world.environment)
	if err != nil {
		return err
	}
	served, signals, err := newServed(options, before)
	if err != nil {
		return explainListen(err, configured)
	}
	life := newLifetime(logger, served, signals, func(code int) {
		lines.close()
		os.Exit(code)
	})
	defer life.end()
	ctx := life.ctx
	go tuneCollector(ctx)
	if configured.Demo {
		defer startWorkers(ctx, served, logger)()
	}
	announce(logger, served.Addr(), configured)
	if before != nil {
		tellMainPID(logger, os.Getpid())
	} else {
		notify(logger, daemon.SdNotifyReady)
	}
	defer feedWatchdog(served, logger)()
	if err := served.Run(ctx); err != nil {
		return explainListen(err, configured)
	}
	return life.upgrades.orphaned()
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

// newServed makes a gateway, or one that goes on with what the process before it had, and catches signals
// for it.
func newServed(options gateway.Options, before *handoff.Conn) (*gateway.Gateway, chan os.Signal, error) {
	if before == nil {
		served, err := gateway.New(options)
		return served, catchSignals(), err
	}
	defer before.Close()
	signals := catchSignals() // a signal must not end a process that has just taken over
	served, err := inherit(options, before, signals)
	return served, signals, err
}

// announce says in one line where the gateway serves, and warns of what is open. The gateway listens
// already.
func announce(logger *slog.Logger, address net.Addr, configured *settings.Settings) {
	if configured.InsecureNoAuth && !configured.Authenticated() && !settings.Address(address.String()).Loopback() {
		logger.Warn("there is no authentication: whoever reaches this address may read and publish everything", "listen", address.String())
	}
	source := "this process's memory"
	if configured.Redis != "" {
		source = configured.Redis.String()
	}
	logger.Info("serving "+addressOf(settings.Address(address.String())), "source", source, "authentication", configured.Authenticated())
}

// notify tells systemd, where it started this process, how far we are.
func notify(logger *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		logger.Warn("systemd could not be told", "state", state, "error", err)
	}
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
