package names

import (
	"strings"
	"sync"
)

// NameBytesMax bounds a name in a [Store].
const NameBytesMax = 255

// holdersMax bounds the holders of one name.
const holdersMax = 255

// Place says where a [Store] keeps a name. 0 is nowhere.
type Place uint32

// Store keeps the bytes of names that several tables know, once for all of them, at their number
// and 2 bytes more. Who put a name holds it, as does who called [Store.Hold]; with its last holder
// it is gone, and its place another name's. The zero Store is empty and ready. It is safe for use
// by many goroutines, each of which must know that somebody holds the name that it asks for.
type Store struct {
	mutex sync.Mutex
	texts arena // a byte with the number of holders, then the name
}

// Put copies name and gives its place, with one holder.
func (s *Store) Put(name string) Place {
	if len(name) > NameBytesMax {
		panic("names: a name of more than 255 bytes is not kept")
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	place, room := s.texts.reserve(1 + len(name))
	room[0] = 1
	copy(room[1:], name)
	return Place(place)
}

// Hold adds a holder.
func (s *Store) Hold(place Place) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	holders := &s.texts.room(uint32(place))[0]
	if *holders == holdersMax {
		panic("names: a name has more holders than are counted")
	}
	*holders++
}

// Drop takes a holder away.
func (s *Store) Drop(place Place) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	holders := &s.texts.room(uint32(place))[0]
	if *holders--; *holders == 0 {
		s.texts.drop(uint32(place))
	}
}

// View gives the name without copying it: good as long as it is held, and no longer, since its
// bytes serve another name then.
func (s *Store) View(place Place) string { return s.texts.view(uint32(place))[1:] }

// Name gives a copy of the name.
func (s *Store) Name(place Place) string { return strings.Clone(s.View(place)) }
