package netio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/logtest"
	"github.com/millrace/millrace/internal/polltest"
)

const get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"

func TestDeskOptions(t *testing.T) {
	good := DeskOptions{Handler: notFound, Adopt: adoptNothing}
	cases := []struct {
		name   string
		change func(*DeskOptions)
		says   string
	}{
		{"no handler", func(o *DeskOptions) { o.Handler = nil }, "Handler"},
		{"no adopter", func(o *DeskOptions) { o.Adopt = nil }, "Adopt"},
		{"negative head", func(o *DeskOptions) { o.MaxHeadBytes = -1 }, "MaxHeadBytes"},
		{"negative body", func(o *DeskOptions) { o.MaxBodyBytes = -1 }, "MaxBodyBytes"},
		{"negative time", func(o *DeskOptions) { o.IdleTimeout = -time.Second }, "IdleTimeout"},
		{"negative rate", func(o *DeskOptions) { o.AcceptRate = -5 }, "AcceptRate"},
		{"negative kept", func(o *DeskOptions) { o.KeepDescriptors = -1 }, "KeepDescriptors"},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			options := good
			test.change(&options)
			if _, err := NewDesk(options); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("error %v, want one that names %s", err, test.says)
			}
		})
	}
}

func TestDeskServesOneListener(t *testing.T) {
	desk := newDesk(t, DeskOptions{})
	listener, err := Listen("127.0.0.1:0", false)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := desk.Start(listener); err == nil {
		t.Error("a second Start succeeded")
	}
	other, err := NewDesk(DeskOptions{Handler: notFound, Adopt: adoptNothing})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(desk.listener); err == nil {
		t.Error("a listener served two desks")
	}
	if err := other.Shutdown(context.Background()); err != nil {
		t.Errorf("shut down before the start: %v", err)
	}
	if err := other.Start(listener); err == nil {
		t.Error("Start after Shutdown succeeded")
	}
}

func TestKeepAlive(t *testing.T) {
	desk := newDesk(t, DeskOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/close" {
			w.Header().Set("Connection", "close")
		}
		io.WriteString(w, r.URL.Path)
	})})
	cases := []struct {
		name, request string
		keeps         bool
		header        string // Connection
	}{
		{"HTTP/1.1", "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", true, ""},
		{"HTTP/1.1 close", "GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", false, "close"},
		{"HTTP/1.0", "GET /a HTTP/1.0\r\nHost: h\r\n\r\n", false, "close"},
		{"HTTP/1.0 keep-alive", "GET /a HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n", true, "keep-alive"},
		{"the handler closes", "GET /close HTTP/1.1\r\nHost: h\r\n\r\n", false, "close"},
		{"an upgrade that is not granted", "GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", false, "close"},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			c := dial(t, desk)
			for range 3 {
				c.send(test.request)
				got := c.answer("GET")
				if got.StatusCode != 200 || !strings.Contains(test.request, got.body) || got.Header.Get("Date") == "" {
					t.Fatalf("%d %q %v", got.StatusCode, got.body, got.Header)
				}
				// net/http takes the header away and sets Close instead.
				if got.Close != !test.keeps || test.header == "keep-alive" && got.Header.Get("Connection") != "keep-alive" {
					t.Errorf("close %v, Connection %q", got.Close, got.Header.Get("Connection"))
				}
				if !test.keeps {
					c.closed()
					return
				}
			}
		})
	}
}

// TestRefusedUpgradeIsNotPipelined: what stands behind a handshake that was answered with an
// ordinary response are frames, whatever they look like.
func TestRefusedUpgradeIsNotPipelined(t *testing.T) {
	var requests atomic.Int64
	desk := newDesk(t, DeskOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		w.WriteHeader(http.StatusForbidden)
	})})
	c := dial(t, desk)
	c.send("GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + get)
	if got := c.answer("GET"); got.StatusCode != 403 || !got.Close {
		t.Errorf("%d, close %v", got.StatusCode, got.Close)
	}
	c.closed()
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests were served", n)
	}
}

func TestPipelining(t *testing.T) {
	desk := newDesk(t, DeskOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %v", r.URL.Path, body, err)
	})})
	c := dial(t, desk)
	var requests strings.Builder
	for i := range 50 {
		fmt.Fprintf(&requests, "GET /%d HTTP/1.1\r\nHost: h\r\n\r\n", i)
		fmt.Fprintf(&requests, "POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", i)
		fmt.Fprintf(&requests, "POST /%d HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\n", i)
	}
	go io.WriteString(c.TCPConn, requests.String())
	for i := range 50 {
		for _, body := range []string{"", "abc", "def"} {
			method := "GET"
			if body != "" {
				method = "POST"
			}
			if got, want := c.answer(method).body, fmt.Sprintf("/%d %s <nil>", i, body); got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
		}
	}
}

