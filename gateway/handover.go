package gateway

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/netio/handoff"
)

// This file is the old gateway's side of a live upgrade, the steps; what they copy stands in carry.go.
// Each step that changes something says how it is undone, and until the last one has been done the
// gateway can go on as if there had been none.

// How long a hand-over may take.
const (
	startTimeout = time.Minute      // for the successor to start, and to reach Redis
	copyTimeout  = 10 * time.Minute // for all streams to be copied, while they are served
	// heldBackMax is how long clients are not read, until it is decided: less than what a WebSocket has
	// left to be heard in after a ping (timings.silence less timings.heartbeat), and more than the
	// broker has to confirm a subscription, which is waited for.
	heldBackMax = 25 * time.Second
	settlePoll  = 5 * time.Millisecond
)

// Progress says how far a hand-over is.
type Progress struct {
	// Stage is what is being done, in a few words.
	Stage string `json:"stage"`
	// Streams is how many the successor has, of Total.
	Streams int `json:"streams"`
	Total   int `json:"total"`
}

// ErrHandingOver says that a hand-over is under way already, or is over.
var ErrHandingOver = errors.New("gateway: an upgrade is under way already")

// handOver is one hand-over.
type handOver struct {
	gateway  *Gateway
	conn     *handoff.Conn
	software string
	tell     func(Progress)
	stage    string
	heldBack time.Time // since when clients are not read
	stood    time.Time // since when the loops stand still

	token  *handoff.Token
	cut    *broker.Cut
	copies copies

	// restore undoes the steps, the last one first, where the streams stayed, and ends them where
	// they were taken.
	restore []func(taken bool)
}

