package netio

import "time"

// Frame names one immutable slice of bytes in a loop's table. 0 is no frame.
type Frame uint32

// frame is a table entry: the bytes, and how many references there are to them.
type frame struct {
	bytes      []byte
	splice     *Splice // what it is on a spliced stream; nil: the bytes
	references uint32
	nextFree   Frame
	born       int64 // loop time at which the event came in; 0: not measured
}

// NewFrame registers bytes, which must never change again, and gives the caller one reference,
// to be given back with [Loop.Release]. born is the [Loop.Clock] time at which what they tell
// became known; the time from then to the write goes into the delivery histogram. 0 keeps them
// out of it.
func (l *Loop) NewFrame(bytes []byte, born int64) Frame {
	f := l.freeFrame
	if f != 0 {
		l.freeFrame = l.frames[f].nextFree
	} else {
		f = Frame(len(l.frames))
		l.frames = append(l.frames, frame{})
	}
	l.frames[f] = frame{bytes: bytes, references: 1, born: born}
	return f
}

// sheetBytes is the size of the pieces of memory that frames of fan-outs share.
const sheetBytes = 16 << 10

// NewFanoutFrame is [Loop.NewFrame] for what goes to many streams. It copies bytes to where those
// of the one before it end, so that a stream that takes several in a row gives them to the kernel
// as one piece. A stream that keeps one such frame waiting keeps sheetBytes in memory.
func (l *Loop) NewFanoutFrame(bytes []byte, born int64) Frame {
	return l.NewFrame(l.onSheet(bytes), born)
}

// onSheet gives a copy of bytes that begins where the last one ended, or bytes themselves if they
// are large.
func (l *Loop) onSheet(bytes []byte) []byte {
	if len(bytes) > sheetBytes/4 {
		return bytes
	}
	if cap(l.sheet)-len(l.sheet) < len(bytes) {
		l.sheet = make([]byte, 0, sheetBytes)
	}
	at := len(l.sheet)
	l.sheet = append(l.sheet, bytes...)
	return l.sheet[at:len(l.sheet):len(l.sheet)]
}

// Release gives a reference back; the last one frees the bytes.
func (l *Loop) Release(f Frame) {
	entry := &l.frames[f]
	entry.references--
	if entry.references == 0 {
		*entry = frame{nextFree: l.freeFrame}
		l.freeFrame = f
	}
}

// chunkLen is how many references one chunk of an outbox holds: with its link one cache line.
const chunkLen = 15

// chunk is a piece of an outbox's queue. No pointers.
type chunk struct {
	frames [chunkLen]Frame
	next   uint32
}

const chunkSize = 64 // bytes; a test holds it

// outbox is the queue of a stream that has something to write. It exists only as long as it has:
// the last byte written frees it. No pointers.
//
// How old the queue is, is told by a mark behind one of its frames: at first the first one, and
// whenever the marked frame has left, the one that is then the last. As long as the mark is there,
// something has been queued since it was set.
type outbox struct {
	slot       Slot
	head, tail uint32 // chunks
	count      uint32 // frames queued
	queued     uint32 // bytes not yet taken by the kernel; of a spliced stream, text of frames not yet wholly taken
	written    uint32 // bytes of the first frame that the kernel has taken
	progress   Tick   // when a whole frame last left, or the queue began
	marked     Tick   // when the mark was set
	ahead      uint32 // frames up to the mark, which has not left yet
	headIndex  uint8  // of the first frame in the head chunk
	tailIndex  uint8  // behind the last frame in the tail chunk
	_          uint16
}

const outboxSize = 40 // bytes; a test holds it

// Lane says how a send waits its turn. A socket with an express send is written before those
// that have only bulk ones, so that an answer or an event for few never waits for a crowd.
type Lane uint8

// The lanes. Order within one stream is kept whatever the lanes.
const (
	Express Lane = iota // few receivers
	Bulk                // a walk over many
)

// Send queues f for slot, whatever is queued already; it is written at the end of this turn, or
// as soon as turns allow. What is sent to a stream that is no longer open is dropped. Where the
// peer decides how much is sent, use [Loop.Offer].
func (l *Loop) Send(slot Slot, f Frame, lane Lane) { l.Offer(slot, f, lane, Budget{}) }

// Budget is how much may wait for one stream. A zero field is no bound.
type Budget struct {
	Bytes int
	// Age is how long the oldest of what is queued may have waited. A queue that moves is found
	// to be older by at most as much again.
	Age Tick
}

// exceeded reports whether n more bytes are too much for o, at the time now. An empty queue takes
// anything.
func (b Budget) exceeded(o *outbox, n int, now Tick) bool {
	return o.count > 0 && (b.Bytes > 0 && int(o.queued)+n > b.Bytes || b.Age > 0 && now-o.marked > b.Age)
}

// Offer is Send with a bound: if something is queued and f would make it more than the budget
// allows, or it has waited too long already, f is not taken and Offer says false.
func (l *Loop) Offer(slot Slot, f Frame, lane Lane, budget Budget) (taken bool) {
	s := l.streams.At(uint32(slot))
	entry := &l.frames[f]
	if s.state != stateOpen || len(entry.bytes) == 0 {
		return true
	}
	if s.outbox == 0 {
		s.outbox = l.newOutbox(slot)
	}
	o := l.outboxes.At(s.outbox)
	if budget.exceeded(o, len(entry.bytes), l.tick) {
		return false
	}
	entry.references++
	if int(o.tailIndex) == chunkLen {
		next := l.newChunk()
		l.chunks.At(o.tail).next = next
		o.tail, o.tailIndex = next, 0
	}
	l.chunks.At(o.tail).frames[o.tailIndex] = f
	o.tailIndex++
	o.count++
	o.queued += uint32(len(entry.bytes))
	if s.flags&flagBlocked == 0 {
		l.enlist(slot, s, lane)
	}
	return true
}

