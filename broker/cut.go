package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

const (
	// cutHeldBytesMax bounds what a cut holds back, in bytes, with cutHeldOverhead for each event.
	cutHeldBytesMax = 64 << 20
	cutHeldOverhead = 128
	// cutPaceEvents is how many of them are handed over in one go.
	cutPaceEvents = 1024
	// cutTimeout bounds a command of a cut to Redis.
	cutTimeout = 2 * time.Second
	// cutWatch is how often a cut that waits looks whether its connections live.
	cutWatch = 10 * time.Millisecond
)

// Side says what a broker does with the events before the mark of a [Cut].
type Side uint8

const (
	// Before is the side that hands over what comes before the mark. What comes after it is held
	// back.
	Before Side = iota
	// After is the side that passes over what comes before the mark, which is the other's. What
	// comes after it is held back.
	After
)

// Cut divides the events between two brokers of one Redis, so that each belongs to one of them: a mark
// is published on every node, on a channel that both have subscribed to. A server writes to all its
// subscribers in the one order in which it carries out commands, so on the connections of both the
// mark has the same events before it and the same behind it, whatever channels they are of. What is
// behind it waits on either side until [Cut.Release]. States and logs are not divided: they have
// positions.
//
// That holds as long as each connection lives and no channel moves from one to another, which [Cut.Check]
// tells. Methods are safe for use by many goroutines.
type Cut struct {
	broker *Redis
	side   Side
	lost   atomic.Bool // a subscription was lost, by whatever

	mutex    sync.Mutex // guards all below; a callback may run under it
	name     string     // of the mark's channel, as Redis knows it; "": nobody listens yet
	places   map[*session]*cutPlace
	missing  int           // places whose mark has not come
	whole    chan struct{} // closed when none is
	held     []heldEvent
	bytes    int
	released bool
}

// cutPlace is one connection of a cut.
type cutPlace struct {
	mark   string // the payload of its mark
	passed bool   // the mark has come
}

// heldEvent is what came behind a mark.
type heldEvent struct {
	channel  string
	payload  []byte
	received time.Time
}

// Errors of a cut.
var (
	errCutAway   = errors.New("Redis does not deliver on every node now")
	errCutLost   = errors.New("a connection to Redis was lost, a node came or went, or a slot moved, meanwhile")
	errCutHeld   = fmt.Errorf("more than %d MiB of events came meanwhile", cutHeldBytesMax>>20)
	errCutSecond = errors.New("the events of this broker are being divided already")
)

// Divide begins a cut. On the side [After] every event is passed over from here on, so it may come
// before [Redis.Start]. There is one cut at a time.
func (r *Redis) Divide(side Side) (*Cut, error) {
	c := &Cut{broker: r, side: side, whole: make(chan struct{})}
	if !r.cut.CompareAndSwap(nil, c) {
		return nil, errCutSecond
	}
	return c, nil
}

// Listen subscribes to the mark, a name that both sides use and nobody else, on every node. It says
// which servers those are, first the one that carries the plain channels: only if both sides have
// the same will the cut be one ([RedisOptions].PlainOn). It waits for Redis, and fails while Redis does
// not deliver.
func (c *Cut) Listen(ctx context.Context, name string) (servers []string, err error) {
	r := c.broker
	c.lost.Store(false) // first: of what is lost from here on something is missed behind the mark, or before it
	if !r.Health().Delivering {
		return nil, errCutAway
	}
	sessions, plain, err := r.serving()
	if err != nil {
		return nil, err
	}
	c.mutex.Lock()
	c.name = r.prefix + "__millrace:cut:" + name
	c.places = make(map[*session]*cutPlace, len(sessions))
	for _, s := range sessions {
		c.places[s] = &cutPlace{mark: s.place()}
	}
	c.missing = len(sessions)
	c.mutex.Unlock()
	for _, s := range sessions {
		if err := s.command(ctx, s.pubsub.B().Subscribe().Channel(c.name).Build()); err != nil {
			return nil, fmt.Errorf("subscribe to the mark: %w", err)
		}
		servers = append(servers, s.place())
	}
	slices.Sort(servers)
	return append([]string{plain.place()}, servers...), c.Check()
}

