package netio

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// This file is a listener's share of a live upgrade. The listening socket is passed, never bound
// again, so that nobody is refused and no connection that waits in its queue is lost. One process
// accepts at a time: the old one holds back first, and the new one begins when it serves.

// Hold stops accepting for now: connections wait in the kernel. [DeskListener.Unhold] goes on. A
// request that is being worked on is not touched. It fails if the listener is closed or is stopping.
func (l *DeskListener) Hold() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.stopping || l.socket < 0 {
		return errors.New("netio: the listener is closed")
	}
	if !l.paused { // else for want of descriptors; that pause goes on as ours
		if err := l.let(l.socket, false); err != nil {
			return fmt.Errorf("netio: hold the listener: %w", err)
		}
	}
	l.paused, l.held = true, true
	return nil
}

// Unhold accepts again.
func (l *DeskListener) Unhold() {
	l.mu.Lock()
	l.held = false
	l.mu.Unlock()
	l.unpause()
}

// Abandon lets go of the listening socket without closing it for others: who has a copy goes on
// listening, and what waits in its queue is theirs. The rest is as after [Desk.StopAccepting].
func (l *DeskListener) Abandon() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopping = true
	l.closeSocket()
}

// Descriptor is the listening socket, -1 if it is closed. It stays the listener's, and is good as long
// as that is open.
func (l *DeskListener) Descriptor() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.socket
}

// ListenOnDescriptor takes over a listening TCP socket that came from another process, whose options it
// leaves as they are until it serves. fd is closed in any case; the socket stays open if the error is nil.
func ListenOnDescriptor(fd int) (*DeskListener, error) {
	syscall.CloseOnExec(fd)
	file := os.NewFile(uintptr(fd), "listener")
	defer file.Close()
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("netio: take over the listening socket: %w", err)
	}
	return listenOn(listener, true)
}
