package netio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudwego/netpoll"
	"golang.org/x/time/rate"
)

// Desk is the front desk: it accepts connections and serves HTTP/1.1 and HTTP/1.0 requests to an
// http.Handler for as long as a request is being worked on; a request that wants to become a
// stream leaves it by [Park]. Any number of desks can run in one process. All methods are safe
// for use by many goroutines.
//
// The desk uses netpoll and, with the first desk, configures it for the whole process: one
// poller, and a goroutine for each task.
type Desk struct {
	options DeskOptions
	limits  headLimits
	logger  *slog.Logger
	polling netpoll.EventLoop
	rate    *rate.Limiter // nil: off
	counts  deskCounts
	panics  rate.Sometimes // bounds log lines on panics
	failing rate.Sometimes // bounds log lines on accept
	// highestDescriptor is the first number that is kept back; keptBack bounds log lines on it.
	highestDescriptor int
	keptBack          rate.Sometimes
	relays            rate.Sometimes // bounds log lines on PROXY headers
	ending            atomic.Bool    // Shutdown was called: every answer closes its connection
	aborted           atomic.Bool    // and its time is up: nothing is adopted any more
	served            chan struct{}  // closed once Serve has returned

	mu        sync.Mutex // guards all below; taken with a deskConn's mu not held
	listener  *DeskListener
	first     *deskConn // the connections on the desk
	openCount int
}

// NewDesk makes a desk. It does nothing before [Desk.Serve] or [Desk.Start]. An error names the
// option that is wrong.
func NewDesk(options DeskOptions) (*Desk, error) {
	if err := options.complete(); err != nil {
		return nil, err
	}
	configureNetpoll()
	d := &Desk{
		options: options,
		limits: headLimits{
			bytesMax: options.MaxHeadBytes, linesMax: options.MaxHeadLines, bodyBytesMax: options.MaxBodyBytes,
		},
		logger:  options.Logger,
		panics:  rate.Sometimes{First: 1, Interval: time.Second},
		failing: rate.Sometimes{First: 1, Interval: 10 * time.Second},
		served:  make(chan struct{}),

		highestDescriptor: math.MaxInt,
		keptBack:          rate.Sometimes{First: 1, Interval: 10 * time.Second},
		relays:            rate.Sometimes{First: 1, Interval: 10 * time.Second},
	}
	if options.KeepDescriptors > 0 {
		d.highestDescriptor = descriptorLimit() - options.KeepDescriptors
	}
	if options.AcceptRate > 0 {
		d.rate = rate.NewLimiter(rate.Limit(options.AcceptRate), max(options.AcceptRate/10, deskAcceptBurstMin))
	}
	var err error
	d.polling, err = netpoll.NewEventLoop(deskRequested,
		netpoll.WithOnPrepare(d.prepare), netpoll.WithOnDisconnect(deskDisconnected))
	if err != nil {
		return nil, fmt.Errorf("netio: set up netpoll: %w", err)
	}
	return d, nil
}

// Serve accepts and serves on listener, which the desk owns from here on, until [Desk.Shutdown],
// and returns nil then. A desk serves one listener, once.
func (d *Desk) Serve(listener *DeskListener) error {
	if err := d.attach(listener); err != nil {
		return err
	}
	return d.serve(listener)
}

// Start is [Desk.Serve] on a goroutine of its own. When it returns, connections are accepted.
func (d *Desk) Start(listener *DeskListener) error {
	if err := d.attach(listener); err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() {
		if err := d.serve(listener); err != nil {
			failed <- err
		}
	}()
	select {
	case err := <-failed:
		return err
	case <-listener.polled:
		return nil
	}
}

func (d *Desk) attach(listener *DeskListener) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.listener != nil {
		return errors.New("netio: the desk already serves a listener; make another desk")
	}
	if d.ending.Load() {
		return errors.New("netio: the desk has been shut down; make another one")
	}
	if err := listener.attach(d); err != nil {
		return err
	}
	d.listener = listener
	return nil
}

func (d *Desk) serve(listener *DeskListener) error {
	defer close(d.served)
	err := d.polling.Serve(listener)
	if d.ending.Load() {
		return nil
	}
	listener.Close()
	return fmt.Errorf("netio: serve on %v: %w", listener.Addr(), err)
}

// Addr is the address that the desk serves on, nil before Serve or Start.
func (d *Desk) Addr() net.Addr {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.listener == nil {
		return nil
	}
	return d.listener.Addr()
}

// StopAccepting closes the listening socket, after taking the connections that are complete in
// the kernel already, and returns when new ones are refused. Everything else goes on.
func (d *Desk) StopAccepting() {
	d.mu.Lock()
	listener := d.listener
	d.mu.Unlock()
	if listener != nil {
		listener.stop()
	}
}

// Shutdown ends the desk. It stops accepting, closes idle connections at once, lets requests in
// flight finish, each answer closing its connection, and lets parked sockets be adopted until
// ctx is done. Then it cancels the contexts of the requests left, resets their connections and
// gives their handlers a second. It returns an error if handlers are running even then. Calling it
// again waits again.
func (d *Desk) Shutdown(ctx context.Context) error {
	d.ending.Store(true)
	d.StopAccepting()
	d.mu.Lock()
	listener := d.listener
	d.mu.Unlock()
	if listener == nil {
		return nil
	}
	<-listener.polled
	if !d.waitEmpty(ctx, (*deskConn).closeIfIdle) {
		d.aborted.Store(true)
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), deskAbortWait)
		defer cancel()
		d.waitEmpty(limit, (*deskConn).abort)
	}
	d.aborted.Store(true)
	over, cancel := context.WithCancel(context.Background())
	cancel() // nothing is left for netpoll to wait for that we have not waited for
	d.polling.Shutdown(over)
	<-d.served
	listener.Close()
	if left := d.counts.connections.Load(); left > 0 {
		return fmt.Errorf("netio: shut down with %d connections whose handlers have not returned: %w", left, context.Cause(ctx))
	}
	return nil
}

