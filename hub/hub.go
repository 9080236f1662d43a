package hub

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/names"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// Source is where the hub says what it wants to hear, and reads the past of logs: the broker. None
// may call the hub back before it returns.
type Source struct {
	// Subscribe and Unsubscribe come under a lock of the directory and must not block. What is
	// subscribed again after an Unsubscribe begins anew: with [Hub.Value] or the first [Hub.Log],
	// and [Hub.Confirmed] after it, even if the broker had it still. Subscribe is told where
	// [Options.Names] keeps the channel's name; the hub holds it there until it has called
	// Unsubscribe.
	Subscribe   func(sub broker.Subscription, name names.Place)
	Unsubscribe func(broker.Subscription)
	// ReadLog reads at most count entries of a log behind a position. It may block until ctx ends:
	// the hub calls it on at most readersMax goroutines of its own. May be nil where no rules name
	// a Log.
	ReadLog func(ctx context.Context, channel string, after broker.Position, count int) (broker.LogChunk, error)
	// Prefer is told, after a loss, which of the lost channels many streams of one loop hear, at
	// most preferMax of each loop, those with the most first. It must not block. May be nil.
	Prefer func([]broker.Subscription)
}

// Events is how the hub calls its owner. All run on the loop of the shard.
type Events struct {
	// Subscribed says that a subscription that was [Asked] is now confirmed. The owner calls
	// [Shard.Begin] once it has told the client.
	Subscribed func(shard *Shard, slot netio.Slot, channel proto.Channel)
	// User names whom the stream belongs to, "" for nobody in particular. It is asked when a
	// stream has to catch up on a log: at most readsPerUserMax reads for one user go on at a time.
	// May be nil: nobody.
	User func(shard *Shard, slot netio.Slot) string
	// Ended says that the stream was sent the last entry of a log ([Rules].Ends): it is to be ended, in
	// order. May be nil where no rules have an Ends.
	Ended func(shard *Shard, slot netio.Slot)
	// Mail hands over mail of the loop that is not the hub's own.
	Mail func(shard *Shard, item any)
}

// Options says how a hub behaves. All fields are required but for Names.
type Options struct {
	Loops  int    // 1..62
	Epoch  string // of this gateway's life; [A-Za-z0-9]
	Source Source
	Names  *names.Store // keeps the channels' names; nil: a store of the hub's own
	Events Events
	// RulesOf gives the rules of a channel type, always the same ones. It must be quick, and safe
	// for many goroutines: it is called for every event.
	RulesOf          func(channelType string) *Rules
	MaxQueueBytes    int           // unsent bytes of a stream; 0: no limit
	MaxQueueAge      time.Duration // of what a stream has unsent, in steps of [netio.TickLength]; 0: no limit
	MaxEventBytes    int           // of a published payload; 0: no limit
	MaxSubscriptions int           // of a stream; 0: no limit
	MaxReplayBytes   int           // of all events kept for replay, what Go needs for them included; 0: no limit
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
	DropNobody    // nobody here listens (any more)
	DropWrongMode // an event was published on a channel whose rules say State or Log
	DropReasonCount
)

// String is the reason as metrics and logs spell it.
func (r DropReason) String() string {
	return [...]string{"bad_channel", "too_large", "empty", "not_utf8", "not_json", "nobody", "wrong_mode"}[r]
}

// Hub spreads events over shards. Its methods may be called from any goroutine.
type Hub struct {
	options   Options
	shards    []*Shard
	directory *directory
	echoes    echoes
	listeners *listeners
	rings     *rings
	schedule  *schedule
	pacer     *pacer
	reader    *reader

	// publish makes the number of an event and its hand-over one step, so that the numbers are
	// the order in which every loop sees them. Locks are taken in the order publish, a stripe of
	// the directory, then rings or schedule.
	publish sync.Mutex
	order   uint64
	texts   atomic.Uint64           // events that may be compressed, so far: their numbers
	told    atomic.Uint64           // the last number whose hand-over is complete; written under publish
	delay   *hdrhistogram.Histogram // microseconds from the publisher's timestamp to here

	events  atomic.Uint64
	dropped [DropReasonCount]atomic.Uint64
}

