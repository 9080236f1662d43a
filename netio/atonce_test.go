package netio

import (
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/polltest"
)

// early is a desk whose clients have connected and sent their first bytes before it accepts, so
// that what it does with them does not depend on who is faster.
func early(t *testing.T, options DeskOptions, firsts ...string) (*Desk, []*client) {
	t.Helper()
	desk, clients, open := closedDesk(t, options, firsts...)
	open()
	return desk, clients
}

// closedDesk is early before it accepts, which open makes it do.
func closedDesk(t *testing.T, options DeskOptions, firsts ...string) (desk *Desk, clients []*client, open func()) {
	t.Helper()
	if options.Adopt == nil {
		options.Adopt = adoptNothing
	}
	options.Logger = slog.New(slog.DiscardHandler)
	listener, err := Listen("127.0.0.1:0", false)
	if err != nil {
		t.Fatal(err)
	}
	if desk, err = NewDesk(options); err != nil {
		t.Fatal(err)
	}
	if err := desk.attach(listener); err != nil {
		t.Fatal(err)
	}
	clients = make([]*client, len(firsts))
	for i, first := range firsts {
		clients[i] = dial(t, desk)
		clients[i].send(first)
	}
	t.Cleanup(func() {
		if err := shutDown(desk, 5*time.Second); err != nil {
			t.Errorf("shut down: %v", err)
		}
		stats := desk.Stats()
		if stats.Refused[RefusedBug] != 0 || stats.Connections != 0 || stats.InFlight != 0 || stats.Parked != stats.Adopted+stats.Abandoned {
			t.Errorf("after the end: %+v", stats)
		}
	})
	return desk, clients, func() { go desk.serve(listener) }
}

// TestAtOnce: which connections are served at once, and that the others are served, too.
func TestAtOnce(t *testing.T) {
	for name, test := range map[string]struct {
		first, rest string
		atOnce      uint64
		status      int
	}{
		"whole":                    {"GET /a HTTP/1.1\r\nHost: h\r\n\r\n", "", 1, 200},
		"whole, HTTP/1.0":          {"GET /a HTTP/1.0\r\n\r\n", "", 1, 200},
		"whole, empty line before": {"\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n", "", 1, 200},
		"whole, absolute form":     {"GET http://h/a HTTP/1.1\r\nHost: h\r\n\r\n", "", 1, 200},
		"whole, with the next one": {strings.Repeat("GET /a HTTP/1.1\r\nHost: h\r\n\r\n", 2), "", 1, 200},
		"an empty body":            {"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", "", 1, 200},
		"a body":                   {"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx", "", 0, 200},
		"a chunked body":           {"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", 0, 200},
		"a part":                   {"GET /a HTTP/1.1\r\nHost:", " h\r\n\r\n", 0, 200},
		"a fault":                  {"GET a HTTP/1.1\r\nHost: h\r\n\r\n", "", 0, 400},
		"too long":                 {"GET /a HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 20_000) + "\r\n\r\n", "", 0, 431},
		"as long as may be":        {"GET /a HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", deskHeadBytesDefault-35) + "\r\n\r\n", "", 1, 200},
	} {
		t.Run(name, func(t *testing.T) {
			desk, clients := early(t, DeskOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, r.URL.Path+" "+r.RemoteAddr)
			})}, test.first)
			c := clients[0]
			if test.rest != "" {
				polltest.Eventually(t, "it is accepted", func() bool { return desk.Stats().Accepted == 1 })
				c.send(test.rest)
			}
			got := c.answer("GET")
			if got.StatusCode != test.status {
				t.Fatalf("status %d: %s", got.StatusCode, got.body)
			}
			if want := "/a " + c.LocalAddr().String(); test.status == 200 && got.body != want {
				t.Errorf("body %q, want %q", got.body, want)
			}
			if got := desk.Stats().AtOnce; got != test.atOnce {
				t.Errorf("%d connections were served at once, want %d", got, test.atOnce)
			}
		})
	}
}

