package netio

import (
	"bytes"
	"encoding/binary"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// This file reads the header of the PROXY protocol, by which a proxy that passes bytes on, and knows
// no HTTP, tells whose they are: before the first byte of the connection that it relays. Version 1
// is a line of text, version 2 binary. (haproxy.org/download/3.0/doc/proxy-protocol.txt; clauses
// are of that document.) A peer either always sends one or never does: guessing would let a client
// write its own (clause 2).

const (
	relaySignature = "\r\n\r\n\x00\r\nQUIT\n" // of version 2 (clause 2.2)
	relayFixed     = len(relaySignature) + 4  // version and command, family, two bytes of length
	relayWord      = "PROXY "                 // version 1 (clause 2.1)
	relayLineMax   = 107                      // of version 1, with its CR LF
	relayBytesMax  = 4 << 10                  // of version 2: room for a client's certificate among the TLVs
	forUnknown     = "unknown"                // in X-Forwarded-For, RFC 7239 section 6.2 has the word
)

// relay is what a connection's PROXY header says.
type relay struct {
	// awaited says that the header has not come whole yet.
	awaited bool
	// client is for whom the peer passes bytes on, as X-Forwarded-For names them; empty if the peer
	// speaks for itself.
	client string
}

func relayFault(message string) *deskFault {
	return &deskFault{http.StatusBadRequest, "bad_request", message, RefusedRelay}
}

var (
	faultNoRelay        = relayFault("connections from this address begin with a PROXY header, and this one does not")
	faultRelayUntrusted = relayFault("a PROXY header came from an address that is not trusted to send one")
	faultRelayLine      = relayFault("the line of the PROXY header is not: PROXY, TCP4 or TCP6, two addresses, two ports")
	faultRelayVersion   = relayFault("the PROXY header is of an unknown version, command or address family")
	faultRelayShort     = relayFault("the PROXY header is shorter than its addresses")
	faultRelayLong      = relayFault("the PROXY header is longer than this server takes")
)

// readRelay reads the header that data begins with. It gives its length once it is there, 0 while
// more is needed, or the fault, as soon as that shows.
func readRelay(data []byte) (length int, found relay, fault *deskFault) {
	switch {
	case startsLike(data, relaySignature):
		return readRelayBinary(data)
	case startsLike(data, relayWord):
		return readRelayLine(data)
	}
	return 0, relay{}, faultNoRelay
}

// startsLike reports whether data begins with text, as far as it goes.
func startsLike(data []byte, text string) bool {
	n := min(len(data), len(text))
	return string(data[:n]) == text[:n]
}

// readRelayBinary reads version 2. What follows the addresses, TLVs, is skipped.
func readRelayBinary(data []byte) (length int, found relay, fault *deskFault) {
	if len(data) < relayFixed {
		return 0, relay{}, nil
	}
	const (
		versionLocal = 0x20 // version 2, and the peer speaks for itself: it looks whether we live
		versionProxy = 0x21
	)
	command, family := data[len(relaySignature)], data[len(relaySignature)+1]
	addressBytes, known := relayFamilies[family]
	if command != versionLocal && command != versionProxy || command == versionProxy && !known {
		return 0, relay{}, faultRelayVersion
	}
	length = relayFixed + int(binary.BigEndian.Uint16(data[relayFixed-2:]))
	switch {
	case length > relayBytesMax:
		return 0, relay{}, faultRelayLong
	case command == versionProxy && length < relayFixed+addressBytes:
		return 0, relay{}, faultRelayShort
	case len(data) < length:
		return 0, relay{}, nil
	case command == versionLocal:
		return length, relay{}, nil
	}
	switch source := data[relayFixed:length]; family {
	case relayTCP4:
		return length, relayFor(netip.AddrFrom4([4]byte(source[:4]))), nil
	case relayTCP6:
		return length, relayFor(netip.AddrFrom16([16]byte(source[:16]))), nil
	}
	return length, relay{client: forUnknown}, nil
}

const (
	relayTCP4 = 0x11
	relayTCP6 = 0x21
)

// relayFamilies is how many bytes the two addresses, with their ports, take in each family and
// transport. All but the first two are none that a TCP connection has: the client stays unknown.
var relayFamilies = map[byte]int{
	relayTCP4: 12, relayTCP6: 36,
	0x00: 0,            // not said
	0x12: 12, 0x22: 36, // datagrams
	0x31: 216, 0x32: 216, // of this machine alone
}

func relayFor(client netip.Addr) relay { return relay{client: client.Unmap().String()} }

// readRelayLine reads version 1: PROXY, TCP4, the client's address and ours, the two ports; or PROXY,
// UNKNOWN and anything.
func readRelayLine(data []byte) (length int, found relay, fault *deskFault) {
	line, _, whole := bytes.Cut(data[:min(len(data), relayLineMax)], []byte("\r\n"))
	switch {
	case !whole && len(data) >= relayLineMax:
		return 0, relay{}, faultRelayLong
	case !whole:
		return 0, relay{}, nil
	}
	length = len(line) + len("\r\n")
	words := strings.Split(string(line), " ")
	if len(words) > 1 && words[1] == "UNKNOWN" {
		return length, relay{client: forUnknown}, nil
	}
	if len(words) != 6 || !isPort(words[4]) || !isPort(words[5]) {
		return 0, relay{}, faultRelayLine
	}
	source, sourceErr := netip.ParseAddr(words[2])
	target, targetErr := netip.ParseAddr(words[3])
	isOf := map[string]func(netip.Addr) bool{"TCP4": netip.Addr.Is4, "TCP6": isPlainIPv6}[words[1]]
	if sourceErr != nil || targetErr != nil || isOf == nil || !isOf(source) || !isOf(target) {
		return 0, relay{}, faultRelayLine
	}
	return length, relayFor(source), nil
}

func isPlainIPv6(address netip.Addr) bool { return address.Is6() && address.Zone() == "" }

// isPort says whether text is a port in its one form.
func isPort(text string) bool {
	port, err := strconv.ParseUint(text, 10, 16)
	return err == nil && strconv.FormatUint(port, 10) == text
}

// unlessRelayed gives the fault of a head that is no HTTP, or a better one if it is a PROXY header, as
// far as it has come.
func unlessRelayed(fault *deskFault, head []byte) *deskFault {
	if bytes.HasPrefix(head, []byte(relayWord)) || len(head) >= len("\r\n\r\n") && startsLike(head, relaySignature) {
		return faultRelayUntrusted
	}
	return fault
}

// relayOf is what a connection from an address begins with.
func (d *Desk) relayOf(peer netip.Addr) relay {
	return relay{awaited: d.options.Relays != nil && d.options.Relays(peer)}
}

// introduce reads the PROXY header of a connection, and says whether there may be more to do.
func (c *deskConn) introduce(data []byte, direct bool) bool {
	length, found, fault := readRelay(data)
	switch {
	case fault != nil:
		c.refuse(fault, false)
		return false
	case length == 0:
		return c.keep(data, direct)
	}
	c.relay = found
	c.consume(length, direct)
	return true
}

// relayRefused says in the log what is wrong between a proxy and us: its users only see that nothing
// works.
func (d *Desk) relayRefused(peer string, fault *deskFault) {
	d.relays.Do(func() {
		d.logger.Warn("a connection was refused because of the PROXY protocol", "address", peer, "because", fault.message,
			"refused", d.counts.refused[RefusedRelay].Load())
	})
}
