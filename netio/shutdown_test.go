package netio

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/polltest"
)

// TestShutdown: idle connections are closed at once, a request in flight is answered, and a head
// that has begun may finish.
func TestShutdown(t *testing.T) {
	entered, leave := make(chan struct{}, 2), make(chan struct{})
	desk, err := startDesk(DeskOptions{Adopt: adoptNothing, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			entered <- struct{}{}
			<-leave
		}
		io.WriteString(w, r.URL.Path)
	})})
	if err != nil {
		t.Fatal(err)
	}
	idle, begun, working := dial(t, desk), dial(t, desk), dial(t, desk)
	idle.send(get)
	idle.answer("GET")
	working.send("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n")
	<-entered
	begun.send("GET /begun HTTP/1.1\r\nHo")
	polltest.Eventually(t, "all are accepted", func() bool { return desk.Stats().Connections == 3 })

	done := make(chan error, 1)
	go func() { done <- shutDown(desk, 20*time.Second) }()
	idle.closed()
	polltest.Eventually(t, "nobody is accepted any more", func() bool {
		connection, err := net.Dial("tcp", desk.Addr().String())
		if err == nil {
			connection.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	begun.send("st: h\r\n\r\n")
	if got := begun.answer("GET"); got.body != "/begun" || !got.Close {
		t.Errorf("the request that had begun: %d %q, close %v", got.StatusCode, got.body, got.Close)
	}
	begun.closed()
	select {
	case err := <-done:
		t.Fatalf("Shutdown did not wait for the request in flight: %v", err)
	default:
	}
	close(leave)
	if got := working.answer("GET"); got.body != "/wait" || !got.Close {
		t.Errorf("the request in flight: %d %q, close %v", got.StatusCode, got.body, got.Close)
	}
	working.closed()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := shutDown(desk, time.Second); err != nil {
		t.Errorf("the second time: %v", err)
	}
}

// TestShutdownByDeadline: a handler that heeds its context is ended, one that does not is named.
func TestShutdownByDeadline(t *testing.T) {
	lot := &parking{}
	entered, leave := make(chan struct{}, 1), make(chan struct{})
	cases := []struct {
		path string
		fine bool
	}{{"/heeds", true}, {"/ignores", false}, {"/parks", true}, {"/slow", true}}
	for _, test := range cases {
		t.Run(test.path, func(t *testing.T) {
			desk, err := startDesk(DeskOptions{Adopt: lot.adopt, Abandoned: lot.abandon, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				entered <- struct{}{}
				switch r.URL.Path {
				case "/heeds":
					<-r.Context().Done()
				case "/ignores":
					<-leave
				case "/parks":
					<-r.Context().Done()
					if err := Park(w, "guest"); err != nil {
						t.Error(err)
					}
				case "/slow":
					io.Copy(w, strings.NewReader(strings.Repeat("x", 32<<20)))
				}
			})})
			if err != nil {
				t.Fatal(err)
			}
			c := dial(t, desk)
			c.send("GET " + test.path + " HTTP/1.1\r\nHost: h\r\n\r\n")
			<-entered
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			err = desk.Shutdown(ctx)
			if test.fine {
				// The second that handlers have may be too short where a hundred others want the processor:
				// what counts is that the handler ends, though nobody lets it go.
				polltest.Eventually(t, "the desk is shut down", func() bool { return err == nil || desk.Shutdown(ctx) == nil })
			} else {
				if err == nil || !strings.Contains(err.Error(), "1 connections") || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Shutdown: %v", err)
				}
				close(leave)
			}
			polltest.Eventually(t, "the connection is gone", func() bool { return desk.Stats().Connections == 0 })
		})
	}
	if len(lot.adopted) != 0 || len(lot.abandoned) != 1 {
		t.Errorf("adopted %v, abandoned %v", lot.adopted, lot.abandoned)
	}
}

// TestStopAcceptingTakesTheQueue: connections that the kernel has completed are not reset when
// accepting stops.
func TestStopAcceptingTakesTheQueue(t *testing.T) {
	desk := newDesk(t, DeskOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "well") })})
	var clients []*client
	for range 100 {
		c := dial(t, desk)
		c.send(get)
		clients = append(clients, c)
	}
	desk.StopAccepting()
	for _, c := range clients {
		if got := c.answer("GET"); got.body != "well" {
			t.Fatalf("%d %q", got.StatusCode, got.body)
		}
	}
	clients[0].send(get)
	if got := clients[0].answer("GET"); got.body != "well" || got.Close {
		t.Errorf("afterwards: %d %q, close %v", got.StatusCode, got.body, got.Close)
	}
	if connection, err := net.Dial("tcp", desk.Addr().String()); err == nil {
		connection.Close()
		t.Error("a new connection was accepted")
	}
	desk.StopAccepting()
}

// TestParkWhileStopping: a socket can be handed over while the desk no longer listens.
func TestParkWhileStopping(t *testing.T) {
	lot := &parking{}
	entered, leave := make(chan struct{}), make(chan struct{})
	desk := newDesk(t, DeskOptions{Adopt: lot.adopt, Abandoned: lot.abandon, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-leave
		if err := Park(w, nil); err != nil {
			t.Error(err)
		}
	})})
	c := dial(t, desk)
	c.send(get)
	<-entered
	c.CloseWrite() // so that the hand-over has to wait for the poller
	desk.StopAccepting()
	close(leave)
	syscall.Close(lot.one(t).fd)
}

