package e2e

import (
	"bufio"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/redistest"
)

const (
	bigEventBytes = 64 << 10
	// bigEventsMax is far more than all buffers between gateway and client could hold.
	bigEventsMax = 2000
	// measuredEvents are small ones, for each figure.
	measuredEvents = 500
)

// heardThrough publishes at a gateway what one client hears through a proxy, and knows how long each
// event takes.
type heardThrough struct {
	gateway *gateway
	user    string // a token
	fast    *client
	number  int // of the last event
}

func (h *heardThrough) publish(t *testing.T, filler string) time.Duration {
	t.Helper()
	h.number++
	payload := fmt.Sprintf(`{"n":%d,"filler":%q}`, h.number, filler)
	began := time.Now()
	if answer := h.gateway.publish(t, h.user, "job_progress:job_123", payload); answer.status != http.StatusOK {
		t.Fatalf("publishing answered %+v", answer)
	}
	h.fast.await(t, "the next event", func(h heard) bool {
		if h.is("gap") {
			t.Fatal("the fast client has a gap")
		}
		return h.Data == payload
	})
	return time.Since(began)
}

// measure logs how long small events take, one after the other.
func (h *heardThrough) measure(t *testing.T, circumstances string) {
	t.Helper()
	took := make([]time.Duration, measuredEvents)
	for i := range took {
		took[i] = h.publish(t, "some hundred bytes of an ordinary event: a job's progress, an alert, a metric of a campaign")
	}
	slices.Sort(took)
	t.Logf("POST to heard through nginx and TLS, %d events, %s: median %v, p99 %v", measuredEvents, circumstances, took[len(took)/2], took[len(took)*99/100])
}

// TestSlowClientBehindProxy: to a gateway the slow client is the proxy, which takes no more for that
// one stream. Another stream through the same proxy goes on, with every event and no gap; the slow
// one is told of what it missed, and goes on with the newest. How long events take, alone and beside
// the slow client, is logged, so the gateway is built as for production.
func TestSlowClientBehindProxy(t *testing.T) {
	t.Parallel()
	path, err := plain()
	if err != nil {
		t.Fatal(err)
	}
	redis := redistest.Start(t)
	g := startBinary(t, path, "--redis", redis.URL(), "--auth-hmac-secret", secret, "--trusted-proxies", "127.0.0.1", "--max-queue-bytes", "256KiB")
	user := token(t, "--sub", "456", "--publish", "job_progress:*")
	running := shippedProxies[0].start(t, g.address, g.address)
	through := &heardThrough{gateway: g, user: user, fast: open(t, curlThrough(running), running.base, user, "job_progress:job_123")}
	through.publish(t, "the first one, which warms everything up")
	through.measure(t, "alone")

	slow := newBrowserLike(t, running).open(t, "/api/stream?channel=job_progress:job_123", user, "")
	if slow.StatusCode != http.StatusOK {
		t.Fatalf("the slow client's stream answered %d", slow.StatusCode)
	}
	before := through.number
	// The slow client takes gzip, as browsers do: what could be compressed would fit in the buffers.
	random := make([]byte, base64.StdEncoding.DecodedLen(bigEventBytes))
	rand.Read(random)
	filler := base64.StdEncoding.EncodeToString(random)
	for !droppedAny(t, g) {
		if through.number-before >= bigEventsMax {
			t.Fatalf("after %d events of %d bytes nothing was dropped for a client that does not read", bigEventsMax, bigEventBytes)
		}
		for range 10 {
			through.publish(t, filler)
		}
	}
	t.Logf("%d KiB were published until something was dropped for the slow client: what nginx, the kernel and max-queue-bytes hold for it",
		(through.number-before)*bigEventBytes>>10)
	through.measure(t, "beside a client that does not read")

	// It reads at last: first what is on its way, then the gap, and then what is published.
	timer := time.AfterFunc(2*patience, func() { slow.Body.Close() })
	defer timer.Stop()
	reader := bufio.NewScanner(slow.Body)
	reader.Buffer(nil, 2*bigEventBytes)
	hears := func(what string, parts ...string) {
		for reader.Scan() {
			if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(reader.Text(), part) }) {
				return
			}
		}
		t.Fatalf("the slow client did not hear %s (%v)", what, reader.Err())
	}
	hears("the gap", `"type":"gap"`, `"reason":"slow"`)
	through.publish(t, "the newest")
	hears("the event after the gap", fmt.Sprintf(`{"n":%d,`, through.number))
}

// droppedAny says whether the gateway has dropped a delivery for a slow client.
func droppedAny(t *testing.T, g *gateway) bool {
	t.Helper()
	return !strings.Contains(g.text(t, "/metrics"), "\nmillrace_deliveries_dropped_total 0\n")
}
