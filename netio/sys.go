package netio

import (
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
	epollCreate() (int, unix.Errno)
	epollControl(epoll, operation, fd int, events uint32, key uint64) unix.Errno
	// epollWait fills events. With wait 0 it only looks; a negative wait waits for ever.
	epollWait(epoll int, events []unix.EpollEvent, wait time.Duration) (int, unix.Errno)
	eventfd() (int, unix.Errno)
	read(fd int, p []byte) (int, unix.Errno)
	write(fd int, p []byte) (int, unix.Errno)
	writev(fd int, vectors []unix.Iovec) (int, unix.Errno)
	shutdownWrite(fd int) unix.Errno
	setOption(fd, level, option, value int) unix.Errno
	close(fd int) unix.Errno
}

// kernel is Linux. Reads and writes are raw system calls: the sockets do not block, so the
// scheduler need not be told; only a wait that may last is a call that it sees.
type kernel struct{}

func (kernel) now() int64 { return Clock() }

func (kernel) epollCreate() (int, unix.Errno) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return fd, errnoOf(err)
}

func (kernel) epollControl(epoll, operation, fd int, events uint32, key uint64) unix.Errno {
	event := unix.EpollEvent{Events: events, Fd: int32(uint32(key)), Pad: int32(uint32(key >> 32))}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epoll), uintptr(operation), uintptr(fd),
		uintptr(unsafe.Pointer(&event)), 0, 0)
	return errno
}

func (kernel) epollWait(epoll int, events []unix.EpollEvent, wait time.Duration) (int, unix.Errno) {
	if wait == 0 {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll),
			uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
		if errno != 0 {
			return 0, errno
		}
		return int(n), 0
	}
	milliseconds := -1
	if wait > 0 {
		milliseconds = int((wait + time.Millisecond - 1) / time.Millisecond)
	}
	n, err := unix.EpollWait(epoll, events, milliseconds)
	return max(n, 0), errnoOf(err)
}

func (kernel) eventfd() (int, unix.Errno) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return fd, errnoOf(err)
}

func (kernel) read(fd int, p []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

func (kernel) write(fd int, p []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

func (kernel) writev(fd int, vectors []unix.Iovec) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&vectors[0])), uintptr(len(vectors)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

func (kernel) shutdownWrite(fd int) unix.Errno { return errnoOf(unix.Shutdown(fd, unix.SHUT_WR)) }

func (kernel) setOption(fd, level, option, value int) unix.Errno {
	return errnoOf(unix.SetsockoptInt(fd, level, option, value))
}

func (kernel) close(fd int) unix.Errno { return errnoOf(unix.Close(fd)) }

// processStart is where [Clock] counts from: a little in the past, so that it never says 0.
var processStart = time.Now().Add(-time.Second)

// Clock is a monotonic time in nanoseconds, the same for all loops of the process: what
// [Loop.NewFrame] takes. Any goroutine.
func Clock() int64 { return int64(time.Since(processStart)) }

func errnoOf(err error) unix.Errno {
	if err == nil {
		return 0
	}
	if errno, ok := err.(unix.Errno); ok { //nolint:errorlint // x/sys returns bare errnos
		return errno
	}
	return unix.EIO
}
