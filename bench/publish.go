package bench

import (
	"context"
	"fmt"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// leadTime is how long before its first message a publisher begins: its thread is awake by then.
const leadTime = 20_000_000 // nanoseconds

// publisher sends messages on channels and numbers them. It belongs to one goroutine at a time.
type publisher struct {
	feed    *feed
	channel string // format of a channel's name
	payload *payload
	names   map[int]string
	numbers map[int]uint32 // last number sent, by channel
	late    *hdrhistogram.Histogram
}

func newPublisher(f *feed, channel string, messageBytes int) (*publisher, error) {
	p, err := newPayload(messageBytes)
	if err != nil {
		return nil, err
	}
	return &publisher{
		feed: f, channel: channel, payload: p,
		names: make(map[int]string), numbers: make(map[int]uint32), late: newLatency(),
	}, nil
}

// add puts the next message of a channel, due at the monotonic time stamp, into the feed's request.
func (p *publisher) add(channel int, stamp int64) error {
	name, known := p.names[channel]
	if !known {
		name = channelName(p.channel, channel)
		p.names[channel] = name
	}
	p.numbers[channel]++
	if p.numbers[channel] > numberMax {
		return fmt.Errorf("publish: a channel carries at most %d messages a run", numberMax)
	}
	p.payload.set(stamp, p.numbers[channel])
	p.feed.add(name, p.payload.bytes)
	return nil
}

// pace is a load of single messages at even distances.
type pace struct {
	first, channels int             // messages go to channels first..first+channels-1 in turn
	perSecond       float64         // messages
	count           int             // messages in all, at most
	stop            <-chan struct{} // closed when it is enough; nil: never
}

// paced sends at a steady rate, whatever the server does: a message that is late because the one
// before it was keeps its own due time as its stamp, so that no delay hides another (coordinated
// omission). It gives how many messages it sent.
func (p *publisher) paced(ctx context.Context, load pace) (int, error) {
	keeper := newTimekeeper()
	defer keeper.release()
	start := monotonic() + leadTime
	for i := range load.count {
		due := start + int64(float64(i)*1e9/load.perSecond)
		keeper.until(due)
		select {
		case <-ctx.Done():
			return i, ctx.Err()
		case <-load.stop:
			return i, p.feed.settle()
		default:
		}
		if err := p.add(load.first+i%load.channels, due); err != nil {
			return i, err
		}
		recordLatency(p.late, monotonic()-due)
		if err := p.feed.send(); err != nil {
			return i, err
		}
	}
	return load.count, p.feed.settle()
}

// burst sends count messages of one channel at once and gives when that began.
func (p *publisher) burst(channel, count int) (int64, error) {
	now := monotonic()
	for range count {
		if err := p.add(channel, now); err != nil {
			return 0, err
		}
	}
	if err := p.feed.send(); err != nil {
		return 0, err
	}
	return now, p.feed.settle()
}
