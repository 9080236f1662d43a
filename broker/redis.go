package broker

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/names"
)

// RedisOptions says how Redis is reached. Only URL is needed.
type RedisOptions struct {
	// URL is redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss:// for TLS, a comma list of nodes
	// of a Cluster (a single address that turns out to be in Cluster mode is taken for one too),
	// redis+sentinel://HOST:PORT[,HOST:PORT]/MASTER with the queries db, sentinel-user and
	// sentinel-password, or unix:///PATH.
	URL string
	// ChannelPrefix goes before every channel's name in Redis.
	ChannelPrefix string
	// Linger is how long a subscription outlives its last user. Default 5 s; negative: not.
	Linger time.Duration
	// Logger takes one line per fault and recovery. Nil: slog.Default().
	Logger *slog.Logger
	// Names keeps the channels' names, for whoever else needs them too; nil: a store of the broker's own.
	Names *names.Store
	// MaxValueBytes bounds what of a State is read, and a hash's text. A value that is larger
	// counts as none, with a line in the log. Default 1 MiB; negative: no bound.
	MaxValueBytes int
	// PlainOn is the address of the node of a Cluster that is to carry the plain channels, if there is
	// such a one at the start: the one that another process has them from ([Redis.PlainNode]).
	PlainOn string
	// TLSConfig, where set, is used with rediss:// instead of the system's certificates.
	TLSConfig *tls.Config
}

const (
	lingerDefault = 5 * time.Second
	// refusedRetryDefault is how often a refused subscription is tried again.
	refusedRetryDefault = 15 * time.Second
	// movedRetry is how long a sharded subscription waits for the new owner of its slot.
	movedRetry = 100 * time.Millisecond
)

// Redis is the [Broker] that listens to and publishes on a standalone Redis, one behind
// Sentinels, or a Cluster. Make it with [NewRedis].
//
// Lock order: calls before mutex. calls is held while Confirmed, Lost, Refused or Health run, so
// that what they say never overtakes itself; no method but Close waits for it.
type Redis struct {
	target  target
	prefix  string
	pattern string // prefix as glob
	linger  time.Duration
	// refusedRetry is how often a refused subscription is tried again.
	refusedRetry time.Duration
	// valueBytesMax is MaxValueBytes, math.MaxInt without a bound.
	valueBytesMax int
	sweepInterval time.Duration
	logger        *slog.Logger
	tlsConfig     *tls.Config
	plainOn       string // where plain channels are had from at first, if that is a node
	random        string // of this broker, in its canaries' names
	made          time.Time

	callbacks Callbacks          // set by Start
	ctx       context.Context    // ends with Close
	stop      context.CancelFunc // ends ctx
	running   sync.WaitGroup     // all goroutines
	closing   atomic.Bool        // no callback from here on

	events        atomic.Uint64
	published     atomic.Uint64
	publishErrors atomic.Uint64
	reconnects    atomic.Uint64
	losses        atomic.Uint64
	keys          keyCounts
	sessions      atomic.Uint32 // numbers given to sessions
	horizon       atomic.Uint64 // as in LogUpdate; rises only, with mutex held
	cut           atomic.Pointer[Cut]

	calls sync.Mutex

	mutex        sync.Mutex // guards what follows
	started      bool
	closed       bool
	table        *registry
	nodes        []*node              // by number; nil where one was given up
	cluster      bool                 // the mode that was found
	slots        *[slotCount]int16    // Cluster: the node of each slot, or noNode
	ownerless    bool                 // Cluster: some slots have no node
	origins      origins              // what data the servers held
	plain        int16                // the node of Plain and Pattern subscriptions, or noNode
	lingering    delayQueue           // for linger
	moved        delayQueue           // for movedRetry
	refused      delayQueue           // for refusedRetry
	health       Health               // as last told
	fault        string               // of the search for nodes, while there is none
	refresh      chan struct{}        // asks for the Cluster's topology, buffered by one
	janitorWake  chan struct{}        // a delay queue is no longer empty, buffered by one
	former       map[string]time.Time // Cluster: addresses of nodes that were given up, and when
	lastReported map[string]reported  // by node and cause
	preferred    []uint32             // entries with flagPreferred
	horizonRose  time.Time            // zero: the horizon is not known
}

var _ Broker = (*Redis)(nil)

