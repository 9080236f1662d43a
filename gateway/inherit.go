package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/gateway/access"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/netio/handoff"
	"github.com/millrace/millrace/proto"
)

// This file is the new gateway's side of a live upgrade: it takes what the old one tells, touches none
// of its sockets, and goes on with all of them at once when it has the token. What it makes of a
// stream stands in resume.go.

const (
	// readyTimeout is how long a new gateway may take to reach Redis, and the keys of tokens.
	readyTimeout = 45 * time.Second
	// markTimeout is how long the mark may take, which the old gateway has seen already, and then what has
	// to be read again.
	markTimeout = 5 * time.Second
	// inheritPoll is how often a new gateway looks whether what it waits for has come.
	inheritPoll = 5 * time.Millisecond
)

// Inherit makes a gateway that goes on with the streams and the listeners of another process, whose
// [Gateway.HandOver] has the other end of conn. When it returns the gateway has all streams, and
// [Gateway.Run] is to be called at once. On an error, or when ctx is done before, the other process
// serves on, and nothing of its streams was touched. software names this process's version. The
// number of loops is that of the other process, whatever options say.
func Inherit(ctx context.Context, options Options, conn *handoff.Conn, software string) (*Gateway, error) {
	return inherit(ctx, options, contractTimings, conn, software)
}

func inherit(ctx context.Context, options Options, waits timings, conn *handoff.Conn, software string) (*Gateway, error) {
	i := &inheriting{options: options, timings: waits, conn: conn, software: software}
	for {
		err := i.hear(ctx)
		switch {
		case err != nil:
			i.from.close()
			if i.gateway != nil {
				i.gateway.Close()
			}
			return nil, fmt.Errorf("inherit: %w", err)
		case i.taken:
			i.from.close()
			return i.gateway, nil
		}
	}
}

// inheriting is a gateway on its way to have what another one has.
type inheriting struct {
	options  Options
	timings  timings
	conn     *handoff.Conn
	software string

	from     heritage
	gateway  *Gateway // from hello on
	listened bool
	taken    bool
}

// hear takes one message and answers it.
func (i *inheriting) hear(ctx context.Context) error {
	m, err := i.conn.Receive(ctx)
	if err == io.EOF {
		return errors.New("the old process has withdrawn, or is gone")
	}
	if err != nil {
		return err
	}
	body, err := i.answer(ctx, &m)
	m.CloseDescriptors()
	if err != nil {
		_ = i.conn.Fail(err)
		return err
	}
	if err := i.conn.Done(body); err != nil && !i.taken {
		return err // once it is taken the token says so too
	}
	return nil
}

// answer does what a message asks for. What it makes its own of the descriptors it takes out of the
// message.
func (i *inheriting) answer(ctx context.Context, m *handoff.Message) (body []byte, err error) {
	if (i.gateway == nil) != (m.Kind == messageHello) {
		return nil, fmt.Errorf("%w: the message %d is out of place", handoff.ErrMalformed, m.Kind)
	}
	switch m.Kind {
	case messageHello:
		return i.begin(ctx, m)
	case messageStreams:
		return nil, i.takeStreams(m)
	case messageListen:
		return i.listen(ctx, m.Body)
	case messageFrames:
		frames, err := parseFrames(m.Body, len(i.from.frames))
		for _, one := range frames {
			i.from.frames[one.loop][one.number] = one.bytes
		}
		return nil, err
	case messageLegacy:
		err := i.from.rest.take(m.Body)
		for _, name := range i.from.rest.held {
			if !i.listened { // else it was not heard from the mark on, and is not whole here
				i.want(name)
			}
		}
		i.from.rest.held = nil
		return nil, err
	case messageTake:
		if err := handoff.Read(m.Body, handoff.Field.Unknown); err != nil {
			return nil, err
		}
		return nil, i.take(ctx)
	default:
		return nil, fmt.Errorf("%w: a message of the kind %d, which this version does not know", handoff.ErrMandatory, m.Kind)
	}
}

// begin makes the gateway, and returns when it could serve.
func (i *inheriting) begin(ctx context.Context, m *handoff.Message) ([]byte, error) {
	words, err := parseHello(m.Body)
	if err != nil {
		return nil, err
	}
	want := 2
	if words.admin {
		want++
	}
	if len(m.Descriptors) != want {
		return nil, fmt.Errorf("%w: %d descriptors came with hello, not %d", handoff.ErrMalformed, len(m.Descriptors), want)
	}
	fds := m.Descriptors
	m.Descriptors = nil
	i.from = heritage{epoch: words.epoch, ticks: words.ticks, clock: words.clock, plain: words.plain, token: handoff.TokenFrom(fds[0]), interest: make(map[string]func())}
	for range words.ticks {
		i.from.streams = append(i.from.streams, make(map[netio.ID]*inheritedStream))
		i.from.frames = append(i.from.frames, make(map[uint64][]byte))
	}
	i.from.listener, err = netio.ListenOnDescriptor(fds[1])
	if words.admin {
		var failure error
		i.from.adminListener, failure = netio.ListenOnDescriptor(fds[2])
		err = errors.Join(err, failure)
	}
	if err != nil {
		return nil, err
	}
	g, err := newHeir(i.options, i.timings, &i.from)
	if err != nil {
		return nil, err
	}
	i.gateway = g
	if _, err := g.redisOf(); err != nil {
		return nil, err
	}
	err = waitUntil(ctx, readyTimeout, func() bool {
		return g.brokerHealth().Delivering && (g.verifier == nil || g.verifier.Ready())
	})
	if err != nil {
		return nil, fmt.Errorf("the new process did not reach Redis, or the key set (%s): %w", g.brokerHealth().Reason, err)
	}
	return appendText(nil, handoff.May(helloSoftware), i.software), nil
}

