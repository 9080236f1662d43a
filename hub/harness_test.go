package hub

import (
	"context"
	"encoding/json"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/names"
	"github.com/millrace/millrace/internal/sockettest"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// harness is a hub on real loops with real sockets; the test plays the broker and the owner.
type harness struct {
	t     testing.TB
	hub   *Hub
	loops []*netio.Loop
	rules map[string]*Rules // by channel type; set before anything happens

	mutex      sync.Mutex
	wanted     []broker.Subscription // edges as they came, Unsubscribe with a leading "-"
	subscribed map[string]int        // confirmations told, by channel
	preferred  [][]broker.Subscription
	user       string // of all streams

	logs *logStore
}

// noRules are plain events.
var noRules Rules

// stream is one client of the harness.
type stream struct {
	h      *harness
	loop   int
	slot   netio.Slot
	client *net.TCPConn
	form   proto.Form

	reader  proto.MessageReader
	decoder proto.SSEDecoder
	unread  []string // messages that came with those asked for
}

func newHarness(t testing.TB, loops int, change func(*Options)) *harness {
	t.Helper()
	h := &harness{t: t, subscribed: make(map[string]int), rules: make(map[string]*Rules), logs: newLogStore()}
	options := Options{
		Loops: loops, Epoch: "life",
		Source: h.source(),
		Events: Events{
			Subscribed: func(shard *Shard, slot netio.Slot, channel proto.Channel) {
				h.mutex.Lock()
				h.subscribed[channel.Name()]++
				h.mutex.Unlock()
				shard.Begin(slot, channel)
			},
			User: func(*Shard, netio.Slot) string { return h.user },
			Mail: func(*Shard, any) {},
		},
		RulesOf: func(channelType string) *Rules {
			if rules := h.rules[channelType]; rules != nil {
				return rules
			}
			return &noRules
		},
	}
	if change != nil {
		change(&options)
	}
	var err error
	if h.hub, err = New(options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.hub.Close)
	for index := range loops {
		shard := h.hub.Shard(index)
		adopted := func(slot netio.Slot, guest any) {
			one := guest.(*stream)
			one.slot = slot
			shard.Join(slot, one.form)
			if one.form.IsGzip() {
				shard.loop.Splice(slot, nil)
				shard.loop.SendBytes(slot, proto.AppendGzipStart(nil, one.form, nil))
			}
		}
		loop, err := netio.NewLoop(netio.LoopOptions{Index: index, StallLimit: time.Hour}, netio.Events{
			Adopted: adopted, Received: func(netio.Slot, []byte) {}, Timer: func(netio.Slot) {},
			Drained: shard.Drained,
			Closed:  func(slot netio.Slot, _ netio.Reason) { shard.Leave(slot) },
			Mail:    shard.Mail, Work: shard.Work, Encode: EncodePiece,
			Panicked: func(value any, stack []byte) { t.Errorf("panic on the loop: %v\n%s", value, stack) },
		})
		if err != nil {
			t.Fatal(err)
		}
		shard.Attach(loop)
		h.loops = append(h.loops, loop)
		go loop.Run()
		t.Cleanup(loop.Stop)
	}
	return h
}

// source is the broker that the test plays.
func (h *harness) source() Source {
	note := func(s broker.Subscription, prefix string) {
		h.mutex.Lock()
		defer h.mutex.Unlock()
		s.Channel = prefix + s.Channel
		h.wanted = append(h.wanted, s)
	}
	return Source{
		Subscribe:   func(s broker.Subscription, _ names.Place) { note(s, "") },
		Unsubscribe: func(s broker.Subscription) { note(s, "-") },
		ReadLog:     h.logs.read,
		Prefer: func(all []broker.Subscription) {
			h.mutex.Lock()
			defer h.mutex.Unlock()
			h.preferred = append(h.preferred, all)
		},
	}
}

// edgesOf is how often the broker was told that a channel is wanted, or no longer.
func (h *harness) edgesOf(channel string) (count int) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	for _, s := range h.wanted {
		if strings.TrimPrefix(s.Channel, "-") == channel {
			count++
		}
	}
	return count
}

