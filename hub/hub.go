package hub

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// Source is where the hub says what it wants to hear: the broker. Neither call may block; both
// come under a lock of the directory, so they must not call back.
type Source struct {
	Subscribe   func(broker.Subscription)
	Unsubscribe func(broker.Subscription)
}

// Events is how the hub calls its owner. Both run on the loop of the shard.
type Events struct {
	// Subscribed says that a subscription that was [Asked] is now confirmed.
	Subscribed func(shard *Shard, slot netio.Slot, channel proto.Channel)
	// Mail hands over mail of the loop that is not the hub's own.
	Mail func(shard *Shard, item any)
}

// Options says how a hub behaves. All fields are required.
type Options struct {
	Loops            int    // 1..63
	Epoch            string // of this gateway's life; [A-Za-z0-9]
	Source           Source
	Events           Events
	KindOf           func(channelType string) broker.Kind
	MaxQueueBytes    int // unsent bytes of a stream; 0: no limit
	MaxEventBytes    int // of a published payload; 0: no limit
	MaxSubscriptions int // of a stream; 0: no limit
}

// DropReason says why a published event was not handed to anybody.
type DropReason uint8

// The reasons for a drop.
const (
	DropBadChannel DropReason = iota
	DropTooLarge
	DropEmpty
	DropNotUTF8
	DropNotJSON
	DropNobody // nobody here listens (any more)
	DropReasonCount
)

// String is the reason as metrics and logs spell it.
func (r DropReason) String() string {
	return [...]string{"bad_channel", "too_large", "empty", "not_utf8", "not_json", "nobody"}[r]
}

// Hub spreads events over shards. Its methods may be called from any goroutine.
type Hub struct {
	options   Options
	shards    []*Shard
	directory *directory
	echoes    echoes
	listeners *listeners

	// publish makes the number of an event and its hand-over one step, so that the numbers are
	// the order in which every loop sees them.
	publish sync.Mutex
	order   uint64
	delay   *hdrhistogram.Histogram // microseconds from the publisher's timestamp to here

	events  atomic.Uint64
	dropped [DropReasonCount]atomic.Uint64
}

// New makes a hub with one shard per loop; each must be given its loop ([Shard.Attach]) before
// anything happens on it.
func New(options Options) (*Hub, error) {
	if options.Loops < 1 || options.Loops >= loopsMax {
		return nil, fmt.Errorf("hub: %d loops; it takes 1 to %d", options.Loops, loopsMax-1)
	}
	h := &Hub{
		options: options, directory: newDirectory(options.Source, options.KindOf),
		delay: hdrhistogram.New(1, time.Minute.Microseconds(), 2),
	}
	for index := range options.Loops {
		h.shards = append(h.shards, newShard(h, index))
	}
	h.listeners = newListeners(h, options.Loops)
	return h, nil
}

// Shard gives the shard of the loop with that index.
func (h *Hub) Shard(index int) *Shard { return h.shards[index] }

// Close ends the goroutine that calls listeners back. The loops are the caller's.
func (h *Hub) Close() { h.listeners.close() }

// publication is one event on its way to the loops.
type publication struct {
	event *proto.Event
	order uint64
	born  int64 // [netio.Clock] time at which the broker had it
}

// interestChange tells a loop what the broker says of channels.
type interestChange struct {
	channels  []string // at most changeChannelsMax
	confirmed bool
	lost      bool
}

// changeChannelsMax bounds the channels of one change, so that a loop that has a million of them
// to confirm again does it in pieces.
const changeChannelsMax = 256

// Event hands over what the broker received on a channel. payload must not change any more. An
// event that is not valid is dropped and counted; the returned error says why, for a log line of
// the caller's. An event on a channel that nobody here wants is no error, and gets no id.
func (h *Hub) Event(channelName string, payload []byte, received time.Time) (id string, err error) {
	if h.echoes.drop(channelName, payload) {
		return "", nil
	}
	channel, err := proto.ParseChannel(channelName)
	if err != nil {
		return "", h.drop(DropBadChannel, err)
	}
	loops := h.wanting(channel)
	if loops == 0 {
		h.dropped[DropNobody].Add(1)
		return "", nil
	}
	if limit := h.options.MaxEventBytes; limit > 0 && len(payload) > limit {
		return "", h.drop(DropTooLarge, fmt.Errorf("event on %s: %d bytes are more than max-event-bytes (%d)", channelName, len(payload), limit))
	}
	h.publish.Lock()
	defer h.publish.Unlock()
	var room [128]byte // most ids fit, so that the string is the one allocation
	id = string(proto.AppendEventID(room[:0], channelName, h.options.Epoch, h.order+1))
	event, err := proto.NewEvent(channel, id, payload)
	if err != nil {
		return "", h.drop(dropReasonOf(err), fmt.Errorf("event on %s: %w", channelName, err))
	}
	h.order++
	h.events.Add(1)
	if published, ok := event.Timestamp(); ok {
		// Clocks differ and timestamps lie: what is outside a minute is left out.
		_ = h.delay.RecordValue(max(received.Sub(published).Microseconds(), 1))
	}
	post := &publication{event: event, order: h.order, born: netio.ClockAt(received)}
	for ; loops != 0; loops &= loops - 1 {
		h.post(bits.TrailingZeros64(loops), post)
	}
	return id, nil
}

