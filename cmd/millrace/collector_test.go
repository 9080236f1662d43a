package main

import (
	"runtime/debug"
	"testing"
)

func TestCollectorPercent(t *testing.T) {
	for _, c := range []struct {
		name string
		live uint64
		want int
	}{
		{"nothing alive yet", 0, 400},
		{"a few megabytes", 8 << 20, 200},
		{"as much as the room", 16 << 20, 100},
		{"much more", 1 << 30, 100},
	} {
		if got := collectorPercent(c.live); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// TestBoundCollector: the collector is told its share of a bound, unless the user has said another.
func TestBoundCollector(t *testing.T) {
	before := debug.SetMemoryLimit(-1) // says what it is
	defer debug.SetMemoryLimit(before)
	t.Setenv("GOMEMLIMIT", "2GiB")
	boundCollector(1 << 30)
	if got := debug.SetMemoryLimit(-1); got != before {
		t.Errorf("the user's limit was replaced by %d", got)
	}
	t.Setenv("GOMEMLIMIT", "")
	boundCollector(1 << 30)
	if got := debug.SetMemoryLimit(-1); got < 700<<20 || got > 750<<20 {
		t.Errorf("the limit of a bound of 1 GiB is %d", got)
	}
}
