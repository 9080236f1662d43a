// Package broker is where events come from and where they are published: Redis, or, with no
// Redis configured, the memory of this process. Both are held to one contract by the suite in
// broker/brokertest.
//
// # Story
//
// The hub tells the broker which channels somebody here listens to ([Broker.Subscribe]); the
// broker confirms each one ([Callbacks.Confirmed]) and from then on hands over every event
// published on it ([Callbacks.Event]), in the order of the node it came from. When delivery
// becomes doubtful (a connection died, a node fell silent, a slot moved) it says so
// ([Callbacks.Lost]), mends what it can, and confirms again with lost set, upon which the hub
// tells every affected client of a gap. A loss that can be known is never silent; a false alarm
// is allowed.
//
// # Who owns what
//
// Payloads and channel names handed to a callback are immutable and may be kept. Callbacks run
// on the broker's own goroutines and must not block: an event callback that waits holds up every
// channel of its node. Confirmed, Lost, Refused and Health are never called at the same time as
// each other; Event is called by one goroutine per node, Value and Log by another one per node,
// each in order with what the other callbacks say of that node's subscriptions of their kinds. No
// lock that a method of Broker needs is held meanwhile, so a callback may call every method but
// Close.
//
// # How Redis is used
//
// Per node there are one command connection, which publishes, one connection that only
// subscribes, whose reader calls back with no queue in between, and one that reads keys:
//
//	director --- finds the nodes: a URL, the Sentinels' vote, CLUSTER SLOTS
//	   |
//	 node ------ connects, with backoff, and serves one session after the other
//	   |
//	session ---- reader: events and confirmations     prober: canaries out, ROLE
//	             subscriber: batches of SUBSCRIBE     watchdog: canaries back
//	             publisher: batches of PUBLISH        tracker: keys and their changes
//
// What is wanted is a table, not a queue: a channel that flaps changes two bits. A session that
// fails in any way is thrown away whole, its subscriptions are reported Lost, and the next one
// subscribes anew, so there is one way to recover and it is used for every fault.
//
// # Two brokers, one after the other
//
// Where one process goes on in the place of another, both subscribe to the same, and a mark that is
// published on every node divides the events between them ([Cut]).
//
// # States and logs
//
// A [State] and a [Log] are keys, and no message announces them. The tracker reads a key once and
// has Redis remember that (CLIENT TRACKING OPTIN); Redis then says when what was read is no longer
// so, on the same connection, and the key is read again. A record per key is kept over sessions:
//
//	idle ---invalidated---> queued ---> reading ---> idle, or queued if it was invalidated meanwhile
//
// A lost connection is nothing but a lost memory of Redis: all keys are read again, in batches
// with pauses, what [Broker.Prefer] named first. So keys are never Lost; what a log can't give
// back is told as a hole in its next update. Of a state the hash of its value is kept, and an
// unchanged one is not told. Of a log the cursor is kept, and how many entries Redis ever added up
// to there:
//
//   - A read begins at the cursor's own entry. While it is there, nothing behind it was trimmed.
//   - Otherwise XINFO and the entries are read in one moment, and the counts decide.
//   - After another run of the server, or another history of its replication, there may be a
//     hole, whatever the log looks like: a failover forgets acknowledged writes without a trace.
//   - A slow sweep looks at every key within a minute, as if it had changed. What only it finds is
//     counted ([Stats].SweepFound); an entry that XDEL removed before it was read is the one find
//     that is nobody's fault.
//
// The horizon says up to which moment all logs were read. Per node a canary entry is written each
// second, and read like a key. Changes are told in their order: when all that was told before the
// canary was read has been handed over, so has every entry that is older than the canary. In a
// Cluster that holds only while no slot moves, so a horizon counts once the slots were looked at
// after it. It relies on positions that Redis gives (XADD *), and on a clock that does not go back.
//
// A log may be given an end of its life with a message ([Message].Keep): EXPIRE in the step of the XADD.
// Its readers see it go as they would any key.
//
// Bounds: 48 bytes a key beside its entry in the table; 128 keys or about 4 MiB a batch; 128
// entries or about 1 MiB a read of a log; RedisOptions.MaxValueBytes a state; one read per key in
// 10 ms (state) or 4 ms (log).
package broker

