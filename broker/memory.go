package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/names"
)

// MemoryOptions says how the memory broker behaves. The zero value is good.
type MemoryOptions struct {
	// Linger is how long a subscription outlives its last user. Default 5 s; negative: not.
	Linger time.Duration
	// QueueMessagesMax bounds the messages that are published and not handed over yet. A Publish
	// that finds no room waits. Default and at most 65,536; a single Publish of more messages
	// than that fails.
	QueueMessagesMax int
	// Logger takes a line if a callback panics. Nil: slog.Default().
	Logger *slog.Logger
}

// memoryQueueMessagesMax is the default of MemoryOptions.QueueMessagesMax: at a few hundred
// bytes a message some ten megabytes, and less than a second of work.
const memoryQueueMessagesMax = 1 << 16

// Memory is the [Broker] for a single process: nothing leaves it, and no event is ever lost.
// States and logs are kept, up to 64 MiB in all; beyond it the ones that were written the longest
// ago are gone, as from a Redis that evicts. One goroutine calls back, in the order of
// publication. Make it with [NewMemory].
type Memory struct {
	linger time.Duration
	room   int
	logger *slog.Logger

	callbacks Callbacks // set by Start

	events, published, publishErrors, horizon atomic.Uint64

	mutex    sync.Mutex // guards what follows; never held during a callback
	started  bool
	closed   bool
	since    time.Time
	wanted   map[Subscription]*memoryEntry
	patterns map[string]bool // prefixes of confirmed patterns
	lingers  []memoryLinger  // in the order of their ends
	store    memoryStore     // of states and logs
	clock    uint64          // in ms, never goes back
	jobs     []memoryJob     // to be done, oldest first
	queued   int             // messages in jobs
	confirms int             // entries that are confirmed
	tracked  int             // those of them that are states or logs
	pending  int             // entries that are wanted and not confirmed
	freed    chan struct{}   // closed and replaced when room was made

	wake chan struct{} // buffered by one
	quit chan struct{} // closed by Close
	done chan struct{} // closed when the goroutine has returned
}

// memoryEntry is one subscription.
type memoryEntry struct {
	wanted    bool
	confirmed bool
	asked     bool // a confirmation stands in jobs
	lingers   bool // stands in lingers
	fresh     bool // of a state or log: what it holds, or where it stands, is to be told first
	ends      time.Time
	told      []byte   // of a state: the value that was handed over last
	cursor    Position // of a log: up to where it was handed over
}

type memoryLinger struct {
	sub Subscription
	at  time.Time
}

// memoryJob is either messages to hand over, a subscription to confirm, or states to look at
// again.
type memoryJob struct {
	messages  []Message
	positions []Position // where those of messages stand that are for logs
	published time.Time
	at        uint64 // the same in ms of the clock
	confirm   Subscription
	end       Position // of the log to confirm, when that was asked
	evicted   []Subscription
}

var _ Broker = (*Memory)(nil)

// NewMemory makes a memory broker.
func NewMemory(options MemoryOptions) *Memory {
	linger := options.Linger
	switch {
	case linger == 0:
		linger = lingerDefault
	case linger < 0:
		linger = 0
	}
	room := options.QueueMessagesMax
	if room <= 0 || room > memoryQueueMessagesMax {
		room = memoryQueueMessagesMax
	}
	logger := options.Logger
	if logger == nil {
		logger = slog.Default()
	}
	return &Memory{
		linger: linger, room: room, logger: logger,
		wanted: make(map[Subscription]*memoryEntry), patterns: make(map[string]bool),
		store: newMemoryStore(), freed: make(chan struct{}),
		wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
	}
}

