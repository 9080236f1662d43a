// Command crowd is many clients in one process: it holds thousands of streams of one wire on one
// epoll loop, with a few dozen bytes for each and no goroutine for any, so that a test of the
// gateway's memory and fan-out is not a test of its clients.
//
// It is run by the end-to-end tests, in a process of its own because descriptors are limited per
// process. Commands come as lines on standard input:
//
//	open N      have N streams in all
//	stall N     stop reading from the first N of them
//	resume      read from everybody again
//	half N      send the first half of a command on the first N of them, all WebSockets
//	whole       send the other half; what is answered is counted
//	watch       measure from now on how long a stream hears no event
//	report K    print a line of JSON: how many streams are live, failed or were closed, how many
//	            have reached event K, how many events came in all, out of order, as gaps; and, once it
//	            is watched, the longest time that a stream that reads has heard no event, until now;
//	            and how many messages came compressed
//
// Events that count are those whose payload holds "n":NUMBER. Each stream must get 1, 2, 3 and
// so on; what is missing behind a gap is declared, and with -skips any higher number will do.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// handshakesMax bounds the streams that are opening at one time.
	handshakesMax = 128
	bufferBytes   = 256 << 10
	eventsMax     = 512
)

// phase is where a stream stands.
type phase uint8

const (
	connecting phase = iota // TCP
	answering               // HTTP: the head of the answer is awaited
	joining                 // the gateway has not confirmed the channel
	live
	over
)

// stream is one client.
type stream struct {
	descriptor int32
	phase      phase
	gapped     bool      // a gap was declared, and no event came since
	last       int32     // number of the last event
	heard      int64     // when that came, nanoseconds of the crowd's clock
	rest       []byte    // what was read of something not yet whole; nil where nothing is pending
	unzip      *unzipper // of a compressed event stream, once the head was read
}

// report is what is printed for the command of that name.
type report struct {
	Live       int    `json:"live"`
	Failed     int    `json:"failed"` // ended before they were live
	Closed     int    `json:"closed"` // ended after
	Reached    int    `json:"reached"`
	Events     int    `json:"events"`
	Disordered int    `json:"disordered"` // not the next number, and no gap says why
	Gaps       int    `json:"gaps"`
	Declared   int    `json:"declared"` // numbers that were missing behind a gap
	Answers    int    `json:"answers"`  // to whole commands
	Inflated   int    `json:"inflated"`
	SilenceMs  int64  `json:"silenceMs"`
	Why        string `json:"why"` // of the last stream that ended
}

// crowd is the one owner of everything; its loop is the program's only goroutine.
type crowd struct {
	target  syscall.SockaddrInet4
	host    string
	wire    wire
	channel string // %d stands for the stream's number
	// channels is how many channels there are, 0: as many as streams. Stream i has the same as
	// stream i+channels.
	channels int
	skips    bool // numbers may be left out, as those of a state are
	sources  int

	poller  int
	streams []stream
	byFD    map[int32]int
	wanted  int
	opening int
	stalled int
	halves  int // streams that have sent half a command
	counts  report
	began   time.Time
	watched bool
	silence int64 // the longest so far, nanoseconds
	buffer  []byte
	command []byte // a line that is not yet whole
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "crowd:", err)
		os.Exit(1)
	}
}

func run() error {
	address := flag.String("address", "", "HOST:PORT of the gateway, an IPv4 address")
	name := flag.String("wire", "sse", "sse, gzip (a compressed event stream), websocket or deflate (a WebSocket with permessage-deflate)")
	channel := flag.String("channel", "crowd:%d", "channel of each stream; %d stands for its number")
	channels := flag.Int("channels", 0, "after how many streams the numbers in channels begin anew, 0: never")
	skips := flag.Bool("skips", false, "numbers may be left out, but never fall: the channel is a state")
	sources := flag.Int("sources", 4, "how many source addresses, from 127.0.0.2 on, to connect from")
	flag.Parse()
	target, err := netip.ParseAddrPort(*address)
	if err != nil || !target.Addr().Is4() {
		return fmt.Errorf("-address %q is not an IPv4 HOST:PORT", *address)
	}
	c := &crowd{
		target: syscall.SockaddrInet4{Port: int(target.Port()), Addr: target.Addr().As4()},
		host:   *address, channel: *channel, channels: *channels, skips: *skips, sources: max(*sources, 1), began: time.Now(),
		byFD: make(map[int32]int), buffer: make([]byte, bufferBytes),
	}
	switch *name {
	case "sse":
		c.wire = sse{}
	case "gzip":
		c.wire = zipped{}
	case "websocket":
		c.wire = webSocket{}
	case "deflate":
		c.wire = &deflated{}
	default:
		return fmt.Errorf("-wire %q is none of sse, gzip, websocket and deflate", *name)
	}
	if c.poller, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll_create1: %w", err)
	}
	if err := syscall.SetNonblock(0, true); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	if err := c.watch(0, syscall.EPOLL_CTL_ADD, syscall.EPOLLIN); err != nil {
		return fmt.Errorf("standard input must be a pipe: %w", err)
	}
	return c.loop()
}

