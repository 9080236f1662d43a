package hub

import (
	"container/heap"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/netio"
)

const (
	// holdsMax is how many channels may be kept subscribed for clients that may come back; beyond
	// it a channel that nobody hears is let go of at once.
	holdsMax = 1 << 18
	// keptOverhead is what Go needs for a kept event besides its payload and one form of it, in
	// bytes.
	keptOverhead = 512
	// keptCompressed is what comes on top for an event that may be compressed, besides the two
	// pieces of it, which are never larger than its payload and this.
	keptCompressed = 512
	// sweepPause is the shortest time between two looks for what is too old.
	sweepPause = 100 * time.Millisecond
)

// rings remember the last events of channels whose rules say so, for clients that come back, and
// keep a channel subscribed for a while after its last listener left. What is kept is in the order
// of hand-over, and bounded by channel (events and age) and in all (bytes).
type rings struct {
	hub *Hub

	mutex    sync.Mutex
	byName   map[string]*ring
	holds    map[string]int64 // channels nobody hears: until when each is held, by netio.Clock
	ringEnds ends             // of each ring that has something: not after its oldest has to go
	holdEnds ends             // one of each name in holds
	emptied  []*ring          // have let go of all they had
	bytes    int
	events   int
	sweeping bool
}

// ring is what is kept of one channel.
type ring struct {
	name    string
	kept    []keptEvent // from first on, the oldest first
	first   int
	dropped uint64 // the number of the newest event that is no longer here
}

type keptEvent struct {
	post  *publication
	until int64
}

func (k keptEvent) bytes() int {
	payload := len(k.post.event.Payload())
	if k.post.event.Compressible() {
		return keptOverhead + keptCompressed + 4*payload
	}
	return keptOverhead + 2*payload
}

func (r *ring) empty() bool { return r.first == len(r.kept) }

func newRings(h *Hub) *rings {
	return &rings{hub: h, byName: make(map[string]*ring), holds: make(map[string]int64)}
}

// keep remembers an event. The hub calls it in the order of hand-over.
func (r *rings) keep(replay Replay, post *publication) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	name := post.event.Channel().Name()
	one := r.byName[name]
	if one == nil {
		one = &ring{name: name}
		r.byName[name] = one
	}
	fresh := one.empty()
	if len(one.kept)-one.first >= replay.Size {
		r.dropOldest(one)
	}
	if one.first >= replay.Size {
		n := copy(one.kept, one.kept[one.first:])
		clear(one.kept[n:])
		one.kept, one.first = one.kept[:n], 0
	}
	k := keptEvent{post: post, until: post.born + int64(replay.TTL)}
	if fresh {
		r.expect(&r.ringEnds, end{at: k.until, ring: one})
	}
	one.kept = append(one.kept, k)
	r.bytes += k.bytes()
	r.events++
	for limit := r.hub.options.MaxReplayBytes; limit > 0 && r.bytes > limit; {
		r.dropFirstEnd()
	}
}

// dropOldest forgets the oldest event of one ring.
func (r *rings) dropOldest(one *ring) {
	oldest := one.kept[one.first]
	one.dropped = oldest.post.order
	one.kept[one.first] = keptEvent{}
	one.first++
	r.bytes -= oldest.bytes()
	r.events--
}

// dropFirstEnd forgets the event whose time would come first, or finds that the ring that stands
// in front has none so old.
func (r *rings) dropFirstEnd() {
	front := &r.ringEnds[0]
	one := front.ring
	if !one.empty() && one.kept[one.first].until <= front.at {
		r.dropOldest(one)
	}
	if one.empty() {
		one.kept, one.first = nil, 0
		heap.Pop(&r.ringEnds)
		r.emptied = append(r.emptied, one)
		return
	}
	front.at = one.kept[one.first].until
	heap.Fix(&r.ringEnds, 0)
}

// hold keeps channel subscribed for a while, and reports whether it could. channel is not kept.
func (r *rings) hold(channel string, replay Replay) bool {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	_, held := r.holds[channel]
	if !held && len(r.holds) >= holdsMax {
		return false
	}
	channel = strings.Clone(channel)
	until := netio.Clock() + int64(replay.TTL)
	r.holds[channel] = until
	if !held { // else it is looked at when its first time has come
		r.expect(&r.holdEnds, end{at: until, name: channel})
	}
	return true
}

