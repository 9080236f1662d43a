package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// throng is the mass of a soak's streams, which stay where they are and read. They are held by
// processes of the end-to-end tests' crowd, one for each wire and mode, half of which go to each gateway. All of its channels get the
// numbers 1, 2, 3 and so on, the same number in one round, and nobody else publishes on them.
// It belongs to one goroutine at a time.
type throng struct {
	parts  []*throngPart
	lines  [][]*line // one of each mode, which are written in one go
	round  time.Duration
	number uint32 // of the last round
}

// throngPart is one process.
type throngPart struct {
	wire    string
	mode    mode
	gateway int // index of it
	streams int
	command *exec.Cmd
	input   io.WriteCloser
	output  *os.File
	lines   *bufio.Reader // of output
	words   lastWords
}

// throngReport is what a part says of itself; see e2e/crowd.
type throngReport struct {
	part *throngPart

	Live       int    `json:"live"`
	Failed     int    `json:"failed"`
	Closed     int    `json:"closed"`
	Reached    int    `json:"reached"`
	Events     int    `json:"events"`
	Disordered int    `json:"disordered"`
	Gaps       int    `json:"gaps"`
	Declared   int    `json:"declared"`
	Inflated   int    `json:"inflated"`
	Why        string `json:"why"`
}

var throngWires = []string{"sse", "gzip", "websocket", "deflate"}

const (
	// throngPadding makes events that compression shortens.
	throngPadding = 150
	// throngAnswer bounds the wait for a report.
	throngAnswer = time.Minute
	// throngArrival is how long an event may take until another is published.
	throngArrival = 20 * time.Second
	// throngEnd bounds the wait for a process that was told to end.
	throngEnd = 10 * time.Second
	// throngSources is how many addresses a part connects from, for the sake of ports.
	throngSources = 4
)

// openThrong starts the processes, without any stream. The caller closes the throng, also after an
// error.
func openThrong(p plan, gateways []*gateway) (*throng, error) {
	t := &throng{round: p.soak.round}
	for number := range p.soak.channels {
		var together []*line
		for m := range modeCount {
			name := m.String() + ":crowd-" + strconv.Itoa(number)
			together = append(together, &line{name: name, mode: m, padding: throngPadding, entriesMax: p.entriesMax})
		}
		t.lines = append(t.lines, together)
	}
	count := len(throngWires) * int(modeCount)
	for index := range count {
		part := &throngPart{
			wire: throngWires[index/int(modeCount)], mode: mode(index % int(modeCount)), gateway: index % len(gateways),
			streams: p.soak.streams*(index+1)/count - p.soak.streams*index/count,
		}
		if err := part.start(p, gateways[part.gateway].address); err != nil {
			return t, err
		}
		t.parts = append(t.parts, part)
	}
	return t, nil
}

