package netio

import (
	"encoding/binary"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/logtest"
	"github.com/millrace/millrace/internal/polltest"
)

// relayHeader makes a header of version 2: the two bytes after the signature, and what follows the
// length.
func relayHeader(command, family byte, rest string) string {
	return relaySignature + string([]byte{command, family}) + string(binary.BigEndian.AppendUint16(nil, uint16(len(rest)))) + rest
}

var (
	fromIPv4 = "\xcb\x00\x71\x05" + "\xc6\x33\x64\x07" + "\xd9\x03" + "\x01\xbb" // 203.0.113.5 to 198.51.100.7:443
	fromIPv6 = string(netip.MustParseAddr("2001:db8::5").AsSlice()) + string(netip.MustParseAddr("2001:db8::7").AsSlice()) + "\xd9\x03\x01\xbb"
	fromBoth = string(netip.MustParseAddr("::ffff:203.0.113.5").AsSlice()) + string(netip.MustParseAddr("::1").AsSlice()) + "\xd9\x03\x01\xbb"
	// TLVs: of a type that nobody has heard of, a padding, and one whose length is not true.
	oddTLVs = "\xe9\x00\x03abc" + "\x04\x00\x02\x00\x00" + "\x20\xff\xff\x01"
)

// relayCases are headers and what they say.
var relayCases = []struct {
	name, header string
	client       string // where there is no fault
	fault        *deskFault
}{
	{"2, IPv4", relayHeader(0x21, 0x11, fromIPv4), "203.0.113.5", nil},
	{"2, IPv6", relayHeader(0x21, 0x21, fromIPv6), "2001:db8::5", nil},
	{"2, IPv4 in IPv6", relayHeader(0x21, 0x21, fromBoth), "203.0.113.5", nil},
	{"2, TLVs", relayHeader(0x21, 0x11, fromIPv4+oddTLVs), "203.0.113.5", nil},
	{"2, as long as may be", relayHeader(0x21, 0x11, fromIPv4+strings.Repeat("\x00", relayBytesMax-relayFixed-len(fromIPv4))), "203.0.113.5", nil},
	{"2, local", relayHeader(0x20, 0x00, ""), "", nil},
	{"2, local with an address", relayHeader(0x20, 0x11, fromIPv4), "", nil},
	{"2, local of an unknown family", relayHeader(0x20, 0x77, "abc"), "", nil},
	{"2, not said", relayHeader(0x21, 0x00, oddTLVs), forUnknown, nil},
	{"2, datagrams", relayHeader(0x21, 0x12, fromIPv4), forUnknown, nil},
	{"2, a unix socket", relayHeader(0x21, 0x31, strings.Repeat("a", 216)), forUnknown, nil},
	{"1, IPv4", "PROXY TCP4 203.0.113.5 198.51.100.7 55555 443\r\n", "203.0.113.5", nil},
	{"1, IPv6", "PROXY TCP6 2001:db8::5 2001:db8::7 55555 443\r\n", "2001:db8::5", nil},
	{"1, the longest", "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", nil},
	{"1, unknown", "PROXY UNKNOWN\r\n", forUnknown, nil},
	{"1, unknown, and more", "PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", forUnknown, nil},

	{"none", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "", faultNoRelay},
	{"none, a similar method", "PROPFIND / HTTP/1.1\r\n", "", faultNoRelay},
	{"none, an empty line", "\r\nGET / HTTP/1.1\r\n", "", faultNoRelay},
	{"none, TLS", "\x16\x03\x01\x02\x00", "", faultNoRelay},
	{"another signature", "\r\n\r\n\x00\r\nQUIT\r", "", faultNoRelay},
	{"another word", "PROXY\tTCP4 203.0.113.5 198.51.100.7 55555 443\r\n", "", faultNoRelay},
	{"2, version 1", relayHeader(0x11, 0x11, fromIPv4), "", faultRelayVersion},
	{"2, version 3", relayHeader(0x31, 0x11, fromIPv4), "", faultRelayVersion},
	{"2, a third command", relayHeader(0x22, 0x11, fromIPv4), "", faultRelayVersion},
	{"2, a fourth family", relayHeader(0x21, 0x41, fromIPv4), "", faultRelayVersion},
	{"2, a third transport", relayHeader(0x21, 0x13, fromIPv4), "", faultRelayVersion},
	{"2, no address", relayHeader(0x21, 0x11, ""), "", faultRelayShort},
	{"2, half an address", relayHeader(0x21, 0x11, fromIPv4[:11]), "", faultRelayShort},
	{"2, IPv4 for IPv6", relayHeader(0x21, 0x21, fromIPv4), "", faultRelayShort},
	{"2, a short path", relayHeader(0x21, 0x31, strings.Repeat("a", 215)), "", faultRelayShort},
	{"2, too long", relayHeader(0x21, 0x11, strings.Repeat("\x00", relayBytesMax-relayFixed+1)), "", faultRelayLong},
	{"2, local, 64 KiB", relayHeader(0x20, 0x00, strings.Repeat("\x00", 0xffff)), "", faultRelayLong},
	{"1, an endless line", "PROXY TCP4 " + strings.Repeat("1", 200), "", faultRelayLong},
	{"1, an endless unknown", "PROXY UNKNOWN " + strings.Repeat("1", 200), "", faultRelayLong},
	{"1, no words", "PROXY \r\n", "", faultRelayLine},
	{"1, another protocol", "PROXY UDP4 203.0.113.5 198.51.100.7 55555 443\r\n", "", faultRelayLine},
	{"1, small letters", "PROXY tcp4 203.0.113.5 198.51.100.7 55555 443\r\n", "", faultRelayLine},
	{"1, IPv6 for IPv4", "PROXY TCP4 2001:db8::5 198.51.100.7 55555 443\r\n", "", faultRelayLine},
	{"1, IPv4 for IPv6", "PROXY TCP6 2001:db8::5 198.51.100.7 55555 443\r\n", "", faultRelayLine},
	{"1, a zone", "PROXY TCP6 fe80::5%eth0 2001:db8::7 55555 443\r\n", "", faultRelayLine},
	{"1, a leading zero", "PROXY TCP4 203.0.113.05 198.51.100.7 55555 443\r\n", "", faultRelayLine},
	{"1, a name", "PROXY TCP4 localhost 198.51.100.7 55555 443\r\n", "", faultRelayLine},
	{"1, two spaces", "PROXY TCP4  203.0.113.5 198.51.100.7 55555 443\r\n", "", faultRelayLine},
	{"1, a word more", "PROXY TCP4 203.0.113.5 198.51.100.7 55555 443 x\r\n", "", faultRelayLine},
	{"1, a word less", "PROXY TCP4 203.0.113.5 198.51.100.7 55555\r\n", "", faultRelayLine},
	{"1, a port of 65536", "PROXY TCP4 203.0.113.5 198.51.100.7 65536 443\r\n", "", faultRelayLine},
	{"1, a signed port", "PROXY TCP4 203.0.113.5 198.51.100.7 +1 443\r\n", "", faultRelayLine},
	{"1, LF alone", "PROXY TCP4 203.0.113.5 198.51.100.7 55555 443\n" + strings.Repeat("x", 107), "", faultRelayLong},
}

