package access

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// TestCompresses: what only some may know is compressed only where somebody said so.
func TestCompresses(t *testing.T) {
	webhook := &Webhook{URL: "https://example.org/may"}
	for _, test := range []struct {
		name            string
		namespace       Namespace
		personal        bool
		unauthenticated bool
		want            bool
	}{
		{"public", Namespace{Access: Public}, false, false, true},
		{"user", Namespace{Access: User}, false, false, true},
		{"owner", Namespace{Access: Owner, Parts: 2}, false, false, false},
		{"token", Namespace{Access: Token}, false, false, false},
		{"webhook", Namespace{Access: ByWebhook, Webhook: webhook}, false, false, false},
		{"none", Namespace{Access: None}, false, false, false},
		{"user, but personal", Namespace{Access: User, Parts: 2}, true, false, false},
		{"public, switched off", Namespace{Access: Public, Compress: new(false)}, false, false, false},
		{"owner, switched on", Namespace{Access: Owner, Parts: 2, Compress: new(true)}, false, false, true},
		{"personal, switched on", Namespace{Access: Owner, Parts: 2, Compress: new(true)}, true, false, true},
		{"user, but personal, switched on", Namespace{Access: User, Parts: 2, Compress: new(true)}, true, false, true},
		{"anything where everything is open", Namespace{}, false, true, true},
		{"owner where everything is open", Namespace{Access: Owner, Parts: 2}, false, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log bytes.Buffer
			options := Options{
				Namespaces: map[string]Namespace{"a": test.namespace}, Authenticated: !test.unauthenticated,
				Logger: slog.New(slog.NewTextHandler(&log, nil)),
			}
			if test.personal {
				options.Personal = []string{"a"}
			}
			policy, err := New(options)
			if err != nil {
				t.Fatal(err)
			}
			defer policy.Close()
			if got := policy.Compresses("a"); got != test.want {
				t.Errorf("compressed: %v", got)
			}
			warned := strings.Contains(log.String(), "compress makes events shorter")
			if wanted := test.want && (test.namespace.Access == Owner || test.personal); warned != wanted {
				t.Errorf("warned: %v: %s", warned, log.String())
			}
		})
	}
}

// TestCompressesWithoutNamespace: a personal type needs no namespace of its own to be kept apart, whatever
// is said of types without one.
func TestCompressesWithoutNamespace(t *testing.T) {
	policy, err := New(Options{
		Namespaces: map[string]Namespace{DefaultType: {Access: Public, Compress: new(true)}}, Personal: []string{"notes"},
		Authenticated: true, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer policy.Close()
	if policy.Compresses("notes") || !policy.Compresses("news") {
		t.Errorf("notes: %v, news: %v", policy.Compresses("notes"), policy.Compresses("news"))
	}
}
