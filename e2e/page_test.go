package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// TestPage is the newcomer's first minute: serve --demo, a browser, live events on both wires,
// and what is published in the form comes back.
func TestPage(t *testing.T) {
	t.Parallel()
	g := startGateway(t, "--demo")
	visit := start(t, "the page's visitor", node(t), driver("page.js"), chromium(t), "http://"+g.address+"/")
	var line string
	select {
	case line = <-visit.lines:
	case <-time.After(2 * patience):
	}
	var report struct {
		Seen struct {
			SSE       string `json:"sse"`
			WebSocket string `json:"websocket"`
			Published string `json:"published"`
			Overflow  bool   `json:"overflow"`
		} `json:"seen"`
		Complaints []string `json:"complaints"`
	}
	if err := json.Unmarshal([]byte(line), &report); err != nil {
		t.Fatalf("the visit ended early, with %q", line)
	}
	if report.Seen.SSE != "Live over SSE" || report.Seen.WebSocket != "Live over WebSocket" {
		t.Errorf("the page said %q and %q", report.Seen.SSE, report.Seen.WebSocket)
	}
	if report.Seen.Published != "Published" {
		t.Errorf("after publishing the page said %q", report.Seen.Published)
	}
	if report.Seen.Overflow {
		t.Error("the page is wider than a phone's screen")
	}
	if len(report.Complaints) > 0 {
		t.Errorf("the console complained:\n%s", strings.Join(report.Complaints, "\n"))
	}
}

// TestDemoEvents: the demo's measurements are events like any other.
func TestDemoEvents(t *testing.T) {
	t.Parallel()
	g := startGateway(t, "--demo")
	for _, k := range foreign {
		t.Run(k.name, func(t *testing.T) {
			c := open(t, k, "http://"+g.address, "", "system:millrace")
			for range 2 {
				h := c.await(t, "a measurement", func(h heard) bool { return h.field("type") == "measurement" })
				for _, field := range []string{"streams", "events", "heapBytes", "goroutines", "cpuPercent", "timestamp"} {
					if h.field(field) == "" {
						t.Errorf("the measurement %s lacks %s", h.Data, field)
					}
				}
			}
		})
	}
}