// Start implements [Broker]. A memory broker delivers at once.
func (m *Memory) Start(callbacks Callbacks) error {
	if err := callbacks.complete(); err != nil {
		return err
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	switch {
	case m.closed:
		return ErrClosed
	case m.started:
		return errors.New("broker: started twice")
	}
	m.started, m.callbacks, m.since = true, callbacks, time.Now()
	go m.run()
	return nil
}

// Close implements [Broker]. Messages that were not handed over yet are dropped.
func (m *Memory) Close() error {
	m.mutex.Lock()
	started, closed := m.started, m.closed
	m.closed = true
	m.mutex.Unlock()
	if !closed {
		close(m.quit)
	}
	if started {
		<-m.done
	}
	return nil
}

// Subscribe implements [Broker].
func (m *Memory) Subscribe(sub Subscription) {
	if sub.Channel == "" || len(sub.Channel) > names.NameBytesMax || sub.Kind >= kindCount {
		return
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.closed {
		return
	}
	entry := m.wanted[sub]
	if entry == nil {
		entry = &memoryEntry{}
		m.wanted[sub] = entry
	}
	if !entry.wanted && !entry.confirmed {
		m.pending++
	}
	entry.fresh = entry.fresh || !entry.wanted
	entry.wanted = true
	if !entry.asked {
		entry.asked = true
		now := time.Now()
		m.jobs = append(m.jobs, memoryJob{confirm: sub, published: now, at: m.tick(now), end: m.store.end(sub.Channel)})
		signal(m.wake)
	}
}

// Unsubscribe implements [Broker].
func (m *Memory) Unsubscribe(sub Subscription) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	entry := m.wanted[sub]
	if entry == nil || !entry.wanted {
		return
	}
	entry.wanted = false
	if !entry.confirmed {
		m.pending--
	}
	entry.ends = time.Now().Add(m.linger)
	if !entry.lingers {
		entry.lingers = true
		m.lingers = append(m.lingers, memoryLinger{sub: sub, at: entry.ends})
		signal(m.wake)
	}
}

// Publish implements [Broker]. Nil means that the messages stand in the queue; they are copied.
func (m *Memory) Publish(ctx context.Context, messages []Message) ([]Position, error) {
	if len(messages) == 0 {
		return nil, nil
	}
	if err := checkMessages(messages); err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	positions, err := m.enter(ctx, copyMessages(messages))
	if err != nil {
		m.publishErrors.Add(uint64(len(messages)))
		return nil, fmt.Errorf("publish: %w", err)
	}
	m.published.Add(uint64(len(messages)))
	return positions, nil
}

// ReadLog implements [Broker].
func (m *Memory) ReadLog(_ context.Context, channel string, after Position, count int) (LogChunk, error) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.closed || !m.started {
		return LogChunk{}, fmt.Errorf("read the log %s: %w: %w", channel, ErrUnavailable, errNotRunning)
	}
	return m.store.read(channel, after, min(max(count, 1), ReadLogMax)), nil
}

// Prefer implements [Broker]. In memory nothing is ever lost that could be mended.
func (m *Memory) Prefer([]Subscription) {}

// copyMessages copies the payloads, for callbacks may keep them: all into one allocation, save
// those that are stored, which must not hold the others.
func copyMessages(messages []Message) []Message {
	total := 0
	for _, message := range messages {
		if !message.Kind.keyed() {
			total += len(message.Payload)
		}
	}
	copied := append([]Message(nil), messages...)
	payloads := make([]byte, 0, total)
	for index := range copied {
		message := &copied[index]
		if message.Kind.keyed() {
			message.Payload = append([]byte{}, message.Payload...)
			continue
		}
		from := len(payloads)
		payloads = append(payloads, message.Payload...)
		message.Payload = payloads[from:len(payloads):len(payloads)]
	}
	return copied
}

// enter puts messages into the queue, waiting for room as long as ctx, at most publishTimeout
// where that has no deadline, allows.
func (m *Memory) enter(ctx context.Context, messages []Message) ([]Position, error) {
	if len(messages) > m.room {
		return nil, fmt.Errorf("%w: %d messages at once, at most %d are possible", ErrUnavailable, len(messages), m.room)
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, publishTimeout)
		defer cancel()
	}
	for {
		m.mutex.Lock()
		if m.closed || !m.started {
			m.mutex.Unlock()
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, errNotRunning)
		}
		if m.queued+len(messages) <= m.room {
			positions := m.queue(messages)
			m.mutex.Unlock()
			return positions, nil
		}
		freed := m.freed
		m.mutex.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %d messages wait to be handed over: %w", ErrUnavailable, m.room, ctx.Err())
		case <-m.quit:
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, ErrClosed)
		}
	}
}

