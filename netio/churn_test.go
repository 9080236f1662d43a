package netio

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/polltest"
)

var churnCount = flag.Int("churn", churnCountDefault, "hand-overs of TestChurn")

// churnHandler parks /stream/NAME as a stream that greets with its name, and answers /plain/NAME
// with it.
func churnHandler(w http.ResponseWriter, r *http.Request) {
	kind, name, _ := strings.Cut(r.URL.Path[1:], "/")
	if kind == "stream" {
		if err := Park(w, "hello "+name+"\n"); err != nil {
			panic(err)
		}
		return
	}
	io.WriteString(w, name)
}

// churnWays are how a client may behave around the hand-over. Each gets a connection, the
// client's name, the head of its handshake and the payload to send, and returns the bytes that it
// still has to read, or nil if it does not care.
var churnWays = []struct {
	name string
	talk func(c *churnClient) error
}{
	{"polite", func(c *churnClient) error {
		return errors.Join(c.write(c.head), c.expect(c.greeting), c.write(c.payload), c.expect(c.payload))
	}},
	{"same segment", func(c *churnClient) error {
		return errors.Join(c.write(c.head, c.payload), c.expect(c.greeting, c.payload), c.write(c.payload), c.expect(c.payload))
	}},
	{"a moment later", func(c *churnClient) error {
		err := c.write(c.head)
		for range c.random.IntN(4) {
			c.dawdle()
			part := c.payload[:c.random.IntN(len(c.payload)+1)]
			err = errors.Join(err, c.write(part))
			c.sent = append(c.sent, part...)
		}
		return errors.Join(err, c.expect(c.greeting, c.sent), c.write(c.payload), c.expect(c.payload))
	}},
	{"half-close", func(c *churnClient) error {
		err := c.write(c.head, c.payload)
		c.dawdle()
		return errors.Join(err, c.CloseWrite(), c.expect(c.greeting, c.payload), c.expectEnd())
	}},
	{"reset", func(c *churnClient) error {
		if c.random.IntN(2) == 0 {
			c.write(c.head)
		} else {
			c.write(c.head, c.payload)
		}
		if c.random.IntN(2) == 0 {
			c.dawdle()
		}
		return nil // its end is a reset
	}},
	{"keep-alive before", func(c *churnClient) error {
		var err error
		for range 1 + c.random.IntN(3) {
			err = errors.Join(err, c.write(c.plain), c.expectAnswer())
		}
		return errors.Join(err, c.write(c.head), c.expect(c.greeting), c.write(c.payload), c.expect(c.payload))
	}},
	{"pipelined before", func(c *churnClient) error {
		return errors.Join(c.write(c.plain, c.plain, c.head, c.payload),
			c.expectAnswer(), c.expectAnswer(), c.expect(c.greeting, c.payload))
	}},
	{"in pieces", func(c *churnClient) error {
		whole := append(bytes.Clone(c.head), c.payload...)
		var err error
		for len(whole) > 0 {
			n := 1 + c.random.IntN(len(whole))
			err = errors.Join(err, c.write(whole[:n]))
			whole = whole[n:]
			c.dawdle()
		}
		return errors.Join(err, c.expect(c.greeting, c.payload))
	}},
}

type churnClient struct {
	*net.TCPConn
	reader *bufio.Reader
	random *rand.Rand

	head, plain, greeting, payload, sent []byte
	name                                 string
	heard                                bool // a byte came
}

func (c *churnClient) write(parts ...[]byte) error {
	_, err := c.TCPConn.Write(bytes.Join(parts, nil))
	return err
}

func (c *churnClient) expect(parts ...[]byte) error {
	wanted := bytes.Join(parts, nil)
	got := make([]byte, len(wanted))
	n, err := io.ReadFull(c.reader, got)
	c.heard = c.heard || n > 0
	if err != nil {
		return fmt.Errorf("%d of %d bytes came: %w", n, len(wanted), err)
	}
	if !bytes.Equal(got, wanted) {
		return fmt.Errorf("wrong bytes: got %.80q, want %.80q", got, wanted)
	}
	return nil
}

