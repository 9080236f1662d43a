package settings

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

var textsOfTypes = []struct {
	target      encoding.TextUnmarshaler
	input, want string // an empty want: an error
}{
	{new(Size), "0", "0"},
	{new(Size), "1000", "1000"},
	{new(Size), "1024", "1KiB"},
	{new(Size), "256KiB", "256KiB"},
	{new(Size), "256 kib", "256KiB"},
	{new(Size), "1k", "1KiB"},
	{new(Size), "3M", "3MiB"},
	{new(Size), "2g", "2GiB"},
	{new(Size), "12B", "12"},
	{new(Size), "1_000_000", "1000000"},
	{new(Size), "1kb", ""},
	{new(Size), "-1", ""},
	{new(Size), "1.5MiB", ""},
	{new(Size), "", ""},
	{new(Size), "KiB", ""},
	{new(Size), "9223372036854775807k", ""},
	{new(Size), "99999999999999999999", ""},
	{new(Count), "12", "12"},
	{new(Count), "auto", "auto"},
	{new(Count), "-1", ""},
	{new(Count), "1e3", ""},
	{new(Count), "4294967296", ""},
	{new(Duration), "0", "0"},
	{new(Duration), "10s", "10s"},
	{new(Duration), "60m", "1h"},
	{new(Duration), "90m", "1h30m"},
	{new(Duration), "2m", "2m"},
	{new(Duration), "100ms", "100ms"},
	{new(Duration), "10", ""},
	{new(Duration), "-1s", ""},
	{new(Duration), "1d", ""},
	{new(Address), "127.0.0.1:0", "127.0.0.1:0"},
	{new(Address), ":80", ":80"},
	{new(Address), "[::1]:80", "[::1]:80"},
	{new(Address), "80", ""},
	{new(Address), "::1:80", ""},
	{new(Address), "a:http", ""},
	{new(Address), "a:65536", ""},
	{new(Address), "a:-1", ""},
	{new(Origin), "https://App.Example.com", "https://app.example.com"},
	{new(Origin), "http://localhost:3000/", "http://localhost:3000"},
	{new(Origin), "https://*.example.com", ""},
	{new(Origin), "*", ""},
	{new(Origin), "null", ""},
	{new(Origin), "app.example.com", ""},
	{new(Origin), "https://a/b", ""},
	{new(Origin), "https://u@a", ""},
	{new(Origin), "ftp://a", ""},
	{new(Prefix), "10.1.2.3", "10.1.2.3/32"},
	{new(Prefix), "10.1.2.3/8", "10.0.0.0/8"},
	{new(Prefix), "fd00::/8", "fd00::/8"},
	{new(Prefix), "fe80::1%eth0", ""},
	{new(Prefix), "10.0.0.0/33", ""},
	{new(KeyPart), "shop:{1}:", "shop:{1}:"},
	{new(KeyPart), "a b", ""},
	{new(KeyPart), "a*", ""},
	{new(KeyPart), "a\n", ""},
	{new(KeyPart), "ä", ""},
	{new(KeyPart), strings.Repeat("a", 129), ""},
	{new(WebURL), "https://id.example/keys", "https://id.example/keys"},
	{new(WebURL), "http://id.example/keys", "http://id.example/keys"},
	{new(WebURL), "https://u:hunter2@id.example", ""},
	{new(WebURL), "file:///etc/passwd", ""},
	{new(RedisURL), "redis://127.0.0.1:6379", "redis://127.0.0.1:6379"},
	{new(RedisURL), "rediss://u:hunter2@h:1/2", "rediss://u:redacted@h:1/2"},
	{new(RedisURL), "redis://:hunter2@a:1,redis://:hunter2@b:2", "redis://:redacted@a:1,redis://:redacted@b:2"},
	{new(RedisURL), "redis+sentinel://u:hunter2@a:1,b:2/main?sentinel-password=hunter2&db=1", "redis+sentinel://u:redacted@a:1,b:2/main?sentinel-password=redacted&db=1"},
	{new(RedisURL), "127.0.0.1:6379", ""},
	{new(RedisURL), "http://h:1", ""},
	{new(RedisURL), "redis://hun,ter2@h:1", ""},
	{new(RedisURL), "redis://u:hun,ter2@h:1", ""},
	{new(RedisURL), "redis://u:1,hunter2@h:1", ""},
	{new(RedisURL), "redis://u:hunter2/x@h:1", ""},
	{new(RedisURL), "", ""},
}

func TestTextOfTypes(t *testing.T) {
	for _, test := range textsOfTypes {
		t.Run(fmt.Sprintf("%T %.40s", test.target, test.input), func(t *testing.T) {
			err := test.target.UnmarshalText([]byte(test.input))
			if err != nil {
				if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "hun,ter2") {
					t.Errorf("a password is told: %v", err)
				}
				if !strings.Contains(err.Error(), "such as") && test.want == "" && !strings.Contains(err.Error(), "%2C") {
					t.Errorf("no example in %v", err)
				}
			}
			got := ""
			if err == nil {
				got = text(reflect.ValueOf(test.target).Elem())
			}
			if got != test.want {
				t.Errorf("got %q, error %v; want %q", got, err, test.want)
			}
		})
	}
}

// What is written must be read as the same value.
func TestTextRoundTrip(t *testing.T) {
	for _, size := range []Size{0, 1, 1023, 1024, 1025, 1 << 20, 1<<20 + 1024, 1 << 30, 1<<30 + 1} {
		var again Size
		if err := again.UnmarshalText([]byte(text(reflect.ValueOf(size)))); err != nil || again != size {
			t.Errorf("%d became %d, error %v", size, again, err)
		}
	}
	for _, duration := range []Duration{0, 1, 1e6, 1e9, 60e9, 61e9, 3600e9, 3660e9, 36000e9, 90061e9} {
		var again Duration
		if err := again.UnmarshalText([]byte(text(reflect.ValueOf(duration)))); err != nil || again != duration {
			t.Errorf("%d became %d, error %v", duration, again, err)
		}
	}
}

func TestNoFormatShowsASecret(t *testing.T) {
	settings := Default()
	settings.AuthHMACSecret, settings.Redis = "hunter2hunter2", "redis://u:hunter2@h:1"
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if shown := fmt.Sprintf(format, settings); strings.Contains(shown, "hunter2") {
			t.Errorf("%s shows a secret", format)
		}
	}
}

func FuzzSize(f *testing.F) {
	for _, seed := range []string{"1", "256KiB", "1_0m", "k", "9223372036854775807"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, input string) {
		var size Size
		if size.UnmarshalText([]byte(input)) == nil && size < 0 {
			t.Errorf("%q gives %d", input, size)
		}
	})
}

func FuzzRedisURLHidesPasswords(f *testing.F) {
	const rest = "@h.invalid:1"
	f.Add("s3cr3t")
	f.Add("s3cr,3t1")
	f.Add("s3cr/3t?")
	f.Fuzz(func(t *testing.T, password string) {
		var address RedisURL
		harmless := "redis://user:redacted" + rest + address.Expected()
		if len(password) < 6 || strings.Contains(harmless, password) {
			t.Skip("such a password can't be told from the rest")
		}
		err := address.UnmarshalText([]byte("redis://user:" + password + rest))
		if err != nil && strings.Contains(err.Error(), password) {
			t.Errorf("%q is told by %v", password, err)
		}
		if err == nil && strings.Contains(address.String(), password) {
			t.Errorf("%q is shown by %s", password, address)
		}
	})
}
