package names

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync/atomic"
	"unsafe"
)

const (
	textBytesMax = 32 << 10 // of a text that an arena keeps
	chunkLen     = 64 << 10 // bytes that an arena grows by
	grainLen     = 4        // bytes; blocks are whole grains, and places in an arena are counted in them
	// exactGrains is up to which size every number of grains has blocks of its own. Above, there
	// are four sizes from each power of two to the next.
	exactGrains = 32
	blockSizes  = exactGrains + 1 + 4*9

	longText   = 0xff // instead of a length of one byte: two bytes of length follow
	firstPlace = 1    // place 0 is none
)

// arena keeps texts in chunks of bytes without pointers. It grows by a chunk and never copies;
// what is freed serves the next text of about the same length. The zero arena is empty and ready.
// It belongs to one goroutine, or to who holds its lock, but for view.
type arena struct {
	chunks atomic.Pointer[[][]byte] // replaced when it grows, for those who view meanwhile
	used   uint32                   // grains of the last chunk that were handed out
	free   [blockSizes]uint32       // by size: the first block given back, which holds the place of the next
}

// reserve makes a text of length bytes, to be written to room, and gives its place, which is never
// 0.
func (a *arena) reserve(length int) (place uint32, room []byte) {
	if length > textBytesMax {
		panic(fmt.Sprintf("names: a text of %d bytes; at most %d are kept", length, textBytesMax))
	}
	size, grains := blockFor(length)
	if place = a.free[size]; place != 0 {
		a.free[size] = binary.NativeEndian.Uint32(a.at(place))
	} else {
		place = a.take(grains)
	}
	block := a.at(place)
	if length < longText {
		block[0] = byte(length)
		return place, block[1 : 1+length]
	}
	block[0] = longText
	binary.NativeEndian.PutUint16(block[1:], uint16(length))
	return place, block[3 : 3+length]
}

// take hands out grains that never were in use.
func (a *arena) take(grains uint32) (place uint32) {
	const chunkGrains = chunkLen / grainLen
	var chunks [][]byte
	if grown := a.chunks.Load(); grown != nil {
		chunks = *grown
	}
	if len(chunks) == 0 || a.used+grains > chunkGrains {
		if len(chunks) == 1<<32/chunkGrains {
			panic("names: an arena is full")
		}
		if a.used = 0; len(chunks) == 0 {
			a.used = firstPlace
		}
		chunks = append(chunks, make([]byte, chunkLen)) // never over what somebody views
		a.chunks.Store(&chunks)
	}
	place = uint32(len(chunks)-1)*chunkGrains + a.used
	a.used += grains
	return place
}

// at gives the bytes from place to the end of its chunk.
func (a *arena) at(place uint32) []byte {
	offset := uint64(place) * grainLen
	return (*a.chunks.Load())[offset/chunkLen][offset%chunkLen:]
}

// view gives the text at place, which is good until it is freed: nobody may keep it longer. Any
// goroutine may look that knows of the place and that it is not freed meanwhile.
func (a *arena) view(place uint32) string {
	room := a.room(place)
	return unsafe.String(unsafe.SliceData(room), len(room))
}

// room gives the bytes of the text at place.
func (a *arena) room(place uint32) []byte {
	block := a.at(place)
	length := int(block[0])
	if length < longText {
		return block[1 : 1+length]
	}
	length = int(binary.NativeEndian.Uint16(block[1:]))
	return block[3 : 3+length]
}

// drop gives the text at place back.
func (a *arena) drop(place uint32) {
	size, _ := blockFor(len(a.room(place)))
	binary.NativeEndian.PutUint32(a.at(place), a.free[size])
	a.free[size] = place
}

// empty gives everything back but for a first chunk, since one who comes and goes alone should not
// cost a chunk each time.
func (a *arena) empty() {
	first := [][]byte{(*a.chunks.Load())[0]}
	a.chunks.Store(&first)
	a.used, a.free = firstPlace, [blockSizes]uint32{}
}

// chunkCount is how many chunks there are.
func (a *arena) chunkCount() int {
	if chunks := a.chunks.Load(); chunks != nil {
		return len(*chunks)
	}
	return 0
}

// blockFor gives the size of block, and its grains, that a text of so many bytes takes.
func blockFor(length int) (size int, grains uint32) {
	bytes := length + 1
	if length >= longText {
		bytes = length + 3
	}
	grains = uint32(bytes+grainLen-1) / grainLen
	if grains <= exactGrains {
		return int(grains), grains
	}
	quarter := bits.Len32(grains-1) - 3 // a quarter of the power of two below is 1<<quarter grains
	grains = (grains + 1<<quarter - 1) >> quarter << quarter
	power := bits.Len32(grains-1) - 1
	return exactGrains + 4*(power-bits.Len32(exactGrains)+1) + int((grains-1)>>(power-2))&3 + 1, grains
}
