package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/netio/handoff"
)

// What one gateway tells its successor, message by message. All are sent by the old one and answered by
// the new one; docs/decisions/0031 says in which order, and what a failure at each means.
const (
	messageHello   handoff.Kind = 1 // who I am; with the token and the listeners
	messageStreams handoff.Kind = 2 // streams, with the descriptors of those that come for the first time
	messageListen  handoff.Kind = 3 // hear all that they hear, and the mark; the answer says where
	messageFrames  handoff.Kind = 4 // bytes that wait for streams
	messageLegacy  handoff.Kind = 5 // what streams share: the order, where states and logs stand
	messageTake    handoff.Kind = 6 // that was all: take the token, and serve
)

// heritageFormat changes where two versions can no longer understand each other at all. What can be
// missed is a new optional field, what can't a new mandatory one, and neither changes it.
const heritageFormat = 1

// messageBytesAim is how large a message grows before the next one begins, in bytes.
const messageBytesAim = 1 << 20

// Fields of hello, and of its answer.
const (
	helloFormat   = 1
	helloSoftware = 2
	helloEpoch    = 3
	helloTick     = 4 // of each loop, in order
	helloPlain    = 6 // address of the node of a Cluster from which plain channels are had
	helloAdmin    = 5 // there where a second listener, for operators, comes behind the first
	helloClock    = 7 // when the ticks were read: machineTime, in nanoseconds
)

// hello is the first message. Its descriptors are the token, the listener, and that of operators.
type hello struct {
	software, epoch string
	ticks           []netio.Tick  // of each loop
	clock           time.Duration // machineTime, a little before they were read
	admin           bool
	plain           string // broker.RedisOptions.PlainOn
}

func (h *hello) append(to []byte) []byte {
	to = handoff.AppendNumber(to, handoff.Must(helloFormat), heritageFormat)
	to = appendText(to, handoff.May(helloSoftware), h.software)
	to = handoff.Append(to, handoff.Must(helloEpoch), h.epoch)
	for _, tick := range h.ticks {
		to = handoff.AppendNumber(to, handoff.Must(helloTick), uint64(tick))
	}
	to = appendNumber(to, handoff.May(helloClock), uint64(h.clock))
	to = appendText(to, handoff.May(helloPlain), h.plain)
	return appendFlag(to, handoff.Must(helloAdmin), h.admin)
}

func parseHello(body []byte) (h hello, err error) {
	format := uint64(0)
	err = handoff.Read(body, func(f handoff.Field) (err error) {
		switch f.Key.Number() {
		case helloFormat:
			format, err = f.Number()
		case helloSoftware:
			h.software = string(f.Value)
		case helloEpoch:
			h.epoch = string(f.Value)
		case helloTick:
			var tick uint64
			tick, err = f.Bounded(1<<32 - 1)
			h.ticks = append(h.ticks, netio.Tick(tick))
		case helloClock:
			var clock uint64
			clock, err = f.Bounded(1<<63 - 1)
			h.clock = time.Duration(clock)
		case helloAdmin:
			h.admin = true
		case helloPlain:
			h.plain = string(f.Value)
		default:
			err = f.Unknown()
		}
		return err
	})
	switch {
	case err != nil:
	case format != heritageFormat:
		err = fmt.Errorf("the other process hands over in format %d; this one knows %d", format, heritageFormat)
	case h.epoch == "" || len(h.epoch) > 64 || len(h.ticks) == 0 || len(h.ticks) > 62:
		err = fmt.Errorf("%w: an epoch %q and %d loops", handoff.ErrMalformed, h.epoch, len(h.ticks))
	}
	return h, err
}

// machineTime is a clock that all processes of the machine share, and that nobody sets.
func machineTime() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // fails where there is no such clock
	return time.Duration(now.Nano())
}

// Fields of streams.
const (
	streamsNew     = 1 // a stream whose descriptor comes along, in the order of these fields
	streamsChanged = 2 // a stream that came before and is now this
	streamsGone    = 3 // the name of a stream that came before and is no more
)

// Fields of listen, and of its answer.
const (
	listenMark   = 1
	listenServer = 2 // that which carries the plain channels first, then all
)

// Fields of frames.
const (
	framesFrame = 1 // one each
	frameLoop   = 1
	frameNumber = 2
	frameBytes  = 3
)

// loopFrame is bytes that wait for streams of one loop.
type loopFrame struct {
	loop   int
	number uint64
	bytes  []byte
}

func (l *loopFrame) append(to []byte) []byte {
	return handoff.AppendFields(to, handoff.Must(framesFrame), func(to []byte) []byte {
		to = appendNumber(to, handoff.Must(frameLoop), uint64(l.loop))
		to = handoff.AppendNumber(to, handoff.Must(frameNumber), l.number)
		return handoff.Append(to, handoff.Must(frameBytes), l.bytes)
	})
}

