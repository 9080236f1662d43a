package netio

import (
	"errors"
	"fmt"
	"os"
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
	// alarm says how long the next sleep may last; a negative limit is none. It undoes every
	// wake that came before it, so a sleeper sets it before it lets others wake it.
	alarm(limit time.Duration)
	// sleep is look, but waits until something happened, until wake, or for the alarm. It may
	// return early with nothing.
	sleep(events []unix.EpollEvent) (int, unix.Errno)
	// wake ends a sleep that is under way, or the next one. Any goroutine.
	wake()
	// epollControl changes what is watched.
	epollControl(operation, fd int, events uint32, key uint64) unix.Errno
	read(fd int, p []byte) (int, unix.Errno)
	write(fd int, p []byte) (int, unix.Errno)
	writev(fd int, vectors []unix.Iovec) (int, unix.Errno)
	shutdownWrite(fd int) unix.Errno
	setSendBuffer(fd, bytes int) unix.Errno
	close(fd int) unix.Errno
	// end lets go of what the seam itself holds.
	end()
}

// kernel is Linux, for one loop. Reads, writes and looks are raw system calls: none of them
// blocks, so the scheduler need not be told. A sleep is the Go runtime's: our epoll instance is
// itself watched by the runtime's poller, so a loop with nothing to do is a parked goroutine and
// not a thread in a system call that holds a processor until the runtime notices; and it is
// called awake by making it runnable, without a system call (docs/decisions/0008).
type kernel struct {
	epoll int
	file  *os.File // epoll, as the runtime's poller knows it
	conn  syscall.RawConn

	// For one sleep.
	tryLook func(fd uintptr) (done bool)
	events  []unix.EpollEvent
	found   int
	errno   unix.Errno

	deadline time.Time // of file; zero: none
	moved    bool      // deadline has passed, or a wake has moved it
}

func newKernel() (*kernel, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll instance: %w", err)
	}
	if err := unix.SetNonblock(epoll, true); err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("make an epoll instance non-blocking: %w", err)
	}
	k := &kernel{epoll: epoll, file: os.NewFile(uintptr(epoll), "epoll")}
	k.tryLook = func(uintptr) bool {
		k.found, k.errno = k.look(k.events)
		return k.found > 0 || k.errno != 0
	}
	if k.conn, err = k.file.SyscallConn(); err == nil {
		err = k.file.SetReadDeadline(time.Time{})
	}
	if err != nil {
		k.file.Close()
		return nil, fmt.Errorf("have the runtime watch an epoll instance: %w", err)
	}
	return k, nil
}

func (*kernel) now() int64 { return Clock() }

func (k *kernel) look(events []unix.EpollEvent) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(k.epoll),
		uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

func (k *kernel) sleep(events []unix.EpollEvent) (int, unix.Errno) {
	k.events = events
	if err := k.conn.Read(k.tryLook); err != nil {
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, unix.EBADF
		}
		k.moved = true
		return 0, 0
	}
	return k.found, k.errno
}

// alarm sets the deadline. One that is set already and ends the sleep earlier will do.
func (k *kernel) alarm(limit time.Duration) {
	var want time.Time
	if limit >= 0 {
		want = time.Now().Add(limit)
	}
	soonEnough := want.IsZero() && k.deadline.IsZero() || !want.IsZero() && !k.deadline.IsZero() && !k.deadline.After(want)
	if soonEnough && !k.moved {
		return
	}
	_ = k.file.SetReadDeadline(want) // fails only when closed: then sleep does, too
	k.deadline, k.moved = want, false
}

// longAgo ends a sleep when it becomes the deadline.
var longAgo = time.Unix(1, 0)

func (k *kernel) wake() { _ = k.file.SetReadDeadline(longAgo) }

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

func (*kernel) write(fd int, p []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
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

func (*kernel) shutdownWrite(fd int) unix.Errno { return errnoOf(unix.Shutdown(fd, unix.SHUT_WR)) }

func (*kernel) setSendBuffer(fd, bytes int) unix.Errno {
	return errnoOf(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, bytes))
}

func (*kernel) close(fd int) unix.Errno { return errnoOf(unix.Close(fd)) }

// processStart is where [Clock] counts from: a little in the past, so that it never says 0.
var processStart = time.Now().Add(-time.Second)

// Clock is a monotonic time in nanoseconds, the same for all loops of the process: what
// [Loop.NewFrame] takes. Any goroutine.
func Clock() int64 { return int64(time.Since(processStart)) }

func (k *kernel) end() { k.file.Close() }

func errnoOf(err error) unix.Errno {
	if err == nil {
		return 0
	}
	if errno, ok := err.(unix.Errno); ok { //nolint:errorlint // x/sys returns bare errnos
		return errno
	}
	return unix.EIO
}
