package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/netio/handoff"
)

const (
	// handoffVariable tells a successor the descriptor of its connection to the process that it takes
	// over from.
	handoffVariable = "MILLRACE_HANDOFF"
	// handoffDescriptor is that descriptor: the first behind the standard ones.
	handoffDescriptor = 3
	// successorEndTime is how long a successor that is not to be gets to end by itself.
	successorEndTime = 5 * time.Second
	// orphanTime is how long the end of a successor may take to be known.
	orphanTime = 500 * time.Millisecond
)

// predecessor gives the connection to the process that this one takes over from, nil if there is none.
func predecessor(environment []string) (*handoff.Conn, error) {
	for _, variable := range environment {
		text, found := strings.CutPrefix(variable, handoffVariable+"=")
		if !found || text == "" {
			continue
		}
		number, err := strconv.Atoi(text)
		if err != nil || number <= 2 {
			return nil, fmt.Errorf("%s is set to %q: it is for a process that another one starts to take over from it; unset it", handoffVariable, text)
		}
		return handoff.FromFile(os.NewFile(uintptr(number), "handoff"))
	}
	return nil, nil
}

// inherit takes over from the process before. A signal that ends gateways ends the attempt; where it is too
// late for that, it is left to the gateway that there is then. SIGHUP is left to the process before.
func inherit(options gateway.Options, before *handoff.Conn, signals chan os.Signal) (*gateway.Gateway, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	over, heard := make(chan struct{}), make(chan os.Signal, 1)
	go func() {
		defer close(heard)
		for {
			select {
			case received := <-signals:
				if received != syscall.SIGHUP {
					heard <- received
					cancel()
					return
				}
			case <-over:
				return
			}
		}
	}()
	options.Logger.Info("taking over from another process")
	served, err := gateway.Inherit(ctx, options, before, softwareVersion())
	close(over)
	if received, came := <-heard; came {
		select {
		case signals <- received:
		default: // as many have come since
		}
	}
	return served, err
}

// upgrader hands this process's streams to a successor that it starts.
type upgrader struct {
	served *gateway.Gateway
	logger *slog.Logger
	ctx    context.Context // ends when the gateway drains
	// binary is the program file that this process was started from; by now another version may be
	// there.
	binary string
	// retired says that a successor serves: it speaks with systemd from then on.
	retired atomic.Bool
	ended   <-chan error // how that successor ended; set before retired
	busy    sync.Mutex   // held while one is under way
	// visits are those who asked for an upgrade and have not heard how it ended, and the door where they
	// come.
	visits    sync.WaitGroup
	closeDoor func()
}

var errRetired = errors.New("another process serves already, and can be upgraded; this one only ends what was left to it")

func newUpgrader(ctx context.Context, served *gateway.Gateway, logger *slog.Logger) *upgrader {
	binary, err := os.Executable()
	if err != nil {
		binary = os.Args[0]
	}
	return &upgrader{
		served: served, logger: logger, ctx: ctx, binary: strings.TrimSuffix(binary, " (deleted)"), closeDoor: func() {},
	}
}

// upgrade starts binary, or, where that is empty, what now stands in the place of this process's own,
// with the same arguments and environment, and hands it all streams. On an error this process serves
// on.
func (u *upgrader) upgrade(binary string, tell func(gateway.Progress)) (pid int, err error) {
	if !u.busy.TryLock() {
		u.logger.Warn("not upgraded", "error", gateway.ErrHandingOver)
		return 0, gateway.ErrHandingOver
	}
	defer u.busy.Unlock()
	if u.retired.Load() {
		u.logger.Warn("not upgraded", "error", errRetired)
		return 0, errRetired
	}
	if binary == "" {
		binary = u.binary
	}
	u.logger.Info("upgrading", "binary", binary)
	notify(u.logger, daemon.SdNotifyReloading)
	began := time.Now()
	pid, err = u.handTo(binary, tell)
	if err != nil {
		u.logger.Error("the upgrade failed; this process serves on", "binary", binary, "error", err)
		notify(u.logger, daemon.SdNotifyReady)
		return 0, err
	}
	tellMainPID(u.logger, pid) // before this process, the main one until then, may end
	u.logger.Info("upgraded: another process serves; this one ends with its last request and council", "pid", pid, "took", time.Since(began).Round(time.Millisecond))
	return pid, nil
}