// TestAtOnceGoesOn: a connection that was served at once is kept, and parks later like any other.
func TestAtOnceGoesOn(t *testing.T) {
	lot := &parking{}
	desk, clients := early(t, DeskOptions{
		Adopt: lot.adopt, Abandoned: lot.abandon,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/park" {
				Park(w, "guest")
				return
			}
			io.WriteString(w, r.URL.Path)
		}),
	}, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\nGET /3 HTT")
	c := clients[0]
	for _, want := range []string{"/1", "/2"} {
		if got := c.answer("GET"); got.body != want {
			t.Fatalf("answer %q, want %q", got.body, want)
		}
	}
	c.send("P/1.1\r\nHost: h\r\n\r\n")
	if got := c.answer("GET"); got.body != "/3" {
		t.Fatalf("answer %q, want /3", got.body)
	}
	c.send("GET /park HTTP/1.1\r\nHost: h\r\n\r\nbehind")
	socket := lot.one(t)
	defer syscall.Close(socket.fd)
	if socket.early != "behind" {
		t.Errorf("behind the request are %q", socket.early)
	}
	if stats := desk.Stats(); stats.AtOnce != 1 || stats.Accepted != 1 || stats.Waited != 0 {
		t.Errorf("%+v", stats)
	}
}

// TestAtOnceParks: what stands behind the head stays in the kernel, for who adopts the socket.
func TestAtOnceParks(t *testing.T) {
	lot := &parking{}
	desk, _ := early(t, DeskOptions{
		Adopt: lot.adopt, Abandoned: lot.abandon,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { Park(w, "guest") }),
	}, get+"behind", get)
	for range 2 {
		socket := lot.one(t)
		defer syscall.Close(socket.fd)
		var room [16]byte
		n, _ := syscall.Read(socket.fd, room[:])
		if got := string(room[:max(n, 0)]); socket.early != "" || got != "" && got != "behind" {
			t.Errorf("early are %q, in the kernel %q", socket.early, got)
		}
	}
	polltest.Eventually(t, "they have left the desk", func() bool { return desk.Stats().Connections == 0 })
	if stats := desk.Stats(); stats.AtOnce != 2 || stats.Adopted != 2 {
		t.Errorf("%+v", stats)
	}
}

// TestAtOnceEnds: the ways in which a connection ends that was served at once.
func TestAtOnceEnds(t *testing.T) {
	const path = "GET PATH HTTP/1.1\r\nHost: h\r\n\r\n"
	at := func(to string) string { return strings.Replace(path, "PATH", to, 1) }
	for name, test := range map[string]struct {
		first  string
		status int // 0: no answer
	}{
		"the client wants it":              {"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", 200},
		"the handler wants it":             {at("/close"), 200},
		"with bytes behind":                {at("/close") + strings.Repeat("x", 50_000), 200},
		"a panic":                          {at("/panic"), 500},
		"a panic after Park":               {at("/parkpanic"), 500},
		"an abort":                         {at("/abort"), 0},
		"the end of the goroutine":         {at("/exit"), 0},
		"that, after Park":                 {at("/parkexit"), 0},
		"a refused upgrade":                {"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: x\r\n\r\nframes", 200},
		"an adoption that is refused":      {at("/park"), 0},
		"a longer answer than is buffered": {at("/long"), 200},
	} {
		t.Run(name, func(t *testing.T) {
			desk, clients := early(t, DeskOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/park") {
					Park(w, "guest")
				}
				switch r.URL.Path {
				case "/close":
					w.Header().Set("Connection", "close")
				case "/panic", "/parkpanic":
					panic("on purpose")
				case "/abort":
					panic(http.ErrAbortHandler)
				case "/exit", "/parkexit":
					runtime.Goexit()
				case "/long":
					w.Header().Set("Connection", "close")
					io.WriteString(w, strings.Repeat("long", 200_000))
				}
			})}, test.first)
			c := clients[0]
			if test.status != 0 {
				if got := c.answer("GET"); got.StatusCode != test.status {
					t.Fatalf("status %d", got.StatusCode)
				}
			}
			c.closed()
			polltest.Eventually(t, "it has left the desk", func() bool { return desk.Stats().Connections == 0 })
			if stats := desk.Stats(); stats.AtOnce != 1 {
				t.Errorf("%+v", stats)
			}
		})
	}
}

// TestAtOnceLingers: netpoll reads on behind a last answer, lest a reset overtake it.
func TestAtOnceLingers(t *testing.T) {
	desk, clients := early(t, DeskOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
	})}, get+"behind")
	polltest.Eventually(t, "netpoll has taken it on", func() bool {
		for _, c := range desk.connections() {
			c.mu.Lock()
			lingers := c.phase == deskLingering && c.connection != nil
			c.mu.Unlock()
			if lingers {
				return true
			}
		}
		return false
	})
	clients[0].send("more")
	if got := clients[0].answer("GET"); got.StatusCode != 200 {
		t.Errorf("status %d", got.StatusCode)
	}
	clients[0].CloseWrite()
	polltest.Eventually(t, "it has left the desk", func() bool { return desk.Stats().Connections == 0 })
}