func (p *throngPart) start(plan plan, address string) error {
	arguments := []string{
		"-address", address, "-wire", p.wire, "-sources", strconv.Itoa(throngSources),
		"-channel", p.mode.String() + ":crowd-%d", "-channels", strconv.Itoa(plan.soak.channels),
	}
	if p.mode == modeState {
		arguments = append(arguments, "-skips")
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	defer writer.Close()
	p.command = exec.Command(plan.soak.crowd, arguments...)
	p.command.Stdout, p.command.Stderr = writer, &p.words
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if p.input, err = p.command.StdinPipe(); err != nil {
		_ = reader.Close()
		return fmt.Errorf("make a pipe: %w", err)
	}
	if err := p.command.Start(); err != nil {
		_ = reader.Close()
		return fmt.Errorf("start a crowd (make soak builds it): %w", err)
	}
	p.output, p.lines = reader, bufio.NewReader(reader)
	return nil
}

// say gives the part a command.
func (p *throngPart) say(command string) error {
	if _, err := io.WriteString(p.input, command+"\n"); err != nil {
		return fmt.Errorf("the crowd of %s is gone: %w: %s", p.wire, err, p.words.String())
	}
	return nil
}

// report asks how the part fares, and how many of it have come to a number.
func (p *throngPart) report(number uint32) (throngReport, error) {
	said := throngReport{part: p}
	if err := p.say("report " + strconv.FormatUint(uint64(number), 10)); err != nil {
		return said, err
	}
	if err := p.output.SetReadDeadline(time.Now().Add(throngAnswer)); err != nil {
		return said, fmt.Errorf("read from a crowd: %w", err)
	}
	text, err := p.lines.ReadBytes('\n')
	if err != nil {
		return said, fmt.Errorf("the crowd of %s does not report: %w: %s", p.wire, err, p.words.String())
	}
	if err := json.Unmarshal(text, &said); err != nil {
		return said, fmt.Errorf("the crowd of %s reports %q: %w", p.wire, text, err)
	}
	return said, nil
}

// gather opens all streams and waits until they are live.
func (t *throng) gather(ctx context.Context) error {
	for _, part := range t.parts {
		if err := part.say("open " + strconv.Itoa(part.streams)); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(gatherTimeout)
	for _, part := range t.parts {
		for {
			said, err := part.report(0)
			switch {
			case err != nil:
				return err
			case said.Failed+said.Closed > 0:
				return fmt.Errorf("a stream of the crowd of %s did not come in: %s", part.wire, said.Why)
			case time.Now().After(deadline):
				return fmt.Errorf("%d of %d streams of the crowd of %s came in within %v", said.Live, part.streams, part.wire, gatherTimeout)
			}
			if said.Live == part.streams {
				break
			}
			sleep(ctx, gatherPause)
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return nil
}

const (
	gatherTimeout = 5 * time.Minute
	gatherPause   = 200 * time.Millisecond
)

// publish has round after round until ctx ends, and finishes the one at hand then.
func (t *throng) publish(ctx context.Context, s store) error {
	for ctx.Err() == nil {
		if err := t.playRound(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// playRound publishes the next number on all channels, spread over the round; without waiting once
// ctx has ended. The publisher is never in doubt: writes wait while Redis is started anew.
func (t *throng) playRound(ctx context.Context, s store) error {
	t.number++
	for _, together := range t.lines {
		writes := make([]write, 0, len(together))
		for _, one := range together {
			writes = append(writes, write{line: one, number: t.number})
		}
		if err := errors.Join(s.write(writes)...); err != nil {
			return fmt.Errorf("publish to the crowd: %w", err)
		}
		sleep(ctx, t.round/time.Duration(len(t.lines)))
	}
	return nil
}

// finish plays rounds until every stream has come to the last number, or no longer than patience, and
// gives what the parts say then. Of one round alone a gap may be all that is heard; what a further one lacks is
// missed.
func (t *throng) finish(ctx context.Context, s store, patience time.Duration) ([]throngReport, error) {
	deadline := time.Now().Add(patience)
	for {
		if err := t.playRound(ctx, s); err != nil {
			return nil, err
		}
		all, reached, err := t.reports(ctx, min(time.Until(deadline), throngArrival))
		if err != nil || reached || ctx.Err() != nil || time.Now().After(deadline) {
			return all, errors.Join(err, ctx.Err())
		}
	}
}

// reports gives what the parts say: once every stream has come to the last number, which reached
// reports, or after that time.
func (t *throng) reports(ctx context.Context, wait time.Duration) (all []throngReport, reached bool, err error) {
	deadline := time.Now().Add(wait)
	for {
		all, reached = all[:0], true
		for _, part := range t.parts {
			said, err := part.report(t.number)
			if err != nil {
				return nil, false, err
			}
			all = append(all, said)
			reached = reached && said.Reached == part.streams
		}
		if reached || ctx.Err() != nil || time.Now().After(deadline) {
			return all, reached, nil
		}
		sleep(ctx, gatherPause)
	}
}

// broken says which promises were broken to the part, none if all were kept. A crowd never goes by itself, so
// all of it is there at the end and has the last number; what is missing lies behind a gap.
func (r *throngReport) broken() []string {
	var words []string
	note := func(count int, what string) {
		if count > 0 {
			words = append(words, fmt.Sprintf("crowd (%s, %s): %d %s", r.part.wire, r.part.mode, count, what))
		}
	}
	note(r.Failed+r.Closed, "streams were closed, the last one because: "+r.Why)
	note(r.Disordered, "numbers came twice or out of order, or after others that are missing without a gap")
	if r.part.mode == modeLog {
		note(r.Declared, "numbers are missing of logs, though behind a gap: Redis held them all the time")
	}
	note(r.part.streams-r.Reached-r.Failed-r.Closed, "streams did not get the last number")
	if compressed := r.part.wire == "gzip" || r.part.wire == "deflate"; compressed && r.Events > 0 && r.Inflated == 0 {
		words = append(words, fmt.Sprintf("crowd (%s, %s): nothing came compressed", r.part.wire, r.part.mode))
	}
	return words
}

// close ends the processes. It may be called twice.
func (t *throng) close() {
	for _, part := range t.parts {
		part.close()
	}
	t.parts = nil
}

// close ends the process: with its input, or at once.
func (p *throngPart) close() {
	_ = p.input.Close()
	timer := time.AfterFunc(throngEnd, func() { _ = p.command.Process.Kill() })
	defer timer.Stop()
	_ = p.command.Wait() // how it ended is told by its words
	_ = p.output.Close()
}
