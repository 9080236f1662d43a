package main

// recentIDsMax bounds how many ids are remembered.
const recentIDsMax = 4096

// recentIDs remembers the last ids of a stream. After a resume the gateway may send events again
// that were seen, until it says "replayed"; only there are repeated ids dropped.
type recentIDs struct {
	known   map[string]struct{}
	order   []string // a ring, oldest at next once it is full
	next    int
	replays bool
}

func newRecentIDs() *recentIDs { return &recentIDs{known: map[string]struct{}{}} }

// resume says that a connection begins, and whether it continues an earlier one.
func (r *recentIDs) resume(continues bool) { r.replays = continues }

// replayed says that from here on everything is new.
func (r *recentIDs) replayed() { r.replays = false }

// repeated notes an event's own id and says whether the event was seen before and must be dropped.
func (r *recentIDs) repeated(id string) bool {
	if id == "" {
		return false
	}
	if _, ok := r.known[id]; ok {
		return r.replays
	}
	if len(r.order) < recentIDsMax {
		r.order = append(r.order, id)
	} else {
		delete(r.known, r.order[r.next])
		r.order[r.next] = id
		r.next = (r.next + 1) % recentIDsMax
	}
	r.known[id] = struct{}{}
	return false
}
