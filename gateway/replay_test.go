package gateway_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/gateway/access"
)

// identified are the wires on which a client learns ids.
var identified = []wire{sse, sse10, enveloped}

// TestReplay: who comes back to the same gateway gets what it missed of all its channels of
// events, hears so, and goes on live.
func TestReplay(t *testing.T) {
	t.Parallel()
	onEachBroker(t, gateway.Options{}, func(t *testing.T, writer writer) {
		h := writer.house
		onEvery(t, identified, func(t *testing.T, w wire) {
			first, second := "events:first"+w.version, "events:second"+w.version
			if w.websocket {
				first, second = "events:first", "events:second"
			}
			s := h.open(t, w, visit{channels: []string{first, second}})
			before := h.stats(t).Replay.Events
			writer.publish(t, first, "1")
			id := s.event(t, "1").id
			s.conn.Close()
			writer.publish(t, second, "2")
			writer.publish(t, first, "3")
			writer.publish(t, second, "4")
			within(t, patience, "all has arrived", func() bool { return h.stats(t).Replay.Events >= before+4 })
			if w.websocket {
				s = h.open(t, w, visit{})
				s.command(t, fmt.Sprintf(`{"type":"subscribe","channels":[%q,%q],"since":%q}`, first, second, id))
			} else {
				s = h.open(t, w, lastID(id, first, second))
			}
			var heard []string
			for len(heard) < 5 {
				if h := s.said(t); h.name != "subscribed" {
					heard = append(heard, h.name+h.field("channel")+h.field("count")+textOf(h))
				}
			}
			message := map[bool]string{false: "message"}[w.websocket]
			want := []string{
				message + "3", "replayed" + first + "1", message + "2", message + "4", "replayed" + second + "2",
			}
			if fmt.Sprint(heard) != fmt.Sprint(want) {
				t.Errorf("heard %v, want %v", heard, want)
			}
			writer.publish(t, first, "5")
			s.event(t, "5")
		})
	})
}

func textOf(h heard) string {
	if h.kind == heardEvent {
		return h.text
	}
	return ""
}

// TestReplayElsewhere: a position of another gateway, of a channel that keeps nothing, or of what
// is no longer kept is a gap.
func TestReplayElsewhere(t *testing.T) {
	t.Parallel()
	namespaces := modes()
	namespaces["none"] = access.Namespace{Replay: access.Replay{Size: new(0)}}
	namespaces["two"] = access.Namespace{Replay: access.Replay{Size: new(2)}}
	options := gateway.Options{Namespaces: namespaces}
	h, redis := serveRedis(t, options, gateway.Timings{})
	options.Redis = redis.URL()
	other := serve(t, options)
	other.awaitDelivery(t)
	onEvery(t, identified, func(t *testing.T, w wire) {
		for _, row := range []struct {
			name, channel string
			missed        int
			there         *house
			want          string
		}{
			{"another gateway", "events:1", 1, other, "[gap]"},
			{"a namespace without replay", "none:1", 1, h, "[gap]"},
			{"more than is kept", "two:1", 3, h, "[gap]"},
			{"as much as is kept", "two:2", 2, h, "[1 2 replayed]"},
		} {
			t.Run(row.name, func(t *testing.T) {
				s := h.open(t, w, visit{channels: []string{row.channel}})
				h.publish(t, row.channel, "0")
				id := s.event(t, "0").id
				for n := range row.missed {
					h.publish(t, row.channel, fmt.Sprint(n+1))
					s.event(t, fmt.Sprint(n+1))
				}
				s.conn.Close()
				s = row.there.resume(t, w, row.channel, id)
				var heard []string
				for len(heard) == 0 || heard[len(heard)-1] != "gap" && heard[len(heard)-1] != "replayed" {
					if h := s.said(t); h.kind == heardEvent {
						heard = append(heard, h.text)
					} else {
						heard = append(heard, h.name)
						if h.name == "gap" && (h.field("reason") != "unknown_position" || h.field("after") != id) {
							t.Errorf("the gap is %v", h)
						}
					}
				}
				if fmt.Sprint(heard) != row.want {
					t.Errorf("heard %v, want %s", heard, row.want)
				}
				row.there.publish(t, row.channel, `"live"`)
				s.event(t, `"live"`)
			})
		}
	})
}