// HandOver hands all streams and the listeners to the gateway at the other end of conn, which is made
// by [Inherit] in another process, with what is known of them. Clients notice nothing but a pause. On
// a nil error that process serves, and this gateway's [Gateway.Run] returns when what is left to it
// has ended: requests that are being worked on, councils, streams that were ending. On any error this
// gateway goes on serving everybody. software names this process's version; tell, which must not
// block, hears how far it is. There is one hand-over at a time ([ErrHandingOver]); ctx must end when
// Run's does.
func (g *Gateway) HandOver(ctx context.Context, conn *handoff.Conn, software string, tell func(Progress)) error {
	if !g.handing.TryLock() {
		return ErrHandingOver
	}
	defer g.handing.Unlock()
	if err := g.CheckHandOver(); err != nil {
		return err
	}
	select {
	case <-g.serving: // or there is nothing that could be let go of
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	h := &handOver{gateway: g, conn: conn, software: software, tell: tell}
	h.copies.begin(len(g.loops))
	err := h.run(ctx)
	now := time.Now()
	if err == nil {
		g.draining.Store(true) // before anything is let go: what still comes is sent elsewhere
	}
	for _, undo := range slices.Backward(h.restore) {
		undo(err == nil)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", h.stage, err)
	}
	g.logger.Info("streams were handed over", "streams", h.copies.count,
		"notRead", now.Sub(h.heldBack).Round(time.Millisecond), "stoodStill", now.Sub(h.stood).Round(time.Millisecond))
	close(g.handedOver)
	return nil
}

// CheckHandOver says why nothing can be handed over now, nil if it can.
func (g *Gateway) CheckHandOver() error {
	if g.draining.Load() {
		return errors.New("gateway: it is going already")
	}
	if _, err := g.redisOf(); err != nil {
		return err
	}
	if health := g.brokerHealth(); !health.Delivering {
		return fmt.Errorf("gateway: Redis does not deliver now (%s); try again when it does", health.Reason)
	}
	return nil
}

// step is one step of a hand-over, and what it is called.
type step struct {
	stage string
	do    func(context.Context) error
}

func (h *handOver) run(ctx context.Context) error {
	for _, phase := range [...]struct {
		within time.Duration
		steps  []step
	}{
		{startTimeout, []step{{"starting the successor", h.greet}}},
		{copyTimeout, []step{{"copying streams", h.copyStreams}}},
		{heldBackMax, []step{
			{"waiting for answers under way", h.holdBack},
			{"copying what has changed", h.copyStreams},
			{"subscribing", h.listen},
			{"dividing the events", h.divide},
			{"standing still", h.standStill},
			{"handing over", h.give},
		}},
	} {
		if err := h.runPhase(ctx, phase.within, phase.steps); err != nil {
			return err
		}
	}
	return nil
}

func (h *handOver) runPhase(ctx context.Context, within time.Duration, steps []step) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for _, step := range steps {
		h.stage = step.stage
		h.progress()
		if err := step.do(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (h *handOver) progress() {
	if h.tell != nil {
		h.tell(Progress{Stage: h.stage, Streams: h.copies.count, Total: int(h.gateway.admission.total.Load())})
	}
}

func (h *handOver) undoBy(undo func(taken bool)) { h.restore = append(h.restore, undo) }

func (h *handOver) call(ctx context.Context, kind handoff.Kind, body []byte, descriptors ...int) ([]byte, error) {
	answer, err := h.conn.Call(ctx, handoff.Message{Kind: kind, Body: body, Descriptors: descriptors})
	answer.CloseDescriptors()
	return answer.Body, err
}

// greet tells the successor who we are, and waits until it could serve.
func (h *handOver) greet(ctx context.Context) (err error) {
	g := h.gateway
	if h.token, err = handoff.NewToken(); err != nil {
		return err
	}
	h.undoBy(func(bool) { h.token.Close() })
	redis, err := g.redisOf()
	if err != nil {
		return err
	}
	words := hello{software: h.software, epoch: g.epoch, clock: machineTime(), admin: g.adminListener != nil, plain: redis.PlainNode()}
	for _, loop := range g.loops {
		if err := loop.Do(ctx, func() { words.ticks = append(words.ticks, loop.Tick()) }); err != nil {
			return err
		}
	}
	descriptors := []int{h.token.Fd()}
	for _, listener := range g.listeners() {
		descriptors = append(descriptors, listener.Descriptor())
	}
	_, err = h.call(ctx, messageHello, words.append(nil), descriptors...)
	return err
}

// holdBack stops what changes streams but for events: nobody is accepted, nothing is read from
// clients, and what a client waits for is waited for here.
func (h *handOver) holdBack(ctx context.Context) error {
	g := h.gateway
	h.heldBack = time.Now()
	for _, listener := range g.listeners() {
		if err := listener.Hold(); err != nil {
			return err
		}
		h.undoBy(func(taken bool) {
			if taken {
				listener.Abandon()
			} else {
				listener.Unhold()
			}
		})
	}
	g.parking.Lock()
	h.undoBy(func(bool) { g.parking.Unlock() })
	for _, s := range g.sessions {
		h.undoBy(func(bool) { _ = s.loop.PostAlways(hearAgain{}) }) // first: what follows may be done late
		if err := s.loop.Do(ctx, func() { s.loop.SetDeaf(true) }); err != nil {
			return err
		}
	}
	for _, s := range g.sessions {
		for {
			open, err := s.unsettled(ctx)
			if err != nil {
				return err
			}
			if open == 0 {
				break
			}
			select {
			case <-time.After(settlePoll):
			case <-ctx.Done():
				return fmt.Errorf("%d clients still wait for an answer: %w", open, context.Cause(ctx))
			}
		}
	}
	return nil
}

// hearAgain is posted to a loop that is to hear its sockets again.
type hearAgain struct{}

// unsettled counts what the gateway owes an answer, on one loop: streams that were not greeted,
// commands, and what others work on for them.
func (s *sessions) unsettled(ctx context.Context) (open int, err error) {
	err = s.inPieces(ctx, func(slot netio.Slot) int {
		if s.at(slot).flags&sessionGreeted == 0 {
			open++
		}
		return 1
	}, func() {})
	if err != nil || open > 0 {
		return open, err
	}
	err = s.loop.Do(ctx, func() { open = len(s.asks) + s.outstanding })
	return open, err
}

// listeners are those that there are.
func (g *Gateway) listeners() []*netio.DeskListener {
	if g.adminListener == nil {
		return []*netio.DeskListener{g.listener}
	}
	return []*netio.DeskListener{g.listener, g.adminListener}
}

// listen has the successor hear every channel, and both sides the mark.
func (h *handOver) listen(ctx context.Context) error {
	redis, err := h.gateway.redisOf()
	if err != nil {
		return err
	}
	if h.cut, err = redis.Divide(broker.Before); err != nil {
		return err
	}
	h.undoBy(func(bool) { h.cut.Release(h.gateway.letLoopsTurn) })
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	mark := hex.EncodeToString(random[:])
	ours, err := h.cut.Listen(ctx, mark)
	if err != nil {
		return err
	}
	answer, err := h.call(ctx, messageListen, handoff.Append(nil, handoff.Must(listenMark), mark))
	if err != nil {
		return err
	}
	var theirs []string
	err = handoff.Read(answer, func(f handoff.Field) error {
		if f.Key.Number() != listenServer {
			return f.Unknown()
		}
		theirs = append(theirs, string(f.Value))
		return nil
	})
	if err != nil {
		return err
	}
	if !slices.Equal(ours, theirs) {
		return errors.New("the successor is connected to other servers of Redis, or hears plain channels from another one; try again when the Cluster is at rest")
	}
	return nil
}

// divide draws the line: what Redis delivers before it is ours to bring to the streams' queues, what
// comes after it the successor's.
func (h *handOver) divide(ctx context.Context) error {
	g := h.gateway
	// What is delivered here before Redis has it would come a second time, from the successor.
	g.publishing.Lock()
	h.undoBy(func(bool) {
		h.cut.Release(h.gateway.letLoopsTurn) // first: what came before goes before what is published now
		g.publishing.Unlock()
	})
	for g.hub.AwaitsEchoes() {
		select {
		case <-time.After(settlePoll):
		case <-ctx.Done():
			return fmt.Errorf("what was published here has not come back from Redis: %w", context.Cause(ctx))
		}
	}
	if err := h.cut.Mark(ctx); err != nil {
		return err
	}
	if err := h.cut.Wait(ctx); err != nil {
		return err
	}
	g.updates.hold()
	h.undoBy(func(bool) { g.updates.release() })
	g.hub.HandOverPaced()
	return nil
}

// standStill stops the loops where they are, and tells the successor what it does not know yet.
func (h *handOver) standStill(ctx context.Context) error {
	g := h.gateway
	g.orders.carrying.Lock() // on a loop that stands nothing can be carried out: it waits for who serves
	h.undoBy(func(taken bool) {
		g.orders.moved = taken
		g.orders.carrying.Unlock()
	})
	h.stood = time.Now()
	var stands stands
	stands.begin(g, &h.copies)
	h.undoBy(stands.decide)
	if err := stands.wait(ctx); err != nil {
		return err
	}
	for _, body := range stands.frameBodies() {
		if _, err := h.call(ctx, messageFrames, body); err != nil {
			return err
		}
	}
	for _, stand := range stands.all {
		for _, part := range stand.parts {
			if err := h.send(ctx, part); err != nil {
				return err
			}
		}
	}
	if err := h.copyKept(ctx); err != nil {
		return err
	}
	rest := legacy{hub: *g.hub.Legacy(), orders: g.orders.done}
	for _, stand := range stands.all {
		rest.generations = append(rest.generations, stand.generation)
	}
	for _, body := range rest.messages() {
		if _, err := h.call(ctx, messageLegacy, body); err != nil {
			return err
		}
	}
	return h.cut.Check()
}

// give has the successor take the token. Whatever becomes of the message or of its answer, the token
// says who serves.
func (h *handOver) give(ctx context.Context) error {
	_, err := h.call(ctx, messageTake, nil)
	if err == nil {
		return nil
	}
	kept, tokenErr := h.token.Take()
	if kept || tokenErr != nil {
		return errors.Join(err, tokenErr)
	}
	h.gateway.logger.Warn("the successor serves, but did not say so", "error", err)
	return nil
}
