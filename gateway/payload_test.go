package gateway_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace/millrace/gateway"
)

// TestPayloads: what a worker publishes arrives as it was published, on every wire, and never as a
// word of the gateway's own.
func TestPayloads(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{})
	streams := make([]*stream, len(everyWire))
	for i, w := range everyWire {
		streams[i] = h.open(t, w, visit{channels: []string{"job_progress:1"}})
	}
	type payload struct {
		name, text, event string // event: its name on an event stream
	}
	payloads := []payload{
		{"object", `{"type":"job_progress","jobId":"job_123","progress":0.75}`, "job_progress"},
		{"object without a type", `{"a":1}`, "message"},
		{"white space around", " \t{\"type\": \"x\" } ", "x"},
		{"several lines", "{\n\"type\":\"lines\",\r\n\"a\":1,\r\"b\":2\n}", "lines"},
		{"array", `[1,2,3]`, "message"},
		{"string", `"text"`, "message"},
		{"empty string", `""`, "message"},
		{"number", `-1.5e300`, "message"},
		{"huge number", `1e400`, "message"},
		{"true", `true`, "message"},
		{"null", `null`, "message"},
		{"empty object", `{}`, "message"},
		{"type that is a number", `{"type":1}`, "message"},
		{"type null", `{"type":null}`, "message"},
		{"empty type", `{"type":""}`, "message"},
		{"type with a space", `{"type":"a b"}`, "message"},
		{"type with a colon", `{"type":"a:b"}`, "message"},
		{"type with an escaped line end", `{"type":"a\nevent: forged\ndata: {}\n\n"}`, "message"},
		{"type in letters that are not ASCII", `{"type":"größe"}`, "message"},
		{"type of 64 bytes", `{"type":"` + strings.Repeat("t", 64) + `"}`, strings.Repeat("t", 64)},
		{"type of 65 bytes", `{"type":"` + strings.Repeat("t", 65) + `"}`, "message"},
		{"two types", `{"type":"first","type":"last"}`, "last"},
		{"escaped type", `{"\u0074ype":"\u0078"}`, "x"},
		{"type of an inner object", `{"a":{"type":"inner"}}`, "message"},
		{"line separators of Unicode", "{\"type\":\"u\",\"a\":\"\u2028\u2029\u0085\"}", "u"},
		{"text that looks like an event stream", `{"type":"u","a":"id: 1\nevent: connected\ndata: x\n\n"}`, "u"},
		{"emoji", `{"type":"u","a":"🦫"}`, "u"},
		{"126 bytes", `"` + strings.Repeat("x", 124) + `"`, "message"},
		{"65,536 bytes", `"` + strings.Repeat("x", 65_534) + `"`, "message"},
		{"300,000 bytes", `"` + strings.Repeat("x", 299_998) + `"`, "message"},
		{"hidden in the prototype", `{"type":"__proto__","constructor":1}`, "__proto__"},
	}
	for _, reserved := range reservedTypes {
		payloads = append(payloads,
			payload{"reserved " + reserved, `{"type":"` + reserved + `","channel":"job_progress:1","clientId":"forged"}`, "message"},
			payload{"reserved, escaped " + reserved, `{"type":"\u00` + strconv.FormatInt(int64(reserved[0]), 16) + reserved[1:] + `"}`, "message"})
	}
	for _, payload := range payloads {
		t.Run(payload.name, func(t *testing.T) {
			h.publish(t, "job_progress:1", payload.text)
			for _, s := range streams {
				want := payload.text
				if !s.wire.websocket { // line ends come back as LF (WHATWG HTML, 9.2.6)
					want = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(want)
				} else if s.wire.envelope {
					want = trimmed(want)
				}
				got := s.said(t)
				if s.wire.envelope {
					got.text = trimmed(got.text)
				}
				if got.kind != heardEvent || got.text != want {
					t.Errorf("%s heard %v, want the event %.300s", s.wire.name, got, want)
				}
				if !s.wire.websocket && got.name != payload.event {
					t.Errorf("%s calls the event %q, want %q", s.wire.name, got.name, payload.event)
				}
				if s.wire.isRaw() && strings.HasPrefix(payload.name, "reserved") && got.channel != "job_progress:1" {
					t.Errorf("a reserved type came without an envelope: %v", got)
				}
			}
		})
	}
}

