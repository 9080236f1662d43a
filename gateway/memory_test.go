package gateway_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/internal/redistest"
)

// TestStreamBytes holds an idle stream to what it may cost of the heap. What the process is charged
// for it beside that (the runtime's own tables, pages that are not full) shows in `millrace bench
// run idle`. No test runs beside it.
func TestStreamBytes(t *testing.T) {
	const few, many = 300, 2100
	for _, test := range []struct {
		name       string
		own, token bool
		zipped     bool
		forwarded  bool
		bytesMax   float64
	}{
		{name: "on a shared channel", bytesMax: 105},
		{name: "as a gzip stream", zipped: true, bytesMax: 105 + 24},
		{name: "on its own channel", own: true, bytesMax: 170},
		{name: "of a user, with an expiry, on its own and the personal channel", own: true, token: true, bytesMax: 310},
		{name: "the same from an address of its own", own: true, token: true, forwarded: true, bytesMax: 320},
	} {
		t.Run(test.name, func(t *testing.T) {
			address := serveQuietly(t, test.token)
			crowd := &rawCrowd{address: address, requests: func(number int) []byte {
				channel, header := "job_progress:shared", ""
				if test.own {
					channel = fmt.Sprintf("job_progress:%06d", number)
				}
				if test.token {
					token, err := auth.Mint(secret, auth.MintClaims{User: fmt.Sprintf("user-%06d", number), TTL: time.Hour})
					if err != nil {
						t.Fatal(err)
					}
					header += bearer(token) + "\r\n"
				}
				if test.zipped {
					header += "Accept-Encoding: gzip\r\n" // what connected says is not compressed
				}
				if test.forwarded {
					header += fmt.Sprintf("X-Forwarded-For: 203.0.%d.%d\r\n", number>>8, number&255)
				}
				return fmt.Appendf(nil, "GET /api/stream?channel=%s HTTP/1.1\r\nHost: %s\r\n%s\r\n", channel, address, header)
			}}
			defer crowd.close()
			crowd.open(t, few)
			before := heapBytes()
			crowd.open(t, many)
			each := float64(heapBytes()-before) / (many - few)
			t.Logf("%.0f bytes of the heap for a stream", each)
			if each > test.bytesMax {
				t.Errorf("a stream costs %.0f bytes of the heap, the limit is %.0f", each, test.bytesMax)
			}
		})
	}
}

// serveQuietly starts a gateway that logs nothing, since kept lines are memory too, with a Redis.
func serveQuietly(t *testing.T, authenticated bool) (address string) {
	options := gateway.Options{
		Redis: redistest.Start(t).URL(), Loops: 1,
		Logger: slog.New(slog.DiscardHandler), TrustedProxies: []string{"127.0.0.0/8"},
	}
	if authenticated {
		options.Auth.HMACSecret = secret
	}
	h := serve(t, options)
	h.awaitDelivery(t)
	return h.address
}

// heapBytes is what lives on the heap. What a finalizer or a pool lets go of goes with the next
// collection.
func heapBytes() int64 {
	for range 3 {
		runtime.GC()
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return int64(memory.HeapAlloc)
}

// rawCrowd is many event streams that cost this process nothing but a number each.
type rawCrowd struct {
	address  string
	requests func(number int) []byte
	sockets  []int32
}

// open has count streams in all, each of which has heard that it is connected.
func (c *rawCrowd) open(t *testing.T, count int) {
	t.Helper()
	if c.sockets == nil {
		c.sockets = make([]int32, 0, 10_000)
	}
	to := netip.MustParseAddrPort(c.address)
	room := make([]byte, 4096)
	for len(c.sockets) < count {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		c.sockets = append(c.sockets, int32(fd))
		wait := unix.NsecToTimeval(int64(patience))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(fd, c.requests(len(c.sockets))); err != nil {
			t.Fatal(err)
		}
		heard := room[:0]
		for !bytes.Contains(heard, []byte(`"type":"connected"`)) {
			n, err := unix.Read(fd, room[len(heard):])
			if err == unix.EINTR {
				continue // a read with a timeout is not begun again by the kernel (signal(7)), and the runtime sends signals
			}
			if err != nil || n == 0 {
				t.Fatalf("stream %d ended (%v) after %.300q", len(c.sockets), err, heard)
			}
			heard = room[:len(heard)+n]
		}
	}
}

func (c *rawCrowd) close() {
	for _, fd := range c.sockets {
		unix.Close(int(fd))
	}
}
