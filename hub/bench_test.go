package hub

import (
	"fmt"
	"testing"
	"time"

	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// benchmarkSlots are slots that exist in a loop's first page without a stream: what is sent to
// them goes no further than the outbox, so that the hub's own work is what is measured.
const benchmarkSlots = 500

func benchmarkHub(b *testing.B, channelOf func(slot int) string) *harness {
	h := newHarness(b, 1, func(o *Options) { o.MaxReplayBytes = 64 << 20 })
	h.rules["kept"] = &Rules{Replay: Replay{Size: 32, TTL: 30 * time.Second}}
	h.on(0, func(s *Shard) {
		for slot := 1; slot <= benchmarkSlots; slot++ {
			s.Join(netio.Slot(slot), proto.FormText)
			s.Subscribe(netio.Slot(slot), parse(b, channelOf(slot)), From{})
		}
	})
	for slot := 1; slot <= benchmarkSlots; slot++ {
		h.confirm(channelOf(slot))
	}
	h.on(0, func(*Shard) {})
	return h
}

var benchmarkPayload = []byte(`{"type":"job_progress","id":"job_123","progress":42,"message":"Rendering the frames of scene 12","timestamp":"2026-11-24T12:00:00.000Z","stage":"render"}`)

// BenchmarkFanOut is one event on its way to 500 members.
func BenchmarkFanOut(b *testing.B) {
	h := benchmarkHub(b, func(int) string { return "job:1" })
	event, err := proto.NewEvent(parse(b, "job:1"), "job:1/life.1", benchmarkPayload)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	h.on(0, func(s *Shard) {
		order := uint64(0)
		for b.Loop() {
			order++
			s.publish(&publication{event: event, order: order})
			for s.Work() {
				continue
			}
		}
	})
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*benchmarkSlots), "ns/delivery")
}

// BenchmarkUnicast is one event from the broker's callback to its one member, channels by turns.
func BenchmarkUnicast(b *testing.B) { benchmarkUnicast(b, "job") }

// BenchmarkUnicastKept is the same with a memory for replays.
func BenchmarkUnicastKept(b *testing.B) { benchmarkUnicast(b, "kept") }

func benchmarkUnicast(b *testing.B, channelType string) {
	var names [benchmarkSlots + 1]string
	for slot := range names {
		names[slot] = fmt.Sprintf("%s:%d", channelType, slot)
	}
	h := benchmarkHub(b, func(slot int) string { return names[slot] })
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		if _, err := h.hub.Event(names[n%benchmarkSlots+1], benchmarkPayload, time.Now()); err != nil {
			b.Fatal(err)
		}
		if n%256 == 0 {
			h.on(0, func(*Shard) {})
		}
	}
}
