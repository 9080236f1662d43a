package broker

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// directReader reads a socket by bare system calls. net.Conn announces each of its own to the Go
// scheduler, as if it might block, and an announcement wakes the runtime's monitor thread where
// everything was asleep; at some thousand events a second that is a thread woken for each, for
// longer than the event takes (docs/decisions/0013). A socket in the runtime's poller never blocks.
//
// Deadlines and Close work as those of the connection. One goroutine reads at a time.
type directReader struct {
	conn  syscall.RawConn
	try   func(fd uintptr) (done bool)
	into  []byte // for one Read
	count int
	errno unix.Errno
}

// newDirectReader makes a reader of a connection that is a bare socket; ok is false if it is not:
// TLS keeps bytes of its own.
func newDirectReader(connection net.Conn) (r *directReader, ok bool) {
	socket, ok := connection.(syscall.Conn)
	if !ok {
		return nil, false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, false
	}
	r = &directReader{conn: raw}
	r.try = func(fd uintptr) bool {
		for {
			n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&r.into[0])), uintptr(len(r.into)))
			if errno != unix.EINTR {
				r.count, r.errno = int(n), errno
				return errno != unix.EAGAIN
			}
		}
	}
	return r, true
}

// Read is the connection's Read.
func (r *directReader) Read(into []byte) (int, error) {
	if len(into) == 0 {
		return 0, nil
	}
	r.into = into
	err := r.conn.Read(r.try)
	r.into = nil
	switch {
	case err != nil:
		return 0, err
	case r.errno != 0:
		return 0, os.NewSyscallError("read", r.errno)
	case r.count == 0:
		return 0, io.EOF
	}
	return r.count, nil
}
