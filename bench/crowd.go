package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

const (
	// handshakeBytesMax bounds what is kept of the answer to one step of a handshake.
	handshakeBytesMax = 16 << 10
	answerShown       = 300 // bytes of it in what is said of a failure
	// commandBytesMax bounds one line to a crowd.
	commandBytesMax = 1 << 20
	// crowdStreamsMax is what one process can hold here: descriptors are limited to 20,000.
	crowdStreamsMax = 19_000
	// stallNever is a time that no run lasts: a crowd's own writes are a handshake and pongs.
	stallNever = 24 * time.Hour

	reasonFailed  = netio.FirstOwnReason     // the handshake went wrong
	reasonDropped = netio.FirstOwnReason + 1 // the orchestrator said drop
	reasonStale   = netio.FirstOwnReason + 2 // its dialer had been stopped
)

// crowd is many subscribers on one loop: no goroutine, no buffer a stream. Its fields belong to
// the loop's goroutine but for those of the dialer, which it hands over by value.
type crowd struct {
	loop    *netio.Loop
	streams []subscriber // by slot
	// early holds what came of an unfinished handshake, by slot.
	early map[netio.Slot][]byte
	plan  *connectPlan
	reply crowdReply
	tally tally
	hist  *hdrhistogram.Histogram
	dial  *dialer
	// attempts of streams that are on their way back, by number.
	attempts map[int32]uint
	// dropping is how many streams are still to be closed before a reconnect.
	dropping int

	dialers sync.WaitGroup
}

// subscriber is one stream. No pointers.
type subscriber struct {
	number int32 // of the stream within the crowd
	step   uint8 // of the handshake
	live   bool
	used   bool
	hop    hop
	scan   scanner
}

// arrival is what a dialer hands over with a socket.
type arrival struct {
	from   *dialer
	number int32 // of the stream
}

// runCrowd is a crowd process: it obeys the lines of in until its end, or until ctx is done.
func runCrowd(ctx context.Context, in io.Reader, out io.Writer) error {
	c := &crowd{early: make(map[netio.Slot][]byte), attempts: make(map[int32]uint), hist: newLatency()}
	c.tally.record = func(nanoseconds int64) { recordLatency(c.hist, nanoseconds) }
	loop, err := netio.NewLoop(netio.LoopOptions{StallLimit: stallNever}, c.events())
	if err != nil {
		return err
	}
	c.loop = loop
	turned := make(chan struct{})
	go func() {
		defer close(turned)
		loop.Run()
	}()
	defer func() {
		_ = loop.Do(context.Background(), c.stopDialing)
		c.dialers.Wait()
		loop.Stop()
		<-turned
	}()
	return c.obey(ctx, in, out)
}

func (c *crowd) obey(ctx context.Context, in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 64<<10), commandBytesMax)
	answers := json.NewEncoder(out)
	for lines.Scan() {
		var command crowdCommand
		if err := json.Unmarshal(lines.Bytes(), &command); err != nil {
			return fmt.Errorf("crowd: a command is not JSON: %w", err)
		}
		var reply crowdReply
		if err := c.loop.Do(ctx, func() { reply = c.execute(&command) }); err != nil {
			return err
		}
		if err := answers.Encode(&reply); err != nil {
			return fmt.Errorf("crowd: answer: %w", err)
		}
	}
	return lines.Err()
}

