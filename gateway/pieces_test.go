package gateway

import (
	"context"
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
