package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
)

// swallowEvery is how many messages of Redis pass before one is lost.
const swallowEvery = 500

// proxy is the sabotage: it stands between the gateways and Redis and loses a message now and then,
// of pub/sub or that a key has changed, as if Redis had never sent it. Nobody is told, so the audit
// has to find out.
type proxy struct {
	listener net.Listener
	redis    string
	waiting  sync.WaitGroup

	mutex  sync.Mutex
	open   map[net.Conn]struct{}
	closed bool

	messages, swallowed atomic.Uint64
}

// openProxy listens on a free port. The caller closes it.
func openProxy(redis string) (*proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open the proxy: %w", err)
	}
	p := &proxy{listener: listener, redis: redis, open: make(map[net.Conn]struct{})}
	p.waiting.Go(func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			p.waiting.Go(func() { p.serve(connection) })
		}
	})
	return p, nil
}

func (p *proxy) address() string { return p.listener.Addr().String() }

// keep notes an open connection; false means that the proxy is closed.
func (p *proxy) keep(connection net.Conn) bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.closed {
		_ = connection.Close()
		return false
	}
	p.open[connection] = struct{}{}
	return true
}

func (p *proxy) drop(connection net.Conn) {
	_ = connection.Close()
	p.mutex.Lock()
	defer p.mutex.Unlock()
	delete(p.open, connection)
}

// serve carries one connection.
func (p *proxy) serve(gateway net.Conn) {
	if !p.keep(gateway) {
		return
	}
	defer p.drop(gateway)
	redis, err := net.Dial("tcp", p.redis)
	if err != nil || !p.keep(redis) {
		return
	}
	defer p.drop(redis)
	p.waiting.Go(func() {
		_, _ = io.Copy(redis, gateway) // either end ends the other
		_ = redis.Close()
	})
	p.carry(gateway, redis)
}

// carry passes on what Redis says, but for what is swallowed.
func (p *proxy) carry(to io.Writer, from io.Reader) {
	reader := bufio.NewReader(from)
	var value []byte
	for {
		var err error
		if value, err = appendValue(value[:0], reader); err != nil {
			return
		}
		if isMessage(value) && p.messages.Add(1)%swallowEvery == 0 {
			p.swallowed.Add(1)
			continue
		}
		if _, err := to.Write(value); err != nil {
			return
		}
	}
}

// isMessage reports whether a value of RESP3 tells of an event or of a changed key. The gateways'
// own canaries are none: they would notice.
func isMessage(value []byte) bool {
	return len(value) > 0 && value[0] == '>' && !bytes.Contains(value, []byte("__millrace")) &&
		(bytes.Contains(value, []byte("message\r\n")) || bytes.Contains(value, []byte("invalidate\r\n")))
}

var errValue = errors.New("no value of RESP3")

// appendValue reads one whole value of RESP3 as it stands.
func appendValue(dst []byte, reader *bufio.Reader) ([]byte, error) {
	head, err := reader.ReadSlice('\n')
	if err != nil {
		return dst, err
	}
	dst = append(dst, head...)
	count := func() (int, error) {
		number, err := strconv.Atoi(string(bytes.TrimSpace(head[1:])))
		return max(number, 0), err // a null of RESP2 has -1
	}
	children := 0
	switch head[0] {
	case '+', '-', ':', '_', '#', ',', '(':
	case '$', '=', '!':
		size, err := count()
		if err != nil {
			return dst, errValue
		}
		if bytes.HasPrefix(head[1:], []byte("-1")) {
			return dst, nil
		}
		start := len(dst)
		dst = append(dst, make([]byte, size+2)...)
		_, err = io.ReadFull(reader, dst[start:])
		return dst, err
	case '*', '~', '>':
		if children, err = count(); err != nil {
			return dst, errValue
		}
	case '%', '|':
		if children, err = count(); err != nil {
			return dst, errValue
		}
		children *= 2
	default:
		return dst, errValue
	}
	for range children {
		if dst, err = appendValue(dst, reader); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

// close ends all connections.
func (p *proxy) close() {
	_ = p.listener.Close()
	p.mutex.Lock()
	p.closed = true
	for connection := range p.open {
		_ = connection.Close()
	}
	p.mutex.Unlock()
	p.waiting.Wait()
}
