package netio

import "time"

// TickLength is the grain of a loop's timers. Heartbeats and deadlines of seconds need no finer.
const TickLength = 100 * time.Millisecond

// Tick is a point in a loop's time, in [TickLength]s since the loop was made. It starts at 1:
// 0 is "never".
type Tick uint32

// wheelLen is the number of buckets, a power of two. A timer further away than one round simply
// stays in its bucket when the hand passes.
const wheelLen = 1024

// wheel holds one timer per stream as doubly linked lists through the slab itself.
type wheel struct {
	buckets [wheelLen]Slot
	hand    Tick // the last tick whose bucket was looked at
	count   int
}

// SetTimer makes [Events.Timer] be called for slot once, after about wait (rounded up to the
// next tick). It replaces the timer that slot had. A wait of zero or less removes it.
func (l *Loop) SetTimer(slot Slot, wait time.Duration) {
	s := l.streams.At(uint32(slot))
	if s.state == stateEnding || s.state == stateLingering {
		return // netio's own deadline is running
	}
	l.setTimer(slot, s, wait)
}

func (l *Loop) setTimer(slot Slot, s *stream, wait time.Duration) {
	if s.due != 0 {
		l.removeTimer(slot, s)
	}
	if wait <= 0 || s.state == stateFree || s.state == stateClosed {
		return
	}
	s.due = l.tick + Tick((wait+TickLength-1)/TickLength)
	bucket := &l.wheel.buckets[s.due%wheelLen]
	s.timerNext, s.timerPrevious = *bucket, 0
	if *bucket != 0 {
		l.streams.At(uint32(*bucket)).timerPrevious = slot
	}
	*bucket = slot
	l.wheel.count++
}

func (l *Loop) removeTimer(slot Slot, s *stream) {
	if s.timerPrevious != 0 {
		l.streams.At(uint32(s.timerPrevious)).timerNext = s.timerNext
	} else {
		l.wheel.buckets[s.due%wheelLen] = s.timerNext
	}
	if s.timerNext != 0 {
		l.streams.At(uint32(s.timerNext)).timerPrevious = s.timerPrevious
	}
	s.due, s.timerNext, s.timerPrevious = 0, 0, 0
	l.wheel.count--
}

// runTimers calls the timers that are due, at most timersPerTurn of them; it reports whether
// some are left for the next turn.
func (l *Loop) runTimers() (more bool) {
	w := &l.wheel
	if w.count == 0 {
		w.hand = l.tick
		return false
	}
	// Starting at the hand itself and not behind it picks up what an earlier turn had to leave.
	ran := 0
	for {
		for slot := w.buckets[w.hand%wheelLen]; slot != 0; {
			s := l.streams.At(uint32(slot))
			next := s.timerNext
			if s.due <= l.tick {
				if ran == timersPerTurn {
					return true
				}
				ran++
				l.removeTimer(slot, s)
				l.timer(slot, s)
				// The callback may have changed any timer of this bucket: start it afresh.
				// Timers already run are gone from it, so this ends.
				next = w.buckets[w.hand%wheelLen]
			}
			slot = next
		}
		if w.hand >= l.tick {
			return false
		}
		w.hand++
	}
}

// nextTimer is when the next bucket with a timer comes round, on the loop's clock; 0: never.
func (l *Loop) nextTimer() int64 {
	if l.wheel.count == 0 {
		return 0
	}
	for ahead := Tick(1); ahead < wheelLen; ahead++ {
		if l.wheel.buckets[(l.tick+ahead)%wheelLen] != 0 {
			return l.start + int64(l.tick+ahead)*int64(TickLength)
		}
	}
	return l.start + int64(l.tick+wheelLen)*int64(TickLength)
}
