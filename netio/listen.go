package netio

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// soReusePort is SO_REUSEPORT, which package syscall does not have on every platform.
const soReusePort = 0xf

// Pauses of accepting when there is no descriptor left.
const (
	acceptPauseMin = 10 * time.Millisecond
	acceptPauseMax = time.Second
	// acceptShedMax is how many waiting connections are closed before a pause, by lending them
	// the reserve descriptor one after the other.
	acceptShedMax = 16
	// acceptAtOnceMax is how many connections are served at once before the poller looks after
	// the others again.
	acceptAtOnceMax = 16
	// acceptStopTime bounds how long a stopped listener goes on taking connections that are
	// complete in the kernel already, which closing the socket would reset.
	acceptStopTime = 100 * time.Millisecond
)

// DeskListener is a listening TCP socket for one [Desk]. What netpoll polls is not the socket
// itself but a gate, an epoll instance of our own that holds
//
//	the listening socket   taken out while accepting is paused or stopped
//	the bell, an eventfd   rung by a connection that must know that the poller has moved on
//
// so accepting can be paused without netpoll's help (which would log each failure and never shed),
// and a desk that no longer listens can still ring (see pollerTurn).
//
// Connections come out non-blocking and close-on-exec; TCP_NODELAY they inherit.
type DeskListener struct {
	address net.Addr
	gate    int // epoll instance
	bell    int // eventfd
	polled  chan struct{}
	stopped chan struct{} // closed once nothing is accepted any more
	// inherited says that accepted sockets have the options of the listening one. Else each is set
	// its own, and userTimeout is what SetUserTimeout wants.
	inherited   bool
	userTimeout time.Duration
	// passed says that the socket is another process's, whose options stay until we serve.
	passed bool

	room []byte // for a first look at what came; the poller's

	rung atomic.Bool // somebody waits for the bell

	mu       sync.Mutex // guards all below; Accept runs on the poller, the rest anywhere
	socket   int        // -1 once closed
	reserve  int        // a descriptor to lend when there is none left; -1 if lent
	desk     *Desk
	isPolled bool
	stopping bool
	closed   bool
	paused   bool
	held     bool // paused until Unhold
	pause    time.Duration
	resume   *time.Timer
	goingOn  []*deskConn     // rang for the poller to take them on
	waiting  []chan struct{} // rang, not seen by the poller yet
	seen     []chan struct{} // seen by the poller in an earlier turn than the next
}

// Listen opens a TCP socket on address (host:port; port 0 takes a free one; an empty host means
// all addresses, of IPv4 and IPv6). With reusePort several processes may listen on the same
// address and the kernel spreads connections over them.
func Listen(address string, reusePort bool) (*DeskListener, error) {
	config := net.ListenConfig{KeepAlive: -1}
	config.SetMultipathTCP(false) // whose listening sockets do not take all our options
	if reusePort {
		config.Control = func(_, _ string, raw syscall.RawConn) error {
			var failure error
			err := raw.Control(func(fd uintptr) {
				failure = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, soReusePort, 1)
			})
			return errors.Join(err, failure)
		}
	}
	listener, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("netio: listen: %w", err)
	}
	return ListenOn(listener)
}

// ListenOn takes over a listening TCP socket that was opened elsewhere, by systemd for instance.
// The net.Listener is closed in any case; the socket stays open if the error is nil.
func ListenOn(listener net.Listener) (*DeskListener, error) { return listenOn(listener, false) }

// listenOn is ListenOn for a socket that is passed by another process, which serves on it, or is not.
func listenOn(listener net.Listener, passed bool) (*DeskListener, error) {
	defer listener.Close()
	tcp, ok := listener.(*net.TCPListener)
	if !ok {
		return nil, fmt.Errorf("netio: cannot serve on a %T: a TCP listener is needed", listener)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("netio: take over the listening socket: %w", err)
	}
	l := &DeskListener{
		address: tcp.Addr(), gate: -1, bell: -1, socket: -1, reserve: -1, userTimeout: userTimeoutDefault,
		polled: make(chan struct{}), stopped: make(chan struct{}), passed: passed,
	}
	var failure error
	err = raw.Control(func(fd uintptr) { failure = l.open(int(fd)) })
	if err = errors.Join(err, failure); err != nil {
		l.Close()
		return nil, fmt.Errorf("netio: take over the listening socket: %w", err)
	}
	return l, nil
}

