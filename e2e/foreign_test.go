package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/redistest"
)

// TestForeignClients publishes with redis-cli, as any worker might, and hears it with clients
// that know nothing of Millrace.
func TestForeignClients(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	g := startGateway(t, "--redis", redis.URL())
	base := "http://" + g.address
	for _, k := range foreign {
		t.Run(k.name, func(t *testing.T) {
			c := open(t, k, base, "", "job_progress:job_123")
			payload := `{"type":"job_progress","jobId":"job_123","progress":0.75}`
			redis.CLI(t, "PUBLISH", "job_progress:job_123", payload)
			h := c.event(t, payload)
			if k.sse && (h.Event != "job_progress" || !strings.HasPrefix(h.ID, "job_progress:job_123/")) {
				t.Errorf("heard event %q with id %q, want job_progress and an id of its channel", h.Event, h.ID)
			}

			// Text that a wire could spoil: letters of all lengths, separators, escapes, spaces.
			for _, text := range []string{
				`{"type":"job_progress","message":"żółć 水車 🌊    \u0000 \" \\ "}`,
				`[1,2,3]`, `"only text"`, `null`, `-1.5e300`,
			} {
				redis.CLI(t, "PUBLISH", "job_progress:job_123", text)
				c.event(t, text)
			}

			// In order, however fast.
			const count = 50
			for n := range count {
				redis.CLI(t, "PUBLISH", "job_progress:job_123", fmt.Sprintf(`{"type":"job_progress","n":%d}`, n))
			}
			for n := range count {
				want := fmt.Sprintf(`{"type":"job_progress","n":%d}`, n)
				got := c.await(t, "an event with n", func(h heard) bool { return h.field("n") != "" })
				if got.Data != want {
					t.Fatalf("heard %s, want %s", got.Data, want)
				}
			}
		})
	}
}

// TestLineBreaks: an event of several lines is one event. SSE normalises line ends, which JSON
// does not mind; a WebSocket carries the text as it was published.
func TestLineBreaks(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	g := startGateway(t, "--redis", redis.URL())
	for _, k := range foreign {
		t.Run(k.name, func(t *testing.T) {
			c := open(t, k, "http://"+g.address, "", "job_progress:lines")
			for _, end := range []string{"\n", "\r\n", "\r"} {
				text := strings.Join([]string{"{", `  "type": "job_progress",`, "", `  "data": "data: id: 1"`, "}"}, end)
				redis.CLI(t, "PUBLISH", "job_progress:lines", text)
				want := text
				if k.sse {
					want = strings.ReplaceAll(text, end, "\n")
				}
				if h := c.event(t, want); k.sse && h.Event != "job_progress" {
					t.Errorf("the event's name is %q, want job_progress", h.Event)
				}
			}
		})
	}
}

// reserved holds every type that the gateway keeps for its own words.
var reserved = []string{
	"connected", "subscribed", "unsubscribed", "published", "pong", "error", "server_error", "gap",
	"replayed", "batch", "compressed", "deleted", "complete", "event", "open", "message", "refresh",
}

// TestReservedTypes: a worker that publishes a type of ours is heard, and can't speak in the
// gateway's name.
func TestReservedTypes(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	g := startGateway(t, "--redis", redis.URL())
	for _, k := range foreign {
		t.Run(k.name, func(t *testing.T) {
			c := open(t, k, "http://"+g.address, "", "job_progress:forged")
			for _, name := range reserved {
				payload := fmt.Sprintf(`{"type":%q,"channel":"job_progress:forged","code":"forged"}`, name)
				redis.CLI(t, "PUBLISH", "job_progress:forged", payload)
				if k.sse {
					if h := c.event(t, payload); h.Event != "message" {
						t.Errorf("a payload of type %s came as event %q, want message", name, h.Event)
					}
					continue
				}
				h := c.await(t, "the wrapped "+name, func(h heard) bool { return strings.Contains(h.Data, "forged\"}") })
				if !h.is("event") || h.field("channel") != "job_progress:forged" || !strings.Contains(h.Data, `"data":`+payload) {
					t.Errorf("a payload of type %s came as %s, want it wrapped in an envelope", name, h.Data)
				}
			}
		})
	}
}

// TestWorthlessPayloads: what is not a JSON value in UTF-8 is dropped and counted, and costs
// nobody the next event.
func TestWorthlessPayloads(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	g := startGateway(t, "--redis", redis.URL(), "--max-event-bytes", "4096")
	worthless := map[string]string{
		"empty":          "",
		"not JSON":       "progress: 75%",
		"cut off":        `{"type":"job_progress"`,
		"two values":     `{} {}`,
		"not UTF-8":      "\"\xff\xfe\"",
		"too long":       `"` + strings.Repeat("a", 4096) + `"`,
		"deep and open":  strings.Repeat("[", 4000),
		"a bare newline": "\n",
	}
	for _, k := range light {
		t.Run(k.name, func(t *testing.T) {
			c := open(t, k, "http://"+g.address, "", "job_progress:worthless")
			for name, payload := range worthless {
				redis.CLI(t, "PUBLISH", "job_progress:worthless", payload)
				marker := fmt.Sprintf(`{"type":"job_progress","after":%q}`, name)
				redis.CLI(t, "PUBLISH", "job_progress:worthless", marker)
				h := c.await(t, "what follows "+name, func(h heard) bool { return h.Kind == "event" || h.Kind == "message" })
				if h.Data != marker {
					t.Errorf("%s: heard %.80q before %s", name, h.Data, marker)
				}
			}
		})
	}
}

// TestEnvelope: a WebSocket that asks for it gets each event with its channel and its id.
func TestEnvelope(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	g := startGateway(t, "--redis", redis.URL())
	c := dial(t, npmWS, "http://"+g.address, "/ws?format=envelope")
	c.await(t, "connected", func(h heard) bool { return h.is("connected") })
	c.subscribe(t, "job_progress:a", "job_progress:b")
	for _, channel := range []string{"job_progress:a", "job_progress:b"} {
		redis.CLI(t, "PUBLISH", channel, `{"type":"job_progress"}`)
		h := c.await(t, "an envelope", func(h heard) bool { return h.is("event") })
		if h.field("channel") != channel || !strings.HasPrefix(h.field("id"), channel+"/") ||
			!strings.Contains(h.Data, `"data":{"type":"job_progress"}`) {
			t.Errorf("the envelope is %s", h.Data)
		}
	}
}

// TestChannelObjects: channels may be given as objects, in the three forms of the protocol.
func TestChannelObjects(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	g := startGateway(t, "--redis", redis.URL())
	cases := []struct{ name, object, channel string }{
		{"type and id", `{"type":"job_progress","id":"job_123"}`, "job_progress:job_123"},
		{"type and user", `{"type":"alerts","userId":"456"}`, "alerts:456"},
		{"all three", `{"type":"x","id":"1","userId":"2"}`, "x:1:2"},
	}
	c := dial(t, npmWS, "http://"+g.address, "/ws")
	c.await(t, "connected", func(h heard) bool { return h.is("connected") })
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			c.send(t, `{"type":"subscribe","channel":`+test.object+`,"ref":7}`)
			h := c.await(t, "subscribed", func(h heard) bool { return h.is("subscribed") })
			if h.field("channel") != test.channel || h.field("ref") != "7" {
				t.Errorf("heard %s, want channel %s and ref 7", h.Data, test.channel)
			}
			payload := `{"to":"` + test.channel + `"}`
			redis.CLI(t, "PUBLISH", test.channel, payload)
			c.event(t, payload)
		})
	}
}
