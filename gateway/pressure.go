package gateway

import (
	"context"
	"runtime/debug"
	"slices"
	"time"

	"github.com/millrace/millrace/netio"
)

// What bounds the memory of this process ends it, and all its streams with it, when the bound is
// passed. Before that the gateway gives away no more than it has, in this order:
//
//	from pressureFull on   no new stream is taken, as beyond max-connections
//	from pressureShed on   streams whose client does not read, or does not finish what it says, are
//	                       closed, those first of which most is kept
//
// Each is done only if what was garbage has been given back and it is as much all the same; but from
// pressureLast on there is no time for that.
const (
	pressureFull   = 80 // per cent of the bound
	pressureRelief = 75 // below which new streams are taken again
	pressureShed   = 85
	pressureLast   = 92

	// Looks are so close that not even fillRate, in bytes a second, passes the bound between two.
	fillRate = 1 << 30
	lookMin  = 10 * time.Millisecond
	lookMax  = time.Second
	// Garbage is given back at most so often: from cleanMin on, twice as seldom each time that it
	// was not enough, down to cleanMax.
	cleanMin = 500 * time.Millisecond
	cleanMax = 30 * time.Second

	// shedMax is how many streams of a loop are closed at once, at most, and shedShare of how many
	// of the bytes that it keeps for such streams it is enough to be rid of at once: a quarter.
	shedMax   = 256
	shedShare = 4
	// shedPatience bounds the wait for a loop that is to close streams.
	shedPatience = time.Second
)

// MemoryBound is what bounds the memory of a process, such as a control group. Its methods are called
// from one goroutine and must not block.
type MemoryBound interface {
	// Limit is the bound, in bytes, and does not change.
	Limit() int64
	// Used is how much of it is taken, in bytes.
	Used() (int64, error)
}

// pressure watches one bound. It belongs to the goroutine of [Gateway.watchMemory].
type pressure struct {
	gateway   *Gateway
	bound     MemoryBound
	cleaned   time.Time     // when garbage was given back
	cleanWait time.Duration // before that is done again
	failed    bool          // the bound could not be asked, which was said
}

// watchMemory looks at the bound until ctx is done.
func (g *Gateway) watchMemory(ctx context.Context) {
	p := &pressure{gateway: g, bound: g.options.Memory, cleanWait: cleanMin}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(p.look(ctx))
	}
}

// percent is how much of the bound is taken, and left how many bytes are not.
func (p *pressure) percent() (taken int, left int64) {
	limit := p.bound.Limit()
	used, err := p.bound.Used()
	if err != nil {
		if !p.failed {
			p.gateway.logger.Warn("how much memory is taken cannot be told: its bound is not watched", "error", err)
			p.failed = true
		}
		return 0, limit
	}
	return int(used * 100 / max(limit, 1)), limit - used
}

// look does what is to be done, and says when to look again.
func (p *pressure) look(ctx context.Context) (again time.Duration) {
	g := p.gateway
	taken, left := p.percent()
	if taken >= pressureFull && taken < pressureLast && time.Since(p.cleaned) >= p.cleanWait {
		taken, left = p.clean()
		if p.cleanWait = min(2*p.cleanWait, cleanMax); taken < pressureFull {
			p.cleanWait = cleanMin
		}
	}
	switch full := g.admission.full.Load(); {
	case taken >= pressureFull && !full:
		g.admission.full.Store(true)
		g.logger.Warn("memory is nearly at its bound: no new stream is taken; raise the bound (MemoryMax, the container's limit), or lower max-queue-bytes, max-replay-bytes or max-connections",
			"percent", taken, "bound", p.bound.Limit(), "streams", g.admission.total.Load())
	case taken < pressureRelief && full:
		g.admission.full.Store(false)
		g.logger.Info("memory is well below its bound again: new streams are taken", "percent", taken)
	}
	if taken >= pressureShed {
		if closed := g.shed(ctx); closed > 0 {
			g.reports.warn(g.logger, "memory is nearly at its bound: streams whose clients do not read, or do not finish what they say, are closed", "percent", taken, "closed", closed)
			p.clean() // or the next look would see what they held, and close more
			p.cleanWait = cleanMin
		}
	}
	return min(max(time.Duration(left)*time.Second/fillRate, lookMin), lookMax)
}

// clean gives garbage back, and says as percent does how much of the bound is taken then.
func (p *pressure) clean() (taken int, left int64) {
	debug.FreeOSMemory()
	p.cleaned = time.Now()
	return p.percent()
}

// waiting is a stream for whose client something is kept.
type waiting struct {
	id    netio.ID
	bytes int
}

// held is how many bytes are kept for a client: of what it does not read, and of what it has begun to say.
func (s *sessions) held(slot netio.Slot) (bytes int) {
	if queue := s.loop.Queue(slot); queue.Age > 0 {
		bytes = queue.Bytes
	}
	if s.at(slot).flags&sessionHalfRead != 0 {
		if half := s.halfRead[slot]; half.begun < s.loop.Tick() {
			bytes += half.message.Held()
		}
	}
	return bytes
}

// shed closes streams whose clients do not read, or do not finish what they say, those of which most is
// kept, and says how many.
func (g *Gateway) shed(ctx context.Context) (closed int) {
	ctx, cancel := context.WithTimeout(ctx, shedPatience)
	defer cancel()
	for _, s := range g.sessions {
		var longest []waiting
		total := 0
		err := s.inPieces(ctx, func(slot netio.Slot) int {
			if held := s.held(slot); held > 0 {
				total += held
				longest = keepLongest(longest, waiting{s.loop.ID(slot), held})
			}
			return 1
		}, func() {})
		if err != nil {
			continue // it does not answer, or has ended: what it did so far is its own
		}
		here, enough := 0, max(total/shedShare, 1)
		err = s.loop.Do(ctx, func() {
			for _, one := range longest {
				if slot, open := s.loop.Find(one.id); open && enough > 0 {
					s.loop.Close(slot, endMemory)
					enough -= one.bytes
					here++
				}
			}
		})
		if err == nil {
			closed += here
			_ = s.loop.Do(ctx, func() {}) // answered in the next turn, when they are gone
		}
	}
	return closed
}

// keepLongest adds to a list of at most shedMax, the longest first.
func keepLongest(list []waiting, one waiting) []waiting {
	if len(list) == shedMax {
		if list[shedMax-1].bytes >= one.bytes {
			return list
		}
		list = list[:shedMax-1]
	}
	at, _ := slices.BinarySearchFunc(list, one, func(a, b waiting) int { return b.bytes - a.bytes })
	return slices.Insert(list, at, one)
}
