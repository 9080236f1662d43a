package names

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestIndexAgainstAMap plays random additions and removals on an index and on a map.
func TestIndexAgainstAMap(t *testing.T) {
	names := make([]string, 1, 2001)
	x := New(func(entry uint32) string { return names[entry] })
	for n := range 2000 {
		names = append(names, fmt.Sprintf("job:%d", n))
	}
	random := rand.New(rand.NewPCG(1, 2))
	there := map[uint32]bool{}
	for step := range 40_000 {
		// Grow for a while, then shrink.
		entry := uint32(1 + random.IntN(2000))
		growing := step%20_000 < 10_000
		switch {
		case there[entry] && (!growing || random.IntN(4) == 0):
			x.Remove(names[entry])
			delete(there, entry)
		case !there[entry] && (growing || random.IntN(4) == 0):
			x.Add(entry)
			there[entry] = true
		}
		probe := uint32(1 + random.IntN(2000))
		want := uint32(0)
		if there[probe] {
			want = probe
		}
		if got := x.Find(names[probe]); got != want {
			t.Fatalf("step %d: found %d for %s, want %d", step, got, names[probe], want)
		}
	}
	if x.count != len(there) {
		t.Errorf("the index counts %d, the map %d", x.count, len(there))
	}
	for entry := range there {
		x.Remove(names[entry])
	}
	if x.count != 0 || len(x.places) != placesMin {
		t.Errorf("empty, it counts %d in %d places", x.count, len(x.places))
	}
}
