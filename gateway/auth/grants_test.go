package auth

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func grantsOf(identity *Identity) string { return string(identity.AppendGrants(nil, false)) }

// TestRecall: what is recalled is what the token said, but for what is not kept.
func TestRecall(t *testing.T) {
	long := make([]string, PatternsMax)
	for n := range long {
		long[n] = "job:" + strings.Repeat("x", n%120) + "-" + string(rune('a'+n%26)) + strings.Repeat("y", n/120)
	}
	patterns := func(list ...string) Patterns {
		parsed, err := ParsePatterns(list)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	for name, identity := range map[string]Identity{
		"nothing":           {},
		"key":               {key: thumbprint{1, 2, 3}},
		"admin":             {Admin: true},
		"channels":          {key: thumbprint{1}, Channels: patterns("job:1", "chat:*")},
		"publish":           {key: thumbprint{1}, Publish: patterns("job:1")},
		"both":              {Channels: patterns("a:1"), Publish: patterns("b:1", "c:*")},
		"every channel":     {key: thumbprint{9}, Channels: patterns("*")},
		"publish on all":    {Publish: patterns("*"), Channels: patterns("a:1")},
		"a long list":       {Channels: patterns(long...), Publish: patterns(long...)},
		"token":             {key: thumbprint{1}, TokenHash: [16]byte{7}, token: "a.b.c"},
		"token hash":        {Channels: patterns("a:1"), TokenHash: [16]byte{7}},
		"a long token":      {TokenHash: [16]byte{7}, token: strings.Repeat("t", TokenBytesMax)},
		"everything at all": {Admin: true, key: thumbprint{1}, Channels: patterns("a:1"), Publish: patterns("*"), TokenHash: [16]byte{7}, token: "t"},
	} {
		t.Run(name, func(t *testing.T) {
			identity.User = "ada"
			if got := Recall("ada", string(identity.AppendGrants(nil, true))); !reflect.DeepEqual(*got, identity) {
				t.Errorf("with the token %#v, want %#v", *got, identity)
			}
			identity.TokenHash, identity.token = [16]byte{}, ""
			if whole := string(identity.AppendGrants(nil, true)); !AreGrants(whole) || AreGrants(whole[:len(whole)-1]) || AreGrants(whole+"x") {
				t.Errorf("grants are not known as such, or what is shorter or longer is: %q", whole)
			}
			if got := Recall("ada", grantsOf(&identity)); !reflect.DeepEqual(*got, identity) {
				t.Errorf("without it %#v, want %#v", *got, identity)
			}
		})
	}
}

// TestGrantsAreShared: what is each token's own is not in the grants, unless it is asked for.
func TestGrantsAreShared(t *testing.T) {
	verifier := newVerifier(t, Options{HMACSecret: testSecret, KeepToken: true, Now: time.Now})
	identity := func(user string, ttl time.Duration, channels ...string) *Identity {
		token, err := Mint(testSecret, MintClaims{User: user, TTL: ttl, Channels: channels})
		if err != nil {
			t.Fatal(err)
		}
		verified, err := verifier.Verify(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		return verified
	}
	one, other := identity("ada", time.Hour, "a:1", "b:1"), identity("grace", time.Minute, "b:1", "a:1", "b:1")
	if grantsOf(one) != grantsOf(other) {
		t.Error("two tokens that grant the same have different grants")
	}
	if more := identity("ada", time.Hour, "a:1"); grantsOf(one) == grantsOf(more) {
		t.Error("two tokens that grant different channels have the same grants")
	}
	if slices.Equal(one.AppendGrants(nil, true), other.AppendGrants(nil, true)) {
		t.Error("with their tokens, two identities have the same grants")
	}
	if plain := grantsOf(identity("ada", time.Hour)); len(plain) != 1+len(thumbprint{}) {
		t.Errorf("a token that grants nothing has %d bytes of grants", len(plain))
	}
	if got := string(one.AppendGrants([]byte("kept"), false)); got != "kept"+grantsOf(one) {
		t.Errorf("appended to what stands there, the grants are %q", got)
	}
}

// FuzzGrants: what counts as grants can be recalled.
func FuzzGrants(f *testing.F) {
	f.Add("")
	f.Add(grantsOf(&Identity{Admin: true, key: thumbprint{1}}))
	f.Add("\x10\xff\xff\xff\xff\x0f")
	f.Fuzz(func(t *testing.T, text string) {
		if AreGrants(text) {
			_ = Recall("ada", text) // panics if they are none
		}
	})
}
