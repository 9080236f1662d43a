package netio

import (
	"math/rand/v2"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// simulatedWorld is what a simulated kernel is a part of.
type simulatedWorld interface {
	// breach notes that something promised does not hold.
	breach(format string, arguments ...any)
	// checkSleep looks at the loop, which is about to sleep.
	checkSleep()
	// movePeers lets each peer do what it does.
	movePeers()
	// highest is the highest slot that the loop has had.
	highest() Slot
}

// simulatedSocket is one TCP connection: the descriptor that the loop has, and the peer.
type simulatedSocket struct {
	peer *simulatedPeer

	watched bool   // by epoll
	events  uint32 // that it is watched for
	key     uint64

	inbound []byte // sent by the peer, not read yet
	fin     bool   // the peer closed its side, behind inbound
	failure unix.Errno

	room     int    // bytes that the send buffer takes
	outbound []byte // written, not read by the peer yet
	shut     bool   // our side is closed, behind outbound
}

// broken says that the connection is gone: a reset, or a time-out.
func (s *simulatedSocket) broken() bool { return s.failure != 0 }

// ready is what epoll has to tell of the socket.
func (s *simulatedSocket) ready() (events uint32) {
	if len(s.inbound) > 0 || s.fin || s.broken() {
		events |= unix.EPOLLIN
	}
	if s.fin || s.broken() {
		events |= unix.EPOLLRDHUP
	}
	if s.broken() || s.fin && s.shut {
		events |= unix.EPOLLHUP // told whether asked for or not (epoll_ctl(2)), as the next
	}
	if s.broken() {
		events |= unix.EPOLLERR
	}
	if len(s.outbound) < s.room || s.broken() {
		events |= unix.EPOLLOUT
	}
	return events & (s.events | unix.EPOLLHUP | unix.EPOLLERR)
}

// simulatedKernel is the kernel of one loop, played from a seed by one goroutine. It does all that
// the real one may do, more often: it takes a part of what is written, or nothing; reports some of
// what is ready, in any order, or what is not; is interrupted; runs out of memory; resets. Its time
// passes when it is looked at, when the loop sleeps, and in leaps.
//
// It holds the loop to its side of the seam, too: no call on a descriptor that is not open or not
// watched, no write behind the end of writing, no sleep while there is work.
type simulatedKernel struct {
	world   simulatedWorld
	random  *rand.Rand
	clock   int64
	due     int64 // the alarm, 0: none
	woken   bool
	ended   bool
	calm    bool               // from here on nothing goes wrong
	ring    bool               // many sockets can be sent to by one call
	sockets []*simulatedSocket // by descriptor; nil: not open

	order []int  // in which a look finds sockets
	heard []byte // room for what a peer reads

	// Of the turn under way.
	reads, writes, looks int
}

const simulatedFirst = 3 // the lowest descriptor

// chance is true once in so many times, while things may go wrong.
func (k *simulatedKernel) chance(oneIn int) bool { return !k.calm && k.random.IntN(oneIn) == 0 }

// gone is a way for a connection to be gone.
func (k *simulatedKernel) gone() unix.Errno {
	return []unix.Errno{unix.ECONNRESET, unix.ETIMEDOUT, unix.EHOSTUNREACH}[k.random.IntN(3)]
}

// move lets a peer do what it does: read some of what it was sent, speak, close, vanish. It gives what
// was read, valid until the next call.
func (k *simulatedKernel) move(peer *simulatedPeer) (read []byte) {
	s := peer.socket
	if s.broken() {
		return nil
	}
	n := len(s.outbound)
	switch {
	case k.calm:
	case peer.mood == moodStill:
		n = 0
	case peer.mood == moodSlow:
		n = min(n, k.random.IntN(20))
	}
	k.heard = append(k.heard[:0], s.outbound[:n]...)
	s.outbound = append(s.outbound[:0], s.outbound[n:]...)
	if k.calm {
		s.fin = s.fin || s.shut // reads to the end, and closes
		return k.heard
	}
	if !s.fin && k.random.IntN(6) == 0 {
		text := make([]byte, k.random.IntN(100))
		fill(text, peer.sent)
		peer.sent += len(text)
		s.inbound = append(s.inbound, text...)
	}
	switch k.random.IntN(400) {
	case 0:
		s.fin = true
	case 1:
		if peer.mood == moodSudden {
			s.failure, s.outbound = k.gone(), nil
		}
	}
	if s.shut && len(s.outbound) == 0 && peer.mood == moodQuick {
		s.fin = true
	}
	return k.heard
}

// fill writes what a peer sends: byte number n of a connection is n, so that a byte lost or twice
// shows.
func fill(text []byte, from int) {
	for i := range text {
		text[i] = byte(from + i)
	}
}

// open gives a new socket the lowest number that is free, as Linux does: a descriptor that was let
// go of is somebody else's soon.
func (k *simulatedKernel) open(peer *simulatedPeer) (fd int) {
	socket := &simulatedSocket{peer: peer, room: 1 + k.random.IntN(2000)}
	peer.socket = socket
	for at, other := range k.sockets {
		if other == nil {
			k.sockets[at] = socket
			return at + simulatedFirst
		}
	}
	k.sockets = append(k.sockets, socket)
	return len(k.sockets) - 1 + simulatedFirst
}

func (k *simulatedKernel) socket(fd int) *simulatedSocket {
	if at := fd - simulatedFirst; at >= 0 && at < len(k.sockets) && k.sockets[at] != nil {
		return k.sockets[at]
	}
	k.world.breach("a call on descriptor %d, which is not open", fd)
	return &simulatedSocket{peer: &simulatedPeer{}}
}

func (k *simulatedKernel) now() int64 {
	k.clock += int64(k.random.IntN(20_000))
	if k.chance(200) {
		k.clock += int64(k.random.IntN(5_000_000)) // another process had the processor
	}
	return k.clock
}

func (k *simulatedKernel) look(events []unix.EpollEvent) (count int, errno unix.Errno) {
	k.looks++
	if k.chance(50) {
		return 0, unix.EINTR
	}
	add := func(key uint64, what uint32) {
		if count < len(events) {
			events[count] = unix.EpollEvent{Events: what, Fd: int32(uint32(key)), Pad: int32(uint32(key >> 32))}
			count++
		}
	}
	for at := len(k.order); at < len(k.sockets); at++ {
		k.order = append(k.order, at)
	}
	k.random.Shuffle(len(k.order), func(i, j int) { k.order[i], k.order[j] = k.order[j], k.order[i] })
	for _, at := range k.order {
		s := k.sockets[at]
		if s == nil || !s.watched {
			continue
		}
		if what := s.ready(); what != 0 && !k.chance(4) { // else it is told the next time
			add(s.key, what)
		} else if k.chance(20) {
			add(s.key, unix.EPOLLIN) // there was something a moment ago
		}
	}
	if k.chance(20) { // of a stream that ended while the event was on its way, or never was
		add(uint64(k.random.Uint32N(uint32(k.world.highest())+1))|uint64(k.random.Uint32())<<32, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLHUP)
	}
	return count, 0
}

func (k *simulatedKernel) alarm(_, due int64) {
	if due != 0 {
		k.due = due
	}
}

// sleep lets the world go on until there is something to tell.
func (k *simulatedKernel) sleep() (look bool) {
	k.world.checkSleep()
	if k.woken {
		k.woken = false
		return k.random.IntN(2) == 0
	}
	if k.chance(10) {
		return true // early
	}
	for range 50 {
		k.clock += int64(k.random.IntN(int(20 * time.Millisecond)))
		if k.due != 0 && k.clock > k.due {
			k.clock, k.due = max(k.due, k.clock-int64(20*time.Millisecond)), 0
			return false
		}
		if k.world.movePeers(); k.anythingReady() {
			return true
		}
	}
	return false
}

// rest is a sleep that may end for no reason.
func (k *simulatedKernel) rest() { k.sleep() }

func (k *simulatedKernel) anythingReady() bool {
	for _, s := range k.sockets {
		if s != nil && s.watched && s.ready() != 0 {
			return true
		}
	}
	return false
}

func (k *simulatedKernel) wake() { k.woken = true }

func (k *simulatedKernel) epollControl(operation, fd int, events uint32, key uint64) unix.Errno {
	s := k.socket(fd)
	switch {
	case operation == unix.EPOLL_CTL_DEL:
		s.watched = false
		return 0
	case k.chance(300):
		return unix.ENOMEM
	case operation == unix.EPOLL_CTL_ADD && k.chance(100):
		return unix.ENOSPC // max_user_watches
	case operation == unix.EPOLL_CTL_ADD && s.watched, operation == unix.EPOLL_CTL_MOD && !s.watched:
		k.world.breach("descriptor %d is watched %v, and the loop asks for operation %d", fd, s.watched, operation)
	}
	s.watched, s.events, s.key = true, events, key
	return 0
}

func (k *simulatedKernel) read(fd int, p []byte) (int, unix.Errno) {
	k.reads++
	s := k.socket(fd)
	switch {
	case k.chance(40):
		return 0, unix.EINTR
	case len(s.inbound) > 0 && s.failure != unix.ECONNRESET: // what came before a time-out can be read, before a reset not
		n := 1 + k.random.IntN(min(len(p), len(s.inbound)))
		if k.calm {
			n = min(len(p), len(s.inbound))
		}
		n = copy(p, s.inbound[:n])
		s.inbound = s.inbound[n:]
		return n, 0
	case s.broken():
		return 0, s.failure
	case s.fin:
		return 0, 0
	}
	return 0, unix.EAGAIN
}

func (k *simulatedKernel) write(fd int, piece unix.Iovec) (int, unix.Errno) {
	return k.writev(fd, []unix.Iovec{piece})
}

func (k *simulatedKernel) canSendMany() bool { return k.ring }

// sendMany carries out a batch, or the beginning of one: then the ring takes no more, ever.
func (k *simulatedKernel) sendMany(batch []transfer) {
	if len(batch) > flushBatchMax {
		k.world.breach("a batch of %d sockets", len(batch))
	}
	for i := range batch {
		if k.chance(1000) {
			k.ring = false
		}
		if !k.ring {
			return
		}
		t := &batch[i]
		t.written, t.errno = k.writev(t.fd, t.vectors)
		t.finished = true
	}
}

func (k *simulatedKernel) writev(fd int, vectors []unix.Iovec) (int, unix.Errno) {
	k.writes++
	s := k.socket(fd)
	if s.shut {
		k.world.breach("a write to descriptor %d behind the end of its writing", fd)
	}
	if len(vectors) > vectorsMax {
		k.world.breach("a write of %d pieces", len(vectors))
	}
	offered := 0
	for i := range vectors {
		if vectors[i].Len == 0 {
			k.world.breach("a write to descriptor %d with an empty piece", fd)
		}
		offered += int(vectors[i].Len)
	}
	free := s.room - len(s.outbound)
	switch {
	case s.broken():
		return 0, unix.EPIPE
	case k.chance(40):
		return 0, unix.EINTR
	case free <= 0 || k.chance(10):
		return 0, unix.EAGAIN
	}
	n := min(offered, free)
	if k.chance(3) {
		n = 1 + k.random.IntN(n)
	}
	left := n
	for i := 0; left > 0; i++ {
		piece := bytesOf(&vectors[i])
		part := piece[:min(left, len(piece))]
		s.outbound = append(s.outbound, part...)
		left -= len(part)
	}
	return n, 0
}

// bytesOf gives the bytes of a piece, which may be those of several frames that happen to lie one
// behind the other.
//
//go:nocheckptr
func bytesOf(piece *unix.Iovec) []byte { return unsafe.Slice(piece.Base, piece.Len) }

func (k *simulatedKernel) shutdownWrite(fd int) unix.Errno {
	s := k.socket(fd)
	if s.shut {
		k.world.breach("descriptor %d is shut twice", fd)
	}
	s.shut = true
	if s.broken() {
		return unix.ENOTCONN
	}
	return 0
}

func (k *simulatedKernel) setSendBuffer(fd, _ int) unix.Errno {
	k.socket(fd)
	if k.chance(50) {
		return unix.ENOBUFS
	}
	return 0
}

func (k *simulatedKernel) unacknowledged(fd int) int { return len(k.socket(fd).outbound) }

func (k *simulatedKernel) tcpInfo(int) *unix.TCPInfo { return nil }

// close lets go of the number even when it says that it failed (close(2)).
func (k *simulatedKernel) close(fd int) unix.Errno {
	s := k.socket(fd)
	if s.watched {
		k.world.breach("descriptor %d is closed while it is watched", fd)
	}
	s.peer.socket = nil
	if len(s.inbound) == 0 && !s.broken() { // else the rest is lost to a reset
		s.peer.left = s.outbound
	}
	k.sockets[fd-simulatedFirst] = nil
	if k.chance(50) {
		return unix.EINTR
	}
	return 0
}

func (k *simulatedKernel) end() {
	if k.ended {
		k.world.breach("the kernel is let go of twice")
	}
	k.ended = true
}
