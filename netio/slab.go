package netio

// slabPageLen is how many values a slab grows by: enough that growth is rare, few enough that
// the unused rest of the last page does not show in the bytes per stream.
const slabPageLen = 512

// Slab is a growing array of T whose values never move: it grows by pages and is never copied.
// T must not contain pointers where many are kept, so that the collector never looks inside.
// Index 0 exists and is by convention "none". The zero Slab is empty and ready. A Slab belongs
// to one goroutine.
//
// Slabs of different owners can be kept in step by using one's index in the other: the hub and
// the gateway keep what they know of a stream under the stream's own [Slot].
type Slab[T any] struct {
	pages []*[slabPageLen]T
}

// At gives the value at index, which must have been reached by [Slab.Grow]. The pointer stays
// valid for the life of the slab.
func (s *Slab[T]) At(index uint32) *T {
	return &s.pages[index/slabPageLen][index%slabPageLen]
}

// Grow makes index valid. New values are zero.
func (s *Slab[T]) Grow(index uint32) {
	for uint32(len(s.pages)) <= index/slabPageLen {
		s.pages = append(s.pages, new([slabPageLen]T))
	}
}

// Len is the number of valid indices.
func (s *Slab[T]) Len() int { return len(s.pages) * slabPageLen }
