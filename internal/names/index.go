// Package names finds entries of a table by their name, at a few bytes an entry.
package names

import "hash/maphash"

// indexLenMin is the number of places of the smallest table; a power of two.
const indexLenMin = 16

// Index finds entries of a table by their name. It keeps nothing but the entries' numbers, 4
// bytes a place, because a gateway may have a channel for each of a million streams: open
// addressing with linear probing, at most three quarters full, and no tombstones. The numbers
// are the owner's, from 1 on, and so are the names: nameOf must give the name of any number that
// is in the index. It belongs to one goroutine, or to who holds its lock.
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

// home is the place where the probing for name begins.
func (x *Index) home(name string) int {
	return int(maphash.String(x.seed, name) & uint64(len(x.places)-1))
}

// Find gives the entry with that name, 0 if there is none.
func (x *Index) Find(name string) uint32 {
	if x.count == 0 {
		return 0
	}
	for place := x.home(name); x.places[place] != 0; place = (place + 1) & (len(x.places) - 1) {
		if entry := x.places[place]; x.nameOf(entry) == name {
			return entry
		}
	}
	return 0
}

// Add puts in an entry whose name is not there yet.
func (x *Index) Add(entry uint32) {
	if (x.count+1)*4 > len(x.places)*3 {
		x.resize(max(len(x.places)*2, indexLenMin))
	}
	x.count++
	x.put(entry)
}

// Len is the number of entries.
func (x *Index) Len() int { return x.count }

func (x *Index) put(entry uint32) {
	place := x.home(x.nameOf(entry))
	for x.places[place] != 0 {
		place = (place + 1) & (len(x.places) - 1)
	}
	x.places[place] = entry
}

// Remove takes out the entry with that name, which must be there and still have its name.
func (x *Index) Remove(name string) {
	mask := len(x.places) - 1
	hole := x.home(name)
	for x.nameOf(x.places[hole]) != name {
		hole = (hole + 1) & mask
	}
	x.count--
	x.places[hole] = 0
	// Entries behind the hole that probed across it move up, or they would not be found.
	for place := (hole + 1) & mask; x.places[place] != 0; place = (place + 1) & mask {
		home := x.home(x.nameOf(x.places[place]))
		if (place-home)&mask >= (place-hole)&mask {
			x.places[hole], x.places[place] = x.places[place], 0
			hole = place
		}
	}
	if len(x.places) > indexLenMin && x.count*8 < len(x.places) {
		x.resize(len(x.places) / 2)
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
