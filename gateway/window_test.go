package gateway

import (
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// TestDeliveryWindow: what is recent does not hold what is long past, whoever asks how often.
func TestDeliveryWindow(t *testing.T) {
	start := time.Now()
	window := newDeliveryWindow(start)
	all := hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 2)
	for _, step := range []struct {
		name       string
		seconds    float64
		deliver    int64 // microseconds each, of ten deliveries; 0: none
		over       float64
		deliveries uint64
		p50, p99   float64 // milliseconds
	}{
		{"since the start", 2, 1000, 2, 10, 1, 1},
		{"asked again at once", 2, 0, 2, 10, 1, 1},
		{"the first is remembered", 6, 4000, 6, 20, 1, 4},
		{"what is before it is still recent", 9, 0, 9, 20, 1, 4},
		{"the start is forgotten", 11, 16_000, 5, 10, 16, 16},
		{"and what was at the first", 16, 0, 5, 0, 0, 0},
		{"nobody asked for long", 1000, 2000, 984, 10, 2, 2},
		{"asked since", 1005, 0, 5, 0, 0, 0},
	} {
		for range 10 {
			if step.deliver != 0 {
				_ = all.RecordValue(step.deliver)
			}
		}
		got := window.recent(all, start.Add(time.Duration(step.seconds*float64(time.Second))))
		near := func(got, want float64) bool { return got >= want*0.98 && got <= want*1.02 }
		if !near(got.Seconds, step.over) || got.Deliveries != step.deliveries || !near(got.P50Ms, step.p50) || !near(got.P99Ms, step.p99) {
			t.Errorf("%s: %+v, want %d in %v s at %v and %v ms", step.name, got, step.deliveries, step.over, step.p50, step.p99)
		}
	}
}