// expect has something looked at when its time has come.
func (r *rings) expect(in *ends, e end) {
	heap.Push(in, e)
	r.sweepLater()
}

func (r *rings) sweepLater() {
	if r.sweeping {
		return
	}
	at := int64(1<<63 - 1)
	for _, all := range [...]ends{r.ringEnds, r.holdEnds} {
		if len(all) > 0 {
			at = min(at, all[0].at)
		}
	}
	if len(r.emptied) > 0 {
		at = 0
	}
	if at == 1<<63-1 {
		return
	}
	r.sweeping = true
	r.hub.schedule.after(max(time.Duration(at-netio.Clock()), sweepPause), r.sweep)
}

// sweep forgets what is too old, and lets go of channels that were held long enough.
func (r *rings) sweep() {
	now := netio.Clock()
	var released []string
	r.mutex.Lock()
	for len(r.ringEnds) > 0 && r.ringEnds[0].at <= now {
		r.dropFirstEnd()
	}
	for len(r.holdEnds) > 0 && r.holdEnds[0].at <= now {
		front := &r.holdEnds[0]
		if until := r.holds[front.name]; until > now { // it was held again
			front.at = until
			heap.Fix(&r.holdEnds, 0)
			continue
		}
		name := heap.Pop(&r.holdEnds).(end).name
		delete(r.holds, name)
		released = append(released, name)
	}
	emptied := r.emptied
	r.emptied = nil
	r.mutex.Unlock()
	for _, name := range released {
		r.hub.directory.release(name)
	}
	for _, one := range emptied {
		// First the directory learns from where on the channel is whole without a ring: whoever
		// finds no ring reads it after that.
		r.hub.directory.raise(one.name, r.droppedBy(one))
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for _, one := range emptied {
		if one.empty() && r.byName[one.name] == one {
			delete(r.byName, one.name)
		}
	}
	r.sweeping = false
	r.sweepLater()
}

func (r *rings) droppedBy(one *ring) uint64 {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return one.dropped
}

// replay gives what a client at from has missed of an events channel, in order, and the number of
// the newest event that it then has: whatever the loop is told of later has a higher one. whole is
// false if something may be missing; then there is nothing to replay.
func (r *rings) replay(channel string, from *From) (missed []*publication, newest uint64, whole bool) {
	missed, after, newest, whole := r.find(channel, from)
	if !whole {
		return nil, newest, false
	}
	// Read after the ring: see sweep.
	since := r.hub.directory.completeSince(channel)
	if since == 0 || from.Kind != FromBeginning && after < since {
		return nil, newest, false
	}
	return missed, newest, true
}

// find looks into the ring. after is the number of the event that from names.
func (r *rings) find(channel string, from *From) (missed []*publication, after, newest uint64, whole bool) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	after, whole = from.Order, from.Kind != FromValue
	newest = after
	one := r.byName[channel]
	if one == nil {
		return nil, after, newest, whole
	}
	kept, dropped := one.kept[one.first:], one.dropped
	now := netio.Clock()
	for len(kept) > 0 && kept[0].until <= now {
		kept, dropped = kept[1:], kept[0].post.order // too old: as good as gone
	}
	newest = max(newest, dropped)
	if from.Kind == FromValue {
		for _, k := range kept {
			if id := k.post.event.ID(); len(id) > len(channel) && id[len(channel)+1:] == "="+from.Value {
				after, whole = k.post.order, true
			}
		}
	}
	if whole = whole && (after >= dropped || from.Kind == FromBeginning); !whole {
		return nil, after, newest, false
	}
	for _, k := range kept {
		newest = max(newest, k.post.order)
		if k.post.order > after {
			missed = append(missed, k.post)
		}
	}
	return missed, after, newest, true
}

// size gives how many events are kept, and their bytes.
func (r *rings) size() (events, bytes int) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.events, r.bytes
}

// end is when a ring, or a channel that is held, has to be looked at.
type end struct {
	at   int64
	ring *ring
	name string
}

// ends is a heap, the earliest first.
type ends []end

func (e ends) Len() int           { return len(e) }
func (e ends) Less(i, j int) bool { return e[i].at < e[j].at }
func (e ends) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *ends) Push(one any)      { *e = append(*e, one.(end)) }

func (e *ends) Pop() any {
	last := len(*e) - 1
	one := (*e)[last]
	(*e)[last] = end{}
	*e = (*e)[:last]
	return one
}