// waitEmpty calls end with each connection, again and again, until there is none, and says
// whether there is none before ctx is done.
func (d *Desk) waitEmpty(ctx context.Context, end func(*deskConn)) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, c := range d.connections() {
			end(c)
		}
		if d.counts.connections.Load() == 0 {
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}

// connections is a copy of the list, since closing a connection changes it.
func (d *Desk) connections() []*deskConn {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]*deskConn, 0, d.openCount)
	for c := d.first; c != nil; c = c.after {
		list = append(list, c)
	}
	return list
}

// admit decides on a connection just accepted. It runs on the poller. The kernel gives the lowest
// number that is free, so one among the last says that no more than those are left.
func (d *Desk) admit(fd int) (reason Refusal, refused bool) {
	if fd >= d.highestDescriptor {
		d.keptBack.Do(func() {
			go d.logger.Error("connections are closed: only the descriptors that are kept for Redis and the operator are left; raise the limit (LimitNOFILE, ulimit -n) or lower the connection limits",
				"kept", d.options.KeepDescriptors)
		})
		return RefusedDescriptors, true
	}
	if d.options.MaxConnections > 0 && d.counts.connections.Load() >= int64(d.options.MaxConnections) {
		return RefusedConnections, true
	}
	if d.rate != nil && !d.rate.Allow() {
		return RefusedAcceptRate, true
	}
	return 0, false
}

// prepare gives netpoll the record of a new connection, which travels as netpoll's context. It
// runs on the poller.
func (d *Desk) prepare(connection netpoll.Connection) context.Context {
	remote := connection.RemoteAddr().(deskRemote)
	c := remote.conn
	if c == nil {
		c = newDeskConn(d, connection.(interface{ Fd() int }).Fd(), remote.AddrPort, deskFresh, d.options.HandshakeTimeout)
		d.enter(c)
	}
	c.mu.Lock()
	c.connection = connection
	closed := c.phase == deskClosed
	c.mu.Unlock()
	connection.AddCloseCallback(c.closing)
	if closed { // its time was up before it came here
		connection.Close()
	}
	return c
}

// enter puts a connection on the list.
func (d *Desk) enter(c *deskConn) {
	d.counts.accepted.Add(1)
	d.counts.connections.Add(1)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.openCount++
	c.after = d.first
	if d.first != nil {
		d.first.before = c
	}
	d.first = c
}

// forget takes a connection off the list. It is still counted, see [Desk.left].
func (d *Desk) forget(c *deskConn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.openCount--
	if c.before != nil {
		c.before.after = c.after
	} else {
		d.first = c.after
	}
	if c.after != nil {
		c.after.before = c.before
	}
	c.before, c.after = nil, nil
}

// left is called when the desk has nothing more to do for a connection.
func (d *Desk) left() { d.counts.connections.Add(-1) }

// acceptFailed logs that accepting is paused. It runs on the poller, which a slow log must not hold.
func (d *Desk) acceptFailed(err error, pause time.Duration) {
	d.failing.Do(func() {
		go d.logger.Error("accepting is paused: no descriptor left; raise the limit (LimitNOFILE, ulimit -n) or lower the connection limits",
			"error", err, "pause", pause, "refused", d.counts.refused[RefusedDescriptors].Load())
	})
}

// panicked counts and logs a panic, with its stack.
func (d *Desk) panicked(where string, value any) {
	d.counts.refuse(RefusedPanic)
	d.panics.Do(func() {
		// What was panicked with may hold what a client sent, unless the runtime made it.
		text := fmt.Sprintf("a %T", value)
		if failure, ok := value.(runtime.Error); ok {
			text = failure.Error()
		}
		d.logger.Error("panic in "+where, "panic", text, "stack", string(debug.Stack()),
			"panics", d.counts.refused[RefusedPanic].Load())
	})
}

// netpollOnce guards netpoll's configuration, which is one for the whole process.
var netpollOnce sync.Once

// configureNetpoll sets netpoll up. One poller: pollerTurn counts on a connection having the same
// poller as its listener, and one poller accepts and reads far more requests than two cores can
// serve.
func configureNetpoll() {
	netpollOnce.Do(func() {
		// The only error is about a number of pollers below one.
		_ = netpoll.Configure(netpoll.Config{
			PollerNum:    1,
			BufferSize:   deskReadBytes,
			Runner:       runTask,
			LoggerOutput: &netpollLog{sometimes: rate.Sometimes{First: 1, Interval: time.Second}},
		})
		netpoll.Initialize() // its poller needs descriptors, which there are now
	})
}

// deskReadBytes is the buffer that netpoll gives a new connection: more than a browser's request
// head takes, most of the time.
const deskReadBytes = 2 << 10

// netpollLog passes on what netpoll has to complain about, at a bounded rate.
type netpollLog struct{ sometimes rate.Sometimes }

func (l *netpollLog) Write(line []byte) (int, error) {
	text := string(line)
	l.sometimes.Do(func() { go slog.Debug("netpoll complains", "line", text) })
	return len(line), nil
}

// runTask is netpoll's Runner. A connection of a desk is known by its context; others belong to
// somebody else in this process.
func runTask(ctx context.Context, task func()) {
	c, ours := ctx.(*deskConn)
	if !ours {
		go task()
		return
	}
	c.tasks++ // netpoll runs one task of a connection at a time
	go c.run(task, c.tasks)
}
