package hub

import (
	"math"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/proto"
)

// FromKind says what a [From] holds.
type FromKind uint8

const (
	// FromNow is live only: nothing is replayed, and nothing is said about the past.
	FromNow FromKind = iota
	// FromBeginning is all that there is: of a log from its first entry, of events what the memory
	// holds.
	FromBeginning
	// FromEntry goes on behind an entry of a log: Position, and Horizon for the ids of what is
	// replayed.
	FromEntry
	// FromHorizon goes on behind a time of a log: Horizon.
	FromHorizon
	// FromOrder goes on behind the event of this gateway's life with the number Order.
	FromOrder
	// FromValue goes on behind the event whose id_field held Value.
	FromValue
	// FromUnknown is a position that cannot be gone on from: a gap says so, and the channel is
	// live.
	FromUnknown
)

// From is where a new subscription goes on from. The zero value is live only. It means nothing
// for a state, whose value always comes.
type From struct {
	Kind     FromKind
	Position broker.Position
	// Horizon is a Redis time in milliseconds: the client has every entry of every log up to it.
	Horizon uint64
	Order   uint64
	Value   string
	// Text is the position as the client gave it, for the gap that says that it is unknown. It
	// may be empty or no id at all.
	Text string
}

// horizonBeginning is the horizon of a client that has nothing: 0 in an id means that it was not
// known.
const horizonBeginning = 1

// From says where channel goes on for a client that gives text as its position: an id that a
// gateway gave out, for this channel or, on an event stream, for another channel of the same
// connection; "0" for the beginning; "" for live only. What it can't use becomes FromUnknown. Safe
// for many goroutines.
func (h *Hub) From(channel proto.Channel, text string) From {
	switch text {
	case "":
		return From{}
	case "0":
		return From{Kind: FromBeginning, Horizon: horizonBeginning, Text: text}
	}
	unknown := From{Kind: FromUnknown, Text: text}
	id, err := proto.ParseID(text)
	if err != nil {
		unknown.Text = "" // it is no id: the gap must not repeat it
		return unknown
	}
	log := h.options.RulesOf(channel.Type()).Kind == broker.Log
	switch {
	case id.Kind == proto.IDLog && log && id.Channel == channel:
		return From{
			Kind: FromEntry, Position: broker.Position{Milliseconds: id.Milliseconds, Sequence: id.Sequence},
			Horizon: id.Horizon, Text: text,
		}
	case id.Kind == proto.IDLog && log && id.Horizon > 0:
		return From{Kind: FromHorizon, Horizon: id.Horizon, Text: text}
	case id.Kind == proto.IDEvent && !log && id.Epoch == h.options.Epoch:
		return From{Kind: FromOrder, Order: id.N, Text: text}
	case id.Kind == proto.IDValue && !log && id.Channel == channel:
		return From{Kind: FromValue, Value: id.Value, Text: text}
	}
	return unknown
}

// entry is the place in a log behind which f goes on.
func (f *From) entry() broker.Position {
	switch f.Kind {
	case FromEntry:
		return f.Position
	case FromHorizon:
		return broker.Position{Milliseconds: f.Horizon, Sequence: math.MaxUint64}
	default:
		return broker.Position{}
	}
}
