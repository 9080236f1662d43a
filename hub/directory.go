package hub

import (
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/names"
	"github.com/millrace/millrace/proto"
)

const (
	// loopsMax is the number of loops a directory can tell apart, one bit each of 64: one more is
	// for the callbacks of the program itself, the last for replays.
	loopsMax = 62
	// ringBit wants a channel that nobody hears any more, for those who may come back.
	ringBit = 1 << 63
)

// directory knows which loops want which channel, and whether the broker has confirmed it. It
// tells the source of the first and the last who wants a channel, in the order in which that
// happened, which is why it calls it under the lock of the channel's stripe.
type directory struct {
	seed      maphash.Seed
	store     *names.Store
	source    Source
	rulesOf   func(channelType string) *Rules
	hold      func(channel string, replay Replay) bool // reports whether a replay holds the channel
	wildcards atomic.Int64                             // entries for patterns; 0 spares publish a look-up
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
	now    map[uint32]standing // of states and logs, by entry
}

// interestPageLen is how many entries a stripe grows by: few, since there are many stripes.
const interestPageLen = 64

// interest is what is known of one channel that somebody wants. Most channels have one listener, so
// the one loop that wants it stands in the entry itself. No pointers.
type interest struct {
	name names.Place // held by the entry; of a free entry, the next one
	// since is the number from which on the memory is whole: a client that had the event with this
	// number, or a later one, has missed nothing of this channel but what a ring holds. 0: the
	// channel is not confirmed.
	since shortNumber
	who   uint8 // the loop that wants it; or whoIsShared
}

// whoIsShared says that stripe.shared tells who wants a channel.
const whoIsShared = 64

// shortNumber is a number in 3 bytes: exact up to 2^19, and rounded up by less than two millionths
// above that.
type shortNumber [3]uint8

const (
	shortMantissaBits = 19
	shortMantissaMax  = 1<<shortMantissaBits - 1
)

func makeShort(number uint64) shortNumber {
	exponent := 0
	for number > shortMantissaMax {
		number = number/2 + number%2
		exponent++
	}
	packed := uint32(exponent)<<shortMantissaBits | uint32(number)
	return shortNumber{uint8(packed), uint8(packed >> 8), uint8(packed >> 16)}
}

func (n shortNumber) number() uint64 {
	packed := uint32(n[0]) | uint32(n[1])<<8 | uint32(n[2])<<16
	return uint64(packed&shortMantissaMax) << (packed >> shortMantissaBits)
}

// standing is where a state or a log stands.
type standing struct {
	event    *proto.Event // of a state; nil: there is no value
	order    uint64       // of that event, or of the value's end
	position broker.Position
}

func newDirectory(store *names.Store, source Source, rulesOf func(string) *Rules, hold func(string, Replay) bool) *directory {
	d := &directory{seed: maphash.MakeSeed(), store: store, source: source, rulesOf: rulesOf, hold: hold}
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
	return broker.Subscription{Channel: channel, Kind: d.rulesOf(typeOf(channel)).Kind}
}

// want adds loop to those that want channel. It gives the place of the name, good until the loop
// no longer wants it, and reports whether the broker has it confirmed, and where a state or log
// stands: of what comes after that, the loop is told. channel is not kept.
func (d *directory) want(channel string, loop int) (name names.Place, confirmed bool, now standing) {
	s := d.stripe(channel)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if number := s.names.Find(channel); number != 0 {
		s.setLoops(number, s.loops(number)&^ringBit|1<<loop)
		return s.at(number).name, s.at(number).since.number() != 0, s.now[number]
	}
	name = d.store.Put(channel)
	s.add(name, loop)
	if isWildcard(channel) {
		d.wildcards.Add(1)
	}
	d.source.Subscribe(d.subscription(channel), name)
	return name, false, standing{}
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
	rest := s.loops(number) &^ (1 << loop)
	if rest == 0 && !isWildcard(channel) {
		if replay := d.rulesOf(typeOf(channel)).Replay; replay.Size > 0 && d.hold(channel, replay) {
			rest = ringBit
		}
	}
	if rest != 0 {
		s.setLoops(number, rest)
		return
	}
	d.forget(s, number, channel)
}

// release ends what a replay held, if it holds the channel still. channel is not kept.
func (d *directory) release(channel string) {
	s := d.stripe(channel)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if number := s.names.Find(channel); number != 0 && s.loops(number) == ringBit {
		d.forget(s, number, channel)
	}
}

// forget is the end of a channel that nobody wants. The stripe is locked.
func (d *directory) forget(s *stripe, number uint32, channel string) {
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
	if who := s.at(number).who; who != whoIsShared {
		return 1 << who
	}
	return s.shared[number]
}

// setLoops notes who wants an entry: at least one.
func (s *stripe) setLoops(number uint32, loops uint64) {
	entry := s.at(number)
	if bits.OnesCount64(loops) > 1 {
		entry.who = whoIsShared
		s.shared[number] = loops
		return
	}
	if entry.who == whoIsShared {
		delete(s.shared, number)
	}
	entry.who = uint8(bits.TrailingZeros64(loops))
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
	*s.at(number) = interest{name: name, who: uint8(loop)}
	s.names.Add(number)
}

// remove forgets an entry that the last who wanted it leaves, and gives its name to be dropped.
func (s *stripe) remove(number uint32, channel string) (name names.Place) {
	s.names.Remove(channel)
	if s.at(number).who == whoIsShared {
		delete(s.shared, number)
	}
	delete(s.now, number)
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
// each. One that comes to want it later learns it from want. next is the number of the event that
// comes next.
func (d *directory) setConfirmed(channel string, change interestChange, next uint64) (loops uint64) {
	s := d.stripe(channel)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	number := s.names.Find(channel)
	if number == 0 {
		return 0
	}
	entry := s.at(number)
	switch {
	case !change.confirmed:
		entry.since = shortNumber{}
	case change.lost || entry.since.number() == 0:
		entry.since = makeShort(next)
	}
	return s.loops(number)
}

// completeSince gives the number from which on the memory of channel is whole; 0 if it is not
// confirmed.
func (d *directory) completeSince(channel string) uint64 {
	s := d.stripe(channel)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if number := s.names.Find(channel); number != 0 {
		return s.at(number).since.number()
	}
	return 0
}

// raise notes that the memory of channel no longer holds the event with the number since, nor
// those before it.
func (d *directory) raise(channel string, since uint64) {
	s := d.stripe(channel)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if number := s.names.Find(channel); number != 0 {
		if entry := s.at(number); entry.since.number() != 0 && entry.since.number() < since {
			entry.since = makeShort(since)
		}
	}
}

// standing gives where a state or log stands; false if that is not known.
func (d *directory) standing(channel string) (standing, bool) {
	s := d.stripe(channel)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	now, known := s.now[s.names.Find(channel)]
	return now, known
}

// setStanding notes where a state or log stands and gives the loops to be told of it, in one step:
// a loop that comes to want the channel later learns it from want.
func (d *directory) setStanding(channel string, now standing) (loops uint64) {
	s := d.stripe(channel)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	number := s.names.Find(channel)
	if number == 0 {
		return 0
	}
	if s.now == nil {
		s.now = make(map[uint32]standing)
	}
	s.now[number] = now
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