// userTimeoutDefault is TCP_USER_TIMEOUT unless [DeskListener.SetUserTimeout] says otherwise: data
// unacknowledged, or a window closed, for so long ends the connection.
const userTimeoutDefault = 30 * time.Second

// SetUserTimeout sets for how long the peer of a connection that is accepted from now on may leave
// data unacknowledged, or take none, before the kernel ends the connection; 0 is the kernel's own
// patience, about a quarter of an hour. Who has a stall limit of their own sets this above it. Call
// it before the listener serves.
func (l *DeskListener) SetUserTimeout(limit time.Duration) error {
	l.userTimeout = limit
	if err := l.setOptions(); err != nil {
		return fmt.Errorf("netio: %w", err)
	}
	return nil
}

// setOptions sets on the listening socket what the accepted ones inherit.
func (l *DeskListener) setOptions() error {
	if l.passed {
		return nil
	}
	err := setSocketOptions(l.socket, l.userTimeout)
	// A socket that we were given may be one of Multipath TCP, which leaves some options to the
	// accepted sockets.
	if l.inherited = err == nil; errors.Is(err, syscall.ENOPROTOOPT) {
		return nil
	}
	return err
}

// setSocketOptions sets on a listening socket what every accepted one inherits, which spares
// two system calls a connection.
func setSocketOptions(socket int, userTimeout time.Duration) error {
	for _, option := range []struct {
		name               string
		level, code, value int
	}{
		{"TCP_NODELAY", syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},
		{"TCP_USER_TIMEOUT", syscall.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout / time.Millisecond)},
	} {
		if err := syscall.SetsockoptInt(socket, option.level, option.code, option.value); err != nil {
			return fmt.Errorf("set %s: %w", option.name, err)
		}
	}
	return nil
}

// open duplicates the listening socket, so that Go's own poller has no part in it, and sets up
// gate, bell and reserve.
func (l *DeskListener) open(socket int) (err error) {
	if l.socket, err = duplicate(socket); err != nil {
		return fmt.Errorf("duplicate: %w", err)
	}
	if err = syscall.SetNonblock(l.socket, true); err != nil {
		return fmt.Errorf("set non-blocking: %w", err)
	}
	if err = l.setOptions(); err != nil {
		return err
	}
	if l.gate, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll_create1: %w", err)
	}
	bell, _, errno := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if errno != 0 {
		return fmt.Errorf("eventfd2: %w", errno)
	}
	l.bell = int(bell)
	if l.reserve, err = duplicate(l.bell); err != nil {
		return fmt.Errorf("reserve a descriptor: %w", err)
	}
	for _, fd := range []int{l.socket, l.bell} {
		if err = l.let(fd, true); err != nil {
			return fmt.Errorf("epoll_ctl: %w", err)
		}
	}
	return nil
}

func duplicate(fd int) (int, error) {
	copied, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(copied), nil
}

// let puts fd into the gate or takes it out.
func (l *DeskListener) let(fd int, in bool) error {
	operation := syscall.EPOLL_CTL_DEL
	if in {
		operation = syscall.EPOLL_CTL_ADD
	}
	return syscall.EpollCtl(l.gate, operation, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)})
}

// Addr is the address listened on, with the port that was taken for port 0.
func (l *DeskListener) Addr() net.Addr { return l.address }

// Fd is the gate's descriptor, for netpoll.
func (l *DeskListener) Fd() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isPolled {
		l.isPolled = true
		close(l.polled)
	}
	return l.gate
}

