package netio

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Slot is a stream's place on its loop: the index of its slab entry, and of whatever the owner
// keeps in step with it. It is reused after the stream has ended, so it may be kept only until
// [Events.Closed]; an [ID] may be kept for ever. 0 is no stream.
type Slot uint32

// ID names a stream from anywhere: loop, slot, and the generation of the slot. It is never 0 and
// not reused until a slot has been taken 16 million times.
type ID uint64

const generationMask = 1<<24 - 1

func makeID(loop uint8, generation uint32, slot Slot) ID {
	return ID(uint64(loop)<<56 | uint64(generation&generationMask)<<32 | uint64(slot))
}

// Loop is the index of the loop that owns the stream.
func (id ID) Loop() int { return int(id >> 56) }

func (id ID) slot() Slot { return Slot(id) }

func (id ID) generation() uint32 { return uint32(id>>32) & generationMask }

// streamState is where a stream is in its life; [Loop.move] alone changes it.
type streamState uint8

const (
	stateFree      streamState = iota // the slot belongs to nobody
	stateOpen                         // reads and writes
	stateEnding                       // takes nothing more; what is queued is written, then the write side shuts
	stateLingering                    // all is written and shut; waits for the peer to close
	stateClosed                       // marked; freed at the end of the turn
)

// streamMoves lists the moves that may happen.
var streamMoves = [...][]streamState{
	stateFree:      {stateOpen},
	stateOpen:      {stateEnding, stateClosed},
	stateEnding:    {stateLingering, stateClosed},
	stateLingering: {stateClosed},
	stateClosed:    {stateFree},
}

// streamFlags are facts about a stream that are independent of its state.
type streamFlags uint8

const (
	flagExpress streamFlags = 1 << iota // stands in the express lane
	flagBulk                            // stands in the bulk lane
	flagBlocked                         // the socket took a short write; EPOLLOUT is armed
	flagWatched                         // the owner wants to hear when the outbox is empty
	flagOffered                         // is in the batch that is being flushed
	flagSpliced                         // what is sent is text, put into a compressed stream: see [Loop.Splice]
)

// stream is all that an idle socket costs here. No pointers.
type stream struct {
	fd         int32
	generation uint32
	outbox     uint32 // 0: nothing to write
	lastWrite  Tick   // when bytes last left; of a spliced stream, the number of its trail, which knows that

	timerNext, timerPrevious Slot
	due                      Tick // 0: no timer

	state  streamState
	flags  streamFlags
	reason Reason // set when it starts to end
	_      uint8
}

const streamSize = 32 // bytes; a test holds it

// move changes the state of a stream. A move that cannot be is a defect of this package.
func (l *Loop) move(s *stream, to streamState) {
	for _, allowed := range streamMoves[s.state] {
		if allowed == to {
			s.state = to
			return
		}
	}
	panic(fmt.Sprintf("netio: stream moved from state %d to %d", s.state, to))
}

// newStream takes a free slot.
func (l *Loop) newStream(fd int) Slot {
	slot := l.freeStream
	if slot != 0 {
		l.freeStream = l.streams.At(uint32(slot)).timerNext
	} else {
		l.highestStream++
		slot = l.highestStream
		l.streams.Grow(uint32(slot))
	}
	s := l.streams.At(uint32(slot))
	generation := max(s.generation, l.generation)
	*s = stream{fd: int32(fd), generation: generation, lastWrite: l.tick}
	l.move(s, stateOpen)
	l.counters.Open++
	return slot
}

// freeClosed is the last step of a turn: it lets go of every stream that was marked closed.
func (l *Loop) freeClosed() {
	for len(l.closing) > 0 {
		slot := l.closing[len(l.closing)-1]
		l.closing = l.closing[:len(l.closing)-1]
		s := l.streams.At(uint32(slot))
		l.closed(slot, s)
		// The epoll registration belongs to the open file, not to the number: without the DEL,
		// a duplicate of the descriptor anywhere would keep its events coming.
		l.sys.epollControl(unix.EPOLL_CTL_DEL, int(s.fd), 0, 0)
		l.sys.close(int(s.fd))
		l.removeOutbox(s)
		l.removeTrail(s)
		if s.due != 0 {
			l.removeTimer(slot, s)
		}
		l.counters.Open--
		l.counters.Ended[s.reason]++
		l.move(s, stateFree)
		s.generation++
		s.fd, s.flags = -1, 0
		s.timerNext = l.freeStream
		l.freeStream = slot
	}
}

// ID gives the lasting name of the stream in slot.
func (l *Loop) ID(slot Slot) ID {
	return makeID(l.index, l.streams.At(uint32(slot)).generation, slot)
}

// Find gives the slot of id if its stream is still open on this loop.
func (l *Loop) Find(id ID) (Slot, bool) {
	slot := id.slot()
	if id.Loop() != int(l.index) || slot == 0 || slot > l.highestStream {
		return 0, false
	}
	s := l.streams.At(uint32(slot))
	return slot, s.state == stateOpen && s.generation&generationMask == id.generation()
}

// Open reports whether slot still takes what is sent to it.
func (l *Loop) Open(slot Slot) bool { return l.streams.At(uint32(slot)).state == stateOpen }

// LastWrite is when bytes of slot last left for the kernel.
func (l *Loop) LastWrite(slot Slot) Tick {
	s := l.streams.At(uint32(slot))
	if s.flags&flagSpliced != 0 {
		return l.trailOf(s).lastWrite
	}
	return s.lastWrite
}

// Close ends slot at the end of this turn, whatever is still queued. [Events.Closed] is called
// once, with the first reason given.
func (l *Loop) Close(slot Slot, reason Reason) {
	s := l.streams.At(uint32(slot))
	if s.state == stateFree || s.state == stateClosed {
		return
	}
	if s.reason == ReasonNone {
		s.reason = reason
	}
	l.move(s, stateClosed)
	l.closing = append(l.closing, slot)
}

// End ends slot in order: what is queued is still written, then the write side is shut and the
// peer has until endDeadline to close, lest a reset overtake the last bytes. Nothing more can be
// sent to it and nothing is heard from it. [Events.Closed] follows as for [Loop.Close].
func (l *Loop) End(slot Slot, reason Reason) {
	s := l.streams.At(uint32(slot))
	if s.state != stateOpen {
		return
	}
	s.reason = reason
	l.setTimer(slot, s, endDeadline)
	l.move(s, stateEnding)
	if s.outbox == 0 {
		l.shut(s)
	}
}

// shut is the end of a stream's writing.
func (l *Loop) shut(s *stream) {
	l.move(s, stateLingering)
	l.sys.shutdownWrite(int(s.fd))
}
