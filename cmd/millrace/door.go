package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/gateway"
)

// doorPrefix begins the name of the socket on which a gateway is told to upgrade; its process id
// follows. The name is abstract: no file has to be made, found or removed.
const doorPrefix = "@millrace-upgrade-"

const (
	doorQuestionMax  = 64 << 10 // bytes
	doorQuestionTime = 5 * time.Second
	doorWordTime     = 5 * time.Second // for who asked to take what is said
	doorPause        = time.Second     // before the next one is let in, where one could not be
)

// upgradeQuestion is what is asked at the door: one line of JSON.
type upgradeQuestion struct {
	Binary string `json:"binary"` // empty: what stands in the place of the running one
}

// upgradeWord is one line of the answer: how far it is, and at last how it ended.
type upgradeWord struct {
	gateway.Progress
	PID   int    `json:"pid,omitempty"`   // of the process that serves now
	Error string `json:"error,omitempty"` // why it was not done
}

// openDoor lets users of this machine that are this process's user, or root, ask for an upgrade, until
// closeDoor, or another process serves. Without a door SIGHUP still does it. It comes before anything that
// upgrades.
func (u *upgrader) openDoor() error {
	door, err := net.Listen("unix", doorPrefix+strconv.Itoa(os.Getpid()))
	if err != nil {
		return fmt.Errorf("`millrace upgrade` cannot reach this process: %w", err)
	}
	u.closeDoor = func() { _ = door.Close() }
	u.visits.Go(func() {
		for {
			visitor, err := door.Accept()
			switch {
			case err == nil:
				u.visits.Go(func() { u.receive(visitor.(*net.UnixConn)) })
			case errors.Is(err, net.ErrClosed):
				return
			default:
				<-time.After(doorPause) // there is no descriptor left, for now
			}
		}
	})
	return nil
}

// receive serves one who came to the door.
func (u *upgrader) receive(visitor *net.UnixConn) {
	defer visitor.Close()
	say := func(word upgradeWord) {
		_ = visitor.SetWriteDeadline(time.Now().Add(doorWordTime))
		_ = json.NewEncoder(visitor).Encode(word) // who asked may have gone
	}
	if who, err := peerOf(visitor); err != nil || who.Uid != 0 && int(who.Uid) != os.Geteuid() {
		say(upgradeWord{Error: "only the gateway's own user and root may upgrade it"})
		return
	}
	_ = visitor.SetReadDeadline(time.Now().Add(doorQuestionTime))
	var question upgradeQuestion
	if err := json.NewDecoder(io.LimitReader(visitor, doorQuestionMax)).Decode(&question); err != nil {
		say(upgradeWord{Error: "the question was not understood: " + err.Error()})
		return
	}
	words := make(chan gateway.Progress, 1) // the newest; who asked may be slow
	done := make(chan struct{})
	go func() {
		defer close(done)
		for progress := range words {
			say(upgradeWord{Progress: progress})
		}
	}()
	pid, err := u.upgrade(question.Binary, func(progress gateway.Progress) {
		select {
		case words <- progress:
		default: // it is no harm to miss one
		}
	})
	close(words)
	<-done
	if err != nil {
		say(upgradeWord{Error: err.Error()})
		return
	}
	say(upgradeWord{PID: pid})
}

// peerOf says which process is at the other end of a Unix socket.
func peerOf(conn *net.UnixConn) (who *unix.Ucred, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var failure error
	err = raw.Control(func(fd uintptr) { who, failure = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return who, errors.Join(err, failure)
}

// doors gives the process ids of the gateways of this machine (of its network namespace) that have a
// door.
func doors() (pids []int, err error) {
	file, err := os.Open("/proc/net/unix")
	if err != nil {
		return nil, fmt.Errorf("look for gateways: %w", err)
	}
	defer file.Close()
	found := make(map[int]bool)
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		if pid, ok := doorOf(scanner.Text()); ok && !found[pid] {
			found[pid] = true
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
