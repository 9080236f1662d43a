package gateway

import (
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/netio/handoff"
)

// copies is what the successor was told of streams. It is told again only of what differs: each round
// encodes all streams and compares, so nothing has to note what changes a stream.
type copies struct {
	seed  maphash.Seed
	round int
	// sent is by loop: touched by that loop's goroutine while it is asked, else by who asks.
	sent  []map[netio.ID]sentStream
	count int    // streams that the successor has
	kept  uint64 // number of the last event that it was told of, of those that are kept
}

// streamBytes has room for what is told of most streams.
const streamBytes = 256

// sentStream is what was told of one stream.
type sentStream struct {
	hash  uint64
	round int // in which the stream was last there
}

func (c *copies) begin(loops int) {
	c.seed = maphash.MakeSeed()
	for range loops {
		c.sent = append(c.sent, make(map[netio.ID]sentStream))
	}
}

// part is what one message tells of streams.
type part struct {
	body        []byte
	descriptors []int // copies, of the part
	change      int   // of the number of streams that the successor has
	failure     error
}

func (p *part) full() bool {
	return len(p.descriptors) == handoff.DescriptorsMax || len(p.body) >= messageBytesAim || p.failure != nil
}

func (p *part) close() {
	for _, fd := range p.descriptors {
		_ = unix.Close(fd)
	}
	p.descriptors = nil
}

// closeBehind closes a part that the loop may still be at, once that is done with it.
func (p *part) closeBehind(loop *netio.Loop) {
	if loop.Do(context.Background(), p.close) != nil {
		p.close() // the loop is over
	}
}

// guard turns a panic of whoever fills the part into its failure: an upgrade must not cost this process
// anything.
func (p *part) guard(log *loopLog) {
	if value := recover(); value != nil {
		log.write(slog.LevelError, "a stream could not be told of; nothing is handed over", "panic", value, "stack", string(debug.Stack()))
		p.failure = fmt.Errorf("a stream could not be told of: %v", value)
	}
}

// send tells the successor a part, which it closes.
func (h *handOver) send(ctx context.Context, p *part) error {
	defer p.close()
	if p.failure != nil || len(p.body) == 0 {
		return p.failure
	}
	if _, err := h.call(ctx, messageStreams, p.body, p.descriptors...); err != nil {
		return err
	}
	h.copies.count += p.change
	h.progress()
	return nil
}

// copyStreams tells the successor of all streams that it does not know as they are, loop by loop, in
// parts between which the loop goes on.
func (h *handOver) copyStreams(ctx context.Context) error {
	h.copies.round++
	for _, s := range h.gateway.sessions {
		for next := netio.Slot(1); next != 0; {
			p := &part{}
			err := s.loop.Do(ctx, func() {
				defer p.guard(h.gateway.loopLog)
				next = h.copies.collect(s, p, next, nil)
			})
			if err != nil {
				h.gateway.spawned.Go(func() { p.closeBehind(s.loop) })
				return err
			}
			if next == 0 {
				h.copies.collectGone(s.loop.Index(), p)
			}
			if err := h.send(ctx, p); err != nil {
				return err
			}
		}
	}
	return h.copyKept(ctx)
}

// copyKept tells the successor what is kept for clients that come back, as far as it does not know it,
// and which channels are held for them.
func (h *handOver) copyKept(ctx context.Context) error {
	kept := h.gateway.hub.Kept(h.copies.kept)
	if len(kept) > 0 {
		h.copies.kept = kept[len(kept)-1].Order
	}
	for _, body := range keptBodies(kept, h.gateway.hub.Held()) {
		if _, err := h.call(ctx, messageLegacy, body); err != nil {
			return err
		}
	}
	return nil
}

