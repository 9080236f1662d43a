package access

import (
	"cmp"
	"slices"
	"time"
)

// Mode says how events of a namespace travel.
type Mode string

// The modes.
const (
	// Events is pub/sub: fleeting, in Redis's order, with a short replay from memory.
	Events Mode = "events"
	// Log is a Redis stream: nothing that Redis still holds is lost.
	Log Mode = "log"
	// State is a Redis key: who subscribes has its value at once, and the newest value always
	// arrives.
	State Mode = "state"
)

// Defaults and bounds of what shapes a namespace's delivery.
const (
	// ReplaySizeDefault and ReplaySizeMax are numbers of events of one channel.
	ReplaySizeDefault = 32
	ReplaySizeMax     = 4096
	// ReplayTTLDefault and ReplayTTLMax are ages of an event.
	ReplayTTLDefault = 30 * time.Second
	ReplayTTLMax     = time.Hour
	// MaxLenDefault and MaxLenMax are numbers of entries of one log.
	MaxLenDefault = 10_000
	MaxLenMax     = 1_000_000_000
	// PaceMin and PaceMax bound the intervals of throttle and batch.
	PaceMin = time.Millisecond
	PaceMax = time.Minute
	// CompressOverDefault and CompressOverMax are bytes of a payload.
	CompressOverDefault = 1024
	CompressOverMax     = 64 << 20
	// fieldBytesMax bounds the name of a member of payloads.
	fieldBytesMax = 128
)

// Replay bounds what is kept of each channel of a namespace in mode events, for clients that come
// back. All namespaces together are bounded by the gateway's max-replay-bytes.
type Replay struct {
	// Size is the number of events. Nil: 32. 0 keeps nothing. At most 4096.
	Size *int `yaml:"size,omitempty" json:"size,omitempty"`
	// TTL is how long an event is kept, and how long a channel is listened to after its last
	// listener left. Zero: 30 s. At most 1 h.
	TTL time.Duration `yaml:"ttl,omitempty" json:"ttl,omitempty"`
}

// complain notes that something is wrong with a key of a namespace.
type complain func(key, format string, arguments ...any)

// validateMode says what is wrong with the mode and with what depends on it.
func (n *Namespace) validateMode(wrong complain) {
	modes := []Mode{Events, Log, State}
	mode := cmp.Or(n.Mode, Events)
	if !slices.Contains(modes, mode) {
		wrong("mode", "%q is not known; use one of %s", n.Mode, listOf(modes))
		return // what belongs to which mode cannot be said
	}
	if mode != Events {
		n.refuseEventsOnly(mode, wrong)
	}
	if mode != Log && n.MaxLen != nil {
		wrong("maxlen", "only with mode log, whose entries Redis keeps; take it out")
	}
	if mode == Log && n.Throttle != 0 {
		wrong("throttle", "not with mode log: every entry of a log arrives; take it out, or use mode state")
	}
}

// refuseEventsOnly complains of what only events can have.
func (n *Namespace) refuseEventsOnly(mode Mode, wrong complain) {
	const taken = "only with mode events; take it out"
	for _, one := range []struct {
		key string
		set bool
		why string
	}{
		{"replay", n.Replay != Replay{}, "only with mode events: a log is resumed from Redis, and a state needs none; take it out"},
		{"id_field", n.IDField != "", taken},
		{"batch", n.Batch != 0, taken},
		{"conflate", n.Conflate, "only with mode events: a lagging client always gets the newest value of a state, and every entry of a log; take it out"},
		{"conflate_by", n.ConflateBy != "", taken},
		{"wildcard", n.Wildcard, "not with mode " + string(mode) + ": Redis tells of changed keys by their whole names; turn it off"},
		{"sharded", n.Sharded, "not with mode " + string(mode) + ", whose workers publish nothing; turn it off"},
		{"local_first", n.LocalFirst, "not with mode " + string(mode) + ": what counts is what Redis holds; turn it off"},
	} {
		if one.set {
			wrong(one.key, "%s", one.why)
		}
	}
}

// validateBounds holds the numbers and names of delivery against their bounds.
func (n *Namespace) validateBounds(wrong complain) {
	if size := n.Replay.Size; size != nil && (*size < 0 || *size > ReplaySizeMax) {
		wrong("replay.size", "%d is not possible; use 0 (no replay) to %d events", *size, ReplaySizeMax)
	}
	if ttl := n.Replay.TTL; ttl < 0 || ttl > ReplayTTLMax {
		wrong("replay.ttl", "%v is not possible; use more than 0 and at most %v", ttl, ReplayTTLMax)
	}
	if n.MaxLen != nil && (*n.MaxLen < 0 || *n.MaxLen > MaxLenMax) {
		wrong("maxlen", "%d is not possible; use 0 (no bound) to %d entries", *n.MaxLen, MaxLenMax)
	}
	if over := n.CompressOver; over != nil && (*over < 0 || *over > CompressOverMax) {
		wrong("compress_over", "%d is not possible; use 0 (every payload) to %d bytes", *over, CompressOverMax)
	}
	for _, pace := range []struct {
		key      string
		interval time.Duration
	}{{"throttle", n.Throttle}, {"batch", n.Batch}} {
		if pace.interval != 0 && (pace.interval < PaceMin || pace.interval > PaceMax) {
			wrong(pace.key, "%v is not possible; use %v to %v, or 0 for none", pace.interval, PaceMin, PaceMax)
		}
	}
	if n.Throttle > 0 && n.Batch > 0 {
		wrong("batch", "not with throttle, which lets only the newest event of an interval through; take one of them out")
	}
	if n.ConflateBy != "" && !n.Conflate {
		wrong("conflate_by", "has no effect without conflate: true; add that or take it out")
	}
	for _, field := range []struct{ key, name string }{{"id_field", n.IDField}, {"conflate_by", n.ConflateBy}} {
		if len(field.name) > fieldBytesMax {
			wrong(field.key, "has %d bytes; the name of a member of the payload has at most %d", len(field.name), fieldBytesMax)
		}
	}
}

// completeMode fills in the defaults that depend on the mode.
func (n *Namespace) completeMode() {
	n.Mode = cmp.Or(n.Mode, Events)
	switch n.Mode {
	case Events:
		if n.Replay.Size == nil {
			n.Replay.Size = new(ReplaySizeDefault)
		} else {
			n.Replay.Size = new(*n.Replay.Size) // not shared with who configured it
		}
		n.Replay.TTL = cmp.Or(n.Replay.TTL, ReplayTTLDefault)
	case Log:
		if n.MaxLen == nil {
			n.MaxLen = new(MaxLenDefault)
		} else {
			n.MaxLen = new(*n.MaxLen)
		}
	case State:
	}
}
