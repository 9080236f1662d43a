package gateway

import (
	"fmt"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/internal/names"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/netio/handoff"
	"github.com/millrace/millrace/proto"
)

// carriedStream is all that is known of a stream, on its way to another process. The numbers of wire
// forms, kinds, states and reasons are told as they are: a test holds them to what they were.
type carriedStream struct {
	id netio.ID

	// What is the same as long as nothing happens on the stream: it is compared with what was sent
	// before, and sent again only if it differs.
	hub                   hub.Carried
	user, grants, address string // as in people and admission
	aged                  bool
	expires               netio.Tick
	minute                uint16 // as session.waiting
	unread                []byte // a message that has begun, as frames
	unsent                []carriedFrame
	queueAge, queueSilent time.Duration // of unsent; in whole milliseconds
	trail                 carriedTrail  // of a gzip stream

	// What moves by itself, and may be a little old.
	heard, pinged, lastWrite netio.Tick
	pace                     uint32 // microseconds that session.pace is ahead
}

// carriedTrail is what a gzip stream has behind the end of its queue.
type carriedTrail struct {
	spliced     bool
	sum, length uint32 // as netio.Loop.TextSum gives them
}

// carriedFrame is a frame that waits for a stream: its number among those of the loop, and how much of
// it the kernel has taken.
type carriedFrame struct{ number, taken uint64 }

// Fields of a stream. Numbers are never used again for something else.
const (
	streamName         = 1
	streamForm         = 2
	streamUser         = 3
	streamGrants       = 4
	streamAddress      = 5
	streamExpires      = 6
	streamAged         = 7
	streamMinute       = 8
	streamSubscription = 9 // one each
	streamUnread       = 10
	streamBase         = 11
	streamHadLog       = 12
	streamUnsent       = 13 // one each
	streamQueueAge     = 14
	streamQueueSilent  = 15
	streamTrail        = 16 // of a gzip stream
	streamHeard        = 20
	streamPinged       = 21
	streamLastWrite    = 22
	streamPace         = 23
)

// Fields of a subscription.
const (
	subscriptionChannel = 1
	subscriptionKind    = 2
	subscriptionAsked   = 3 // there where the broker has not confirmed
	subscriptionState   = 4
	subscriptionTime    = 5 // After, Due: milliseconds and sequence
	subscriptionNumber  = 6
	subscriptionOwed    = 7 // there where a gap is owed: its reason
	subscriptionFrom    = 8
	subscriptionCount   = 9
	subscriptionUnsure  = 10
	subscriptionDueTime = 11
	subscriptionDueNum  = 12
)

// Fields of where a subscription goes on from.
const (
	fromKind    = 1
	fromTime    = 2
	fromNumber  = 3
	fromHorizon = 4
	fromOrder   = 5
	fromValue   = 6
	fromText    = 7
)

// Fields of a trail.
const (
	trailSum    = 1
	trailLength = 2
)

// Fields of a frame that waits.
const (
	unsentNumber = 1
	unsentTaken  = 2
)

// appendNumber leaves a zero out, which is what a field that is not there means.
func appendNumber(to []byte, key handoff.Key, number uint64) []byte {
	if number == 0 {
		return to
	}
	return handoff.AppendNumber(to, key, number)
}

func appendText[T ~[]byte | ~string](to []byte, key handoff.Key, text T) []byte {
	if len(text) == 0 {
		return to
	}
	return handoff.Append(to, key, text)
}

func appendFlag(to []byte, key handoff.Key, set bool) []byte {
	if !set {
		return to
	}
	return handoff.AppendNumber(to, key, 1)
}

// appendLasting appends what is the same as long as nothing happens.
func (c *carriedStream) appendLasting(to []byte) []byte {
	to = handoff.AppendNumber(to, handoff.Must(streamName), uint64(c.id))
	to = handoff.AppendNumber(to, handoff.Must(streamForm), uint64(c.hub.Form))
	to = appendText(to, handoff.Must(streamUser), c.user)
	to = appendText(to, handoff.Must(streamGrants), c.grants)
	to = appendText(to, handoff.Must(streamAddress), c.address)
	to = appendNumber(to, handoff.Must(streamExpires), uint64(c.expires))
	to = appendFlag(to, handoff.Must(streamAged), c.aged)
	to = appendNumber(to, handoff.May(streamMinute), uint64(c.minute))
	to = appendNumber(to, handoff.Must(streamBase), c.hub.Base)
	to = appendFlag(to, handoff.Must(streamHadLog), c.hub.HadLog)
	for i := range c.hub.Subscriptions {
		sub := &c.hub.Subscriptions[i]
		to = handoff.AppendFields(to, handoff.Must(streamSubscription), func(to []byte) []byte { return appendSubscription(to, sub) })
	}
	to = appendText(to, handoff.Must(streamUnread), c.unread)
	for _, frame := range c.unsent {
		to = handoff.AppendFields(to, handoff.Must(streamUnsent), func(to []byte) []byte {
			to = handoff.AppendNumber(to, handoff.Must(unsentNumber), frame.number)
			return appendNumber(to, handoff.Must(unsentTaken), frame.taken)
		})
	}
	if c.trail.spliced {
		to = handoff.AppendFields(to, handoff.Must(streamTrail), func(to []byte) []byte {
			to = appendNumber(to, handoff.Must(trailSum), uint64(c.trail.sum))
			return appendNumber(to, handoff.Must(trailLength), uint64(c.trail.length))
		})
	}
	to = appendNumber(to, handoff.May(streamQueueAge), uint64(c.queueAge.Milliseconds()))
	return appendNumber(to, handoff.May(streamQueueSilent), uint64(c.queueSilent.Milliseconds()))
}