import (
	"context"
	"errors"
	"time"
)

// Kind says which of Redis's subscriptions carries a channel.
type Kind uint8

const (
	// Plain is SUBSCRIBE, fed by PUBLISH. In a Cluster it reaches every node.
	Plain Kind = iota
	// Sharded is SSUBSCRIBE, fed by SPUBLISH on the node that owns the channel's slot.
	// It never hears PUBLISH.
	Sharded
	// Pattern is PSUBSCRIBE; Channel then ends in ":*".
	Pattern
	// State is a key that holds a value: a string (SET) or a hash (HSET). What is handed over is
	// the value, read again whenever Redis says that it changed (see [Callbacks.Value]).
	State
	// Log is a stream (XADD). What is handed over is its entries, from a cursor that follows the
	// stream's end (see [Callbacks.Log]).
	Log
	kindCount
)

// keyed reports whether what is subscribed is a key that is read, not something published.
func (k Kind) keyed() bool { return k == State || k == Log }

// bySlot reports whether in a Cluster it belongs to the node that owns the slot of its name.
func (k Kind) bySlot() bool { return k == Sharded || k.keyed() }

// Subscription names one thing to listen to. Channel is the user's name of the channel, without
// the configured prefix, which the broker adds and takes away.
type Subscription struct {
	Channel string
	Kind    Kind
}

// Message is one event to publish.
type Message struct {
	Channel string
	// Payload is only read, but without a copy: after a Publish that failed it may still be in
	// use and must not be changed or reused.
	Payload []byte
	// Kind says how: PUBLISH (Plain), SPUBLISH (Sharded), SET (State) or XADD (Log, the payload
	// in the field data). A Pattern can't be published to.
	Kind Kind
	// MaxLen bounds a Log: about so many of its newest entries are kept (MAXLEN ~). 0: no bound.
	MaxLen int
	// Keep, for a Log, has its key gone so long after this message (EXPIRE, in the same step), unless
	// a later one says otherwise. Rounded up to whole seconds; 0: the key stays as it is.
	Keep time.Duration
}

// keepSeconds is Keep as EXPIRE takes it.
func (m *Message) keepSeconds() int64 { return int64((m.Keep + time.Second - 1) / time.Second) }

// Health is what the broker knows of its own delivery.
type Health struct {
	// Delivering is true while every node has proved within the last two seconds or so that
	// what is published on it arrives here (the canary). A memory broker always delivers.
	Delivering bool
	// Reached is true once delivery was proved for the first time.
	Reached bool
	// Reason says in one line why Delivering is false; it never holds a password.
	Reason string
	// Since is when Delivering last changed.
	Since time.Time
	// Nodes counts the nodes that should deliver, NodesDelivering those that do.
	Nodes, NodesDelivering int
}

// Stats counts what the broker did since its start.
type Stats struct {
	Events        uint64 // handed over
	Published     uint64 // accepted by Redis, or by memory
	PublishErrors uint64
	Reconnects    uint64 // connections that had to be made again
	Losses        uint64 // subscriptions that were reported Lost
	Subscribed    int    // subscriptions now confirmed
	Pending       int    // asked for, not confirmed now

	// Of State and Log.
	Reads         uint64 // of keys, because they were subscribed, changed, or had to be checked
	Invalidations uint64 // keys that Redis said have changed
	SweepFound    uint64 // changes that only the slow sweep found: Redis did not tell, or we did not hear
	Holes         uint64 // updates of a Log that may have lost something before
	WrongTypes    uint64 // reads that found a key of another type
	TooLarge      uint64 // reads of a State that found more than MaxValueBytes
	Tracked       int    // keys of which Redis now tells the changes
	Horizon       uint64 // as in [LogUpdate]
	// HorizonAge is how long ago the horizon last rose; 0 while it is not known, and of memory.
	HorizonAge time.Duration
	// CanaryDelay is what the way through a node and back takes, by its last canary, or by the one
	// that is out if that has been longer; of the slowest node. 0 of memory.
	CanaryDelay time.Duration
}

