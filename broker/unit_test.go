package broker_test

import (
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/freeport"
	"github.com/millrace/millrace/internal/redistest"
)

func TestParseURL(t *testing.T) {
	cases := []struct {
		name, url string
		want      broker.ParsedURL
	}{
		{"host and port", "redis://a:1", broker.ParsedURL{Addresses: []string{"a:1"}}},
		{"default port", "redis://a", broker.ParsedURL{Addresses: []string{"a:6379"}}},
		{"ipv6", "redis://[::1]:7", broker.ParsedURL{Addresses: []string{"[::1]:7"}}},
		{"ipv6, default port", "redis://[::1]", broker.ParsedURL{Addresses: []string{"[::1]:6379"}}},
		{
			"everything", "rediss://u:p%40%2C%2F@a:1/3",
			broker.ParsedURL{Addresses: []string{"a:1"}, Username: "u", Password: "p@,/", Database: 3, TLS: true},
		},
		{"password only", "redis://:p@a:1", broker.ParsedURL{Addresses: []string{"a:1"}, Password: "p"}},
		{"database in the query", "redis://a?db=4", broker.ParsedURL{Addresses: []string{"a:6379"}, Database: 4}},
		{"list of URLs", "redis://a:1,redis://b:2", broker.ParsedURL{Addresses: []string{"a:1", "b:2"}}},
		{
			"list of addresses", "redis://u:p@a:1,b,c:3",
			broker.ParsedURL{Addresses: []string{"a:1", "b:6379", "c:3"}, Username: "u", Password: "p"},
		},
		{
			"sentinels", "redis+sentinel://u:p@a,b:2/main?db=5&sentinel-user=su&sentinel-password=sp",
			broker.ParsedURL{
				Addresses: []string{"a:26379", "b:2"}, Master: "main", Username: "u", Password: "p",
				SentinelUsername: "su", SentinelPassword: "sp", Database: 5,
			},
		},
		{"sentinel with tls", "rediss+sentinel://a/m", broker.ParsedURL{Addresses: []string{"a:26379"}, Master: "m", TLS: true}},
		{"unix socket", "unix:///run/redis.sock?db=2", broker.ParsedURL{Addresses: []string{"/run/redis.sock"}, Database: 2}},
	}
	for _, one := range cases {
		t.Run(one.name, func(t *testing.T) {
			got, err := broker.ParseURL(one.url)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(one.want, got); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestParseURLRefuses(t *testing.T) {
	const secret = "hunter2"
	cases := []struct{ name, url, says string }{
		{"empty", "", "must begin with redis://"},
		{"no scheme", "localhost:6379", "must begin with redis://"},
		{"other scheme", "http://u:" + secret + "@a", "unknown scheme"},
		{"no host", "redis://", "host is missing"},
		{"no host but a port", "redis://:6379", "host is missing"},
		{"port out of range", "redis://a:70000", "1 to 65535"},
		{"port no number", "redis://a:" + secret, "not a URL"},
		{"raw slash in the password", "redis://u:" + secret + "/x@a:1", "%XX"},
		{"raw hash in the password", "redis://:" + secret + "#@a:1", "%XX"},
		{"fragment", "redis://a#" + secret, "fragment"},
		{"raw percent in the password", "redis://u:" + secret + "%zz@a:1", "%XX"},
		{"raw comma in the password", "redis://u:" + secret + ",x@a:1", "address 1 of 2"},
		{"number and raw comma in the password", "redis://u:123," + secret + "@a:1", "%2C"},
		{"database no number", "redis://a/" + secret, "must be a number"},
		{"negative database", "redis://a?db=-1", "must be a number"},
		{"unknown query", "redis://a?password=" + secret, "unknown query"},
		{"mixed schemes", "redis://a,rediss://b", "same scheme"},
		{"two passwords", "redis://:" + secret + "@a,redis://:other@b", "share them"},
		{"cluster with database", "redis://a,b/2", "only database 0"},
		{"sentinel without master", "redis+sentinel://a,b", "name the master"},
		{"sentinel with two masters", "redis+sentinel://a/m,redis+sentinel://b/m", "name the master once"},
		{"empty element", "redis://a,,b", "address 2 of 3"},
		{"unix without path", "unix://", "unix:///path"},
		{"unix with host", "unix://a/b", "unix:///path"},
	}
	for _, one := range cases {
		t.Run(one.name, func(t *testing.T) {
			_, err := broker.NewRedis(broker.RedisOptions{URL: one.url})
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), one.says) {
				t.Errorf("got %q, want it to say %q", err, one.says)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error quotes the password: %q", err)
			}
		})
	}
}

// FuzzParseURL: what was escaped comes back, and no error quotes a password.
func FuzzParseURL(f *testing.F) {
	f.Add("user", "pass", "a:1,b:2")
	f.Add("", "p,@:/?#%", "redis.example")
	f.Add("u", "", "[::1]:1,[::2]")
	f.Fuzz(func(t *testing.T, user, password, addresses string) {
		const secret = "correct-horse-battery"
		raw := "redis://" + url.UserPassword(user, password+secret).String() + "@" + addresses
		got, err := broker.ParseURL(raw)
		if err != nil {
			if strings.Contains(err.Error(), secret) {
				t.Fatalf("the error quotes the password: %v", err)
			}
			return
		}
		if !strings.Contains(addresses, "@") && (got.Username != user || got.Password != password+secret) {
			t.Fatalf("user %q password %q became %q %q", user, password+secret, got.Username, got.Password)
		}
		if _, err := broker.ParseURL("redis://:" + password + secret + "@" + addresses); err != nil && strings.Contains(err.Error(), secret) {
			t.Fatalf("the error quotes the password: %v", err)
		}
	})
}

func TestSlot(t *testing.T) {
	server := redistest.Start(t, "--cluster-enabled", "yes", "--cluster-port", freePort(t))
	keys := []string{"a", "job:1", "{user}x", "x{user}y", "{}x", "x{}y{z}", "{", "}{", "{{b}}", strings.Repeat("k", 300), "ü"}
	for number := range 50 {
		keys = append(keys, "key:"+strconv.Itoa(number*7919))
	}
	for _, key := range keys {
		if got, want := strconv.Itoa(int(broker.Slot(key))), server.CLI(t, "CLUSTER", "KEYSLOT", key); got != want {
			t.Errorf("%q: slot %s, Redis says %s", key, got, want)
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	port, err := freeport.Find()
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(port)
}

// TestEntryStaysSmall: there is one entry a channel, and there may be a million channels.
func TestEntryStaysSmall(t *testing.T) {
	if broker.EntryBytes > 12 {
		t.Fatalf("an entry takes %d bytes, want at most 12", broker.EntryBytes)
	}
	if broker.KeyBytes > 56 {
		t.Fatalf("a key takes %d bytes more, want at most 56", broker.KeyBytes)
	}
}
