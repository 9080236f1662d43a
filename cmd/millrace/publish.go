package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/millrace/millrace/internal/settings"
	"github.com/millrace/millrace/proto"
)

// publishCommand is `millrace publish`.
type publishCommand struct {
	targetFlags
	kindFlags

	Channel string `arg:"" help:"The channel, such as job_progress:job_123."`
	JSON    string `arg:"" name:"json" help:"The event, one JSON value; - reads one a line from standard input."`
	Verbose bool   `name:"verbose" short:"v" help:"Print the answer of each batch."`
}

// Bounds of one batch: the count is the gateway's own bound of one request, the bytes keep a
// request small where events are large. One event is always sent, however large.
const (
	batchEventsMax = 1000
	batchBytesMax  = 1 << 20
)

// lineBytesMax bounds a line of standard input where max-event-bytes is no limit.
const lineBytesMax = 64 << 20

// publisher sends events in order, all of a batch or none, and gives the answer for -v.
type publisher interface {
	publish(ctx context.Context, channel proto.Channel, events [][]byte) (answer string, err error)
	close() error
}

// Run publishes and is silent about success.
func (c *publishCommand) Run(world *process) error {
	channels, err := parseChannels([]string{c.Channel})
	if err != nil {
		return err
	}
	channel := channels[0]
	if channel.Wildcard() {
		return errUsage("%s is a wildcard, which one can only subscribe to; name one channel", channel.Name())
	}
	chosen, err := c.resolve(world)
	if err != nil {
		return err
	}
	limit := chosen.settings.MaxEventBytes
	if c.JSON != "-" {
		// Before anything is connected: a wrong event is a wrong call.
		if err := checkPayload(channel, []byte(c.JSON), limit); err != nil {
			return usageError{err}
		}
	}
	// An interrupt ends the process at once: it may be waiting for a line, which nothing ends.
	ctx := context.Background()
	sender, err := c.publisher(chosen, channel, world)
	if err != nil {
		return err
	}
	sending := &sending{world: world, sender: sender, channel: channel, verbose: c.Verbose}
	if c.JSON == "-" {
		err = sending.lines(ctx, world.stdin, limit)
	} else {
		err = sending.send(ctx, [][]byte{[]byte(c.JSON)})
	}
	return errors.Join(err, sender.close())
}

func (c *publishCommand) publisher(chosen *target, channel proto.Channel, world *process) (publisher, error) {
	if err := c.check(chosen); err != nil {
		return nil, err
	}
	if chosen.gateway != nil {
		return newGatewayPublisher(chosen, world.stderr), nil
	}
	kind, maxLen, err := c.kindOf(chosen, channel)
	if err != nil {
		return nil, err
	}
	return newRedisPublisher(chosen, kind, maxLen)
}

// sending is the work of one publish command.
type sending struct {
	world     *process
	sender    publisher
	channel   proto.Channel
	verbose   bool
	published int
}

// send publishes one batch.
func (s *sending) send(ctx context.Context, events [][]byte) error {
	if len(events) == 0 {
		return nil
	}
	answer, err := s.sender.publish(ctx, s.channel, events)
	if err != nil {
		if s.published > 0 {
			return fmt.Errorf("after %d events were published: %w", s.published, err)
		}
		return err
	}
	s.published += len(events)
	if s.verbose {
		_, err = fmt.Fprintln(s.world.stdout, answer)
	}
	return err
}

// lines publishes one event a line. A batch is sent when it is full, or when no further whole
// line is at hand, so that a slow source is published line by line and a fast one in bulk. While
// a batch is under way nothing is read: the source waits, not memory.
func (s *sending) lines(ctx context.Context, input io.Reader, limit settings.Size) error {
	reader := bufio.NewReaderSize(input, 1<<16)
	batch, size := [][]byte(nil), 0
	flush := func() error {
		err := s.send(ctx, batch)
		batch, size = nil, 0
		return err
	}
	for number := 1; ; number++ {
		line, err := readLine(reader, limit)
		atEnd := errors.Is(err, io.EOF)
		if err == nil || atEnd {
			line = bytes.TrimSpace(line)
			if len(line) > 0 {
				err = checkPayload(s.channel, line, limit)
			} else if !atEnd {
				err = nil
			}
		}
		if err != nil && !errors.Is(err, io.EOF) {
			// What came before the bad line was good and is published.
			return errors.Join(flush(), fmt.Errorf("line %d: %w; nothing from this line on was published", number, err))
		}
		if len(line) > 0 {
			batch, size = append(batch, line), size+len(line)
		}
		if atEnd {
			return flush()
		}
		if len(batch) >= batchEventsMax || size >= batchBytesMax || !lineAtHand(reader) {
			if err := flush(); err != nil {
				return err
			}
		}
	}
}

// lineAtHand says whether a whole line can be read without waiting.
func lineAtHand(reader *bufio.Reader) bool {
	// Peeking at what is buffered never fails and never reads.
	waiting, err := reader.Peek(reader.Buffered())
	return err == nil && bytes.IndexByte(waiting, '\n') >= 0
}

// readLine reads one line of its own memory, without its end. The last line may lack one: it
// comes with io.EOF.
func readLine(reader *bufio.Reader, limit settings.Size) ([]byte, error) {
	most := int(limit)
	if most == 0 {
		most = lineBytesMax
	}
	var line []byte
	for {
		part, err := reader.ReadSlice('\n')
		line = append(line, part...)
		// White space around an event is not counted, a line's worth of it at most.
		if len(line) > most+1024 {
			return nil, fmt.Errorf("more than %d bytes; max-event-bytes bounds an event", most)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}
