package hub

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/sockettest"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

const lastEntry = `{"type":"complete"}`

// endHarness has logs of type "log" that end, and owners that end their streams then.
func endHarness(t *testing.T, loops int) *harness {
	h := newHarness(t, loops, func(o *Options) {
		o.MaxEventBytes = 20
		o.MaxQueueBytes = 256 << 10
		o.Events.Ended = func(shard *Shard, slot netio.Slot) { shard.Loop().End(slot, netio.FirstOwnReason) }
	})
	h.rules["log"] = &Rules{Kind: broker.Log, Ends: func(payload []byte) bool { return strings.HasPrefix(string(payload), `{"type":"complete"`) }, MaxBytes: 8 << 10}
	return h
}

// hearsEnd reads an event stream to its end, and gives all data and the last id.
func (one *stream) hearsEnd() (data []string, last string) {
	one.h.t.Helper()
	one.client.SetReadDeadline(time.Now().Add(20 * time.Second))
	rest, err := io.ReadAll(one.client)
	if err != nil {
		one.h.t.Fatalf("the stream does not end: %v", err)
	}
	one.decoder.Feed(rest)
	for event, ok := one.decoder.Next(); ok; event, ok = one.decoder.Next() {
		data = append(data, event.Data)
	}
	return data, one.decoder.LastID
}

// TestEndOfALog has everybody get the end, and the end of the stream behind it: who is there, who comes
// back to the middle, and who comes when all is over.
func TestEndOfALog(t *testing.T) {
	h := endHarness(t, 2)
	live := []*stream{h.join(0, proto.FormSSEPlain), h.join(1, proto.FormSSEPlain)}
	for _, one := range live {
		one.subscribe("log:1")
	}
	h.openLog("log:1")
	h.append("log:1", numbers(1, 3)...)
	back := h.join(0, proto.FormSSEPlain)
	back.subscribeFrom("log:1", h.hub.From(parse(t, "log:1"), "log:1/1-0/1"))
	h.append("log:1", "4", lastEntry, "5")
	late := h.join(1, proto.FormSSEPlain)
	late.subscribeFrom("log:1", h.hub.From(parse(t, "log:1"), "0"))
	h.openLog("log:1")
	for name, c := range map[string]struct {
		one  *stream
		want []string
	}{
		"live":             {live[0], append(numbers(1, 4), lastEntry)},
		"on another loop":  {live[1], append(numbers(1, 4), lastEntry)},
		"back":             {back, append(numbers(2, 4), lastEntry)},
		"late, to the end": {late, append(numbers(1, 4), lastEntry)},
	} {
		data, last := c.one.hearsEnd()
		var got []string
		for _, text := range data {
			if !strings.Contains(text, `"replayed"`) {
				got = append(got, text)
			}
		}
		equal(t, name, got, c.want)
		if last != "log:1/end" {
			t.Errorf("%s: the last id is %q", name, last)
		}
		c.one.client.Close()
	}
	sockettest.Eventually(t, "nobody wants the log", func() bool { return !h.hub.Wanted(parse(t, "log:1")) })
}

// TestEndOfALogForALaggingStream has a stream that did not read get all of the log, and its end with
// its id.
func TestEndOfALogForALaggingStream(t *testing.T) {
	h := endHarness(t, 1)
	one := h.join(0, proto.FormSSEPlain)
	one.client.SetReadBuffer(16 << 10)
	one.subscribe("log:1")
	h.openLog("log:1")
	if !h.hub.Wanted(parse(t, "log:1")) || h.hub.Wanted(parse(t, "log:2")) {
		t.Error("the hub does not know what is wanted")
	}
	var want []string
	for n := range 300 {
		want = append(want, fmt.Sprintf("%q", strings.Repeat(string(rune('a'+n%26)), 4<<10)))
	}
	h.append("log:1", want...)
	sockettest.Eventually(t, "the stream is behind", func() bool { return h.counters().Behind == 1 })
	h.append("log:1", lastEntry)
	data, last := one.hearsEnd()
	equal(t, "all of it", data, append(want, lastEntry))
	if last != "log:1/end" {
		t.Errorf("the last id is %q", last)
	}
}

func TestBoundsOfARule(t *testing.T) {
	h := endHarness(t, 1)
	one := h.join(0, proto.FormText)
	one.subscribe("log:1")
	h.openLog("log:1")
	long := fmt.Sprintf("%q", strings.Repeat("x", 8<<10))
	update := broker.LogUpdate{Channel: "log:1", Entries: []broker.Entry{{Position: broker.Position{Milliseconds: 1}, Payload: []byte(long)}}}
	if err := h.hub.Log(update, time.Now()); err == nil || errors.Is(err, proto.ErrNotJSON) {
		t.Errorf("an entry over the bound of its rules: %v", err)
	}
	if got := h.hub.Stats().Dropped[DropTooLarge]; got != 1 {
		t.Errorf("%d dropped", got)
	}
}