func TestRefusedAtAccept(t *testing.T) {
	t.Run("connections", func(t *testing.T) {
		desk := newDesk(t, DeskOptions{MaxConnections: 2})
		first, second := dial(t, desk), dial(t, desk)
		first.send(get)
		first.answer("GET")
		second.send(get)
		second.answer("GET")
		dial(t, desk).closed()
		if n := desk.Stats().Refused[RefusedConnections]; n != 1 {
			t.Errorf("counted %d times", n)
		}
		first.send(get)
		if got := first.answer("GET"); got.StatusCode != 404 {
			t.Errorf("the first is served %d", got.StatusCode)
		}
		second.Close()
		polltest.Eventually(t, "there is room again", func() bool { return desk.Stats().Connections == 1 })
		third := dial(t, desk)
		third.send(get)
		third.answer("GET")
	})
	t.Run("a crowd at once", func(t *testing.T) {
		const crowd, limit, burst = 500, 1000, 100
		firsts := make([]string, crowd)
		for i := range firsts {
			firsts[i] = get
		}
		desk, _, open := closedDesk(t, DeskOptions{AcceptRate: limit, Handler: notFound}, firsts...)
		began := time.Now()
		open()
		polltest.Eventually(t, "all are accepted or refused", func() bool {
			stats := desk.Stats()
			return stats.Accepted+stats.Refused[RefusedAcceptRate] == crowd
		})
		most := burst + uint64(time.Since(began).Seconds()*limit) + 1
		if accepted := desk.Stats().Accepted; accepted < burst || accepted > most {
			t.Errorf("%d were accepted, want %d to %d", accepted, burst, most)
		}
	})
	t.Run("rate", func(t *testing.T) {
		desk := newDesk(t, DeskOptions{AcceptRate: 5})
		for range deskAcceptBurstMin {
			c := dial(t, desk)
			c.send(get)
			c.answer("GET")
		}
		polltest.Eventually(t, "somebody is refused", func() bool {
			dial(t, desk)
			return desk.Stats().Refused[RefusedAcceptRate] > 0
		})
	})
}

func TestOverloaded(t *testing.T) {
	entered, leave := make(chan struct{}, 2), make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-leave
	})
	for name, own := range map[string]http.Handler{
		"default": nil,
		"own": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "retry: 5000\n\n")
		}),
	} {
		t.Run(name, func(t *testing.T) {
			desk := newDesk(t, DeskOptions{MaxInFlight: 2, Handler: handler, Overloaded: own})
			first, second, third := dial(t, desk), dial(t, desk), dial(t, desk)
			first.send(get)
			second.send(get)
			<-entered
			<-entered
			third.send(get)
			got := third.answer("GET")
			if own == nil && (got.StatusCode != 503 || got.Header.Get("Retry-After") != "1" || !strings.Contains(got.body, `"overloaded"`)) ||
				own != nil && (got.StatusCode != 200 || got.body != "retry: 5000\n\n") {
				t.Errorf("%d %v %q", got.StatusCode, got.Header, got.body)
			}
			leave <- struct{}{}
			leave <- struct{}{}
			first.answer("GET")
			third.send(get)
			<-entered
			leave <- struct{}{}
			if got := third.answer("GET"); got.StatusCode != 200 {
				t.Errorf("afterwards %d", got.StatusCode)
			}
			if n := desk.Stats().Refused[RefusedOverloaded]; n != 1 {
				t.Errorf("counted %d times", n)
			}
		})
	}
}

// TestManyAtOnce: a burst of clients is no overload, since requests that wait for a processor are
// not in flight.
func TestManyAtOnce(t *testing.T) {
	desk := newDesk(t, DeskOptions{MaxConnections: -1, MaxInFlight: 64, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "well") })})
	var clients []*client
	for range 1000 {
		clients = append(clients, dial(t, desk))
	}
	for _, c := range clients {
		c.send(get)
	}
	for _, c := range clients {
		if got := c.answer("GET"); got.body != "well" {
			t.Fatalf("%d %q", got.StatusCode, got.body)
		}
		c.Close()
	}
}

func TestStatsNames(t *testing.T) {
	var names []string
	DeskStats{}.Refusals(func(name string, _ uint64) { names = append(names, name) })
	if len(names) != int(refusalCount) || names[RefusedBug] != "bug" || names[0] != "bad_request" {
		t.Errorf("names %v", names)
	}
	for _, name := range names {
		if name == "" {
			t.Error("a refusal has no name")
		}
	}
	if Refusal(200).String() != "unknown" {
		t.Error("a refusal beyond the last has a name")
	}
}

// TestAnswersHoldNothingOfTheRequest: what a client sent, a token perhaps, must not come back in a
// refusal, since proxies log those.
func TestAnswersHoldNothingOfTheRequest(t *testing.T) {
	desk := newDesk(t, DeskOptions{MaxHeadBytes: headTestBytesMax})
	for _, test := range headCases {
		if test.status == 200 {
			continue
		}
		c := dial(t, desk)
		c.send(strings.Replace(headText(test.request), "Host: h", "X-Token: hush-hush\r\nHost: h", 1))
		raw, err := io.ReadAll(c.reader)
		if err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v", test.name, err)
		}
		if bytes.Contains(raw, []byte("hush")) || bytes.Contains(raw, []byte("evil")) {
			t.Errorf("%s: %s", test.name, raw)
		}
	}
}
