package logwatch

import (
	"strings"
	"testing"
)

func TestWatch(t *testing.T) {
	const jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
	for _, c := range []struct {
		name, line string
		leak       bool
	}{
		{"nothing", `level=INFO msg="draining" streams=3`, false},
		{"a word that begins alike", "key=eyJ", false},
		{"a secret", `msg="the key is a pass:word"`, true},
		{"a secret in a URL", "redis://:a%20pass%3Aword@127.0.0.1", true},
		{"a secret in a query", "?key=a+pass%3Aword", true},
		{"a secret in base64", "basic YSBwYXNzOndvcmQ=", true},
		{"a token that nobody told of", "token=" + jwt, true},
		{"the claims of a token", jwt[21:], true},
		{"a token cut short", jwt[:16], true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var w Watch
			if got := w.Secret("a password", "a pass:word"); got != "a pass:word" {
				t.Errorf("the secret came back as %q", got)
			}
			w.Line("the gateway", c.line)
			if w.Lines() != 1 {
				t.Errorf("%d lines were shown", w.Lines())
			}
			err := w.Verdict()
			if (err != nil) != c.leak {
				t.Fatalf("%q: %v", c.line, err)
			}
			if c.leak && !strings.HasPrefix(err.Error(), "the gateway logged ") {
				t.Errorf("%v", err)
			}
		})
	}
}