// attach gives the listener to a desk, once.
func (l *DeskListener) attach(d *Desk) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.stopping {
		return errors.New("netio: the listener is closed")
	}
	if l.desk != nil {
		return errors.New("netio: the listener already serves a desk; open another one")
	}
	if l.passed {
		l.passed = false
		_ = l.setOptions() // else they are set on each accepted socket
	}
	l.desk = d
	l.room = make([]byte, d.firstBytesMax())
	return nil
}

// Accept is called by netpoll, on its poller, whenever the gate is readable: not meant for
// others. It never returns an error: each that accept(2) knows is either passing or handled here.
// It gives netpoll one connection a call, and passes over those that it could serve at once.
func (l *DeskListener) Accept() (net.Conn, error) {
	for range acceptAtOnceMax {
		accepted, ok := l.next()
		if !ok {
			return nil, nil
		}
		if accepted.remote.conn != nil || !l.desk.serveAtOnce(accepted.fd, accepted.remote.AddrPort, l.room) {
			given := accepted // a copy, so that the heap sees no connection that was served at once
			return &given, nil
		}
	}
	return nil, nil // the gate is still readable
}

// next is the next connection for netpoll: one that was served at once and goes on, or a new one.
func (l *DeskListener) next() (accepted deskAccepted, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return accepted, false
	}
	if l.rung.Load() {
		if c := l.ring(); c != nil {
			return deskAccepted{fd: c.fd, local: l.address, remote: deskRemote{conn: c}}, true
		}
	}
	if l.paused || l.socket < 0 {
		return accepted, false
	}
	fd, remote, err := accept(l.socket)
	switch err {
	case nil:
		l.pause = 0
		if reason, refused := l.desk.admit(fd); refused {
			l.desk.counts.refuse(reason)
			syscall.Close(fd)
			return accepted, false
		}
		if !l.inherited {
			_ = setSocketOptions(fd, l.userTimeout) // of a connection that may be gone already
		}
		return deskAccepted{fd: fd, local: l.address, remote: deskRemote{AddrPort: remote}}, true
	case syscall.EAGAIN:
		if l.stopping {
			l.closeSocket()
		}
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM:
		l.exhausted(err)
	}
	// What is left (ECONNABORTED, EINTR, EPROTO and the network's errors) is about one connection
	// that is gone: the next turn takes the next one.
	return accepted, false
}

// exhausted closes a few waiting connections, so that their clients try elsewhere rather than
// hang, and pauses accepting. Called with mu held.
func (l *DeskListener) exhausted(err error) {
	l.shed()
	l.pause = min(max(2*l.pause, acceptPauseMin), acceptPauseMax)
	if l.let(l.socket, false) != nil {
		return // still in the gate: the next turn tries again
	}
	l.paused = true
	l.resume = time.AfterFunc(l.pause, l.unpause)
	l.desk.acceptFailed(err, l.pause)
}

// shed lends the reserve descriptor to waiting connections, one after the other, and closes them.
func (l *DeskListener) shed() {
	if l.reserve < 0 {
		l.reserve, _ = duplicate(l.bell)
		return
	}
	for range acceptShedMax {
		syscall.Close(l.reserve)
		fd, _, err := accept(l.socket)
		if err == nil {
			l.desk.counts.refuse(RefusedDescriptors)
			syscall.Close(fd)
		}
		// Somebody else may have been faster; then the reserve is made again at the next pause.
		var failure error
		if l.reserve, failure = duplicate(l.bell); failure != nil {
			l.reserve = -1
			return
		}
		if err != nil {
			return
		}
	}
}

func (l *DeskListener) unpause() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.socket < 0 || !l.paused || l.held {
		return
	}
	if err := l.let(l.socket, true); err != nil {
		l.resume = time.AfterFunc(acceptPauseMax, l.unpause) // epoll_ctl wants memory that there is not
		return
	}
	l.paused = false
}

