package broker_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/millrace/millrace/broker"
)

// modelLog is a stream as Redis keeps it.
type modelLog struct {
	exists             bool
	entries            []broker.Position
	last, deleted      broker.Position
	added, incarnation uint64
	clock              uint64 // of all incarnations
}

func (m *modelLog) change(random *rand.Rand) {
	switch kind := random.IntN(20); {
	case kind < 12:
		m.clock++
		m.exists = true
		m.last = broker.Position{Milliseconds: m.clock}
		m.entries = append(m.entries, m.last)
		m.added++
	case kind < 15 && len(m.entries) > 0: // XTRIM
		m.entries = slices.Clone(m.entries[random.IntN(min(len(m.entries), 4)+1):])
	case kind < 18 && len(m.entries) > 0: // XDEL
		at := random.IntN(len(m.entries))
		if m.deleted.Before(m.entries[at]) {
			m.deleted = m.entries[at]
		}
		m.entries = slices.Delete(slices.Clone(m.entries), at, at+1)
	case kind == 19 && random.IntN(10) == 0: // DEL
		*m = modelLog{clock: m.clock, incarnation: m.incarnation + 1}
	}
}

// modelReader follows a log as the tracker does: by plain reads while its cursor's entry is
// there, by checks otherwise, and by a check when a sweep comes by.
type modelReader struct {
	cursor  broker.Position
	added   uint64
	holes   int
	missing map[broker.Position]bool // what was added and neither came nor was told as a hole since
}

// read reports whether there is more.
func (r *modelReader) read(t *testing.T, log *modelLog, count int, check bool) (more bool) {
	from, held := slices.BinarySearchFunc(log.entries, r.cursor, func(a, b broker.Position) int {
		switch {
		case a.Before(b):
			return -1
		case a == b:
			return 0
		}
		return 1
	})
	if held {
		from++
	}
	var entries []broker.Entry
	for _, position := range log.entries[from:min(from+count, len(log.entries))] {
		entries = append(entries, broker.Entry{Position: position})
	}
	look := broker.LogLook{
		Cursor: r.cursor, Added: r.added, Exists: log.exists, Length: uint64(len(log.entries)), AddedEver: log.added,
		LastEver: log.last, LastGone: log.deleted, Entries: entries, CursorIsThere: held, MoreMayCome: len(entries) == count,
	}
	if len(log.entries) > 0 {
		look.First = log.entries[0]
	}
	if held && !check {
		if r.added != broker.AddedUnknown {
			r.added += uint64(len(entries))
		}
	} else {
		hole, from, added := look.Judge()
		if hole {
			r.holes++
			clear(r.missing)
		}
		if !hole && from != r.cursor {
			t.Fatalf("%+v: no hole, and yet it goes on at %v", look, from)
		}
		r.cursor, r.added = from, added
	}
	for _, entry := range entries {
		if !r.cursor.Before(entry.Position) {
			t.Fatalf("%+v: %v comes after %v", look, entry.Position, r.cursor)
		}
		r.cursor = entry.Position
		delete(r.missing, entry.Position)
	}
	return look.MoreMayCome
}

// TestNothingIsMissedSilently changes a log at random and reads it now and then. What went unseen
// must have been told as a hole by the next check that reads to the end.
func TestNothingIsMissedSilently(t *testing.T) {
	for seed := range uint64(2000) {
		random := rand.New(rand.NewPCG(seed, 1))
		log := &modelLog{clock: 10}
		reader := &modelReader{missing: make(map[broker.Position]bool)}
		anew := false
		for step := range 200 {
			incarnation, added := log.incarnation, log.added
			log.change(random)
			if log.added > added {
				reader.missing[log.last] = true
			}
			anew = anew || log.incarnation != incarnation
			if random.IntN(5) > 0 {
				continue
			}
			if anew && log.added-uint64(len(log.entries)) == reader.added {
				// A log that was begun anew and lost as many as the old one had leaves no trace.
				clear(reader.missing)
			}
			anew = false
			count, check := 1+random.IntN(5), random.IntN(3) == 0
			for reader.read(t, log, count, check) {
			}
			if check && len(reader.missing) > 0 {
				t.Fatalf("seed %d, step %d: %v went unseen, and nobody said so", seed, step, reader.missing)
			}
		}
	}
}

// TestNoHoleWithoutLoss: whatever goes after it was read is no loss.
func TestNoHoleWithoutLoss(t *testing.T) {
	for seed := range uint64(500) {
		random := rand.New(rand.NewPCG(seed, 2))
		log := &modelLog{clock: 10}
		reader := &modelReader{missing: make(map[broker.Position]bool)}
		for step := range 100 {
			log.change(random)
			if log.incarnation > 0 {
				break
			}
			for reader.read(t, log, 100, random.IntN(2) == 0) {
			}
			if reader.holes > 0 {
				t.Fatalf("seed %d, step %d: a hole, though all was read", seed, step)
			}
		}
	}
}
