package hub

import (
	"fmt"
	"testing"

	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

func TestExplain(t *testing.T) {
	h := logHarness(t, 1, func(o *Options) { o.MaxQueueBytes = 256 << 10 })
	one := h.join(0, proto.FormText)
	for _, channel := range []string{"job:1", "job:2", "log:1"} {
		one.subscribe(channel)
	}
	h.confirm("job:1")
	h.openLog("log:1")
	h.append("log:1", "1")
	one.read(1)
	one.fill()
	h.publish("job:1", "1")
	h.publish("job:1", "2")
	h.append("log:1", "2")
	var e Explanation
	h.on(0, func(s *Shard) { e = s.Explain(one.slot) })
	got := map[string]string{}
	for _, c := range e.Channels {
		got[c.Channel.Name()] = c.State + " " + c.After
	}
	want := map[string]string{"job:1": "dropping ", "job:2": "asked ", "log:1": "reading log:1/1-0/0"}
	for channel, state := range want {
		if got[channel] != state {
			t.Errorf("%s: %q, not %q", channel, got[channel], state)
		}
	}
	if e.Dropped != 2 || e.Queue.Bytes < 1<<20 || e.Queue.Frames == 0 || e.Queue.KernelBytes <= 0 {
		t.Errorf("%+v", e)
	}
}

func TestLossPrefersWhatManyHear(t *testing.T) {
	h := logHarness(t, 1, nil)
	for n := range 5 {
		one := h.join(0, proto.FormText)
		for channel := range n + 1 {
			one.subscribe(fmt.Sprintf("job:%d", channel))
		}
	}
	all := plain("job:0", "job:1", "job:2", "job:3", "job:4")
	h.hub.Confirmed(all, false)
	h.hub.Lost(all)
	h.on(0, func(*Shard) {})
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if len(h.preferred) != 1 || len(h.preferred[0]) != 4 || h.preferred[0][0].Channel != "job:0" || h.preferred[0][3].Channel != "job:3" {
		t.Errorf("preferred: %v", h.preferred)
	}
}

func TestPreferIsBounded(t *testing.T) {
	h := logHarness(t, 1, nil)
	h.on(0, func(s *Shard) {
		s.members.Grow(9)
		c := s.channels.At(s.addChannel(parse(t, "job:1")))
		for slot := range netio.Slot(9) {
			s.addMember(c, slot+1)
		}
		for range 5 * preferMax {
			s.noteCrowd(c)
			if len(s.lost) >= 2*preferMax {
				t.Fatalf("%d are remembered", len(s.lost))
			}
		}
		s.prefer()
	})
	if n := len(h.preferred[0]); n != preferMax {
		t.Errorf("%d are preferred", n)
	}
}
