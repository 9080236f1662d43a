package broker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// session is the time during which three connections to one server live, for commands, for
// pub/sub and for keys. Anything that goes wrong with it ends it whole, save that a connection for
// keys that ends alone is replaced: nothing is lost by that, while a new session is a gap on each
// channel.
type session struct {
	node   *node
	number uint32 // never 0, unique in the broker
	ctx    context.Context
	cancel context.CancelCauseFunc
	line   *line
	opened time.Time
	again  bool // the node had a session before: resubscribing is paced

	client rueidis.Client
	pubsub rueidis.DedicatedClient
	ended  <-chan error // closed when the reader has made its last call
	reader *reader

	tracker  *tracker // of keys, by a connection of its own
	identity string   // of the data that the server holds; empty if it does not say
	origin   uint32   // number of that data

	canaries  []*canary
	payload   string      // of this session's canaries
	heard     sync.Map    // number of another session (uint32): when its canary came (time.Time)
	entered   atomic.Bool // its first connections stand: what is dialled from then on is a reconnect
	delivered atomic.Bool // a canary came back
	audited   time.Time   // by the prober
	requests  chan *publishRequest

	// Guarded by the broker's mutex.
	confirmed       int // entries confirmed by this session
	confirmedWanted int // those of them that are wanted
	keys            int // of kind State or Log
}

// open connects to the node's server, makes sure that it is the right kind of server, and
// subscribes to the canaries.
func (n *node) open(address string) (*session, error) {
	r := n.broker
	ctx, cancel := context.WithCancelCause(n.ctx)
	number := r.sessions.Add(1)
	made := &session{
		node: n, number: number, payload: strconv.FormatUint(uint64(number), 10), ctx: ctx, cancel: cancel, opened: time.Now(),
		requests: make(chan *publishRequest, publishQueueMax),
	}
	r.mutex.Lock()
	made.again = n.opened
	r.mutex.Unlock()
	made.line = newLine(ctx, func() {
		if made.again || made.entered.Load() {
			r.reconnects.Add(1)
		}
	})
	client, err := r.connect(made.line, r.clientOption(made.line, address))
	if err != nil {
		cancel(err)
		return nil, err
	}
	made.client = client
	if err := made.enter(); err != nil {
		made.fail(err)
		made.finish()
		return nil, err
	}
	made.entered.Store(true)
	return made, nil
}

// enter is the rest of open, once the command connection stands.
func (s *session) enter() error {
	r := s.node.broker
	if err := s.checkServer(); err != nil {
		return err
	}
	s.nameCanaries()
	s.reader = &reader{session: s, broker: r}
	s.line.feed(s.reader)
	// Dedicate dials and says HELLO, bounded by dialTimeout; an error comes out of the hooks.
	s.pubsub, _ = s.client.Dedicate()
	s.ended = s.pubsub.SetPubSubHooks(rueidis.PubSubHooks{
		OnMessage: s.reader.onMessage, OnSubscription: s.reader.onSubscription,
	})
	select {
	case err := <-s.ended:
		s.ended = nil
		if err == nil {
			err = rueidis.ErrClosing
		}
		return err
	default:
	}
	if err := s.subscribeCanaries(); err != nil {
		return err
	}
	if err := s.findOrigin(); err != nil {
		return err
	}
	return s.tracker.open()
}

// checkServer makes sure that the server is a primary in the mode that was found at the start.
func (s *session) checkServer() error {
	found, err := identify(s.ctx, s.client)
	if err != nil {
		return err
	}
	r := s.node.broker
	r.mutex.Lock()
	cluster := r.cluster
	r.mutex.Unlock()
	switch {
	case found.mode == "sentinel":
		return errIsSentinel
	case (found.mode == "cluster") != cluster:
		return errModeChanged
	case found.role != "master":
		return errDemoted
	}
	return nil
}

// serve works until the session fails, cleans up, reports all its subscriptions as lost, and
// returns why.
func (s *session) serve() error {
	r := s.node.broker
	r.mutex.Lock()
	s.node.session = s
	s.node.opened = true
	r.mutex.Unlock()
	var loops sync.WaitGroup
	s.tracker.over = make(chan struct{})
	for _, loop := range []func(){s.subscribeLoop, s.publishLoop, s.probeLoop, s.watch, s.tracker.run} {
		loops.Go(loop)
	}
	signal(s.node.wake)
	r.askTopology() // a Cluster may now prefer this node for plain channels
	select {
	case err := <-s.ended:
		s.ended = nil
		if err == nil {
			err = rueidis.ErrClosing
		}
		s.fail(fmt.Errorf("the pub/sub connection ended: %w", err))
	case <-s.ctx.Done():
		s.fail(context.Cause(s.ctx))
	}
	s.finish()
	loops.Wait()
	s.node.lose(s)
	return context.Cause(s.ctx)
}

// fail ends the session; the first error is why. It does not wait.
func (s *session) fail(err error) {
	s.cancel(err)
	s.line.sever()
}

// finish waits until the reader has made its last call and the client is gone. The session has
// failed before, so that nothing here waits for the server.
//
// The order matters: closing the dedicated client first would take the hooks away while the
// reader may still be inside one, and close ended too early.
func (s *session) finish() {
	if s.ended != nil {
		<-s.ended
		s.ended = nil
	}
	if s.pubsub != nil {
		s.pubsub.Close()
	}
	if s.tracker != nil {
		s.tracker.finish()
	}
	s.client.Close()
}

// failReply ends the session if err is of the connection, and reports whether it did. An error
// reply of Redis leaves the session as it is.
func (s *session) failReply(doing string, err error) bool {
	if _, isReply := redisReply(err); isReply || err == nil {
		return false
	}
	if errors.Is(err, context.Canceled) && s.ctx.Err() != nil {
		return true
	}
	s.fail(fmt.Errorf("%s: %w", doing, err))
	return true
}
