package gateway_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/internal/redistest"
)

var retryLine = regexp.MustCompile(`(?m)^retry: ([0-9]+)$`)

// wantRetry checks that a stream says when to come back: 3 s, and up to as much again, so that
// those who left together do not return together.
func wantRetry(t testing.TB, body string) int {
	t.Helper()
	found := retryLine.FindStringSubmatch(body)
	if found == nil {
		t.Errorf("there is no retry in %q", body)
		return 0
	}
	wait, _ := strconv.Atoi(found[1])
	if wait < 3000 || wait > 6000 {
		t.Errorf("retry is %d ms, want 3000 to 6000", wait)
	}
	return wait
}

func TestEventStreamHead(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Broadcast: []string{"system:all"}})
	onEvery(t, sseWires, func(t *testing.T, w wire) {
		waits := make(map[time.Duration]bool)
		for range 8 {
			s := h.open(t, w, visit{channels: []string{"job_progress:1", "job_progress:1", "job_progress:2"}, query: "userId=456"})
			wantStreamHead(t, answer{header: s.response.Header})
			if got := s.response.Proto; got != "HTTP/"+w.version {
				t.Errorf("answered in %s", got)
			}
			if chunked := slices.Equal(s.response.TransferEncoding, []string{"chunked"}); chunked != (w.version == "1.1") {
				t.Errorf("the transfer coding is %v", s.response.TransferEncoding)
			}
			wantRetry(t, "retry: "+strconv.Itoa(int(s.decoder.Retry.Milliseconds())))
			waits[s.decoder.Retry] = true
			if s.user != "456" || s.decoder.LastID != "" {
				t.Errorf("the user is %q, the id %q", s.user, s.decoder.LastID)
			}
			slices.Sort(s.channels)
			if want := []string{"alerts:456", "job_progress:1", "job_progress:2", "system:all"}; !slices.Equal(s.channels, want) {
				t.Errorf("connected to %v, want %v", s.channels, want)
			}
		}
		if len(waits) == 1 {
			t.Error("eight streams were all told the same time to retry at: it is not jittered")
		}
	})
}

// TestGreeting: what a client is told of itself, on every wire.
func TestGreeting(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Broadcast: []string{"system:all"}})
	ids := make(map[string]bool)
	onEvery(t, everyWire, func(t *testing.T, w wire) {
		for user, channels := range map[string][]string{
			"":       {"system:all"},
			"456":    {"alerts:456", "system:all"},
			"a b/ü!": {"system:all"}, // can't stand in a channel's name, so it has none of its own
		} {
			v := visit{query: "userId=" + strings.NewReplacer(" ", "%20", "ü", "%C3%BC").Replace(user)}
			s := h.open(t, w, v)
			if s.user != user {
				t.Errorf("the user is %q, want %q", s.user, user)
			}
			slices.Sort(s.channels)
			if !slices.Equal(s.channels, channels) {
				t.Errorf("user %q is connected to %v, want %v", user, s.channels, channels)
			}
			if ids[s.clientID] {
				t.Errorf("two clients have the id %s", s.clientID)
			}
			ids[s.clientID] = true
		}
	})
}

// TestKeepAlive: a silent event stream gets comments, which leave the id alone.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	h := serveWith(t, gateway.Options{}, gateway.Timings{KeepAlive: time.Second})
	onEvery(t, sseWires, func(t *testing.T, w wire) {
		t.Parallel()
		channel := fmt.Sprintf("job_progress:%s-%v", w.version, w.zipped)
		s := h.open(t, w, visit{channels: []string{channel}})
		begin := time.Now()
		h.publish(t, channel, `{"n":1}`)
		id := s.event(t, `{"n":1}`).id
		for range 2 {
			comment := s.until(t, "a comment", func(h heard) bool { return h.kind == heardComment })
			if comment.id != id {
				t.Errorf("the comment left the id at %q, want %q", comment.id, id)
			}
		}
		if took := time.Since(begin); took < 1500*time.Millisecond || took > 5*time.Second {
			t.Errorf("two comments came within %v of an event, want one a second", took)
		}
	})
}

