package gateway

import (
	"log/slog"
	"math"
	"math/rand/v2"
	"time"

	"github.com/millrace/millrace/council"
	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
	"github.com/millrace/millrace/proto/deflate"
)

// timings are how long the gateway waits for what. They are no settings, since clients and
// proxies are built to rely on them; tests shorten them. None is shorter than a second.
type timings struct {
	keepAlive time.Duration // of silence, before an SSE comment
	heartbeat time.Duration // between two pings
	silence   time.Duration // without a frame, and a WebSocket is closed
	confirm   time.Duration // for the broker to confirm a subscription
	message   time.Duration // for a message begun to be finished
	follow    time.Duration // between two words of a gateway about councils that are watched on it
	council   council.Timings
}

// contractTimings are the numbers that are promised.
var contractTimings = timings{
	keepAlive: 15 * time.Second,
	heartbeat: 30 * time.Second,
	silence:   60 * time.Second,
	confirm:   10 * time.Second,
	message:   30 * time.Second,
	follow:    5 * time.Second,
}

// guest is a request on its way to becoming a stream: what the desk knows and the loop needs.
type guest struct {
	websocket bool
	form      proto.Form
	head      []byte // the answer's head: the first bytes of the stream
	text      []byte // of a gzip stream, what its first bytes say
	who       *auth.Identity
	ticket    ticket
	channels  []proto.Channel
	from      []hub.From // of each channel, where it goes on; nil: all live only
	wishes    []ask      // a WebSocket's, as if it had sent a subscribe for each
	preface   *preface   // nil: nothing but the greeting
	// ordersBefore is how many orders operators had given when the request began.
	ordersBefore uint64
	taken        []proto.Channel // by those that were given since
	// refused, where set, ends a WebSocket right after its handshake.
	refused string
}

// sessionFlags are facts about a session.
type sessionFlags uint8

const (
	sessionHere      sessionFlags = 1 << iota // the slot has a session
	sessionWebSocket                          // else SSE
	sessionGreeted                            // connected was sent
	sessionCounted                            // its place in the admission is to be given back
	sessionAged                               // ends because of its age, not of its token
	sessionHalfRead                           // has a message in sessions.halfRead
)

// session is what the gateway knows of a stream. No pointers.
type session struct {
	flags   sessionFlags
	_       uint8
	waiting uint16 // until connected was sent: subscriptions to be confirmed before it; then the minute in which it was sent
	person  uint32 // index in sessions.people; 0: nobody in particular
	heard   netio.Tick
	pinged  netio.Tick // until connected was sent: when the session began
	expires netio.Tick // 0: never
	pace    uint32     // commands: the theoretical arrival time of GCRA, in microseconds
}

// sessions is the gateway's share of one loop. It runs on the loop's goroutine only.
type sessions struct {
	gateway *Gateway
	loop    *netio.Loop
	shard   *hub.Shard

	slab     netio.Slab[session]
	people   people
	halfRead map[netio.Slot]*halfRead
	fresh    proto.MessageReader // reads for every stream with nothing half-read
	inflater deflate.Inflater
	asks     map[netio.Slot][]ask
	prefaces map[netio.Slot]*preface // of streams that have yet to be greeted

	keepAlive [proto.FormCount]netio.Frame
	ping      netio.Frame
	drain     drainCursor
	highest   netio.Slot
	counters  sessionCounters
	// outstanding counts what others work on for streams of this loop and will post back.
	outstanding int
}

type sessionCounters struct {
	sse, websocket int // streams now
	commands       uint64
	rateLimited    uint64
}

func newSessions(g *Gateway, shard *hub.Shard) *sessions {
	return &sessions{
		gateway: g, shard: shard, people: newPeople(),
		halfRead: make(map[netio.Slot]*halfRead), asks: make(map[netio.Slot][]ask),
		prefaces: make(map[netio.Slot]*preface),
	}
}

// attach gives the sessions their loop, before it runs.
func (s *sessions) attach(loop *netio.Loop) {
	s.loop = loop
	s.shard.Attach(loop)
	for form := range proto.FormCount {
		if form.IsSSE() {
			s.keepAlive[form] = s.shard.OwnFrame(form, proto.AppendSSEComment(nil, form, "keep-alive"))
		}
	}
	s.ping = loop.NewFrame(proto.PingFrame(), 0)
}

