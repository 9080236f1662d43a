package netio

import "golang.org/x/sys/unix"

// This file holds what must be true after every turn of a simulated loop: the invariants of the
// design, as far as they are a loop's.

// check looks at everything after a turn that said whether more is left.
func (w *simulation) check(more bool) {
	l := w.loop
	if w.kernel.writes > flushSocketsMax || w.kernel.reads > eventsPerTurn || w.kernel.looks > 1 {
		w.breach("a turn made %d writes, %d reads and %d looks: more than its bounds", w.kernel.writes, w.kernel.reads, w.kernel.looks)
	}
	if !more && (!l.express.empty() || !l.bulk.empty() || l.inbox != nil) {
		w.breach("a turn says that nothing is left to do, and something is")
	}
	if len(l.closing) != 0 || len(l.batch) != 0 || len(l.vectors) != 0 {
		w.breach("a turn ends with %d streams marked and not freed, %d in a batch, %d pieces", len(l.closing), len(l.batch), len(l.vectors))
	}
	if w.panicked != w.caught {
		w.breach("%d panics, and %d were told of", w.panicked, w.caught)
	}
	references := append(w.references[:0], make([]uint32, len(l.frames))...)
	w.references = references
	if w.event != 0 {
		references[w.event]++ // the walk's own
		references[w.piece]++
	}
	var open, timers, chunksUsed, outboxesUsed int
	for slot := Slot(1); slot <= l.highestStream; slot++ {
		s := l.streams.At(uint32(slot))
		if s.due != 0 {
			timers++
		}
		if s.state == stateFree {
			w.checkFree(slot, s)
			continue
		}
		open++
		w.checkStream(slot, s)
		if s.outbox != 0 {
			outboxesUsed++
			chunksUsed += w.checkOutbox(slot, s, references)
		}
	}
	if open != l.counters.Open || open != w.alive {
		w.breach("%d streams are open, %d are counted, the owner knows of %d", open, l.counters.Open, w.alive)
	}
	if timers != l.wheel.count {
		w.breach("%d streams have a timer, %d are counted", timers, l.wheel.count)
	}
	if outboxesUsed != l.outboxesInUse {
		w.breach("%d outboxes are in use, %d are counted", outboxesUsed, l.outboxesInUse)
	}
	w.checkTables(references, chunksUsed)
	w.checkTrails()
}

func (w *simulation) checkFree(slot Slot, s *stream) {
	if s.fd != -1 || s.outbox != 0 || s.due != 0 || s.flags != 0 || w.of(slot) != nil {
		w.breach("slot %d is free and holds %+v, its owner %v", slot, *s, w.of(slot) != nil)
	}
}

func (w *simulation) checkStream(slot Slot, s *stream) {
	l := w.loop
	peer := w.of(slot)
	if peer == nil {
		w.breach("slot %d is open, and its owner does not know of it", slot)
		return
	}
	socket := w.kernel.socket(int(s.fd))
	if socket.peer != peer {
		w.breach("slot %d has descriptor %d, which is not its peer's", slot, s.fd)
		return
	}
	if s.flags&flagOffered != 0 {
		w.breach("slot %d is in a batch after the turn", slot)
	}
	blocked := s.flags&flagBlocked != 0
	if !socket.watched || socket.key != epollKey(slot, s.generation) || socket.events&readEvents != readEvents || (socket.events&unix.EPOLLOUT != 0) != blocked {
		w.breach("slot %d is blocked %v and watched %v for %#x", slot, blocked, socket.watched, socket.events)
	}
	if (s.state == stateOpen) == peer.ending || (s.state == stateLingering) != socket.shut {
		w.breach("slot %d is in state %d, its end was asked for %v, its writing is over %v", slot, s.state, peer.ending, socket.shut)
	}
	if s.state == stateLingering && s.outbox != 0 {
		w.breach("slot %d has ended its writing with %d bytes queued", slot, l.Queued(slot))
	}
	if s.state == stateOpen && s.due != peer.due {
		w.breach("the timer of slot %d is due at %d, its owner set %d", slot, s.due, peer.due)
	}
	if s.due != 0 && s.due < l.tick {
		w.breach("the timer of slot %d was due at %d, and it is %d", slot, s.due, l.tick)
	}
	if taken, queued := peer.heard+len(socket.outbound), w.queuedBytes(slot, s); !socket.broken() && taken+queued != len(peer.want) {
		w.breach("slot %d: %d bytes left, %d are queued, %d were taken on: some are lost, or twice", slot, taken, queued, len(peer.want))
	}
}