// TestReadRelay reads each header whole, with bytes behind it, and cut at every byte: a part of it is
// not enough, or wrong already.
func TestReadRelay(t *testing.T) {
	for _, test := range relayCases {
		t.Run(test.name, func(t *testing.T) {
			for _, behind := range []string{"", "G", "\r\n", relayWord} {
				length, found, fault := readRelay([]byte(test.header + behind))
				if fault != test.fault || fault == nil && (length != len(test.header) || found != relay{client: test.client}) {
					t.Fatalf("with %q behind: length %d of %d, %+v, fault %v", behind, length, len(test.header), found, fault)
				}
			}
			for cut := 1; cut < len(test.header); cut++ {
				length, _, fault := readRelay([]byte(test.header[:cut]))
				if length != 0 || fault != nil && fault != test.fault {
					t.Fatalf("of %d bytes: length %d, fault %v", cut, length, fault)
				}
			}
		})
	}
}

func FuzzReadRelay(f *testing.F) {
	for _, test := range relayCases {
		f.Add([]byte(test.header), 7)
	}
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		if len(data) == 0 {
			return
		}
		length, found, fault := readRelay(data)
		if length > len(data) || length > relayBytesMax || length > 0 && fault != nil {
			t.Fatalf("length %d of %d, fault %v", length, len(data), fault)
		}
		if _, err := netip.ParseAddr(found.client); err != nil && found.client != "" && found.client != forUnknown {
			t.Fatalf("the client is %q", found.client)
		}
		cut = min(max(cut, 1), len(data))
		partLength, part, partFault := readRelay(data[:cut])
		switch {
		case partFault != nil && partFault != fault:
			t.Fatalf("of %d bytes the fault is %v, of all of them %v", cut, partFault, fault)
		case partLength > 0 && (partLength != length || part != found):
			t.Fatalf("of %d bytes %d %+v, of all of them %d %+v", cut, partLength, part, length, found)
		case cut >= length && length > 0 && partLength == 0:
			t.Fatalf("%d bytes are enough, and %d are not", length, cut)
		}
	})
}

