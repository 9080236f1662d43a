package netio

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sys is the kernel as a loop sees it: every system call of a loop, and its clock, goes through
// here. There are two: kernel, and a simulated one that tears writes, refuses them and reorders
// events from a seed. Errors are bare errnos, 0 for none, so that no call allocates.
type sys interface {
	// now is a monotonic clock in nanoseconds; never 0.
	now() int64
	// look fills events with what happened, without waiting.
	look(events []unix.EpollEvent) (int, unix.Errno)
	// alarm bounds the next sleep: it ends at that time of the clock; 0 is no bound. now is what
	// the clock said last.
	alarm(now, due int64)
	// sleep waits until a socket may have something to tell, until wake, or for the alarm, and
	// reports whether it is time for a look. It may return early.
	sleep() (look bool)
	// rest waits until wake or for the alarm, whatever sockets may have to tell. It may return early.
	rest()
	// wake ends a sleep or a rest that is under way, or the next one. Any goroutine.
	wake()
	// epollControl changes what is watched.
	epollControl(operation, fd int, events uint32, key uint64) unix.Errno
	read(fd int, p []byte) (int, unix.Errno)
	// A piece may be the bytes of several frames, so it is no slice.
	write(fd int, piece unix.Iovec) (int, unix.Errno)
	writev(fd int, vectors []unix.Iovec) (int, unix.Errno)
	// sendMany carries out a batch by one system call, if it can: what is not finished after it was
	// not begun.
	sendMany(batch []transfer)
	canSendMany() bool
	shutdownWrite(fd int) unix.Errno
	setSendBuffer(fd, bytes int) unix.Errno
	// unacknowledged is how many bytes were written to fd that the peer has not acknowledged; -1:
	// not known.
	unacknowledged(fd int) int
	// tcpInfo is TCP_INFO, nil where there is none.
	tcpInfo(fd int) *unix.TCPInfo
	close(fd int) unix.Errno
	// end lets go of what the seam itself holds.
	end()
}

// kernel is Linux, for one loop. What a loop asks of it is raw system calls: none of them
// blocks, so the scheduler need not be told. A sleep is the Go runtime's: a loop with nothing to
// do is a parked goroutine and not a thread in a system call that holds a processor until the
// runtime notices; and it is called awake by making it runnable, without a system call
// (docs/decisions/0008). Our epoll instance is itself watched by the runtime's poller, for which
// a goroutine waits that does nothing else; so a loop that was called awake for its mail alone
// makes no system call to learn that no socket spoke (docs/decisions/0013).
type kernel struct {
	ring  *ring // nil: there is none
	epoll int
	file  *os.File // epoll, as the runtime's poller knows it
	ended chan struct{}

	// spoken says that a socket may have something to tell since the last look.
	spoken atomic.Bool
	awake  chan struct{} // holds a wake that nobody has slept for yet

	// The loop's own.
	clock *time.Timer // calls wake
	due   int64       // when clock does so, on the loop's clock; 0: it is not set
}

// newKernel makes one, with a ring if it is to have one and the kernel allows it.
func newKernel(withRing bool) (*kernel, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll instance: %w", err)
	}
	if err := unix.SetNonblock(epoll, true); err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("make an epoll instance non-blocking: %w", err)
	}
	k := &kernel{
		epoll: epoll, file: os.NewFile(uintptr(epoll), "epoll"),
		ended: make(chan struct{}), awake: make(chan struct{}, 1),
	}
	conn, err := k.file.SyscallConn()
	if err == nil {
		err = k.file.SetReadDeadline(time.Time{}) // says whether the poller has taken it
	}
	if err != nil {
		k.file.Close()
		return nil, fmt.Errorf("have the runtime watch an epoll instance: %w", err)
	}
	k.clock = time.AfterFunc(time.Hour, k.wake)
	k.clock.Stop()
	go k.watch(conn)
	if withRing {
		k.ring, _ = newRing() // without one, each socket is written to by a call of its own
	}
	return k, nil
}

// watch tells the loop that a socket spoke, until the epoll instance is closed. The poller tells
// of a change once; one that comes between two waits is kept, since this is one Read for all of
// them.
func (k *kernel) watch(conn syscall.RawConn) {
	defer close(k.ended)
	_ = conn.Read(func(uintptr) (done bool) {
		k.spoken.Store(true)
		k.wake()
		return false
	})
}

func (*kernel) now() int64 { return Clock() }

func (k *kernel) look(events []unix.EpollEvent) (int, unix.Errno) {
	k.spoken.Store(false) // first: what is said from here on may be missed below
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(k.epoll),
		uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		k.spoken.Store(true)
		return 0, errno
	}
	if n > 0 {
		k.spoken.Store(true) // there may be more, of which nobody tells again
	}
	return int(n), 0
}

func (k *kernel) sleep() (look bool) {
	if !k.spoken.Load() {
		<-k.awake
	}
	return k.spoken.Load()
}

func (k *kernel) rest() { <-k.awake }

// alarm sets the clock. One that is set already and ends the sleep earlier will do.
func (k *kernel) alarm(now, due int64) {
	if due == 0 || k.due > now && k.due <= due {
		return
	}
	k.clock.Reset(time.Duration(due - now))
	k.due = due
}

func (k *kernel) wake() {
	select {
	case k.awake <- struct{}{}:
	default:
	}
}

func (k *kernel) epollControl(operation, fd int, events uint32, key uint64) unix.Errno {
	event := unix.EpollEvent{Events: events, Fd: int32(uint32(key)), Pad: int32(uint32(key >> 32))}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(k.epoll), uintptr(operation), uintptr(fd),
		uintptr(unsafe.Pointer(&event)), 0, 0)
	return errno
}

func (*kernel) read(fd int, p []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

func (*kernel) write(fd int, piece unix.Iovec) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(piece.Base)), uintptr(piece.Len))
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

func (*kernel) writev(fd int, vectors []unix.Iovec) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&vectors[0])), uintptr(len(vectors)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

func (k *kernel) sendMany(batch []transfer) {
	if k.ring != nil && !k.ring.send(batch) {
		k.ring.close()
		k.ring = nil
	}
}

func (k *kernel) canSendMany() bool { return k.ring != nil }

func (*kernel) shutdownWrite(fd int) unix.Errno { return errnoOf(unix.Shutdown(fd, unix.SHUT_WR)) }

func (*kernel) setSendBuffer(fd, bytes int) unix.Errno {
	value := int32(bytes)
	_, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_SNDBUF,
		uintptr(unsafe.Pointer(&value)), unsafe.Sizeof(value), 0)
	return errno
}

func (*kernel) unacknowledged(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil {
		return -1
	}
	return n
}

func (*kernel) close(fd int) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) // does not linger, so it does not wait
	return errno
}

// processStart is where [Clock] counts from: a little in the past, so that it never says 0.
var processStart = time.Now().Add(-time.Second)

// Clock is a monotonic time in nanoseconds, the same for all loops of the process: what
// [Loop.NewFrame] takes. Any goroutine.
func Clock() int64 { return int64(time.Since(processStart)) }

// ClockAt is what [Clock] said at the time t, which [time.Now] has given. Any goroutine.
func ClockAt(t time.Time) int64 { return int64(t.Sub(processStart)) }

func (k *kernel) end() {
	k.clock.Stop()
	if k.ring != nil {
		k.ring.close()
	}
	k.file.Close()
	<-k.ended
}

func errnoOf(err error) unix.Errno {
	if err == nil {
		return 0
	}
	if errno, ok := err.(unix.Errno); ok { //nolint:errorlint // x/sys returns bare errnos
		return errno
	}
	return unix.EIO
}
