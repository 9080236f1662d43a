package netio

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/polltest"
)

// TestAnswers compares what the desk makes of handlers with what is to be expected.
func TestAnswers(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 20_000) // 320,000 bytes
	cases := []struct {
		name    string
		handler http.HandlerFunc
		status  int
		body    string
		length  int64 // -1: not declared
		header  map[string]string
		closes  bool
	}{
		{name: "nothing", handler: func(w http.ResponseWriter, r *http.Request) {}, status: 200, length: 0},
		{name: "text", handler: func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "hello")
		}, status: 200, body: "hello", length: 5, header: map[string]string{"Content-Type": "text/plain; charset=utf-8"}},
		{name: "own type", handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Write([]byte("{}"))
		}, status: 200, body: "{}", length: 2, header: map[string]string{"Content-Type": "application/json"}},
		{name: "type suppressed", handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = nil
			w.Write([]byte("{}"))
		}, status: 200, body: "{}", length: 2, header: map[string]string{"Content-Type": ""}},
		{name: "status", handler: func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusTeapot)
			w.WriteHeader(http.StatusOK) // ignored
		}, status: 418, length: 0},
		{name: "informational is not sent", handler: func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusAccepted)
		}, status: 202, length: 0},
		{name: "header after the status", handler: func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			w.Header().Set("X-Late", "x")
		}, status: 200, length: 0, header: map[string]string{"X-Late": ""}},
		{name: "no content", handler: func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusNoContent)
			if _, err := io.WriteString(w, "x"); err != http.ErrBodyNotAllowed {
				panic(err)
			}
		}, status: 204, length: 0},
		{name: "not modified", handler: func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusNotModified)
		}, status: 304, length: 0},
		{name: "header injection", handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-A", "a\r\nX-B: b\x00")
			w.Header()["X C"] = []string{"c"}
			w.Header()["X-D\r\nX-E"] = []string{"d"}
		}, status: 200, length: 0, header: map[string]string{"X-A": "a  X-B: b", "X-B": "", "X-E": ""}},
		{name: "own framing is ignored", handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Transfer-Encoding", "chunked")
			w.Header().Set("Content-Length", "+5")
			io.WriteString(w, "hello")
		}, status: 200, body: "hello", length: 5},
		{name: "just held back", handler: func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, long[:deskAnswerBytesMax])
		}, status: 200, body: long[:deskAnswerBytesMax], length: deskAnswerBytesMax},
		{name: "streamed", handler: func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, long[:10])
			w.Write([]byte(long[10:]))
		}, status: 200, body: long, length: -1, header: map[string]string{"Content-Type": "text/plain; charset=utf-8"}},
		{name: "streamed in small parts", handler: func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i < len(long); i += 1000 {
				io.WriteString(w, long[i:i+1000])
			}
		}, status: 200, body: long, length: -1},
		{name: "streamed with a length", handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(long)))
			io.WriteString(w, long)
		}, status: 200, body: long, length: int64(len(long))},
		{name: "flushed", handler: func(w http.ResponseWriter, r *http.Request) {
			for range 3 {
				io.WriteString(w, "part ")
				w.(http.Flusher).Flush()
			}
		}, status: 200, body: "part part part ", length: -1},
		{name: "flushed empty", handler: func(w http.ResponseWriter, r *http.Request) {
			if err := http.NewResponseController(w).Flush(); err != nil {
				panic(err)
			}
		}, status: 200, length: -1},
		{name: "more than declared", handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "3")
			io.WriteString(w, "abc")
			if _, err := io.WriteString(w, "d"); err != http.ErrContentLength {
				panic(err)
			}
		}, status: 200, body: "abc", length: 3},
		{name: "http.Error", handler: func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "no", http.StatusForbidden)
		}, status: 403, body: "no\n", length: 3, header: map[string]string{"X-Content-Type-Options": "nosniff"}},
		{name: "http.ServeContent", handler: func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "x.txt", time.Time{}, strings.NewReader(long))
		}, status: 200, body: long, length: int64(len(long))},
		{name: "own date", handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", "yesterday")
		}, status: 200, length: 0, header: map[string]string{"Date": "yesterday"}},
		{name: "cookies", handler: func(w http.ResponseWriter, r *http.Request) {
			http.SetCookie(w, &http.Cookie{Name: "a", Value: "b"})
			http.SetCookie(w, &http.Cookie{Name: "c", Value: "d"})
		}, status: 200, length: 0, header: map[string]string{"Set-Cookie": "a=b"}},
	}
	handlers := make(map[string]http.HandlerFunc)
	for i, test := range cases {
		handlers[fmt.Sprintf("/%d", i)] = test.handler
	}
	desk := newDesk(t, DeskOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handlers[r.URL.Path](w, r) })})
	for i, test := range cases {
		for _, method := range []string{"GET", "HEAD"} {
			for _, version := range []string{"1.1", "1.0"} {
				t.Run(test.name+"/"+method+"/"+version, func(t *testing.T) {
					c := dial(t, desk)
					request := fmt.Sprintf("%s /%d HTTP/%s\r\nHost: h\r\nConnection: keep-alive\r\n\r\n", method, i, version)
					c.send(request)
					got := c.answer(method)
					if got.StatusCode != test.status {
						t.Errorf("status %d, want %d", got.StatusCode, test.status)
					}
					if method == "GET" && got.body != test.body || method == "HEAD" && got.body != "" {
						t.Errorf("body %.60q (%d bytes), want %.60q (%d bytes)", got.body, len(got.body), test.body, len(test.body))
					}
					if method == "GET" && got.ContentLength != test.length {
						t.Errorf("length %d, want %d", got.ContentLength, test.length)
					}
					for name, value := range test.header {
						if got.Header.Get(name) != value {
							t.Errorf("%s is %q, want %q", name, got.Header.Get(name), value)
						}
					}
					closes := version == "1.0" && test.length < 0 && (method == "GET" || strings.HasPrefix(test.name, "flushed"))
					if closes {
						c.closed()
						return
					}
					c.send(request)
					if again := c.answer(method); again.StatusCode != test.status || again.body != got.body {
						t.Errorf("the second time: %d, %d bytes", again.StatusCode, len(again.body))
					}
				})
			}
		}
	}
}