// relayed are the options of a desk behind a proxy, whose handler says for whom a request is.
func relayed() DeskOptions {
	return DeskOptions{
		Relays: netip.Addr.IsLoopback,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, strings.Join(r.Header["X-Forwarded-For"], ",")+" "+r.RemoteAddr)
		}),
	}
}

// TestRelayedRequests: on every request of a connection stands for whom it is, whatever the pieces in
// which header and head come. Who speaks for itself has nothing added.
func TestRelayedRequests(t *testing.T) {
	for _, test := range relayCases {
		if test.fault != nil {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			desk := newDesk(t, relayed())
			text := test.header + get
			step := max(1, len(text)/40)
			for cut := 0; cut < len(text); cut += step {
				c := dial(t, desk)
				c.send(text[:cut])
				if cut > 0 {
					polltest.Eventually(t, "the first part has arrived", func() bool { return arrived(c) })
				}
				c.send(text[cut:] + get)
				for range 2 {
					if got, want := c.answer("GET").body, test.client+" "+c.LocalAddr().String(); got != want {
						t.Fatalf("cut at %d: it is for %q, want %q", cut, got, want)
					}
				}
				c.Close()
			}
		})
	}
}

// arrived says whether all that a client has sent was acknowledged.
func arrived(c *client) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	left := 0
	_ = raw.Control(func(fd uintptr) { left = (&kernel{}).unacknowledged(int(fd)) })
	return left <= 0
}

// TestRelayedAtOnce: a header costs no connection its short way.
func TestRelayedAtOnce(t *testing.T) {
	header := relayHeader(0x21, 0x21, fromIPv6+oddTLVs)
	long := relayHeader(0x21, 0x11, fromIPv4+strings.Repeat("\x00", relayBytesMax-relayFixed-len(fromIPv4)))
	desk, clients := early(t, relayed(), header+get, header+get+get, long+get, "PROXY UNKNOWN\r\n"+get)
	for n, want := range []string{"2001:db8::5", "2001:db8::5", "203.0.113.5", forUnknown} {
		if got := clients[n].answer("GET").body; got != want+" "+clients[n].LocalAddr().String() {
			t.Errorf("client %d: it is for %q, want %q", n, got, want)
		}
	}
	if got := clients[1].answer("GET").body; !strings.HasPrefix(got, "2001:db8::5 ") {
		t.Errorf("the second request is for %q", got)
	}
	if got := desk.Stats().AtOnce; got != 4 {
		t.Errorf("%d were served at once", got)
	}
}

// TestRelayedClientClaims: what a client wrote itself stands before what the proxy says of it.
func TestRelayedClientClaims(t *testing.T) {
	c := dial(t, newDesk(t, relayed()))
	c.send("PROXY TCP4 203.0.113.5 198.51.100.7 55555 443\r\nGET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n")
	if got := c.answer("GET").body; !strings.HasPrefix(got, "192.0.2.1,203.0.113.5 ") {
		t.Errorf("it is for %q", got)
	}
}

