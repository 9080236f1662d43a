package netio

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"
)

var notFound = http.HandlerFunc(http.NotFound)

func adoptNothing(int, []byte, any) error { return errors.New("nothing is adopted in this test") }

// startDesk starts a desk on a free port of loopback.
func startDesk(options DeskOptions) (*Desk, error) {
	listener, err := Listen("127.0.0.1:0", false)
	if err != nil {
		return nil, err
	}
	desk, err := NewDesk(options)
	if err != nil {
		listener.Close()
		return nil, err
	}
	return desk, desk.Start(listener)
}

func shutDown(desk *Desk, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return desk.Shutdown(ctx)
}

// newDesk starts a desk for a test, and shuts it down at its end.
func newDesk(t *testing.T, options DeskOptions) *Desk {
	t.Helper()
	if options.Adopt == nil {
		options.Adopt = adoptNothing
	}
	if options.Handler == nil {
		options.Handler = notFound
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	desk, err := startDesk(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := shutDown(desk, 5*time.Second); err != nil {
			t.Errorf("shut down: %v", err)
		}
		if bugs := desk.Stats().Refused[RefusedBug]; bugs != 0 {
			t.Errorf("%d impossible moves", bugs)
		}
		stats := desk.Stats()
		if stats.Connections != 0 || stats.InFlight != 0 || stats.Parked != stats.Adopted+stats.Abandoned {
			t.Errorf("after the end: %+v", stats)
		}
	})
	return desk
}

// client is a raw TCP connection to a desk.
type client struct {
	*net.TCPConn
	t      *testing.T
	reader *bufio.Reader
}

func dial(t *testing.T, desk *Desk) *client {
	t.Helper()
	connection, err := net.Dial("tcp", desk.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	connection.SetDeadline(time.Now().Add(10 * time.Second))
	return &client{TCPConn: connection.(*net.TCPConn), t: t, reader: bufio.NewReader(connection)}
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.TCPConn, text); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// answer is a response with its body read.
type answer struct {
	*http.Response
	body string
}

// answer reads one response to a request of the given method.
func (c *client) answer(method string) answer {
	c.t.Helper()
	response, err := http.ReadResponse(c.reader, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("read the answer: %v", err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatalf("read the answer's body: %v", err)
	}
	return answer{response, string(body)}
}

// closed checks that the server has closed, with nothing more sent.
func (c *client) closed() {
	c.t.Helper()
	rest, err := io.ReadAll(c.reader)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		c.t.Errorf("wait for the close: %v", err)
	}
	if len(rest) > 0 {
		c.t.Errorf("before the close came %q", rest)
	}
}

// echoLoop is the smallest adopter: an epoll loop that greets each stream with its name and
// echoes what it reads, in order, until the client ends.
type echoLoop struct {
	epoll  int
	wake   [2]int // pipe
	done   chan struct{}
	errors chan error

	mu     sync.Mutex
	posted []*echoStream
	closed bool
}

type echoStream struct {
	fd      int
	pending []byte
	ended   bool // the client sends no more
}

func newEchoLoop() (*echoLoop, error) {
	l := &echoLoop{done: make(chan struct{}), errors: make(chan error, 16)}
	var err error
	if l.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	if err = syscall.Pipe2(l.wake[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK); err != nil {
		return nil, err
	}
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(l.wake[0])}
	if err = syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, l.wake[0], &event); err != nil {
		return nil, err
	}
	go l.run()
	return l, nil
}

// adopt is a DeskOptions.Adopt. The guest is the stream's greeting.
func (l *echoLoop) adopt(fd int, early []byte, guest any) error {
	greeting, ok := guest.(string)
	if !ok {
		return fmt.Errorf("guest is a %T", guest)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errors.New("the loop is closed")
	}
	l.posted = append(l.posted, &echoStream{fd: fd, pending: append([]byte(greeting), early...)})
	if len(l.posted) == 1 {
		syscall.Write(l.wake[1], []byte{1})
	}
	return nil
}

func (l *echoLoop) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	syscall.Write(l.wake[1], []byte{1})
	<-l.done
	syscall.Close(l.wake[0])
	syscall.Close(l.wake[1])
	syscall.Close(l.epoll)
}

func (l *echoLoop) run() {
	defer close(l.done)
	streams := make(map[int]*echoStream)
	defer func() {
		for fd := range streams {
			syscall.Close(fd)
		}
	}()
	events := make([]syscall.EpollEvent, 128)
	buffer := make([]byte, 64<<10)
	for {
		n, err := syscall.EpollWait(l.epoll, events, -1)
		if err != nil && err != syscall.EINTR {
			l.errors <- fmt.Errorf("epoll_wait: %w", err)
			return
		}
		for _, event := range events[:max(n, 0)] {
			fd := int(event.Fd)
			if fd == l.wake[0] {
				syscall.Read(fd, buffer)
				if l.adoptPosted(streams) {
					return
				}
				continue
			}
			stream, known := streams[fd]
			if !known {
				l.errors <- fmt.Errorf("an event for descriptor %d, which is no stream", fd)
				continue
			}
			if !l.turn(stream, event.Events, buffer) {
				syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_DEL, fd, nil)
				syscall.Close(fd)
				delete(streams, fd)
			}
		}
	}
}

// adoptPosted takes in what was posted, and says whether the loop is to end.
func (l *echoLoop) adoptPosted(streams map[int]*echoStream) bool {
	l.mu.Lock()
	posted, closed := l.posted, l.closed
	l.posted = nil
	l.mu.Unlock()
	for _, stream := range posted {
		event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLOUT, Fd: int32(stream.fd)}
		if err := syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, stream.fd, &event); err != nil {
			l.errors <- fmt.Errorf("epoll_ctl for an adopted socket: %w", err)
			syscall.Close(stream.fd)
			continue
		}
		streams[stream.fd] = stream
	}
	return closed
}

// turn reads and writes what it can, and says whether the stream lives on.
func (l *echoLoop) turn(stream *echoStream, ready uint32, buffer []byte) bool {
	if ready&(syscall.EPOLLIN|syscall.EPOLLHUP|syscall.EPOLLERR) != 0 && !stream.ended {
		n, err := syscall.Read(stream.fd, buffer)
		if err != nil && err != syscall.EAGAIN && err != syscall.EINTR {
			return false // reset
		}
		stream.ended = n == 0 && err == nil
		stream.pending = append(stream.pending, buffer[:max(n, 0)]...)
	}
	if len(stream.pending) > 0 {
		n, errno := sendBytes(stream.fd, stream.pending)
		if errno != 0 && errno != syscall.EAGAIN {
			return false
		}
		stream.pending = stream.pending[n:]
	}
	if len(stream.pending) == 0 && stream.ended {
		return false
	}
	wanted := uint32(syscall.EPOLLIN)
	if stream.ended {
		wanted = 0
	}
	if len(stream.pending) > 0 {
		wanted |= syscall.EPOLLOUT
	}
	event := syscall.EpollEvent{Events: wanted, Fd: int32(stream.fd)}
	return syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_MOD, stream.fd, &event) == nil
}
