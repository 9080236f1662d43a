package gateway

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// windowStep is how old a look at the deliveries must be for another one to be remembered. Two are,
// so what is recent is between one and two steps long while somebody asks.
const windowStep = 5 * time.Second

// deliveryWindow tells recent deliveries from all there were. It remembers what was counted at two
// moments at which somebody asked, so it costs nothing while nobody does. Safe for many goroutines.
type deliveryWindow struct {
	mutex        sync.Mutex
	older, newer deliveryMark
}

// deliveryMark is what a histogram held at a moment.
type deliveryMark struct {
	at     time.Time
	counts []int64 // nil: nothing
}

func newDeliveryWindow(start time.Time) *deliveryWindow {
	mark := deliveryMark{at: start}
	return &deliveryWindow{older: mark, newer: mark}
}

// recent takes the histogram of all deliveries, as it is now, and says how the recent ones went.
func (w *deliveryWindow) recent(all *hdrhistogram.Histogram, now time.Time) RecentDelivery {
	snapshot := all.Export()
	w.mutex.Lock()
	if now.Sub(w.newer.at) >= windowStep {
		w.older, w.newer = w.newer, deliveryMark{at: now, counts: snapshot.Counts}
	}
	since := w.older
	w.mutex.Unlock()
	left := *snapshot
	left.Counts = make([]int64, len(snapshot.Counts))
	for i, count := range snapshot.Counts {
		if i < len(since.counts) {
			count = max(count-since.counts[i], 0) // a question that waited long for its answer
		}
		left.Counts[i] = count
	}
	lately := hdrhistogram.Import(&left)
	return RecentDelivery{
		Seconds:    now.Sub(since.at).Seconds(),
		Deliveries: uint64(lately.TotalCount()),
		P50Ms:      float64(lately.ValueAtQuantile(50)) / 1000,
		P99Ms:      float64(lately.ValueAtQuantile(99)) / 1000,
	}
}
