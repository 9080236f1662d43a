package gateway

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/millrace/millrace/netio"
)

// TestInPieces: an operator's walk over many slots lets the loop go on in between.
func TestInPieces(t *testing.T) {
	g, err := New(Options{Listen: "127.0.0.1:0", Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	s := g.sessions[0]
	const slots = 2*adminPiece + 1
	if err := s.loop.Do(context.Background(), func() {
		s.slab.Grow(slots)
		s.highest = slots
	}); err != nil {
		t.Fatal(err)
	}
	turns := func() uint64 {
		stats, err := s.loop.Stats(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return stats.Turns
	}
	before, pieces := turns(), 0
	err = s.inPieces(context.Background(), func(slot netio.Slot) int {
		t.Errorf("slot %d, which is free, is visited", slot)
		return 1
	}, func() { pieces++ })
	if err != nil || pieces != 3 {
		t.Errorf("%d slots are walked over in %d pieces (%v), want 3", slots, pieces, err)
	}
	if took := turns() - before; took < 3 {
		t.Errorf("the walk took %d turns of the loop", took)
	}
}

// TestTheWorstAreKept: of many streams a list holds the worst, in order.
func TestTheWorstAreKept(t *testing.T) {
	search := streamSearch{query: StreamQuery{Limit: 4}}
	for _, one := range []struct {
		state    streamState
		queued   int
		progress int64
	}{
		{streamQueued, 900, 1},
		{streamDropping, 10, 1},
		{streamLive, 0, 0},
		{streamDropping, 20, 1},
		{streamResuming, 999, 9},
		{streamQueued, 800, 2},
		{streamQueued, 800, 5},
		{streamConflating, 1, 1},
	} {
		search.keep(foundStream{state: one.state, StreamSummary: StreamSummary{QueuedBytes: one.queued, ProgressMs: one.progress}})
	}
	var got []string
	for _, one := range search.found {
		got = append(got, fmt.Sprintf("%s %d %d", one.state, one.QueuedBytes, one.ProgressMs))
	}
	if want := []string{"dropping 20 1", "dropping 10 1", "conflating 1 1", "queued 900 1"}; !slices.Equal(got, want) {
		t.Errorf("kept are %q, want %q", got, want)
	}
	search = streamSearch{query: StreamQuery{Limit: 2}}
	for _, progress := range []int64{2, 9, 5} {
		search.keep(foundStream{StreamSummary: StreamSummary{ProgressMs: progress}})
	}
	if search.found[0].ProgressMs != 9 || search.found[1].ProgressMs != 5 {
		t.Errorf("of three that differ in their progress alone are kept %+v", search.found)
	}
}