// NewRedis makes a broker that is not connected yet. Its error says what is wrong with the URL,
// without quoting it.
func NewRedis(options RedisOptions) (*Redis, error) {
	parsed, err := parseURL(options.URL)
	if err != nil {
		return nil, err
	}
	linger := options.Linger
	switch {
	case linger == 0:
		linger = lingerDefault
	case linger < 0:
		linger = 0
	}
	valueBytesMax := options.MaxValueBytes
	switch {
	case valueBytesMax == 0:
		valueBytesMax = valueBytesDefault
	case valueBytesMax < 0:
		valueBytesMax = math.MaxInt - 1
	}
	logger := options.Logger
	if logger == nil {
		logger = slog.Default()
	}
	store := options.Names
	if store == nil {
		store = &names.Store{}
	}
	random := make([]byte, 8)
	_, _ = rand.Read(random) // never fails: crypto/rand ends the process instead
	ctx, stop := context.WithCancel(context.Background())
	now := time.Now()
	return &Redis{
		target: parsed, prefix: options.ChannelPrefix, pattern: escapeGlob(options.ChannelPrefix),
		linger: linger, refusedRetry: refusedRetryDefault,
		valueBytesMax: valueBytesMax, sweepInterval: sweepIntervalDefault, logger: logger, tlsConfig: options.TLSConfig,
		plainOn: options.PlainOn, random: hex.EncodeToString(random), made: now,
		ctx: ctx, stop: stop,
		table: newRegistry(store), plain: noNode,
		health:  Health{Reason: errNotConnected.Error(), Since: now},
		refresh: make(chan struct{}, 1), janitorWake: make(chan struct{}, 1),
		origins: make(origins), former: make(map[string]time.Time), lastReported: make(map[string]reported),
	}, nil
}