func (c *crowd) execute(command *crowdCommand) crowdReply {
	switch command.Op {
	case "status", "report":
	case "reset":
		c.reset()
	case "connect":
		if command.Connect == nil || command.Connect.Count+c.reply.Wanted > crowdStreamsMax {
			return crowdReply{Error: fmt.Sprintf("connect: a crowd holds at most %d streams", crowdStreamsMax)}
		}
		c.plan = command.Connect
		first := c.reply.Wanted
		c.reply.Wanted += c.plan.Count
		c.startDialing(first, c.plan.Count)
	case "drop":
		c.drop()
		c.reply.Wanted, c.reply.Failed, c.reply.Failure = 0, 0, ""
	case "forgive":
		c.reply.Wanted, c.reply.Failed, c.reply.Failure = c.reply.Wanted-c.reply.Failed, 0, ""
	case "reconnect":
		if c.plan == nil {
			return crowdReply{Error: "reconnect: nothing was connected yet"}
		}
		c.reply.Failed, c.reply.Dropped, c.reply.Failure = 0, 0, ""
		c.dropping = c.drop()
		if c.dropping == 0 {
			c.startDialing(0, c.reply.Wanted)
		}
	default:
		return crowdReply{Error: "unknown command " + command.Op}
	}
	return c.snapshot(command.Op == "report")
}

func (c *crowd) snapshot(whole bool) crowdReply {
	reply := c.reply
	reply.Deliveries, reply.Lost, reply.Repeated = c.tally.deliveries, c.tally.lost, c.tally.repeated
	reply.FirstNanos, reply.LastNanos = c.tally.first, c.tally.last
	if whole {
		encoded, err := c.hist.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
		if err != nil {
			return crowdReply{Error: "report: " + err.Error()}
		}
		reply.Histogram = encoded
	}
	return reply
}

func (c *crowd) reset() {
	c.hist.Reset()
	record := c.tally.record
	c.tally = tally{record: record}
	c.reply.Pings, c.reply.Bytes = 0, 0
}

// drop closes every stream, and gives their number.
func (c *crowd) drop() int {
	c.stopDialing()
	n := 0
	for slot := range c.streams {
		if c.streams[slot].used {
			c.loop.Close(netio.Slot(slot), reasonDropped)
			n++
		}
	}
	return n
}

func (c *crowd) events() netio.Events {
	return netio.Events{
		Adopted:  c.adopted,
		Received: c.received,
		Timer:    func(netio.Slot) {},
		Drained:  func(netio.Slot) {},
		Closed:   c.closed,
		Mail:     c.mail,
		Work:     func() bool { return false },
		Panicked: func(value any, stack []byte) {
			panic(fmt.Sprintf("bench: a crowd panicked: %v\n%s\n%s", value, stack, debug.Stack()))
		},
	}
}

// dialFailed is posted by a dialer for each connection that did not come about.
type dialFailed struct {
	from   *dialer
	err    error
	number int32 // of the stream
}

func (c *crowd) mail(item any) {
	failed, ok := item.(dialFailed)
	switch {
	case !ok || failed.from != c.dial:
		return
	case c.plan.Return:
		c.reply.Refused++
		c.later(failed.number)
	default:
		c.fail(failed.err.Error())
	}
	c.dial.done()
}

func (c *crowd) fail(what string) {
	c.reply.Failed++
	if c.reply.Failure == "" {
		c.reply.Failure = what
	}
}

func (c *crowd) adopted(slot netio.Slot, guest any) {
	for int(slot) >= len(c.streams) {
		c.streams = append(c.streams, subscriber{})
	}
	from := guest.(arrival)
	if from.from != c.dial {
		c.loop.Close(slot, reasonStale)
		return
	}
	c.streams[slot] = subscriber{number: from.number, used: true}
}

func (c *crowd) received(slot netio.Slot, b []byte) {
	s := &c.streams[slot]
	if !s.live {
		c.shake(slot, s, b)
		return
	}
	c.reply.Bytes += uint64(len(b))
	if c.plan.Wire == WebSocket {
		c.hop(slot, s, b)
	}
	s.scan.scan(b, monotonic(), &c.tally)
}

func (c *crowd) hop(slot netio.Slot, s *subscriber, b []byte) {
	ok := s.hop.frames(b, func(payload []byte) {
		c.reply.Pings++
		c.loop.SendBytes(slot, proto.AppendMaskedFrame(nil, proto.OpPong, payload, [4]byte{1, 2, 3, 4}))
	})
	if !ok {
		c.loop.Close(slot, netio.ReasonBug)
	}
}