func (c *crowd) watch(descriptor, operation int, interest uint32) error {
	return syscall.EpollCtl(c.poller, operation, descriptor, &syscall.EpollEvent{Events: interest, Fd: int32(descriptor)})
}

// loop ends with standard input.
func (c *crowd) loop() error {
	events := make([]syscall.EpollEvent, eventsMax)
	for {
		for len(c.streams) < c.wanted && c.opening < handshakesMax {
			if err := c.open(len(c.streams)); err != nil {
				return err
			}
		}
		count, err := syscall.EpollWait(c.poller, events, -1)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		for _, event := range events[:max(count, 0)] {
			if event.Fd != 0 {
				if number, known := c.byFD[event.Fd]; known {
					c.serve(number, event.Events)
				}
				continue
			}
			if ended, err := c.obey(); ended || err != nil {
				return err
			}
		}
	}
}

// obey reads what standard input has and does each whole line; ended says that it is at its end.
func (c *crowd) obey() (ended bool, err error) {
	buffer := make([]byte, 4096)
	n, err := syscall.Read(0, buffer)
	switch {
	case errors.Is(err, syscall.EAGAIN):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("standard input: %w", err)
	case n == 0:
		return true, nil
	}
	c.command = append(c.command, buffer[:n]...)
	for {
		line, rest, whole := bytes.Cut(c.command, []byte("\n"))
		if !whole {
			return false, nil
		}
		c.command = rest
		if err := c.do(strings.Fields(string(line))); err != nil {
			return false, err
		}
	}
}

func (c *crowd) do(words []string) error {
	if len(words) == 0 {
		return nil
	}
	number := 0
	if len(words) > 1 {
		var err error
		if number, err = strconv.Atoi(words[1]); err != nil {
			return fmt.Errorf("command %q: %w", words, err)
		}
	}
	switch words[0] {
	case "open":
		c.wanted = number
	case "stall":
		c.stalled = number
		return c.interest(0)
	case "resume":
		err := c.interest(syscall.EPOLLIN)
		for i := range c.streams[:min(c.stalled, len(c.streams))] {
			c.streams[i].heard = c.now()
		}
		c.stalled = 0
		return err
	case "half":
		c.halves = min(number, len(c.streams))
		c.writeFirst(c.halves, pingCommand[:len(pingCommand)/2])
	case "whole":
		c.writeFirst(c.halves, pingCommand[len(pingCommand)/2:])
		c.halves = 0
	case "watch":
		c.watched, c.silence = true, 0
		for i := range c.streams {
			c.streams[i].heard = c.now()
		}
	case "report":
		c.count(int32(number))
		return json.NewEncoder(os.Stdout).Encode(c.counts)
	default:
		return fmt.Errorf("command %q is unknown", words[0])
	}
	return nil
}

// writeFirst sends the same on the first streams.
func (c *crowd) writeFirst(count int, text []byte) {
	for i := range count {
		if c.streams[i].phase == live {
			c.write(i, text)
		}
	}
}

// count brings the report up to date.
func (c *crowd) count(number int32) {
	c.counts.Reached = 0
	for i := range c.streams {
		if c.streams[i].last >= number {
			c.counts.Reached++
		}
		c.noteSilence(i)
	}
	c.counts.SilenceMs = c.silence / int64(time.Millisecond)
	switch wire := c.wire.(type) {
	case *deflated:
		c.counts.Inflated = wire.undone
	case zipped:
		c.counts.Inflated = c.counts.Events // all that comes is
	}
}

// now is the crowd's clock, in nanoseconds.
func (c *crowd) now() int64 { return int64(time.Since(c.began)) }

// noteSilence takes note of how long a stream that reads has heard nothing.
func (c *crowd) noteSilence(i int) {
	if s := &c.streams[i]; c.watched && i >= c.stalled && s.phase == live {
		c.silence = max(c.silence, c.now()-s.heard)
	}
}

// interest says what the stalled streams wait for.
func (c *crowd) interest(events uint32) error {
	for i := range c.streams[:min(c.stalled, len(c.streams))] {
		if c.streams[i].phase != live {
			continue
		}
		if err := c.watch(int(c.streams[i].descriptor), syscall.EPOLL_CTL_MOD, events); err != nil {
			return fmt.Errorf("epoll_ctl: %w", err)
		}
	}
	return nil
}
