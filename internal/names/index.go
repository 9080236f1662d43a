// Package names keeps many short keys at little more than their own bytes: an index that finds
// entries of a table by their name, and a tally that counts the holders of keys. Nothing of it
// holds a pointer for each key, because a gateway may have a channel and a user for each of a
// million streams.
package names

import (
	"hash/maphash"
	"math/bits"
)

// placesMin is the number of places of the smallest index.
const placesMin = 16

// Index finds entries of a table by their name. It keeps nothing but the entries' numbers, 4
// bytes a place: open addressing with linear probing, no tombstones, at most four fifths full (to
// know that a name is not there then takes 13 probes on average, 5 where it is two thirds full) and
// half as large again when it grows, so that an entry costs 5 to 7.5 bytes. The numbers are the
// owner's, from 1 on, and so are the names: nameOf must give the name of any number that is in the
// index. It belongs to one goroutine, or to who holds its lock.
type Index struct {
	seed   maphash.Seed
	nameOf func(entry uint32) string
	places []uint32 // 0 is free
	count  int
}

// New makes an index for a table whose entries are called what nameOf says.
func New(nameOf func(entry uint32) string) Index {
	return Index{seed: maphash.MakeSeed(), nameOf: nameOf}
}

// home is the place where the probing for name begins: the hash, taken as a fraction of one, times
// the number of places, which therefore need not be a power of two.
func (x *Index) home(name string) int {
	place, _ := bits.Mul64(maphash.String(x.seed, name), uint64(len(x.places)))
	return int(place)
}

// after is the place behind place; the last one's is the first.
func (x *Index) after(place int) int {
	if place++; place < len(x.places) {
		return place
	}
	return 0
}

// distance is how many places behind from, going round, place is.
func (x *Index) distance(from, place int) int {
	if place < from {
		place += len(x.places)
	}
	return place - from
}

// Find gives the entry with that name, 0 if there is none.
func (x *Index) Find(name string) uint32 {
	if x.count == 0 {
		return 0
	}
	for place := x.home(name); x.places[place] != 0; place = x.after(place) {
		if entry := x.places[place]; x.nameOf(entry) == name {
			return entry
		}
	}
	return 0
}

// Add puts in an entry whose name is not there yet.
func (x *Index) Add(entry uint32) {
	if (x.count+1)*5 > len(x.places)*4 {
		x.resize(max(len(x.places)*3/2, placesMin))
	}
	x.count++
	x.put(entry)
}

// Len is the number of entries.
func (x *Index) Len() int { return x.count }

func (x *Index) put(entry uint32) {
	place := x.home(x.nameOf(entry))
	for x.places[place] != 0 {
		place = x.after(place)
	}
	x.places[place] = entry
}

// Remove takes out the entry with that name, which must be there and still have its name.
func (x *Index) Remove(name string) {
	hole := x.home(name)
	for x.nameOf(x.places[hole]) != name {
		hole = x.after(hole)
	}
	x.count--
	x.places[hole] = 0
	// Entries behind the hole that probed across it move up, or they would not be found.
	for place := x.after(hole); x.places[place] != 0; place = x.after(place) {
		home := x.home(x.nameOf(x.places[place]))
		if x.distance(home, place) >= x.distance(hole, place) {
			x.places[hole], x.places[place] = x.places[place], 0
			hole = place
		}
	}
	if len(x.places) > placesMin && x.count*8 < len(x.places) {
		x.resize(max(len(x.places)/2, placesMin))
	}
}

func (x *Index) resize(size int) {
	old := x.places
	x.places = make([]uint32, size)
	for _, entry := range old {
		if entry != 0 {
			x.put(entry)
		}
	}
}
