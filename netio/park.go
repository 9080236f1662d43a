package netio

import (
	"errors"
	"net/http"
	"syscall"
	"unsafe"
)

// Errors of [Park].
var (
	ErrParkForeign = errors.New("netio: this http.ResponseWriter is not a desk's: only a request that a Desk serves can become a stream")
	ErrParkTwice   = errors.New("netio: the request was parked already")
	ErrParkWritten = errors.New("netio: the request was answered already: park before anything is written")
)

// Park makes the request that w answers a stream: after the handler has returned, the desk lets
// go of the connection without writing anything, and hands the socket, the bytes that came behind
// the request's head and body, and guest to [DeskOptions].Adopt. If the client vanishes, the
// handler panics, or nobody adopts, [DeskOptions].Abandoned gets guest back instead. Headers
// already set on w are dropped; whoever adopts writes the answer.
//
// Call it on the handler's goroutine. w may be wrapped in writers that have an Unwrap method as
// http.ResponseController wants it. The request's context ends when the handler returns, as ever.
func Park(w http.ResponseWriter, guest any) error {
	for {
		if response, ok := w.(*deskResponse); ok {
			return response.park(guest)
		}
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return ErrParkForeign
		}
		w = wrapper.Unwrap()
	}
}

func (w *deskResponse) park(guest any) error {
	switch {
	case w.parked:
		return ErrParkTwice
	case w.over || w.status != 0:
		return ErrParkWritten
	}
	w.parked, w.guest = true, guest
	w.conn.desk.counts.parked.Add(1)
	return nil
}

// park lets netpoll let go of the connection. It goes on in closing, and then in adopt.
//
// netpoll's Detach leaves the descriptor open, so it needs no duplicate (and no free descriptor),
// but until the task has returned the poller may still read from it. Hence takeEarly.
func (c *deskConn) park(guest any) {
	c.mu.Lock()
	c.cancel = nil
	parked := c.move(deskParked, 0)
	c.mu.Unlock()
	if !parked {
		c.desk.abandon(guest)
		c.close()
		return
	}
	c.guest = guest
	if c.connection == nil {
		c.parkAtOnce()
		return
	}
	c.parkedIn.Store(c.tasks)
	// The error is that of close(2), which Detach does not call.
	_ = c.connection.(interface{ Detach() error }).Detach()
}

// takeEarly takes all bytes that came behind the request, those included that the poller read
// after the handler returned. It runs after netpoll removed the connection from the poller's epoll
// instance, and before its buffers are freed.
//
// The poller can read once more only if it has an event of this connection at hand, fetched
// before the removal. Such an event means that bytes had come which were not read yet: if all
// bytes that the kernel ever received are here, there is none. Otherwise the poller is asked to
// finish the turn it is in.
func (c *deskConn) takeEarly() []byte {
	if received, known := bytesReceived(c.fd); !known || received != c.taken+uint64(c.connection.Reader().Len()) {
		c.desk.counts.waited.Add(1)
		<-c.desk.listener.pollerTurn()
	}
	length := c.connection.Reader().Len()
	if len(c.input)+length == 0 {
		return nil
	}
	c.desk.counts.early.Add(1)
	early := append(make([]byte, 0, len(c.input)+length), c.input...)
	next, _ := c.connection.Reader().Next(length) // fails only if there is less, and nobody else reads
	c.taken += uint64(length)
	c.input = nil
	return append(early, next...)
}

// Where Linux's struct tcp_info has tcpi_bytes_received: the bytes of the stream that have come
// in order, the FIN counting as one.
const tcpInfoReceivedOffset = 128

// bytesReceived asks the kernel how many bytes a TCP connection has received in all.
func bytesReceived(fd int) (count uint64, known bool) {
	var info [tcpInfoReceivedOffset + 8]byte
	size := uint32(len(info))
	_, _, errno := syscall.RawSyscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 || int(size) < len(info) {
		return 0, false
	}
	return *(*uint64)(unsafe.Pointer(&info[tcpInfoReceivedOffset])), true
}

// adopt hands a parked socket over. netpoll has let go of it.
func (d *Desk) adopt(c *deskConn) {
	defer d.left()
	if d.aborted.Load() {
		syscall.Close(c.fd)
		d.abandon(c.guest)
		return
	}
	if err := d.callAdopt(c); err != nil {
		d.counts.refuse(RefusedAdoption)
		d.failing.Do(func() { d.logger.Error("a parked socket was not adopted", "error", err) })
		syscall.Close(c.fd)
		d.abandon(c.guest)
		return
	}
	d.counts.adopted.Add(1)
}

var errAdoptPanicked = errors.New("netio: DeskOptions.Adopt panicked")

// callAdopt takes a panic for a refusal.
func (d *Desk) callAdopt(c *deskConn) (err error) {
	defer func() {
		if value := recover(); value != nil {
			d.panicked("DeskOptions.Adopt", value)
			err = errAdoptPanicked
		}
	}()
	return d.options.Adopt(c.fd, c.early, c.guest)
}

// abandon gives a guest back.
func (d *Desk) abandon(guest any) {
	d.counts.abandoned.Add(1)
	defer func() {
		if value := recover(); value != nil {
			d.panicked("DeskOptions.Abandoned", value)
		}
	}()
	d.options.Abandoned(guest)
}
