package netio

import (
	"fmt"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// Run turns the loop until [Loop.Stop].
func (l *Loop) Run() {
	defer close(l.done)
	others := newYielder()
	defer others.close()
	for more := false; !l.stopping; {
		if more = l.turn(more); more {
			others.yield()
		} else {
			others.rest()
		}
	}
	l.tearDown()
}

// turn is one round. The order is part of the design:
//   - reading precedes mail, so that what a peer asked for is known before what happens next is
//     told to it;
//   - mail and work precede the flush, so that one write takes all that this turn queued;
//   - freeing comes last, so that a slot means the same stream during a whole turn.
func (l *Loop) turn(more bool) bool {
	n := l.wait(more)
	l.now = l.sys.now()
	l.tick = Tick((l.now - l.start) / int64(TickLength))
	l.counters.Turns++
	l.readAll(l.epollEvents[:n])
	more = l.handleMail()
	more = l.runTimers() || more
	if l.tick >= l.nextStall && !l.deaf {
		l.nextStall = l.tick + stallCheck
		l.closeStalled()
	}
	more = l.work() || more
	more = l.flush() || more
	l.freeClosed()
	return more
}

// wait asks the kernel what happened. It sleeps only with nothing left to do and no mail. A loop
// that was called for its mail alone does not ask: whoever watches the sockets would have said so.
// One that has slept through nothing does, since that watcher may want for a processor.
func (l *Loop) wait(more bool) int {
	if !more && !l.sleep() || l.deaf {
		return 0
	}
	n, errno := l.sys.look(l.epollEvents)
	if errno != 0 && errno != unix.EINTR {
		panic(fmt.Sprintf("netio: epoll_wait failed: %v", errno))
	}
	return n
}

// sleep waits for the kernel, for mail or for a timer, and reports whether to look at the sockets.
func (l *Loop) sleep() (look bool) {
	due := l.nextDue()
	l.sys.alarm(l.now, due)
	l.mailbox.asleep.Store(true) // from here on posters wake
	defer l.mailbox.asleep.Store(false)
	if !l.mailbox.empty() || due != 0 && due <= l.now {
		return true
	}
	if l.deaf {
		l.sys.rest()
		return false
	}
	return l.sys.sleep()
}

// nextDue is when the loop must be awake at the latest, on its clock; 0: it need not.
func (l *Loop) nextDue() int64 {
	due := l.nextTimer()
	if l.outboxesInUse > 0 && (due == 0 || due > l.now+int64(time.Second)) {
		return l.now + int64(time.Second) // stalled streams must be noticed
	}
	return due
}

// readAll hears every socket that has something to say, once.
func (l *Loop) readAll(events []unix.EpollEvent) {
	for i := range events {
		event := &events[i]
		key := uint64(uint32(event.Fd)) | uint64(uint32(event.Pad))<<32
		slot := Slot(key)
		s := l.streams.At(uint32(slot))
		if s.state == stateFree || s.state == stateClosed || s.generation != uint32(key>>32) {
			continue
		}
		if event.Events&unix.EPOLLOUT != 0 && s.flags&flagBlocked != 0 {
			l.writable(slot, s)
		}
		if event.Events&^uint32(unix.EPOLLOUT) != 0 {
			l.readStream(slot, s)
		}
	}
}

func (l *Loop) readStream(slot Slot, s *stream) {
	n, errno := l.sys.read(int(s.fd), l.readBuffer)
	l.counters.Reads++
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
	case errno != 0:
		l.Close(slot, reasonOf(errno))
	case n == 0:
		l.Close(slot, ReasonPeerClosed)
	default:
		l.counters.BytesRead += uint64(n)
		if s.state == stateOpen {
			l.received(slot, l.readBuffer[:n])
		}
	}
}

// handleMail takes the mail once and works through it, at most mailPerTurn posts and about
// mailTimeMax long.
func (l *Loop) handleMail() (more bool) {
	if l.inbox == nil {
		l.inbox = l.mailbox.take()
	}
	for n := 0; n < mailPerTurn && l.inbox != nil; n++ {
		if n%mailClockEvery == mailClockEvery-1 && l.sys.now()-l.now > mailTimeMax {
			break
		}
		item := l.inbox.item
		l.inbox = l.inbox.next
		l.counters.Mail++
		switch item := item.(type) {
		case *arrival:
			l.arrive(item)
		case question:
			item()
		case stop:
			l.stopping = true
		default:
			l.mail(item)
		}
	}
	return l.inbox != nil
}

func epollKey(slot Slot, generation uint32) uint64 { return uint64(slot) | uint64(generation)<<32 }

// arrive makes a parked connection a stream.
func (l *Loop) arrive(a *arrival) {
	l.sys.setSendBuffer(a.fd, sendBufferBytes)
	slot := l.newStream(a.fd)
	s := l.streams.At(uint32(slot))
	errno := l.sys.epollControl(unix.EPOLL_CTL_ADD, a.fd, readEvents, epollKey(slot, s.generation))
	l.counters.Adopted++
	l.adopted(slot, a.guest)
	if errno != 0 {
		l.counters.Refused++
		l.Close(slot, ReasonPeerReset)
		return
	}
	if len(a.early) > 0 && s.state == stateOpen {
		l.received(slot, a.early)
	}
}

// tearDown closes all that is left.
func (l *Loop) tearDown() {
	for _, rest := range []*letter{l.inbox, l.mailbox.close()} {
		for ; rest != nil; rest = rest.next {
			if a, ok := rest.item.(*arrival); ok {
				l.arrive(a) // so that its guest, too, hears of an end
			}
		}
	}
	for slot := Slot(1); slot <= l.highestStream; slot++ {
		l.Close(slot, ReasonLoopClosed)
	}
	l.freeClosed()
	l.sys.end()
}

// The owner's callbacks, each guarded: a panic costs the stream concerned, not the loop.

func (l *Loop) adopted(slot Slot, guest any) {
	defer l.guard(slot)
	l.events.Adopted(slot, guest)
}

func (l *Loop) received(slot Slot, bytes []byte) {
	defer l.guard(slot)
	l.events.Received(slot, bytes)
}

func (l *Loop) timer(slot Slot, s *stream) {
	switch s.state {
	case stateEnding, stateLingering:
		l.Close(slot, ReasonEndDeadline)
		return
	case stateClosed: // in this turn, and its owner has said goodbye to it
		return
	}
	defer l.guard(slot)
	l.events.Timer(slot)
}

func (l *Loop) drained(slot Slot) {
	defer l.guard(slot)
	l.events.Drained(slot)
}

func (l *Loop) closed(slot Slot, s *stream) {
	defer l.guard(0)
	l.events.Closed(slot, s.reason)
}

// encode gives nil where the owner panics.
func (l *Loop) encode(slot Slot, source any, after bool) []byte {
	defer l.guard(slot)
	return l.events.Encode(source, after)
}

func (l *Loop) mail(item any) {
	defer l.guard(0)
	l.events.Mail(item)
}

func (l *Loop) work() (more bool) {
	defer l.guard(0)
	more = true // where the owner panics: what else it has pending is somebody else's
	return l.events.Work()
}

func (l *Loop) guard(slot Slot) {
	value := recover()
	if value == nil {
		return
	}
	if slot != 0 {
		l.Close(slot, ReasonBug)
	}
	l.events.Panicked(value, debug.Stack())
}