// TestAtOnceContextEnds: a request's context ends when its client goes, though no poller watches.
func TestAtOnceContextEnds(t *testing.T) {
	for name, leave := range map[string]func(c *client){
		"closes":                        func(c *client) { c.Close() },
		"half-closes":                   func(c *client) { c.CloseWrite() },
		"resets":                        func(c *client) { c.SetLinger(0); c.Close() },
		"half-closes with bytes behind": func(c *client) { c.send("behind"); c.CloseWrite() },
		"resets with bytes behind":      func(c *client) { c.send("behind"); c.SetLinger(0); c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			running, ended := make(chan struct{}), make(chan struct{})
			_, clients := early(t, DeskOptions{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				close(running)
				<-r.Context().Done()
				close(ended)
			})}, get)
			<-running
			leave(clients[0])
			select {
			case <-ended:
			case <-time.After(5 * time.Second):
				t.Fatal("the context has not ended")
			}
		})
	}
}

// TestAtOnceFlood: a client that sends without end while its request is worked on is stopped by the
// kernel, since nobody reads.
func TestAtOnceFlood(t *testing.T) {
	running, release := make(chan struct{}), make(chan struct{})
	desk, clients := early(t, DeskOptions{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(running)
		<-release
	})}, get)
	c := clients[0]
	<-running
	c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	block, sent, bound := make([]byte, 64<<10), 0, 1<<30
	for sent < bound {
		n, err := c.TCPConn.Write(block)
		sent += n
		if err != nil {
			break
		}
	}
	close(release)
	if sent >= bound {
		t.Fatalf("%d MiB were taken", sent>>20)
	}
	if got := c.answer("GET"); got.StatusCode != 200 {
		t.Errorf("status %d", got.StatusCode)
	}
	polltest.Eventually(t, "its connection is gone", func() bool { return desk.Stats().Connections == 0 })
}

// TestAtOnceShutdown: a desk that is shut down waits for requests that are served at once, and
// cuts those that take too long.
func TestAtOnceShutdown(t *testing.T) {
	running := make(chan struct{}, 2)
	release := make(chan struct{})
	desk, clients := early(t, DeskOptions{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		running <- struct{}{}
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
			return
		}
		<-release
	})}, "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
	<-running
	<-running
	over := make(chan error, 1)
	go func() { over <- shutDown(desk, 200*time.Millisecond) }()
	polltest.Eventually(t, "it is shutting down", desk.ending.Load)
	close(release)
	if got := clients[0].answer("GET"); got.StatusCode != 200 || !got.Close {
		t.Errorf("status %d, closing %v", got.StatusCode, got.Close)
	}
	if err := <-over; err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, clients[1].reader) // its answer may have been faster than the reset
}

// handshakeAllocationsMax are the request with its header, URL and context, the record of the
// connection with its timer and address, and the goroutine's start.
const handshakeAllocationsMax = 24

// TestHandshakeAllocations holds what the desk allocates for a request that becomes a stream.
func TestHandshakeAllocations(t *testing.T) {
	const crowd = 400
	requests := make([]string, crowd)
	for i := range requests {
		requests[i] = "GET /api/stream?channel=job_progress:0 HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
	}
	left := make(chan int, crowd)
	desk, _, open := closedDesk(t, DeskOptions{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { Park(w, nil) }),
		Adopt:   func(fd int, _ []byte, _ any) error { left <- fd; return nil },
	}, requests...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	open()
	descriptors := make([]int, 0, crowd)
	for range crowd {
		descriptors = append(descriptors, <-left)
	}
	runtime.ReadMemStats(&after)
	for _, fd := range descriptors {
		syscall.Close(fd)
	}
	if got := desk.Stats().AtOnce; got != crowd {
		t.Fatalf("%d of %d were served at once", got, crowd)
	}
	if average := float64(after.Mallocs-before.Mallocs) / crowd; average > handshakeAllocationsMax {
		t.Errorf("a handshake costs the desk %.1f allocations, want at most %d", average, handshakeAllocationsMax)
	}
}
