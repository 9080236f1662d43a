package proto

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
	"unsafe"
)

func TestParseChannelGood(t *testing.T) {
	long := strings.Repeat("a", ChannelPartBytesMax)
	cases := []struct {
		name, channel, typ, owner string
		parts                     int
		wildcard                  bool
	}{
		{"two parts", "job_progress:job_123", "job_progress", "job_123", 2, false},
		{"three parts", "x:1:2", "x", "2", 3, false},
		{"every byte allowed", "aZ09_.@=|+-:b:c", "aZ09_.@=|+-", "c", 3, false},
		{"wildcard", "job_progress:*", "job_progress", "*", 2, true},
		{"shortest", "a:b", "a", "b", 2, false},
		{"longest part", long + ":1", long, "1", 2, false},
		{"longest name", long[:126] + ":" + long, long[:126], long, 2, false},
		{"one underscore", "_a:1", "_a", "1", 2, false},
		{"underscores inside", "a__b:__c", "a__b", "__c", 2, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			channel, err := ParseChannel(c.channel)
			if err != nil {
				t.Fatal(err)
			}
			if channel.Name() != c.channel || channel.String() != c.channel {
				t.Errorf("name %q", channel.Name())
			}
			if channel.Type() != c.typ || channel.Owner() != c.owner || channel.Parts() != c.parts {
				t.Errorf("type %q, owner %q, %d parts", channel.Type(), channel.Owner(), channel.Parts())
			}
			if channel.Wildcard() != c.wildcard || channel.IsZero() {
				t.Errorf("wildcard %v, zero %v", channel.Wildcard(), channel.IsZero())
			}
			again, _ := ParseChannel(strings.Clone(c.channel))
			if again != channel {
				t.Error("two parses of one name differ")
			}
		})
	}
}

func TestParseChannelBad(t *testing.T) {
	long := strings.Repeat("a", ChannelPartBytesMax)
	cases := []struct {
		name, channel string
		offset        int
		problem       string
	}{
		{"empty", "", 0, problemEmpty},
		{"one part", "job", 3, problemParts},
		{"four parts", "a:b:c:d", 5, problemParts},
		{"empty type", ":b", 0, problemPart},
		{"empty id", "a:", 2, problemPart},
		{"empty middle", "a::c", 2, problemPart},
		{"empty user", "a:b:", 4, problemPart},
		{"colon alone", ":", 0, problemPart},
		{"reserved type", "__millrace:1", 0, problemReserved},
		{"reserved wildcard", "__keyspace:*", 0, problemReserved},
		{"part too long", "a:" + long + "a", 130, problemPartLong},
		{"name too long", long + ":" + long, 255, problemLong},
		{"64 KiB", strings.Repeat("a", 1<<16), 255, problemLong},
		{"space", "a:b c", 3, problemByte},
		{"CR LF", "a:b\r\nc", 3, problemByte},
		{"NUL", "a:\x00", 2, problemByte},
		{"question mark", "a:b?", 3, problemByte},
		{"bracket", "a:[b]", 2, problemByte},
		{"slash", "a:b/c", 3, problemByte},
		{"invalid UTF-8", "a:\xff", 2, problemByte},
		{"not ASCII", "a:é", 2, problemByte},
		{"star alone", "*", 0, problemWildcard},
		{"star as type", "*:a", 0, problemWildcard},
		{"star inside", "a:b*", 3, problemWildcard},
		{"star first of more", "a:*b", 2, problemWildcard},
		{"star as third part", "a:b:*", 4, problemWildcard},
		{"star as second of three", "a:*:c", 2, problemWildcard},
		{"two stars", "a:**", 2, problemWildcard},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			channel, err := ParseChannel(c.channel)
			var bad *ChannelError
			if !errors.As(err, &bad) || !errors.Is(err, ErrBadChannel) {
				t.Fatalf("error %v", err)
			}
			if bad.Offset != c.offset || bad.Problem != c.problem {
				t.Errorf("at %d: %s", bad.Offset, bad.Problem)
			}
			if !channel.IsZero() {
				t.Errorf("a channel beside an error: %v", channel)
			}
			message := err.Error()
			if len(message) > 4*channelQuoteBytesMax+200 || strings.ContainsAny(message, "\r\n\x00") || !utf8.ValidString(message) {
				t.Errorf("message of %d bytes: %q", len(message), message)
			}
		})
	}
}