// Start implements [Broker].
func (r *Redis) Start(callbacks Callbacks) error {
	if err := callbacks.complete(); err != nil {
		return err
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	switch {
	case r.closed:
		return ErrClosed
	case r.started:
		return errors.New("broker: started twice")
	}
	r.started = true
	r.callbacks = callbacks
	r.running.Go(r.janitor)
	if r.target.master != "" {
		r.running.Go(r.followSentinels)
	} else {
		r.running.Go(r.findNodes)
	}
	return nil
}

func (c *Callbacks) complete() error {
	if c.Event == nil || c.Confirmed == nil || c.Lost == nil || c.Refused == nil || c.Health == nil || c.Value == nil || c.Log == nil {
		return errors.New("broker: all callbacks must be set")
	}
	return nil
}

// Close implements [Broker].
func (r *Redis) Close() error {
	r.closing.Store(true)
	r.mutex.Lock()
	r.closed = true
	r.mutex.Unlock()
	r.stop()
	r.running.Wait()
	// A callback that was under way when closing was set has returned once calls is free.
	r.calls.Lock()
	defer r.calls.Unlock()
	return nil
}

// now is the current tick.
func (r *Redis) now() tick { return tick(time.Since(r.made) / tickLength) }

// Subscribe implements [Broker].
func (r *Redis) Subscribe(sub Subscription) { r.SubscribeNamed(sub, 0) }

// SubscribeNamed is [Redis.Subscribe] for who keeps the channel's name in [RedisOptions.Names],
// at name: the broker holds it there and keeps none of its own. At 0 there is none.
func (r *Redis) SubscribeNamed(sub Subscription, name names.Place) {
	if sub.Channel == "" || len(sub.Channel) > names.NameBytesMax || sub.Kind >= kindCount {
		return
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.closed {
		return
	}
	index, wanted := r.table.obtain(sub, name)
	if sub.Kind.keyed() {
		key := r.table.key(wanted)
		key.flags |= keyOwed
		if !wanted.has(flagWanted) {
			key.flags |= keyFresh // whoever comes back has forgotten what it held
		}
	}
	if !wanted.has(flagWanted) {
		wanted.flags |= flagWanted
		r.table.wanted++
		if session := r.confirmedBy(wanted); session != nil {
			session.confirmedWanted++
		}
	}
	if wanted.node == noNode {
		r.place(index, wanted)
	}
	r.enqueue(index, wanted)
}

// Unsubscribe implements [Broker].
func (r *Redis) Unsubscribe(sub Subscription) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if sub.Kind >= kindCount {
		return
	}
	index, left := r.table.find(sub.Kind, sub.Channel)
	if left == nil || !left.has(flagWanted) {
		return
	}
	left.flags &^= flagWanted
	r.table.wanted--
	if session := r.confirmedBy(left); session != nil {
		session.confirmedWanted--
	}
	if left.has(flagLingering) {
		left.flags |= flagLeftAgain
		return
	}
	left.flags |= flagLingering
	r.delay(&r.lingering, index, r.lingerEnd())
}

// confirmedBy returns the living session that confirmed e and is not asked to leave it, or nil.
func (r *Redis) confirmedBy(e *entry) *session {
	if r.table.confirmedIn(e) == 0 || e.node == noNode || e.has(flagLeaving) {
		return nil
	}
	session := r.nodes[e.node].session
	if session == nil || session.number != r.table.confirmedIn(e) {
		return nil
	}
	return session
}

// assign gives e the node that should carry it, if that is known. What it leaves behind in the
// queue of another node is passed over there.
func (r *Redis) assign(e *entry) {
	before := e.node
	bySlot := r.cluster && e.kind().bySlot()
	switch {
	case !bySlot:
		e.node = r.plain
	case r.slots == nil:
		e.node = noNode
	default:
		e.node = r.slots[slotOf(r.prefix+r.table.channel(e))]
	}
	if e.node == before {
		return
	}
	e.flags &^= flagQueued
	r.count(before, e.kind(), -1)
	r.count(e.node, e.kind(), 1)
}

// place assigns e, and has a key that thereby moved read anew.
func (r *Redis) place(index uint32, e *entry) {
	before := e.node
	r.assign(e)
	if e.kind().keyed() && e.node != before {
		r.forsake(index, e)
	}
}

// count notes that an entry of a kind belongs to a node from here on (1), or no longer (-1).
func (r *Redis) count(number int16, kind Kind, change int) {
	if number == noNode {
		return
	}
	n := r.nodes[number]
	if r.cluster && kind.bySlot() {
		n.bySlot += change
	}
	if kind.keyed() {
		n.keys += change
	}
	if kind == Log {
		n.logs += change
	}
}

// settle forgets an entry that nothing holds any more.
func (r *Redis) settle(index uint32) {
	e := r.table.at(index)
	node, kind := e.node, e.kind()
	if r.table.settle(index) {
		r.count(node, kind, -1)
	}
}

// enqueue puts the entry before its node's subscriber or tracker, once.
func (r *Redis) enqueue(index uint32, e *entry) {
	if e.node == noNode || e.has(flagQueued) {
		return
	}
	e.flags |= flagQueued
	n := r.nodes[e.node]
	if e.kind().keyed() {
		n.reads.push(index, e.has(flagPreferred))
		signal(n.read)
		return
	}
	n.todo.push(index, e.has(flagPreferred))
	signal(n.wake)
}

// delay puts the entry into one of the delay queues. Its flag is the caller's.
func (r *Redis) delay(q *delayQueue, index uint32, due tick) {
	q.push(index, due)
	signal(r.janitorWake)
}

// signal wakes the one who waits on a channel that is buffered by one.
func signal(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// janitor sees to what becomes due: the ends of lingers and second tries.
func (r *Redis) janitor() {
	for {
		wait, any := r.tidy()
		if !any {
			select {
			case <-r.janitorWake:
				continue
			case <-r.ctx.Done():
				return
			}
		}
		if !pause(r.ctx, wait, r.janitorWake) {
			return
		}
	}
}

// tidy handles what is due, at most one chunk per queue, and returns the wait until the next.
func (r *Redis) tidy() (wait time.Duration, any bool) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	now := r.now()
	for range registryChunk {
		index, ok := r.lingering.popDue(now)
		if !ok {
			break
		}
		r.endLinger(index)
	}
	for _, q := range []*delayQueue{&r.moved, &r.refused} {
		for range registryChunk {
			index, ok := q.popDue(now)
			if !ok {
				break
			}
			r.retry(index)
		}
	}
	wait = time.Minute
	for _, q := range []*delayQueue{&r.lingering, &r.moved, &r.refused} {
		if due, ok := q.next(); ok {
			any = true
			wait = min(wait, max(time.Duration(int32(due-now))*tickLength, 0)+tickLength)
		}
	}
	return wait, any
}

// lingerEnd is when a linger that begins now is over.
func (r *Redis) lingerEnd() tick { return r.now() + tick(r.linger/tickLength) }

// endLinger ends the linger of an entry, unless it is wanted again. One that was left again
// meanwhile lingers on: nobody noted when, so that it may be twice as long as asked for.
func (r *Redis) endLinger(index uint32) {
	e := r.table.at(index)
	again := e.has(flagLeftAgain)
	e.flags &^= flagLingering | flagLeftAgain
	switch {
	case e.has(flagWanted):
	case again:
		e.flags |= flagLingering
		r.lingering.push(index, r.lingerEnd())
	case e.kind().keyed():
		// Redis forgets the key by its next invalidation, which nobody listens to.
		if session := r.confirmedBy(e); session != nil {
			session.release(e)
		}
		r.settle(index)
	case r.confirmedBy(e) != nil:
		r.enqueue(index, e)
	default:
		r.settle(index)
	}
}

// retry lets an entry whose wait is over try again.
func (r *Redis) retry(index uint32) {
	e := r.table.at(index)
	e.flags &^= flagDelayed
	if !e.has(flagWanted) {
		r.settle(index)
		return
	}
	if *r.table.session(e) == 0 {
		r.place(index, e)
	}
	r.enqueue(index, e)
}

// askTopology has the Cluster's slots read again soon.
func (r *Redis) askTopology() { signal(r.refresh) }

// Health implements [Broker].
func (r *Redis) Health() Health {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.health
}

// Stats implements [Broker].
func (r *Redis) Stats() Stats {
	stats := Stats{
		Events: r.events.Load(), Published: r.published.Load(), PublishErrors: r.publishErrors.Load(),
		Reconnects: r.reconnects.Load(), Losses: r.losses.Load(), Horizon: r.horizon.Load(),
	}
	r.keys.into(&stats)
	r.mutex.Lock()
	defer r.mutex.Unlock()
	stats.Pending = r.table.wanted
	for _, n := range r.nodes {
		if n != nil && n.session != nil {
			stats.Subscribed += n.session.confirmed
			stats.Pending -= n.session.confirmedWanted
			stats.Tracked += n.session.keys
			stats.CanaryDelay = max(stats.CanaryDelay, n.session.canaryDelay())
		}
	}
	if !r.horizonRose.IsZero() {
		stats.HorizonAge = time.Since(r.horizonRose)
	}
	return stats
}