// waitUntil returns nil as soon as done says yes, and an error when ctx is done or within is over.
func waitUntil(ctx context.Context, within time.Duration, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for !done() {
		select {
		case <-time.After(inheritPoll):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// takeStreams takes note of streams that are new, have changed, or are gone.
func (i *inheriting) takeStreams(m *handoff.Message) error {
	next := 0
	err := handoff.Read(m.Body, func(f handoff.Field) error {
		switch f.Key.Number() {
		case streamsNew:
			if next == len(m.Descriptors) {
				return fmt.Errorf("%w: a stream without a descriptor", handoff.ErrMalformed)
			}
			fd := m.Descriptors[next]
			err := i.takeStream(f.Value, fd)
			if err == nil {
				m.Descriptors[next] = -1 // ours
				next++
			}
			return err
		case streamsChanged:
			return i.takeStream(f.Value, -1)
		case streamsGone:
			return i.dropStream(f)
		default:
			return f.Unknown()
		}
	})
	if err == nil && next != len(m.Descriptors) {
		err = fmt.Errorf("%w: %d descriptors for %d streams", handoff.ErrMalformed, len(m.Descriptors), next)
	}
	return err
}

// takeStream takes note of one stream; without a descriptor it is one that came before.
func (i *inheriting) takeStream(body []byte, fd int) error {
	stream, err := parseStream(body)
	if err != nil {
		return err
	}
	if stream.id.Loop() >= len(i.from.streams) {
		return fmt.Errorf("%w: a stream of loop %d", handoff.ErrMalformed, stream.id.Loop())
	}
	streams := i.from.streams[stream.id.Loop()]
	before := streams[stream.id]
	if (before == nil) != (fd >= 0) {
		return fmt.Errorf("%w: the stream %x comes twice, or has no descriptor", handoff.ErrMalformed, uint64(stream.id))
	}
	if before != nil {
		fd = before.fd
	}
	streams[stream.id] = &inheritedStream{carriedStream: stream, fd: fd}
	for n := range stream.hub.Subscriptions {
		switch sub := &stream.hub.Subscriptions[n]; {
		case !sub.Confirmed:
		case i.listened && i.from.interest[sub.Channel] == nil:
			// It was confirmed there too late for us to hear all of it: it begins anew, with a gap.
			sub.Confirmed, sub.From = false, hub.From{Kind: hub.FromUnknown}
		default:
			i.want(sub.Channel)
		}
	}
	return nil
}

func (i *inheriting) dropStream(f handoff.Field) error {
	name, err := f.Number()
	if err != nil {
		return err
	}
	id := netio.ID(name)
	if id.Loop() < len(i.from.streams) && i.from.streams[id.Loop()][id] != nil {
		_ = unix.Close(i.from.streams[id.Loop()][id].fd)
		delete(i.from.streams[id.Loop()], id)
	}
	return nil
}

// want has the broker listen to a channel, for those who will hear it.
func (i *inheriting) want(name string) {
	if i.from.interest[name] != nil {
		return
	}
	if channel, err := proto.ParseChannel(name); err == nil {
		i.from.interest[name] = i.gateway.hub.Listen(channel, func(hub.Notice) {})
	}
}

// listen returns when every channel that a stream hears is heard here, and the mark.
func (i *inheriting) listen(ctx context.Context, body []byte) (answer []byte, err error) {
	mark := ""
	err = handoff.Read(body, func(f handoff.Field) error {
		if f.Key.Number() != listenMark {
			return f.Unknown()
		}
		mark = string(f.Value)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if mark == "" || i.listened {
		return nil, fmt.Errorf("%w: a mark without a name, or a second one", handoff.ErrMalformed)
	}
	count := 0
	for _, streams := range i.from.streams {
		count += len(streams)
	}
	if err := netio.CheckWatches(2 * count); err != nil { // for a moment both processes watch them
		return nil, err
	}
	servers, err := i.from.cut.Listen(ctx, mark)
	if err != nil {
		return nil, err
	}
	// Behind it: should a connection be lost from here on, the cut knows. So what is confirmed now was
	// confirmed before the mark.
	if err := waitUntil(ctx, heldBackMax, i.hearsAll); err != nil {
		return nil, fmt.Errorf("not every channel was confirmed by Redis: %w", err)
	}
	if err := i.from.cut.Check(); err != nil {
		return nil, err
	}
	i.listened = true
	for _, server := range servers {
		answer = handoff.Append(answer, handoff.Must(listenServer), server)
	}
	return answer, nil
}

func (i *inheriting) hearsAll() bool {
	for channel := range i.from.interest {
		if !i.gateway.hub.IsConfirmed(channel) {
			return false
		}
	}
	return true
}

// take makes sure that nothing is missing, takes the token, and goes on with all streams.
func (i *inheriting) take(ctx context.Context) error {
	if err := i.isWhole(ctx); err != nil {
		return err
	}
	taken, err := i.from.token.Take()
	if err != nil {
		return err
	}
	if !taken {
		return errors.New("the old process has withdrawn")
	}
	i.taken = true
	i.goOn()
	return nil
}

// isWhole says what is missing, nil if nothing is.
func (i *inheriting) isWhole(ctx context.Context) error {
	if !i.listened || len(i.from.rest.generations) != len(i.from.streams) {
		return fmt.Errorf("%w: take, before everything was told", handoff.ErrMalformed)
	}
	for loop, streams := range i.from.streams {
		if err := netio.CheckRevivals(loop, revivalsOf(streams)); err != nil {
			return err
		}
		for _, one := range streams {
			if one.hub.Form.IsGzip() != one.trail.spliced {
				return fmt.Errorf("%w: a stream of the wire form %d, and what is said of its end does not fit", handoff.ErrMalformed, one.hub.Form)
			}
			for _, frame := range one.unsent {
				if bytes := i.from.frames[loop][frame.number]; frame.taken >= uint64(len(bytes)) {
					return fmt.Errorf("%w: %d bytes are sent of a frame of %d", handoff.ErrMalformed, frame.taken, len(bytes))
				}
			}
		}
	}
	limited, cancel := context.WithTimeout(ctx, markTimeout)
	defer cancel()
	if err := i.from.cut.Wait(limited); err != nil {
		return err
	}
	if !i.hearsAll() {
		return errors.New("a channel is no longer confirmed by Redis")
	}
	if err := i.catchUp(limited); err != nil {
		return err
	}
	return i.from.cut.Check()
}

// catchUp returns when what is known here of states and logs is at least as new as what streams were sent:
// both processes read them, and the other one may have been faster. Where they differ they are read again.
func (i *inheriting) catchUp(ctx context.Context) error {
	redis, err := i.gateway.redisOf()
	if err != nil {
		return err
	}
	h := i.gateway.hub
	asked := h.CatchUp(&i.from.rest.hub, redis.Renew)
	err = waitUntil(ctx, markTimeout, func() bool {
		return !slices.ContainsFunc(asked, func(channel string) bool { return !h.IsConfirmed(channel) })
	})
	if err != nil {
		return fmt.Errorf("states and logs that the streams have could not be read: %w", err)
	}
	h.HandOverPaced()
	return nil
}

func revivalsOf(streams map[netio.ID]*inheritedStream) []netio.Revival {
	revivals := make([]netio.Revival, 0, len(streams))
	for id, one := range streams {
		revivals = append(revivals, netio.Revival{
			ID: id, FD: one.fd, LastWrite: one.lastWrite,
			Spliced: one.trail.spliced, TextSum: one.trail.sum, TextLength: one.trail.length,
		})
	}
	return revivals
}

// goOn begins to serve the streams. Nothing can go wrong here that could be undone.
func (i *inheriting) goOn() {
	g := i.gateway
	// What is delivered here before Redis has it would miss the streams that are not here yet.
	g.publishing.Lock()
	defer g.publishing.Unlock()
	g.hub.Succeed(&i.from.rest.hub, i.from.rest.kept)
	var going sync.WaitGroup
	for loop, s := range g.sessions {
		going.Go(func() {
			_ = s.loop.Do(context.Background(), func() { s.goOn(loop, &i.from) })
		})
	}
	going.Wait()
	g.orders.serve(i.from.rest.orders)
	i.from.cut.Release(g.letLoopsTurn) // behind what the streams have in their queues
	var councils []proto.Channel
	for name, end := range i.from.interest {
		end() // the streams want it themselves now, or it is held for who may come back
		if channel, err := proto.ParseChannel(name); err == nil && channel.Type() == access.CouncilType {
			councils = append(councils, channel)
		}
	}
	slices.SortFunc(councils, func(a, b proto.Channel) int { return strings.Compare(a.Name(), b.Name()) })
	if len(councils) > 0 {
		g.spawn(func(ctx context.Context) {
			for _, channel := range councils {
				g.councils.followAgain(ctx, channel)
			}
		})
	}
	for _, streams := range i.from.streams {
		clear(streams) // their descriptors are the loops'
	}
}