// TestRelayedParks: neither the header nor what stands behind the request is lost or doubled where the
// request becomes a stream.
func TestRelayedParks(t *testing.T) {
	lot := &parking{}
	options := relayed()
	options.Adopt, options.Abandoned = lot.adopt, lot.abandon
	options.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _ = Park(w, r.Header.Get("X-Forwarded-For")) })
	desk := newDesk(t, options)
	c := dial(t, desk)
	header := relayHeader(0x21, 0x11, fromIPv4)
	c.send(header[:20])
	polltest.Eventually(t, "the first part has arrived", func() bool { return arrived(c) })
	c.send(header[20:] + get + "behind")
	socket := lot.one(t)
	defer syscall.Close(socket.fd)
	var room [16]byte
	n, _ := syscall.Read(socket.fd, room[:])
	if got := socket.early + string(room[:max(n, 0)]); got != "behind" || socket.guest != "203.0.113.5" {
		t.Errorf("behind the request are %q, and it is for %v", got, socket.guest)
	}
}

// TestRelayRefused: what is no header is answered, counted and logged, and costs nobody else anything.
func TestRelayRefused(t *testing.T) {
	log := &logtest.Text{}
	options := relayed()
	options.Logger = slog.New(slog.NewTextHandler(log, nil))
	desk := newDesk(t, options)
	bystander := dial(t, desk)
	bystander.send("PROXY TCP4 203.0.113.5 198.51.100.7 55555 443\r\n")
	refused := uint64(0)
	for _, test := range relayCases {
		if test.fault == nil {
			continue
		}
		c := dial(t, desk)
		c.send(test.header)
		if got := c.answer("GET"); got.StatusCode != 400 || !strings.Contains(got.body, test.fault.message) {
			t.Errorf("%s: %d %s", test.name, got.StatusCode, got.body)
		}
		c.Close()
		refused++
	}
	if got := desk.Stats().Refused[RefusedRelay]; got != refused {
		t.Errorf("%d were counted, want %d", got, refused)
	}
	if said := log.String(); !strings.Contains(said, "PROXY") || strings.Count(said, "\n") >= int(refused) {
		t.Errorf("the log says %q, want a line, and not one for each", said)
	}
	bystander.send(get)
	if got := bystander.answer("GET").body; !strings.HasPrefix(got, "203.0.113.5 ") {
		t.Errorf("the bystander is %q", got)
	}
}

// TestRelayUntrusted: from who is not trusted a header is refused, in words that say so, also where it
// comes in parts; and a request without one is served, to the peer itself.
func TestRelayUntrusted(t *testing.T) {
	log := &logtest.Text{}
	options := relayed()
	options.Relays = netip.Addr.IsMulticast
	options.Logger = slog.New(slog.NewTextHandler(log, nil))
	desk := newDesk(t, options)
	for _, first := range []string{relayHeader(0x21, 0x11, fromIPv4) + get, relaySignature[:4], "PROXY TCP4 203.0.113.5 198.51.100.7 55555 443\r\n" + get} {
		c := dial(t, desk)
		c.send(first)
		if got := c.answer("GET"); got.StatusCode != 400 || !strings.Contains(got.body, "not trusted") {
			t.Errorf("%q: %d %s", first, got.StatusCode, got.body)
		}
	}
	if got := desk.Stats().Refused[RefusedRelay]; got != 3 {
		t.Errorf("%d were counted", got)
	}
	if !strings.Contains(log.String(), "not trusted") {
		t.Errorf("the log says %q", log.String())
	}
	c := dial(t, desk)
	c.send(get)
	if got := c.answer("GET").body; got != " "+c.LocalAddr().String() {
		t.Errorf("without a header it is for %q", got)
	}
}

// TestRelaySlow: who sends half a header is not waited for.
func TestRelaySlow(t *testing.T) {
	options := relayed()
	options.HandshakeTimeout = 50 * time.Millisecond
	desk := newDesk(t, options)
	c := dial(t, desk)
	c.send(relaySignature)
	if got := c.answer("GET"); got.StatusCode != 408 {
		t.Errorf("it was answered %d", got.StatusCode)
	}
	if got := desk.Stats().Refused[RefusedHandshakeSlow]; got != 1 {
		t.Errorf("%d were counted", got)
	}
}
