package netio

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestListen(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", "localhost:0", ":0"} {
		t.Run(address, func(t *testing.T) {
			listener, err := Listen(address, false)
			if err != nil {
				t.Fatal(err)
			}
			desk, err := NewDesk(DeskOptions{Adopt: adoptNothing, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, r.RemoteAddr)
			})})
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error, 1)
			go func() { served <- desk.Serve(listener) }()
			port := strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
			host, _, _ := net.SplitHostPort(address)
			connection, err := net.Dial("tcp", net.JoinHostPort(host, port))
			if err != nil {
				t.Fatal(err)
			}
			defer connection.Close()
			c := &client{TCPConn: connection.(*net.TCPConn), t: t, reader: bufio.NewReader(connection)}
			c.send(get)
			if got := c.answer("GET"); got.body != connection.LocalAddr().String() {
				t.Errorf("remote address %q, want %q", got.body, connection.LocalAddr())
			}
			if err := shutDown(desk, 5*time.Second); err != nil {
				t.Error(err)
			}
			if err := <-served; err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
	}
	t.Run("a bad address", func(t *testing.T) {
		if listener, err := Listen("nowhere:nothing", false); err == nil {
			listener.Close()
			t.Error("no error")
		}
	})
	t.Run("an address in use", func(t *testing.T) {
		desk := newDesk(t, DeskOptions{})
		if listener, err := Listen(desk.Addr().String(), false); !errors.Is(err, syscall.EADDRINUSE) {
			listener.Close()
			t.Errorf("error %v", err)
		}
	})
	t.Run("a socket that is not TCP", func(t *testing.T) {
		unix, err := net.Listen("unix", t.TempDir()+"/socket")
		if err != nil {
			t.Fatal(err)
		}
		if listener, err := ListenOn(unix); err == nil {
			listener.Close()
			t.Error("no error")
		}
	})
}

func TestReusePort(t *testing.T) {
	first, err := Listen("127.0.0.1:0", true)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := Listen(first.Addr().String(), true)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}

// TestDescriptorsAreNotInherited: a child process must not hold connections open.
func TestDescriptorsAreNotInherited(t *testing.T) {
	entered, leave := make(chan int, 1), make(chan struct{})
	desk := newDesk(t, DeskOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entered <- w.(*deskResponse).conn.fd
		<-leave
	})})
	c := dial(t, desk)
	c.send(get)
	fd := <-entered
	for _, descriptor := range []int{fd, desk.listener.socket, desk.listener.gate, desk.listener.bell, desk.listener.reserve} {
		flags, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(descriptor), syscall.F_GETFD, 0)
		if errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d: flags %#x, error %v", descriptor, flags, errno)
		}
	}
	delay, err := syscall.GetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY)
	if err != nil || delay == 0 {
		t.Errorf("TCP_NODELAY is %d, error %v", delay, err)
	}
	timeout, err := syscall.GetsockoptInt(fd, syscall.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
	if err != nil || time.Duration(timeout)*time.Millisecond != userTimeoutDefault {
		t.Errorf("TCP_USER_TIMEOUT is %d ms, error %v", timeout, err)
	}
	close(leave)
}

// TestUserTimeoutOfGivenSocket: a socket of Multipath TCP, which Go opens where it can, takes no
// TCP_USER_TIMEOUT, and its accepted ones inherit none; they have it all the same.
func TestUserTimeoutOfGivenSocket(t *testing.T) {
	for _, multipath := range []bool{false, true} {
		t.Run(fmt.Sprintf("multipath %v", multipath), func(t *testing.T) {
			var config net.ListenConfig
			config.SetMultipathTCP(multipath)
			opened, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			listener, err := ListenOn(opened)
			if err != nil {
				t.Fatal(err)
			}
			const want = 7 * time.Second
			if err := listener.SetUserTimeout(want); err != nil {
				t.Fatal(err)
			}
			timeouts := make(chan int, 1)
			desk, err := NewDesk(DeskOptions{Adopt: adoptNothing, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				timeout, _ := syscall.GetsockoptInt(w.(*deskResponse).conn.fd, syscall.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
				timeouts <- timeout
			})})
			if err != nil {
				t.Fatal(err)
			}
			if err := desk.Start(listener); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := shutDown(desk, 5*time.Second); err != nil {
					t.Error(err)
				}
			})
			dial(t, desk).send(get)
			if got := time.Duration(<-timeouts) * time.Millisecond; got != want {
				t.Errorf("TCP_USER_TIMEOUT is %v, want %v", got, want)
			}
		})
	}
}

// TestPollerTurn: a waiter is released in the second turn that finds the bell, not in the first,
// which may have begun before it rang.
func TestPollerTurn(t *testing.T) {
	listener, err := Listen("127.0.0.1:0", false)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	released := func(done <-chan struct{}) bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
	readable := func() bool {
		var events [1]syscall.EpollEvent
		n, err := syscall.EpollWait(listener.gate, events[:], 0)
		return err == nil && n == 1
	}
	first := listener.pollerTurn()
	listener.Accept()
	if released(first) || !readable() {
		t.Fatal("the first turn released its waiter, or the bell fell silent")
	}
	second := listener.pollerTurn()
	listener.Accept()
	if !released(first) || released(second) || !readable() {
		t.Fatal("the second turn did not release the first waiter, or released the second")
	}
	listener.Accept()
	if !released(second) || readable() {
		t.Fatal("the third turn did not release the second waiter, or the bell still rings")
	}
	third := listener.pollerTurn()
	listener.Close()
	if !released(third) || !released(listener.pollerTurn()) {
		t.Fatal("closing did not release a waiter")
	}
}
