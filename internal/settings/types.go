package settings

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// expecter is a type that can say, in half a sentence with an example, what it wants to read.
type expecter interface{ Expected() string }

// Auto is the value of a [Count] that leaves the choice to the gateway.
const Auto Count = -1

// Count is a number of things, never negative except for [Auto]. 0 means no limit where the
// setting is a limit.
type Count int

// Expected says what a Count looks like.
func (Count) Expected() string { return "a whole number, such as 100" }

// UnmarshalText reads a decimal number, or "auto".
func (c *Count) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		*c = Auto
		return nil
	}
	number, err := strconv.ParseUint(strings.ReplaceAll(string(text), "_", ""), 10, 31)
	if err != nil {
		return errExpected(c, text)
	}
	*c = Count(number)
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (c Count) MarshalText() ([]byte, error) {
	if c == Auto {
		return []byte("auto"), nil
	}
	return strconv.AppendInt(nil, int64(c), 10), nil
}

// Size is a number of bytes. 0 means no limit.
type Size int

// Expected says what a Size looks like.
func (Size) Expected() string { return "a size in bytes, such as 262144, 256KiB or 1MiB" }

// sizeUnits are tried in order, so the longer suffix stands first. k and m are what people write
// for 1024 and its square; there is no decimal unit that could be mistaken for them.
var sizeUnits = []struct {
	suffix string
	bytes  uint64
}{{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}, {"b", 1}}

// UnmarshalText reads plain bytes or a number with one of the suffixes B, k, m, g, KiB, MiB and
// GiB in any case; k, m and g are powers of 1024.
func (s *Size) UnmarshalText(text []byte) error {
	digits, unit := strings.ToLower(strings.TrimSpace(string(text))), uint64(1)
	for _, candidate := range sizeUnits {
		if rest, ok := strings.CutSuffix(digits, candidate.suffix); ok {
			digits, unit = strings.TrimSpace(rest), candidate.bytes
			break
		}
	}
	number, err := strconv.ParseUint(strings.ReplaceAll(digits, "_", ""), 10, 63)
	if err != nil || number > math.MaxInt/unit {
		return errExpected(s, text)
	}
	*s = Size(number * unit)
	return nil
}

// MarshalText writes the size with the largest unit that divides it.
func (s Size) MarshalText() ([]byte, error) {
	for _, unit := range []struct {
		suffix string
		bytes  Size
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if s != 0 && s%unit.bytes == 0 {
			return fmt.Appendf(nil, "%d%s", s/unit.bytes, unit.suffix), nil
		}
	}
	return strconv.AppendInt(nil, int64(s), 10), nil
}

// Duration is a span of time, never negative. 0 means no limit.
type Duration time.Duration

// Expected says what a Duration looks like.
func (Duration) Expected() string { return "a duration with its unit, such as 500ms, 10s or 1h30m" }

// UnmarshalText reads Go's syntax for durations, or a bare 0.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil || parsed < 0 {
		return errExpected(d, text)
	}
	*d = Duration(parsed)
	return nil
}

// MarshalText writes Go's syntax without zero parts at its end: 1h, not 1h0m0s.
func (d Duration) MarshalText() ([]byte, error) {
	if d == 0 {
		return []byte("0"), nil
	}
	text := time.Duration(d).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return []byte(text), nil
}

// Address is a TCP address, HOST:PORT. An empty host is every address of the machine.
type Address string

// Expected says what an Address looks like.
func (Address) Expected() string { return "an address as HOST:PORT, such as 127.0.0.1:8080" }

// UnmarshalText reads HOST:PORT with a port of 0 to 65535.
func (a *Address) UnmarshalText(text []byte) error {
	_, port, err := net.SplitHostPort(string(text))
	if err != nil {
		return errExpected(a, text)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return errExpected(a, text)
	}
	*a = Address(text)
	return nil
}

// Loopback says whether only programs of this machine can reach the address. A name other than
// localhost does not count: what it resolves to may change.
func (a Address) Loopback() bool {
	host, _, err := net.SplitHostPort(string(a))
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.Unmap().IsLoopback()
}

// Origin is a web origin (RFC 6454, section 6.2) with http or https and nothing behind the port.
type Origin string

// Expected says what an Origin looks like.
func (Origin) Expected() string {
	return "an origin as scheme://host[:port], such as https://app.example.com"
}

