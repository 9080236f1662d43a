package titancore

import (
	"context"
	"fmt"
	"time"
)

const (
	// showreelFirst is the number of the first job of a showreel, the seed's job_123; after
	// indexMax jobs the numbers begin again, so that no number of logs grows for ever.
	showreelFirst = 123
	// showreelClips is how many clips are submitted at a time: while one is rendered, one waits.
	showreelClips = 2
	// ShowreelPeriod is a good time between two rounds of a showreel: two clips of 6 s, and a rest.
	ShowreelPeriod = 20 * time.Second
)

// Clip is a video of 6 s, small enough to cost little of a core.
var Clip = Job{Width: 320, Height: 180, FramesPerSecond: 25, Frames: 150}

// Showreel submits a clip, twice at once and then every period, until ctx is done; a round is
// left out while jobs wait. Each has an id of its own among job_123 to job_134. It needs Run to
// run beside it.
func (w *Worker) Showreel(ctx context.Context, clip Job, period time.Duration) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for number := 0; ; {
		if len(w.queue) == 0 {
			for range showreelClips {
				clip.ID = fmt.Sprintf("job_%d", showreelFirst+number%indexMax)
				number++
				w.complaints.Add(ctx, "a clip could not be submitted", w.Submit(ctx, clip))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
