package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// Notice is what a [Gateway.Subscribe] callback is told: an event, the value of a state, an entry of
// a log; or, with Gap set, that some of the channel's may be missing; or, with Deleted, that a state
// has no value any more.
type Notice struct {
	Channel string
	// ID is the event's id; empty for a state, a gap and a deletion.
	ID string
	// Data is one JSON value, nil for a gap and a deletion; in a namespace with batch the message
	// {"type":"batch","channel":C,"events":[..]}. It must not be changed and may be kept.
	Data []byte
	// Gap is why something may be missing, in the words of the gap message: slow, broker, trimmed
	// or rewound.
	Gap     string
	Deleted bool
}

// Publish publishes events, all or none, as POST /api/publish does: on Redis if there is one, by
// PUBLISH, XADD or SET as the mode of each one's namespace asks. While Redis is away events reach
// the streams of this process only, and the result says so; with a log or a state among them
// nothing is published, and the error is a [broker.ErrUnavailable]. It waits for Redis, at most 5 s
// or until ctx is done. Other errors say which event was wrong, or what Redis refuses
// ([broker.ErrRefused]); [ErrClosed] says that the gateway has ended.
func (g *Gateway) Publish(ctx context.Context, events ...Event) (PublishResult, error) {
	for i, event := range events {
		channel, err := proto.ParseChannel(event.Channel)
		if err != nil {
			return PublishResult{}, fmt.Errorf("event %d: %w", i, err)
		}
		if refused := g.judge(channel, event.Data); refused != nil {
			return PublishResult{}, fmt.Errorf("event %d: %w", i, refused)
		}
	}
	if len(events) == 0 {
		return PublishResult{Distributed: true}, nil
	}
	return g.publish(ctx, events)
}

// Subscribe calls call for every event on channel ("type:id", "type:id:user", or "type:*" where
// its namespace allows that) from soon after it returns until unsubscribe: of a state its value, if
// it has one, and each newest one after that; of a log what is added from then on. All callbacks
// run one after the other on one goroutine; one that is too slow makes all miss events, and be told
// of a gap. unsubscribe does not wait for a call that is under way.
func (g *Gateway) Subscribe(channel string, call func(Notice)) (unsubscribe func(), err error) {
	parsed, err := proto.ParseChannel(channel)
	if err != nil {
		return nil, err
	}
	if parsed.Wildcard() && !g.policy.Namespace(parsed.Type()).Wildcard {
		return nil, fmt.Errorf("channel %s: its namespace has no wildcard", channel)
	}
	if g.lifetime.Err() != nil {
		return nil, ErrClosed
	}
	return g.hub.Listen(parsed, g.noticing(parsed, call)), nil
}

// noticing hands on what the hub tells of a channel.
func (g *Gateway) noticing(channel proto.Channel, call func(Notice)) func(hub.Notice) {
	var deleted []byte // how the hub spells the end of a value
	if g.rules.of(channel.Type()).Kind == broker.State {
		deleted = proto.AppendDeleted(nil, channel.Name())
	}
	return func(n hub.Notice) {
		notice := Notice{Channel: n.Channel, ID: n.ID, Data: n.Data, Gap: n.Gap}
		if deleted != nil && bytes.Equal(n.Data, deleted) {
			notice.Data, notice.Deleted = nil, true
		}
		call(notice)
	}
}

// SendToUser publishes data on the user's channel of the first personal type, which every stream
// of the user hears without asking, on every gateway.
func (g *Gateway) SendToUser(ctx context.Context, user string, data []byte) (PublishResult, error) {
	channels := g.policy.PersonalChannels(user)
	if len(channels) == 0 {
		return PublishResult{}, fmt.Errorf("no personal channel for user %q: either none is configured (personal) or the id does not fit a channel's name", user)
	}
	return g.Publish(ctx, Event{Channel: channels[0], Data: data})
}

// Broadcast publishes data on the first broadcast channel, which every stream hears, on every
// gateway.
func (g *Gateway) Broadcast(ctx context.Context, data []byte) (PublishResult, error) {
	if len(g.broadcast) == 0 {
		return PublishResult{}, errors.New("no broadcast channel is configured (broadcast)")
	}
	return g.Publish(ctx, Event{Channel: g.broadcast[0].Name(), Data: data})
}

