package bench

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/netio"
)

const (
	connectTimeout = 20 * time.Second // for one connection; a full backlog makes the kernel wait
	tokenLifetime  = 12 * time.Hour
)

// dialer opens the sockets of a crowd on a goroutine of its own and hands them to the loop with
// the first step of their handshake already sent. At most Window handshakes are under way.
type dialer struct {
	plan    *connectPlan
	first   int // number of the first stream
	count   int
	tokens  []string      // by number - first; nil where the plan has no secret
	window  chan struct{} // one entry a handshake under way
	due     chan int32    // numbers of streams that come back now; room for all
	stopped chan struct{}
	stop    sync.Once
}

// startDialing replaces the crowd's dialer by one for count streams, numbered from first.
func (c *crowd) startDialing(first, count int) {
	c.stopDialing()
	d := &dialer{
		plan: c.plan, first: first, count: count,
		window:  make(chan struct{}, max(1, c.plan.Window)),
		due:     make(chan int32, crowdStreamsMax),
		stopped: make(chan struct{}),
	}
	if c.plan.Secret != "" {
		if err := d.mint(); err != nil {
			c.fail(err.Error())
			return
		}
	}
	c.dial = d
	c.reply.DialNanos = monotonic()
	c.dialers.Go(func() { d.run(c.loop) })
}

func (c *crowd) stopDialing() {
	if c.dial != nil {
		c.dial.stop.Do(func() { close(c.dial.stopped) })
	}
}

// mint makes the tokens before the clock starts: signing them is no work of the server's.
func (d *dialer) mint() error {
	d.tokens = make([]string, d.count)
	expires := jwt.NewNumericDate(time.Now().Add(tokenLifetime))
	for i := range d.tokens {
		claims := jwt.RegisteredClaims{Subject: "user-" + strconv.Itoa(d.first+i), ExpiresAt: expires}
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(d.plan.Secret))
		if err != nil {
			return fmt.Errorf("a token cannot be signed: %w", err)
		}
		d.tokens[i] = token
	}
	return nil
}

// identity gives the channel and the token of a stream. Any goroutine.
func (d *dialer) identity(number int) (channel, token string) {
	if i := number - d.first; i >= 0 && i < len(d.tokens) {
		token = d.tokens[i]
	}
	of := d.plan.First
	if d.plan.Each > 1 {
		return severalNames(d.plan.Wire, d.plan.Channel, of+number*d.plan.Each, d.plan.Each), token
	}
	if d.plan.Own {
		of += number
	}
	return channelName(d.plan.Channel, of), token
}

// severalNames names several channels with what stands between two in a request or a list.
func severalNames(wire Wire, format string, first, count int) string {
	names := make([]string, count)
	for i := range names {
		names[i] = channelName(format, first+i)
	}
	return strings.Join(names, severalBetween[wire])
}

// severalBetween is what stands between the channels of a stream.
var severalBetween = map[Wire]string{SSE: "&channel=", WebSocket: `","`}

// done says that one handshake ended, well or not. Any goroutine.
func (d *dialer) done() {
	select {
	case <-d.window:
	default:
	}
}

func (d *dialer) run(loop *netio.Loop) {
	servers, err := d.plan.targets()
	if err != nil {
		_ = loop.PostAlways(dialFailed{d, err, int32(d.first)})
		return
	}
	if !d.dialAll(loop, servers) || !d.plan.Return {
		return
	}
	for next := 0; ; next++ {
		select {
		case number := <-d.due:
			if !d.dial(loop, servers[next%len(servers)], int(number)) {
				return
			}
		case <-d.stopped:
			return
		}
	}
}

// dialAll opens every stream for the first time, and says whether to go on.
func (d *dialer) dialAll(loop *netio.Loop, servers []*unix.SockaddrInet4) bool {
	for number := d.first; number < d.first+d.count; number++ {
		if !d.dial(loop, servers[number%len(servers)], number) {
			return false
		}
	}
	return true
}

// dial opens one stream, once its handshake is one of the window's, and says whether to go on.
func (d *dialer) dial(loop *netio.Loop, server *unix.SockaddrInet4, number int) bool {
	select {
	case d.window <- struct{}{}:
	case <-d.stopped:
		return false
	}
	channel, token := d.identity(number)
	fd, err := d.connect(server, d.source(number), d.plan.Steps[0].bytesFor(channel, token))
	if err != nil {
		return loop.PostAlways(dialFailed{d, err, int32(number)}) == nil
	}
	if err := loop.Adopt(fd, nil, arrival{from: d, number: int32(number)}); err != nil {
		unix.Close(fd)
		return false
	}
	return true
}

// How long a stream that was sent away stays there: at most, doubling with each attempt that is refused,
// and half of it at least. It is what our own client does.
const (
	returnFirst   = time.Second
	returnLongest = 30 * time.Second
)

// later has a stream come back that has tried so often in vain. Any goroutine.
func (d *dialer) later(number int32, attempts uint) {
	longest := min(returnFirst<<min(attempts, 10), returnLongest)
	time.AfterFunc(longest/2+rand.N(longest/2), func() { d.due <- number }) // once for each stream at most: there is room
}

// targets are the addresses of the service.
func (p *connectPlan) targets() ([]*unix.SockaddrInet4, error) {
	var found []*unix.SockaddrInet4
	for _, text := range append([]string{p.Address}, p.Others...) {
		address, err := netip.ParseAddrPort(text)
		if err != nil || !address.Addr().Is4() {
			return nil, fmt.Errorf("%q is no IPv4 address with a port", text)
		}
		found = append(found, &unix.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()})
	}
	return found, nil
}

// source spreads the streams over loopback addresses: one address has too few ports for many.
func (d *dialer) source(number int) *unix.SockaddrInet4 {
	host := 1 + d.plan.SourceFirst + number%max(1, d.plan.Sources)
	return &unix.SockaddrInet4{Addr: [4]byte{127, 0, byte(host >> 8), byte(host)}}
}

// connect opens one socket and sends first on it.
func (d *dialer) connect(server, source *unix.SockaddrInet4, first []byte) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open a socket: %w", err)
	}
	if err := prepare(fd, server, source, first); err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

func prepare(fd int, server, source *unix.SockaddrInet4, first []byte) error {
	// The port is chosen at connect, when the server's address makes many more of them free.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
		return fmt.Errorf("prepare a socket: %w", err)
	}
	if err := unix.Bind(fd, source); err != nil {
		return fmt.Errorf("take a loopback address: %w", err)
	}
	limit := unix.NsecToTimeval(int64(connectTimeout))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return fmt.Errorf("prepare a socket: %w", err)
	}
	for {
		err := unix.Connect(fd, server)
		if err == nil || err == unix.EISCONN { //nolint:errorlint // x/sys returns bare errnos
			break
		}
		if err != unix.EINTR && err != unix.EALREADY { //nolint:errorlint // as above
			return fmt.Errorf("connect: %w", err)
		}
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fmt.Errorf("prepare a socket: %w", err)
	}
	if n, err := unix.Write(fd, first); err != nil || n < len(first) {
		return fmt.Errorf("send the request: %d of %d bytes: %w", n, len(first), err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return fmt.Errorf("prepare a socket: %w", err)
	}
	return nil
}

// describeSteps shows a handshake without its bytes, for errors.
func describeSteps(steps []step) string {
	var expected []string
	for _, s := range steps {
		expected = append(expected, strconv.Quote(string(s.Expect)))
	}
	return strings.Join(expected, ", then ")
}