// collect adds streams to a part, from the slot next on, until it is full or has looked at many, and
// gives the slot to go on at, 0 at the end. With frames, what waits for the streams goes along, and is
// gathered there. It runs on the loop.
func (c *copies) collect(s *sessions, p *part, next netio.Slot, frames map[uint64][]byte) netio.Slot {
	for looked := 0; next <= s.highest; next++ {
		if looked == adminPiece || p.full() {
			return next
		}
		looked++
		const carried = sessionHere | sessionGreeted
		if s.at(next).flags&carried == carried && s.loop.Open(next) {
			c.add(s, p, next, frames)
		}
	}
	return 0
}

// add adds one stream to a part, if the successor does not know it as it is.
func (c *copies) add(s *sessions, p *part, slot netio.Slot, frames map[uint64][]byte) {
	stream := s.carry(slot)
	if frames != nil {
		s.carryQueue(slot, &stream, frames)
		if !s.loop.Open(slot) {
			return // a piece could not be made: it ends here
		}
	}
	body := stream.appendLasting(make([]byte, 0, streamBytes))
	now := sentStream{hash: maphash.Bytes(c.seed, body), round: c.round}
	sent := c.sent[s.loop.Index()]
	before, known := sent[stream.id]
	if known && before.hash == now.hash {
		sent[stream.id] = now
		return
	}
	key := handoff.Must(streamsChanged)
	if !known {
		copied, err := unix.FcntlInt(uintptr(s.loop.Descriptor(slot)), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			p.failure = fmt.Errorf("copy a descriptor; a hand-over needs %d free ones: %w", handoff.DescriptorsMax, err)
			return
		}
		p.descriptors = append(p.descriptors, copied)
		p.change++
		key = handoff.Must(streamsNew)
	}
	sent[stream.id] = now
	p.body = handoff.Append(p.body, key, stream.appendMoving(body))
}

// collectGone adds the names of streams of a loop that were there and are no more.
func (c *copies) collectGone(loop int, p *part) {
	sent := c.sent[loop]
	for id, one := range sent {
		if one.round != c.round {
			delete(sent, id)
			p.change--
			p.body = handoff.AppendNumber(p.body, handoff.Must(streamsGone), uint64(id))
		}
	}
}

// carry tells all there is to know of a stream but for its queue. It changes nothing.
func (s *sessions) carry(slot netio.Slot) carriedStream {
	one := s.at(slot)
	place := s.people.placeOf(one.person)
	stream := carriedStream{
		id: s.loop.ID(slot), hub: s.shard.Carry(slot),
		user: s.gateway.admission.user(place), address: s.gateway.admission.addressKey(place),
		grants: strings.Clone(s.people.grantsOf(one.person)),
		aged:   one.flags&sessionAged != 0, expires: one.expires, minute: one.waiting,
		heard: one.heard, pinged: one.pinged, lastWrite: s.loop.LastWrite(slot),
	}
	if ahead := int32(one.pace - s.microseconds()); ahead > 0 {
		stream.pace = uint32(ahead)
	}
	if one.flags&sessionHalfRead != 0 {
		stream.unread = s.halfRead[slot].message.AppendUnread(nil)
	}
	return stream
}

// carryQueue adds what waits for a stream, of a loop that stands still.
func (s *sessions) carryQueue(slot netio.Slot, stream *carriedStream, frames map[uint64][]byte) {
	if s.loop.Spliced(slot) {
		stream.trail.spliced = true
		stream.trail.sum, stream.trail.length = s.loop.TextSum(slot)
	}
	s.loop.EachUnsent(slot, func(number uint64, bytes []byte, taken int) {
		frames[number] = bytes
		stream.unsent = append(stream.unsent, carriedFrame{number: number, taken: uint64(taken)})
	})
	if len(stream.unsent) > 0 {
		queue := s.loop.Queue(slot)
		stream.queueAge, stream.queueSilent = queue.Age, queue.Silent
	}
}

// stands are the loops while they stand still, each within one piece of its mail: nothing is read,
// written or timed until it is decided who serves.
type stands struct {
	copies  *copies
	all     []*stand
	there   chan struct{} // one for each loop that stands
	decided chan struct{} // closed when it is decided
	taken   bool          // good once decided is closed
	going   sync.WaitGroup
}

