package netio

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	flushSocketsMax = 128             // sockets written to in one turn
	flushTimeMax    = 500_000         // nanoseconds of writing in one turn
	flushBulkMin    = 32              // bulk sockets of those that a turn always reaches
	flushBatchMax   = 64              // sockets written to between two looks at the clock, in one call if the kernel can
	flushManyMin    = 4               // sockets from which on one call for all is cheaper than one for each
	flushBatchBytes = 128 << 10       // bytes offered in a batch, from which on no further socket is added
	flushVectors    = 512             // pieces in a batch
	vectorsMax      = 128             // pieces in one writev
	vectorBytesMax  = 256 << 10       // bytes offered in one writev
	laneShrinkLen   = 4 * slabPageLen // a lane's used part is reclaimed from this length on
)

// lane is a queue of slots waiting to be written.
type lane struct {
	slots []Slot
	first int
}

func (q *lane) empty() bool { return q.first == len(q.slots) }

func (q *lane) push(slot Slot) { q.slots = append(q.slots, slot) }

func (q *lane) pop() Slot {
	slot := q.slots[q.first]
	q.first++
	switch {
	case q.first == len(q.slots):
		q.slots, q.first = q.slots[:0], 0
	case q.first >= laneShrinkLen && q.first*2 >= len(q.slots):
		q.slots = q.slots[:copy(q.slots, q.slots[q.first:])]
		q.first = 0
	}
	return slot
}

func (l *Loop) enlist(slot Slot, s *stream, to Lane) {
	if to == Express {
		if s.flags&flagExpress == 0 {
			s.flags |= flagExpress
			l.express.push(slot)
		}
		return
	}
	if s.flags&(flagBulk|flagExpress) == 0 {
		s.flags |= flagBulk
		l.bulk.push(slot)
	}
}

// transfer is what a flush offers to one socket, and what became of it.
type transfer struct {
	slot     Slot
	fd       int
	vectors  []unix.Iovec // at least one, none of them empty
	offered  int          // bytes in all of them
	finished bool
	written  int
	errno    unix.Errno
}

// flush writes what is queued, at most flushSocketsMax sockets and about flushTimeMax long, and
// reports whether some are left.
func (l *Loop) flush() (more bool) {
	start := l.sys.now()
	l.encodedBytes = 0
	for n := 0; n < flushSocketsMax && (n < flushBulkMin || l.now-start <= flushTimeMax); {
		taken := l.gather(n)
		if taken == 0 {
			return false
		}
		n += taken
		l.carryOut(l.batch)
		l.now = l.sys.now()
		for i := range l.batch {
			l.settle(&l.batch[i])
		}
		clear(l.batch)
		clear(l.vectors)
		l.batch, l.vectors = l.batch[:0], l.vectors[:0]
	}
	return !l.express.empty() || !l.bulk.empty()
}

// gather makes the next batch, of a turn that has reached so many sockets already, and says how many
// it has reached now. Express sockets come first, but bulk ones always get a share, or a stream of
// answers would starve a fan-out.
func (l *Loop) gather(reached int) (taken int) {
	offered := 0
	for ; reached+taken < flushSocketsMax && len(l.batch) < flushBatchMax && offered < flushBatchBytes; taken++ {
		if cap(l.vectors)-len(l.vectors) < vectorsMax {
			break
		}
		bulkDue := l.express.empty() || reached+taken >= flushSocketsMax-flushBulkMin
		var slot Slot
		var mark streamFlags
		switch {
		case bulkDue && !l.bulk.empty():
			slot, mark = l.bulk.pop(), flagBulk
		case !l.express.empty():
			slot, mark = l.express.pop(), flagExpress
		default:
			return taken
		}
		s := l.streams.At(uint32(slot))
		s.flags &^= mark
		offered += l.offer(slot, s)
	}
	return taken
}

// offer adds all that one stream has to the batch, and says how many bytes that is. One that stands
// in both lanes is in the batch already, with the same bytes.
func (l *Loop) offer(slot Slot, s *stream) (offered int) {
	if s.outbox == 0 || s.flags&(flagBlocked|flagOffered) != 0 || s.state == stateClosed {
		return 0
	}
	first := len(l.vectors)
	if o := l.outboxes.At(s.outbox); s.flags&flagSpliced == 0 {
		offered = l.offerFrames(o)
	} else if offered = l.offerPieces(slot, s, o); offered == 0 {
		return 0
	}
	s.flags |= flagOffered
	l.batch = append(l.batch, transfer{slot: slot, fd: int(s.fd), vectors: l.vectors[first:len(l.vectors):len(l.vectors)], offered: offered})
	return offered
}

