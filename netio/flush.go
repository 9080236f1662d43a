package netio

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	flushSocketsMax = 128             // sockets written to in one turn
	flushTimeMax    = 1_000_000       // nanoseconds of writing in one turn
	flushBulkMin    = 32              // bulk sockets of those that a turn always reaches
	flushClockEvery = 8               // sockets between two looks at the clock
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

// flush writes what is queued, at most flushSocketsMax sockets and flushTimeMax long, and
// reports whether some are left. Express sockets come first, but bulk ones always get a share,
// or a stream of answers would starve a fan-out.
func (l *Loop) flush() (more bool) {
	start := l.sys.now()
	for n := 0; n < flushSocketsMax; n++ {
		if n%flushClockEvery == 0 && n > 0 {
			l.now = l.sys.now()
			if l.now-start > flushTimeMax && n >= flushBulkMin {
				break
			}
		}
		bulkDue := l.express.empty() || n >= flushSocketsMax-flushBulkMin
		switch {
		case bulkDue && !l.bulk.empty():
			slot := l.bulk.pop()
			l.streams.At(uint32(slot)).flags &^= flagBulk
			l.flushStream(slot)
		case !l.express.empty():
			slot := l.express.pop()
			l.streams.At(uint32(slot)).flags &^= flagExpress
			l.flushStream(slot)
		default:
			return false
		}
	}
	return !l.express.empty() || !l.bulk.empty()
}

// flushStream offers the kernel all that one stream has, in one call.
func (l *Loop) flushStream(slot Slot) {
	s := l.streams.At(uint32(slot))
	if s.outbox == 0 || s.flags&flagBlocked != 0 || s.state == stateClosed {
		return
	}
	o := l.outboxes.At(s.outbox)
	offered, written, errno := l.writeHead(s, o)
	l.counters.Writes++
	if errno == unix.EAGAIN || errno == unix.EINTR {
		written, errno = 0, 0
	}
	if errno != 0 {
		l.Close(slot, ReasonPeerReset)
		return
	}
	l.counters.BytesWritten += uint64(written)
	if written > 0 {
		s.lastWrite = l.tick
	}
	switch {
	case l.advance(o, uint32(written)):
		l.removeOutbox(s)
		if s.state == stateEnding {
			l.shut(s)
		} else if s.flags&flagWatched != 0 {
			s.flags &^= flagWatched
			l.drained(slot)
		}
	case written < offered:
		s.flags |= flagBlocked
		l.counters.ShortWrites++
		l.interest(slot, s, unix.EPOLLOUT)
	default:
		l.enlist(slot, s, Bulk)
	}
}

// writeHead writes the first frames of o: with write if it is one, with writev if more. Frames
// whose bytes lie one behind the other are one piece for the kernel.
func (l *Loop) writeHead(s *stream, o *outbox) (offered, written int, errno unix.Errno) {
	first := l.frames[l.chunks.At(o.head).frames[o.headIndex]].bytes[o.written:]
	if o.count == 1 {
		written, errno = l.sys.write(int(s.fd), first)
		return len(first), written, errno
	}
	vectors := append(l.vectors[:0], vectorOf(first))
	offered = len(first)
	at, index := o.head, int(o.headIndex)+1
	for left := o.count - 1; left > 0 && offered < vectorBytesMax; left-- {
		if index == chunkLen {
			at, index = l.chunks.At(at).next, 0
		}
		next := vectorOf(l.frames[l.chunks.At(at).frames[index]].bytes)
		if last := &vectors[len(vectors)-1]; endOf(last) == uintptr(unsafe.Pointer(next.Base)) {
			last.Len += next.Len
		} else if len(vectors) < vectorsMax {
			vectors = append(vectors, next)
		} else {
			break
		}
		offered += int(next.Len)
		index++
	}
	written, errno = l.sys.writev(int(s.fd), vectors)
	return offered, written, errno
}

func vectorOf(bytes []byte) unix.Iovec {
	vector := unix.Iovec{Base: unsafe.SliceData(bytes)}
	vector.SetLen(len(bytes))
	return vector
}

// endOf is the address behind the bytes of a vector.
func endOf(v *unix.Iovec) uintptr { return uintptr(unsafe.Pointer(v.Base)) + uintptr(v.Len) }

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
