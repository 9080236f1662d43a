package e2e

import (
	"net/url"
	"strings"
	"testing"
)

// TestResume: who comes back with an id gets on, and is told of a gap where this gateway can't
// say what was missed. A finished stream is answered with 204, so that EventSource stays away.
func TestResume(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	base := "http://" + g.address
	resume := func(id string) string {
		return "/api/stream?" + url.Values{"channel": {"job_progress:1"}, "lastEventId": {id}}.Encode()
	}
	cases := []struct{ name, id string }{
		{"of another gateway", "job_progress:1/another.41"},
		{"of another channel", "job_progress:2/another.41"},
		{"no id at all", "forty-one"},
		{"past 2^64", "job_progress:1/another.99999999999999999999"},
		{"very long", "job_progress:1/" + strings.Repeat("9", 4000)},
		{"with control characters", "job_progress:1/\x01\r\n\x00"},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			c := dial(t, curl, base, resume(test.id))
			var connected, gap bool
			c.await(t, "connected and a gap", func(h heard) bool {
				connected = connected || h.is("connected")
				gap = gap || h.is("gap") && h.field("reason") == "unknown_position" && h.field("channel") == "job_progress:1"
				return connected && gap
			})
			g.publish(t, "", "job_progress:1", `{"goes":"on"}`)
			c.event(t, `{"goes":"on"}`)
		})
	}
	t.Run("a finished stream", func(t *testing.T) {
		if status := g.status("/api/stream?channel=job_progress:1&lastEventId=stream_1%2Fend"); status != 204 {
			t.Errorf("the answer is %d, want 204", status)
		}
	})
	t.Run("WebSocket", func(t *testing.T) {
		c := dial(t, npmWS, base, "/ws")
		c.await(t, "connected", func(h heard) bool { return h.is("connected") })
		c.send(t, `{"type":"subscribe","channel":"job_progress:1","since":"job_progress:1/another.41"}`)
		var subscribed, gap bool
		c.await(t, "subscribed and a gap", func(h heard) bool {
			subscribed = subscribed || h.is("subscribed")
			gap = gap || h.is("gap") && h.field("reason") == "unknown_position"
			return subscribed && gap
		})
	})
}
