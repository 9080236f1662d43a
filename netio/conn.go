package netio

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/cloudwego/netpoll"
)

// deskPhase is where a connection of the desk is in its life. Each phase but the last two has the
// one timer of the connection running, for the time given.
//
//	fresh ──► working ──► idle ──► reading ──► working ...
//	  │          │          │         │
//	  ├──────────┼──────────┴─────────┴──► lingering ──► closed
//	  │          └──► parked ──► closed                    ▲
//	  └────────────────────────────────────────────────────┘ (from any)
type deskPhase uint8

const (
	deskFresh     deskPhase = iota // accepted, its first head not complete: HandshakeTimeout
	deskIdle                       // between requests: IdleTimeout
	deskReading                    // has part of a later head: HandshakeTimeout
	deskWorking                    // has a request in flight: deskWatchEvery, again and again
	deskLingering                  // answered for the last time, what comes is thrown away: deskLingerTime
	deskParked                     // its handler parked it; netpoll is letting go
	deskClosed                     // netpoll closes it, or has
)

// deskMoves lists, per phase, the phases that it may lead to.
var deskMoves = [...][]deskPhase{
	deskFresh:     {deskWorking, deskLingering, deskClosed},
	deskIdle:      {deskReading, deskWorking, deskLingering, deskClosed},
	deskReading:   {deskWorking, deskLingering, deskClosed},
	deskWorking:   {deskIdle, deskLingering, deskParked, deskClosed},
	deskLingering: {deskClosed},
	deskParked:    {deskClosed},
	deskClosed:    {},
}

// deskConn is one connection on the desk. It is the context that netpoll carries for it.
//
// Its descriptor may be used by the goroutine of its task at any time (netpoll closes no
// connection under a running task), and by others with mu held while the phase is not closed.
type deskConn struct {
	context.Context // background: the record only travels as one

	desk *Desk
	// connection is netpoll's, nil while the connection is served at once (atonce.go): then there
	// is no poller, and nothing of what came is read beyond the head. Written with mu held.
	connection netpoll.Connection
	fd         int
	remote     string
	relay      relay // the task's

	tasks    uint32        // netpoll's, under its processing lock: number of the running task
	parkedIn atomic.Uint32 // number of the task whose request was parked

	// Owned by the running task.
	input  []byte // taken from netpoll, not consumed
	scan   headScan
	taken  uint64 // bytes taken from netpoll in all
	broken bool   // a write failed
	guest  any
	early  []byte

	before, after *deskConn // guarded by desk.mu

	mu       sync.Mutex // guards all below
	phase    deskPhase
	timer    *time.Timer
	deadline time.Time
	began    time.Time          // accepted
	touched  bool               // a byte has come since the phase's beginning
	bodied   bool               // the request in flight has a body, which may wait in netpoll's buffer
	cancel   context.CancelFunc // of the request in flight, nil if none
	lingered int                // bytes thrown away
}

// newDeskConn makes the record of a connection in a phase that may last for limit.
func newDeskConn(d *Desk, fd int, remote netip.AddrPort, phase deskPhase, limit time.Duration) *deskConn {
	now := time.Now()
	c := &deskConn{
		Context:  context.Background(),
		desk:     d,
		fd:       fd,
		remote:   remote.String(),
		relay:    d.relayOf(remote.Addr()),
		phase:    phase,
		began:    now,
		deadline: now.Add(limit),
	}
	c.mu.Lock() // expire must not see c before its timer is in it
	defer c.mu.Unlock()
	c.timer = time.AfterFunc(limit, c.expire)
	return c
}

// run is one task: netpoll's onProcess, which calls deskRequested for as long as there are bytes.
// Only when it has returned has netpoll let go of a connection that was parked in it.
func (c *deskConn) run(task func(), number uint32) {
	growStack()
	defer func() {
		// A handler may have ended the goroutine (runtime.Goexit); netpoll closes then.
		if c.parkedIn.Load() == number {
			c.desk.adopt(c)
		}
	}()
	task()
}

// move is the only way from phase to phase. It sets the timer, for d if d is not zero. It says no
// when the connection was closed meanwhile. Called with mu held.
func (c *deskConn) move(to deskPhase, d time.Duration) bool {
	if c.phase == to {
		return to != deskClosed
	}
	allowed := false
	for _, phase := range deskMoves[c.phase] {
		allowed = allowed || phase == to
	}
	if !allowed {
		if c.phase != deskClosed {
			c.desk.counts.refuse(RefusedBug)
		}
		return false
	}
	c.phase = to
	c.touched = false
	if d == 0 {
		c.timer.Stop()
		return true
	}
	c.deadline = time.Now().Add(d)
	c.timer.Reset(d)
	return true
}