func (u *upgrader) handTo(binary string, tell func(gateway.Progress)) (pid int, err error) {
	if first, _ := os.ReadFile("/proc/1/comm"); endsContainer(os.Getpid(), os.Getppid(), strings.TrimSpace(string(first))) {
		return 0, errors.New("this process is the first of its container, or the child of an init that waits for it, and the container ends with it: start another container and end this one, which drains")
	}
	if err := u.served.CheckHandOver(); err != nil {
		return 0, err
	}
	conn, file, err := handoff.Pair()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	next, err := startSuccessor(binary, file)
	file.Close()
	if err != nil {
		return 0, fmt.Errorf("start the successor: %w", err)
	}
	if err := u.served.HandOver(u.ctx, conn, softwareVersion(), tell); err != nil {
		conn.Close()
		return 0, errors.Join(err, next.end())
	}
	u.ended = next.ended
	u.retired.Store(true)
	u.closeDoor() // who looks for a gateway finds the one that serves
	return next.process.Pid, nil
}

// successor is a process that is started to take over.
type successor struct {
	process *os.Process
	ended   <-chan error // how it ended, once
}

// errEndedElsewhere is how the end of a process looks to who is not its parent.
var errEndedElsewhere = errors.New("an exit code that only the service manager knows")

// startSuccessor starts binary with this process's arguments and environment, and file as its connection.
//
// Where a service manager started this process, the successor is made a child of that one (CLONE_PARENT), and
// so a sibling. To be told which process is the main one by now is not enough for systemd: at a stop, or when
// the watchdog was not fed, it asks the process to end and waits, but only for a child of its own. Anybody
// else's it kills at once, and with it every stream that it was to drain. What counts is whose child it is at
// the moment when systemd is told.
func startSuccessor(binary string, file *os.File) (*successor, error) {
	command := exec.Command(binary, os.Args[1:]...)
	command.Env = append(environmentOfSuccessor(), handoffVariable+"="+strconv.Itoa(handoffDescriptor))
	command.ExtraFiles = []*os.File{file}
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	wait, sibling := command.Wait, -1
	if isManaged() {
		command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_PARENT, PidFD: &sibling}
		wait = func() error { return awaitSibling(sibling) }
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- wait() }()
	return &successor{process: command.Process, ended: ended}, nil
}

// isManaged reports whether a service manager, which is told of processes, started this one, and the kernel
// (from 5.3 on) can tell of the end of a process that is not a child.
func isManaged() bool {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return false
	}
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return false
	}
	unix.Close(self)
	return true
}

// awaitSibling waits for the end of the process that a descriptor is of, and closes that.
func awaitSibling(process int) error {
	defer unix.Close(process)
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}, -1)
		if err == nil {
			return errEndedElsewhere
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for the successor: %w", err)
		}
	}
}

// end waits for a successor that is not to be, and says how it ended if that was no wish of ours.
func (s *successor) end() error {
	select {
	case err := <-s.ended:
		if err != nil {
			return fmt.Errorf("the successor ended with %w; its log says why", err)
		}
		return nil
	case <-time.After(successorEndTime):
		_ = s.process.Kill()
		<-s.ended
		return errors.New("the successor did not end by itself and was killed")
	}
}

// orphaned says that the process that serves in the place of this one has failed, as this one ends: then
// nobody serves, and who watches over this one is to start another.
func (u *upgrader) orphaned() error {
	if !u.retired.Load() {
		return nil
	}
	select {
	case err := <-u.ended:
		if err != nil {
			return fmt.Errorf("the process that took over ended with %w: nobody serves", err)
		}
	case <-time.After(orphanTime):
	}
	return nil
}

// containerInits are programs that containers are given as their first process, and that end with their
// child, by the names of their processes.
var containerInits = []string{"tini", "docker-init", "dumb-init", "catatonit"}

// endsContainer reports whether a container ends with the process pid; first is the name of its first one.
func endsContainer(pid, parent int, first string) bool {
	return pid == 1 || parent == 1 && slices.Contains(containerInits, first)
}

// environmentOfSuccessor is this process's environment, but for what concerns this process alone:
// sockets that were passed to it, and by whom systemd's watchdog is to be fed.
func environmentOfSuccessor() (environment []string) {
	for _, variable := range os.Environ() {
		switch name, _, _ := strings.Cut(variable, "="); name {
		case handoffVariable, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID":
		default:
			environment = append(environment, variable)
		}
	}
	return environment
}

// tellMainPID tells systemd which process serves now. Both tell it: systemd takes a service for ended if its
// main process ends before it heard of another one, and either of the two may be late, or gone.
func tellMainPID(logger *slog.Logger, pid int) {
	notify(logger, fmt.Sprintf("MAINPID=%d\n%s", pid, daemon.SdNotifyReady))
}
