package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// statusInterval is how often a crowd is asked how far it is: often enough to see the end of a
// burst, which the crowd itself dates, rarely enough not to be in its way.
const statusInterval = 20 * time.Millisecond

// crowdClient is the orchestrator's end of a crowd process. Safe for use by many goroutines.
type crowdClient struct {
	child *child
	mutex sync.Mutex // one command at a time
	in    io.WriteCloser
	lines *bufio.Scanner
	out   *os.File
	// interval is how often it is asked how far it is.
	interval time.Duration
}

// newCrowd starts a crowd process on cores.
func newCrowd(ctx context.Context, binary string, on cores) (*crowdClient, error) {
	commands, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start a crowd: %w", err)
	}
	out, replies, err := os.Pipe()
	if err != nil {
		commands.Close()
		in.Close()
		return nil, fmt.Errorf("start a crowd: %w", err)
	}
	started, err := spawn(ctx, launch{
		name: "a crowd", path: binary, arguments: []string{RoleCommand, roleCrowd},
		cores: on, stdin: commands, stdout: replies,
		// A crowd makes next to no garbage; its memory is not what is measured.
		env: []string{"GOGC=400"},
	})
	commands.Close()
	replies.Close()
	if err != nil {
		in.Close()
		out.Close()
		return nil, err
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(make([]byte, 0, 64<<10), commandBytesMax)
	return &crowdClient{child: started, in: in, lines: lines, out: out, interval: statusInterval}, nil
}

// close ends the crowd and with it all its streams.
func (c *crowdClient) close() {
	c.in.Close()
	select {
	case <-c.child.exited:
	case <-time.After(endTimeout):
		c.child.stop()
	}
	c.out.Close()
}

// ask sends one command and gives the reply to it.
func (c *crowdClient) ask(command crowdCommand) (crowdReply, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	line, err := json.Marshal(&command)
	if err != nil {
		return crowdReply{}, fmt.Errorf("ask a crowd: %w", err)
	}
	if _, err := c.in.Write(append(line, '\n')); err != nil {
		return crowdReply{}, fmt.Errorf("ask a crowd: %w; its last words: %s", err, c.child.words)
	}
	if err := c.out.SetReadDeadline(time.Now().Add(startTimeout)); err != nil {
		return crowdReply{}, fmt.Errorf("ask a crowd: %w", err)
	}
	if !c.lines.Scan() {
		return crowdReply{}, fmt.Errorf("a crowd does not answer (%v); its last words: %s", c.lines.Err(), c.child.words)
	}
	var reply crowdReply
	if err := json.Unmarshal(c.lines.Bytes(), &reply); err != nil {
		return crowdReply{}, fmt.Errorf("a crowd answers what is not JSON: %w", err)
	}
	if reply.Error != "" {
		return crowdReply{}, fmt.Errorf("a crowd refuses: %s", reply.Error)
	}
	return reply, nil
}

// until asks for the status until enough says yes, limit is over, or ctx ends. It gives the last
// status and whether enough said yes.
func (c *crowdClient) until(ctx context.Context, limit time.Duration, enough func(*crowdReply) bool) (crowdReply, bool, error) {
	deadline := time.Now().Add(limit)
	for {
		reply, err := c.ask(crowdCommand{Op: "status"})
		if err != nil || enough(&reply) {
			return reply, err == nil, err
		}
		if err := ctx.Err(); err != nil {
			return reply, false, err
		}
		if time.Now().After(deadline) {
			return reply, false, nil
		}
		pause(ctx, c.interval)
	}
}

// live waits until every stream asked for is live. An error says what kept them from it.
func (c *crowdClient) live(ctx context.Context, limit time.Duration) (crowdReply, error) {
	reply, ok, err := c.until(ctx, limit, func(r *crowdReply) bool { return r.Live+r.Failed >= r.Wanted })
	if err != nil {
		return reply, err
	}
	if !ok || reply.Failed > 0 {
		return reply, fmt.Errorf("%d of %d streams became live within %v, %d failed; first failure: %s",
			reply.Live, reply.Wanted, limit, reply.Failed, orNone(reply.Failure))
	}
	return reply, nil
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

// connect asks for streams and waits until they are live.
func (c *crowdClient) connect(ctx context.Context, plan connectPlan, limit time.Duration) (crowdReply, error) {
	if _, err := c.ask(crowdCommand{Op: "connect", Connect: &plan}); err != nil {
		return crowdReply{}, err
	}
	reply, err := c.live(ctx, limit)
	if err != nil {
		err = fmt.Errorf("%w (a stream is live after %s)", err, describeSteps(plan.Steps))
	}
	return reply, err
}

// insist is connect for a crowd that tries again what the server refused, as clients do, up to so
// many times. It gives how many handshakes were refused.
func (c *crowdClient) insist(ctx context.Context, plan connectPlan, limit time.Duration, times int) (refused int, err error) {
	for {
		reply, err := c.connect(ctx, plan, limit)
		refused += reply.Failed
		if err == nil || reply.Failed == 0 || reply.Live+reply.Failed < reply.Wanted || times == 0 {
			return refused, err
		}
		if _, err := c.ask(crowdCommand{Op: "forgive"}); err != nil {
			return refused, err
		}
		plan.Count = reply.Failed
		times--
	}
}

func (c *crowdClient) reset() error {
	_, err := c.ask(crowdCommand{Op: "reset"})
	return err
}

func (c *crowdClient) report() (crowdReply, error) { return c.ask(crowdCommand{Op: "report"}) }

// delivered waits until the crowd has got as many messages as expected, or none more has come for
// grace.
func (c *crowdClient) delivered(ctx context.Context, expected uint64, grace time.Duration) (crowdReply, error) {
	var seen uint64
	moved := time.Now()
	for {
		reply, err := c.ask(crowdCommand{Op: "status"})
		if err != nil || reply.Deliveries >= expected {
			return reply, err
		}
		if err := ctx.Err(); err != nil {
			return reply, err
		}
		if reply.Deliveries != seen {
			seen, moved = reply.Deliveries, time.Now()
		}
		if time.Since(moved) > grace {
			return reply, nil
		}
		pause(ctx, c.interval)
	}
}
