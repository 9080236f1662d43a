package gateway

import (
	"errors"
	"net/http"

	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// serveWebSocket is GET /ws.
func (g *Gateway) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	handshake, failure := proto.CheckUpgrade(withoutHead(r))
	if failure != nil {
		g.answer(w, r, refusalOf(failure))
		return
	}
	form, line, err := g.webSocketForm(r)
	if err != nil {
		g.answer(w, r, refusalOf(err))
		return
	}
	query, err := g.readQuery(r)
	if err != nil {
		g.answer(w, r, refusalOf(err))
		return
	}
	if g.draining.Load() {
		g.answer(w, r, refuse(refuseDraining, "this gateway is going; try again"))
		return
	}
	ordersBefore := g.orders.recent.count.Load()
	who, credential, err := g.identify(r, false)
	refused := ""
	var doubt *auth.Refusal
	switch {
	case err == nil && who.Anonymous && !g.policy.AnyPublic():
		refused = "Unauthorized"
	case errors.As(err, &doubt) && doubt.Status() == http.StatusUnauthorized:
		refused, who = "Unauthorized", auth.Anonymous()
		g.refused[refuseUnauthorized].Add(1)
	case err != nil:
		g.answer(w, r, refusalOf(err))
		return
	}
	place, full := g.admission.enter(who.User, auth.ClientAddress(r, g.proxies))
	if full != nil {
		g.answer(w, r, full)
		return
	}
	g.park(w, r, &guest{
		websocket: true, form: form, who: who, ticket: place, refused: refused,
		head:     proto.AppendSwitchingProtocols(nil, handshake.Accept, credential.Subprotocol, line),
		channels: g.unaskedChannels(who), wishes: g.wishes(r, query), ordersBefore: ordersBefore,
	})
}

// wishes gives the channels that a WebSocket names in its address, with where each goes on.
func (g *Gateway) wishes(r *http.Request, query streamQuery) []ask {
	if len(query.channels) == 0 {
		return nil
	}
	wishes := make([]ask, len(query.channels))
	from := g.fromEach(query.channels, positionsOf(r, query))
	for i, channel := range query.channels {
		if wishes[i].channel = channel; from != nil {
			wishes[i].from = from[i]
		}
	}
	return wishes
}

// withoutHead turns HEAD into the GET that it asks about: one that upgrades nothing, since HEAD
// cannot (RFC 6455 4.1).
func withoutHead(r *http.Request) *http.Request {
	if r.Method != http.MethodHead {
		return r
	}
	asked := r.Clone(r.Context())
	asked.Method = http.MethodGet
	asked.Header.Del("Upgrade")
	return asked
}

// halfRead is a message of one stream that has begun.
type halfRead struct {
	message proto.MessageReader
	begun   netio.Tick
}

// received takes what the peer of a stream sent.
func (s *sessions) received(slot netio.Slot, bytes []byte) {
	one := s.at(slot)
	if one.flags&sessionWebSocket == 0 {
		return // whatever stands behind the request of an event stream is not read
	}
	messages := &s.fresh
	if one.flags&sessionHalfRead != 0 {
		messages = &s.halfRead[slot].message
	} else {
		messages.Inflater = s.inflaterOf(slot)
	}
	limit := s.gateway.options.Limits.MaxMessageBytes
	for {
		message, rest, err := messages.Next(bytes, limit)
		if err != nil {
			s.protocolError(slot, one, messages, err)
			return
		}
		if message.Op == proto.OpContinuation {
			if s.keepHalfRead(slot, one, messages) {
				s.arm(slot, one) // its deadline may come before the next ping
			}
			return
		}
		one.heard = s.loop.Tick()
		s.message(slot, one, message)
		if !s.loop.Open(slot) {
			s.forgetHalfRead(messages)
			return
		}
		bytes = rest
	}
}

// keepHalfRead stores a reader that is in the middle of something, and frees one that is not. It
// reports whether a message has begun.
func (s *sessions) keepHalfRead(slot netio.Slot, one *session, messages *proto.MessageReader) (begun bool) {
	switch {
	case messages.Idle():
		s.freeHalfRead(slot, one)
	case one.flags&sessionHalfRead == 0:
		s.halfRead[slot] = &halfRead{message: *messages, begun: s.loop.Tick()}
		s.fresh = proto.MessageReader{}
		one.flags |= sessionHalfRead
		return true
	}
	return false
}

func (s *sessions) freeHalfRead(slot netio.Slot, one *session) {
	if one.flags&sessionHalfRead != 0 {
		delete(s.halfRead, slot)
		one.flags &^= sessionHalfRead
	}
}

// forgetHalfRead makes the shared reader fit for the next stream.
func (s *sessions) forgetHalfRead(messages *proto.MessageReader) {
	if messages == &s.fresh {
		s.fresh = proto.MessageReader{}
	}
}

// protocolError closes a stream whose peer broke the protocol.
func (s *sessions) protocolError(slot netio.Slot, _ *session, messages *proto.MessageReader, err error) {
	s.forgetHalfRead(messages)
	var failure *proto.ProtocolError
	if !errors.As(err, &failure) {
		panic(err)
	}
	reason := endProtocolError
	switch failure.Code {
	case proto.CloseNotUTF8:
		reason = endBadText
	case proto.CloseTooBig:
		reason = endMessageTooBig
	}
	s.endWebSocket(slot, reason, failure.Code, failure.Reason)
}