// stand is one loop that stands still.
type stand struct {
	parts      []*part
	frames     []loopFrame
	generation uint32
}

// begin has all loops come to a stand, each when it has done what was posted to it before.
func (s *stands) begin(g *Gateway, c *copies) {
	c.round++
	s.copies, s.there, s.decided = c, make(chan struct{}, len(g.loops)), make(chan struct{})
	for range g.sessions {
		s.all = append(s.all, &stand{})
	}
	for _, one := range g.sessions {
		s.going.Go(func() { s.at(one) })
	}
}

// at has a loop stand still until it is decided, and returns when it goes on.
func (s *stands) at(one *sessions) {
	_ = one.loop.Do(context.Background(), func() {
		s.gather(one, s.all[one.loop.Index()])
		s.there <- struct{}{}
		<-s.decided
		if s.taken {
			one.letGo(s.copies.sent[one.loop.Index()])
		}
	})
}

// wait returns when all loops stand.
func (s *stands) wait(ctx context.Context) error {
	for range s.all {
		select {
		case <-s.there:
		case <-ctx.Done():
			return fmt.Errorf("a loop does not come to a stand: %w", context.Cause(ctx))
		}
	}
	return nil
}

// decide lets the loops go on, without what was taken.
func (s *stands) decide(taken bool) {
	s.taken = taken
	close(s.decided)
	s.going.Wait()
	for _, stand := range s.all {
		for _, part := range stand.parts {
			part.close()
		}
	}
}

// gather brings what the loop was told into the queues of its streams, and collects what the
// successor does not know.
func (s *stands) gather(one *sessions, into *stand) {
	whole := &part{}
	into.parts = append(into.parts, whole)
	defer whole.guard(one.gateway.loopLog)
	one.shard.Settle()
	for slot := netio.Slot(1); slot <= one.highest; slot++ {
		if one.at(slot).flags&sessionHere != 0 && one.loop.Open(slot) {
			one.shard.Unload(slot)
		}
	}
	frames := make(map[uint64][]byte)
	for next := netio.Slot(1); next != 0; {
		p := &part{}
		into.parts = append(into.parts, p) // first: what it has is closed, whatever becomes of the rest
		if next = s.copies.collect(one, p, next, frames); p.failure != nil {
			return
		}
	}
	s.copies.collectGone(one.loop.Index(), into.parts[len(into.parts)-1])
	for number, bytes := range frames {
		into.frames = append(into.frames, loopFrame{loop: one.loop.Index(), number: number, bytes: bytes})
	}
	into.generation = one.loop.NextGeneration()
}

// frameBodies gives the bodies of the messages that tell of what waits.
func (s *stands) frameBodies() (bodies [][]byte) {
	var body []byte
	for _, stand := range s.all {
		for i := range stand.frames {
			body = stand.frames[i].append(body)
			if len(body) >= messageBytesAim {
				bodies, body = append(bodies, body), nil
			}
		}
	}
	if len(body) > 0 {
		bodies = append(bodies, body)
	}
	return bodies
}

// letLoopsTurn returns when every loop has taken the mail that it has.
func (g *Gateway) letLoopsTurn() {
	for _, loop := range g.loops {
		_ = loop.Do(context.Background(), func() {}) // one that is closed takes none
	}
}

// letGo closes the streams that another process has now: our descriptors of them, not the
// connections. Those that stayed, because they were not greeted, are sent away.
func (s *sessions) letGo(taken map[netio.ID]sentStream) {
	for slot := netio.Slot(1); slot <= s.highest; slot++ {
		if s.at(slot).flags&sessionHere == 0 || !s.loop.Open(slot) {
			continue
		}
		if _, theirs := taken[s.loop.ID(slot)]; theirs {
			s.loop.Close(slot, endHandedOver)
		} else {
			s.leave(slot)
		}
	}
}