// New makes a hub with one shard per loop; each must be given its loop ([Shard.Attach]) before
// anything happens on it.
func New(options Options) (*Hub, error) {
	if options.Loops < 1 || options.Loops > loopsMax {
		return nil, fmt.Errorf("hub: %d loops; it takes 1 to %d", options.Loops, loopsMax)
	}
	if options.Names == nil {
		options.Names = &names.Store{}
	}
	h := &Hub{options: options, delay: hdrhistogram.New(1, time.Minute.Microseconds(), 2)}
	h.schedule = newSchedule()
	h.rings = newRings(h)
	h.directory = newDirectory(options.Names, options.Source, options.RulesOf, h.rings.hold)
	h.pacer = newPacer(h)
	h.reader = newReader(h)
	for index := range options.Loops {
		h.shards = append(h.shards, newShard(h, index))
	}
	h.listeners = newListeners(h, options.Loops)
	return h, nil
}

// Shard gives the shard of the loop with that index.
func (h *Hub) Shard(index int) *Shard { return h.shards[index] }

// Close ends the goroutines of the hub and waits for reads under way, but not for a listener that
// is being called. The loops are the caller's.
func (h *Hub) Close() {
	h.listeners.close()
	h.schedule.close()
	h.reader.close()
}

// publication is one event, or one value of a state, on its way to the loops.
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
// the caller's. An event on a channel that nobody here wants is no error, and gets no id; nor does
// one that its rules hold back.
func (h *Hub) Event(channelName string, payload []byte, received time.Time) (id string, err error) {
	if h.echoes.drop(channelName, payload) {
		return "", nil
	}
	return h.take(channelName, payload, received)
}

// take is Event for what is nobody's echo.
func (h *Hub) take(channelName string, payload []byte, received time.Time) (id string, err error) {
	channel, err := proto.ParseChannel(channelName)
	if err != nil {
		return "", h.drop(DropBadChannel, err)
	}
	rules := h.options.RulesOf(channel.Type())
	if rules.Kind == broker.State || rules.Kind == broker.Log {
		return "", h.drop(DropWrongMode, fmt.Errorf("event on %s: it was sent by PUBLISH, but this type is a state or a log: use SET, HSET or XADD", channelName))
	}
	if h.wanting(channel) == 0 {
		h.dropped[DropNobody].Add(1)
		return "", nil
	}
	if err := h.checkSize(channel, payload); err != nil {
		return "", err
	}
	if rules.Throttle > 0 || rules.Batch > 0 {
		return "", h.pacer.take(channel, rules, payload, received)
	}
	return h.handOver(channel, rules, payload, received, proto.NewEvent)
}

func (h *Hub) checkSize(channel proto.Channel, payload []byte) error {
	limit := h.options.MaxEventBytes
	if own := h.options.RulesOf(channel.Type()).MaxBytes; own > 0 {
		limit = own
	}
	if limit > 0 && len(payload) > limit {
		return h.drop(DropTooLarge, fmt.Errorf("event on %s: %d bytes are more than max-event-bytes (%d)", channel.Name(), len(payload), limit))
	}
	return nil
}

// handOver gives an event its number, keeps it for replays and tells the loops. make is
// proto.NewEvent, or proto.NewNotice for words of the hub's own.
func (h *Hub) handOver(channel proto.Channel, rules *Rules, payload []byte, received time.Time, make func(proto.Channel, string, []byte) (*proto.Event, error)) (id string, err error) {
	h.publish.Lock()
	defer h.publish.Unlock()
	id = h.nextID(channel, rules, payload)
	event, err := make(channel, id, payload)
	if err != nil {
		return "", h.drop(dropReasonOf(err), fmt.Errorf("event on %s: %w", channel.Name(), err))
	}
	h.allowCompression(event, rules)
	h.order++
	h.events.Add(1)
	if published, ok := event.Timestamp(); ok {
		// Clocks differ and timestamps lie: what is outside a minute is left out.
		if delay := received.Sub(published); delay.Abs() < time.Minute {
			_ = h.delay.RecordValue(max(delay.Microseconds(), 1)) // its only error is a value out of range
		}
	}
	post := &publication{event: event, order: h.order, born: netio.ClockAt(received)}
	if rules.Replay.Size > 0 {
		h.rings.keep(rules.Replay, post)
	}
	// After it was kept: a loop that comes to want the channel either finds the event kept or is
	// told of it.
	h.tell(h.wanting(channel), post)
	h.told.Store(h.order)
	return id, nil
}

