package gateway_test

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/proto"
)

// TestCommands: each command and its answer, on both forms.
func TestCommands(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Limits: gateway.Limits{MaxSubscriptions: 4}})
	rows := []struct {
		name, command string
		answers       []string // "word field=value .."
	}{
		{"a name", `{"type":"subscribe","channel":"job_progress:1"}`, []string{"subscribed channel=job_progress:1 ref="}},
		{"again", `{"type":"subscribe","channel":"job_progress:1","ref":"a"}`, []string{"subscribed channel=job_progress:1 ref=a"}},
		{"an object", `{"type":"subscribe","channel":{"type":"job_progress","id":"2"},"ref":7}`, []string{"subscribed channel=job_progress:2 ref=7"}},
		{"an array", `{"type":"subscribe","channels":["job_progress:1",{"type":"x","id":"1","userId":"2"}],"ref":"b"}`, []string{"subscribed channel=job_progress:1 ref=b", "subscribed channel=x:1:2 ref=b"}},
		{"one twice in an array", `{"type":"subscribe","channels":["job_progress:4","job_progress:4"],"ref":"c"}`, []string{"subscribed channel=job_progress:4 ref=c", "subscribed channel=job_progress:4 ref=c"}},
		{"one too many", `{"type":"subscribe","channel":"job_progress:5","ref":"d"}`, []string{"error code=too_many_subscriptions channel=job_progress:5 ref=d"}},
		{"too many in one command", `{"type":"subscribe","channels":["a:1","a:2","a:3","a:4","a:5"],"ref":"e"}`, []string{"error code=too_many_subscriptions ref=e"}},
		{"unsubscribe", `{"type":"unsubscribe","channel":"job_progress:4","ref":"f"}`, []string{"unsubscribed channel=job_progress:4 ref=f"}},
		{"unsubscribe again", `{"type":"unsubscribe","channel":"job_progress:4"}`, []string{"unsubscribed channel=job_progress:4"}},
		{"unsubscribe from what never was", `{"type":"unsubscribe","channels":["never:1","never:2"]}`, []string{"unsubscribed channel=never:1", "unsubscribed channel=never:2"}},
		{"now there is room", `{"type":"subscribe","channel":"job_progress:5"}`, []string{"subscribed channel=job_progress:5"}},
		{"ping", `{"type":"ping"}`, []string{"pong ref="}},
		{"ping with a ref", `{"type":"ping","ref":-1.5e3}`, []string{"pong ref=-1500"}},
		{"unknown members", `{"type":"ping","later":{"a":[1]},"ref":"g"}`, []string{"pong ref=g"}},
		{"a member twice", `{"type":"nonsense","type":"ping","ref":"x","ref":"h"}`, []string{"pong ref=h"}},
		{"white space", " \n{ \"type\" : \"ping\" } \r\n", []string{"pong"}},

		{"unknown command", `{"type":"dance","ref":"i"}`, []string{"error code=unknown_command ref=i"}},
		{"a word of the gateway's", `{"type":"subscribed","channel":"a:1"}`, []string{"error code=unknown_command"}},
		{"no type", `{"ref":"j"}`, []string{"error code=bad_request ref=j"}},
		{"type that is no string", `{"type":1}`, []string{"error code=bad_request"}},
		{"no JSON", `subscribe a:1`, []string{"error code=bad_request"}},
		{"half of it", `{"type":"ping"`, []string{"error code=bad_request"}},
		{"bytes behind it", `{"type":"ping"} x`, []string{"error code=bad_request"}},
		{"two commands", `{"type":"ping"}{"type":"ping"}`, []string{"error code=bad_request"}},
		{"an array of commands", `[{"type":"ping"}]`, []string{"error code=bad_request"}},
		{"nothing", ``, []string{"error code=bad_request"}},
		{"commas", strings.Repeat(",", 60_000), []string{"error code=bad_request"}},
		{"line ends", strings.Repeat("\n", 60_000), []string{"error code=bad_request"}},
		{"deep", strings.Repeat("[", 60_000), []string{"error code=bad_request"}},
		{"a ref that is an object", `{"type":"ping","ref":{}}`, []string{"error code=bad_request ref="}},
		{"a ref that is long", `{"type":"ping","ref":"` + strings.Repeat("x", 70) + `"}`, []string{"error code=bad_request ref="}},
		{"no channel", `{"type":"subscribe","ref":"k"}`, []string{"error code=bad_request ref=k"}},
		{"no channels", `{"type":"subscribe","channels":[]}`, []string{"error code=bad_request"}},
		{"both", `{"type":"subscribe","channel":"a:1","channels":["a:1"]}`, []string{"error code=bad_request"}},
		{"bad channel", `{"type":"subscribe","channel":"plain","ref":"l"}`, []string{"error code=bad_channel channel=plain ref=l"}},
		{"pattern", `{"type":"subscribe","channel":"a:b*"}`, []string{"error code=bad_channel"}},
		{"wildcard of a namespace without", `{"type":"subscribe","channel":"a:*"}`, []string{"error code=bad_channel channel=a:*"}},
		{"line end in a channel", `{"type":"subscribe","channel":"a:1\r\nX"}`, []string{"error code=bad_channel"}},
		{"NUL in a channel", `{"type":"subscribe","channel":"a:\u0000"}`, []string{"error code=bad_channel"}},
		{"half a surrogate", `{"type":"subscribe","channel":"a:\ud800"}`, []string{"error code=bad_channel"}},
		{"our own canary", `{"type":"subscribe","channel":"__millrace:1"}`, []string{"error code=bad_channel"}},
		{"a channel of 60 KiB", `{"type":"subscribe","channel":"a:` + strings.Repeat("x", 60<<10) + `"}`, []string{"error code=bad_channel channel="}},
		{"one bad of two", `{"type":"subscribe","channels":["fresh:1","plain"]}`, []string{"error code=bad_channel"}},
		{"refresh without authentication", `{"type":"refresh","token":"x.y.z","ref":"m"}`, []string{"error code=bad_request ref=m"}},
		{"still there", `{"type":"ping","ref":"n"}`, []string{"pong ref=n"}},
	}
	onEvery(t, webSockets, func(t *testing.T, w wire) {
		s := h.open(t, w, visit{})
		for _, row := range rows {
			s.command(t, row.command)
			for _, want := range row.answers {
				fields := strings.Fields(want)
				answer := s.wordWith(t, fields[0], fields[1:]...)
				if t.Failed() {
					t.Fatalf("%s was answered %s", row.name, answer.text)
				}
			}
		}
	})
}

