package bench

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bareServer is the floor: an epoll loop that accepts, answers with the shortest head there is,
// and writes what its feed says to the sockets of a channel. It keeps 12 bytes a stream. It knows
// our own crowds only: a request that does not come in one piece is refused, a socket that takes
// no more loses the message (which the crowd will notice).
type bareServer struct {
	epoll, listener, feedListener int
	gather                        bool

	sockets  []bareSocket  // by descriptor
	channels []bareChannel // by number
	feeds    map[int][]byte
	buffer   []byte
	pending  []barePending // what a gathering floor has read and not written yet
}

// bareSocket is all that the floor knows of a stream.
type bareSocket struct {
	channel  uint32 // its number + 1; 0: no stream
	position int32  // among its channel's members of its wire
	wire     uint8
}

type bareChannel struct {
	members [bareWires][]int32 // descriptors
}

// barePending is what waits for the members of a channel.
type barePending struct {
	channel uint32
	vectors [bareWires][]unix.Iovec
}

const (
	bareSSE = iota
	bareWebSocket
	bareWires
)

const (
	bareEventsMax  = 1024
	bareBufferSize = 256 << 10
	bareVectorsMax = 1024 // IOV_MAX
	bareBacklog    = 4096
)

var (
	bareHeads = [bareWires][]byte{
		[]byte("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"),
		[]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"),
	}
	barePaths = [bareWires]string{"GET /sse/", "GET /ws/"}
)

// runFloor serves until the process is ended.
func runFloor(listen, feed string, gather bool) error {
	b := &bareServer{
		gather: gather, feeds: make(map[int][]byte), buffer: make([]byte, bareBufferSize),
		// What is not used of these takes no memory.
		sockets: make([]bareSocket, descriptorsMax()), channels: make([]bareChannel, descriptorsMax()),
	}
	var err error
	if b.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("floor: make an epoll instance: %w", err)
	}
	if b.listener, err = b.listen(listen); err != nil {
		return err
	}
	if b.feedListener, err = b.listen(feed); err != nil {
		return err
	}
	events := make([]unix.EpollEvent, bareEventsMax)
	for {
		n, err := b.wait(events)
		if err != nil {
			return fmt.Errorf("floor: epoll_wait: %w", err)
		}
		for i := range events[:n] {
			if err := b.handle(int(events[i].Fd)); err != nil {
				return err
			}
		}
		b.flush()
	}
}

// wait sleeps in the kernel without telling the Go scheduler, which would take the processor away
// and have its monitor thread woken for every message: there is no other goroutine here.
func (b *bareServer) wait(events []unix.EpollEvent) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(b.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), ^uintptr(0), 0, 0)
	if errno == unix.EINTR {
		return 0, nil
	}
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func (b *bareServer) listen(address string) (int, error) {
	resolved, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return 0, fmt.Errorf("floor: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, fmt.Errorf("floor: open a socket: %w", err)
	}
	at := &unix.SockaddrInet4{Port: resolved.Port}
	copy(at.Addr[:], resolved.IP.To4())
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // accepted sockets inherit it
	if err := unix.Bind(fd, at); err != nil {
		return 0, fmt.Errorf("floor: bind %s: %w", address, err)
	}
	if err := unix.Listen(fd, bareBacklog); err != nil {
		return 0, fmt.Errorf("floor: listen on %s: %w", address, err)
	}
	return fd, b.watch(fd)
}

func (b *bareServer) watch(fd int) error {
	err := unix.EpollCtl(b.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
	if err != nil {
		return fmt.Errorf("floor: watch a socket: %w", err)
	}
	return nil
}

func (b *bareServer) handle(fd int) error {
	if fd == b.listener || fd == b.feedListener {
		return b.accept(fd)
	}
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b.buffer[0])), uintptr(len(b.buffer)))
		_, isFeed := b.feeds[fd]
		switch {
		case errno == unix.EAGAIN || errno == unix.EINTR:
			return nil
		case errno != 0 || n == 0:
			b.hangUp(fd)
			return nil
		case isFeed:
			b.hear(fd, b.buffer[:n])
			if b.gather {
				continue // until the feed is dry
			}
		case b.sockets[fd].channel == 0:
			b.greet(fd, b.buffer[:n])
		}
		return nil
	}
}

