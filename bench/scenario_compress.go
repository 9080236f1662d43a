package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

const (
	compressChannels    = 10  // of a stream of many channels
	compressPerSecond   = 5   // messages to a crowd on one channel
	compressBatchRate   = 500 // messages a second to ten channels with batches
	compressBatchShare  = 20  // a crowd with batches is smaller by this
	compressQuiet       = 500 * time.Millisecond
	compressLate        = 30 * time.Second // when it can be no longer the machine
	compressSmallBytes  = 154
	compressLargeBytes  = 4096
	compressNamespaces  = "namespaces: {job_progress: {access: user%s}}\n"
	compressBatchConfig = ", batch: 100ms"

	gzipHeader    = "Accept-Encoding: gzip"
	deflateHeader = "Sec-WebSocket-Extensions: permessage-deflate"
)

// compressCase is one load, which a plain crowd gets first and then one whose streams are compressed.
type compressCase struct {
	name     string
	bytes    int
	channels int
	batch    bool
}

// gzipCases are those of event streams. To a WebSocket's message it is all one what came before it.
var gzipCases = []compressCase{
	{name: "154 bytes, one channel", bytes: compressSmallBytes, channels: 1},
	{name: "4 KB, one channel", bytes: compressLargeBytes, channels: 1},
	{name: "154 bytes, ten channels in turn", bytes: compressSmallBytes, channels: compressChannels},
	{name: "154 bytes, ten channels, batches", bytes: compressSmallBytes, channels: compressChannels, batch: true},
}

var deflateCases = []compressCase{gzipCases[0], gzipCases[1], gzipCases[3]}

// suits: batches, and many channels in one request, are asked of ours alone.
func (l compressCase) suits(one subject) bool { return isOurs(one) || l.channels == 1 }

// compressParts asks each load apart, of a server of its own.
func compressParts(cases []compressCase, header string) []part {
	var parts []part
	for _, load := range cases {
		parts = append(parts, part{
			name: load.name, on: groundBare, suits: load.suits,
			seconds: func(s *Settings) float64 { return 2*(s.Paced+0.5+1.5*float64(s.Streams)/streamsDefault) + 1 },
			run:     func(ctx context.Context, c *cell) error { return c.compress(ctx, load, header) },
		})
	}
	return parts
}

