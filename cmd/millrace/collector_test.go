package main

import "testing"

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