// TestSubscribed: nothing that is published after subscribed is missed, nothing comes after
// unsubscribed.
func TestSubscribed(t *testing.T) {
	t.Parallel()
	h, redis := serveRedis(t, gateway.Options{}, gateway.Timings{})
	onEvery(t, webSockets, func(t *testing.T, w wire) {
		s := h.open(t, w, visit{channels: []string{"mark:1"}})
		for n := range 20 {
			channel := fmt.Sprintf("fresh:%d", n)
			s.subscribe(t, channel)
			publishAt(t, redis.Addr, channel, `{"after":"subscribed"}`)
			s.event(t, `{"after":"subscribed"}`)
			s.command(t, `{"type":"unsubscribe","channel":"`+channel+`"}`)
			s.wordWith(t, "unsubscribed", "channel="+channel)
			publishAt(t, redis.Addr, channel, `{"after":"unsubscribed"}`)
			publishAt(t, redis.Addr, "mark:1", `{"mark":true}`)
			s.event(t, `{"mark":true}`)
		}
	})
}

// TestSubscribedOnlyWhenConfirmed: while Redis does not answer, nobody is told that they are
// subscribed; when it does, they are.
func TestSubscribedOnlyWhenConfirmed(t *testing.T) {
	t.Parallel()
	h, redis := serveRedis(t, gateway.Options{}, gateway.Timings{})
	streams := []*stream{h.open(t, raw, visit{}), h.open(t, enveloped, visit{})}
	freeze(t, redis)
	for _, s := range streams {
		s.command(t, `{"type":"subscribe","channel":"job_progress:1","ref":1}`)
		s.command(t, `{"type":"subscribe","channel":"job_progress:1","ref":2}`)
		s.command(t, `{"type":"subscribe","channel":"job_progress:2","ref":3}`)
		s.command(t, `{"type":"unsubscribe","channel":"job_progress:2"}`)
		s.wordWith(t, "unsubscribed", "channel=job_progress:2")
		s.alive(t) // and nothing was confirmed
	}
	redis.Cont()
	for _, s := range streams {
		s.wordWith(t, "subscribed", "channel=job_progress:1", "ref=1")
		s.wordWith(t, "subscribed", "channel=job_progress:1", "ref=2")
	}
	publishAt(t, redis.Addr, "job_progress:2", `{"unwanted":true}`)
	publishAt(t, redis.Addr, "job_progress:1", `{"n":1}`)
	for _, s := range streams {
		s.until(t, "the event", func(h heard) bool { return h.kind == heardEvent && h.text == `{"n":1}` })
	}
}