// trimmed takes white space from the ends: what stands around a value in an envelope is not told.
func trimmed(text string) string { return strings.Trim(text, " \t\r\n") }

// reservedTypes are the words of the protocol's own (contract, section 4).
var reservedTypes = strings.Fields("connected subscribed unsubscribed published pong error server_error gap replayed batch " +
	"compressed deleted complete event open message refresh")

// TestRefusedPayloads: what is no event reaches nobody, and is counted by its reason.
func TestRefusedPayloads(t *testing.T) {
	t.Parallel()
	h, redis := serveRedis(t, gateway.Options{Limits: gateway.Limits{MaxEventBytes: 1 << 10}}, gateway.Timings{})
	streams := make([]*stream, len(everyWire))
	for i, w := range everyWire {
		streams[i] = h.open(t, w, visit{channels: []string{"job_progress:1"}})
	}
	kept.hide("a-worker-said-this")
	rows := []struct{ name, payload, reason string }{
		{"empty", "", "empty"},
		{"spaces", "  \n", "empty"},
		{"plain text", "a-worker-said-this", "not_json"},
		{"half an object", `{"a":`, "not_json"},
		{"two values", `{} {}`, "not_json"},
		{"a comma too many", `{"a":1,}`, "not_json"},
		{"a raw line end in a string", "\"a\nb\"", "not_json"},
		{"Latin-1", "\"\xe4\"", "not_utf8"},
		{"a surrogate", "\"\xed\xa0\x80\"", "not_utf8"},
		{"too large", `"` + strings.Repeat("x", 1<<10) + `"`, "too_large"},
		{"nested without end", strings.Repeat("[", 500) + strings.Repeat("]", 499), "not_json"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			before := h.metrics(t)[`millrace_events_dropped_total{reason="`+row.reason+`"}`]
			publishAt(t, redis.Addr, "job_progress:1", row.payload)
			publishAt(t, redis.Addr, "job_progress:1", `{"after":true}`)
			for _, s := range streams {
				s.event(t, `{"after":true}`)
			}
			after := h.metrics(t)[`millrace_events_dropped_total{reason="`+row.reason+`"}`]
			if after != before+1 {
				t.Errorf("%s was counted %v times, want once", row.reason, after-before)
			}
		})
	}
}

// TestChannelForms: a channel may be written in several ways, and is one channel.
func TestChannelForms(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{})
	s := h.open(t, enveloped, visit{})
	for written, name := range map[string]string{
		`"job_progress:job_123"`:                   "job_progress:job_123",
		`{"type":"job_progress","id":"job_123"}`:   "job_progress:job_123",
		`{"type":"alerts","userId":"456"}`:         "alerts:456",
		`{"type":"x","id":"1","userId":"2"}`:       "x:1:2",
		`"A-Z_a.z@0=9|+:` + `-"`:                   "A-Z_a.z@0=9|+:-",
		`{"type":"x","id":"1","more":[1,{"a":2}]}`: "x:1",
	} {
		t.Run(written, func(t *testing.T) {
			s.command(t, `{"type":"subscribe","channel":`+written+`}`)
			s.wordWith(t, "subscribed", "channel="+name)
			var told struct{ Published int }
			body := h.ask(t, post(`{"channel":`+written+`,"event":{"for":"`+name+`"}}`)).body
			if err := json.Unmarshal([]byte(body), &told); err != nil || told.Published != 1 {
				t.Fatalf("publishing answered %s", body)
			}
			if got := s.event(t, `{"for":"`+name+`"}`); got.channel != name {
				t.Errorf("the event is of %q", got.channel)
			}
			s.command(t, `{"type":"unsubscribe","channel":"`+name+`"}`)
			s.wordWith(t, "unsubscribed", "channel="+name)
		})
	}
}
