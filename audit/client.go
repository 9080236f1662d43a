package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// wire is how a client listens.
type wire uint8

const (
	wireSSE     wire = iota // an event stream with one channel
	wireSSEMany             // an event stream with five channels
	wireWS                  // a WebSocket with envelopes
	wireRaw                 // a WebSocket as it is by default: events as they were published, without ids
	wireCount
)

func (w wire) String() string {
	return [...]string{"SSE, 1 channel", "SSE, 5 channels", "WebSocket", "WebSocket, raw"}[w]
}

func (w wire) isWebSocket() bool { return w == wireWS || w == wireRaw }

// habit is what a client does besides listening.
type habit uint8

const (
	steady    habit = iota
	stalling        // does not read for some seconds, now and then
	moving          // goes to the other gateway at random moments
	returning       // comes back to the same gateway at random moments
)

const (
	stallMin, stallMax = 2 * time.Second, 5 * time.Second
	habitMin, habitMax = 3 * time.Second, 10 * time.Second
	// stallingReceiveBytes is the receive buffer of clients that stall, so that the gateway soon
	// knows.
	stallingReceiveBytes = 4 << 10
	readBytes            = 4 << 10
	dialTimeout          = 20 * time.Second
	retryMin, retryMax   = 50 * time.Millisecond, 500 * time.Millisecond
	messageBytesMax      = 1 << 20
)

// client is one client over all its connections.
type client struct {
	number    int
	wire      wire
	habit     habit
	beginning bool // listens since=0
	packed    bool // asks for compression, and wants to get it
	addresses []string
	at        int // index of the gateway in addresses
	closing   <-chan struct{}
	random    *rand.Rand

	mutex    sync.Mutex // guards what follows, against who asks whether all is settled
	accounts []*account
	byName   map[string]*account

	lastID      string // of an event stream
	connections int
	refusals    map[string]int // what ended connections that the client did not end itself
}

// errMoved ends a connection that the client itself gave up.
var errMoved = errors.New("moved")

// run connects and listens, again and again, until ctx ends.
func (c *client) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := c.connectOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errMoved) {
			if c.habit == moving {
				c.at = (c.at + 1) % len(c.addresses)
			}
			continue
		}
		c.mutex.Lock()
		c.refusals[plainWords(err)]++
		c.mutex.Unlock()
		sleep(ctx, between(c.random, retryMin, retryMax))
	}
}

// plainWords is an error without what differs from connection to connection.
func plainWords(err error) string {
	var network *net.OpError
	if errors.As(err, &network) {
		return network.Op + ": " + network.Err.Error()
	}
	return err.Error()
}

// connectOnce is one connection from its beginning to its end.
func (c *client) connectOnce(ctx context.Context) error {
	dialer := net.Dialer{Timeout: dialTimeout}
	if c.habit == stalling {
		dialer.Control = func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) {
				_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, stallingReceiveBytes)
			})
		}
	}
	connection, err := dialer.DialContext(ctx, "tcp", c.addresses[c.at])
	if err != nil {
		return err
	}
	defer connection.Close()
	defer context.AfterFunc(ctx, func() { _ = connection.Close() })()
	moved := make(chan struct{})
	if c.habit == moving || c.habit == returning {
		timer := time.AfterFunc(between(c.random, habitMin, habitMax), func() {
			select {
			case <-c.closing: // from here on everybody stays
			default:
				close(moved)
				_ = connection.Close()
			}
		})
		defer timer.Stop()
	}
	c.mutex.Lock()
	c.connections++
	c.mutex.Unlock()
	if c.wire.isWebSocket() {
		err = c.listenWebSocket(connection)
	} else {
		err = c.listenSSE(connection)
	}
	select {
	case <-moved:
		return errMoved
	default:
		return err
	}
}

// request sends the head of a request and reads the head of the answer.
func (c *client) request(connection net.Conn, path string, status int, headers ...string) (*http.Response, *bufio.Reader, error) {
	head := "GET " + path + " HTTP/1.1\r\nHost: " + c.addresses[c.at] + "\r\n"
	for _, header := range headers {
		head += header + "\r\n"
	}
	if _, err := connection.Write([]byte(head + "\r\n")); err != nil {
		return nil, nil, err
	}
	reader := bufio.NewReaderSize(connection, readBytes)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("read the answer's head: %w", err)
	}
	if response.StatusCode != status {
		return nil, nil, fmt.Errorf("status %d", response.StatusCode)
	}
	return response, reader, nil
}

// staller makes a client not read now and then.
type staller struct {
	client *client
	next   time.Time
}

func (c *client) staller() *staller {
	s := &staller{client: c}
	s.plan()
	return s
}

func (s *staller) plan() { s.next = time.Now().Add(between(s.client.random, habitMin, habitMax)) }

// stall does not return for a while, if it is time.
func (s *staller) stall() {
	if s.client.habit != stalling || time.Now().Before(s.next) {
		return
	}
	timer := time.NewTimer(between(s.client.random, stallMin, stallMax))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.client.closing:
	}
	s.plan()
}

// payload is what the publisher writes.
type payload struct {
	Type    string `json:"type"`
	Channel string `json:"channel"`
	Number  uint32 `json:"n"`
	Padding string `json:"pad,omitempty"`
}

// notice is what the gateway says of its own.
type notice struct {
	Type     string   `json:"type"`
	Channel  string   `json:"channel"`
	Channels []string `json:"channels"`
	Code     string   `json:"code"`
	Reason   string   `json:"reason"`
}

// event takes a published event to the account of its channel.
func (c *client) event(text []byte, id string) error {
	var p payload
	if err := json.Unmarshal(text, &p); err != nil {
		return fmt.Errorf("an event is no JSON: %w", err)
	}
	one := c.byName[p.Channel]
	if one == nil {
		return fmt.Errorf("an event of a channel that was not asked for: %s", p.Channel)
	}
	one.event(p.Number)
	if id != "" {
		one.id = id
	}
	return nil
}

// said takes what the gateway says of one channel to its account.
func (c *client) said(n *notice) error {
	if n.Type == "server_error" || n.Type == "error" {
		return errors.New(n.Type + " " + n.Code)
	}
	one := c.byName[n.Channel]
	if one == nil {
		return fmt.Errorf("%s of a channel that was not asked for: %q", n.Type, n.Channel)
	}
	switch n.Type {
	case "subscribed":
		one.confirm()
	case "gap":
		one.gap(n.Reason)
	case "replayed":
		one.replay()
	case "deleted":
		one.delete()
	default:
		return fmt.Errorf("%q was not expected", n.Type)
	}
	return nil
}

// settled reports whether the client has all that will come.
func (c *client) settled() bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for _, one := range c.accounts {
		if !one.settled() {
			return false
		}
	}
	return true
}

// confirmed reports whether the client hears all its channels.
func (c *client) confirmed() bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for _, one := range c.accounts {
		if !one.confirmed {
			return false
		}
	}
	return true
}

func between(random *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(random.Int64N(int64(high-low)))
}

// sleep waits, but no longer than ctx lives.
func sleep(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