// pollerTurn returns a channel that is closed once the poller has finished the turn it is in, and
// with it everything it may still do to a connection that was taken out of its epoll instance
// before the call. Closed at once if the listener is closed.
//
// The bell alone does not prove that: the poller may find it rung while it is still working on
// events it fetched before. A listener has at most one event in a turn, though, so the second time
// that the poller finds the bell it is in a turn that began after the first, and that first turn
// is over.
func (l *DeskListener) pollerTurn() <-chan struct{} {
	done := make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		close(done)
		return done
	}
	l.waiting = append(l.waiting, done)
	l.rung.Store(true)
	l.strike()
	return done
}

// strike makes the bell readable.
func (l *DeskListener) strike() {
	one := [8]byte{1}
	// The counter would have to overflow for this to fail.
	syscall.RawSyscall(syscall.SYS_WRITE, uintptr(l.bell), uintptr(unsafe.Pointer(&one)), 8)
}

// ring is one turn of the poller: those seen in an earlier one are released, those that came
// since are seen. It gives one of the connections that are to go on. The bell stays readable, and
// brings the next turn, as long as there is more of either. Called with mu held.
func (l *DeskListener) ring() (c *deskConn) {
	for _, done := range l.seen {
		close(done)
	}
	l.seen, l.waiting = l.waiting, l.seen[:0]
	if last := len(l.goingOn) - 1; last >= 0 {
		c, l.goingOn[last] = l.goingOn[last], nil
		l.goingOn = l.goingOn[:last]
	}
	if len(l.seen) > 0 || len(l.goingOn) > 0 {
		return c
	}
	var count [8]byte
	syscall.RawSyscall(syscall.SYS_READ, uintptr(l.bell), uintptr(unsafe.Pointer(&count)), 8)
	l.rung.Store(false)
	return c
}

// take has the poller take on a connection that it has not seen before. It says no if the
// listener is closed.
func (l *DeskListener) take(c *deskConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.goingOn = append(l.goingOn, c)
	l.rung.Store(true)
	l.strike()
	return true
}

// stop ends accepting, after the connections that are complete in the kernel already have been
// taken. It waits for that, acceptStopTime at most. Calling it again is harmless.
func (l *DeskListener) stop() {
	l.mu.Lock()
	l.stopping = true
	if l.paused || l.desk == nil || !l.isPolled || l.closed {
		l.closeSocket()
	}
	l.mu.Unlock()
	deadline := time.NewTimer(acceptStopTime)
	defer deadline.Stop()
	for {
		select {
		case <-l.stopped:
			return
		case <-l.pollerTurn(): // brings the poller to Accept, which finds the queue empty or takes one
		case <-deadline.C:
			l.mu.Lock()
			l.closeSocket()
			l.mu.Unlock()
			return
		}
	}
}

// closeSocket closes the listening socket. Called with mu held.
func (l *DeskListener) closeSocket() {
	if l.socket < 0 {
		return
	}
	if !l.paused {
		l.let(l.socket, false) // a copy of the socket may live elsewhere, and with it the registration
	}
	syscall.Close(l.socket)
	l.socket = -1
	if l.resume != nil {
		l.resume.Stop()
	}
	close(l.stopped)
}

// Close closes the listener and releases whoever waits for its bell. A desk closes its listener
// itself. Calling it again is harmless.
func (l *DeskListener) Close() error {
	l.mu.Lock()
	goingOn := l.close()
	l.mu.Unlock()
	for _, c := range goingOn {
		c.close()
	}
	return nil
}

// close gives the connections that can no longer go on. Called with mu held.
func (l *DeskListener) close() (goingOn []*deskConn) {
	if l.closed {
		return nil
	}
	l.closed = true
	l.closeSocket()
	for _, fd := range []int{l.reserve, l.bell, l.gate} {
		if fd >= 0 {
			syscall.Close(fd)
		}
	}
	for _, done := range append(l.seen, l.waiting...) {
		close(done)
	}
	goingOn = l.goingOn
	l.seen, l.waiting, l.goingOn = nil, nil, nil
	return goingOn
}