// appendMoving appends the rest.
func (c *carriedStream) appendMoving(to []byte) []byte {
	to = appendNumber(to, handoff.May(streamHeard), uint64(c.heard))
	to = appendNumber(to, handoff.May(streamPinged), uint64(c.pinged))
	to = appendNumber(to, handoff.May(streamLastWrite), uint64(c.lastWrite))
	return appendNumber(to, handoff.May(streamPace), uint64(c.pace))
}

func appendSubscription(to []byte, sub *hub.CarriedSubscription) []byte {
	to = handoff.Append(to, handoff.Must(subscriptionChannel), sub.Channel)
	to = appendNumber(to, handoff.Must(subscriptionKind), uint64(sub.Kind))
	to = appendFlag(to, handoff.Must(subscriptionAsked), !sub.Confirmed)
	to = appendNumber(to, handoff.Must(subscriptionState), uint64(sub.State))
	to = appendNumber(to, handoff.Must(subscriptionTime), sub.After.Milliseconds)
	to = appendNumber(to, handoff.Must(subscriptionNumber), sub.After.Sequence)
	if sub.Owed {
		to = handoff.AppendNumber(to, handoff.Must(subscriptionOwed), uint64(sub.Reason))
	}
	if from := &sub.From; from.Kind != hub.FromNow {
		to = handoff.AppendFields(to, handoff.Must(subscriptionFrom), func(to []byte) []byte { return appendFrom(to, from) })
	}
	to = appendNumber(to, handoff.Must(subscriptionCount), uint64(sub.Count))
	to = appendFlag(to, handoff.Must(subscriptionUnsure), sub.Unsure)
	to = appendNumber(to, handoff.Must(subscriptionDueTime), sub.Due.Milliseconds)
	return appendNumber(to, handoff.Must(subscriptionDueNum), sub.Due.Sequence)
}

func appendFrom(to []byte, from *hub.From) []byte {
	to = handoff.AppendNumber(to, handoff.Must(fromKind), uint64(from.Kind))
	to = appendNumber(to, handoff.Must(fromTime), from.Position.Milliseconds)
	to = appendNumber(to, handoff.Must(fromNumber), from.Position.Sequence)
	to = appendNumber(to, handoff.Must(fromHorizon), from.Horizon)
	to = appendNumber(to, handoff.Must(fromOrder), from.Order)
	to = appendText(to, handoff.Must(fromValue), from.Value)
	return appendText(to, handoff.Must(fromText), from.Text)
}

// parseStream reads what appendLasting and appendMoving wrote, and refuses what no gateway can have
// meant: what it takes can be gone on with.
func parseStream(body []byte) (*carriedStream, error) {
	c := &carriedStream{}
	if err := handoff.Read(body, c.take); err != nil {
		return nil, fmt.Errorf("a stream: %w", err)
	}
	switch {
	case c.hub.Form >= proto.FormCount:
		return nil, fmt.Errorf("%w: a stream of the wire form %d", handoff.ErrMalformed, c.hub.Form)
	case len(c.user) > auth.UserBytesMax, len(c.grants) > names.KeyBytesMax, len(c.address) > names.KeyBytesMax:
		return nil, fmt.Errorf("%w: what a stream's owner is called is too long", handoff.ErrMalformed)
	case c.grants != "" && !auth.AreGrants(c.grants):
		return nil, fmt.Errorf("%w: what a stream's token grants", handoff.ErrMalformed)
	}
	return c, nil
}

// take reads one field.
func (c *carriedStream) take(f handoff.Field) (err error) {
	switch f.Key.Number() {
	case streamUser:
		c.user = string(f.Value)
	case streamGrants:
		c.grants = string(f.Value)
	case streamAddress:
		c.address = string(f.Value)
	case streamUnread:
		c.unread = f.Value
	case streamSubscription:
		sub, err := parseSubscription(f.Value)
		if err != nil {
			return err
		}
		c.hub.Subscriptions = append(c.hub.Subscriptions, sub)
	case streamUnsent:
		frame, err := parseUnsent(f.Value)
		if err != nil {
			return err
		}
		c.unsent = append(c.unsent, frame)
	case streamTrail:
		c.trail, err = parseTrail(f.Value)
		return err
	default:
		return c.takeNumber(f)
	}
	return nil
}