// checkOutbox looks at the queue of one stream, and gives the number of its chunks.
func (w *simulation) checkOutbox(slot Slot, s *stream, references []uint32) (chunks int) {
	l := w.loop
	o := l.outboxes.At(s.outbox)
	if o.slot != slot || o.count == 0 {
		w.breach("the outbox of slot %d is of slot %d, with %d frames", slot, o.slot, o.count)
	}
	if s.flags&(flagBlocked|flagExpress|flagBulk) == 0 {
		w.breach("slot %d has %d bytes queued and waits for nothing", slot, o.queued)
	}
	if limit := l.options.StallLimit; limit > 0 && l.tick-o.progress > Tick(limit/TickLength)+stallCheck {
		w.breach("slot %d has not moved for %d ticks, the limit is %v", slot, l.tick-o.progress, limit)
	}
	chunks = 1
	bytes := 0
	at, index := o.head, int(o.headIndex)
	for range o.count {
		if index == chunkLen {
			at, index = l.chunks.At(at).next, 0
			chunks++
		}
		f := l.chunks.At(at).frames[index]
		references[f]++
		bytes += len(l.frames[f].bytes)
		index++
	}
	if at != o.tail {
		w.breach("the queue of slot %d ends in chunk %d, not in %d", slot, at, o.tail)
	}
	if s.flags&flagSpliced == 0 {
		bytes -= int(o.written) // else texts count, until they have left whole
	}
	if bytes != int(o.queued) {
		w.breach("slot %d has %d bytes queued, and counts %d (%d are written)", slot, bytes, o.queued, o.written)
	}
	return chunks
}

// checkTables looks for frames and chunks that leaked, or are used and free.
func (w *simulation) checkTables(references []uint32, chunksUsed int) {
	l := w.loop
	for f := 1; f < len(l.frames); f++ {
		if l.frames[f].references != references[f] {
			w.breach("frame %d has %d references and counts %d", f, references[f], l.frames[f].references)
		}
	}
	free := 0
	for at := l.freeChunk; at != 0; at = l.chunks.At(at).next {
		if free++; free > int(l.highestChunk) {
			w.breach("the list of free chunks has no end")
			return
		}
	}
	if free+chunksUsed != int(l.highestChunk) {
		w.breach("%d chunks are free and %d in use, of %d", free, chunksUsed, l.highestChunk)
	}
}

// checkSleep is simulatedWorld's: a loop that is about to sleep has nothing to do, and is awake in time.
func (w *simulation) checkSleep() {
	l := w.loop
	if !l.express.empty() || !l.bulk.empty() || l.inbox != nil {
		w.breach("the loop sleeps with work to do")
	}
	for slot := Slot(1); slot <= l.highestStream; slot++ {
		s := l.streams.At(uint32(slot))
		if s.due == 0 {
			continue
		}
		if at := l.start + int64(s.due)*int64(TickLength); w.kernel.due == 0 || w.kernel.due > at && s.due-l.tick < wheelLen {
			w.breach("the loop sleeps until %d, and the timer of slot %d is due at %d", w.kernel.due, slot, at)
		}
	}
}

// checkEnd looks at what is left of a world: nothing may be.
func (w *simulation) checkEnd() {
	var ended uint64
	for _, count := range w.loop.counters.Ended {
		ended += count
	}
	if w.loop.counters.Adopted != ended || ended != uint64(w.closes) || w.loop.counters.Open != 0 {
		w.breach("%d streams were adopted, %d ended, %d were told of, %d are open", w.loop.counters.Adopted, ended, w.closes, w.loop.counters.Open)
	}
	if w.parked != w.closes {
		w.breach("%d connections were parked, and %d streams ended", w.parked, w.closes)
	}
	for fd, socket := range w.kernel.sockets {
		if socket != nil {
			w.breach("descriptor %d is left open", fd+simulatedFirst)
		}
	}
	if !w.kernel.ended {
		w.breach("the kernel is not let go of")
	}
}
