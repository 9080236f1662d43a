package broker

import (
	"math"
	"strconv"
	"strings"

	"github.com/millrace/millrace/proto"
)

// ReadLogMax is how many entries [Broker.ReadLog] gives at most.
const ReadLogMax = 1024

// PreferMax is how many subscriptions [Broker.Prefer] takes at most; the rest is passed over.
const PreferMax = 10_000

// Position is a place in a Log, as Redis names its entries: MS-SEQ. The zero value is before the
// first entry.
type Position struct{ Milliseconds, Sequence uint64 }

// Before reports whether p comes before other.
func (p Position) Before(other Position) bool {
	return p.Milliseconds < other.Milliseconds || p.Milliseconds == other.Milliseconds && p.Sequence < other.Sequence
}

// String gives MS-SEQ.
func (p Position) String() string {
	return strconv.FormatUint(p.Milliseconds, 10) + "-" + strconv.FormatUint(p.Sequence, 10)
}

// previous returns the position directly before p; of the zero position itself.
func (p Position) previous() Position {
	switch {
	case p.Sequence > 0:
		return Position{p.Milliseconds, p.Sequence - 1}
	case p.Milliseconds > 0:
		return Position{p.Milliseconds - 1, math.MaxUint64}
	}
	return p
}

// ParsePosition reads MS-SEQ. It reports false for anything else.
func ParsePosition(text string) (Position, bool) {
	milliseconds, sequence, found := strings.Cut(text, "-")
	if !found {
		return Position{}, false
	}
	ms, msErr := strconv.ParseUint(milliseconds, 10, 64)
	seq, seqErr := strconv.ParseUint(sequence, 10, 64)
	return Position{ms, seq}, msErr == nil && seqErr == nil
}

// Entry is one entry of a Log. Payload is its field data where it has one, else an object of all
// its fields; it is not known to be JSON. It must not be changed, and may be kept.
type Entry struct {
	Position Position
	Payload  []byte
}

// LogUpdate is what [Callbacks.Log] hands over.
type LogUpdate struct {
	Channel string
	// From is the position behind which Entries follow without a hole: the last one that was
	// handed over for the channel, unless Hole is set. The first update of a subscription, and
	// the first one after somebody came back for it, has no entries and says where the log
	// stands by now.
	From Position
	// Entries come in the order of their positions, all behind From. May be empty.
	Entries []Entry
	// Hole says that entries may be missing that came, or should have come, after what was
	// handed over before, and Reason why: [proto.GapTrimmed], [proto.GapRewound] or
	// [proto.GapBroker]. After a rewind From can lie before what was handed over.
	Hole   bool
	Reason proto.GapReason
	// Horizon is a Redis time in milliseconds: every entry of every subscribed log with a
	// position up to and including that millisecond has been handed over, with this update or
	// before it. 0 while it is not known.
	Horizon uint64
}

// LogChunk is what a read of a log's past gave.
type LogChunk struct {
	// Entries follow on the position that was asked for, in order.
	Entries []Entry
	// End says that nothing stood behind the last of Entries when the log was read.
	End bool
	// Hole says that entries between the position asked for and the first of Entries (or, with
	// none, the end) may be missing, and Reason why. Where it can't be known, there is one: a
	// position that is no entry's may be a trace of another log of the same name, and a log that
	// is not there may have been. A position with the highest possible sequence stands for the
	// end of its millisecond, not for an entry, and is good beyond the log's end too.
	Hole   bool
	Reason proto.GapReason
}
