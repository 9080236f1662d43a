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
// on the broker's own goroutines, one per node and connection, and must not block: an event
// callback that waits holds up every channel of that node.
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
)

// Subscription names one thing to listen to. Channel is the user's name of the channel, without
// the configured prefix, which the broker adds and takes away.
type Subscription struct {
	Channel string
	Kind    Kind
}

// Message is one event to publish. Payload is only read.
type Message struct {
	Channel string
	Payload []byte
	Kind    Kind // Plain or Sharded
}

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
}

// ErrUnavailable is what Publish returns, wrapped, when the broker could not be reached or did
// not answer in time. Nothing, or in a Cluster with sharded channels a part, was published.
var ErrUnavailable = errors.New("broker unavailable")

// Broker is the source of events. All methods are safe for use by many goroutines.
type Broker interface {
	// Start connects and begins to call back. It does not wait for the connection: a Redis that
	// is away at start is tried until it comes.
	Start(Callbacks) error
	// Subscribe asks for sub. It never blocks. Asking for what is already asked is harmless and
	// confirms again if it is confirmed.
	Subscribe(sub Subscription)
	// Unsubscribe says that nobody wants sub any more. It never blocks. The broker keeps the
	// subscription for a linger time in case somebody comes back; events may still arrive then.
	Unsubscribe(sub Subscription)
	// Publish publishes messages in order, all of them or (where Redis allows it: everywhere but
	// for Sharded messages of different slots) none. A nil error means that the broker has them.
	Publish(ctx context.Context, messages []Message) error
	Health() Health
	Stats() Stats
	// Close ends all connections and goroutines and waits for them. No callback runs after it.
	Close() error
}