// nextID is the id of the event that comes next. An id_field whose value makes no good id gives
// way to the ordinary id.
func (h *Hub) nextID(channel proto.Channel, rules *Rules, payload []byte) string {
	if rules.IDField != "" {
		if value, ok := proto.Member(payload, rules.IDField); ok {
			id := string(proto.AppendValueID(nil, channel.Name(), value))
			if _, err := proto.ParseID(id); err == nil {
				return id
			}
		}
	}
	var room [128]byte // most ids fit, so that the string is the one allocation
	return string(proto.AppendEventID(room[:0], channel.Name(), h.options.Epoch, h.order+1))
}

// tell posts item to every loop of loops.
func (h *Hub) tell(loops uint64, item any) {
	for loops &^= ringBit; loops != 0; loops &= loops - 1 {
		h.post(bits.TrailingZeros64(loops), item)
	}
}

// tellAlways is tell for what no loop may miss, and is bounded otherwise.
func (h *Hub) tellAlways(loops uint64, item any) {
	for loops &^= ringBit; loops != 0; loops &= loops - 1 {
		if loop := bits.TrailingZeros64(loops); loop == len(h.shards) {
			h.listeners.post(item)
		} else {
			_ = h.shards[loop].loop.PostAlways(item)
		}
	}
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

// post tells one loop. A loop that cannot be told will mend it: see [Shard.mendUntold].
func (h *Hub) post(loop int, item any) {
	if loop == len(h.shards) {
		h.listeners.post(item)
		return
	}
	shard := h.shards[loop]
	if shard.loop.Post(item) != nil {
		shard.untold.Store(true)
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
	for _, shard := range h.shards {
		_ = shard.loop.PostAlways(lossTold{})
	}
}

// changeInterest tells every loop of the changes to channels that it wants. They are never
// refused: the number of channels bounds them.
func (h *Hub) changeInterest(subscriptions []broker.Subscription, change interestChange) {
	h.publish.Lock()
	next := h.order + 1
	h.publish.Unlock()
	var batches [64][]string
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
		for loops := h.directory.setConfirmed(s.Channel, change, next) &^ ringBit; loops != 0; loops &= loops - 1 {
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
// will come back through the broker, once. None comes of a channel that the broker has not confirmed;
// to wait for one would cost the next event with the same text.
func (h *Hub) EventLocalFirst(channelName string, payload []byte) error {
	if _, err := h.take(channelName, payload, time.Now()); err != nil {
		return err
	}
	if h.isHeard(channelName) {
		h.echoes.expect(channelName, payload)
	}
	return nil
}

// isHeard reports whether the broker hands over what is published on a channel, by its name or by a
// wildcard.
func (h *Hub) isHeard(channel string) bool {
	return h.IsConfirmed(channel) ||
		h.directory.wildcards.Load() > 0 && h.IsConfirmed(typeOf(channel)+wildcardSuffix)
}

// Wanted reports whether a stream, or a listener, of this process hears channel or waits for it.
func (h *Hub) Wanted(channel proto.Channel) bool {
	return h.directory.wanting(channel.Name())&^ringBit != 0
}

// Stats is what the hub counts, all shards aside.
type Stats struct {
	Events   uint64 // handed over
	Dropped  [DropReasonCount]uint64
	Channels int // that somebody here wants, or that a replay holds
	// Replay is what is kept for clients that come back: events, and bytes by the measure of
	// Options.MaxReplayBytes.
	ReplayEvents, ReplayBytes int
	// Throttled counts events and values that a newer one replaced before they were handed over.
	Throttled uint64
	// LogReads counts reads of the past of logs, LogReadErrors those that failed.
	LogReads, LogReadErrors uint64
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
	s.ReplayEvents, s.ReplayBytes = h.rings.size()
	s.Throttled = h.pacer.throttled.Load()
	s.LogReads, s.LogReadErrors = h.reader.reads.Load(), h.reader.failures.Load()
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