func TestSlowHeads(t *testing.T) {
	desk := newDesk(t, DeskOptions{HandshakeTimeout: 200 * time.Millisecond, IdleTimeout: 300 * time.Millisecond})
	t.Run("nothing comes", func(t *testing.T) {
		c := dial(t, desk)
		c.closed()
	})
	t.Run("trickles in", func(t *testing.T) {
		c := dial(t, desk)
		began := time.Now()
		stop := make(chan struct{})
		var writer sync.WaitGroup
		defer writer.Wait()
		defer close(stop)
		writer.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for _, b := range []byte("GET /" + strings.Repeat("x", 1000)) {
				if _, err := c.TCPConn.Write([]byte{b}); err != nil {
					return
				}
				select {
				case <-stop:
					return
				case <-tick.C:
				}
			}
		})
		got := c.answer("GET")
		if got.StatusCode != 408 || !strings.Contains(got.body, "request_timeout") {
			t.Errorf("%d %q", got.StatusCode, got.body)
		}
		c.closed()
		if took := time.Since(began); took < 150*time.Millisecond || took > 5*time.Second {
			t.Errorf("took %v", took)
		}
	})
	t.Run("the second head trickles in", func(t *testing.T) {
		c := dial(t, desk)
		c.send(get + "GET ")
		if got := c.answer("GET"); got.StatusCode != 404 {
			t.Errorf("%d", got.StatusCode)
		}
		if got := c.answer("GET"); got.StatusCode != 408 {
			t.Errorf("%d", got.StatusCode)
		}
		c.closed()
	})
	t.Run("idle", func(t *testing.T) {
		c := dial(t, desk)
		c.send(get)
		c.answer("GET")
		c.closed()
	})
	polltest.Eventually(t, "all are gone", func() bool { return desk.Stats().Connections == 0 })
	if n := desk.Stats().Refused[RefusedHandshakeSlow]; n != 3 {
		t.Errorf("%d were counted as slow, want 3", n)
	}
}

func TestBodies(t *testing.T) {
	desk := newDesk(t, DeskOptions{
		MaxBodyBytes: 1000, BodyTimeout: 200 * time.Millisecond,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/unread" {
				io.WriteString(w, "unread")
				return
			}
			body, err := io.ReadAll(r.Body)
			var tooLarge *http.MaxBytesError
			switch {
			case errors.As(err, &tooLarge):
				w.WriteHeader(http.StatusRequestEntityTooLarge)
			case errors.Is(err, os.ErrDeadlineExceeded):
				w.WriteHeader(http.StatusRequestTimeout)
			case err != nil:
				w.WriteHeader(http.StatusBadRequest)
			default:
				fmt.Fprint(w, len(body))
			}
		}),
	})
	long := strings.Repeat("x", 1001)
	cases := []struct {
		name, request string
		status        int
		body          string
		keeps         bool
	}{
		{"length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", 200, "5", true},
		{"length zero", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 200, "0", true},
		{"no length", "POST / HTTP/1.1\r\nHost: h\r\n\r\n", 200, "0", true},
		{"the longest", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n" + long[:1000], 200, "1000", true},
		{"too long", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n" + long, 413, "", false},
		{"chunked", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200, "5", true},
		{"chunked with trailer", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n", 200, "5", true},
		{"chunked, the longest", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + long[:1000] + "\r\n0\r\n\r\n", 200, "1000", true},
		{"chunked, too long", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + long + "\r\n0\r\n\r\n", 413, "", false},
		{"chunked nonsense", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "", false},
		{"never comes", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel", 408, "", false},
		{"unread, here", "POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", 200, "unread", true},
		{"unread, not here", "POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel", 200, "unread", false},
		{"unread, chunked", "POST /unread HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200, "unread", true},
		{"unread, expected", "POST /unread HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", 200, "unread", false},
		{"expected on HTTP/1.0", "POST / HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", 200, "5", true},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			c := dial(t, desk)
			c.send(test.request)
			got := c.answer("POST")
			if got.StatusCode != test.status || test.body != "" && got.body != test.body {
				t.Fatalf("%d %q, want %d %q", got.StatusCode, got.body, test.status, test.body)
			}
			if !test.keeps {
				c.closed()
				return
			}
			c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi")
			if got := c.answer("POST"); got.body != "2" {
				t.Errorf("the next answer is %d %q", got.StatusCode, got.body)
			}
		})
	}
	t.Run("100-continue", func(t *testing.T) {
		c := dial(t, desk)
		c.send("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\n")
		if got := c.answer("POST"); got.StatusCode != 100 {
			t.Fatalf("first came %d", got.StatusCode)
		}
		c.send("hello")
		if got := c.answer("POST"); got.body != "5" {
			t.Errorf("then came %d %q", got.StatusCode, got.body)
		}
	})
}

// TestFlood: netpoll reads without end, so a client that sends without end while its request is
// worked on must be stopped by us.
func TestFlood(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	desk := newDesk(t, DeskOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		select {
		case <-r.Context().Done():
		case <-leave:
		}
	})})
	c := dial(t, desk)
	defer close(leave)
	c.send(get[:3]) // or it may be served at once, and nobody reads
	polltest.Eventually(t, "netpoll has it", func() bool { return desk.Stats().Accepted == 1 })
	c.send(get[3:])
	<-entered
	block := make([]byte, 64<<10)
	sent := 0
	for ; sent < 1<<30; sent += len(block) {
		if _, err := c.TCPConn.Write(block); err != nil {
			break
		}
		runtime.Gosched()
	}
	polltest.Eventually(t, "the flood is counted", func() bool { return desk.Stats().Refused[RefusedFlood] == 1 })
	polltest.Eventually(t, "its connection is gone", func() bool { return desk.Stats().Connections == 0 })
	t.Logf("%d KiB were sent before the reset", sent>>10)
}