// events are the callbacks of the loop.
func (s *sessions) events() netio.Events {
	return netio.Events{
		Adopted:  func(slot netio.Slot, g any) { s.adopted(slot, g.(*guest)) },
		Received: s.received,
		Timer:    s.timer,
		Drained:  s.shard.Drained,
		Closed:   s.closed,
		Mail:     s.shard.Mail,
		Work: func() bool {
			more := s.shard.Work()
			return s.drainSome() || more
		},
		Encode: hub.EncodePiece,
		Panicked: func(value any, stack []byte) {
			s.gateway.loopLog.write(slog.LevelError, "a loop's callback panicked; its stream was closed", "panic", value, "stack", string(stack))
		},
	}
}

func (s *sessions) at(slot netio.Slot) *session { return s.slab.At(uint32(slot)) }

// adopted begins a stream.
func (s *sessions) adopted(slot netio.Slot, g *guest) {
	s.slab.Grow(uint32(slot))
	s.highest = max(s.highest, slot)
	one := s.at(slot)
	tick := s.loop.Tick()
	*one = session{flags: sessionHere | sessionCounted, heard: tick, pinged: tick, pace: s.microseconds()}
	if g.websocket {
		one.flags |= sessionWebSocket
		s.counters.websocket++
	} else {
		s.counters.sse++
	}
	if !g.who.Anonymous || g.ticket != (ticket{}) {
		one.person = s.people.add(g.ticket, s.grants(g.who))
	}
	s.setExpiry(one, g.who)
	s.shard.Join(slot, g.form)
	if g.form.IsGzip() {
		s.loop.Splice(slot, g.text)
	}
	s.loop.SendBytes(slot, g.head)
	if g.refused != "" {
		s.closeWebSocket(slot, endUnauthorized, g.refused)
		return
	}
	if s.gateway.draining.Load() {
		s.leave(slot)
		return
	}
	if !s.obeyRecent(slot, g) {
		return
	}
	if g.preface != nil {
		s.prefaces[slot] = g.preface
	}
	for i, channel := range g.channels {
		var from hub.From
		if g.from != nil {
			from = g.from[i]
		}
		if s.shard.Subscribe(slot, channel, from) == hub.Asked {
			one.waiting++
		}
	}
	if one.waiting == 0 {
		s.greet(slot, one)
	}
	for _, channel := range g.taken {
		s.say(slot, "unsubscribed", proto.AppendUnsubscribed(nil, channel.Name(), nil))
	}
	for _, wish := range g.wishes {
		if !s.subscribe(slot, one, wish) {
			return
		}
	}
	s.arm(slot, one)
}

// greet tells the client that it is connected: from here on nothing on its channels is missed.
func (s *sessions) greet(slot netio.Slot, one *session) {
	one.flags |= sessionGreeted
	one.waiting = s.minute()
	var channels []proto.Channel
	s.shard.Channels(slot, func(channel proto.Channel, confirmed bool) bool {
		if confirmed {
			channels = append(channels, channel)
		}
		return true
	})
	user := s.user(one)
	if s.gateway.debugs() {
		s.debug(slot, "stream connected", "user", user, "channels", len(channels))
	}
	greeting := proto.AppendConnected(nil, s.gateway.clientID(s.loop.ID(slot)), user, channels)
	if first := s.prefaces[slot]; first != nil {
		delete(s.prefaces, slot)
		s.sayPreface(slot, first, greeting)
	} else {
		s.say(slot, "connected", greeting)
	}
	for _, channel := range channels {
		s.shard.Begin(slot, channel)
	}
}

// minute is the loop's time in whole minutes; it begins anew after 45 days.
func (s *sessions) minute() uint16 { return uint16(s.loop.Tick() / ticks(time.Minute)) }

// greetIfNothingWaits greets a client that no longer wants the channels that it was waiting for.
func (s *sessions) greetIfNothingWaits(slot netio.Slot, one *session) {
	if one.flags&sessionGreeted != 0 {
		return
	}
	one.waiting = 0
	s.shard.Channels(slot, func(channel proto.Channel, confirmed bool) bool {
		// An event stream waits for all its channels, a WebSocket for those it did not ask for.
		if !confirmed && (one.flags&sessionWebSocket == 0 || s.gateway.isUnasked(channel, s.who(one))) {
			one.waiting++
		}
		return true
	})
	if one.waiting == 0 {
		s.greet(slot, one)
	}
}