func parseTrail(body []byte) (trail carriedTrail, err error) {
	trail.spliced = true
	err = handoff.Read(body, func(f handoff.Field) error {
		number, err := f.Bounded(1<<32 - 1)
		switch f.Key.Number() {
		case trailSum:
			trail.sum = uint32(number)
		case trailLength:
			trail.length = uint32(number)
		default:
			return f.Unknown()
		}
		return err
	})
	return trail, err
}

// takeNumber is take for fields that hold a number.
func (c *carriedStream) takeNumber(f handoff.Field) error {
	var fault error
	number := func(most uint64) uint64 {
		value, err := f.Bounded(most)
		fault = err
		return value
	}
	const most32, most64 = 1<<32 - 1, 1<<64 - 1
	switch f.Key.Number() {
	case streamName:
		c.id = netio.ID(number(most64))
	case streamForm:
		c.hub.Form = proto.Form(number(uint64(proto.FormCount)))
	case streamExpires:
		c.expires = netio.Tick(number(most32))
	case streamAged:
		c.aged = number(1) == 1
	case streamMinute:
		c.minute = uint16(number(1<<16 - 1))
	case streamBase:
		c.hub.Base = number(most64)
	case streamHadLog:
		c.hub.HadLog = number(1) == 1
	case streamQueueAge:
		c.queueAge = time.Duration(number(most32)) * time.Millisecond
	case streamQueueSilent:
		c.queueSilent = time.Duration(number(most32)) * time.Millisecond
	case streamHeard:
		c.heard = netio.Tick(number(most32))
	case streamPinged:
		c.pinged = netio.Tick(number(most32))
	case streamLastWrite:
		c.lastWrite = netio.Tick(number(most32))
	case streamPace:
		c.pace = uint32(number(most32))
	default:
		return f.Unknown()
	}
	return fault
}

func parseUnsent(body []byte) (frame carriedFrame, err error) {
	err = handoff.Read(body, func(f handoff.Field) (err error) {
		switch f.Key.Number() {
		case unsentNumber:
			frame.number, err = f.Number()
		case unsentTaken:
			frame.taken, err = f.Number()
		default:
			err = f.Unknown()
		}
		return err
	})
	return frame, err
}

func parseSubscription(body []byte) (sub hub.CarriedSubscription, err error) {
	sub.Confirmed = true
	err = handoff.Read(body, func(f handoff.Field) (err error) {
		var number uint64
		switch f.Key.Number() {
		case subscriptionChannel:
			sub.Channel = string(f.Value)
			_, err = proto.ParseChannel(sub.Channel)
			return err
		case subscriptionFrom:
			sub.From, err = parseFrom(f.Value)
			if sub.From.Kind == hub.FromNow {
				sub.From = hub.From{}
			}
			return err
		default:
			number, err = f.Number()
		}
		switch f.Key.Number() {
		case subscriptionKind:
			sub.Kind = broker.Kind(min(number, 1<<8-1))
		case subscriptionAsked:
			sub.Confirmed = number == 0
		case subscriptionState:
			sub.State = hub.CarriedState(min(number, 1<<8-1))
		case subscriptionTime:
			sub.After.Milliseconds = number
		case subscriptionNumber:
			sub.After.Sequence = number
		case subscriptionOwed:
			sub.Owed, sub.Reason = true, proto.GapReason(min(number, 1<<8-1))
		case subscriptionCount:
			sub.Count = int(min(number, 1<<31-1))
		case subscriptionUnsure:
			sub.Unsure = number == 1
		case subscriptionDueTime:
			sub.Due.Milliseconds = number
		case subscriptionDueNum:
			sub.Due.Sequence = number
		default:
			return f.Unknown()
		}
		return err
	})
	if err == nil && (sub.Channel == "" || !sub.State.Valid() || sub.Reason >= proto.GapReasonCount) {
		err = fmt.Errorf("%w: a subscription to %q in the state %d", handoff.ErrMalformed, sub.Channel, sub.State)
	}
	return sub, err
}

func parseFrom(body []byte) (from hub.From, err error) {
	err = handoff.Read(body, func(f handoff.Field) (err error) {
		switch f.Key.Number() {
		case fromKind:
			var kind uint64
			kind, err = f.Bounded(uint64(hub.FromUnknown))
			from.Kind = hub.FromKind(kind)
		case fromTime:
			from.Position.Milliseconds, err = f.Number()
		case fromNumber:
			from.Position.Sequence, err = f.Number()
		case fromHorizon:
			from.Horizon, err = f.Number()
		case fromOrder:
			from.Order, err = f.Number()
		case fromValue:
			from.Value = string(f.Value)
		case fromText:
			from.Text = string(f.Value)
		default:
			err = f.Unknown()
		}
		return err
	})
	return from, err
}
