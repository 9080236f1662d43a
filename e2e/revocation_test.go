package e2e

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/redistest"
)

// command posts an operator's command and gives the answer, which must be a good one.
func (g *gateway) command(t *testing.T, path string) string {
	t.Helper()
	response, err := httpClient.Post("http://"+g.address+path, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s answered %d %s (%v)", path, response.StatusCode, body, err)
	}
	return strings.TrimSpace(string(body))
}

// TestRevocation: an operator tells one gateway who must go, and they are gone from the other, whatever
// their wire. Somebody else stays. How long it takes is logged: a second is promised, on a machine that
// does nothing else.
func TestRevocation(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	options := []string{"--redis", redis.URL(), "--auth-hmac-secret", secret}
	one, two := startGateway(t, options...), startGateway(t, options...)
	for _, g := range []*gateway{one, two} {
		within(t, patience, "it follows the log of orders", func() bool {
			return strings.Contains(g.text(t, "/metrics"), "\nmillrace_broker_tracked_keys 1\n")
		})
	}
	base, user := "http://"+two.address, token(t, "--sub", "456")
	stays := open(t, npmWS, base, token(t, "--sub", "457"), "job_progress:1")
	gone := make(map[string]*client)
	for _, k := range foreign {
		gone[k.name] = open(t, k, base, user, "job_progress:1")
	}

	asked := time.Now()
	if answer := one.command(t, "/api/admin/disconnect?user=456"); answer != `{"disconnected":0,"distributed":true}` {
		t.Errorf("it answered %s", answer)
	}
	// By what each of them was told: an EventSource comes back by itself, and then counts again.
	for _, k := range foreign {
		c := gone[k.name]
		if !k.sse {
			if h := c.await(t, "the close", func(h heard) bool { return h.Kind == "close" }); h.Code != 1008 || h.Reason != "Disconnected" {
				t.Errorf("%s was closed with %d %q", k.name, h.Code, h.Reason)
			}
			continue
		}
		if h := c.await(t, "server_error", func(h heard) bool { return h.is("server_error") }); h.field("code") != "disconnected" {
			t.Errorf("%s was told %s", k.name, h.Data)
		}
	}
	t.Logf("all were told after %v", time.Since(asked))

	asked = time.Now()
	one.command(t, "/api/admin/unsubscribe?user=457&channel=job_progress:1")
	stays.await(t, "unsubscribed", func(h heard) bool { return h.is("unsubscribed") && h.field("channel") == "job_progress:1" })
	t.Logf("a channel was taken after %v", time.Since(asked))
	one.command(t, "/api/admin/disconnect?channel=job_progress:1")
	payload := `{"type":"alert","still":"there"}`
	redis.CLI(t, "PUBLISH", "alerts:457", payload)
	stays.event(t, payload)
}
