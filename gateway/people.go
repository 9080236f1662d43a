package gateway

import (
	"strings"

	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/internal/names"
	"github.com/millrace/millrace/netio"
)

// person is who a stream belongs to, for those that are not simply anybody from loopback. The
// user's id stands once in the process, in the tally that counts the user's streams, and what a
// token grants once a loop, since most tokens of a service grant the same. No pointers.
type person struct {
	place  ticket
	grants uint32 // number in people.grants, 0: no token, no name; of a free one, the next
}

// people are those behind the streams of one loop. They belong to its goroutine.
type people struct {
	slab   netio.Slab[person] // 0 is nobody
	high   uint32             // persons handed out so far
	free   uint32             // the first person given back
	grants *names.Tally       // as auth.Identity.AppendGrants makes them
}

func newPeople() people { return people{grants: names.NewTally()} }

// add takes note of one, whose grants may be empty.
func (p *people) add(place ticket, grants string) (index uint32) {
	if index = p.free; index != 0 {
		p.free = p.slab.At(index).grants
	} else {
		p.high++
		index = p.high
		p.slab.Grow(index)
	}
	*p.slab.At(index) = person{place: place}
	p.setGrants(index, grants)
	return index
}

// setGrants replaces what a person's token grants.
func (p *people) setGrants(index uint32, grants string) {
	one := p.slab.At(index)
	before := one.grants
	one.grants = 0
	if grants != "" {
		one.grants, _ = p.grants.Add(grants, 0)
	}
	if before != 0 {
		p.grants.Remove(before)
	}
}

// remove forgets a person and gives the place to be given back; nobody has the zero one.
func (p *people) remove(index uint32) (place ticket) {
	if index == 0 {
		return ticket{}
	}
	p.setGrants(index, "")
	one := p.slab.At(index)
	place = one.place
	*one = person{grants: p.free}
	p.free = index
	return place
}

// grantsOf gives what a person's token grants, "" without one, good until it is replaced.
func (p *people) grantsOf(index uint32) string {
	if index == 0 || p.slab.At(index).grants == 0 {
		return ""
	}
	return p.grants.View(p.slab.At(index).grants)
}

// placeOf gives the place of a person; nobody has the zero one.
func (p *people) placeOf(index uint32) ticket {
	if index == 0 {
		return ticket{}
	}
	return p.slab.At(index).place
}

// grants is what a session remembers of who, "" of somebody anonymous.
func (s *sessions) grants(who *auth.Identity) string {
	if who.Anonymous {
		return ""
	}
	var room [64]byte
	return string(who.AppendGrants(room[:0], s.gateway.policy.Asks()))
}

// user is the id of the user behind a session, "" if nobody said.
func (s *sessions) user(one *session) string {
	return s.gateway.admission.user(s.people.placeOf(one.person))
}

// isUser reports whether a session is that user's, who has an id.
func (s *sessions) isUser(one *session, user string) bool {
	return s.gateway.admission.isUser(s.people.placeOf(one.person), user)
}

// who makes the identity behind a session, without its Expires: the caller's to keep.
func (s *sessions) who(one *session) *auth.Identity {
	grants := s.people.grantsOf(one.person)
	if grants == "" {
		return auth.Anonymous()
	}
	return auth.Recall(s.user(one), strings.Clone(grants))
}

// keyIsGone reports whether the key that verified the session's token has been rotated out.
func (s *sessions) keyIsGone(one *session) bool {
	grants := s.people.grantsOf(one.person)
	return s.gateway.verifier != nil && grants != "" && !s.gateway.verifier.Trusted(grants)
}