// subscribed follows when the broker has confirmed a subscription that was asked for.
func (s *sessions) subscribed(slot netio.Slot, channel proto.Channel) {
	one := s.at(slot)
	if s.gateway.debugs() {
		s.debug(slot, "subscribed", "channel", channel.Name())
	}
	s.answerAsk(slot, channel)
	if one.flags&sessionGreeted != 0 {
		s.shard.Begin(slot, channel)
		return
	}
	if one.flags&sessionWebSocket != 0 && !s.gateway.isUnasked(channel, s.who(one)) {
		return // asked for by a command that came before the greeting
	}
	if one.waiting--; one.waiting == 0 {
		s.greet(slot, one)
	}
}

// debug logs what concerns one stream; the loop does not wait for the log. Ask [Gateway.debugs] first:
// the arguments alone cost more than most of what a stream does.
func (s *sessions) debug(slot netio.Slot, message string, arguments ...any) {
	arguments = append(arguments, "client", s.gateway.clientID(s.loop.ID(slot)))
	s.gateway.loopLog.write(slog.LevelDebug, message, arguments...)
}

// say sends a message of the gateway's own. A client that does not read what it caused to be
// said is closed.
func (s *sessions) say(slot netio.Slot, name string, json []byte) {
	s.send(slot, proto.AppendMessage(nil, s.shard.Form(slot), name, json))
}

// send queues what the Append functions of package proto wrote for a stream, within its budget.
func (s *sessions) send(slot netio.Slot, text []byte) {
	f := s.shard.OwnFrame(s.shard.Form(slot), text)
	if !s.loop.Offer(slot, f, netio.Express, netio.Budget{Bytes: s.gateway.options.Limits.MaxQueueBytes}) {
		s.loop.Close(slot, endSlow)
	}
	s.loop.Release(f)
}

// closed is the end of every stream.
func (s *sessions) closed(slot netio.Slot, reason netio.Reason) {
	s.shard.Leave(slot)
	one := s.at(slot)
	if one.flags&sessionHere == 0 {
		return // its adoption failed before the session began
	}
	if one.flags&sessionWebSocket != 0 {
		s.counters.websocket--
	} else {
		s.counters.sse--
	}
	delete(s.asks, slot)
	delete(s.prefaces, slot)
	s.freeHalfRead(slot, one)
	place := s.people.remove(one.person)
	if one.flags&sessionCounted != 0 {
		s.gateway.admission.leave(place)
	}
	*one = session{}
	if s.gateway.debugs() {
		s.debug(slot, "stream ended", "reason", endName(reason))
	}
}

// setExpiry notes when the session ends by itself: when its token expires, or at its age.
func (s *sessions) setExpiry(one *session, who *auth.Identity) {
	one.expires, one.flags = 0, one.flags&^sessionAged
	if age := s.gateway.options.Limits.MaxStreamAge; age > 0 {
		spread := age - age/10 + time.Duration(rand.Int64N(int64(age/5)+1))
		one.expires, one.flags = s.tickIn(spread), one.flags|sessionAged
	}
	if who.Expires.IsZero() {
		return
	}
	// The spread keeps tokens that were minted together from ending all in one turn.
	left := time.Until(who.Expires) + time.Duration(rand.Int64N(int64(time.Second)))
	if at := s.tickIn(left); one.expires == 0 || at < one.expires {
		one.expires, one.flags = at, one.flags&^sessionAged
	}
}

func (s *sessions) tickIn(wait time.Duration) netio.Tick {
	return s.loop.Tick() + netio.Tick(min(max(wait, 0), 10*365*24*time.Hour)/netio.TickLength) + 1
}

// arm sets the stream's one timer to the next thing that may be due.
func (s *sessions) arm(slot netio.Slot, one *session) {
	var next netio.Tick
	if one.flags&sessionWebSocket != 0 {
		next = min(s.heartbeatDue(one), one.heard+ticks(s.gateway.timings.silence))
		if one.flags&sessionHalfRead != 0 {
			next = min(next, s.halfRead[slot].begun+ticks(s.gateway.timings.message))
		}
		for _, asked := range s.asks[slot] {
			next = min(next, asked.since+ticks(s.gateway.timings.confirm))
		}
	} else {
		next = s.lastWrite(slot) + s.keepAliveAfter(slot)
	}
	if one.flags&sessionGreeted == 0 {
		next = min(next, s.confirmDue(one))
	}
	if one.expires != 0 {
		next = min(next, one.expires)
	}
	wait := time.Second // overdue: it could not be done, so look again
	if next > s.loop.Tick() {
		wait = time.Duration(next-s.loop.Tick()) * netio.TickLength
	}
	s.loop.SetTimer(slot, wait)
}

