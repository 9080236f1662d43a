package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// How long a process may take to open its door, and how often that is looked at.
const (
	doorOpenTime = 3 * time.Second
	doorOpenPoll = 10 * time.Millisecond
)

// upgradeCommand is `millrace upgrade`.
type upgradeCommand struct {
	PID    int    `name:"pid" placeholder:"PID" help:"Process to upgrade; without it the one gateway of this machine."`
	Binary string `name:"binary" placeholder:"FILE" type:"path" help:"Program to upgrade to; without it what now stands where the running one was started from."`
}

// Run has a gateway hand all its streams to a new process, and says how far it is.
func (c *upgradeCommand) Run(world *process) error {
	pid, err := c.choose()
	if err != nil {
		return err
	}
	if c.Binary != "" {
		if c.Binary, err = filepath.Abs(c.Binary); err != nil {
			return err
		}
	}
	door, err := knock(pid)
	if err != nil {
		return fmt.Errorf("reach process %d: %w; is it a gateway, on this machine and in this network namespace? `kill -HUP %d` upgrades it too", pid, err, pid)
	}
	defer door.Close()
	who, err := peerOf(door.(*net.UnixConn))
	if err != nil {
		return fmt.Errorf("ask who answers for process %d: %w", pid, err)
	}
	if int(who.Pid) != pid && who.Pid != 0 { // 0: a process that this namespace does not see
		return fmt.Errorf("process %d answers in the place of %d: its door was opened by somebody else", who.Pid, pid)
	}
	if err := json.NewEncoder(door).Encode(upgradeQuestion{Binary: c.Binary}); err != nil {
		return fmt.Errorf("ask process %d: %w", pid, err)
	}
	return followUpgrade(world.stdout, door, pid)
}

// knock goes to the door of a process. One that has only just been handed its streams may not have
// opened it yet.
func knock(pid int) (door net.Conn, err error) {
	for deadline := time.Now().Add(doorOpenTime); ; <-time.After(doorOpenPoll) {
		door, err = net.Dial("unix", doorPrefix+strconv.Itoa(pid))
		if err == nil || time.Now().After(deadline) || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return door, err
		}
	}
}

// choose gives the process to upgrade.
func (c *upgradeCommand) choose() (pid int, err error) {
	if c.PID > 0 {
		return c.PID, nil
	}
	pids, err := doors()
	if err != nil {
		return 0, err
	}
	switch len(pids) {
	case 0:
		return 0, errors.New("no gateway was found on this machine; say which process by --pid")
	case 1:
		return pids[0], nil
	default:
		return 0, errUsage("there are several gateways, with the process ids %s; say which by --pid", strings.Trim(fmt.Sprint(pids), "[]"))
	}
}

// doorOf reads the process id out of a line of /proc/net/unix, if it names a door.
func doorOf(line string) (pid int, ok bool) {
	_, name, found := strings.Cut(line, doorPrefix)
	if !found {
		return 0, false
	}
	pid, err := strconv.Atoi(name)
	return pid, err == nil && pid > 0
}

// followUpgrade prints what the gateway says until it has ended.
func followUpgrade(output io.Writer, answer io.Reader, from int) error {
	last := ""
	for decoder := json.NewDecoder(answer); ; {
		var word upgradeWord
		if err := decoder.Decode(&word); err != nil {
			return fmt.Errorf("process %d ended its answer before it said how the upgrade ended; its log says more: %w", from, err)
		}
		switch {
		case word.Error != "":
			return fmt.Errorf("process %d serves on: %s", from, strings.ReplaceAll(word.Error, "\n", "; "))
		case word.PID != 0:
			_, err := fmt.Fprintf(output, "process %d serves now, in the place of %d\n", word.PID, from)
			return err
		}
		line := word.Stage
		if word.Streams > 0 {
			line = fmt.Sprintf("%s: %d of %d streams", word.Stage, word.Streams, word.Total)
		}
		if line != last {
			last = line
			if _, err := fmt.Fprintln(output, line); err != nil && !errors.Is(err, os.ErrClosed) {
				return err
			}
		}
	}
}