func TestPanics(t *testing.T) {
	log := &logtest.Text{}
	desk := newDesk(t, DeskOptions{
		Logger: slog.New(slog.NewTextHandler(log, nil)),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/before":
				panic("secret")
			case "/buffered":
				io.WriteString(w, "half an ans")
				panic("secret")
			case "/after":
				io.WriteString(w, "half an ans")
				w.(http.Flusher).Flush()
				panic("secret")
			case "/abort":
				panic(http.ErrAbortHandler)
			case "/exit":
				runtime.Goexit()
			case "/parked":
				if err := Park(w, nil); err != nil {
					t.Error(err)
				}
				panic("secret")
			}
			io.WriteString(w, "well")
		}),
	})
	cases := []struct {
		path   string
		status int // 0: none
	}{{"/before", 500}, {"/buffered", 500}, {"/after", 200}, {"/abort", 0}, {"/exit", 0}, {"/parked", 500}}
	for _, test := range cases {
		t.Run(test.path, func(t *testing.T) {
			c := dial(t, desk)
			c.send("GET " + test.path + " HTTP/1.1\r\nHost: h\r\n\r\n")
			if test.status == 0 {
				c.closed()
				return
			}
			response, err := http.ReadResponse(c.reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			if response.StatusCode != test.status {
				t.Errorf("status %d", response.StatusCode)
			}
			if _, err := io.ReadAll(response.Body); (err != nil) != (test.path == "/after") {
				t.Errorf("the body ended with %v", err)
			}
		})
	}
	polltest.Eventually(t, "all are gone", func() bool { return desk.Stats().Connections == 0 && desk.Stats().InFlight == 0 })
	if n := desk.Stats().Refused[RefusedPanic]; n != 4 {
		t.Errorf("%d panics counted, want 4", n)
	}
	if strings.Contains(log.String(), "secret") || !strings.Contains(log.String(), "TestPanics") {
		t.Errorf("the log holds what was panicked with, or no stack: %s", log.String())
	}
	c := dial(t, desk)
	c.send(get)
	if got := c.answer("GET"); got.body != "well" {
		t.Errorf("afterwards: %q", got.body)
	}
}

func TestContextEnds(t *testing.T) {
	entered, ended := make(chan struct{}, 1), make(chan error, 1)
	var past atomic.Pointer[context.Context]
	desk := newDesk(t, DeskOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		past.Store(&ctx)
		if r.URL.Path == "/wait" {
			entered <- struct{}{}
			<-ctx.Done()
			ended <- ctx.Err()
		}
	})})
	for _, way := range []string{"close", "half-close", "reset"} {
		t.Run(way, func(t *testing.T) {
			c := dial(t, desk)
			c.send("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n")
			<-entered
			switch way {
			case "half-close":
				c.CloseWrite()
			case "reset":
				c.SetLinger(0)
				c.Close()
			default:
				c.Close()
			}
			if err := <-ended; err != context.Canceled {
				t.Errorf("context ended with %v", err)
			}
		})
	}
	t.Run("the handler returns", func(t *testing.T) {
		c := dial(t, desk)
		c.send(get)
		c.answer("GET")
		polltest.Eventually(t, "the context ends", func() bool { return (*past.Load()).Err() != nil })
	})
}