// parseFrames reads the frames of a message. Their bytes are parts of it.
func parseFrames(body []byte, loops int) (frames []loopFrame, err error) {
	err = handoff.Read(body, func(f handoff.Field) error {
		if f.Key.Number() != framesFrame {
			return f.Unknown()
		}
		var one loopFrame
		err := handoff.Read(f.Value, func(f handoff.Field) (err error) {
			switch f.Key.Number() {
			case frameLoop:
				var loop uint64
				loop, err = f.Bounded(uint64(loops - 1))
				one.loop = int(loop)
			case frameNumber:
				one.number, err = f.Number()
			case frameBytes:
				one.bytes = f.Value
			default:
				err = f.Unknown()
			}
			return err
		})
		frames = append(frames, one)
		return err
	})
	return frames, err
}

// Fields of legacy; it comes in several messages where there are many channels.
const (
	legacyOrder      = 1
	legacyGeneration = 2 // of each loop, in order
	legacyChannel    = 3 // one each
	legacyKept       = 4 // one each
	legacyHeld       = 5 // the name of a channel that is held for who may come back; one each
	legacyOrdersTime = 6 // position of the last order of an operator that needs nothing more
	legacyOrdersNum  = 7

	channelName    = 1
	channelTime    = 2
	channelNumber  = 3
	channelValue   = 4
	channelSince   = 5
	channelDropped = 6

	keptChannel = 1
	keptID      = 2
	keptPayload = 3
	keptOrder   = 4
	keptLeft    = 5 // milliseconds
)

// legacy is what streams share.
type legacy struct {
	hub         hub.Legacy
	kept        []hub.Kept
	held        []string
	orders      broker.Position // as orders.done
	generations []uint32        // of each loop: see netio.Loop.NextGeneration
}

// keptBodies gives the bodies of messages that tell of what is kept for clients that come back. A
// version that does not know of it tells them of a gap.
func keptBodies(kept []hub.Kept, held []string) (bodies [][]byte) {
	var body []byte
	for i := range kept {
		one := &kept[i]
		body = handoff.AppendFields(body, handoff.May(legacyKept), func(to []byte) []byte {
			to = handoff.Append(to, handoff.Must(keptChannel), one.Channel)
			to = appendText(to, handoff.Must(keptID), one.ID)
			to = handoff.Append(to, handoff.Must(keptPayload), one.Payload)
			to = handoff.AppendNumber(to, handoff.Must(keptOrder), one.Order)
			return appendNumber(to, handoff.Must(keptLeft), uint64(one.Left.Milliseconds()))
		})
		if len(body) >= messageBytesAim {
			bodies, body = append(bodies, body), nil
		}
	}
	for _, name := range held {
		body = handoff.Append(body, handoff.May(legacyHeld), name)
	}
	if len(body) > 0 {
		bodies = append(bodies, body)
	}
	return bodies
}

// messages gives the bodies that tell the rest.
func (l *legacy) messages() (bodies [][]byte) {
	body := handoff.AppendNumber(nil, handoff.Must(legacyOrder), l.hub.Order)
	body = appendNumber(body, handoff.May(legacyOrdersTime), l.orders.Milliseconds)
	body = appendNumber(body, handoff.May(legacyOrdersNum), l.orders.Sequence)
	for _, generation := range l.generations {
		body = handoff.AppendNumber(body, handoff.Must(legacyGeneration), uint64(generation))
	}
	for name, channel := range l.hub.Channels {
		body = handoff.AppendFields(body, handoff.Must(legacyChannel), func(to []byte) []byte {
			to = handoff.Append(to, handoff.Must(channelName), name)
			to = appendNumber(to, handoff.Must(channelTime), channel.Position.Milliseconds)
			to = appendNumber(to, handoff.Must(channelNumber), channel.Position.Sequence)
			if channel.Value != [32]byte{} {
				to = handoff.Append(to, handoff.Must(channelValue), channel.Value[:])
			}
			to = appendNumber(to, handoff.May(channelSince), channel.Since)
			return appendNumber(to, handoff.May(channelDropped), channel.Dropped)
		})
		if len(body) >= messageBytesAim {
			bodies, body = append(bodies, body), nil
		}
	}
	return append(bodies, body)
}