// compress compares bytes and CPU time of compressed streams with those of plain ones.
func (c *cell) compress(ctx context.Context, load compressCase, header string) error {
	batch, streams, rate := "", c.settings.Streams, float64(compressPerSecond)
	if load.batch {
		batch, streams, rate = compressBatchConfig, max(1, c.settings.Streams/compressBatchShare), compressBatchRate
	}
	running, err := c.start(ctx, startOptions{config: fmt.Sprintf(compressNamespaces, batch), compress: true})
	if err != nil {
		return err
	}
	feed, err := c.site.feed(running)
	if err != nil {
		return err
	}
	publisher, err := newPublisher(feed, running.channel, load.bytes)
	if err != nil {
		return err
	}
	if publisher.payload, err = newEventPayload(load.bytes); err != nil {
		return err
	}
	p := pace{first: 1, channels: load.channels, perSecond: rate, count: int(c.settings.Paced * rate)}
	var plain compressed
	for _, headers := range [][]string{nil, {header}} {
		got, err := c.compressLoad(ctx, running, publisher, streams, load.batch, headers, p)
		name := load.name + ", plain"
		if headers != nil {
			name = load.name + ", compressed"
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if headers == nil {
			plain = *got
		}
		metrics := map[string]float64{
			metricStreams: float64(streams), metricExpected: got.deliveries, metricDeliveries: got.deliveries,
			metricBytesPerDelivery: got.bytes / got.deliveries, metricCPUPerMillion: got.cpu / got.deliveries * 1e6,
			metricTimesFewerBytes: plain.bytes / plain.deliveries / (got.bytes / got.deliveries),
			metricTimesCPU:        got.cpu / got.deliveries / (plain.cpu / plain.deliveries),
		}
		if got.writes > 0 {
			metrics[metricPerWrite] = got.deliveries / got.writes
			metrics[metricTimesWriteCPU] = got.cpu / got.writes / (plain.cpu / plain.writes)
		}
		c.add(name, metrics)
	}
	return nil
}

// compressed is what a load took. A delivery is one message for one stream, in a batch or not. How many
// of them share a write depends on how busy the machine is, and the CPU time on that; of other servers
// than ours it is not known, and writes is 0.
type compressed struct{ deliveries, bytes, writes, cpu float64 }

// compressLoad connects a crowd, sends it a load and lets it go. That all has come shows in the
// bytes: what a compressed stream holds is not looked at here.
func (c *cell) compressLoad(ctx context.Context, running *server, from *publisher, streams int, batch bool, headers []string, p pace) (*compressed, error) {
	crowd, err := c.site.crowd(ctx)
	if err != nil {
		return nil, err
	}
	defer crowd.close()
	plan := running.plan(c.Wire, streams)
	plan.First = p.first
	switch {
	case isOurs(c.subject):
		plan.Steps = compressSteps(c.Wire, running.channel, p, headers)
	case headers != nil:
		plan.Steps = running.deflated
	}
	if _, err := crowd.connect(ctx, plan, connectLimit); err != nil {
		return nil, err
	}
	c.calm(ctx)
	if err := crowd.reset(); err != nil {
		return nil, err
	}
	start, err := c.written(ctx, running)
	if err != nil {
		return nil, err
	}
	before, err := cpuTime(running.pids())
	if err != nil {
		return nil, err
	}
	sent, err := from.paced(ctx, p)
	if err != nil {
		return nil, err
	}
	expected := uint64(sent * streams)
	bytes, end, err := c.settled(ctx, running, crowd, func(o output) bool { return batch || o.deliveries-start.deliveries >= expected })
	if err != nil {
		return nil, err
	}
	after, err := cpuTime(running.pids())
	if err != nil {
		return nil, err
	}
	switch {
	case !isOurs(c.subject): // it does not tell what it wrote
		if bytes < expected {
			return nil, fmt.Errorf("%d bytes arrived of %d messages", bytes, expected)
		}
	case bytes != end.bytes-start.bytes:
		return nil, fmt.Errorf("the server wrote %d bytes, and %d arrived", end.bytes-start.bytes, bytes)
	case !batch && end.deliveries-start.deliveries != expected:
		return nil, fmt.Errorf("the server delivered %d messages, not %d", end.deliveries-start.deliveries, expected)
	}
	return &compressed{
		deliveries: float64(expected), bytes: float64(bytes), writes: float64(end.writes - start.writes), cpu: seconds(after - before),
	}, nil
}

// settled waits until a load has come, and gives the bytes that did and what the server has written. Where
// the machine is busy, a server may be quiet for a while before it is done.
func (c *cell) settled(ctx context.Context, running *server, crowd *crowdClient, done func(output) bool) (bytes uint64, end output, err error) {
	for late := time.Now().Add(compressLate); ; {
		if bytes, err = crowd.quietBytes(ctx); err != nil {
			return 0, end, err
		}
		if end, err = c.written(ctx, running); err != nil {
			return 0, end, err
		}
		if !isOurs(c.subject) || done(end) || time.Now().After(late) {
			return bytes, end, nil
		}
	}
}

// compressSteps asks for all channels of a load in one request.
func compressSteps(wire Wire, format string, p pace, headers []string) []step {
	var channels []string
	for n := range p.channels {
		channels = append(channels, "channel="+channelName(format, p.first+n))
	}
	query := strings.Join(channels, "&")
	if wire == SSE {
		return []step{requestStep(wire, "/api/stream?"+query, headers, `"type":"connected"`)}
	}
	return []step{requestStep(wire, "/ws?"+query, headers, `"type":"subscribed"`)}
}

// compressFigures are the rows of one scenario of compression.
func compressFigures(scenario, title string, cases []compressCase) (rows []figure) {
	for _, load := range cases {
		for _, how := range []string{"plain", "compressed"} {
			of := load.name + ", " + how
			rows = append(rows,
				figure{scenario: scenario, of: of, metric: metricBytesPerDelivery, label: title + ", " + of + ": bytes a message", full: title + ", " + of + ": bytes a message", format: showPlain},
				figure{scenario: scenario, of: of, metric: metricCPUPerMillion, label: "same: CPU s per million", full: title + ", " + of + ": CPU s per million", format: showSeconds},
				figure{scenario: scenario, of: of, metric: metricPerWrite, label: "same: messages a write", full: title + ", " + of + ": messages a write", format: showPlain, more: true})
		}
		of := load.name + ", compressed"
		rows = append(rows,
			figure{scenario: scenario, of: of, metric: metricTimesFewerBytes, label: "same: times fewer bytes than plain", full: title + ", " + of + ": times fewer bytes than plain", format: showRatio, more: true},
			figure{scenario: scenario, of: of, metric: metricTimesCPU, label: "same: times the CPU of plain", full: title + ", " + of + ": times the CPU of plain", format: showRatio},
			figure{scenario: scenario, of: of, metric: metricTimesWriteCPU, label: "same: times the CPU of plain, of a write", full: title + ", " + of + ": times the CPU of plain, of a write", format: showRatio})
	}
	return rows
}

// output is what a gateway has written to streams so far.
type output struct{ bytes, deliveries, writes uint64 }

// written asks a server, if it is one of ours.
func (c *cell) written(ctx context.Context, running *server) (output, error) {
	if !isOurs(c.subject) {
		return output{}, nil
	}
	return writtenBy(ctx, running.address)
}

// writtenBy asks a gateway.
func writtenBy(ctx context.Context, address string) (w output, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/api/realtime/stats", nil)
	if err != nil {
		return w, err
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return w, fmt.Errorf("ask for statistics: %w", err)
	}
	defer response.Body.Close()
	var stats struct {
		Loops    []struct{ BytesWritten, Writes uint64 }
		Delivery struct{ Deliveries uint64 }
	}
	if err := json.NewDecoder(response.Body).Decode(&stats); err != nil {
		return w, fmt.Errorf("read statistics: %w", err)
	}
	for _, loop := range stats.Loops {
		w.bytes += loop.BytesWritten
		w.writes += loop.Writes
	}
	w.deliveries = stats.Delivery.Deliveries
	return w, nil
}

// quietBytes waits until nothing more comes, and gives the bytes that came since the last reset.
func (c *crowdClient) quietBytes(ctx context.Context) (bytes uint64, err error) {
	moved := time.Now()
	for {
		reply, err := c.ask(crowdCommand{Op: "status"})
		if err == nil {
			err = ctx.Err()
		}
		if err == nil && reply.Dropped > 0 {
			err = fmt.Errorf("the server ended %d streams under load: %s", reply.Dropped, reply.Failure)
		}
		switch {
		case err != nil:
			return 0, err
		case reply.Bytes != bytes:
			bytes, moved = reply.Bytes, time.Now()
		case time.Since(moved) > compressQuiet:
			return bytes, nil
		}
		pause(ctx, c.interval)
	}
}