func TestNewChannel(t *testing.T) {
	long := strings.Repeat("a", ChannelPartBytesMax)
	cases := []struct {
		name, typ, id, userID string
		want                  string // empty: refused
	}{
		{"type and id", "job_progress", "job_123", "", "job_progress:job_123"},
		{"type and user", "alerts", "", "456", "alerts:456"},
		{"all three", "x", "1", "2", "x:1:2"},
		{"wildcard", "x", "*", "", "x:*"},
		{"no type", "", "1", "2", ""},
		{"type alone", "x", "", "", ""},
		{"nothing", "", "", "", ""},
		{"colon in type", "x:1", "2", "", ""},
		{"colon in id", "x", "1:2", "", ""},
		{"colon in user", "alerts", "", "4:5", ""},
		{"bad byte", "x", "a b", "", ""},
		{"reserved", "__x", "1", "", ""},
		{"part too long", "x", long + "a", "", ""},
		{"name too long", long, long, "", ""},
		{"star with user", "x", "*", "2", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			channel, err := NewChannel(c.typ, c.id, c.userID)
			if c.want == "" {
				if !errors.Is(err, ErrBadChannel) || !channel.IsZero() {
					t.Fatalf("%v, %v", channel, err)
				}
				return
			}
			if err != nil || channel.Name() != c.want {
				t.Fatalf("%v, %v", channel, err)
			}
		})
	}
}

func TestChannelZero(t *testing.T) {
	var zero Channel
	if !zero.IsZero() || zero.Parts() != 0 || zero.Type() != "" || zero.Owner() != "" || zero.Wildcard() {
		t.Errorf("zero value: %+v", zero)
	}
	if size := unsafe.Sizeof(zero); size != 24 {
		t.Errorf("a channel takes %d bytes, documented are 24", size)
	}
}

func FuzzChannel(f *testing.F) {
	for _, seed := range []string{"a:b", "a:b:c", "a:*", "__a:b", "a::b", "a:b:c:d", "a:\x00", ":", "aZ09_.@=|+-:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		channel, err := ParseChannel(name)
		if good := channelByHand(name); good != (err == nil) {
			t.Fatalf("%q: %v", name, err)
		}
		if err != nil {
			_ = err.Error()
			return
		}
		parts := strings.Split(name, ":")
		if channel.Parts() != len(parts) || channel.Type() != parts[0] || channel.Owner() != parts[len(parts)-1] {
			t.Fatalf("%q: %d, %q, %q", name, channel.Parts(), channel.Type(), channel.Owner())
		}
		if channel.Wildcard() != strings.HasSuffix(name, ":*") {
			t.Fatalf("%q: wildcard %v", name, channel.Wildcard())
		}
		third := ""
		if len(parts) == 3 {
			third = parts[2]
		}
		if again, err := NewChannel(parts[0], parts[1], third); err != nil || again != channel {
			t.Fatalf("%q: object form %v, %v", name, again, err)
		}
	})
}

// channelByHand is the rule in its plainest form.
func channelByHand(name string) bool {
	parts := strings.Split(name, ":")
	if len(parts) < 2 || len(parts) > 3 || len(name) > 255 || strings.HasPrefix(name, "__") {
		return false
	}
	for i, part := range parts {
		if part == "*" && i == 1 && len(parts) == 2 {
			continue
		}
		if part == "" || len(part) > 128 || strings.Trim(part, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.@=|+-") != "" {
			return false
		}
		for _, c := range []byte(part) {
			if !channelByte[c] {
				return false
			}
		}
	}
	return true
}

func ExampleParseChannel() {
	channel, err := ParseChannel("job_progress:job_123")
	fmt.Println(channel.Type(), channel.Owner(), err)
	_, err = ParseChannel("job progress:job_123")
	fmt.Println(err)
	// Output:
	// job_progress job_123 <nil>
	// bad channel "job progress:job_123" at byte 3: this byte is not allowed; allowed are letters, digits and _ . @ = | + -
}
