package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/redistest"
)

// configured starts a gateway with a configuration file.
func configured(t *testing.T, file string, arguments ...string) *gateway {
	t.Helper()
	path := filepath.Join(t.TempDir(), "millrace.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	return startGateway(t, append(arguments, "--config", path)...)
}

// TestWildcard: one subscription for all channels of a type, in envelopes, each event once.
func TestWildcard(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	g := configured(t, "namespaces:\n  job_progress: {access: public, wildcard: true}\n  closed: {access: public}\n", "--redis", redis.URL())
	c := dial(t, npmWS, "http://"+g.address, "/ws")
	c.await(t, "connected", func(h heard) bool { return h.is("connected") })
	c.subscribe(t, "job_progress:*", "job_progress:b")
	for _, channel := range []string{"job_progress:a", "job_progress:b", "job_progress:c:7", "job_progress:a"} {
		redis.CLI(t, "PUBLISH", channel, `{"on":"`+channel+`"}`)
		h := c.await(t, "an envelope", func(h heard) bool { return h.is("event") })
		if h.field("channel") != channel || !strings.Contains(h.Data, `"data":{"on":"`+channel+`"}`) {
			t.Errorf("after a PUBLISH on %s, heard %s", channel, h.Data)
		}
	}
	c.send(t, `{"type":"subscribe","channel":"closed:*"}`)
	h := c.await(t, "the refusal", func(h heard) bool { return h.is("error") })
	if code := h.field("code"); code != "access_denied" && code != "bad_channel" {
		t.Errorf("a wildcard where there are none was refused with %s", h.Data)
	}
}

// TestBroadcast: what everybody gets without asking.
func TestBroadcast(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	g := configured(t, "broadcast: ['system:all']\n", "--redis", redis.URL())
	for _, k := range light {
		c := open(t, k, "http://"+g.address, "", "job_progress:1")
		redis.CLI(t, "PUBLISH", "system:all", `{"type":"notice"}`)
		h := c.event(t, `{"type":"notice"}`)
		if k.sse && !strings.HasPrefix(h.ID, "system:all/") {
			t.Errorf("the id is %q, want one of system:all", h.ID)
		}
	}
}

// TestDeniedButOpen: a namespace may tell and not close.
func TestDeniedButOpen(t *testing.T) {
	t.Parallel()
	g := configured(t, "namespaces:\n  secret: {access: none, on_denied: error}\n  job_progress: {access: user}\n", "--auth-hmac-secret", secret)
	c := dial(t, npmWS, "http://"+g.address, "/ws?token="+token(t, "--sub", "456"))
	c.await(t, "connected", func(h heard) bool { return h.is("connected") })
	c.send(t, `{"type":"subscribe","channel":"secret:1","ref":"s"}`)
	h := c.await(t, "the error", func(h heard) bool { return h.is("error") })
	if h.field("code") != "access_denied" || h.field("ref") != "s" {
		t.Errorf("heard %s, want access_denied and ref s", h.Data)
	}
	c.subscribe(t, "job_progress:1")
}
