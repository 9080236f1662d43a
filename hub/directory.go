package hub

import (
	"hash/maphash"
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
	source    Source
	kindOf    func(channelType string) broker.Kind
	wildcards atomic.Int64 // entries for patterns; 0 spares publish a look-up
	stripes   [64]stripe
}

type stripe struct {
	mutex   sync.Mutex
	names   names.Index
	entries []interest // 0 is none
	free    uint32
}

// interest is what is known of one channel that somebody wants.
type interest struct {
	name      string
	loops     uint64 // who wants it, a bit each
	next      uint32 // free list
	confirmed bool
}

func newDirectory(source Source, kindOf func(string) broker.Kind) *directory {
	d := &directory{seed: maphash.MakeSeed(), source: source, kindOf: kindOf}
	for i := range d.stripes {
		s := &d.stripes[i]
		s.entries = make([]interest, 1)
		s.names = names.New(func(entry uint32) string { return s.entries[entry].name })
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

// want adds loop to those that want channel and reports whether the broker has it confirmed.
// channel is kept.
func (d *directory) want(channel string, loop int) (confirmed bool) {
	s := d.stripe(channel)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	entry := s.find(channel)
	if entry == nil {
		entry = s.add(channel)
		if isWildcard(channel) {
			d.wildcards.Add(1)
		}
		d.source.Subscribe(d.subscription(channel))
	}
	entry.loops |= 1 << loop
	return entry.confirmed
}

// unwant is the end of a want.
func (d *directory) unwant(channel string, loop int) {
	s := d.stripe(channel)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	entry := s.find(channel)
	if entry == nil {
		return
	}
	entry.loops &^= 1 << loop
	if entry.loops == 0 {
		s.remove(channel)
		if isWildcard(channel) {
			d.wildcards.Add(-1)
		}
		d.source.Unsubscribe(d.subscription(channel))
	}
}

func (s *stripe) find(channel string) *interest {
	if number := s.names.Find(channel); number != 0 {
		return &s.entries[number]
	}
	return nil
}

func (s *stripe) add(channel string) *interest {
	number := s.free
	if number != 0 {
		s.free = s.entries[number].next
	} else {
		number = uint32(len(s.entries))
		s.entries = append(s.entries, interest{})
	}
	s.entries[number] = interest{name: channel}
	s.names.Add(number)
	return &s.entries[number]
}

func (s *stripe) remove(channel string) {
	number := s.names.Find(channel)
	s.names.Remove(channel)
	s.entries[number] = interest{next: s.free}
	s.free = number
}

// wanting gives the loops that want channel, a bit each.
func (d *directory) wanting(channel string) uint64 {
	s := d.stripe(channel)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if entry := s.find(channel); entry != nil {
		return entry.loops
	}
	return 0
}

// setConfirmed notes what the broker says of channel and gives the loops that want it, a bit
// each. One that comes to want it later learns it from want.
func (d *directory) setConfirmed(channel string, confirmed bool) (loops uint64) {
	s := d.stripe(channel)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	entry := s.find(channel)
	if entry == nil {
		return 0
	}
	entry.confirmed = confirmed
	return entry.loops
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
