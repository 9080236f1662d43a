package netio

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// This file has the texts of simulated walks for spliced streams. A piece names its text and what it
// stands behind, so that a piece in the wrong place shows.

// simulatedText is one text, and its pieces.
type simulatedText struct {
	number, previous uint64
	alone, after     []byte
}

// newText makes text number n. Most may follow on the one before; some follow on none.
func newText(n int, random *rand.Rand) *simulatedText {
	t := &simulatedText{number: uint64(n), alone: fmt.Appendf(apart(330)[:0], "<%d%s>", n, strings.Repeat(".", random.IntN(300)))}
	if random.IntN(4) > 0 {
		t.previous = t.number - 1
		t.after = fmt.Appendf(apart(60)[:0], "<%d after %d>", n, t.previous)
	}
	return t
}

// splice is what the loop is told of it: with its first piece, or to be made.
func (t *simulatedText) splice(made bool) *Splice {
	s := &Splice{Number: t.number, Previous: t.previous, Source: t}
	if made {
		s.Alone = t.alone
	}
	return s
}

// behind is the piece that fits behind the text with that number.
func (t *simulatedText) behind(tail uint64) []byte {
	if t.previous != 0 && t.previous == tail {
		return t.after
	}
	return t.alone
}

func encodeText(source any, after bool) []byte {
	if after {
		return source.(*simulatedText).after
	}
	return source.(*simulatedText).alone
}

// queuedBytes is how many bytes of the wire a stream has queued.
func (w *simulation) queuedBytes(slot Slot, s *stream) (bytes int) {
	if s.flags&flagSpliced == 0 || s.outbox == 0 {
		return w.loop.Queued(slot)
	}
	o := w.loop.outboxes.At(s.outbox)
	tail := w.loop.trailOf(s).number()
	walk := queueWalk{w.loop, o.head, int(o.headIndex)}
	for range o.count {
		entry := walk.next()
		if entry.splice == nil {
			bytes += len(entry.bytes)
			continue
		}
		text := entry.splice.Source.(*simulatedText)
		bytes += len(text.behind(tail))
		tail = text.number
	}
	return bytes - int(o.written)
}

// checkTrails looks for trails that leaked.
func (w *simulation) checkTrails() {
	l := w.loop
	used, free := 0, 0
	for slot := Slot(1); slot <= l.highestStream; slot++ {
		if l.streams.At(uint32(slot)).flags&flagSpliced != 0 {
			used++
		}
	}
	for at := l.freeTrail; at != 0; at = uint32(l.trails.At(at).lastWrite) {
		if free++; free > int(l.highestTrail) {
			w.breach("the list of free trails has no end")
			return
		}
	}
	if used+free != int(l.highestTrail) {
		w.breach("%d trails are free and %d in use, of %d", free, used, l.highestTrail)
	}
}
