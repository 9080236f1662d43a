package main

import "testing"

// TestNumber judges what a stream hears by the number before.
func TestNumber(t *testing.T) {
	const aGap = -1
	cases := []struct {
		name                 string
		skips                bool
		heard                []int32
		disordered, declared int
	}{
		{"one after the other", false, []int32{1, 2, 3}, 0, 0},
		{"one is missing", false, []int32{1, 3, 4}, 1, 0},
		{"the first is missing", false, []int32{2}, 1, 0},
		{"one comes twice", false, []int32{1, 1, 2}, 1, 0},
		{"one comes late", false, []int32{1, 3, 2, 3}, 2, 0},
		{"a gap", false, []int32{1, aGap, 4, 5}, 0, 2},
		{"a gap in which nothing is missing", false, []int32{1, aGap, 2}, 0, 0},
		{"a gap covers no repetition", false, []int32{1, 2, aGap, 2}, 1, 0},
		{"a gap covers what is missing once", false, []int32{1, aGap, 3, 5}, 1, 1},
		{"a state is left out", true, []int32{1, 5}, 0, 0},
		{"a state goes back", true, []int32{5, 4}, 1, 0},
		{"a state comes twice", true, []int32{5, 5}, 1, 0},
	}
	for _, one := range cases {
		t.Run(one.name, func(t *testing.T) {
			c := &crowd{skips: one.skips, streams: []stream{{phase: live}}}
			for _, number := range one.heard {
				w := word{kind: event, number: number}
				if number == aGap {
					w = word{kind: gap}
				}
				c.hear(0, w)
			}
			if c.counts.Disordered != one.disordered || c.counts.Declared != one.declared {
				t.Errorf("%d out of order and %d declared, want %d and %d",
					c.counts.Disordered, c.counts.Declared, one.disordered, one.declared)
			}
		})
	}
}