// TestEventIDs: ids are one stream of positions, the same bytes for everybody.
func TestEventIDs(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{})
	streams := make([]*stream, 0, 2*len(everyWire))
	for _, w := range append(everyWire, everyWire...) {
		streams = append(streams, h.open(t, w, visit{channels: []string{"job_progress:1", "job_progress:2"}}))
	}
	form := regexp.MustCompile(`^job_progress:[12]/([A-Za-z0-9]+)\.([0-9]+)$`)
	epoch, last := "", 0
	for n := range 6 {
		channel, payload := "job_progress:"+strconv.Itoa(1+n%2), `{"n":`+strconv.Itoa(n)+`}`
		h.publish(t, channel, payload)
		id := ""
		for _, s := range streams {
			got := s.event(t, payload)
			switch {
			case s.wire.isRaw() && got.id == "":
			case id == "":
				id = got.id
			case got.id != id:
				t.Errorf("%s has the id %q, another stream %q", s.wire.name, got.id, id)
			}
			if s.wire.envelope && got.channel != channel {
				t.Errorf("the envelope names %q, want %q", got.channel, channel)
			}
		}
		found := form.FindStringSubmatch(id)
		if found == nil || !strings.HasPrefix(id, channel+"/") {
			t.Fatalf("the id is %q", id)
		}
		number, _ := strconv.Atoi(found[2])
		if epoch != "" && found[1] != epoch || number <= last {
			t.Errorf("the id %q follows %s.%d", id, epoch, last)
		}
		epoch, last = found[1], number
	}
}

// TestUnknownPosition: whoever would go on from where this gateway cannot is told of a gap, on
// each of its channels, and then hears what is live.
func TestUnknownPosition(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{})
	for name, id := range map[string]string{
		"another gateway's life": "job_progress:1/zzzzzzzz.7",
		"past all numbers":       "job_progress:1/zzzzzzzz.99999999999999999999999",
		"no id":                  "42",
		"long":                   strings.Repeat("x", 4000),
		"another channel":        "job_progress:9/zzzzzzzz.7",
		"a log's":                "job_progress:1/1700000000000-0/1700000000000",
	} {
		t.Run(name, func(t *testing.T) {
			onEvery(t, sseWires, func(t *testing.T, w wire) {
				for _, v := range []visit{{header: []string{"Last-Event-ID: " + id}}, {query: "lastEventId=" + id}} {
					v.channels = []string{"job_progress:1", "job_progress:2"}
					s := h.knock(t, w, v)
					s.wantOpen(t)
					gaps := make(map[string]string)
					greeted := false
					for len(gaps) < 2 || !greeted {
						switch word := s.said(t); word.name {
						case "gap":
							gaps[word.field("channel")] = word.field("after")
							if reason := word.field("reason"); reason != "unknown_position" {
								t.Errorf("the gap's reason is %q", reason)
							}
						case "connected":
							greeted = true
						default:
							t.Fatalf("heard %v", word)
						}
					}
					for _, channel := range v.channels {
						after, told := gaps[channel]
						if !told || after != "" && after != id {
							t.Errorf("the gap of %s is after %q (told: %v)", channel, after, told)
						}
					}
					h.publish(t, "job_progress:2", `{"live":true}`)
					s.event(t, `{"live":true}`)
				}
			})
		})
	}
}

// TestNotConfirmed: where the broker confirms nothing in time, an event stream says so and ends, and
// a WebSocket says so and goes on.
func TestNotConfirmed(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	h := serveWith(t, gateway.Options{Redis: redis.URL()}, gateway.Timings{Confirm: time.Second})
	h.awaitDelivery(t)
	freeze(t, redis)
	streams := make(map[wire]*stream)
	for _, w := range everyWire {
		streams[w] = h.knock(t, w, visit{channels: []string{"job_progress:1"}, query: "userId=456"})
		streams[w].wantOpen(t)
	}
	for _, w := range sseWires {
		streams[w].wordWith(t, "server_error", "code=broker_unavailable")
		streams[w].ends(t, 0, "")
	}
	for _, w := range webSockets {
		s := streams[w]
		s.greeted(t) // late, and without the personal channel
		if len(s.channels) != 0 {
			t.Errorf("%s is told that it is connected to %v", w.name, s.channels)
		}
		s.wordWith(t, "error", "code=broker_unavailable", "channel=alerts:456")
		s.command(t, `{"type":"subscribe","channel":"job_progress:1","ref":"late"}`)
	}
	for _, w := range webSockets {
		streams[w].wordWith(t, "error", "code=broker_unavailable", "channel=job_progress:1", "ref=late")
	}
	redis.Cont()
	h.awaitDelivery(t)
	for _, w := range webSockets {
		streams[w].subscribeAtLast(t, "job_progress:1")
	}
	h.publish(t, "job_progress:1", `{"back":true}`)
	for _, w := range webSockets {
		streams[w].until(t, "the event", func(h heard) bool { return h.kind == heardEvent && h.text == `{"back":true}` })
	}
}