// UnmarshalText reads an origin and writes it in lower case.
func (o *Origin) UnmarshalText(text []byte) error {
	parsed, err := url.Parse(strings.TrimSpace(string(text)))
	if err != nil || (parsed.Scheme != "http" && parsed.Scheme != "https") || parsed.Hostname() == "" ||
		parsed.User != nil || strings.Contains(parsed.Host, "*") ||
		(parsed.Path != "" && parsed.Path != "/") || parsed.RawQuery != "" || parsed.Fragment != "" {
		return errExpected(o, text)
	}
	*o = Origin(parsed.Scheme + "://" + strings.ToLower(parsed.Host))
	return nil
}

// Prefix is a range of IP addresses in CIDR form; a single address is a range of one.
type Prefix string

// Expected says what a Prefix looks like.
func (Prefix) Expected() string {
	return "an address or a range in CIDR form, such as 10.0.0.1 or 10.0.0.0/8"
}

// UnmarshalText reads an address or a range.
func (p *Prefix) UnmarshalText(text []byte) error {
	trimmed := strings.TrimSpace(string(text))
	if address, err := netip.ParseAddr(trimmed); err == nil && address.Zone() == "" {
		*p = Prefix(netip.PrefixFrom(address, address.BitLen()).String())
		return nil
	}
	parsed, err := netip.ParsePrefix(trimmed)
	if err != nil {
		return errExpected(p, text)
	}
	*p = Prefix(parsed.Masked().String())
	return nil
}

// KeyPart is a piece of a Redis key or channel name. It holds nothing that Redis would take for a
// pattern and nothing that reads badly in MONITOR.
type KeyPart string

// keyPartBytesMax bounds a KeyPart.
const keyPartBytesMax = 128

// Expected says what a KeyPart looks like.
func (KeyPart) Expected() string {
	return `at most 128 visible ASCII characters without * ? [ ] \ and quotes, such as "shop:"`
}

// UnmarshalText reads a key part.
func (k *KeyPart) UnmarshalText(text []byte) error {
	if len(text) > keyPartBytesMax {
		return errExpected(k, text[:keyPartBytesMax])
	}
	for _, character := range text {
		if character <= ' ' || character >= 0x7f || strings.IndexByte("*?[]\\\"'", character) >= 0 {
			return errExpected(k, text)
		}
	}
	*k = KeyPart(text)
	return nil
}

// Secret is a text that is never printed: its String and its MarshalText say only that it is there.
// Convert it to a string to get at the text.
type Secret string

// SecretPlaceholder stands for a secret in a printed configuration. It has the form of a secret,
// so that the printed file is a valid one, but the gateway refuses to start with it.
const SecretPlaceholder = "redacted: put the secret here, or name its file"

// Expected says what a Secret looks like.
func (Secret) Expected() string {
	return "a text of at least 32 bytes; `openssl rand -base64 32` makes one"
}

// UnmarshalText takes any text; its length is checked by [Check].
func (s *Secret) UnmarshalText(text []byte) error {
	*s = Secret(text)
	return nil
}

// MarshalText never gives the secret away.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String never gives the secret away.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return SecretPlaceholder
}

// GoString never gives the secret away.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// WebURL is an http or https address of somebody else's service. It holds no user or password.
type WebURL string

// Expected says what a WebURL looks like.
func (WebURL) Expected() string {
	return "an absolute https:// or http:// address without a user or password, such as https://id.example.com/jwks.json"
}

// UnmarshalText reads a URL. Its errors don't repeat the text, which may hold a password.
func (w *WebURL) UnmarshalText(text []byte) error {
	parsed, err := url.Parse(string(text))
	if err != nil || parsed.Hostname() == "" || parsed.User != nil || (parsed.Scheme != "https" && parsed.Scheme != "http") {
		return errors.New("expected " + w.Expected())
	}
	*w = WebURL(text)
	return nil
}

// Guarded says whether nobody on the way can change the answer: it comes by TLS or from this machine.
func (w WebURL) Guarded() bool {
	parsed, err := url.Parse(string(w))
	return err == nil && (parsed.Scheme == "https" || Address(net.JoinHostPort(parsed.Hostname(), "80")).Loopback())
}

// gotBytesMax bounds how much of a wrong value an error repeats.
const gotBytesMax = 60

// errExpected says what was expected and what stood there, cut to a bounded length and quoted, so
// that it is safe to print. It must not be used for what may hold a secret.
func errExpected(wanted expecter, got []byte) error {
	shown := string(got)
	if len(shown) > gotBytesMax {
		shown = shown[:gotBytesMax] + "..."
	}
	return fmt.Errorf("expected %s; got %q", wanted.Expected(), shown)
}
