package netio

import (
	"bytes"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file serves at once: a connection whose first request has come whole by the time it is
// accepted, and has no body, is not given to netpoll before its handler has returned. Most such
// requests become streams, and are spared the way into netpoll's epoll instance and out again. Of
// what the client sent only the head is taken from the kernel; whoever owns the socket next, a
// loop or netpoll, finds the rest there.

// serveAtOnce serves a connection just accepted if it can, and else leaves it as it is. room is
// for what came. It runs on the poller.
func (d *Desk) serveAtOnce(fd int, remote netip.AddrPort, room []byte) bool {
	length, errno := receive(fd, room, syscall.MSG_PEEK)
	if errno != 0 || length == 0 {
		return false
	}
	first, relay := 0, d.relayOf(remote.Addr())
	if relay.awaited {
		var fault *deskFault
		if first, relay, fault = readRelay(room[:length]); fault != nil || first == 0 {
			return false
		}
	}
	var scan headScan
	end, fault := scan.advance(room[first:length], d.limits)
	if fault != nil || end == 0 || scan.hasBody() {
		return false
	}
	// With MSG_TRUNC a stream's bytes are thrown away and not copied (tcp(7)).
	whole := first + end
	if taken, errno := receive(fd, room[:whole], syscall.MSG_TRUNC); errno != 0 || taken != whole {
		return false // reset since
	}
	c := newDeskConn(d, fd, remote, deskWorking, deskWatchEvery)
	c.taken, c.relay = uint64(whole), relay
	d.counts.atOnce.Add(1)
	d.enter(c)
	go c.runAtOnce(bytes.Clone(room[first:whole]), &scan)
	return true
}

// receive wraps recvfrom(2), without waiting.
func receive(fd int, p []byte, flags uintptr) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)),
		flags|syscall.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// runAtOnce is the task of a connection that is served at once.
func (c *deskConn) runAtOnce(head []byte, scan *headScan) {
	growStack()
	returned := false
	defer func() {
		if !returned { // a handler has ended the goroutine (runtime.Goexit)
			c.close()
		}
	}()
	request, _, fault := c.parse(head, scan)
	if fault != nil {
		c.refuse(fault, scan.isHead)
	} else {
		c.serve(request, nil, scan)
	}
	returned = true
}

// parkAtOnce hands the socket over: there is nobody who has to let go of it.
func (c *deskConn) parkAtOnce() {
	c.moveTo(deskClosed, 0)
	c.desk.forget(c)
	c.desk.adopt(c)
}

// closeAtOnce closes a connection that netpoll does not know. Its phase is closed already.
func (c *deskConn) closeAtOnce() {
	c.desk.forget(c)
	syscall.Close(c.fd)
	c.desk.left()
}

// goOn has netpoll take on a connection that was served at once and is not at its end. It is not
// the task's any more.
func (c *deskConn) goOn() {
	if !c.desk.listener.take(c) {
		c.close()
	}
}

// watchAtOnce looks whether the client of a request that is being worked on has gone or will send
// no more, as netpoll's poller would have told. Called with mu held, while a task is running.
func (c *deskConn) watchAtOnce() {
	look := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLRDHUP}}
	if n, err := unix.Poll(look, 0); err == nil && n > 0 && c.cancel != nil {
		c.cancel()
	}
}

// hasBehind says whether the client has sent more than the request that is being answered.
func (c *deskConn) hasBehind() bool {
	if c.connection == nil {
		var next [1]byte
		length, _ := receive(c.fd, next[:], syscall.MSG_PEEK)
		return length > 0
	}
	return c.connection.Reader().Len() > 0 || len(c.input) > 0
}

// growStack makes the goroutine's stack as large as a request needs in one step, while there is
// next to nothing on it to be copied. By itself it would double two or three times on the way down.
//
//go:noinline
func growStack() byte {
	var room [6 << 10]byte
	return room[stackProbe]
}

// stackProbe is not constant, so that the compiler leaves growStack its room.
var stackProbe int