// confirmDue is when the wait for the first confirmations ends, of one that was not greeted.
func (s *sessions) confirmDue(one *session) netio.Tick {
	return one.pinged + ticks(s.gateway.timings.confirm)
}

// heartbeatDue is when to ping next: not before the greeting, which is a sign of life itself and
// comes sooner, or the stream ends.
func (s *sessions) heartbeatDue(one *session) netio.Tick {
	if one.flags&sessionGreeted == 0 {
		return math.MaxUint32
	}
	return one.pinged + ticks(s.gateway.timings.heartbeat)
}

// lastWrite is when bytes of a stream last left, or, where some wait, now: they leave no earlier.
func (s *sessions) lastWrite(slot netio.Slot) netio.Tick {
	if s.loop.Queued(slot) > 0 {
		return s.loop.Tick()
	}
	return s.loop.LastWrite(slot)
}

// keepAliveAfter spreads the keep-alives of streams that fell silent together over 10% of the time.
func (s *sessions) keepAliveAfter(slot netio.Slot) netio.Tick {
	whole := ticks(s.gateway.timings.keepAlive)
	return whole - netio.Tick(slot)*7%(whole/10)
}

func ticks(d time.Duration) netio.Tick { return netio.Tick(d / netio.TickLength) }

// timer does what is due and arms again.
func (s *sessions) timer(slot netio.Slot) {
	one := s.at(slot)
	now := s.loop.Tick()
	if one.expires != 0 && now >= one.expires || s.keyIsGone(one) {
		s.expire(slot, one)
		return
	}
	if one.flags&sessionGreeted == 0 && now >= s.confirmDue(one) {
		s.giveUpWaiting(slot, one)
		if !s.loop.Open(slot) {
			return
		}
	}
	if one.flags&sessionWebSocket != 0 {
		s.timerWebSocket(slot, one, now)
	} else if now >= s.lastWrite(slot)+s.keepAliveAfter(slot) {
		s.loop.Send(slot, s.keepAlive[s.shard.Form(slot)], netio.Bulk)
	}
	if s.loop.Open(slot) {
		s.arm(slot, one)
	}
}

// expire ends a stream whose token is no longer good, or that is old enough.
func (s *sessions) expire(slot netio.Slot, one *session) {
	switch {
	case one.flags&sessionAged != 0 && !s.keyIsGone(one):
		s.leaveBecause(slot, endStreamAge)
	case one.flags&sessionWebSocket != 0:
		s.closeWebSocket(slot, endTokenExpired, "Token expired")
	default:
		s.endSSE(slot, endTokenExpired, proto.CodeTokenExpired, "the token has expired; connect again with a new one")
	}
}

// giveUpWaiting follows when the broker has not confirmed the first channels in time.
func (s *sessions) giveUpWaiting(slot netio.Slot, one *session) {
	const message = "the subscription could not be confirmed in time; try again"
	if one.flags&sessionWebSocket == 0 {
		s.endSSE(slot, endBrokerUnavailable, proto.CodeBrokerUnavailable, message)
		return
	}
	// A WebSocket waits only for channels that it did not ask for itself: it hears that they are
	// missing, and they stay asked for.
	one.waiting = 0
	s.greet(slot, one)
	s.shard.Channels(slot, func(channel proto.Channel, confirmed bool) bool {
		if !confirmed {
			s.say(slot, "error", proto.AppendError(nil, proto.CodeBrokerUnavailable, message, channel.Name(), nil))
		}
		return true
	})
}

// leaveBecause ends a stream so that its client comes back, here or elsewhere.
func (s *sessions) leaveBecause(slot netio.Slot, reason netio.Reason) {
	if s.at(slot).flags&sessionWebSocket != 0 {
		s.closeWebSocket(slot, reason, "Service restart")
		return
	}
	s.endStream(slot, reason, proto.AppendSSERetry(nil, s.shard.Form(slot), s.gateway.retryWait()))
}

func (s *sessions) leave(slot netio.Slot) { s.leaveBecause(slot, endDrained) }