// offerFrames adds the first frames of o to the vectors. Frames whose bytes lie one behind the other
// are one piece for the kernel.
func (l *Loop) offerFrames(o *outbox) (offered int) {
	first := len(l.vectors)
	at, index, skip := o.head, int(o.headIndex), int(o.written)
	for left := o.count; left > 0 && offered < vectorBytesMax; left-- {
		if index == chunkLen {
			at, index = l.chunks.At(at).next, 0
		}
		next := vectorOf(l.frames[l.chunks.At(at).frames[index]].bytes[skip:])
		if !l.addVector(first, next) {
			break
		}
		offered += int(next.Len)
		index, skip = index+1, 0
	}
	return offered
}

// addVector adds a piece to those of one stream, which begin at first. It says no if they are too many.
func (l *Loop) addVector(first int, next unix.Iovec) bool {
	n := len(l.vectors)
	if n > first && endOf(&l.vectors[n-1]) == baseOf(&next) {
		l.vectors[n-1].Len += next.Len
		return true
	}
	if n-first == vectorsMax {
		return false
	}
	l.vectors = append(l.vectors, next)
	return true
}

// carryOut has the kernel take a batch: with one call if it can take several, else with a write or
// writev for each.
func (l *Loop) carryOut(batch []transfer) {
	if len(batch) >= flushManyMin {
		l.sys.sendMany(batch)
	}
	for i := range batch {
		switch t := &batch[i]; {
		case t.finished:
		case len(t.vectors) == 1:
			t.written, t.errno = l.sys.write(t.fd, t.vectors[0])
		default:
			t.written, t.errno = l.sys.writev(t.fd, t.vectors)
		}
	}
}

// settle takes note of what became of one stream's share of a flush.
func (l *Loop) settle(t *transfer) {
	s := l.streams.At(uint32(t.slot))
	s.flags &^= flagOffered
	l.counters.Writes++
	if s.state == stateClosed {
		return // by a callback, since it was offered
	}
	if t.errno == unix.EAGAIN || t.errno == unix.EINTR {
		t.written, t.errno = 0, 0
	}
	if t.errno != 0 {
		l.Close(t.slot, reasonOf(t.errno))
		return
	}
	l.counters.BytesWritten += uint64(t.written)
	switch {
	case l.took(s, uint32(t.written)):
		l.removeOutbox(s)
		if s.state == stateEnding {
			l.shut(s)
		} else if s.flags&flagWatched != 0 {
			s.flags &^= flagWatched
			l.drained(t.slot)
		}
	case t.written < t.offered:
		s.flags |= flagBlocked
		l.counters.ShortWrites++
		l.interest(t.slot, s, unix.EPOLLOUT)
	default:
		l.enlist(t.slot, s, Bulk)
	}
}

// took takes written bytes off what a stream has waiting, and reports whether that is all.
func (l *Loop) took(s *stream, written uint32) (empty bool) {
	o := l.outboxes.At(s.outbox)
	if s.flags&flagSpliced != 0 {
		return l.advanceSpliced(s, o, written)
	}
	if written > 0 {
		s.lastWrite = l.tick
	}
	return l.advance(o, written)
}

func vectorOf(bytes []byte) unix.Iovec {
	vector := unix.Iovec{Base: unsafe.SliceData(bytes)}
	vector.SetLen(len(bytes))
	return vector
}

// baseOf is the address of the bytes of a vector, endOf the one behind them.
func baseOf(v *unix.Iovec) uintptr { return uintptr(unsafe.Pointer(v.Base)) }

func endOf(v *unix.Iovec) uintptr { return baseOf(v) + uintptr(v.Len) }

// writable is called when a socket that had taken a short write has room again.
func (l *Loop) writable(slot Slot, s *stream) {
	s.flags &^= flagBlocked
	l.interest(slot, s, 0)
	l.enlist(slot, s, Bulk)
}

// interest sets what epoll watches a socket for, besides what it sends.
func (l *Loop) interest(slot Slot, s *stream, more uint32) {
	errno := l.sys.epollControl(unix.EPOLL_CTL_MOD, int(s.fd), readEvents|more, epollKey(slot, s.generation))
	if errno != 0 {
		l.Close(slot, ReasonPeerReset)
	}
}