func (h *Hub) wanting(channel proto.Channel) uint64 {
	loops := h.directory.wanting(channel.Name())
	if h.directory.wildcards.Load() > 0 {
		loops |= h.directory.wanting(channel.Type() + wildcardSuffix)
	}
	return loops
}

func (h *Hub) drop(reason DropReason, err error) error {
	h.dropped[reason].Add(1)
	return err
}

func dropReasonOf(err error) DropReason {
	switch {
	case errors.Is(err, proto.ErrEmpty):
		return DropEmpty
	case errors.Is(err, proto.ErrNotUTF8):
		return DropNotUTF8
	default:
		return DropNotJSON
	}
}

// post tells one loop. A loop that cannot be told will tell its streams of a gap.
func (h *Hub) post(loop int, item any) {
	if loop == len(h.shards) {
		h.listeners.post(item)
		return
	}
	shard := h.shards[loop]
	if shard.loop.Post(item) != nil {
		shard.behind.Store(true)
	}
}

// Confirmed says that from now on no event on these subscriptions is missed; lost, that some may
// have been before.
func (h *Hub) Confirmed(subscriptions []broker.Subscription, lost bool) {
	if lost {
		h.echoes.forget()
	}
	h.changeInterest(subscriptions, interestChange{confirmed: true, lost: lost})
}

// Lost says that events on these subscriptions may be missing until they are confirmed again.
func (h *Hub) Lost(subscriptions []broker.Subscription) {
	h.changeInterest(subscriptions, interestChange{})
}

// changeInterest tells every loop of the changes to channels that it wants. They are never
// refused: the number of channels bounds them.
func (h *Hub) changeInterest(subscriptions []broker.Subscription, change interestChange) {
	var batches [loopsMax][]string
	tell := func(loop int) {
		own := change
		own.channels, batches[loop] = batches[loop], nil
		if loop == len(h.shards) {
			h.listeners.post(&own)
			return
		}
		_ = h.shards[loop].loop.PostAlways(&own) // a closed loop has nobody to tell
	}
	for _, s := range subscriptions {
		for loops := h.directory.setConfirmed(s.Channel, change.confirmed); loops != 0; loops &= loops - 1 {
			loop := bits.TrailingZeros64(loops)
			if batches[loop] = append(batches[loop], s.Channel); len(batches[loop]) == changeChannelsMax {
				tell(loop)
			}
		}
	}
	for loop := range batches {
		if len(batches[loop]) > 0 {
			tell(loop)
		}
	}
}

// EventLocalFirst hands payload to the streams of this process at once and drops the copy that
// will come back through the broker, once.
func (h *Hub) EventLocalFirst(channelName string, payload []byte) error {
	if _, err := h.Event(channelName, payload, time.Now()); err != nil {
		return err
	}
	h.echoes.expect(channelName, payload)
	return nil
}

// Stats is what the hub counts, all shards aside.
type Stats struct {
	Events   uint64 // handed over
	Dropped  [DropReasonCount]uint64
	Channels int // that somebody here wants
	// PublisherDelay holds microseconds from the timestamp that an event's payload carries to its
	// arrival here, one entry an event that has one.
	PublisherDelay *hdrhistogram.Histogram
}

// Stats gives a copy of the counters.
func (h *Hub) Stats() Stats {
	s := Stats{Events: h.events.Load(), Channels: h.directory.count()}
	for reason := range s.Dropped {
		s.Dropped[reason] = h.dropped[reason].Load()
	}
	h.publish.Lock()
	defer h.publish.Unlock()
	s.PublisherDelay = hdrhistogram.Import(h.delay.Export())
	return s
}

const wildcardSuffix = ":*"

func isWildcard(channel string) bool { return strings.HasSuffix(channel, wildcardSuffix) }

func typeOf(channel string) string {
	typ, _, _ := strings.Cut(channel, ":")
	return typ
}