// moveTo is move for those who do not hold mu.
func (c *deskConn) moveTo(to deskPhase, d time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.move(to, d)
}

// expire is the timer. A timer that was reset while it fired comes too early and is set again.
func (c *deskConn) expire() {
	c.mu.Lock()
	early := time.Until(c.deadline)
	if early > 0 && c.phase < deskParked {
		c.timer.Reset(early)
		c.mu.Unlock()
		return
	}
	switch c.phase {
	case deskFresh, deskReading:
		c.desk.counts.refuse(RefusedHandshakeSlow)
		if c.touched {
			c.sendNow(faultAnswer(faultTimeout, false))
		}
	case deskIdle, deskLingering:
	case deskWorking:
		c.watch()
		c.mu.Unlock()
		return
	case deskParked, deskClosed:
		c.mu.Unlock()
		return
	}
	c.end()
}

// end closes a connection that no task is working on. Called with mu held, which it releases: the
// close callback takes it.
func (c *deskConn) end() {
	c.move(deskClosed, 0)
	connection := c.connection
	c.mu.Unlock()
	if connection != nil {
		connection.Close()
	} // else it is on its way to netpoll, which finds it closed
}

// watch resets a connection whose client sends without end while its request is being worked
// on: netpoll would go on reading into memory. Called with mu held, while a task is running.
func (c *deskConn) watch() {
	if c.connection == nil {
		c.watchAtOnce()
	} else if c.isFlooded() {
		c.desk.counts.refuse(RefusedFlood)
		c.reset()
		return
	}
	c.deadline = time.Now().Add(deskWatchEvery)
	c.timer.Reset(deskWatchEvery)
}

func (c *deskConn) isFlooded() bool {
	allowed := deskBehindBytesMax
	if c.bodied {
		allowed += int(c.desk.options.MaxBodyBytes)
	}
	return c.connection.Reader().Len() > allowed
}

// reset cuts the connection below everybody who is using it: the kernel drops what is queued both
// ways, the poller sees a hang-up, a blocked write fails. The descriptor stays valid. Called with
// mu held or by the task.
func (c *deskConn) reset() {
	unspecified := syscall.RawSockaddr{Family: syscall.AF_UNSPEC}
	syscall.RawSyscall(syscall.SYS_CONNECT, uintptr(c.fd), uintptr(unsafe.Pointer(&unspecified)), unsafe.Sizeof(unspecified))
}

// closeIfIdle closes a connection on which nothing is going on, for Shutdown.
func (c *deskConn) closeIfIdle() {
	c.mu.Lock()
	idle := c.phase == deskIdle || c.phase == deskFresh && !c.touched && time.Since(c.began) > deskFreshGrace
	if !idle || c.connection != nil && c.connection.Reader().Len() > 0 { // a task is on its way
		c.mu.Unlock()
		return
	}
	c.end()
}

// abort ends a connection whatever is going on on it.
func (c *deskConn) abort() {
	c.mu.Lock()
	switch c.phase {
	case deskWorking:
		if c.cancel != nil {
			c.cancel()
		}
		c.reset()
	case deskParked, deskClosed:
	default:
		c.end()
		return
	}
	c.mu.Unlock()
}

// deskDisconnected is netpoll's OnDisconnect: the client has gone, or will send no more.
func deskDisconnected(ctx context.Context, _ netpoll.Connection) {
	c := ctx.(*deskConn)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel != nil {
		c.cancel()
	}
}

// closing is netpoll's close callback: the connection has left the poller's epoll instance, its
// descriptor is still open, and no task will run any more.
func (c *deskConn) closing(netpoll.Connection) error {
	c.mu.Lock()
	parked := c.phase == deskParked
	c.move(deskClosed, 0)
	c.timer.Stop()
	c.mu.Unlock()
	c.desk.forget(c)
	if parked {
		c.early = c.takeEarly()
		return nil // adopt, which follows, counts it as left
	}
	c.desk.left()
	return nil
}

// deskRequested is netpoll's OnRequest: bytes have come. It must consume them all or close.
func deskRequested(ctx context.Context, _ netpoll.Connection) error {
	c := ctx.(*deskConn)
	for c.step() {
	}
	return nil
}

