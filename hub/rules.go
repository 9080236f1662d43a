package hub

import (
	"errors"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/netio"
)

// Rules says how the channels of one type behave. They hold for the life of the hub and are only
// read.
type Rules struct {
	// Kind says what carries the channels: broker.Plain or Sharded for events, State, or Log.
	Kind broker.Kind
	// Replay is how much of events is kept for clients that come back. Size 0: nothing.
	Replay Replay
	// IDField names a member of the payload, unique for each event, that becomes the event's id:
	// CHANNEL/=VALUE. An event without it gets the ordinary id. For events only.
	IDField string
	// Throttle is the shortest time between two events of one channel: the first goes out at once,
	// of those that follow within it only the newest, at its end. 0: none. Not for logs.
	Throttle time.Duration
	// Batch gathers the events of one channel for so long and hands them over as one batch. 0:
	// none. For events only, and not together with Throttle.
	Batch time.Duration
	// Conflate lets a client that lags keep only the newest event of a channel, or, with
	// ConflateBy, the newest for each value of that member of the payload, instead of a gap. For
	// events only: a state is always like this, a log never.
	Conflate   bool
	ConflateBy string
	// Ends, where set, is asked of each entry whether it is the last of its log: it is then told as
	// the end of the stream ([proto.NewEnd]), and to the owner by Events.Ended. For logs only. It must
	// be quick, and safe for many goroutines.
	Ends func(payload []byte) bool
	// MaxBytes bounds a payload in place of Options.MaxEventBytes. 0: that one counts.
	MaxBytes int
	// Compress lets those who take events compressed get them shorter; without it compressed streams
	// carry them as they are. CompressOver is the size in bytes above which a payload is packed for
	// those who want that ([proto.FormTextPacked]).
	Compress     bool
	CompressOver int
}

// Replay bounds the memory of one channel of events.
type Replay struct {
	Size int           // events
	TTL  time.Duration // of an event, and of the channel's interest after its last listener left
}

// Check says what is wrong with r, nil if nothing is.
func (r *Rules) Check() error {
	events := r.Kind == broker.Plain || r.Kind == broker.Sharded
	switch {
	case !events && r.Kind != broker.State && r.Kind != broker.Log:
		return errors.New("kind must be one for events, State or Log")
	case r.Replay.Size < 0 || r.Replay.Size > replaySizeMax:
		return errors.New("replay size must be 0 to 4096 events")
	case r.Replay.Size > 0 && r.Replay.TTL <= 0:
		return errors.New("replay needs a ttl above 0")
	case r.Throttle < 0 || r.Batch < 0:
		return errors.New("throttle and batch must not be negative")
	case r.Throttle > 0 && r.Batch > 0:
		return errors.New("throttle and batch exclude each other")
	case r.Throttle > 0 && r.Kind == broker.Log:
		return errors.New("throttle is not for logs: every entry of a log arrives")
	case !events && r.Batch > 0:
		return errors.New("batch is for events only")
	case !events && (r.Conflate || r.ConflateBy != ""):
		return errors.New("conflate is for events only: a state always keeps the newest, a log loses nothing")
	case r.ConflateBy != "" && !r.Conflate:
		return errors.New("conflate_by needs conflate")
	case r.Ends != nil && r.Kind != broker.Log:
		return errors.New("ends is for logs only")
	case !events && r.IDField != "":
		return errors.New("id_field is for events only")
	}
	return nil
}

// replaySizeMax bounds what one channel may ask to have kept.
const replaySizeMax = 4096

// budget is how much may wait for a stream.
func (o *Options) budget() netio.Budget {
	return netio.Budget{Bytes: o.MaxQueueBytes, Age: netio.Tick(o.MaxQueueAge / netio.TickLength)}
}
