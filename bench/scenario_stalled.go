package bench

import (
	"bytes"
	"context"
	"fmt"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

const (
	stalledPerSecond = 100.0
	stalledTurns     = 4
	// stalledFill messages on a channel of its own fill what the kernel holds for the client that
	// reads nothing, so that from then on it is the server that holds what is for it.
	stalledFill    = 400
	stalledChannel = 18_003 // its number, behind those of all others
	// stalledReceiveBytes is the receive buffer of that client.
	stalledReceiveBytes = 4 << 10
)

func stalledSeconds(s *Settings) float64 { return 2*s.Paced + 6 }

// runStalled compares the latency of all others, and memory, with one client that reads nothing, and
// without it, in turn. The first load, in which memory settles, does not count.
func runStalled(ctx context.Context, c *cell) error {
	l, err := c.crowded(ctx)
	if err != nil {
		return err
	}
	load := pace{
		first: sharedChannel, channels: 1, perSecond: stalledPerSecond,
		count: int(c.settings.Paced / stalledTurns * stalledPerSecond),
	}
	if _, err := l.paced(ctx, load); err != nil {
		return fmt.Errorf("to begin with: %w", err)
	}
	names := [2]string{"alone", "beside"}
	var sums [2]measured
	var latencies [2]*hdrhistogram.Histogram
	var grown, memory float64
	for range stalledTurns {
		for i, name := range names {
			m, after, err := c.stalledTurn(ctx, l, load, i == 1)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			latency, err := m.reply.latency()
			if err != nil {
				return err
			}
			if latencies[i] == nil {
				latencies[i] = newLatency()
			}
			latencies[i].Merge(latency)
			sums[i].add(m)
			if i == 1 {
				grown = max(grown, after-memory)
			}
			memory = after
		}
	}
	alone, beside := histogramMetrics(latencies[0]), histogramMetrics(latencies[1])
	c.add("alone", sums[0].counts(), alone)
	c.add("beside", sums[1].counts(), beside, map[string]float64{
		metricTimesAlone: beside[metricP99] / alone[metricP99], metricGrowthBytes: grown,
	})
	return nil
}

// stalledTurn sends to all, beside a client that reads nothing or without it, and gives the server's
// memory in the end too.
func (c *cell) stalledTurn(ctx context.Context, l *load, p pace, beside bool) (m *measured, memory float64, err error) {
	if beside {
		fd, err := openStalled(l.server, c.Wire)
		if err != nil {
			return nil, 0, err
		}
		defer unix.Close(fd)
		if _, err := l.publisher.burst(stalledChannel, stalledFill); err != nil {
			return nil, 0, err
		}
		c.calm(ctx)
	}
	if m, err = l.paced(ctx, p); err != nil {
		return nil, 0, err
	}
	resident, err := residentBytes(l.server.pids())
	return m, float64(resident), err
}

// openStalled opens a stream on the channel of all and one of its own, from which nobody reads once
// it is live. The caller closes it.
func openStalled(to *server, wire Wire) (fd int, err error) {
	d := dialer{plan: &connectPlan{Address: to.address}}
	addresses, err := d.plan.targets()
	if err != nil {
		return 0, err
	}
	names := channelName(to.channel, sharedChannel) + severalBetween[wire] + channelName(to.channel, stalledChannel)
	steps := to.several[wire]
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, fmt.Errorf("open a socket: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, stalledReceiveBytes); err != nil {
		return 0, fmt.Errorf("prepare a socket: %w", err)
	}
	if err = prepare(fd, addresses[0], d.source(0), steps[0].bytesFor(names, "")); err != nil {
		return 0, err
	}
	return fd, shakeHands(fd, steps, names)
}

// shakeHands takes the answers of a handshake whose first step was sent, and sends the others.
func shakeHands(fd int, steps []step, channel string) error {
	limit := unix.NsecToTimeval(int64(startTimeout))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return fmt.Errorf("prepare a socket: %w", err)
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		return fmt.Errorf("prepare a socket: %w", err)
	}
	for i, one := range steps {
		if i > 0 {
			if _, err := unix.Write(fd, one.bytesFor(channel, "")); err != nil {
				return fmt.Errorf("shake hands: %w", err)
			}
		}
		var answer []byte
		for !bytes.Contains(answer, one.Expect) {
			var buffer [1 << 10]byte
			n, err := unix.Read(fd, buffer[:])
			if err != nil || n == 0 || len(answer) > handshakeBytesMax {
				return fmt.Errorf("the server answered %d bytes without %q (%v)", len(answer), one.Expect, err)
			}
			answer = append(answer, buffer[:n]...)
		}
	}
	return nil
}
