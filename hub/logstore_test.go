package hub

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/proto"
)

// logStore holds logs as Redis would, for tests that play the broker.
type logStore struct {
	mutex   sync.Mutex
	logs    map[string]*storedLog
	reads   int
	atOnce  int           // reads under way
	most    int           // the largest atOnce
	gate    chan struct{} // not nil: reads wait for it
	failing error         // not nil: what reads return
}

type storedLog struct {
	entries []broker.Entry
	last    broker.Position // last generated
	deleted broker.Position // the highest that was removed
	told    broker.Position // up to where the hub was told
}

func newLogStore() *logStore { return &logStore{logs: make(map[string]*storedLog)} }

func (l *logStore) log(channel string) *storedLog {
	one := l.logs[channel]
	if one == nil {
		one = &storedLog{}
		l.logs[channel] = one
	}
	return one
}

// read is Source.ReadLog.
func (l *logStore) read(ctx context.Context, channel string, after broker.Position, count int) (broker.LogChunk, error) {
	l.mutex.Lock()
	l.reads++
	l.atOnce++
	l.most = max(l.most, l.atOnce)
	gate := l.gate
	l.mutex.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
		}
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.atOnce--
	if l.failing != nil {
		return broker.LogChunk{}, l.failing
	}
	one := l.log(channel)
	var chunk broker.LogChunk
	switch {
	case after == broker.Position{}:
	case one.last.Before(after) && after.Sequence != math.MaxUint64:
		chunk.Hole, chunk.Reason = true, proto.GapRewound
	case after.Before(one.deleted):
		chunk.Hole, chunk.Reason = true, proto.GapTrimmed
	}
	chunk.Entries, chunk.End = one.behind(after, count)
	return chunk, nil
}

// behind gives at most count entries behind after, and whether those are all.
func (o *storedLog) behind(after broker.Position, count int) (entries []broker.Entry, all bool) {
	first := slices.IndexFunc(o.entries, func(e broker.Entry) bool { return after.Before(e.Position) })
	if first < 0 {
		return nil, true
	}
	entries = o.entries[first:]
	if len(entries) > count {
		return slices.Clone(entries[:count]), false
	}
	return slices.Clone(entries), true
}

// add appends an entry without telling the hub.
func (l *logStore) add(channel, payload string) broker.Position {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	one := l.log(channel)
	one.last.Milliseconds++
	one.entries = append(one.entries, broker.Entry{Position: one.last, Payload: []byte(payload)})
	return one.last
}

// trim removes the oldest entries but for keep.
func (l *logStore) trim(channel string, keep int) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	one := l.log(channel)
	if n := len(one.entries) - keep; n > 0 {
		one.deleted = one.entries[n-1].Position
		one.entries = one.entries[n:]
	}
}

// rewind replaces a log by an empty one that stands at a lower position.
func (l *logStore) rewind(channel string, to broker.Position) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	one := l.log(channel)
	one.entries, one.last, one.deleted = nil, to, broker.Position{}
}

// tellLog tells the hub what is new in a log, as a broker would: first where it stands.
func (h *harness) tellLog(channel string, horizon uint64) {
	h.t.Helper()
	h.logs.mutex.Lock()
	one := h.logs.log(channel)
	update := broker.LogUpdate{Channel: channel, From: one.told, Horizon: horizon}
	switch {
	case one.last.Before(one.told):
		update.Hole, update.Reason, update.From = true, proto.GapRewound, one.last
	case one.told.Before(one.deleted):
		update.Hole, update.Reason, update.From = true, proto.GapTrimmed, one.deleted
	}
	update.Entries, _ = one.behind(update.From, math.MaxInt)
	one.told = one.last
	h.logs.mutex.Unlock()
	if err := h.hub.Log(update, time.Now()); err != nil {
		h.t.Fatal(err)
	}
}

// openLog makes a log that somebody wants stand at its end, and confirms it.
func (h *harness) openLog(channel string) {
	h.t.Helper()
	h.logs.mutex.Lock()
	one := h.logs.log(channel)
	one.told = one.last
	h.logs.mutex.Unlock()
	h.tellLog(channel, 0)
	h.hub.Confirmed([]broker.Subscription{{Channel: channel, Kind: broker.Log}}, false)
}

// append adds entries to a log and tells the hub.
func (h *harness) append(channel string, payloads ...string) (last broker.Position) {
	h.t.Helper()
	for _, payload := range payloads {
		last = h.logs.add(channel, payload)
	}
	h.tellLog(channel, 0)
	return last
}