// queue stores what is to be stored and has all handed over. The caller holds mutex.
func (m *Memory) queue(messages []Message) []Position {
	now := time.Now()
	at := m.tick(now)
	var positions []Position
	if hasLog(messages) {
		positions = make([]Position, len(messages))
	}
	var evicted []Subscription
	for index := range messages {
		message := &messages[index]
		switch message.Kind {
		case State:
			m.store.set(message.Channel, message.Payload)
		case Log:
			positions[index] = m.store.append(message.Channel, message.Payload, message.MaxLen, at)
			if message.Keep > 0 {
				m.store.keep(message.Channel, now.Add(time.Duration(message.keepSeconds())*time.Second))
			}
		default:
			continue
		}
		evicted = append(evicted, m.store.evict()...)
	}
	m.queued += len(messages)
	m.jobs = append(m.jobs, memoryJob{messages: messages, positions: positions, published: now, at: at, evicted: evicted})
	signal(m.wake)
	return positions
}

// tick sets the clock. The caller holds mutex.
func (m *Memory) tick(now time.Time) uint64 {
	m.clock = max(m.clock, uint64(now.UnixMilli()))
	return m.clock
}

// run does the jobs in order.
func (m *Memory) run() {
	defer close(m.done)
	m.tell(func() { m.callbacks.Health(m.Health()) })
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		jobs, wait := m.take()
		for _, job := range jobs {
			select {
			case <-m.quit:
				return
			default:
			}
			m.do(job)
		}
		if len(jobs) > 0 {
			continue
		}
		timer.Reset(wait)
		select {
		case <-m.wake:
		case <-timer.C:
		case <-m.quit:
			return
		}
	}
}

// take returns the jobs that wait, and how long the next end of a linger is away.
func (m *Memory) take() ([]memoryJob, time.Duration) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	now := time.Now()
	wait := min(m.endLingers(now), m.store.expire(now))
	jobs := m.jobs
	m.jobs = nil
	return jobs, wait
}

func (m *Memory) endLingers(now time.Time) time.Duration {
	for len(m.lingers) > 0 {
		first := m.lingers[0]
		if now.Before(first.at) {
			return first.at.Sub(now)
		}
		m.lingers = m.lingers[1:]
		entry := m.wanted[first.sub]
		entry.lingers = false
		switch {
		case entry.wanted:
		case now.Before(entry.ends):
			entry.lingers = true
			m.lingers = append(m.lingers, memoryLinger{sub: first.sub, at: entry.ends})
		case !entry.asked: // else the confirmation forgets it
			m.forget(first.sub)
		}
	}
	return time.Hour
}

func (m *Memory) forget(sub Subscription) {
	if m.wanted[sub].confirmed {
		m.confirms--
		if sub.Kind.keyed() {
			m.tracked--
		}
	}
	delete(m.wanted, sub)
	if sub.Kind == Pattern {
		delete(m.patterns, strings.TrimSuffix(sub.Channel, "*"))
	}
}

// tell runs a callback. A panic in it is logged and goes no further.
func (m *Memory) tell(callback func()) {
	defer func() {
		if value := recover(); value != nil {
			m.logger.Error("a callback of the broker panicked", "panic", fmt.Sprint(value), "stack", string(debug.Stack()))
		}
	}()
	callback()
}

// wants reports whether somebody listens to the message's channel.
func (m *Memory) wants(message *Message) bool {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	entry := m.wanted[Subscription{Channel: message.Channel, Kind: message.Kind}]
	if entry != nil && entry.confirmed {
		return true
	}
	if message.Kind != Plain || len(m.patterns) == 0 {
		return false
	}
	for index := range len(message.Channel) {
		if message.Channel[index] == ':' && m.patterns[message.Channel[:index+1]] {
			return true
		}
	}
	return false
}

// Health implements [Broker].
func (m *Memory) Health() Health {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if !m.started || m.closed {
		return Health{Reason: "not running", Nodes: 1}
	}
	return Health{Delivering: true, Reached: true, Since: m.since, Nodes: 1, NodesDelivering: 1}
}

// Stats implements [Broker].
func (m *Memory) Stats() Stats {
	stats := Stats{
		Events: m.events.Load(), Published: m.published.Load(), PublishErrors: m.publishErrors.Load(),
		Horizon: m.horizon.Load(),
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	stats.Subscribed, stats.Pending, stats.Tracked = m.confirms, m.pending, m.tracked
	return stats
}
