package hostile

import (
	"slices"
	"testing"
)

// cases are the cases that are tested, in the order of the list.
func cases() []abuse {
	return slices.Concat(parseCases, eventStreamCases, framingCases, commandCases, authenticationCases,
		authorisationCases, limitCases, redisCases, resourceCases, shutdownCases, networkCases)
}

// listed is how many cases each letter of the list has, and N, of which the list has none.
var listed = map[byte]int{'A': 8, 'B': 5, 'C': 10, 'D': 5, 'E': 7, 'F': 5, 'G': 6, 'H': 9, 'I': 6, 'J': 4, 'N': 3}

// known names the cases, or halves of cases, that are not tested, with the reason. The list may
// only shrink: a whole case that is tested must not stand in it.
var known = []struct {
	id     string
	whole  bool // nothing of the case is tested
	what   string
	reason string
}{
	{"F4", false, "a gateway that is cut off from Redis and publishes itself", "nobody can tell it that a right is gone: its streams hear what is published through that very gateway by POST /api/publish, until it reaches Redis again"},
	{"F5", false, "events older than the right", "a right has no beginning: whoever may hear a channel may have all that it still holds (a namespace of mode events with replay {size: 0} holds nothing)"},
	{"G5", false, "a cap of channels for the node", "it is max-connections times max-subscriptions; there is no other"},
	{"I1", false, "no descriptor in the whole machine (ENFILE)", "it is one limit for all processes of the machine; what the gateway does then is what it does with none of its own, and netio takes both as the same"},
}

// TestAbuse runs every case.
func TestAbuse(t *testing.T) {
	for _, one := range cases() {
		t.Run(one.id, func(t *testing.T) {
			if *reportPath == "" {
				t.Parallel()
			}
			meet(t, one)
		})
	}
}

// TestList holds the cases to the list: each is tested once, or is known not to be.
func TestList(t *testing.T) {
	tested := make(map[string]bool)
	for _, one := range cases() {
		if tested[one.id] {
			t.Errorf("%s is there twice", one.id)
		}
		tested[one.id] = true
	}
	untested := make(map[string]bool)
	for _, one := range known {
		t.Logf("known: %s, %s: %s", one.id, one.what, one.reason)
		if one.whole == tested[one.id] {
			t.Errorf("%s stands in known as whole %v and is tested %v: the list may only shrink", one.id, one.whole, tested[one.id])
		}
		untested[one.id] = one.whole
	}
	for letter, count := range listed {
		for number := range count {
			id := string(letter) + string(rune('1'+number))
			if number == 9 {
				id = string(letter) + "10"
			}
			if !tested[id] && !untested[id] {
				t.Errorf("%s is neither tested nor known", id)
			}
		}
	}
}
