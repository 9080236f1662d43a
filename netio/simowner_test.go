package netio

import "time"

// This file is the owner of a simulated loop: it does all that an owner may, at random, and keeps
// beside the loop what must follow from it.

// simulatedReason is the owner's own.
const simulatedReason = FirstOwnReason + 3

func (w *simulation) owner() Events {
	return Events{
		Adopted: w.adopted, Received: w.received, Timer: w.timer, Drained: w.drained, Closed: w.closedStream,
		Mail: w.mail, Work: w.work, Encode: encodeText,
		Panicked: func(any, []byte) { w.caught++ },
	}
}

// at gives the peer of an open slot.
func (w *simulation) at(slot Slot, call string) *simulatedPeer {
	peer := w.of(slot)
	if peer == nil || peer.closed {
		w.breach("%s for slot %d, which has no stream", call, slot)
		return &simulatedPeer{}
	}
	return peer
}

// panics now and then, as a defect would.
func (w *simulation) panics(peer *simulatedPeer) {
	if w.kernel.chance(400) {
		w.panicked++
		if peer != nil {
			peer.ending = true // the stream is closed for it
		}
		panic("asked for")
	}
}

func (w *simulation) adopted(slot Slot, guest any) {
	peer := guest.(*simulatedPeer)
	if peer.adopted || w.of(slot) != nil {
		w.breach("slot %d is adopted, which was not free, or its guest is there twice", slot)
	}
	peer.adopted, peer.slot = true, slot
	w.bySlot = append(w.bySlot, make([]*simulatedPeer, max(int(slot)+1-len(w.bySlot), 0))...)
	w.bySlot[slot] = peer
	w.alive++
	if peer.spliced = w.random.IntN(3) == 0; peer.spliced {
		w.loop.Splice(slot, nil)
	}
	w.send(slot, peer, 1+w.random.IntN(100))
	w.panics(peer)
	w.something(slot, peer)
}

func (w *simulation) received(slot Slot, bytes []byte) {
	peer := w.at(slot, "Received")
	if peer.ending {
		w.breach("slot %d is heard after its end was asked for", slot)
	}
	for _, b := range bytes {
		if b != byte(peer.got) {
			w.breach("slot %d: byte %d of what its peer sent came as %d", slot, peer.got, b)
			break
		}
		peer.got++
	}
	w.panics(peer)
	w.something(slot, peer)
}

func (w *simulation) timer(slot Slot) {
	peer := w.at(slot, "Timer")
	if peer.due == 0 || w.loop.Tick() < peer.due {
		w.breach("the timer of slot %d ran at tick %d, and is due at %d", slot, w.loop.Tick(), peer.due)
	}
	peer.due = 0
	w.panics(peer)
	w.something(slot, peer)
}

func (w *simulation) drained(slot Slot) {
	peer := w.at(slot, "Drained")
	if !peer.watched || w.loop.Queued(slot) != 0 {
		w.breach("slot %d drained: asked for %v, %d bytes are queued", slot, peer.watched, w.loop.Queued(slot))
	}
	peer.watched = false
	w.something(slot, peer)
}

func (w *simulation) closedStream(slot Slot, reason Reason) {
	peer := w.at(slot, "Closed")
	if reason == ReasonNone {
		w.breach("slot %d closed for no reason", slot)
	}
	peer.closed, peer.reason, peer.due = true, reason, 0
	if w.of(slot) == peer {
		w.bySlot[slot] = nil
		w.alive--
	}
	w.closes++
	w.panics(nil)
}

// mail begins a walk over all streams, as a publisher would, or does something else.
func (w *simulation) mail(item any) {
	w.mailed++
	if item.(int) > 6 && w.event == 0 {
		w.beginWalk()
	}
	w.panics(nil)
	for slot := Slot(1); slot <= w.loop.highestStream; slot++ {
		if peer := w.of(slot); peer != nil && w.random.IntN(8) == 0 {
			w.something(slot, peer)
		}
	}
}

// apart makes room for a text that no other lies directly behind. A loop writes two that do as one piece,
// so that else the allocator, and not the seed alone, would say how many pieces a write has. Texts of
// fan-outs lie behind one another all the same: the loop copies them.
func apart(size int) []byte { return make([]byte, size, size+1) }

