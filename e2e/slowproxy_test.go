package e2e

import (
	"bufio"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/redistest"
)

// TestSlowClientBehindProxy: to a gateway the slow client is the proxy, which takes no more for that
// one stream. Another stream through the same proxy goes on, with every event and no gap; the slow
// one is told of what it missed, and goes on with the newest.
func TestSlowClientBehindProxy(t *testing.T) {
	t.Parallel()
	const (
		eventBytes = 64 << 10
		// eventsMax is far more than all buffers between gateway and client could hold.
		eventsMax = 2000
	)
	redis := redistest.Start(t)
	g := startGateway(t, "--redis", redis.URL(), "--auth-hmac-secret", secret, "--trusted-proxies", "127.0.0.1", "--max-queue-bytes", "256KiB")
	user := token(t, "--sub", "456", "--publish", "job_progress:*")
	running := shippedProxies[0].start(t, g.address, g.address)
	fast := open(t, curlThrough(running), running.base, user, "job_progress:job_123")
	slow := newBrowserLike(t, running).open(t, "/api/stream?channel=job_progress:job_123", user, "")
	if slow.StatusCode != http.StatusOK {
		t.Fatalf("the slow client's stream answered %d", slow.StatusCode)
	}

	filler := strings.Repeat("x", eventBytes)
	var took []time.Duration
	publish := func() {
		began := time.Now()
		payload := fmt.Sprintf(`{"n":%d,"filler":%q}`, len(took), filler)
		if answer := g.publish(t, user, "job_progress:job_123", payload); answer.status != http.StatusOK {
			t.Fatalf("publishing answered %+v", answer)
		}
		fast.await(t, "the next event", func(h heard) bool {
			if h.is("gap") {
				t.Fatal("the fast client has a gap")
			}
			return h.Data == payload
		})
		took = append(took, time.Since(began))
	}
	for !droppedAny(t, g) {
		if len(took) >= eventsMax {
			t.Fatalf("after %d events of %d bytes nothing was dropped for a client that does not read", len(took), eventBytes)
		}
		for range 10 {
			publish()
		}
	}
	slices.Sort(took)
	t.Logf("published to heard through nginx, %d events of %d KiB beside a client that does not read: median %v, p99 %v",
		len(took), eventBytes>>10, took[len(took)/2], took[len(took)*99/100])

	// It reads at last: first what is on its way, then the gap, and then what is published.
	timer := time.AfterFunc(2*patience, func() { slow.Body.Close() })
	defer timer.Stop()
	reader := bufio.NewScanner(slow.Body)
	reader.Buffer(nil, 2*eventBytes)
	hears := func(what string, parts ...string) {
		for reader.Scan() {
			if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(reader.Text(), part) }) {
				return
			}
		}
		t.Fatalf("the slow client did not hear %s (%v)", what, reader.Err())
	}
	hears("the gap", `"type":"gap"`, `"reason":"slow"`)
	publish()
	hears("the event after the gap", fmt.Sprintf(`{"n":%d,`, len(took)-1))
}

// droppedAny says whether the gateway has dropped a delivery for a slow client.
func droppedAny(t *testing.T, g *gateway) bool {
	t.Helper()
	return !strings.Contains(metrics(t, g), "\nmillrace_deliveries_dropped_total 0\n")
}