// TestPings: frames and JSON, either way round, and the heartbeat.
func TestPings(t *testing.T) {
	t.Parallel()
	h := serveWith(t, gateway.Options{}, gateway.Timings{Heartbeat: time.Second, Silence: 3 * time.Second})
	onEvery(t, webSockets, func(t *testing.T, w wire) {
		t.Parallel()
		begin := time.Now()
		answering, silent := h.open(t, w, visit{}), h.open(t, w, visit{})
		answering.send(t, masked(proto.OpPing, "are you there?"))
		if got := answering.next(patience); got.kind != heardPong || got.text != "are you there?" {
			t.Errorf("a ping was answered with %v", got)
		}
		for range 5 { // longer than silence is allowed
			answering.until(t, "a ping", func(h heard) bool { return h.kind == heardPing })
			answering.send(t, masked(proto.OpPong, ""))
		}
		if took := time.Since(begin); took < 4500*time.Millisecond || took > 9*time.Second {
			t.Errorf("five pings came within %v, want one a second", took)
		}
		answering.alive(t)
		pings := 0
		silent.until(t, "the end", func(h heard) bool {
			if h.kind == heardPing {
				pings++
			}
			return h.kind == heardCut
		})
		if pings == 0 {
			t.Error("a silent client was closed without having been asked")
		}
	})
}

// TestUnfinishedMessage: a message that was begun has its own deadline, whatever trickles in.
func TestUnfinishedMessage(t *testing.T) {
	t.Parallel()
	h := serveWith(t, gateway.Options{}, gateway.Timings{Message: time.Second})
	s := h.open(t, raw, visit{})
	frame := masked(proto.OpText, `{"type":"ping"}`)
	s.send(t, frame[:len(frame)-1])
	s.ends(t, proto.ClosePolicy, "Message not finished")
}

// TestCloseHandshake: a client's close is answered once, with its code, and then all is over.
func TestCloseHandshake(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{})
	for _, code := range []proto.CloseCode{1000, 1001, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999, proto.CloseNoStatus} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			s := h.open(t, raw, visit{channels: []string{"job_progress:1"}})
			body := ""
			if code != proto.CloseNoStatus {
				body = string([]byte{byte(code >> 8), byte(code)}) + "bye"
			}
			// What comes behind a close is not answered (RFC 6455, 5.5.1).
			s.send(t, append(masked(proto.OpClose, body), masked(proto.OpText, `{"type":"ping"}`)...))
			s.ends(t, code, "")
		})
	}
}

// TestBehindTheHandshake: frames in the same segment as the handshake are served, and those behind
// a handshake that is refused are not.
func TestBehindTheHandshake(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{})
	onEvery(t, webSockets, func(t *testing.T, w wire) {
		conn := dial(t, h.address)
		t.Cleanup(func() { conn.Close() })
		bytes := []byte(h.raw(w.request(visit{query: "userId=456"})))
		bytes = append(bytes, masked(proto.OpText, `{"type":"subscribe","channel":"job_progress:1","ref":1}`)...)
		bytes = append(bytes, masked(proto.OpText, `{"type":"publish","channel":"job_progress:1","event":{"early":true},"ref":2}`)...)
		bytes = append(bytes, masked(proto.OpText, `{"type":"ping","ref":3}`)...)
		if _, err := conn.Write(bytes); err != nil {
			t.Fatal(err)
		}
		s := hear(t, w, conn)
		s.wantOpen(t)
		var heardAll []string
		for len(heardAll) < 4 {
			switch word := s.said(t); {
			case word.kind == heardEvent: // may be before or after subscribed: it was asked for first
			case word.kind != heardWord:
				t.Fatalf("heard %v", word)
			default:
				heardAll = append(heardAll, word.name)
			}
		}
		slices.Sort(heardAll)
		if want := []string{"connected", "pong", "published", "subscribed"}; !slices.Equal(heardAll, want) {
			t.Errorf("heard %v, want %v", heardAll, want)
		}
	})
	t.Run("refused", func(t *testing.T) {
		before := h.stats(t).Broker.Published
		conn := dial(t, h.address)
		defer conn.Close()
		bytes := []byte(h.raw(handshake("/ws", "Origin: https://evil.example")))
		bytes = append(bytes, masked(proto.OpText, `{"type":"publish","channel":"job_progress:1","event":{"evil":true}}`)...)
		if got := exchange(t, conn, string(bytes)); got.status != 403 {
			t.Errorf("answered %d", got.status)
		}
		if after := h.stats(t).Broker.Published; after != before {
			t.Error("a frame behind a refused handshake was carried out")
		}
	})
}