// serving gives the session of each node, and the one that carries plain channels.
func (r *Redis) serving() (sessions []*session, plain *session, err error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for number, n := range r.nodes {
		if n == nil {
			continue
		}
		if n.session == nil || n.session.ctx.Err() != nil {
			return nil, nil, errCutAway
		}
		sessions = append(sessions, n.session)
		if int16(number) == r.plain {
			plain = n.session
		}
	}
	if plain == nil {
		return nil, nil, errCutAway
	}
	return sessions, plain, nil
}

// PlainNode is the address of the node that carries the plain channels, empty where that is not known:
// what another process's [RedisOptions].PlainOn takes.
func (r *Redis) PlainNode() string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.plain == noNode {
		return ""
	}
	return r.nodes[r.plain].address
}

// place names the server of a session so that another process names it alike.
func (s *session) place() string {
	if s.identity != "" {
		return s.identity
	}
	return s.node.target() // INFO is not allowed
}

// command gives the session's pub/sub connection a command and waits for it.
func (s *session) command(ctx context.Context, command rueidis.Completed) error {
	ctx, cancel := context.WithTimeout(ctx, cutTimeout)
	defer cancel()
	return s.pubsub.Do(ctx, command).Error()
}

// Mark publishes the mark on every node, once both sides listen.
func (c *Cut) Mark(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cutTimeout)
	defer cancel()
	for s, place := range c.listening() {
		if err := s.client.Do(ctx, s.client.B().Publish().Channel(c.name).Message(place.mark).Build()).Error(); err != nil {
			return fmt.Errorf("publish the mark: %w", err)
		}
	}
	return nil
}

// listening gives the places, which do not change any more.
func (c *Cut) listening() map[*session]*cutPlace {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.places
}

// Wait returns when the mark has come on every connection: on the side [Before] every event before it
// was handed over by then. It fails when ctx is done or as [Cut.Check] does.
func (c *Cut) Wait(ctx context.Context) error {
	tick := time.NewTicker(cutWatch)
	defer tick.Stop()
	for {
		select {
		case <-c.whole:
			return c.Check()
		case <-ctx.Done():
			return fmt.Errorf("the mark did not come from every node: %w", context.Cause(ctx))
		case <-tick.C:
			if err := c.Check(); err != nil {
				return err
			}
		}
	}
}

// Check says why the cut is none any more, nil as long as it is one.
func (c *Cut) Check() error {
	sessions, _, err := c.broker.serving()
	if err != nil {
		return err
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.bytes > cutHeldBytesMax {
		return errCutHeld
	}
	if c.lost.Load() || len(sessions) != len(c.places) {
		return errCutLost
	}
	for _, s := range sessions {
		if c.places[s] == nil {
			return errCutLost
		}
	}
	return nil
}

// Release ends the cut: what was held back is handed over, in its order, before anything newer of its
// node. That may be much at once: pace is called after every thousand events, and returns when those who
// get them have room for as many again; it may be nil. Calling Release again is harmless.
func (c *Cut) Release(pace func()) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.released {
		return
	}
	c.released = true
	for count, event := range c.held {
		if c.broker.closing.Load() {
			break
		}
		if count%cutPaceEvents == cutPaceEvents-1 && pace != nil {
			pace()
		}
		c.broker.events.Add(1)
		c.broker.callbacks.Event(event.channel, event.payload, event.received)
	}
	c.held = nil
	c.broker.cut.Store(nil)
	for s := range c.places {
		// The mark may be forgotten late, or with the connection.
		c.broker.running.Go(func() { _ = s.command(s.ctx, s.pubsub.B().Unsubscribe().Channel(c.name).Build()) })
	}
}

// takes reports whether an event is not to be handed over now. The reader of the session calls it,
// event by event.
func (c *Cut) takes(s *session, wire, payload string, event heldEvent) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.released {
		return false
	}
	place := c.places[s]
	switch {
	case place == nil: // of a connection that is none of the cut's
		return c.side == After
	case wire == c.name:
		// In a Cluster the marks of other nodes come too, and mean nothing here.
		if payload == place.mark && !place.passed {
			place.passed = true
			if c.missing--; c.missing == 0 {
				close(c.whole)
			}
		}
		return true
	case place.passed:
		c.held = append(c.held, event)
		c.bytes += len(event.channel) + len(event.payload) + cutHeldOverhead
		return true
	default:
		return c.side == After
	}
}