// step consumes what there is up to one request, and says whether there may be more to do.
func (c *deskConn) step() bool {
	if !c.isServing() {
		return false
	}
	data, direct := c.peek()
	if len(data) == 0 {
		c.rest()
		return false
	}
	if c.relay.awaited {
		return c.introduce(data, direct)
	}
	end, fault := c.scan.advance(data, c.desk.limits)
	if fault != nil {
		c.refuse(unlessRelayed(fault, data), c.scan.isHead)
		return false
	}
	if end == 0 {
		return c.keep(data, direct)
	}
	scan := c.scan
	c.scan = headScan{}
	request, body, fault := c.parse(data[:end], &scan)
	c.consume(end, direct)
	if fault != nil {
		c.refuse(fault, scan.isHead)
		return false
	}
	return c.serve(request, body, &scan)
}

// isServing says whether requests are still read on this connection. While lingering it throws
// away what came.
func (c *deskConn) isServing() bool {
	c.mu.Lock()
	phase := c.phase
	if phase == deskLingering {
		length := c.connection.Reader().Len()
		c.lingered += length
		if c.lingered <= deskLingerBytesMax {
			c.mu.Unlock()
			c.connection.Reader().Skip(length)
			c.connection.Reader().Release()
			return false
		}
		c.move(deskClosed, 0)
	}
	c.mu.Unlock()
	if phase == deskLingering || phase == deskClosed {
		c.connection.Close()
		return false
	}
	return phase != deskParked
}

// firstBytesMax is enough of what came to know that a head, or the PROXY header before it, is too long.
func (d *Desk) firstBytesMax() int { return max(d.limits.bytesMax, relayBytesMax) + 2 }

// peek returns the unconsumed bytes up to just over the limit of a head, without consuming them:
// from netpoll's buffer (direct), or from input if part of the head is there already.
func (c *deskConn) peek() (data []byte, direct bool) {
	limit := c.desk.firstBytesMax()
	reader := c.connection.Reader()
	available := reader.Len()
	if len(c.input) == 0 {
		// Peek fails only if there is less than was asked for, and only this task takes bytes.
		data, _ = reader.Peek(min(available, limit))
		return data, true
	}
	if wanted := min(available, limit-len(c.input)); wanted > 0 {
		c.take(wanted)
	}
	return c.input, false
}

// take moves n bytes from netpoll's buffer to input.
func (c *deskConn) take(n int) {
	reader := c.connection.Reader()
	next, _ := reader.Next(n) // fails only if there is less, and only this task takes bytes
	c.input = append(c.input, next...)
	c.taken += uint64(len(next))
	reader.Release()
}

// keep stores part of a head until more comes, and says whether more has come already.
func (c *deskConn) keep(data []byte, direct bool) bool {
	if direct {
		c.take(len(data))
	}
	c.mu.Lock()
	if c.phase == deskIdle {
		c.move(deskReading, c.desk.options.HandshakeTimeout)
	}
	c.touched = true
	c.mu.Unlock()
	return c.connection.Reader().Len() > 0
}

// rest leaves the connection between two requests, or closes it if the desk is closing.
func (c *deskConn) rest() {
	c.input = nil
	c.connection.Reader().Release()
	if c.desk.ending.Load() {
		c.close()
	}
}

// consume drops the n bytes of a head that has been parsed.
func (c *deskConn) consume(n int, direct bool) {
	if direct {
		c.connection.Reader().Skip(n)
		c.connection.Reader().Release()
		c.taken += uint64(n)
		return
	}
	c.input = c.input[n:]
}

// close closes the connection from its task.
func (c *deskConn) close() {
	c.moveTo(deskClosed, 0)
	if c.connection == nil {
		c.closeAtOnce()
		return
	}
	c.connection.Close()
}

// finish ends the connection after its last answer: at once if the client has nothing under way
// that the kernel would answer with a reset, else by lingering.
func (c *deskConn) finish(linger bool) {
	if !linger || c.broken || c.connection != nil && !c.connection.IsActive() {
		c.close()
		return
	}
	c.input = nil
	syscall.Shutdown(c.fd, syscall.SHUT_WR)
	switch {
	case !c.moveTo(deskLingering, deskLingerTime):
		c.close()
	case c.connection == nil:
		c.goOn()
	default:
		c.isServing() // throws away what is there
	}
}

// refuse answers a fault and ends the connection.
func (c *deskConn) refuse(fault *deskFault, isHead bool) {
	c.desk.counts.refuse(fault.refusal)
	if fault.refusal == RefusedRelay {
		c.desk.relayRefused(c.remote, fault)
	}
	c.send(faultAnswer(fault, isHead))
	c.finish(true)
}