// TestPieces: commands arrive whole, in any pieces of the network and of the protocol.
func TestPieces(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Limits: gateway.Limits{CommandsPerSecond: gateway.NoLimit}})
	command := `{"type":"subscribe","channel":"job_progress:1","ref":"größe 🦫"}`
	onEvery(t, webSockets, func(t *testing.T, w wire) {
		s := h.open(t, w, visit{})
		want := func() { s.wordWith(t, "subscribed", "channel=job_progress:1", "ref=größe 🦫") }
		t.Run("byte by byte", func(t *testing.T) {
			for _, b := range masked(proto.OpText, command) {
				s.send(t, []byte{b})
			}
			want()
		})
		t.Run("cut at every byte", func(t *testing.T) {
			frame := masked(proto.OpText, command)
			for cut := 1; cut < len(frame); cut++ {
				s.send(t, frame[:cut])
				s.send(t, frame[cut:])
				want()
			}
		})
		t.Run("fragmented at every byte, with a ping inside", func(t *testing.T) {
			for cut := range len(command) + 1 {
				bytes := fragment(proto.OpText, false, command[:cut])
				bytes = append(bytes, masked(proto.OpPing, "inside")...)
				bytes = append(bytes, fragment(proto.OpContinuation, true, command[cut:])...)
				s.send(t, bytes)
				if got := s.next(patience); got.kind != heardPong || got.text != "inside" {
					t.Fatalf("heard %v, want the pong", got)
				}
				want()
			}
		})
		t.Run("many in one segment", func(t *testing.T) {
			var bytes []byte
			for range 100 {
				bytes = append(bytes, masked(proto.OpText, command)...)
			}
			s.send(t, bytes)
			for range 100 {
				want()
			}
		})
	})
}

// fragment is a masked frame that may be one of several of a message.
func fragment(opcode proto.Opcode, final bool, payload string) []byte {
	frame := masked(opcode, payload)
	if !final {
		frame[0] &^= 0x80
	}
	return frame
}

// TestCommandRate: a burst is carried out, more is refused, still more ends the stream, and
// nobody else is held up.
func TestCommandRate(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Limits: gateway.Limits{CommandsPerSecond: 5}})
	flood := map[string][]byte{"commands": masked(proto.OpText, `{"type":"ping"}`), "ping frames": masked(proto.OpPing, "x")}
	for name, frame := range flood {
		t.Run(name, func(t *testing.T) {
			s, other := h.open(t, raw, visit{}), h.open(t, raw, visit{})
			var bytes []byte
			for range 200 {
				bytes = append(bytes, frame...)
			}
			s.send(t, bytes)
			pongs, refused := 0, 0
			closed := s.until(t, "the close", func(h heard) bool {
				switch {
				case h.kind == heardPong || h.name == "pong":
					pongs++
				case h.name == "error" && h.field("code") == "rate_limited":
					refused++
				}
				return h.kind == heardClose
			})
			if closed.code != proto.ClosePolicy || closed.text != "Too many commands" {
				t.Errorf("closed with %v", closed)
			}
			if pongs < 20 || pongs > 40 || refused < 10 || refused > 40 {
				t.Errorf("%d were carried out and %d refused, want a burst of about 20 each", pongs, refused)
			}
			other.alive(t)
		})
	}
}

// TestUnreadAnswers: a client that asks and does not read is closed, and held to its queue.
func TestUnreadAnswers(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Limits: gateway.Limits{CommandsPerSecond: gateway.NoLimit, MaxQueueBytes: 256 << 10}})
	s := h.open(t, raw, visit{buffer: 4 << 10})
	frame := masked(proto.OpText, `{"type":"ping","ref":"`+strings.Repeat("x", 60)+`"}`)
	var bytes []byte
	for range 1000 {
		bytes = append(bytes, frame...)
	}
	within(t, patience, "it is closed", func() bool {
		_ = s.conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, err := s.conn.Write(bytes)
		queued := int64(0)
		for _, loop := range h.stats(t).Loops {
			queued += loop.QueuedBytes
		}
		if queued > 300<<10 {
			t.Errorf("%d bytes are queued for a client that does not read", queued)
		}
		timeout, isNet := err.(net.Error)
		return err != nil && (!isNet || !timeout.Timeout())
	})
	within(t, patience, "it is counted", func() bool { return h.metrics(t)[`millrace_streams_ended_total{reason="slow"}`] == 1 })
}
