package netio

import "hash/crc32"

// This file puts together streams whose bytes are compressed (design idea 3). Such a stream is
// spliced: what its peer reads behind the decoder is text, which was compressed once for everybody,
// in pieces that fit into any stream.
//
// A frame for spliced streams holds the text, and of each up to two pieces: one that fits behind
// anything, and a much shorter one that fits only behind one other text. Which of them a stream gets
// is known when they are handed to the kernel, and not when they are queued: then it is certain what
// stands before them. So the queue is followed from what was sent last, its trail's tail, to what is
// offered; and again from there to what the kernel took. Nothing changes the queue of a stream but
// at its ends, so a piece of which the kernel took a part is chosen again as it was.
//
// Plain streams cost nothing of this: no byte, and one look at flags that are looked at anyway.

// Splice says what a frame is on spliced streams. Fields are set before it is given to
// [Loop.NewSplicedFrame] and are netio's from then on.
type Splice struct {
	// Number names the text among all texts that other pieces follow on, while any stream may have
	// it last. 0: none follows on it.
	Number uint64
	// Previous is the Number of the text that the short piece follows on; 0: there is none.
	Previous uint64
	// Alone is the piece that fits behind anything. Where it is nil it is made when first needed, as
	// the short one is, by [Events].Encode, which is given Source and whether to make the short one.
	// Encode's bytes must never change, and be at least one.
	Alone  []byte
	Source any

	after []byte
}

// NewSplicedFrame registers text for spliced streams, with the pieces that put it into them; see
// [Loop.NewFrame]. It must not be sent to a plain stream. A budget counts the text. On a spliced
// stream, a frame made by NewFrame is written as it is and is no text: such are the compressed
// stream's own head and end.
func (l *Loop) NewSplicedFrame(text []byte, born int64, splice *Splice) Frame {
	f := l.NewFrame(text, born)
	l.frames[f].splice = splice
	return f
}

// trail is what a spliced stream has behind it. No pointers.
type trail struct {
	lastWrite Tick      // when bytes last left; of a free trail, the next one
	tail      [2]uint32 // the number of the text that stands last, its low half first
	sum       uint32    // CRC-32 of all text
	length    uint32    // of all text, in bytes, modulo 2^32
}

const trailSize = 20 // bytes; a test holds it

func (t *trail) number() uint64 { return uint64(t.tail[0]) | uint64(t.tail[1])<<32 }

// follow takes note of a frame that was written.
func (t *trail) follow(entry *frame) {
	if entry.splice == nil {
		return
	}
	t.tail = [2]uint32{uint32(entry.splice.Number), uint32(entry.splice.Number >> 32)}
	t.sum = crc32.Update(t.sum, crc32.IEEETable, entry.bytes)
	t.length += uint32(len(entry.bytes))
}

// Splice makes the stream in slot a spliced one, before anything is sent to it. text is what the
// first bytes of its compressed stream say, which a frame of no text brings; it is not kept.
func (l *Loop) Splice(slot Slot, text []byte) {
	l.addTrail(l.streams.At(uint32(slot)), trail{sum: crc32.ChecksumIEEE(text), length: uint32(len(text))})
}

// addTrail makes s a spliced stream with that trail, but for when bytes last left, which s knows.
func (l *Loop) addTrail(s *stream, t trail) {
	index := l.freeTrail
	if index != 0 {
		l.freeTrail = uint32(l.trails.At(index).lastWrite)
	} else {
		l.highestTrail++
		index = l.highestTrail
		l.trails.Grow(index)
	}
	t.lastWrite = s.lastWrite
	*l.trails.At(index) = t
	s.lastWrite, s.flags = Tick(index), s.flags|flagSpliced
}

func (l *Loop) trailOf(s *stream) *trail { return l.trails.At(uint32(s.lastWrite)) }

// removeTrail frees the trail of s, if it has one.
func (l *Loop) removeTrail(s *stream) {
	if s.flags&flagSpliced == 0 {
		return
	}
	l.trailOf(s).lastWrite, l.freeTrail = Tick(l.freeTrail), uint32(s.lastWrite)
	s.flags &^= flagSpliced
}

