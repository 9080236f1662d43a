package hub

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

const (
	echoLife = 5 * time.Second
	echoMax  = 1 << 16 // outstanding echoes; beyond it the event may come twice
)

// echoes remembers what was delivered here before it went to the broker, so that the copy that
// comes back is dropped, once each.
type echoes struct {
	count  atomic.Int64 // spares the lock while there are none
	seed   maphash.Seed
	mutex  sync.Mutex
	until  map[uint64][]time.Time // by hash of channel and payload
	oldest time.Time
}

func (e *echoes) hash(channel string, payload []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(e.seed)
	h.WriteString(channel)
	h.WriteByte(0)
	h.Write(payload)
	return h.Sum64()
}

func (e *echoes) expect(channel string, payload []byte) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	now := time.Now()
	if e.until == nil {
		e.seed = maphash.MakeSeed()
		e.until = make(map[uint64][]time.Time)
	}
	e.expire(now)
	if e.count.Load() >= echoMax {
		return
	}
	key := e.hash(channel, payload)
	e.until[key] = append(e.until[key], now.Add(echoLife))
	if e.count.Add(1) == 1 {
		e.oldest = now
	}
}

// drop reports whether the event is an echo, and forgets it.
func (e *echoes) drop(channel string, payload []byte) bool {
	if e.count.Load() == 0 {
		return false
	}
	e.mutex.Lock()
	defer e.mutex.Unlock()
	now := time.Now()
	e.expire(now)
	if e.count.Load() == 0 {
		return false
	}
	key := e.hash(channel, payload)
	waiting := e.until[key]
	old := tooOld(waiting, now)
	if old == len(waiting) {
		e.remove(key, waiting, old)
		return false
	}
	e.remove(key, waiting, old+1)
	return true
}

// awaited reports whether a copy may still come back.
func (e *echoes) awaited() bool {
	if e.count.Load() == 0 {
		return false
	}
	e.mutex.Lock()
	defer e.mutex.Unlock()
	e.expire(time.Now())
	return e.count.Load() > 0
}

// expire forgets what is too old; it looks through all at most once per echoLife.
func (e *echoes) expire(now time.Time) {
	if e.count.Load() == 0 || now.Sub(e.oldest) < echoLife {
		return
	}
	e.oldest = now
	for key, waiting := range e.until {
		e.remove(key, waiting, tooOld(waiting, now))
	}
}

func tooOld(waiting []time.Time, now time.Time) (n int) {
	for n < len(waiting) && waiting[n].Before(now) {
		n++
	}
	return n
}

func (e *echoes) remove(key uint64, waiting []time.Time, n int) {
	e.count.Add(int64(-n))
	if n == len(waiting) {
		delete(e.until, key)
		return
	}
	e.until[key] = waiting[n:]
}

// forget drops all expectations: what was published before a loss may never come back.
func (e *echoes) forget() {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	clear(e.until)
	e.count.Store(0)
}