// WatchDrain asks for one call of [Events.Drained], when nothing is queued for slot any more.
// For a stream with nothing queued there is nothing to wait for, and no call.
func (l *Loop) WatchDrain(slot Slot) {
	if s := l.streams.At(uint32(slot)); s.outbox != 0 {
		s.flags |= flagWatched
	}
}

// SendBytes queues bytes, which must never change again, for slot alone.
func (l *Loop) SendBytes(slot Slot, bytes []byte) {
	f := l.NewFrame(bytes, 0)
	l.Send(slot, f, Express)
	l.Release(f)
}

// Queued is how many bytes slot has waiting here, of a spliced stream how many bytes of text; what
// the kernel holds is not among them.
func (l *Loop) Queued(slot Slot) int {
	s := l.streams.At(uint32(slot))
	if s.outbox == 0 {
		return 0
	}
	return int(l.outboxes.At(s.outbox).queued)
}

// Queue says what waits for one stream.
type Queue struct {
	Frames int
	Bytes  int           // not yet taken by the kernel; of a spliced stream, of text
	Age    time.Duration // that something of it has waited at least, in whole [TickLength]s
	Silent time.Duration // since a whole frame last left, or the queue began
}

// Queue looks at what waits for slot; what the kernel holds is not among it. The zero Queue says
// that nothing does.
func (l *Loop) Queue(slot Slot) Queue {
	s := l.streams.At(uint32(slot))
	if s.outbox == 0 {
		return Queue{}
	}
	o := l.outboxes.At(s.outbox)
	return Queue{
		Frames: int(o.count), Bytes: int(o.queued),
		Age: time.Duration(l.tick-o.marked) * TickLength, Silent: time.Duration(l.tick-o.progress) * TickLength,
	}
}

func (l *Loop) newOutbox(slot Slot) uint32 {
	index := l.freeOutbox
	if index != 0 {
		l.freeOutbox = l.outboxes.At(index).head
	} else {
		l.highestOutbox++
		index = l.highestOutbox
		l.outboxes.Grow(index)
	}
	l.outboxesInUse++
	first := l.newChunk()
	*l.outboxes.At(index) = outbox{slot: slot, head: first, tail: first, progress: l.tick, marked: l.tick, ahead: 1}
	return index
}

func (l *Loop) newChunk() uint32 {
	index := l.freeChunk
	if index == 0 {
		l.highestChunk++
		l.chunks.Grow(l.highestChunk)
		return l.highestChunk
	}
	c := l.chunks.At(index)
	l.freeChunk = c.next
	c.next = 0
	return index
}

// advance takes n written bytes off the queue and reports whether it is empty.
func (l *Loop) advance(o *outbox, n uint32) (empty bool) {
	o.queued -= n
	n += o.written
	for o.count > 0 {
		f := l.chunks.At(o.head).frames[o.headIndex]
		entry := &l.frames[f]
		if n < uint32(len(entry.bytes)) {
			break
		}
		n -= uint32(len(entry.bytes))
		l.frameLeft(o, f, entry)
	}
	o.written = n
	return o.count == 0
}

// frameLeft takes the first frame, all of which the kernel has, off the queue.
func (l *Loop) frameLeft(o *outbox, f Frame, entry *frame) {
	if entry.born != 0 {
		l.delivered(entry.born)
	}
	l.Release(f)
	l.dropHead(o)
	o.progress = l.tick
	if o.ahead--; o.ahead == 0 {
		o.marked, o.ahead = l.tick, o.count
	}
}

// dropHead takes the first reference off the queue, and its chunk when that is used up.
func (l *Loop) dropHead(o *outbox) {
	o.count--
	o.headIndex++
	if int(o.headIndex) < chunkLen || o.head == o.tail {
		return
	}
	used := o.head
	c := l.chunks.At(used)
	o.head, o.headIndex = c.next, 0
	c.next, l.freeChunk = l.freeChunk, used
}

// removeOutbox frees the outbox of s with all it still holds.
func (l *Loop) removeOutbox(s *stream) {
	if s.outbox == 0 {
		return
	}
	o := l.outboxes.At(s.outbox)
	for o.count > 0 {
		l.Release(l.chunks.At(o.head).frames[o.headIndex])
		l.dropHead(o)
	}
	l.chunks.At(o.head).next, l.freeChunk = l.freeChunk, o.head
	*o = outbox{head: l.freeOutbox}
	l.outboxesInUse--
	l.freeOutbox, s.outbox = s.outbox, 0
}

// closeStalled closes every stream of which no whole frame has left for the stall limit. It
// looks at outboxes only, so it costs nothing while clients are quick.
func (l *Loop) closeStalled() {
	if l.options.StallLimit < 0 {
		return
	}
	limit := Tick(l.options.StallLimit / TickLength)
	for index := uint32(1); index <= l.highestOutbox; index++ {
		o := l.outboxes.At(index)
		if o.slot != 0 && o.count > 0 && l.tick-o.progress > limit {
			l.Close(o.slot, ReasonStalled)
		}
	}
}