func (h *harness) on(loop int, do func(s *Shard)) {
	h.t.Helper()
	if err := h.loops[loop].Do(context.Background(), func() { do(h.hub.Shard(loop)) }); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) join(loop int, form proto.Form) *stream {
	h.t.Helper()
	one := &stream{h: h, loop: loop, form: form, reader: proto.MessageReader{ClientSide: true}}
	fd, client := sockettest.Pair(h.t)
	one.client = client
	if err := h.loops[loop].Adopt(fd, nil, one); err != nil {
		h.t.Fatal(err)
	}
	h.on(loop, func(*Shard) {})
	return one
}

func (one *stream) subscribe(channel string) Outcome { return one.subscribeFrom(channel, From{}) }

// subscribeFrom subscribes and begins at once where that may be.
func (one *stream) subscribeFrom(channel string, from From) (outcome Outcome) {
	one.h.t.Helper()
	one.h.on(one.loop, func(s *Shard) {
		if outcome = s.Subscribe(one.slot, parse(one.h.t, channel), from); outcome == Confirmed {
			s.Begin(one.slot, parse(one.h.t, channel))
		}
	})
	return outcome
}

func (one *stream) unsubscribe(channel string) (had bool) {
	one.h.on(one.loop, func(s *Shard) { had = s.Unsubscribe(one.slot, parse(one.h.t, channel)) })
	return had
}

func parse(t testing.TB, channel string) proto.Channel {
	t.Helper()
	parsed, err := proto.ParseChannel(channel)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func plain(channels ...string) (all []broker.Subscription) {
	for _, channel := range channels {
		kind := broker.Plain
		if isWildcard(channel) {
			kind = broker.Pattern
		}
		all = append(all, broker.Subscription{Channel: channel, Kind: kind})
	}
	return all
}

func (h *harness) confirm(channels ...string) { h.hub.Confirmed(plain(channels...), false) }

func (h *harness) publish(channel, payload string) {
	h.t.Helper()
	if _, err := h.hub.Event(channel, []byte(payload), time.Now()); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) edges() []string {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	var all []string
	for _, s := range h.wanted {
		all = append(all, s.Channel)
	}
	return all
}

// read reads the next n messages of a WebSocket form.
func (one *stream) read(n int) (messages []string) {
	one.h.t.Helper()
	one.client.SetReadDeadline(time.Now().Add(10 * time.Second))
	buffer := make([]byte, 64<<10)
	for len(one.unread) < n {
		got, err := one.client.Read(buffer)
		if err != nil {
			one.h.t.Fatalf("after %d of %d messages: %v", len(one.unread), n, err)
		}
		for rest := buffer[:got]; ; {
			var message proto.Message
			message, rest, err = one.reader.Next(rest, 1<<20)
			if err != nil {
				one.h.t.Fatal(err)
			}
			if message.Op == proto.OpContinuation {
				break
			}
			one.unread = append(one.unread, string(message.Data))
		}
	}
	messages, one.unread = one.unread[:n], one.unread[n:]
	return messages
}

// readSSE reads the next event of an SSE form without chunks.
func (one *stream) readSSE() proto.SSEEvent {
	one.h.t.Helper()
	one.client.SetReadDeadline(time.Now().Add(10 * time.Second))
	buffer := make([]byte, 64<<10)
	for {
		if event, ok := one.decoder.Next(); ok {
			return event
		}
		got, err := one.client.Read(buffer)
		if err != nil {
			one.h.t.Fatal(err)
		}
		one.decoder.Feed(buffer[:got])
	}
}

// silent checks that nothing more arrives, by having the loop send a mark behind whatever it has.
func (one *stream) silent() {
	one.h.t.Helper()
	one.h.on(one.loop, func(s *Shard) {
		s.loop.SendBytes(one.slot, proto.AppendFrame(nil, proto.OpText, []byte("mark")))
	})
	if got := one.read(1)[0]; got != "mark" {
		one.h.t.Errorf("there was something: %q", got)
	}
}

func (h *harness) counters() (all Counters) {
	for index := range h.loops {
		h.on(index, func(s *Shard) { all.Add(s.Counters()) })
	}
	return all
}

func field(t testing.TB, message, name string) string {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal([]byte(message), &object); err != nil {
		t.Fatalf("%q: %v", message, err)
	}
	text, _ := object[name].(string)
	return text
}

func equal(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}