// TextSum gives the CRC-32 (IEEE) of all text that was sent to a spliced stream or is queued for
// it, and its length in bytes modulo 2^32: what the end of a gzip stream says.
func (l *Loop) TextSum(slot Slot) (sum, length uint32) {
	s := l.streams.At(uint32(slot))
	t := *l.trailOf(s)
	if s.outbox != 0 {
		o := l.outboxes.At(s.outbox)
		walk := queueWalk{l, o.head, int(o.headIndex)}
		for range o.count {
			t.follow(walk.next())
		}
	}
	return t.sum, t.length
}

// queueWalk visits the frames of a queue, the oldest first.
type queueWalk struct {
	loop  *Loop
	chunk uint32
	index int
}

func (w *queueWalk) next() *frame {
	if w.index == chunkLen {
		w.chunk, w.index = w.loop.chunks.At(w.chunk).next, 0
	}
	w.index++
	return &w.loop.frames[w.loop.chunks.At(w.chunk).frames[w.index-1]]
}

// pieceBehind is where the piece is kept that a frame is behind the text with that number; nil stands
// there as long as it is not made.
func (f *frame) pieceBehind(tail uint64) *[]byte {
	switch splice := f.splice; {
	case splice == nil:
		return &f.bytes
	case splice.Previous != 0 && splice.Previous == tail:
		return &splice.after
	default:
		return &splice.Alone
	}
}

const (
	// encodeBytesMax is how much text is given to Encode in one flush: when it is reached, what needs
	// another piece waits for the next turn, so that a burst that is compressed holds nobody up.
	encodeBytesMax = 256 << 10
	// encodeBytesMin is what a text counts for at least.
	encodeBytesMin = 4 << 10
)

// makePiece has a piece of a frame made, and reports whether there is one now; if not, the stream is
// closed.
func (l *Loop) makePiece(slot Slot, entry *frame, piece *[]byte) bool {
	l.encodedBytes += max(len(entry.bytes), encodeBytesMin)
	made := l.encode(slot, entry.splice.Source, piece == &entry.splice.after)
	if len(made) == 0 {
		l.Close(slot, ReasonBug)
		return false
	}
	*piece = l.onSheet(made)
	return true
}

// offerPieces is offerFrames of a spliced stream: the first frames of o, in the pieces that fit and
// that there is still time to make. It offers nothing if that is none, or one could not be made.
func (l *Loop) offerPieces(slot Slot, s *stream, o *outbox) (offered int) {
	first := len(l.vectors)
	tail, skip := l.trailOf(s).number(), int(o.written)
	walk := queueWalk{l, o.head, int(o.headIndex)}
	for left := o.count; left > 0 && offered < vectorBytesMax; left-- {
		entry := walk.next()
		piece := entry.pieceBehind(tail)
		if *piece == nil {
			if l.encodedBytes >= encodeBytesMax {
				break
			}
			if !l.makePiece(slot, entry, piece) {
				l.vectors = l.vectors[:first]
				return 0
			}
		}
		if entry.splice != nil {
			tail = entry.splice.Number
		}
		next := vectorOf((*piece)[skip:])
		if !l.addVector(first, next) {
			break
		}
		offered += int(next.Len)
		skip = 0
	}
	if offered == 0 {
		l.enlist(slot, s, Bulk)
	}
	return offered
}

// advanceSpliced takes n written bytes off the queue and reports whether it is empty.
func (l *Loop) advanceSpliced(s *stream, o *outbox, n uint32) (empty bool) {
	t := l.trailOf(s)
	if n > 0 {
		t.lastWrite = l.tick
	}
	n += o.written
	for o.count > 0 && n > 0 {
		f := l.chunks.At(o.head).frames[o.headIndex]
		entry := &l.frames[f]
		piece := *entry.pieceBehind(t.number()) // bytes of it were written, so it is there
		if n < uint32(len(piece)) {
			break
		}
		n -= uint32(len(piece))
		o.queued -= uint32(len(entry.bytes))
		t.follow(entry)
		l.frameLeft(o, f, entry)
	}
	o.written = n
	return o.count == 0
}