// message handles one whole message.
func (s *sessions) message(slot netio.Slot, one *session, message proto.Message) {
	switch message.Op {
	case proto.OpText:
		if s.pace(slot, one) {
			s.command(slot, one, message.Data)
		}
	case proto.OpBinary:
		s.endWebSocket(slot, endBadData, proto.CloseUnsupported, "commands are text")
	case proto.OpPing:
		if s.pace(slot, one) {
			s.send(slot, proto.AppendFrame(nil, proto.OpPong, message.Data))
		}
	case proto.OpClose:
		s.loop.SendBytes(slot, proto.AppendClose(nil, message.Code, ""))
		s.loop.End(slot, endClientClosed)
	}
}

// timerWebSocket does what is due on a WebSocket.
func (s *sessions) timerWebSocket(slot netio.Slot, one *session, now netio.Tick) {
	if now >= one.heard+ticks(s.gateway.timings.silence) {
		s.loop.Close(slot, endSilent)
		return
	}
	if one.flags&sessionHalfRead != 0 && now >= s.halfRead[slot].begun+ticks(s.gateway.timings.message) {
		s.endWebSocket(slot, endUnfinishedMessage, proto.ClosePolicy, "Message not finished")
		return
	}
	one.pace = later(one.pace, s.microseconds())
	if now >= s.heartbeatDue(one) {
		one.pinged = now
		s.loop.Offer(slot, s.ping, netio.Bulk, netio.Budget{Bytes: s.gateway.options.Limits.MaxQueueBytes})
	}
	s.giveUpAsks(slot, now)
}

// closeWebSocket ends a WebSocket with the close code that belongs to reason.
func (s *sessions) closeWebSocket(slot netio.Slot, reason netio.Reason, text string) {
	code := proto.ClosePolicy
	switch reason {
	case endDrained, endStreamAge:
		code = proto.CloseRestart
	case endSlow:
		code = proto.CloseOverloaded
	case endComplete:
		code = proto.CloseNormal
	}
	s.endWebSocket(slot, reason, code, text)
}

func (s *sessions) endWebSocket(slot netio.Slot, reason netio.Reason, code proto.CloseCode, text string) {
	s.loop.SendBytes(slot, proto.AppendClose(nil, code, text))
	s.loop.End(slot, reason)
}

// pace holds a client to its rate of commands (GCRA: one number a stream). It reports whether
// the command may be carried out; one that may not is answered, and a client that goes on
// regardless is closed.
func (s *sessions) pace(slot netio.Slot, one *session) bool {
	rate := s.gateway.options.Limits.CommandsPerSecond
	s.counters.commands++
	if rate <= 0 {
		return true
	}
	const second = 1_000_000 // microseconds
	interval := second / int64(rate)
	now := s.microseconds()
	arrival := later(one.pace, now)
	switch ahead := int64(arrival - now); {
	case ahead <= interval*int64(burst*rate):
		one.pace = arrival + uint32(interval)
		return true
	case ahead <= interval*int64(2*burst*rate):
		// Answered, and held against it: at twice the burst it is out.
		one.pace = arrival + uint32(interval)
		s.counters.rateLimited++
		s.say(slot, "error", proto.AppendError(nil, proto.CodeRateLimited, "more commands than commands-per-second allows; slow down", "", nil))
		return false
	default:
		s.closeWebSocket(slot, endFlood, "Too many commands")
		return false
	}
}

// microseconds is the loop's clock as session.pace has it. It wraps after 71 minutes, so times are
// compared with later only, and each WebSocket's is brought up to date by its timer.
func (s *sessions) microseconds() uint32 { return uint32(s.loop.Now() / 1000) }

// later is the later of two times less than 35 minutes apart.
func later(one, other uint32) uint32 {
	if int32(one-other) > 0 {
		return one
	}
	return other
}

// burst is how many seconds' worth of commands may come at once.
const burst = 4

// subscribeNow subscribes a stream to a channel that it may hear, and answers when it is confirmed.
func (s *sessions) subscribeNow(slot netio.Slot, wish ask) {
	outcome := s.shard.Subscribe(slot, wish.channel, wish.from)
	if wish.from.Kind != hub.FromNow {
		switch {
		case outcome == hub.AlreadyHas && s.at(slot).flags&sessionGreeted != 0:
			// It would go on from a position on a channel that it hears already, as a personal one:
			// it leaves and comes back, and what it heard meanwhile is part of the replay.
			s.shard.Unsubscribe(slot, wish.channel)
			outcome = s.shard.Subscribe(slot, wish.channel, wish.from)
		case outcome == hub.AlreadyHas || outcome == hub.AlreadyAsk:
			wish.late = true
		}
	}
	if wish.channel.Wildcard() && outcome != hub.TooMany {
		s.shard.SetForm(slot, s.shard.Form(slot).Enveloped())
	}
	switch outcome {
	case hub.Confirmed, hub.AlreadyHas:
		if s.gateway.debugs() {
			s.debug(slot, "subscribed", "channel", wish.channel.Name())
		}
		s.saySubscribed(slot, wish)
	case hub.Asked, hub.AlreadyAsk:
		s.ask(slot, wish)
	case hub.TooMany:
		s.refuse(slot, proto.CodeTooManySubscriptions, "this stream has as many channels as max-subscriptions allows; unsubscribe from one first", wish.channel.Name(), wish.ref)
	}
}

func (s *sessions) refuse(slot netio.Slot, code, message, channel string, ref []byte) {
	s.say(slot, "error", proto.AppendError(nil, code, message, channel, ref))
}
