package hub

import (
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/names"
)

// loopsMax is the number of listeners a directory can tell apart, one bit each: the loops, and
// the callbacks of the program itself.
const loopsMax = 64

// directory knows which loops want which channel, and whether the broker has confirmed it. It
// tells the source of the first and the last who wants a channel, in the order in which that
// happened, which is why it calls it under the lock of the channel's stripe.
type directory struct {
	seed      maphash.Seed
	store     *names.Store
	source    Source
	kindOf    func(channelType string) broker.Kind
	wildcards atomic.Int64 // entries for patterns; 0 spares publish a look-up
	stripes   [64]stripe
}

type stripe struct {
	mutex sync.Mutex
	names names.Index
	pages []*[interestPageLen]interest // entry 0 is none
	high  uint32                       // entries handed out so far
	free  uint32                       // the first entry given back
	// shared says who wants a channel, a bit each, where that is more than one loop.
	shared map[uint32]uint64
}

// interestPageLen is how many entries a stripe grows by: few, since there are many stripes.
const interestPageLen = 64

// interest is what is known of one channel that somebody wants. Most channels have one listener, so
// the one loop that wants it stands in the entry itself. No pointers.
type interest struct {
	name      names.Place // held by the entry; of a free entry, the next one
	loop      uint8       // who wants it, unless it is shared
	shared    bool        // stripe.shared says who
	confirmed bool
}

func newDirectory(store *names.Store, source Source, kindOf func(string) broker.Kind) *directory {
	d := &directory{seed: maphash.MakeSeed(), store: store, source: source, kindOf: kindOf}
	for i := range d.stripes {
		s := &d.stripes[i]
		s.shared = make(map[uint32]uint64)
		s.names = names.New(func(number uint32) string { return store.View(s.at(number).name) })
	}
	return d
}

func (d *directory) stripe(channel string) *stripe {
	return &d.stripes[maphash.String(d.seed, channel)%uint64(len(d.stripes))]
}

func (d *directory) subscription(channel string) broker.Subscription {
	if isWildcard(channel) {
		return broker.Subscription{Channel: channel, Kind: broker.Pattern}
	}
	return broker.Subscription{Channel: channel, Kind: d.kindOf(typeOf(channel))}
}

// want adds loop to those that want channel. It gives the place of the name, good until the loop
// no longer wants it, and reports whether the broker has it confirmed. channel is not kept.
func (d *directory) want(channel string, loop int) (name names.Place, confirmed bool) {
	s := d.stripe(channel)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if number := s.names.Find(channel); number != 0 {
		s.setLoops(number, s.loops(number)|1<<loop)
		return s.at(number).name, s.at(number).confirmed
	}
	name = d.store.Put(channel)
	s.add(name, loop)
	if isWildcard(channel) {
		d.wildcards.Add(1)
	}
	d.source.Subscribe(d.subscription(channel), name)
	return name, false
}

// unwant is the end of a want. channel is not kept.
func (d *directory) unwant(channel string, loop int) {
	s := d.stripe(channel)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	number := s.names.Find(channel)
	if number == 0 {
		return
	}
	if rest := s.loops(number) &^ (1 << loop); rest != 0 {
		s.setLoops(number, rest)
		return
	}
	d.store.Drop(s.remove(number, channel))
	if isWildcard(channel) {
		d.wildcards.Add(-1)
	}
	d.source.Unsubscribe(d.subscription(channel))
}

func (s *stripe) at(number uint32) *interest {
	return &s.pages[number/interestPageLen][number%interestPageLen]
}

// loops gives who wants an entry, a bit each.
func (s *stripe) loops(number uint32) uint64 {
	if entry := s.at(number); !entry.shared {
		return 1 << entry.loop
	}
	return s.shared[number]
}

// setLoops notes who wants an entry: at least one.
func (s *stripe) setLoops(number uint32, loops uint64) {
	entry := s.at(number)
	if bits.OnesCount64(loops) > 1 {
		entry.shared = true
		s.shared[number] = loops
		return
	}
	if entry.shared {
		delete(s.shared, number)
	}
	entry.shared, entry.loop = false, uint8(bits.TrailingZeros64(loops))
}

func (s *stripe) add(name names.Place, loop int) {
	number := s.free
	if number != 0 {
		s.free = uint32(s.at(number).name)
	} else {
		s.high++
		number = s.high
		if number/interestPageLen >= uint32(len(s.pages)) {
			s.pages = append(s.pages, new([interestPageLen]interest))
		}
	}
	*s.at(number) = interest{name: name, loop: uint8(loop)}
	s.names.Add(number)
}

// remove forgets an entry that the last who wanted it leaves, and gives its name to be dropped.
func (s *stripe) remove(number uint32, channel string) (name names.Place) {
	s.names.Remove(channel)
	if s.at(number).shared {
		delete(s.shared, number)
	}
	name = s.at(number).name
	*s.at(number) = interest{name: names.Place(s.free)}
	s.free = number
	return name
}

// wanting gives the loops that want channel, a bit each.
func (d *directory) wanting(channel string) uint64 {
	s := d.stripe(channel)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if number := s.names.Find(channel); number != 0 {
		return s.loops(number)
	}
	return 0
}

// setConfirmed notes what the broker says of channel and gives the loops that want it, a bit
// each. One that comes to want it later learns it from want.
func (d *directory) setConfirmed(channel string, confirmed bool) (loops uint64) {
	s := d.stripe(channel)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	number := s.names.Find(channel)
	if number == 0 {
		return 0
	}
	s.at(number).confirmed = confirmed
	return s.loops(number)
}

// count gives the number of channels that somebody wants.
func (d *directory) count() (channels int) {
	for i := range d.stripes {
		s := &d.stripes[i]
		s.mutex.Lock()
		channels += s.names.Len()
		s.mutex.Unlock()
	}
	return channels
}
