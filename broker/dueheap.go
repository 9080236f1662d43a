package broker

import "time"

// due is an entry that waits until a time.
type due struct {
	at    tickFine
	index uint32
}

// dueHeap holds entries by when they are due, the first one on top.
type dueHeap struct {
	items []due
}

func (h *dueHeap) push(item due) {
	h.items = append(h.items, item)
	for at := len(h.items) - 1; at > 0; {
		parent := (at - 1) / 2
		if !h.items[at].at.before(h.items[parent].at) {
			return
		}
		h.items[at], h.items[parent] = h.items[parent], h.items[at]
		at = parent
	}
}

// popDue takes the first entry if it is due.
func (h *dueHeap) popDue(now tickFine) (uint32, bool) {
	if len(h.items) == 0 || now.before(h.items[0].at) {
		return 0, false
	}
	index := h.items[0].index
	last := len(h.items) - 1
	h.items[0] = h.items[last]
	h.items = h.items[:last]
	for at := 0; ; {
		child := 2*at + 1
		if child+1 < last && h.items[child+1].at.before(h.items[child].at) {
			child++
		}
		if child >= last || !h.items[child].at.before(h.items[at].at) {
			return index, true
		}
		h.items[at], h.items[child] = h.items[child], h.items[at]
		at = child
	}
}

// wait is how long it is until the first entry is due; an hour if there is none.
func (h *dueHeap) wait(now tickFine) time.Duration {
	if len(h.items) == 0 {
		return time.Hour
	}
	if !now.before(h.items[0].at) {
		return 0
	}
	return h.items[0].at.since(now)
}
