package netio

import (
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// yieldAlone is the time, in nanoseconds, below which a runtime.Gosched ran nobody else.
const yieldAlone = 2_000

// busyLoops counts the loops of the process that have more to do.
var busyLoops atomic.Int32

// yielder lets a loop with endless work give way to the goroutines that feed it. runtime.Gosched
// alone does not: it runs what is runnable, and those goroutines wait for sockets, which the runtime
// looks at when nothing is runnable, and otherwise every 10 ms. A loop that is always runnable keeps
// it from looking: an event for one stream then waits for most of a fan-out to the others. So
// where nobody else wanted to run, the loop itself waits for a descriptor in the runtime's poller, one
// that it has made ready before: there is nothing to run any more, the runtime looks at all sockets,
// and finds this one at least (docs/decisions/0032).
//
// Where processors are left over, one of them waits for sockets anyway. It belongs to one loop.
type yielder struct {
	processors int32
	file       *os.File // an eventfd, which is never read; nil: there is none
	conn       syscall.RawConn
	ready      func(fd uintptr) (done bool)
	made       bool    // the descriptor was made ready, since the loop began to wait
	one        [8]byte // what an eventfd counts up by
	busy       bool    // counted in busyLoops
}

func newYielder() *yielder {
	y := &yielder{processors: int32(runtime.GOMAXPROCS(0)), one: [8]byte{1}}
	y.ready = func(fd uintptr) bool {
		if y.made {
			return true
		}
		y.made = true
		_, _, errno := unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&y.one)), uintptr(len(y.one)))
		return errno != 0
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return y
	}
	file := os.NewFile(uintptr(fd), "eventfd")
	if err = file.SetReadDeadline(time.Time{}); err == nil { // says whether the poller has taken it
		y.conn, err = file.SyscallConn()
	}
	if err != nil {
		file.Close()
		return y
	}
	y.file = file
	return y
}

// yield is called by a loop that has more to do.
func (y *yielder) yield() {
	if !y.busy {
		y.busy = true
		busyLoops.Add(1)
	}
	before := Clock()
	runtime.Gosched()
	if y.file == nil || busyLoops.Load() < y.processors || Clock()-before > yieldAlone {
		return
	}
	y.made = false
	_ = y.conn.Read(y.ready) // fails only where the file is closed
	runtime.Gosched()        // to those who were found
}

// rest is called by a loop that has nothing to do.
func (y *yielder) rest() {
	if y.busy {
		y.busy = false
		busyLoops.Add(-1)
	}
}

func (y *yielder) close() {
	y.rest()
	if y.file != nil {
		y.file.Close()
	}
}
