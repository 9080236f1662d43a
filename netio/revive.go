package netio

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// This file is a loop's share of a live upgrade: what it tells of its streams, and how it goes on with
// those of a loop in another process. What belongs to whom meanwhile is the owner's to decide
// (package handoff).

// revivalSlotMax bounds the slots that a loop in another process may have used.
const revivalSlotMax = 1 << 28

// SetDeaf makes the loop hear no socket until it is called again with false: nothing that peers send
// is read, nobody's end is noticed, and a socket that had no room gets nothing more. Mail, timers,
// work and writes go on, and nobody is closed for what could not be noticed.
func (l *Loop) SetDeaf(deaf bool) {
	l.deaf = deaf
	l.nextStall = l.tick + stallCheck // until then what has room may be written to
}

// Descriptor is the socket of slot. It stays the loop's.
func (l *Loop) Descriptor(slot Slot) int { return int(l.streams.At(uint32(slot)).fd) }

// Highest is the highest slot that was ever taken.
func (l *Loop) Highest() Slot { return l.highestStream }

// NextGeneration is a generation that no slot of the loop has reached.
func (l *Loop) NextGeneration() uint32 {
	next := l.generation
	for slot := Slot(1); slot <= l.highestStream; slot++ {
		next = max(next, l.streams.At(uint32(slot)).generation+1)
	}
	return next
}

// EachUnsent calls yield for every piece that waits for slot, in order, with its bytes, which nobody may
// change, and with how many of them the kernel has taken already: of all but the first piece none. Pieces
// with the same number are the same, whatever streams they wait for, as long as nothing is written.
func (l *Loop) EachUnsent(slot Slot, yield func(number uint64, bytes []byte, taken int)) {
	s := l.streams.At(uint32(slot))
	if s.outbox == 0 {
		return
	}
	o := l.outboxes.At(s.outbox)
	tail := uint64(0)
	if s.flags&flagSpliced != 0 {
		tail = l.trailOf(s).number()
	}
	at, index, taken := o.head, int(o.headIndex), int(o.written)
	for left := o.count; left > 0; left-- {
		if index == chunkLen {
			at, index = l.chunks.At(at).next, 0
		}
		f := l.chunks.At(at).frames[index]
		entry := &l.frames[f]
		number, bytes := uint64(f)<<1, entry.bytes
		if splice := entry.splice; splice != nil {
			piece := entry.pieceBehind(tail)
			if *piece == nil && !l.makePiece(slot, entry, piece) {
				return // the stream is closed
			}
			if bytes = *piece; piece == &splice.after {
				number |= 1
			}
			tail = splice.Number
		}
		yield(number, bytes, taken)
		index, taken = index+1, 0
	}
}

// Spliced reports whether slot is a spliced stream.
func (l *Loop) Spliced(slot Slot) bool { return l.streams.At(uint32(slot)).flags&flagSpliced != 0 }

// Revival is a stream of a loop with the same index in another process, to be gone on with under the
// same name.
type Revival struct {
	ID        ID
	FD        int // connected, non-blocking; the loop's from here on
	LastWrite Tick
	// Spliced says that it is a spliced stream, and TextSum and TextLength what [Loop.TextSum] said.
	Spliced             bool
	TextSum, TextLength uint32
}

// Revive goes on with streams of another process, once, on a loop that has had none. generation is the
// other loop's [Loop.NextGeneration], so that no name is given twice. The slots are as open as if
// [Events.Adopted] had been called for them, which it is not; one whose socket can't be watched is
// closed at the end of the turn. Events of sockets come in later turns. On an error nothing was
// taken.
func (l *Loop) Revive(streams []Revival, generation uint32) error {
	if l.highestStream != 0 {
		return errors.New("netio: revive: the loop has had streams already")
	}
	if err := CheckRevivals(int(l.index), streams); err != nil {
		return err
	}
	l.generation = generation
	l.nextStall = l.tick + stallCheck // what waits has not been tried to be written here yet
	for i := range streams {
		l.revive(&streams[i])
	}
	// The lowest free slots are taken first, as long as there are any.
	for slot := l.highestStream; slot > 0; slot-- {
		if s := l.streams.At(uint32(slot)); s.state == stateFree {
			s.fd, s.generation = -1, generation
			s.timerNext, l.freeStream = l.freeStream, slot
		}
	}
	return nil
}

// CheckRevivals says which of the streams could not be gone on with on the loop with that index. Any
// goroutine.
func CheckRevivals(loop int, streams []Revival) error {
	taken := make(map[Slot]bool, len(streams))
	for i := range streams {
		id := streams[i].ID
		if slot := id.slot(); id.Loop() != loop || slot == 0 || slot > revivalSlotMax || taken[slot] {
			return fmt.Errorf("netio: revive: the name %x is not one for loop %d, or comes twice", uint64(id), loop)
		}
		taken[id.slot()] = true
	}
	return nil
}

// watchesMax is where the kernel says how many sockets all epoll instances of a user may watch.
const watchesMax = "/proc/sys/fs/epoll/max_user_watches"

// CheckWatches says whether so many sockets can be watched by all processes of this user together, as far
// as that is known. Any goroutine.
func CheckWatches(sockets int) error {
	text, err := os.ReadFile(watchesMax)
	if err != nil {
		return nil // there is no such bound, or nobody may know it
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || sockets <= most {
		return nil
	}
	return fmt.Errorf("netio: the kernel watches at most %d sockets for one user, and there would be %d: raise the sysctl fs.epoll.max_user_watches", most, sockets)
}

func (l *Loop) revive(from *Revival) {
	slot := from.ID.slot()
	l.highestStream = max(l.highestStream, slot)
	l.streams.Grow(uint32(slot))
	s := l.streams.At(uint32(slot))
	*s = stream{fd: int32(from.FD), generation: from.ID.generation(), lastWrite: min(from.LastWrite, l.tick)}
	l.move(s, stateOpen)
	if from.Spliced {
		// What comes next begins with a piece that fits behind anything.
		l.addTrail(s, trail{sum: from.TextSum, length: from.TextLength})
	}
	l.counters.Open++
	l.counters.Adopted++
	errno := l.sys.epollControl(unix.EPOLL_CTL_ADD, from.FD, readEvents, epollKey(slot, s.generation))
	if errno != 0 {
		l.counters.Refused++
		l.Close(slot, ReasonPeerReset)
	}
}

// SetQueueAge makes what waits for slot as old as it was elsewhere: something of it has waited for
// age, and no whole frame has left for silent. It does nothing where nothing waits.
func (l *Loop) SetQueueAge(slot Slot, age, silent time.Duration) {
	s := l.streams.At(uint32(slot))
	if s.outbox == 0 {
		return
	}
	o := l.outboxes.At(s.outbox)
	o.marked = l.ago(age)
	o.progress = l.ago(silent)
}

// ago is the tick of a moment in the past, at the earliest the loop's first.
func (l *Loop) ago(d time.Duration) Tick {
	return l.tick - min(Tick(max(d, 0)/TickLength), l.tick-1)
}