// Callbacks is how the broker calls its user. All must be set; none may block.
type Callbacks struct {
	// Event hands over one event of a confirmed subscription. An event that matches both a
	// Plain and a Pattern subscription is handed over once. received is when its bytes were
	// read from the socket (or published, in memory).
	Event func(channel string, payload []byte, received time.Time)
	// Confirmed says that from here on no event on subs is missed. lost is true when they had
	// been reported Lost, or may have missed something, since they were last confirmed.
	Confirmed func(subs []Subscription, lost bool)
	// Lost says that events on subs may be missing from here until they are confirmed again.
	Lost func(subs []Subscription)
	// Refused says that Redis will not let us subscribe (NOPERM, for instance). The broker goes
	// on trying at a slow pace and confirms if it is ever allowed to.
	Refused func(sub Subscription, err error)
	// Health is called whenever Delivering or Reason changes.
	Health func(Health)
	// Value hands over what a State key holds: once before the subscription is Confirmed, and
	// after every change. Changes in quick succession may come as one; the newest always comes,
	// also when the connection was lost in between, so State is never Confirmed with lost set.
	// payload is nil where there is no such key: deleted, expired, evicted, or of a type that is
	// neither string nor hash (or what it holds is larger than RedisOptions.MaxValueBytes). A hash
	// comes as a JSON object of strings with sorted names. Nothing here is known to be JSON.
	Value func(channel string, payload []byte, received time.Time)
	// Log hands over what was appended to a stream. The first update of a subscription comes
	// before it is Confirmed, holds no entries and says where the log stands. A loss that the
	// broker can't mend is told by an update with Hole set, so Log is never Confirmed with lost
	// set either.
	Log func(update LogUpdate, received time.Time)
}

// ErrUnavailable is what Publish returns, wrapped, when the broker could not be reached or did
// not answer in time. Nothing was published as far as is known: an answer that was lost on its
// way, and in a Cluster a part of several sharded channels, can't be excluded.
var ErrUnavailable = errors.New("broker unavailable")

// ErrRefused is what Publish and [Callbacks.Refused] give, wrapped with Redis's own words and
// what to do, when Redis answered and does not allow it (NOPERM, OOM).
var ErrRefused = errors.New("refused by Redis")

// ErrClosed is what the methods of a closed broker return.
var ErrClosed = errors.New("broker closed")

// Broker is the source of events. All methods are safe for use by many goroutines.
type Broker interface {
	// Start connects and begins to call back. It does not wait for the connection: a Redis that
	// is away at start is tried until it comes.
	Start(Callbacks) error
	// Subscribe asks for sub. It never blocks. Asking for what is already asked is harmless and
	// confirms again if it is confirmed. A channel without a name, or with one of more than 255
	// bytes, is passed over.
	Subscribe(sub Subscription)
	// Unsubscribe says that nobody wants sub any more. It never blocks. The broker keeps the
	// subscription for a linger time, or up to twice that where somebody came back and left again,
	// in case somebody comes back; events may still arrive then. After that time it is forgotten: a
	// later Subscribe begins anew, and its first confirmation says nothing of what came in between.
	Unsubscribe(sub Subscription)
	// Publish publishes messages in order, all of them or none, where Redis allows it: not for
	// Sharded, State and Log messages of different slots of a Cluster, and not where a key turns
	// out to be of another type. A nil error means that the broker has them. Positions are where
	// the messages stand, one each, zero for all but Log; nil where there is no Log among them.
	// Without a deadline in ctx it gives up after two seconds.
	Publish(ctx context.Context, messages []Message) ([]Position, error)
	// ReadLog reads at most count (1 to [ReadLogMax]) entries of a log that come after a
	// position, which need not be that of an entry. Who wants a log from its beginning gives the
	// zero position, and may pass over a Hole, which then says that something was trimmed. It
	// goes another way than the updates, so that the past never holds up the present; it waits
	// for Redis, for two seconds where ctx has no deadline. Errors are as for Publish.
	ReadLog(ctx context.Context, channel string, after Position, count int) (LogChunk, error)
	// Prefer names the subscriptions that matter most, at most [PreferMax]: after a loss they are
	// asked for and read before the others. It takes the place of what was named before; what is
	// not subscribed is passed over. It never blocks.
	Prefer(subs []Subscription)
	// Health returns what was last told to [Callbacks.Health].
	Health() Health
	// Stats returns the counts of this moment.
	Stats() Stats
	// Close ends all connections and goroutines and waits for them. No callback runs after it.
	Close() error
}
