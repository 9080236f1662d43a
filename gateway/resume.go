package gateway

import (
	"log/slog"
	"runtime/debug"

	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/netio"
)

// goOn goes on with the streams that another process had on the loop of this number. It runs on the
// loop.
func (s *sessions) goOn(loop int, from *heritage) {
	streams := from.streams[loop]
	for _, one := range streams {
		s.bringUpToDate(one.carriedStream)
	}
	if err := s.loop.Revive(revivalsOf(streams), from.rest.generations[loop]); err != nil {
		panic(err) // all that it refuses was looked at before
	}
	s.highest = s.loop.Highest()
	s.slab.Grow(uint32(s.highest))
	r := resuming{
		sessions: s, bytes: from.frames[loop], frames: make(map[uint64]netio.Frame),
		hub: s.shard.Resume(&from.rest.hub),
	}
	for id, one := range streams {
		if slot, open := s.loop.Find(id); open {
			r.resume(slot, one.carriedStream)
		}
	}
	for _, f := range r.frames {
		s.loop.Release(f)
	}
}

// bringUpToDate mends what moves by itself. It was told when the stream was copied, and may be as old as all
// that came after: taken as it is, streams would be closed as silent whose clients have answered each ping, and
// all of them would be written to at once.
func (s *sessions) bringUpToDate(stream *carriedStream) {
	now := s.loop.Tick()
	stream.pinged = lastOf(stream.pinged, now, ticks(s.gateway.timings.heartbeat))
	stream.heard = max(min(stream.heard, now), stream.pinged)
	stream.lastWrite = lastOf(stream.lastWrite, now, ticks(s.gateway.timings.keepAlive))
}

// lastOf is when something that comes back each period, and came once, did so last.
func lastOf(once, now, period netio.Tick) netio.Tick {
	if once >= now {
		return now
	}
	return now - (now-once)%period
}

// resuming is a loop that goes on with the streams of another process.
type resuming struct {
	*sessions
	hub    *hub.Resumption
	bytes  map[uint64][]byte      // what waits for streams, by the other's numbers
	frames map[uint64]netio.Frame // and as frames of this loop, those that somebody needed
}

// resume makes a session of a stream whose socket is the loop's already.
func (r *resuming) resume(slot netio.Slot, from *carriedStream) {
	defer func() {
		if value := recover(); value != nil {
			r.gateway.loopLog.write(slog.LevelError, "a stream could not be gone on with; it was closed", "panic", value, "stack", string(debug.Stack()))
			r.loop.Close(slot, netio.ReasonBug)
		}
	}()
	one := r.at(slot)
	*one = session{
		flags: sessionHere | sessionCounted | sessionGreeted, waiting: from.minute,
		heard: from.heard, pinged: from.pinged, expires: from.expires,
		pace: r.microseconds() + from.pace,
	}
	if !from.hub.Form.IsSSE() {
		one.flags |= sessionWebSocket
		r.counters.websocket++
	} else {
		r.counters.sse++
	}
	if from.aged {
		one.flags |= sessionAged
	}
	place := r.gateway.admission.resume(from.user, from.address)
	if from.grants != "" || place != (ticket{}) {
		one.person = r.people.add(place, from.grants)
	}
	r.hub.Join(slot, &from.hub)
	for _, frame := range from.unsent {
		r.requeue(slot, frame)
	}
	r.loop.SetQueueAge(slot, from.queueAge, from.queueSilent)
	if len(from.unread) > 0 {
		r.received(slot, from.unread)
	}
	r.hub.Continue(slot)
	if r.loop.Open(slot) {
		r.arm(slot, one)
	}
}

// requeue queues what waited for a stream: a frame that others have too once for all of them, but for
// one of which the kernel has taken a part.
func (r *resuming) requeue(slot netio.Slot, frame carriedFrame) {
	bytes := r.bytes[frame.number]
	if frame.taken > 0 {
		r.loop.SendBytes(slot, bytes[frame.taken:])
		return
	}
	f, known := r.frames[frame.number]
	if !known {
		f = r.loop.NewFrame(bytes, 0)
		r.frames[frame.number] = f
	}
	r.loop.Send(slot, f, netio.Bulk)
}
