package main

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// open begins to connect stream number i.
func (c *crowd) open(i int) error {
	descriptor, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket %d: %w", i, err)
	}
	// One source address has some 28,000 ports for one destination; several have enough.
	source := syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(2 + i%c.sources)}}
	if err := syscall.Bind(descriptor, &source); err != nil {
		return fmt.Errorf("bind to %v: %w", source.Addr, err)
	}
	if err := syscall.Connect(descriptor, &c.target); err != nil && !errors.Is(err, syscall.EINPROGRESS) {
		return fmt.Errorf("connect stream %d: %w", i, err)
	}
	c.streams = append(c.streams, stream{descriptor: int32(descriptor)})
	c.byFD[int32(descriptor)] = i
	c.opening++
	return c.watch(descriptor, syscall.EPOLL_CTL_ADD, syscall.EPOLLOUT)
}

// channelOf is the channel of stream number i.
func (c *crowd) channelOf(i int) string {
	if !strings.Contains(c.channel, "%d") {
		return c.channel
	}
	if c.channels > 0 {
		i %= c.channels
	}
	return fmt.Sprintf(c.channel, i)
}

// serve does what the kernel says stream number i is ready for.
func (c *crowd) serve(i int, events uint32) {
	s := &c.streams[i]
	if s.phase == connecting {
		code, err := syscall.GetsockoptInt(int(s.descriptor), syscall.SOL_SOCKET, syscall.SO_ERROR)
		if err != nil || code != 0 {
			c.drop(i, "connecting: "+syscall.Errno(code).Error())
			return
		}
		s.phase = answering
		c.write(i, c.wire.request(c.host, c.channelOf(i)))
		if err := c.watch(int(s.descriptor), syscall.EPOLL_CTL_MOD, syscall.EPOLLIN); err != nil {
			c.drop(i, err.Error())
		}
		return
	}
	if events&(syscall.EPOLLIN|syscall.EPOLLHUP|syscall.EPOLLERR) == 0 {
		return
	}
	// One read a turn: everybody's turn comes, and epoll tells again of what is left.
	n, err := syscall.Read(int(s.descriptor), c.buffer)
	switch {
	case errors.Is(err, syscall.EAGAIN):
	case err != nil:
		c.drop(i, err.Error())
	case n == 0:
		c.drop(i, "end of stream")
	default:
		c.take(i, c.buffer[:n])
	}
}

// write sends a small request or answer; a socket that can't take a few dozen bytes has failed.
func (c *crowd) write(i int, text []byte) {
	n, err := syscall.Write(int(c.streams[i].descriptor), text)
	if err != nil || n != len(text) {
		c.drop(i, fmt.Sprintf("wrote %d of %d bytes: %v", n, len(text), err))
	}
}

// take parses what was read. What is not yet whole is kept until more comes.
func (c *crowd) take(i int, text []byte) {
	s := &c.streams[i]
	var failure error // of decompressing; what was said before it counts
	if s.unzip != nil {
		text, failure = s.unzip.add(text)
	}
	if len(s.rest) > 0 {
		text = append(s.rest, text...)
	}
	rest := text
	if s.phase == answering {
		if rest = c.takeHead(i, rest); s.unzip != nil {
			rest, failure = s.unzip.add(rest)
		}
	}
	for s.phase == joining || s.phase == live {
		word, left, whole := c.wire.next(rest)
		if !whole {
			break
		}
		rest = left
		c.hear(i, word)
	}
	if failure != nil {
		c.drop(i, "the compressed stream: "+failure.Error())
	}
	switch {
	case s.phase == over || len(rest) == 0:
		s.rest = nil
	case len(rest) <= cap(s.rest):
		s.rest = append(s.rest[:0], rest...)
	default:
		s.rest = append([]byte(nil), rest...)
	}
}

// takeHead reads the answer's head and leaves what follows it.
func (c *crowd) takeHead(i int, text []byte) []byte {
	head, rest, whole := strings.Cut(string(text), "\r\n\r\n")
	if !whole {
		return text
	}
	if !strings.HasPrefix(head, "HTTP/1.1 "+c.wire.status()+" ") {
		line, _, _ := strings.Cut(head, "\r\n")
		c.drop(i, "answered "+line)
		return nil
	}
	c.streams[i].phase = joining
	if _, compressed := c.wire.(zipped); compressed {
		if !strings.Contains(head+"\r\n", "\r\nContent-Encoding: gzip\r\n") {
			c.drop(i, "the answer is not compressed")
			return nil
		}
		c.streams[i].unzip = newUnzipper()
	}
	return text[len(text)-len(rest):]
}

// hear acts on one word of the gateway.
func (c *crowd) hear(i int, w word) {
	s := &c.streams[i]
	if len(w.answer) > 0 {
		c.write(i, w.answer)
	}
	switch w.kind {
	case nothing:
	case connected:
		if command := c.wire.join(c.channelOf(i)); command != nil {
			c.write(i, command)
			return
		}
		c.join(i)
	case joined:
		c.join(i)
	case gap:
		c.counts.Gaps++
		s.gapped = true
	case answered:
		c.counts.Answers++
	case event:
		c.number(s, w.number)
		c.noteSilence(i)
		s.last, s.heard = w.number, c.now()
	case closed:
		c.drop(i, w.why)
	}
}

// number judges the number of an event by the one before it.
func (c *crowd) number(s *stream, number int32) {
	c.counts.Events++
	switch missing := number - s.last - 1; {
	case missing < 0, missing > 0 && !s.gapped && !c.skips:
		c.counts.Disordered++
	case s.gapped && !c.skips:
		c.counts.Declared += int(missing)
	}
	s.gapped = false
}

func (c *crowd) join(i int) {
	if c.streams[i].phase == joining {
		c.streams[i].phase = live
		c.opening--
		c.counts.Live++
	}
}

// drop ends stream number i and counts it once.
func (c *crowd) drop(i int, why string) {
	s := &c.streams[i]
	if s.phase == over {
		return
	}
	if s.phase == live {
		c.counts.Live--
		c.counts.Closed++
	} else {
		c.opening--
		c.counts.Failed++
	}
	c.counts.Why = why
	s.phase = over
	if s.unzip != nil {
		s.unzip.stop()
	}
	delete(c.byFD, s.descriptor)
	syscall.Close(int(s.descriptor))
}
