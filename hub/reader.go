package hub

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

const (
	// readersMax is how many reads of logs go on at once, and readsPerUserMax how many of them for
	// one user.
	readersMax      = 8
	readsPerUserMax = 4
	// recentMax reads are kept for those who ask for the same soon after, if they are not larger
	// than recentBytesMax and not older than recentAgeMax.
	recentMax      = 8
	recentBytesMax = 1 << 20
	recentAgeMax   = time.Second
	// readTimeout bounds one read.
	readTimeout = 10 * time.Second
)

// reader reads the past of logs for streams that catch up, off the loops. Streams that ask for the
// same share one read and its bytes; users take turns.
type reader struct {
	hub     *Hub
	context context.Context
	end     context.CancelFunc
	work    sync.WaitGroup

	reads, failures atomic.Uint64

	mutex   sync.Mutex
	closed  bool
	flights map[readKey]*flight // asked for, and not answered yet
	users   map[string]*readUser
	ready   []*readUser // that have a flight waiting and may begin one; they take turns
	running int
	recent  [recentMax]*past
	oldest  int // index in recent of what is replaced next
}

// readKey is what is to be read: count entries behind after. Its events' ids name horizon.
type readKey struct {
	channel proto.Channel
	after   broker.Position
	count   int
	horizon uint64
}

// waiter is a stream that waits for a read. Its shard knows the ticket.
type waiter struct {
	slot   netio.Slot
	ticket uint64
}

// flight is one read, waiting or under way.
type flight struct {
	key     readKey
	stood   broker.Position // where the log stood at least, before it was read
	user    *readUser
	waiters [][]waiter // by shard
	stale   bool       // the log has been found to have a hole since
}

// readUser is a user for whom something is read. The reads of nobody in particular stand under "".
type readUser struct {
	name    string
	running int
	waiting []*flight
	ready   bool // stands in reader.ready
}

func (u *readUser) may() bool {
	return len(u.waiting) > 0 && (u.running < readsPerUserMax || u.name == "")
}

// past is what a read gave. It is shared, and never changes.
type past struct {
	key     readKey
	entries []logEntry      // those that are valid
	first   broker.Position // of the first entry, valid or not; zero if there is none
	last    broker.Position // of the last entry, valid or not; the position asked for if there is none
	stood   broker.Position // flight.stood
	bytes   int
	end     bool
	hole    bool
	reason  proto.GapReason
	err     error
	at      time.Time
}

// pastMail brings a read to the streams of one shard that wait for it.
type pastMail struct {
	past    *past
	waiters []waiter
}

func newReader(h *Hub) *reader {
	r := &reader{hub: h, flights: make(map[readKey]*flight), users: make(map[string]*readUser)}
	r.context, r.end = context.WithCancel(context.Background())
	return r
}

// ask has key read for a stream of a shard, on behalf of user. The answer comes as mail. A stream
// asks for one thing at a time, which bounds what waits here. stood is a position that the log has
// reached.
func (r *reader) ask(key readKey, stood broker.Position, user string, shard *Shard, who waiter) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.closed {
		return
	}
	if found := r.findRecent(key); found != nil {
		_ = shard.loop.PostAlways(&pastMail{past: found, waiters: []waiter{who}})
		return
	}
	f := r.flights[key]
	if f == nil {
		f = &flight{key: key, stood: stood, user: r.users[user], waiters: make([][]waiter, len(r.hub.shards))}
		if f.user == nil {
			f.user = &readUser{name: user}
			r.users[user] = f.user
		}
		r.flights[key] = f
		f.user.waiting = append(f.user.waiting, f)
		r.getReady(f.user)
		r.begin()
	}
	f.waiters[shard.index] = append(f.waiters[shard.index], who)
}

func (r *reader) findRecent(key readKey) *past {
	for _, p := range r.recent {
		if p != nil && p.key == key && time.Since(p.at) < recentAgeMax {
			return p
		}
	}
	return nil
}

// forget keeps what was read of a log, or is being read, from those who ask from now on: it may be
// another log by now, in which the same positions name other entries.
func (r *reader) forget(channel proto.Channel) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for i, p := range r.recent {
		if p != nil && p.key.channel == channel {
			r.recent[i] = nil
		}
	}
	for key, f := range r.flights {
		if key.channel == channel {
			f.stale = true
			delete(r.flights, key)
		}
	}
}

func (r *reader) getReady(u *readUser) {
	if !u.ready && u.may() {
		u.ready = true
		r.ready = append(r.ready, u)
	}
}

// begin starts as many reads as may go on.
func (r *reader) begin() {
	for r.running < readersMax && len(r.ready) > 0 {
		u := r.ready[0]
		r.ready = r.ready[1:]
		u.ready = false
		f := u.waiting[0]
		u.waiting = u.waiting[1:]
		u.running++
		r.running++
		r.getReady(u)
		r.work.Add(1)
		go r.run(f)
	}
}

// run carries out one read and tells those who wait for it.
func (r *reader) run(f *flight) {
	defer r.work.Done()
	p := r.read(f.key, f.stood)
	r.mutex.Lock()
	if !f.stale {
		delete(r.flights, f.key)
	}
	r.running--
	f.user.running--
	r.getReady(f.user)
	if f.user.running == 0 && len(f.user.waiting) == 0 {
		delete(r.users, f.user.name)
	}
	// A read of the end may be out of date, but whoever gets on by it asks for the rest. One that
	// brings nobody further would be asked for again and again.
	if p.err == nil && !f.stale && !p.hole && p.last != f.key.after && p.bytes <= recentBytesMax {
		r.recent[r.oldest] = p
		r.oldest = (r.oldest + 1) % recentMax
	}
	if !r.closed {
		r.begin()
	}
	r.mutex.Unlock()
	for shard, waiters := range f.waiters {
		if len(waiters) > 0 {
			_ = r.hub.shards[shard].loop.PostAlways(&pastMail{past: p, waiters: waiters})
		}
	}
}

func (r *reader) read(key readKey, stood broker.Position) *past {
	ctx, cancel := context.WithTimeout(r.context, readTimeout)
	defer cancel()
	p := &past{key: key, stood: stood, last: key.after, at: time.Now()}
	r.reads.Add(1)
	chunk, err := r.hub.options.Source.ReadLog(ctx, key.channel.Name(), key.after, key.count)
	if err != nil {
		r.failures.Add(1)
		p.err = err
		return p
	}
	p.end, p.hole, p.reason = chunk.End, chunk.Hole, chunk.Reason
	// What is not valid was reported when it was new.
	p.entries, _ = r.hub.logEntries(key.channel, chunk.Entries, key.horizon)
	if len(chunk.Entries) > 0 {
		p.first = chunk.Entries[0].Position
	}
	for _, entry := range chunk.Entries {
		p.bytes += len(entry.Payload) + keptOverhead
		p.last = entry.Position
	}
	return p
}

// close gives up what waits, and waits for what is under way.
func (r *reader) close() {
	r.end()
	r.mutex.Lock()
	r.closed = true
	r.mutex.Unlock()
	r.work.Wait()
}
