package gateway

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"
	"unsafe"
)

func TestSizes(t *testing.T) {
	if size := unsafe.Sizeof(session{}); size != 24 {
		t.Errorf("a session takes %d bytes, not 24", size)
	}
	if size := unsafe.Sizeof(person{}); size != 12 {
		t.Errorf("a person takes %d bytes, not 12", size)
	}
}

// TestPeopleAgainstAMap lets random people come, get other grants and go, and compares them with a
// map: those of a loop, and the places that the process counts.
func TestPeopleAgainstAMap(t *testing.T) {
	type known struct {
		user, grants string
		place        ticket
	}
	random := rand.New(rand.NewPCG(7, 8))
	admission := newAdmission(Limits{MaxConnectionsPerUser: 3, MaxConnectionsPerAddress: 4})
	p := newPeople()
	want, users, addresses := map[uint32]known{}, map[string]int{}, map[byte]int{}
	addressOf := map[uint32]byte{}
	grants := func() string { return fmt.Sprint("grants", random.IntN(5))[:6+random.IntN(2)] }
	for step := range 20_000 {
		var some uint32 // any person, 0 if there is none
		for some = range want {
			break
		}
		switch growing := step%5000 < 2500; {
		case random.IntN(4) == 0 && some != 0:
			one := want[some]
			one.grants = grants()
			p.setGrants(some, one.grants)
			want[some] = one
		case random.IntN(3) > 0 == growing || some == 0:
			user, host := fmt.Sprint("user", random.IntN(300)), byte(random.IntN(250))
			place, refused := admission.enter(user, netip.AddrFrom4([4]byte{203, 0, 113, host}))
			if full := users[user] >= 3 || addresses[host] >= 4; full != (refused != nil) {
				t.Fatalf("user with %d streams, address with %d: refused %v", users[user], addresses[host], refused)
			}
			if refused != nil {
				continue
			}
			one := known{user: user, grants: grants(), place: place}
			index := p.add(place, one.grants)
			if _, taken := want[index]; taken || index == 0 {
				t.Fatalf("person %d is given twice", index)
			}
			users[user]++
			addresses[host]++
			want[index], addressOf[index] = one, host
		default:
			one := want[some]
			if place := p.remove(some); place != one.place {
				t.Fatalf("a person gave back the place %v, not %v", place, one.place)
			}
			admission.leave(one.place)
			users[one.user]--
			addresses[addressOf[some]]--
			delete(want, some)
		}
		for index, one := range want {
			if got := p.grantsOf(index); got != one.grants || admission.user(p.placeOf(index)) != one.user {
				t.Fatalf("person %d is %q with %q, want %+v", index, admission.user(p.placeOf(index)), got, one)
			}
			break
		}
	}
	for index, one := range want {
		admission.leave(p.remove(index))
		delete(want, index)
		if one.user == "" {
			t.Error("a person has no name")
		}
	}
	if admission.total.Load() != 0 || admission.users.tally.Len() != 0 || admission.addresses.tally.Len() != 0 || p.grants.Len() != 0 {
		t.Errorf("empty, it counts %d streams, %d users, %d addresses, %d grants", admission.total.Load(),
			admission.users.tally.Len(), admission.addresses.tally.Len(), p.grants.Len())
	}
}

func TestLater(t *testing.T) {
	for _, test := range []struct{ one, other, want uint32 }{
		{1, 2, 2},
		{2, 1, 2},
		{5, 5, 5},
		{math.MaxUint32, 3, 3},
		{3, math.MaxUint32, 3},
		{1 << 31, 1<<31 - 9, 1 << 31},
	} {
		if got := later(test.one, test.other); got != test.want {
			t.Errorf("of %d and %d, %d is later, not %d", test.one, test.other, got, test.want)
		}
	}
}
