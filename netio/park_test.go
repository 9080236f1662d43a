package netio

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/polltest"
)

// parking is an adopter that keeps what it is given.
type parking struct {
	mu        sync.Mutex
	adopted   []parkedSocket
	abandoned []any
	err       error
	panics    bool
}

type parkedSocket struct {
	fd    int
	early string
	guest any
}

func (p *parking) adopt(fd int, early []byte, guest any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.panics {
		panic("secret")
	}
	if p.err == nil {
		p.adopted = append(p.adopted, parkedSocket{fd, string(early), guest})
	}
	return p.err
}

func (p *parking) abandon(guest any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.abandoned = append(p.abandoned, guest)
}

// one waits for one adopted socket and takes it.
func (p *parking) one(t *testing.T) parkedSocket {
	t.Helper()
	var socket parkedSocket
	polltest.Eventually(t, "a socket is adopted", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.adopted) == 0 {
			return false
		}
		socket, p.adopted = p.adopted[0], p.adopted[1:]
		return true
	})
	return socket
}

// wrapped is a writer around another one.
type wrapped struct{ http.ResponseWriter }

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestPark(t *testing.T) {
	lot := &parking{}
	desk := newDesk(t, DeskOptions{Adopt: lot.adopt, Abandoned: lot.abandon, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/body":
			body, _ := io.ReadAll(r.Body)
			if string(body) != "hello" {
				t.Errorf("body %q", body)
			}
		case "/wrapped":
			w = wrapped{wrapped{w}}
		}
		w.Header().Set("X-Dropped", "x")
		if err := Park(w, r.URL.Path); err != nil {
			t.Error(err)
		}
		if err := Park(w, r.URL.Path); err != ErrParkTwice {
			t.Errorf("twice: %v", err)
		}
		w.WriteHeader(http.StatusTeapot)
		if _, err := w.Write([]byte("x")); err == nil {
			t.Error("writing after Park succeeded")
		}
	})})
	cases := []struct{ name, request, early, guest string }{
		{"nothing behind", "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", "", "/a"},
		{"bytes behind", "GET /a HTTP/1.1\r\nHost: h\r\n\r\n\x81\x00frames", "\x81\x00frames", "/a"},
		{"a request behind", "GET /a HTTP/1.1\r\nHost: h\r\n\r\n" + get, get, "/a"},
		{"many bytes behind", "GET /a HTTP/1.1\r\nHost: h\r\n\r\n" + strings.Repeat("0123456789", 10_000), strings.Repeat("0123456789", 10_000), "/a"},
		{"a body and bytes behind", "POST /body HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello and more", " and more", "/body"},
		{"a chunked body and bytes behind", "POST /body HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n and more", " and more", "/body"},
		{"a body that the handler did not read", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello and more", " and more", "/a"},
		{"a wrapped writer", "GET /wrapped HTTP/1.1\r\nHost: h\r\n\r\n", "", "/wrapped"},
		{"HTTP/1.0", "GET /a HTTP/1.0\r\n\r\n", "", "/a"},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			c := dial(t, desk)
			c.send(test.request)
			socket := lot.one(t)
			defer syscall.Close(socket.fd)
			// What is beyond a first segment may still be in the kernel: the stream goes on where
			// early ends.
			polltest.Eventually(t, "all bytes have come", func() bool {
				buffer := make([]byte, 1<<20)
				n, err := syscall.Read(socket.fd, buffer)
				if err != nil && err != syscall.EAGAIN {
					t.Fatal(err)
				}
				socket.early += string(buffer[:max(n, 0)])
				return len(socket.early) >= len(test.early)
			})
			if socket.early != test.early || socket.guest != test.guest {
				t.Errorf("%d bytes behind, want %d; guest %v", len(socket.early), len(test.early), socket.guest)
			}
			if _, err := syscall.Write(socket.fd, []byte("first bytes")); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len("first bytes"))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != "first bytes" {
				t.Errorf("the client got %q, error %v", got, err)
			}
		})
	}
}