// TestIDField: what the publisher calls an event is its id, on every gateway where the channel was
// heard.
func TestIDField(t *testing.T) {
	t.Parallel()
	options := gateway.Options{Namespaces: modes()}
	h, redis := serveRedis(t, options, gateway.Timings{})
	options.Redis = redis.URL()
	other := serve(t, options)
	other.awaitDelivery(t)
	onEvery(t, identified, func(t *testing.T, w wire) {
		channel := "named:" + w.version
		if w.websocket {
			channel = "named:ws"
		}
		s, there := h.open(t, w, visit{channels: []string{channel}}), other.open(t, w, visit{channels: []string{channel}})
		for _, payload := range []string{`{"uuid":"a","n":1}`, `{"uuid":2}`, `{"n":3}`} {
			h.publish(t, channel, payload)
		}
		ids := []string{s.event(t, `{"uuid":"a","n":1}`).id, s.event(t, `{"uuid":2}`).id, s.event(t, `{"n":3}`).id}
		if ids[0] != channel+"/=a" || ids[1] != channel+"/=2" || ids[2] == "" {
			t.Errorf("the ids are %q", ids)
		}
		there.event(t, `{"uuid":"a","n":1}`)
		there.event(t, `{"uuid":2}`)
		there.event(t, `{"n":3}`)
		there.conn.Close()
		there = other.resume(t, w, channel, ids[0])
		there.event(t, `{"uuid":2}`)
		there.event(t, `{"n":3}`)
		there.wordWith(t, "replayed", "channel="+channel, "count=2")
		there = other.resume(t, w, channel, channel+"/=never")
		there.wordWith(t, "gap", "channel="+channel, "reason=unknown_position", "after="+channel+"/=never")
	})
}

// TestThrottle: of a fast channel the newest event of each interval comes, and always the last.
func TestThrottle(t *testing.T) {
	t.Parallel()
	onEachBroker(t, gateway.Options{}, func(t *testing.T, writer writer) {
		h := writer.house
		for _, channel := range []string{"throttled:1", "paced:1"} {
			var streams []*stream
			for _, w := range everyWire {
				streams = append(streams, h.open(t, w, visit{channels: []string{channel}}))
			}
			const count = 400
			began := time.Now()
			for n := 1; n <= count; n++ {
				h.publish(t, channel, fmt.Sprintf(`{"n":%d}`, n))
			}
			took := time.Since(began)
			for _, s := range streams {
				events, last := 0, int64(0)
				for last != count {
					number, ok := numberOf(s.said(t).text)
					if !ok || number <= last {
						t.Fatalf("%s: %d came after %d", channel, number, last)
					}
					last = number
					events++
				}
				if most := int(took/(100*time.Millisecond)) + 3; events > most {
					t.Errorf("%s on %s: %d events came in %v, want at most %d", channel, s.wire.name, events, took, most)
				}
			}
		}
		if got := h.stats(t).Delivery.Throttled; got == 0 {
			t.Error("nothing is counted as throttled")
		}
	})
}

// TestBatch: all events of an interval come as one, with the id of the last.
func TestBatch(t *testing.T) {
	t.Parallel()
	onEachBroker(t, gateway.Options{}, func(t *testing.T, writer writer) {
		h := writer.house
		var streams []*stream
		for _, w := range everyWire {
			streams = append(streams, h.open(t, w, visit{channels: []string{"batched:1"}}))
		}
		const count = 100
		for n := 1; n <= count; n++ {
			h.publish(t, "batched:1", fmt.Sprintf(`{"n":%d}`, n))
		}
		for _, s := range streams {
			last := 0
			for last < count {
				batch := s.wordWith(t, "batch", "channel=batched:1")
				var told struct{ Events []struct{ N int } }
				if err := json.Unmarshal([]byte(batch.text), &told); err != nil || len(told.Events) == 0 {
					t.Fatalf("the batch is %v (%v)", batch, err)
				}
				for _, event := range told.Events {
					if last++; event.N != last {
						t.Fatalf("%s: event %d stands where %d should", s.wire.name, event.N, last)
					}
				}
				id := batch.id
				if s.wire.envelope {
					id = batch.field("id")
				}
				if hasIDs := !s.wire.websocket || s.wire.envelope; (id != "") != hasIDs {
					t.Errorf("%s: the id of the batch is %q", s.wire.name, id)
				}
			}
		}
	})
}
