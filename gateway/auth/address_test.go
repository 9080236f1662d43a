package auth

import (
	"net/netip"
	"strings"
	"testing"
)

// TestClientAddress: nobody gets another address by writing X-Forwarded-For.
func TestClientAddress(t *testing.T) {
	trusted := must(ParseProxies([]string{"10.0.0.0/8", "192.168.1.7", "fd00::/8", "::ffff:172.16.0.1"}))
	for name, test := range map[string]struct {
		peer  string
		lines []string
		want  string
	}{
		"direct":                       {"203.0.113.9:5", nil, "203.0.113.9"},
		"direct, forged":               {"203.0.113.9:5", []string{"X-Forwarded-For: 1.1.1.1"}, "203.0.113.9"},
		"direct over IPv6":             {"[2001:db8::9]:5", nil, "2001:db8::9"},
		"direct, IPv4 in IPv6":         {"[::ffff:203.0.113.9]:5", nil, "203.0.113.9"},
		"direct, with a zone":          {"[fe80::1%eth0]:5", nil, "fe80::1"},
		"no address":                   {"@", nil, "invalid IP"},
		"proxy without the header":     {"10.0.0.1:5", nil, "10.0.0.1"},
		"proxy":                        {"10.0.0.1:5", []string{"X-Forwarded-For: 203.0.113.9"}, "203.0.113.9"},
		"proxy given as IPv4 in IPv6":  {"172.16.0.1:5", []string{"X-Forwarded-For: 203.0.113.9"}, "203.0.113.9"},
		"proxy, client forged":         {"10.0.0.1:5", []string{"X-Forwarded-For: 1.1.1.1, 203.0.113.9"}, "203.0.113.9"},
		"proxy, client forged trusted": {"10.0.0.1:5", []string{"X-Forwarded-For: 10.9.9.9, 203.0.113.9"}, "203.0.113.9"},
		"two proxies":                  {"10.0.0.1:5", []string{"X-Forwarded-For: 1.1.1.1, 203.0.113.9, 192.168.1.7"}, "203.0.113.9"},
		"two lines":                    {"10.0.0.1:5", []string{"X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: 10.0.0.2"}, "203.0.113.9"},
		"with a port":                  {"10.0.0.1:5", []string{"X-Forwarded-For: 203.0.113.9:1234"}, "203.0.113.9"},
		"IPv6 with brackets and port":  {"10.0.0.1:5", []string{"X-Forwarded-For: [2001:db8::9]:1234"}, "2001:db8::9"},
		"IPv6 with brackets":           {"10.0.0.1:5", []string{"X-Forwarded-For: [2001:db8::9]"}, "2001:db8::9"},
		"IPv6 bare":                    {"[fd00::1]:5", []string{"X-Forwarded-For:2001:db8::9"}, "2001:db8::9"},
		"unknown":                      {"10.0.0.1:5", []string{"X-Forwarded-For: 203.0.113.9, unknown"}, "10.0.0.1"},
		"garbage behind a good hop":    {"10.0.0.1:5", []string{"X-Forwarded-For: 203.0.113.9, ;drop, 10.0.0.2"}, "10.0.0.2"},
		"empty entry":                  {"10.0.0.1:5", []string{"X-Forwarded-For: 203.0.113.9,"}, "10.0.0.1"},
		"all trusted":                  {"10.0.0.1:5", []string{"X-Forwarded-For: 10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		"more hops than are believed":  {"10.0.0.1:5", []string{"X-Forwarded-For: 203.0.113.9" + strings.Repeat(", 10.0.0.2", 10_000)}, "10.0.0.2"},
		"Forwarded is not read":        {"10.0.0.1:5", []string{"Forwarded: for=203.0.113.9"}, "10.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t, "/ws", test.lines...)
			r.RemoteAddr = test.peer
			if got := ClientAddress(r, trusted).String(); got != test.want {
				t.Fatalf("the client is %s, want %s", got, test.want)
			}
		})
	}
}

func TestParseProxiesRefuses(t *testing.T) {
	for _, text := range []string{"", "proxy.example", "10.0.0.0/33", "10.0.0.0/", "*", "::ffff:10.0.0.0/104"} {
		if _, err := ParseProxies([]string{text}); err == nil {
			t.Errorf("%q is taken for a proxy", text)
		}
	}
}

func TestLimitKey(t *testing.T) {
	for address, want := range map[string]string{
		"203.0.113.9":          "\xcb\x00\x71\x09",
		"::ffff:203.0.113.9":   "\xcb\x00\x71\x09",
		"2001:db8:1:2:3:4:5:6": "\x20\x01\x0d\xb8\x00\x01\x00\x02",
		"2001:db8:1:2:ffff::1": "\x20\x01\x0d\xb8\x00\x01\x00\x02",
		"2001:db8:1:3::1":      "\x20\x01\x0d\xb8\x00\x01\x00\x03",
		"fe80::1%eth0":         "\xfe\x80\x00\x00\x00\x00\x00\x00",
	} {
		if got := LimitKey(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s counts as %x, want %x", address, got, want)
		}
	}
	if LimitKey(netip.Addr{}) != "" {
		t.Error("no address became one")
	}
}

func TestLimitKeyText(t *testing.T) {
	for address, want := range map[string]string{
		"203.0.113.9":          "203.0.113.9",
		"::ffff:203.0.113.9":   "203.0.113.9",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
	} {
		if got := LimitKeyText(LimitKey(netip.MustParseAddr(address))); got != want {
			t.Errorf("the key of %s reads %q, want %q", address, got, want)
		}
	}
	for _, key := range []string{"", "x", "not a key at all, and long"} {
		if got := LimitKeyText(key); got != "" {
			t.Errorf("%q, which is no key, reads %q", key, got)
		}
	}
}