func TestParkErrors(t *testing.T) {
	if err := Park(httptest.NewRecorder(), nil); err != ErrParkForeign {
		t.Errorf("a recorder: %v", err)
	}
	results := make(chan error, 1)
	desk := newDesk(t, DeskOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/after" {
			go func() { results <- nil }()
			return
		}
		w.WriteHeader(http.StatusAccepted)
		results <- Park(w, nil)
	})})
	c := dial(t, desk)
	c.send(get)
	if err := <-results; err != ErrParkWritten {
		t.Errorf("after WriteHeader: %v", err)
	}
	if got := c.answer("GET"); got.StatusCode != http.StatusAccepted {
		t.Errorf("status %d", got.StatusCode)
	}
}

func TestAbandoned(t *testing.T) {
	cases := []struct {
		name    string
		lot     *parking
		request string
		reason  Refusal
	}{
		{"the adopter says no", &parking{err: errors.New("full")}, get, RefusedAdoption},
		{"the adopter panics", &parking{panics: true}, get, RefusedAdoption},
		{"the body does not come", &parking{}, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel", RefusedAdoption},
		{"the handler panics", &parking{}, "GET /panic HTTP/1.1\r\nHost: h\r\n\r\n", RefusedPanic},
		{"the handler exits", &parking{}, "GET /exit HTTP/1.1\r\nHost: h\r\n\r\n", RefusedPanic},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			desk := newDesk(t, DeskOptions{Adopt: test.lot.adopt, Abandoned: test.lot.abandon, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if err := Park(w, "guest"); err != nil {
					t.Error(err)
				}
				switch r.URL.Path {
				case "/panic":
					panic("secret")
				case "/exit":
					runtime.Goexit() // as a failing test in a handler does
				}
			})})
			c := dial(t, desk)
			c.send(test.request)
			io.Copy(io.Discard, c.reader) // until it is closed
			polltest.Eventually(t, "the guest is given back", func() bool {
				test.lot.mu.Lock()
				defer test.lot.mu.Unlock()
				return desk.Stats().Abandoned == 1 && len(test.lot.abandoned) > 0
			})
			test.lot.mu.Lock()
			defer test.lot.mu.Unlock()
			if len(test.lot.abandoned) != 1 || test.lot.abandoned[0] != "guest" {
				t.Errorf("abandoned: %v", test.lot.abandoned)
			}
		})
	}
}

// TestParkWhileClientSends has the client send without pause across the whole hand-over: no
// byte may be lost, wherever the poller was.
func TestParkWhileClientSends(t *testing.T) {
	lot := &parking{}
	desk := newDesk(t, DeskOptions{Adopt: lot.adopt, Abandoned: lot.abandon, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := Park(w, nil); err != nil {
			t.Error(err)
		}
	})})
	var stream bytes.Buffer
	for i := range 3000 {
		stream.WriteString(strings.Repeat(string(rune('a'+i%26)), 1+i%17))
	}
	for range 50 {
		c := dial(t, desk)
		var writer sync.WaitGroup
		writer.Go(func() {
			io.WriteString(c.TCPConn, get)
			for rest := stream.Bytes(); len(rest) > 0; {
				n := min(len(rest), 97)
				if _, err := c.TCPConn.Write(rest[:n]); err != nil {
					t.Errorf("send: %v", err)
					return
				}
				rest = rest[n:]
			}
			c.CloseWrite()
		})
		socket := lot.one(t)
		got := []byte(socket.early)
		buffer := make([]byte, 64<<10)
		for deadline := time.Now().Add(10 * time.Second); ; {
			n, err := syscall.Read(socket.fd, buffer)
			if n == 0 && err == nil {
				break
			}
			got = append(got, buffer[:max(n, 0)]...)
			if err != nil && err != syscall.EAGAIN || time.Now().After(deadline) {
				t.Fatalf("after %d bytes: %v", len(got), err)
			}
		}
		writer.Wait()
		syscall.Close(socket.fd)
		c.Close()
		if !bytes.Equal(got, stream.Bytes()) {
			t.Fatalf("%d of %d bytes came, or others", len(got), stream.Len())
		}
	}
	t.Logf("%+v", desk.Stats())
}