func (w *simulation) beginWalk() {
	for slot := Slot(1); slot <= w.loop.highestStream; slot++ {
		if w.of(slot) != nil {
			w.walk = append(w.walk, slot)
		}
	}
	w.texts++
	text := apart(1 + w.random.IntN(400))
	for i := range text {
		text[i] = byte('A' + w.texts%26)
	}
	if w.random.IntN(2) == 0 {
		w.event = w.loop.NewFrame(text, w.loop.Now())
	} else {
		w.event = w.loop.NewFanoutFrame(text, 0)
	}
	w.text = newText(w.texts, w.random)
	w.piece = w.loop.NewSplicedFrame(text, 0, w.text.splice(w.random.IntN(2) == 0))
}

// work goes on with the walk, some streams a turn.
func (w *simulation) work() (more bool) {
	for range 1 + w.random.IntN(10) {
		if len(w.walk) == 0 {
			break
		}
		slot := w.walk[0]
		w.walk = w.walk[1:]
		if peer := w.of(slot); peer != nil {
			f := w.event
			if peer.spliced {
				f = w.piece
			}
			w.offer(slot, peer, f, Bulk, Budget{Bytes: 3000, Age: Tick(w.random.IntN(100))})
		}
	}
	if len(w.walk) == 0 && w.event != 0 {
		w.loop.Release(w.event)
		w.loop.Release(w.piece)
		w.event, w.piece = 0, 0
	}
	return len(w.walk) > 0
}

// something is one thing that an owner may do to a stream.
func (w *simulation) something(slot Slot, peer *simulatedPeer) {
	switch w.random.IntN(14) {
	case 0, 1, 2:
		w.send(slot, peer, 1+w.random.IntN(300))
	case 3:
		if w.random.IntN(4) == 0 {
			for range w.random.IntN(60) { // more than a chunk holds
				w.send(slot, peer, 1+w.random.IntN(10))
			}
		}
	case 4:
		wait := time.Duration(w.random.IntN(3000)) * time.Millisecond
		w.loop.SetTimer(slot, wait)
		switch {
		case peer.ending:
		case wait == 0:
			peer.due = 0
		default:
			peer.due = w.loop.Tick() + Tick((wait+TickLength-1)/TickLength)
		}
	case 5:
		if w.loop.Queued(slot) > 0 {
			w.loop.WatchDrain(slot)
			peer.watched = true
		}
	case 6:
		if w.random.IntN(8) == 0 {
			w.loop.End(slot, simulatedReason)
			peer.ending, peer.due = true, 0
		}
	case 7:
		if w.random.IntN(20) == 0 {
			w.loop.Close(slot, simulatedReason)
			peer.ending, peer.due = true, 0
		}
	case 8:
		if found, open := w.loop.Find(w.loop.ID(slot)); open != w.loop.Open(slot) || open && found != slot {
			w.breach("slot %d is open %v, and its ID finds %d, %v", slot, w.loop.Open(slot), found, open)
		}
	}
}

// send queues text of its own for a stream.
func (w *simulation) send(slot Slot, peer *simulatedPeer, size int) {
	text := apart(size)
	for i := range text {
		text[i] = byte('a' + (len(peer.want)+i)%26)
	}
	f := w.loop.NewFrame(text, 0)
	w.offer(slot, peer, f, Lane(w.random.IntN(2)), Budget{})
	w.loop.Release(f)
}

// offer is Loop.Offer, and the model of it.
func (w *simulation) offer(slot Slot, peer *simulatedPeer, f Frame, lane Lane, budget Budget) {
	queued, open := w.loop.Queued(slot), w.loop.Open(slot)
	text := w.loop.frames[f].bytes
	taken := w.loop.Offer(slot, f, lane, budget)
	switch {
	case open && peer.ending, !open && !peer.ending && w.loop.streams.At(uint32(slot)).state != stateClosed:
		w.breach("slot %d is open %v, and its end was asked for %v", slot, open, peer.ending)
	case !open:
		return
	case taken && queued > 0 && budget.Bytes > 0 && queued+len(text) > budget.Bytes:
		w.breach("slot %d took %d bytes beside %d, over its budget of %d", slot, len(text), queued, budget.Bytes)
	case !taken && queued == 0:
		w.breach("slot %d has nothing queued, and did not take %d bytes", slot, len(text))
	case taken:
		if f == w.piece {
			peer.want = append(peer.want, w.text.behind(peer.tail)...)
			peer.tail = w.text.number
		} else {
			peer.want = append(peer.want, text...)
		}
		if w.loop.Queued(slot) != queued+len(text) {
			w.breach("slot %d has %d bytes queued after %d were added to %d", slot, w.loop.Queued(slot), len(text), queued)
		}
	}
}