func (c *churnClient) expectEnd() error {
	if b, err := c.reader.ReadByte(); err != io.EOF {
		return fmt.Errorf("after the end: byte %d, error %v", b, err)
	}
	return nil
}

func (c *churnClient) expectAnswer() error {
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return err
	}
	c.heard = true
	body, err := io.ReadAll(response.Body)
	if err != nil || string(body) != c.name {
		return fmt.Errorf("answer %q instead of %q, error %v", body, c.name, err)
	}
	return nil
}

// dawdle lets between nothing and some tens of microseconds pass, so that what is sent next falls
// into every moment of a hand-over.
func (c *churnClient) dawdle() {
	for range c.random.IntN(40) {
		runtime.Gosched()
	}
}

// talk runs one client from dial to close.
func (c *churnClient) talk(address string, number int) error {
	way := churnWays[c.random.IntN(len(churnWays))]
	began := time.Now()
	connection, err := net.Dial("tcp", address)
	if err != nil {
		return fmt.Errorf("%s: %w", way.name, err)
	}
	c.TCPConn = connection.(*net.TCPConn)
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	c.SetLinger(0)
	c.reader.Reset(connection)
	c.heard = false
	c.name = fmt.Sprintf("client-%d", number)
	c.head = fmt.Appendf(c.head[:0], "GET /stream/%s HTTP/1.1\r\nHost: churn\r\nUpgrade: churn\r\nX-Pad: %s\r\n\r\n", c.name, strings.Repeat("p", c.random.IntN(600)))
	c.plain = fmt.Appendf(c.plain[:0], "GET /plain/%s HTTP/1.1\r\nHost: churn\r\n\r\n", c.name)
	c.greeting = fmt.Appendf(c.greeting[:0], "hello %s\n", c.name)
	c.payload = c.payload[:0]
	for line := range 1 + c.random.IntN(40) {
		c.payload = fmt.Appendf(c.payload, "%s line %d\n", c.name, line)
	}
	c.sent = c.sent[:0]
	if err := way.talk(c); err != nil {
		return fmt.Errorf("%s: %s, %v after it dialled from %v: %w", way.name, c.name, time.Since(began), c.LocalAddr(), err)
	}
	return nil
}

// TestChurn hands over a great many sockets, their clients doing all that may go wrong around it,
// and each checks that it got its own bytes, whole and in order.
func TestChurn(t *testing.T) {
	loop, err := newEchoLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer loop.close()
	var abandoned atomic.Int64
	desk := newDesk(t, DeskOptions{
		Handler:   http.HandlerFunc(churnHandler),
		Adopt:     loop.adopt,
		Abandoned: func(any) { abandoned.Add(1) },
	})
	const crowd = 64
	var next, wrong, unanswered atomic.Int64
	var clients sync.WaitGroup
	for i := range crowd {
		clients.Go(func() {
			c := &churnClient{random: rand.New(rand.NewPCG(1, uint64(i))), reader: bufio.NewReader(nil)}
			for number := next.Add(1); number <= int64(*churnCount); number = next.Add(1) {
				if err := c.talk(desk.Addr().String(), int(number)); err != nil {
					if !c.heard && unanswered.Add(1) <= churnUnansweredMax {
						t.Log(err)
						continue
					}
					if wrong.Add(1) <= 10 {
						t.Error(err)
					}
				}
			}
		})
	}
	clients.Wait()
	polltest.Eventually(t, "all connections have left", func() bool { return desk.Stats().Connections == 0 })
	select {
	case err := <-loop.errors:
		t.Error(err)
	default:
	}
	stats := desk.Stats()
	t.Logf("%d clients, %d wrong; %+v", *churnCount, wrong.Load(), stats)
	if stats.Parked != stats.Adopted+stats.Abandoned || int64(stats.Abandoned) != abandoned.Load() || stats.Abandoned != 0 {
		t.Errorf("guests do not add up: %+v, %d told as abandoned", stats, abandoned.Load())
	}
}