// shake goes on with the handshake: it waits for what the current step expects.
func (c *crowd) shake(slot netio.Slot, s *subscriber, b []byte) {
	if kept, ok := c.early[slot]; ok {
		b = append(kept, b...)
	}
	expected := c.plan.Steps[s.step].Expect
	at := bytes.Index(b, expected)
	inHead := bytes.HasPrefix(b, httpStart) && !bytes.Contains(b, headEnd)
	if at < 0 || inHead {
		if len(b) > handshakeBytesMax {
			c.fail(fmt.Sprintf("the server answered %d bytes without %q", len(b), expected))
			c.loop.Close(slot, reasonFailed)
			return
		}
		c.early[slot] = append([]byte(nil), b...)
		return
	}
	rest, missing := afterStep(c.plan.Wire, b, at+len(expected))
	delete(c.early, slot)
	s.step++
	if int(s.step) < len(c.plan.Steps) {
		if len(rest) > 0 {
			c.early[slot] = append([]byte(nil), rest...)
		}
		channel, token := c.dial.identity(int(s.number))
		c.loop.SendBytes(slot, c.plan.Steps[s.step].bytesFor(channel, token))
		return
	}
	s.live, s.scan.several = true, c.plan.Each > 1
	s.hop.remaining = missing
	c.reply.Live++
	c.reply.LiveNanos = monotonic()
	c.dial.done()
	delete(c.attempts, s.number)
	if len(rest) > 0 {
		c.received(slot, rest)
	}
}

var (
	httpStart = []byte("HTTP/")
	headEnd   = []byte("\r\n\r\n")
)

// afterStep gives what of b comes behind the answer that ends at end, and how many bytes of that
// answer's WebSocket frame have yet to come. The answer may be the head of a response, which is
// there as a whole, or lie within a frame.
func afterStep(wire Wire, b []byte, end int) (rest []byte, missing uint64) {
	if wire == SSE {
		return b[end:], 0
	}
	at := 0
	if bytes.HasPrefix(b, httpStart) {
		at = bytes.Index(b, headEnd) + len(headEnd)
	}
	for at < end {
		length, headBytes := frameHead(b[at:])
		at += headBytes + int(length)
		if headBytes == 0 || at > len(b) {
			return nil, uint64(max(0, at-len(b)))
		}
	}
	return b[at:], 0
}

func (c *crowd) closed(slot netio.Slot, reason netio.Reason) {
	s := &c.streams[slot]
	kept := c.early[slot]
	delete(c.early, slot)
	live, number := s.live, s.number
	*s = subscriber{}
	if live {
		c.reply.Live--
	}
	switch {
	case reason == reasonDropped:
		c.redial()
		return
	case reason == netio.ReasonLoopClosed, reason == reasonStale:
		return
	case c.plan.Return:
		c.comeBack(live, number)
		return
	case live:
		c.reply.Dropped++
		if c.reply.Failure == "" {
			c.reply.Failure = fmt.Sprintf("the server ended a live stream (%v)", reason)
		}
		return
	case reason != reasonFailed:
		line, _, _ := bytes.Cut(kept, []byte("\r\n"))
		c.fail(fmt.Sprintf("the server ended a handshake after %q (%v)", line[:min(len(line), answerShown)], reason))
	}
	c.dial.done()
}

// comeBack has a stream that the server ended, or did not take, come back later.
func (c *crowd) comeBack(live bool, number int32) {
	if live {
		c.reply.SentAway++
	} else {
		c.reply.Refused++
		c.dial.done()
	}
	c.later(number)
}

// later has a stream come back.
func (c *crowd) later(number int32) {
	c.dial.later(number, c.attempts[number])
	c.attempts[number]++
}

// redial begins a reconnect once all streams are closed.
func (c *crowd) redial() {
	if c.dropping == 0 {
		return
	}
	c.dropping--
	if c.dropping == 0 {
		c.startDialing(0, c.reply.Wanted)
	}
}
