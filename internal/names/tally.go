package names

import (
	"encoding/binary"
	"strings"
)

// KeyBytesMax bounds a key of a [Tally].
const KeyBytesMax = textBytesMax - countBytes

// countBytes is what the number of a key's holders takes, before the key.
const countBytes = 4

// Tally counts the holders of keys and knows each key by a number while it has any. A key costs
// its own bytes and about 13 more, none of which is a pointer. It belongs to one goroutine, or to
// who holds its lock. Make it with [NewTally].
type Tally struct {
	index Index // of the places of the texts
	texts arena // a count, then the key
}

// NewTally makes an empty tally.
func NewTally() *Tally {
	t := &Tally{}
	t.index = New(t.View)
	return t
}

// Add counts one more holder of key, of at most [KeyBytesMax] bytes, which is copied where it is
// new, and gives the key's number: never 0, and another key's once this one has no holder left. It
// reports false, and nothing has changed, if the key has limit holders already; a limit of 0 or
// less is none.
func (t *Tally) Add(key string, limit int) (number uint32, ok bool) {
	if number = t.index.Find(key); number != 0 {
		count := t.Count(number)
		if limit > 0 && count >= limit {
			return 0, false
		}
		t.setCount(number, count+1)
		return number, true
	}
	number, room := t.texts.reserve(countBytes + len(key))
	copy(room[countBytes:], key)
	t.setCount(number, 1)
	t.index.Add(number)
	return number, true
}

// Has reports whether key has a holder.
func (t *Tally) Has(key string) bool { return t.index.Find(key) != 0 }

// Remove is the end of one Add. With its last holder a key is forgotten, and with the last key
// nearly all memory is given back.
func (t *Tally) Remove(number uint32) {
	if count := t.Count(number); count > 1 {
		t.setCount(number, count-1)
		return
	}
	t.index.Remove(t.View(number))
	if t.texts.drop(number); t.index.Len() == 0 {
		t.texts.empty()
	}
}

// Key gives a copy of the key with that number.
func (t *Tally) Key(number uint32) string { return strings.Clone(t.View(number)) }

// View gives the key with that number without copying it: good as long as it has a holder, and no
// longer, since its bytes serve other keys then.
func (t *Tally) View(number uint32) string { return t.texts.view(number)[countBytes:] }

// Count is how many holders the key with that number has.
func (t *Tally) Count(number uint32) int {
	return int(binary.NativeEndian.Uint32(t.texts.room(number)))
}

func (t *Tally) setCount(number uint32, count int) {
	binary.NativeEndian.PutUint32(t.texts.room(number), uint32(count))
}

// Len is how many keys have a holder.
func (t *Tally) Len() int { return t.index.Len() }
