package auth

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

const (
	// forwardedHopsMax is how many proxies are believed in a row.
	forwardedHopsMax = 16
	// limitBitsIPv6 is the prefix that counts as one address: what one customer gets at least.
	limitBitsIPv6 = 64
)

// Proxies is the list of addresses whose X-Forwarded-For and X-Forwarded-Proto are believed. The
// zero value believes nobody. It is immutable and safe for concurrent use.
type Proxies struct {
	prefixes []netip.Prefix
}

// ParseProxies reads networks (10.0.0.0/8) and single addresses. The error names the entry.
func ParseProxies(list []string) (Proxies, error) {
	proxies := Proxies{prefixes: make([]netip.Prefix, 0, len(list))}
	for _, text := range list {
		if address, err := netip.ParseAddr(text); err == nil {
			address = address.Unmap().WithZone("")
			proxies.prefixes = append(proxies.prefixes, netip.PrefixFrom(address, address.BitLen()))
			continue
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil || prefix.Addr().Is4In6() {
			return Proxies{}, fmt.Errorf("trusted proxy %q: not an address or a network; write 10.0.0.7 or 10.0.0.0/8", text)
		}
		proxies.prefixes = append(proxies.prefixes, prefix.Masked())
	}
	return proxies, nil
}

// Contains reports whether address is one of the proxies.
func (p Proxies) Contains(address netip.Addr) bool {
	for _, prefix := range p.prefixes {
		if prefix.Contains(address) {
			return true
		}
	}
	return false
}

// ClientAddress is the address that a request comes from: the peer's, or, if that is a trusted
// proxy, what it says in X-Forwarded-For, read from the right as long as trusted proxies speak,
// sixteen of them at most. An entry that is no address ends the reading: the client is then the
// proxy that wrote it. What stands left of the first address that is not trusted is never looked
// at, because anybody can write it; neither is Forwarded (RFC 7239). The result is unmapped and
// without a zone; it is invalid if the peer's address is.
func ClientAddress(r *http.Request, trusted Proxies) netip.Addr {
	client := peerAddress(r)
	if !trusted.Contains(client) {
		return client
	}
	lines := r.Header["X-Forwarded-For"]
	hops := 0
	for number := len(lines) - 1; number >= 0; number-- {
		rest, more := lines[number], true
		for more {
			var entry string
			if comma := strings.LastIndexByte(rest, ','); comma >= 0 {
				rest, entry = rest[:comma], rest[comma+1:]
			} else {
				rest, entry, more = "", rest, false
			}
			address, good := parseHop(entry)
			if !good {
				return client
			}
			client = address
			if hops++; hops >= forwardedHopsMax || !trusted.Contains(client) {
				return client
			}
		}
	}
	return client
}

// LimitKey is what the streams of an address are counted by: the 4 bytes of an IPv4 address, or of
// IPv6 the 8 bytes of its /64, within which one customer can take any address. It is empty for the
// invalid address.
func LimitKey(address netip.Addr) string {
	switch address = address.Unmap(); {
	case address.Is4():
		bytes := address.As4()
		return string(bytes[:])
	case address.Is6():
		bytes := address.As16()
		return string(bytes[:limitBitsIPv6/8])
	default:
		return ""
	}
}

// LimitKeyText is a key that [LimitKey] made, as people write it: 203.0.113.5, 2001:db8::/64. It is
// empty for any other.
func LimitKeyText(key string) string {
	var bytes [16]byte
	switch copy(bytes[:], key); len(key) {
	case 4:
		return netip.AddrFrom4([4]byte(bytes[:4])).String()
	case limitBitsIPv6 / 8:
		return netip.PrefixFrom(netip.AddrFrom16(bytes), limitBitsIPv6).String()
	default:
		return ""
	}
}

// peerAddress is the address of the connection's other end, or the invalid one.
func peerAddress(r *http.Request) netip.Addr {
	address, _ := parseHop(r.RemoteAddr)
	return address
}

// parseHop reads an address with or without a port, IPv6 with or without brackets.
func parseHop(text string) (netip.Addr, bool) {
	text = strings.Trim(text, " \t")
	if withPort, err := netip.ParseAddrPort(text); err == nil {
		return withPort.Addr().Unmap().WithZone(""), true
	}
	if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
		text = text[1 : len(text)-1]
	}
	address, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, false
	}
	return address.Unmap().WithZone(""), true
}
