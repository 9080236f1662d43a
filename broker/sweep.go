package broker

import "time"

const (
	// sweepIntervalDefault is how often each key is read without a reason.
	sweepIntervalDefault = time.Minute
	// sweepTick is how often the sweep goes on.
	sweepTick = 250 * time.Millisecond
	// sweepStepMax is how many entries it looks at at once: with more than two million of them
	// it takes longer than its interval.
	sweepStepMax = 8 * registryChunk
)

// sweep has some keys read that nothing was heard of. What it finds is counted: it should be
// nothing, and is the only trace of a change that Redis did not tell, or that was not heard.
func (t *tracker) sweep() {
	r := t.broker
	r.mutex.Lock()
	defer r.mutex.Unlock()
	since := time.Since(t.sweptTo)
	steps := min(int(float64(r.table.used)*since.Seconds()/r.sweepInterval.Seconds()), int(min(r.table.used, sweepStepMax)))
	if steps == 0 {
		return // few keys: the time adds up until it is the turn of one
	}
	t.sweptTo = time.Now()
	for range steps {
		t.sweepAt++
		if t.sweepAt >= r.table.used {
			t.sweepAt = 0
		}
		e := r.table.at(t.sweepAt)
		if !e.kind().keyed() || r.table.confirmedIn(e) != t.session.number || !e.has(flagWanted) {
			continue
		}
		if key := r.table.key(e); key.askedIn == 0 && !key.has(keyDirty|keyFresh|keyWaits) {
			key.flags |= keySwept
			r.enqueue(t.sweepAt, e)
		}
	}
}
