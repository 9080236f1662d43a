package hub

import (
	"math"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

const (
	// walkStepsMax is how many members a shard visits in one turn: about as long as a turn's
	// flush takes at its shortest.
	walkStepsMax = 4096
	// expressMax is the largest number of receivers whose sockets need not wait behind a crowd's.
	expressMax = 64
	// askedRoomMax is how many slots of room a shard keeps for those whose channel is confirmed.
	askedRoomMax = 1024
	// walksMax and walkBytesMax, of payloads, bound what waits to be walked. A loop takes its mail
	// however long its walks are, so the bound of the mailbox does not bound them.
	walksMax     = netio.MailMax
	walkBytesMax = 64 << 20
	// walksKeptMax is how many walks of room a shard keeps that has none.
	walksKeptMax = 4096
)

// walkKind says what a walk brings.
type walkKind uint8

const (
	walkEvent   walkKind = iota // an event, a value, an entry
	walkConfirm                 // the news that a subscription is confirmed
	walkGap                     // events may be missing
	walkHole                    // entries of a log are missing for everybody
	walkLag                     // entries of a log that this loop was not told of: to be read again
)

// walk is one thing to be brought to the members that a channel, and the wildcard over it, had
// at one moment.
type walk struct {
	event *proto.Event
	gap   []byte  // the JSON of a gap or hole
	key   *string // of a conflated event, once it was looked up
	born  int64

	// Where the channel stands with this walk, and where the two channels stood before it: for
	// events and values the order, for logs the position.
	at, exactAfter broker.Position
	wildcardAfter  uint64

	exact, wildcard       uint32 // channels; 0: none
	exactEnd, wildcardEnd uint32 // how many members each had
	next                  uint32 // the member to visit next, wildcard members behind the exact ones
	frames                [proto.FormCount]netio.Frame
	lane                  netio.Lane
	kind                  walkKind
	reason                proto.GapReason
}

// bytes is what w keeps of a payload.
func (w *walk) bytes() int {
	if w.event == nil {
		return 0
	}
	return len(w.event.Payload())
}

// walkQueue is a queue of walks, first in, first out.
type walkQueue struct {
	walks []walk
	first int
	bytes int // of all
}

func (q *walkQueue) len() int { return len(q.walks) - q.first }

func (q *walkQueue) empty() bool { return q.len() == 0 }

// fills reports whether the queue takes up a share of its bounds.
func (q *walkQueue) fills(walks, bytes int) bool { return q.len() >= walks || q.bytes >= bytes }

func (q *walkQueue) push(w walk) {
	q.walks = append(q.walks, w)
	q.bytes += w.bytes()
}

func (q *walkQueue) head() *walk { return &q.walks[q.first] }

func (q *walkQueue) pop() {
	q.bytes -= q.walks[q.first].bytes()
	q.walks[q.first] = walk{}
	q.first++
	switch {
	case q.empty() && cap(q.walks) > walksKeptMax:
		q.walks, q.first = nil, 0
	case q.empty():
		q.walks, q.first = q.walks[:0], 0
	case q.first >= 1024 && q.first*2 >= len(q.walks):
		n := copy(q.walks, q.walks[q.first:])
		clear(q.walks[n:])
		q.walks, q.first = q.walks[:n], 0
	}
}

// Mail handles what was posted to the shard's loop, or hands it on to the owner.
func (s *Shard) Mail(item any) {
	switch item := item.(type) {
	case *publication:
		s.publish(item)
	case *logPublication:
		s.append(item)
	case *pastMail:
		s.pasts.push(item)
	case lossTold:
		s.prefer()
	case *interestChange:
		for _, channel := range item.channels {
			s.changeInterest(channel, item)
		}
	default:
		s.hub.options.Events.Mail(s, item)
	}
}

// Work carries out a piece of what is pending, walks first, and reports whether more is left.
func (s *Shard) Work() (more bool) {
	if s.untold.Load() {
		s.mendUntold()
	}
	if len(s.missed) > 0 && !s.walks.fills(s.walksMax/2, walkBytesMax/2) {
		s.mendMissed()
	}
	budget := s.stepsMax
	for budget > 0 && !s.walks.empty() {
		budget -= s.step(s.walks.head(), budget)
		if w := s.walks.head(); w.next == w.exactEnd+w.wildcardEnd {
			s.finish(w)
			s.walks.pop()
		}
	}
	s.catchUp(max(budget, s.stepsMax/8))
	return !s.walks.empty() || !s.pasts.empty() || len(s.missed) > 0
}

func (s *Shard) publish(p *publication) {
	name := p.event.Channel()
	w := walk{event: p.event, born: p.born, at: orderAt(p.order), exact: s.names.Find(name.Name())}
	before := uint64(0)
	w.exact, before = s.bring(w.exact, p.order)
	w.exactAfter = orderAt(before)
	if len(s.wildcards) > 0 {
		w.wildcard, w.wildcardAfter = s.bring(s.wildcards[name.Type()], p.order)
	}
	if w.exact != 0 || w.wildcard != 0 {
		s.begin(w)
	}
}

// bring notes that a channel is brought to an order, and gives the one that it had before. It gives no
// channel where there is none, where this is no news to it (a value that was mended already; an event of
// before the channel came here, which waited in the mail), or where it is missed.
func (s *Shard) bring(index uint32, order uint64) (channel uint32, before uint64) {
	if index == 0 {
		return 0, 0
	}
	c := s.channels.At(index)
	if order <= c.last || s.misses(index, c) {
		return 0, 0
	}
	before, c.last = c.last, order
	return index, before
}

// misses reports whether what comes on a channel is not walked: because too much waits already, or
// because something before it was not, and that has to be told first.
func (s *Shard) misses(index uint32, c *channel) bool {
	switch {
	case c.has(channelMissed):
	case s.walks.fills(s.walksMax, walkBytesMax):
		c.flags |= channelMissed
		s.missed = append(s.missed, index)
	default:
		return false
	}
	return true
}

// mendMissed follows what was missed.
func (s *Shard) mendMissed() {
	missed := s.missed
	s.missed = nil
	for _, index := range missed {
		if c := s.channels.At(index); c.has(channelMissed) { // else it is another one by now
			c.flags &^= channelMissed
			s.mend(index)
		}
	}
}

// append brings what was appended to a log, entry by entry.
func (s *Shard) append(p *logPublication) {
	// Before an id says that all up to a horizon was sent.
	if s.untold.Load() {
		s.mendUntold()
	}
	index := s.names.Find(p.channel.Name())
	if index == 0 || !p.hole && s.misses(index, s.channels.At(index)) {
		return
	}
	s.mendMissed()
	flow := s.flows[index]
	switch {
	case p.hole:
		s.hole(index, p.from, p.reason, p.born)
		flow = p.from
	case flow.Before(p.from):
		s.lag(index, p.from)
		s.flows[index], flow = p.from, p.from
	}
	for _, entry := range p.entries {
		if !flow.Before(entry.position) {
			continue // mended already
		}
		s.flows[index] = entry.position
		s.begin(walk{event: entry.event, born: p.born, at: entry.position, exactAfter: flow, exact: index})
		flow = entry.position
	}
	if flow.Before(p.last) {
		s.flows[index] = p.last
	}
	s.horizon = max(s.horizon, p.horizon)
}

// hole tells the members of a log that entries before at are missing.
func (s *Shard) hole(index uint32, at broker.Position, reason proto.GapReason, born int64) {
	flow := s.flows[index]
	s.flows[index] = at
	if c := s.channels.At(index); s.memberCount(c) > 0 {
		gap := proto.AppendGap(nil, s.text(c), s.positionID(c, flow), reason)
		s.begin(walk{kind: walkHole, exact: index, exactAfter: flow, at: at, gap: gap, reason: reason, born: born})
	}
}

// lag has every member of a log that has not got what comes before at read it.
func (s *Shard) lag(index uint32, at broker.Position) {
	if s.memberCount(s.channels.At(index)) > 0 {
		s.begin(walk{kind: walkLag, exact: index, exactAfter: s.flows[index], at: at})
	}
}

// begin fixes who w is for. A short walk with nothing before it is carried out at once.
func (s *Shard) begin(w walk) {
	for _, part := range [...]struct {
		channel uint32
		end     *uint32
	}{{w.exact, &w.exactEnd}, {w.wildcard, &w.wildcardEnd}} {
		if part.channel != 0 {
			c := s.channels.At(part.channel)
			*part.end = s.positions(c)
			c.walks++
		}
	}
	if int(w.exactEnd+w.wildcardEnd) > s.expressMax {
		w.lane = netio.Bulk
	}
	s.walks.push(w)
	if w.lane == netio.Express && s.walks.len() == 1 {
		s.step(s.walks.head(), s.expressMax)
		s.finish(s.walks.head())
		s.walks.pop()
	}
}

// step visits at most budget members and says how many it visited; at least one, so that a walk
// over nobody ends too.
func (s *Shard) step(w *walk, budget int) (visited int) {
	all := w.exactEnd + w.wildcardEnd
	for w.next < all && visited < budget {
		channel, position := w.exact, w.next
		visited++
		w.next++ // first: a panic must not find the same member again
		if position >= w.exactEnd {
			channel, position = w.wildcard, position-w.exactEnd
		}
		slot := s.memberAt(s.channels.At(channel), position)
		if slot == 0 {
			continue
		}
		if channel == w.wildcard && w.exact != 0 {
			sub := s.find(s.members.At(uint32(slot)), w.exact)
			if sub != nil && sub.position < w.exactEnd {
				continue // it came by the exact channel
			}
		}
		s.visit(w, slot, channel)
	}
	return max(visited, 1)
}

// visit brings w to one member.
func (s *Shard) visit(w *walk, slot netio.Slot, channel uint32) {
	if w.kind == walkConfirm {
		s.hub.options.Events.Subscribed(s, slot, s.nameOf(s.channels.At(channel)))
		return
	}
	m := s.members.At(uint32(slot))
	form := m.form
	if m.flags&memberUnusual != 0 {
		if m.flags&memberBehind != 0 && !s.passes(w, slot, m, channel) {
			return
		}
		if w.kind == walkLag {
			s.fallBehind(w, slot, m, channel)
			return
		}
		form = s.formOf(w, slot, m)
	}
	f := w.frames[form]
	if f == 0 {
		f = s.encode(w, form)
		w.frames[form] = f
	}
	if !s.loop.Offer(slot, f, w.lane, s.budget) {
		s.fallBehind(w, slot, m, channel)
		return
	}
	if w.event != nil {
		s.counters.Delivered[form]++
		s.endIfLast(slot, w.event)
	} else {
		s.counters.Gaps[w.reason]++
	}
}

// endIfLast tells the owner of a stream that was sent the end of its log.
func (s *Shard) endIfLast(slot netio.Slot, event *proto.Event) {
	if event.Ends() {
		s.hub.options.Events.Ended(s, slot)
	}
}

// formOf is the form in which a member that has a log, or is behind, takes w. An id moves the one
// position that the client of an event stream has, and says that it has everything before: so while
// something of the past of any channel is missing, frames carry none, nor do events beside a log,
// whose position theirs can't name.
func (s *Shard) formOf(w *walk, slot netio.Slot, m *member) proto.Form {
	if w.event == nil {
		return m.form
	}
	if b := s.behind[slot]; b != nil && b.pasts > 0 {
		return m.form.WithoutID()
	}
	if m.flags&memberLog != 0 && s.channels.At(w.exact).kind != broker.Log {
		return m.form.WithoutID()
	}
	return m.form
}

func (s *Shard) encode(w *walk, form proto.Form) netio.Frame {
	if w.event == nil {
		return s.OwnFrame(form, proto.AppendMessage(nil, form, "gap", w.gap))
	}
	return s.frame(w.event, form, w.born, w.lane == netio.Bulk, s.last.of(w.exact, form))
}

// finish lets go of what w held.
func (s *Shard) finish(w *walk) {
	for form, f := range w.frames {
		if f == 0 {
			continue
		}
		s.loop.Release(f)
		if form := proto.Form(form); form.IsGzip() && w.event != nil {
			s.last.keep(w.exact, form, w.event.Text(form))
		}
	}
	for _, index := range [...]uint32{w.exact, w.wildcard} {
		if index == 0 {
			continue
		}
		c := s.channels.At(index)
		c.walks--
		s.closeHoles(c, index)
		s.freeIfUnwanted(index)
	}
}

// changeInterest takes note of what the broker says of a channel.
func (s *Shard) changeInterest(channel string, change *interestChange) {
	index := s.names.Find(channel)
	if index == 0 {
		return
	}
	c := s.channels.At(index)
	c.setConfirmed(change.confirmed)
	if !change.confirmed {
		s.noteCrowd(c)
		return
	}
	if change.lost && c.kind != broker.State && c.kind != broker.Log {
		s.gap(index, proto.GapBroker)
	}
	s.asked = s.takeAsked(c, s.asked[:0])
	if len(s.asked) == 0 {
		return
	}
	// Everybody who waited is a member from here on, so that the next event's walk includes
	// them; the walk that tells them so comes before it.
	first := s.positions(c)
	for _, slot := range s.asked {
		if slot != 0 {
			s.find(s.members.At(uint32(slot)), index).position = s.addMember(c, slot)
		}
	}
	if cap(s.asked) > askedRoomMax {
		s.asked = nil
	}
	c.walks++
	s.walks.push(walk{kind: walkConfirm, exact: index, next: first, exactEnd: s.positions(c), lane: netio.Bulk})
}

// gap tells every member of a channel of events that it may have missed something.
func (s *Shard) gap(index uint32, reason proto.GapReason) {
	c := s.channels.At(index)
	if s.memberCount(c) == 0 {
		return
	}
	at := orderAt(c.last)
	gap := proto.AppendGap(nil, s.text(c), s.positionID(c, at), reason)
	s.begin(walk{kind: walkGap, exact: index, exactAfter: at, at: at, gap: gap, reason: reason})
}

// mendUntold follows mail that could not be delivered to this loop.
func (s *Shard) mendUntold() {
	s.untold.Store(false) // first: what is not told from here on is mended again
	for index := uint32(1); index <= s.highChannel; index++ {
		s.mend(index)
	}
}

// mend follows what did not come to be walked. A state goes on with the value that it has, a log is read
// again, and of events a gap tells.
func (s *Shard) mend(index uint32) {
	c := s.channels.At(index)
	if s.memberCount(c) == 0 {
		return
	}
	switch c.kind {
	case broker.State:
		if now, known := s.hub.directory.standing(s.text(c)); known && now.order > c.last {
			s.publish(&publication{event: s.valueEvent(c, now), order: now.order})
		}
	case broker.Log:
		// The walks stay where they are: mail that did come is still to be handled in its order.
		if now, known := s.hub.directory.standing(s.text(c)); known && s.flows[index].Before(now.position) {
			s.lag(index, broker.Position{Milliseconds: math.MaxUint64})
		}
	default:
		s.gap(index, proto.GapSlow)
	}
}

// positionID is the id of the position at in a channel, "" if there is none.
func (s *Shard) positionID(c *channel, at broker.Position) string {
	switch {
	case at == broker.Position{}:
		return ""
	case c.kind == broker.Log:
		return string(proto.AppendLogID(nil, s.text(c), at.Milliseconds, at.Sequence, 0))
	default:
		return string(proto.AppendEventID(nil, s.text(c), s.hub.options.Epoch, at.Milliseconds))
	}
}