// ErrClosed is what methods return of a gateway that has ended.
var ErrClosed = errors.New("gateway: closed")

// ErrNoClient says that no stream of this gateway has that client id now.
var ErrNoClient = errors.New("no such client on this gateway")

// SendToClient sends data, one JSON value, to the one stream with that client id, which connected
// told it. The stream must be on this gateway: [ErrNoClient] if it is not, or is gone. A nil
// error means that the stream was there, not that its client read the event.
func (g *Gateway) SendToClient(ctx context.Context, clientID string, data []byte) error {
	// A copy: where ctx ends first, the loop may come to it when the caller has gone on.
	event, err := proto.NewEvent(directChannel, "", bytes.Clone(data))
	if err != nil {
		return fmt.Errorf("the data is not one JSON value in UTF-8: %w", err)
	}
	return g.direct(ctx, clientID, func(s *sessions, slot netio.Slot) {
		s.sendEvent(slot, event)
	})
}

// directChannel stands in the envelope of what is sent to one client.
var directChannel = func() proto.Channel {
	channel, err := proto.NewChannel("client", "direct", "")
	if err != nil {
		panic(err)
	}
	return channel
}()

// Complete tells the client that its stream is complete, with data (one JSON value, or nil), and
// ends it in order. A browser's EventSource does not come back. Errors as for SendToClient.
func (g *Gateway) Complete(ctx context.Context, clientID string, data []byte) error {
	if data != nil {
		if _, err := proto.NewEvent(directChannel, "", data); err != nil {
			return fmt.Errorf("the data is not one JSON value in UTF-8: %w", err)
		}
	}
	message := proto.AppendComplete(nil, data)
	return g.direct(ctx, clientID, func(s *sessions, slot netio.Slot) {
		if s.at(slot).flags&sessionWebSocket != 0 {
			s.say(slot, "complete", message)
			s.closeWebSocket(slot, endComplete, "Complete")
			return
		}
		id := string(proto.AppendEndID(nil, clientID))
		s.endStream(slot, endComplete, proto.AppendSSE(nil, s.shard.Form(slot), "complete", id, message))
	})
}

// Error tells the client that something failed: on SSE the event server_error, on WebSocket an
// error, with code (one word) and message, which must hold nothing that the client may not read.
// The stream goes on. Errors as for SendToClient.
func (g *Gateway) Error(ctx context.Context, clientID, code, message string) error {
	return g.direct(ctx, clientID, func(s *sessions, slot netio.Slot) {
		if s.at(slot).flags&sessionWebSocket != 0 {
			s.refuse(slot, code, message, "", nil)
			return
		}
		s.say(slot, "server_error", proto.AppendServerError(nil, code, message))
	})
}

// direct runs do for the stream of a client, on its loop, and waits for it.
func (g *Gateway) direct(ctx context.Context, clientID string, do func(s *sessions, slot netio.Slot)) error {
	id, ok := g.parseClientID(clientID)
	if !ok || id.Loop() >= len(g.loops) {
		return ErrNoClient
	}
	s := g.sessions[id.Loop()]
	found := false
	err := s.loop.Do(ctx, func() {
		var slot netio.Slot
		if slot, found = s.loop.Find(id); found {
			do(s, slot)
		}
	})
	switch {
	case errors.Is(err, netio.ErrLoopClosed):
		return ErrClosed
	case err == nil && !found:
		return ErrNoClient
	}
	return err
}

// clientID is the text by which the outside knows a stream: the gateway's life, and the stream.
func (g *Gateway) clientID(id netio.ID) string {
	return g.epoch + "-" + strconv.FormatUint(uint64(id), 36)
}

func (g *Gateway) parseClientID(text string) (netio.ID, bool) {
	epoch, rest, _ := strings.Cut(text, "-")
	id, err := strconv.ParseUint(rest, 36, 64)
	return netio.ID(id), epoch == g.epoch && err == nil
}
