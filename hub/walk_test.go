package hub

import (
	"strconv"
	"testing"
	"time"

	"github.com/millrace/millrace/proto"
)

// TestWhatWaitsInTheMailIsNotReplayedToo: a channel that its one stream leaves and comes back to in one
// turn is another one to the shard, which may have an event of the first still in its mail.
func TestWhatWaitsInTheMailIsNotReplayedToo(t *testing.T) {
	h := replayHarness(t, Replay{Size: 5, TTL: time.Hour}, nil)
	one := h.join(0, proto.FormText)
	one.subscribe("kept:1")
	h.confirm("kept:1")
	h.publish("kept:1", "1")
	equal(t, "live", one.read(1), []string{"1"})
	h.on(0, func(s *Shard) {
		h.publish("kept:1", "2") // stays in the mail until this call is over
		s.Unsubscribe(one.slot, parse(t, "kept:1"))
		s.Subscribe(one.slot, parse(t, "kept:1"), h.hub.From(parse(t, "kept:1"), "kept:1/life.1"))
		s.Begin(one.slot, parse(t, "kept:1"))
	})
	equal(t, "replay", one.read(2), []string{"2", replayed("kept:1", 1)})
	one.silent()
	h.publish("kept:1", "3")
	equal(t, "live", one.read(1), []string{"3"})
}

// TestWalksAreBounded: a loop that cannot walk as fast as events come tells of those that it did not walk,
// before it goes on.
func TestWalksAreBounded(t *testing.T) {
	for name, channel := range map[string]string{"by its name": "job:1", "by a wildcard": "job:*"} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, 1, nil)
			one := h.join(0, proto.FormText)
			one.subscribe(channel)
			h.confirm(channel)
			const bound, count = 16, 2000
			h.on(0, func(s *Shard) {
				s.stepsMax, s.expressMax, s.walksMax = 1, 0, bound
				for n := 1; n <= count; n++ {
					h.publish("job:1", strconv.Itoa(n)) // stays in the mail until this call is over
				}
			})
			waited := 0
			for settled := false; !settled; {
				h.on(0, func(s *Shard) {
					waited = max(waited, s.walks.len())
					settled = s.walks.empty() && len(s.missed) == 0 && s.loop.Queued(one.slot) == 0
				})
			}
			if waited > bound {
				t.Errorf("%d walks waited", waited)
			}
			h.publish("job:1", strconv.Itoa(count+1))
			gap, gaps := false, 0
			for last := 0; last < count+1; {
				text := one.read(1)[0]
				n, err := strconv.Atoi(text)
				switch {
				case err != nil && field(t, text, "type") == "gap":
					gap, gaps = true, gaps+1
				case err != nil || n <= last || n != last+1 && !gap:
					t.Fatalf("%s came after %d without a gap", text, last)
				default:
					gap, last = false, n
				}
			}
			if gaps == 0 {
				t.Error("nothing was missed: the test tests nothing")
			}
			one.silent()
		})
	}
}
