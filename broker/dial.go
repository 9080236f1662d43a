package broker

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

const (
	// dialTimeout bounds connecting, and then again the first exchange (HELLO): a black hole
	// takes both.
	dialTimeout = 2 * time.Second
	// answerTimeout is how long rueidis waits for the answer to a command; the canary notices
	// a stall sooner.
	answerTimeout = 3 * time.Second
	// pingInterval is how often rueidis proves a silent connection; the canary is quicker, but
	// a server may refuse it.
	pingInterval = 10 * time.Second
	// readBufferBytes and writeBufferBytes are per connection.
	readBufferBytes  = 64 << 10
	writeBufferBytes = 16 << 10
	// ringScale makes 2^8 slots for commands in flight on a connection.
	ringScale = 8
)

// line is the connections of one client, which can be cut at once: closing the sockets is what
// ends rueidis's goroutines however stuck their server is.
type line struct {
	ctx    context.Context // ends when the line is severed, or its parent ends
	cancel context.CancelFunc
	reader *reader // of the next connection dialled, if that is for pub/sub
	dialed func()  // called for each connection made, may be nil

	mutex sync.Mutex
	open  map[net.Conn]struct{}
	cut   bool
}

// dial makes a connection for rueidis.
func (l *line) dial(ctx context.Context, address string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	network := "tcp"
	if address[0] == '/' {
		network = "unix"
	}
	var connection net.Conn
	var err error
	if config != nil {
		connection, err = (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, network, address)
	} else {
		connection, err = dialer.DialContext(ctx, network, address)
	}
	if err != nil {
		return nil, err
	}
	tracked := &trackedConn{Conn: connection, line: l, source: connection}
	if direct, ok := newDirectReader(connection); ok {
		tracked.source = direct
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.cut {
		_ = connection.Close()
		return nil, net.ErrClosed
	}
	tracked.reader, l.reader = l.reader, nil
	l.open[tracked] = struct{}{}
	if l.dialed != nil {
		l.dialed()
	}
	return tracked, nil
}

// feed makes the next connection that is dialled the one that reader reads.
func (l *line) feed(reader *reader) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.reader = reader
}

// newLine makes a line that is severed at the latest when parent ends. The caller severs it.
func newLine(parent context.Context, dialed func()) *line {
	l := &line{dialed: dialed, open: make(map[net.Conn]struct{})}
	l.ctx, l.cancel = context.WithCancel(parent)
	context.AfterFunc(l.ctx, l.closeAll)
	return l
}

// sever closes all connections and lets no new one come.
func (l *line) sever() {
	l.cancel()
	l.closeAll()
}

func (l *line) closeAll() {
	l.mutex.Lock()
	l.cut = true
	open := make([]net.Conn, 0, len(l.open))
	for connection := range l.open {
		open = append(open, connection)
	}
	l.mutex.Unlock()
	for _, connection := range open {
		_ = connection.Close()
	}
}

// trackedConn tells its line of its end, and its reader of the moments around a read.
type trackedConn struct {
	net.Conn
	line   *line
	source io.Reader // of what Conn receives
	reader *reader   // nil unless this is a pub/sub connection
}

// Read is called by rueidis when all that came before has been handled: the moment to tell what
// was gathered, and on return the moment at which the next events came.
func (c *trackedConn) Read(into []byte) (int, error) {
	if c.reader == nil {
		return c.source.Read(into)
	}
	c.reader.beforeRead()
	count, err := c.source.Read(into)
	c.reader.received = time.Now()
	return count, err
}

func (c *trackedConn) Close() error {
	c.line.mutex.Lock()
	delete(c.line.open, c)
	c.line.mutex.Unlock()
	return c.Conn.Close()
}

// clientOption is how every connection to a Redis is set up. rueidis retries nothing by itself:
// what failed and what may be repeated is decided here.
func (r *Redis) clientOption(l *line, address string) rueidis.ClientOption {
	option := rueidis.ClientOption{
		InitAddress:         []string{address},
		ForceSingleClient:   true,
		DialCtxFn:           l.dial,
		Username:            r.target.username,
		Password:            r.target.password,
		SelectDB:            r.target.database,
		ClientName:          "millrace",
		ClientSetInfo:       rueidis.DisableClientSetInfo,
		DisableCache:        true,
		DisableRetry:        true,
		PipelineMultiplex:   -1, // one command connection
		BlockingPipeline:    math.MaxInt32,
		RingScaleEachConn:   ringScale,
		ReadBufferEachConn:  readBufferBytes,
		WriteBufferEachConn: writeBufferBytes,
		ConnWriteTimeout:    answerTimeout,
	}
	option.Dialer.Timeout = dialTimeout
	option.Dialer.KeepAlive = pingInterval
	if r.target.tls {
		option.TLSConfig = r.tlsConfig
		if option.TLSConfig == nil {
			option.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		}
	}
	return option
}

// connect makes a client with its command connection open. On error nothing is left behind.
func (r *Redis) connect(l *line, option rueidis.ClientOption) (rueidis.Client, error) {
	client, err := rueidis.NewClient(option)
	if err == nil {
		return client, nil
	}
	l.sever()
	if client != nil {
		client.Close()
	}
	return nil, fmt.Errorf("connect: %w", err)
}

// identity is what a server says of itself.
type identity struct {
	mode string // standalone, cluster or sentinel
	role string // master or replica; a Sentinel has none
}

// identify asks a server what it is. HELLO without arguments changes nothing and is allowed to
// every user, unlike ROLE and INFO.
func identify(ctx context.Context, client rueidis.Client) (identity, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	answer, err := client.Do(ctx, client.B().Arbitrary("HELLO").Build()).AsMap()
	if err != nil {
		return identity{}, err
	}
	var found identity
	if value, ok := answer["mode"]; ok {
		found.mode, _ = value.ToString()
	}
	if value, ok := answer["role"]; ok {
		found.role, _ = value.ToString()
	}
	return found, nil
}