// take adds what one message tells.
func (l *legacy) take(body []byte) error {
	return handoff.Read(body, func(f handoff.Field) (err error) {
		switch f.Key.Number() {
		case legacyOrder:
			l.hub.Order, err = f.Number()
		case legacyGeneration:
			var generation uint64
			generation, err = f.Bounded(1<<32 - 1)
			l.generations = append(l.generations, uint32(generation))
		case legacyChannel:
			err = l.takeChannel(f.Value)
		case legacyKept:
			err = l.takeKept(f.Value)
		case legacyHeld:
			l.held = append(l.held, string(f.Value))
		case legacyOrdersTime:
			l.orders.Milliseconds, err = f.Number()
		case legacyOrdersNum:
			l.orders.Sequence, err = f.Number()
		default:
			err = f.Unknown()
		}
		return err
	})
}

var errNoName = errors.New("a channel without a name")

func (l *legacy) takeChannel(body []byte) error {
	name := ""
	var channel hub.LegacyChannel
	err := handoff.Read(body, func(f handoff.Field) (err error) {
		switch f.Key.Number() {
		case channelName:
			name = string(f.Value)
		case channelTime:
			channel.Position.Milliseconds, err = f.Number()
		case channelNumber:
			channel.Position.Sequence, err = f.Number()
		case channelSince:
			channel.Since, err = f.Number()
		case channelDropped:
			channel.Dropped, err = f.Number()
		case channelValue:
			if copy(channel.Value[:], f.Value) != len(f.Value) || len(f.Value) != len(channel.Value) {
				err = fmt.Errorf("%w: a hash of %d bytes", handoff.ErrMalformed, len(f.Value))
			}
		default:
			err = f.Unknown()
		}
		return err
	})
	if err == nil && name == "" {
		err = fmt.Errorf("%w: %w", handoff.ErrMalformed, errNoName)
	}
	if l.hub.Channels == nil {
		l.hub.Channels = make(map[string]hub.LegacyChannel)
	}
	l.hub.Channels[name] = channel
	return err
}

func (l *legacy) takeKept(body []byte) error {
	var kept hub.Kept
	err := handoff.Read(body, func(f handoff.Field) (err error) {
		switch f.Key.Number() {
		case keptChannel:
			kept.Channel = string(f.Value)
		case keptID:
			kept.ID = string(f.Value)
		case keptPayload:
			kept.Payload = bytes.Clone(f.Value) // the message is larger
		case keptOrder:
			kept.Order, err = f.Number()
		case keptLeft:
			var left uint64
			left, err = f.Bounded(1<<40 - 1)
			kept.Left = time.Duration(left) * time.Millisecond
		default:
			err = f.Unknown()
		}
		return err
	})
	l.kept = append(l.kept, kept)
	return err
}

// redisOf gives the broker as the one kind that can be divided.
func (g *Gateway) redisOf() (*broker.Redis, error) {
	redis, ok := g.broker.(*broker.Redis)
	if !ok {
		return nil, errors.New("gateway: without Redis there is nothing that two processes could share: events, states and logs are in the memory of one; restart it instead")
	}
	return redis, nil
}

// heritage is what a gateway has of the one before it. One that has none before it has nothing but a
// name.
type heritage struct {
	epoch                   string
	ticks                   []netio.Tick        // of each loop
	clock                   time.Duration       // machineTime, when they were read; 0: not known
	plain                   string              // broker.RedisOptions.PlainOn
	listener, adminListener *netio.DeskListener // until they are in use
	token                   *handoff.Token
	cut                     *broker.Cut

	streams  []map[netio.ID]*inheritedStream // of each loop
	frames   []map[uint64][]byte             // of each loop: bytes that wait for streams
	rest     legacy
	interest map[string]func() // channels that streams hear; each ends the interest in one
}

// inheritedStream is a stream that still is the other's.
type inheritedStream struct {
	*carriedStream
	fd int
}

// divide has all events passed over that are the predecessor's.
func (h *heritage) divide(redis *broker.Redis) (err error) {
	if h.token != nil {
		h.cut, err = redis.Divide(broker.After)
	}
	return err
}

// firstTick is the time that a loop begins at: never before that of the loop whose streams it gets, and
// hardly behind it.
func (h *heritage) firstTick(loop int) netio.Tick {
	if loop >= len(h.ticks) {
		return 0
	}
	passed := time.Duration(0)
	if h.clock > 0 {
		passed = min(max(machineTime()-h.clock, 0), startTimeout)
	}
	return h.ticks[loop] + netio.Tick(passed/netio.TickLength) + 1
}

// close lets go of what is not in use.
func (h *heritage) close() {
	for _, listener := range []*netio.DeskListener{h.listener, h.adminListener} {
		if listener != nil {
			_ = listener.Close()
		}
	}
	if h.token != nil {
		h.token.Close()
	}
	for _, streams := range h.streams {
		for _, one := range streams {
			_ = unix.Close(one.fd)
		}
		clear(streams)
	}
}