func (b *bareServer) accept(listener int) error {
	for {
		// Bare, since the library's call makes garbage of the peer's address.
		accepted, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener), 0, 0, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		if errno != 0 {
			return nil // no more of them, or gone already
		}
		fd := int(accepted)
		if fd >= len(b.sockets) {
			unix.Close(fd)
			continue
		}
		if listener == b.feedListener {
			b.feeds[fd] = nil
		}
		if err := b.watch(fd); err != nil {
			return err
		}
	}
}

// greet answers a request and makes its socket a member of the channel that it names.
func (b *bareServer) greet(fd int, request []byte) {
	for wire, path := range barePaths {
		rest, ok := bytes.CutPrefix(request, []byte(path))
		if !ok {
			continue
		}
		name, _, _ := bytes.Cut(rest, []byte(" "))
		number, known := b.number(name)
		if !known || !bytes.HasSuffix(request, headEnd) {
			break
		}
		members := b.channels[number].members[wire]
		b.sockets[fd] = bareSocket{channel: number + 1, position: int32(len(members)), wire: uint8(wire)}
		b.channels[number].members[wire] = append(members, int32(fd))
		b.write(fd, bareHeads[wire])
		return
	}
	b.hangUp(fd)
}

// number reads the name of a channel.
func (b *bareServer) number(name []byte) (number uint32, known bool) {
	value, err := strconv.ParseUint(string(name), 10, 24)
	return uint32(value), err == nil && value < uint64(len(b.channels))
}

func (b *bareServer) hangUp(fd int) {
	delete(b.feeds, fd)
	if s := b.sockets[fd]; s.channel != 0 {
		members := b.channels[s.channel-1].members[s.wire]
		last := len(members) - 1
		members[s.position] = members[last]
		b.sockets[members[last]].position = s.position
		b.channels[s.channel-1].members[s.wire] = members[:last]
	}
	b.sockets[fd] = bareSocket{}
	unix.Close(fd)
}

// hear takes bytes of a feed: lines "CHANNEL PAYLOAD".
func (b *bareServer) hear(fd int, read []byte) {
	kept := b.feeds[fd]
	if len(kept) > 0 {
		read = append(kept, read...)
	}
	for {
		end := bytes.IndexByte(read, '\n')
		if end < 0 {
			break
		}
		b.publish(read[:end])
		read = read[end+1:]
	}
	b.feeds[fd] = append([]byte(nil), read...)
}

func (b *bareServer) publish(line []byte) {
	name, payload, _ := bytes.Cut(line, []byte(" "))
	number, known := b.number(name)
	if !known {
		return
	}
	for wire, members := range b.channels[number].members {
		if len(members) == 0 {
			continue
		}
		encoded := bareEncode(wire, payload)
		if b.gather {
			b.keep(number, wire, encoded)
			continue
		}
		for _, fd := range members {
			b.write(int(fd), encoded)
		}
	}
}

// keep remembers bytes for the members of a channel until flush.
func (b *bareServer) keep(number uint32, wire int, encoded []byte) {
	at := slices.IndexFunc(b.pending, func(p barePending) bool { return p.channel == number })
	if at < 0 {
		at = len(b.pending)
		b.pending = append(b.pending, barePending{channel: number})
	}
	vector := unix.Iovec{Base: &encoded[0]}
	vector.SetLen(len(encoded))
	b.pending[at].vectors[wire] = append(b.pending[at].vectors[wire], vector)
}

func bareEncode(wire int, payload []byte) []byte {
	if wire == bareSSE {
		return append(append([]byte("data: "), payload...), "\n\n"...)
	}
	if len(payload) < 126 {
		return append([]byte{0x81, byte(len(payload))}, payload...)
	}
	return append([]byte{0x81, 126, byte(len(payload) >> 8), byte(len(payload))}, payload...)
}

func (b *bareServer) write(fd int, p []byte) {
	unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
}

// flush writes what was gathered.
func (b *bareServer) flush() {
	for i := range b.pending {
		members := &b.channels[b.pending[i].channel].members
		for wire, vectors := range b.pending[i].vectors {
			for len(vectors) > 0 {
				some := vectors[:min(len(vectors), bareVectorsMax)]
				vectors = vectors[len(some):]
				for _, fd := range members[wire] {
					unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&some[0])), uintptr(len(some)))
				}
			}
		}
	}
	clear(b.pending)
	b.pending = b.pending[:0]
}