// subscribeAtLast asks until a broker that was away confirms.
func (s *stream) subscribeAtLast(t testing.TB, channel string) {
	t.Helper()
	within(t, patience, s.wire.name+" is subscribed", func() bool {
		s.command(t, `{"type":"subscribe","channel":"`+channel+`","ref":"again"}`)
		answer := s.until(t, "an answer", func(h heard) bool { return h.field("ref") == "again" })
		if answer.name != "subscribed" && answer.field("code") != "broker_unavailable" {
			t.Fatalf("%s heard %v", s.wire.name, answer)
		}
		return answer.name == "subscribed"
	})
}

// TestHalfClose: a client that sends no more is gone, on every wire, and its place is free.
func TestHalfClose(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{})
	onEvery(t, everyWire, func(t *testing.T, w wire) {
		s := h.open(t, w, visit{channels: []string{"job_progress:half"}})
		if err := s.conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if end := s.said(t); end.kind != heardCut && end.kind != heardEnd {
			t.Errorf("heard %v", end)
		}
	})
	onEvery(t, everyWire, func(t *testing.T, w wire) {
		s := h.open(t, w, visit{channels: []string{"job_progress:half"}})
		_ = s.conn.SetLinger(0) // a reset
		s.conn.Close()
	})
	within(t, patience, "nobody is left", func() bool {
		stats, err := h.Stats(context.Background())
		return err == nil && stats.SSE.TotalConnections+stats.WebSocket.TotalConnections+stats.Channels.TotalSubscriptions == 0
	})
}

// TestBytesBehindAnEventStream: what a client sends behind its request is never read as another.
func TestBytesBehindAnEventStream(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{})
	onEvery(t, sseWires, func(t *testing.T, w wire) {
		conn := dial(t, h.address)
		t.Cleanup(func() { conn.Close() })
		both := w.request(visit{channels: []string{"job_progress:1"}}) + post(`{"channel":"job_progress:1","event":{"smuggled":true}}`)
		if _, err := conn.Write([]byte(h.raw(both))); err != nil {
			t.Fatal(err)
		}
		s := hear(t, w, conn)
		s.wantOpen(t)
		s.greeted(t)
		h.publish(t, "job_progress:1", `{"honest":true}`)
		s.event(t, `{"honest":true}`)
	})
}

// TestSince: a client that would go on from somewhere, and cannot, is told of a gap on just that
// channel, once it is subscribed.
func TestSince(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{})
	onEvery(t, sseWires, func(t *testing.T, w wire) {
		s := h.knock(t, w, visit{channels: []string{"a:1"}, query: "since=a:9/zzzzzzzz.5"})
		s.wantOpen(t)
		gap := s.until(t, "the gap", func(h heard) bool { return h.name == "gap" })
		if gap.field("channel") != "a:1" || gap.field("reason") != "unknown_position" || gap.field("after") != "" {
			t.Errorf("the gap is %v", gap)
		}
	})
	onEvery(t, webSockets, func(t *testing.T, w wire) {
		s := h.open(t, w, visit{})
		for range 2 { // the second time it is subscribed already
			s.command(t, `{"type":"subscribe","channels":["a:1","a:2"],"since":{"a:1":"a:1/zzzzzzzz.5","b:1":"b:1/zzzzzzzz.5"},"ref":1}`)
			s.wordWith(t, "subscribed", "channel=a:1", "ref=1")
			s.wordWith(t, "gap", "channel=a:1", "reason=unknown_position", "after=a:1/zzzzzzzz.5")
			s.wordWith(t, "subscribed", "channel=a:2", "ref=1")
			s.alive(t)
		}
		s.command(t, `{"type":"subscribe","channel":"a:3","since":"a:1/zzzzzzzz.5"}`)
		s.wordWith(t, "subscribed", "channel=a:3")
		s.wordWith(t, "gap", "channel=a:3", "reason=unknown_position", "after=")
		h.publish(t, "a:3", `{"live":true}`)
		s.event(t, `{"live":true}`)
	})
}
