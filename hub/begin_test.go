package hub

import (
	"testing"
	"time"

	"github.com/millrace/millrace/proto"
)

// TestBeginOvertakesTheMail begins while the mail of what it sends is still in the loop's box: it
// must not come twice.
func TestBeginOvertakesTheMail(t *testing.T) {
	h := stateHarness(t, 1, nil)
	h.rules["kept"] = &Rules{Replay: Replay{Size: 5, TTL: time.Hour}}
	first := h.join(0, proto.FormText)
	first.subscribe("state:1")
	first.subscribe("kept:1")
	h.value("state:1", "1")
	h.confirmState("state:1")
	h.confirm("kept:1")
	h.publish("kept:1", "2")
	first.read(2)
	one := h.join(0, proto.FormText)
	from := h.hub.From(parse(t, "kept:1"), "kept:1/life.2")
	h.on(0, func(s *Shard) {
		if err := h.hub.Value("state:1", []byte("3"), time.Now()); err != nil {
			t.Error(err)
		}
		for _, payload := range []string{"4", "5"} {
			if _, err := h.hub.Event("kept:1", []byte(payload), time.Now()); err != nil {
				t.Error(err)
			}
		}
		s.Subscribe(one.slot, parse(t, "state:1"), From{})
		s.Subscribe(one.slot, parse(t, "kept:1"), from)
		s.Begin(one.slot, parse(t, "state:1"))
		s.Begin(one.slot, parse(t, "kept:1"))
	})
	equal(t, "begun", one.read(4), []string{"3", "4", "5", replayed("kept:1", 2)})
	one.silent()
	equal(t, "who was there", first.read(3), []string{"3", "4", "5"})
	if n := h.counters().Behind; n != 0 {
		t.Errorf("%d streams have records left", n)
	}
}

// TestLaggingFromTheFirstEntry lets a stream fall behind before a log has any entry, and the first
// ones be trimmed before it reads.
func TestLaggingFromTheFirstEntry(t *testing.T) {
	for _, c := range []struct {
		name string
		keep int
		want []string
	}{
		{"nothing trimmed", 3, []string{"1", "2", "3"}},
		{"some trimmed", 1, []string{gapText("log:1", "", "trimmed"), "3"}},
		{"all trimmed", 0, []string{gapText("log:1", "", "trimmed")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := logHarness(t, 1, func(o *Options) { o.MaxQueueBytes = 256 << 10 })
			one := h.join(0, proto.FormText)
			one.subscribe("log:1")
			h.openLog("log:1")
			one.fill()
			h.append("log:1", "1", "2", "3")
			h.logs.trim("log:1", c.keep)
			equal(t, "caught up", one.drain(len(c.want)), c.want)
			h.append("log:1", "4")
			equal(t, "live", one.read(1), []string{"4"})
			one.silent()
		})
	}
}