func TestAnswerShorterThanDeclared(t *testing.T) {
	desk := newDesk(t, DeskOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "short")
	})})
	c := dial(t, desk)
	c.send(get)
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(response.Body); err != io.ErrUnexpectedEOF {
		t.Errorf("body %q, error %v", body, err)
	}
}

// TestWritingAfterTheEnd has the handler of a second request use the writer and body of the first.
func TestWritingAfterTheEnd(t *testing.T) {
	var writer http.ResponseWriter
	var body io.Reader
	desk := newDesk(t, DeskOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if writer == nil {
			writer, body = w, r.Body
			return
		}
		if _, err := io.WriteString(writer, "late"); err != http.ErrHijacked {
			t.Errorf("late Write: %v", err)
		}
		writer.WriteHeader(500)
		writer.(http.Flusher).Flush()
		if err := Park(writer, nil); err != ErrParkWritten {
			t.Errorf("late Park: %v", err)
		}
		if _, err := body.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("late Read: %v", err)
		}
	})})
	c := dial(t, desk)
	for range 2 {
		c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi")
		if got := c.answer("POST"); got.StatusCode != 200 || got.body != "" {
			t.Errorf("%d %q", got.StatusCode, got.body)
		}
	}
}

func TestOptionsAsterisk(t *testing.T) {
	desk := newDesk(t, DeskOptions{})
	c := dial(t, desk)
	c.send("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n")
	if got := c.answer("OPTIONS"); got.StatusCode != 204 || got.Header.Get("Allow") == "" {
		t.Errorf("%d %v", got.StatusCode, got.Header)
	}
}

// TestSlowReader: a client that does not read a long answer is waited for, but not for ever.
func TestSlowReader(t *testing.T) {
	const total = 32 << 20
	cases := []struct {
		name    string
		timeout time.Duration
		read    func(c *client, desk *Desk) // reads, or does not
		result  func(error) bool            // is this what the handler should get?
		counted uint64
	}{
		{
			"never reads", 200 * time.Millisecond, func(c *client, _ *Desk) { c.SetReadBuffer(4 << 10) },
			func(err error) bool { return errors.Is(err, errSlowReader) }, 1,
		},
		{"reads late", time.Minute, func(c *client, desk *Desk) {
			polltest.Eventually(t, "the handler works", func() bool { return desk.Stats().InFlight == 1 })
			if got := c.answer("GET"); len(got.body) != total {
				t.Errorf("%d bytes came", len(got.body))
			}
		}, func(err error) bool { return err == nil }, 0},
		{"has closed its sending half", time.Minute, func(c *client, _ *Desk) {
			c.CloseWrite()
			if got := c.answer("GET"); len(got.body) != total {
				t.Errorf("%d bytes came", len(got.body))
			}
		}, func(err error) bool { return err == nil }, 0},
		{"resets", time.Minute, func(c *client, desk *Desk) {
			polltest.Eventually(t, "the handler works", func() bool { return desk.Stats().InFlight == 1 })
			c.SetLinger(0)
			c.Close()
		}, func(err error) bool { return err != nil && !errors.Is(err, errSlowReader) }, 0},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			result := make(chan error, 1)
			desk := newDesk(t, DeskOptions{WriteTimeout: test.timeout, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var err error
				block := make([]byte, 1<<17)
				for sent := 0; sent < total && err == nil; sent += len(block) {
					_, err = w.Write(block)
				}
				result <- err
			})})
			c := dial(t, desk)
			c.send(get)
			test.read(c, desk)
			if err := <-result; !test.result(err) {
				t.Errorf("the handler got %v", err)
			}
			c.Close()
			polltest.Eventually(t, "it is gone", func() bool { return desk.Stats().Connections == 0 })
			if n := desk.Stats().Refused[RefusedSlowReader]; n != test.counted {
				t.Errorf("counted %d times", n)
			}
		})
	}
}

// TestHalfClosed: a client that sends its request and the end of its stream at once still gets
// its answer.
func TestHalfClosed(t *testing.T) {
	desk := newDesk(t, DeskOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.Repeat("x", 50_000))
	})})
	for range 200 {
		c := dial(t, desk)
		c.send(get + get)
		c.CloseWrite()
		for range 2 {
			if got := c.answer("GET"); len(got.body) != 50_000 {
				t.Fatalf("%d bytes came", len(got.body))
			}
		}
		c.closed()
		c.Close()
	}
}
