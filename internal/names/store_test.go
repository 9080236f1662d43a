package names

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
)

// TestStoreAgainstAMap plays random holders on a store and on a map, on several goroutines that
// also look at a name that all of them hold.
func TestStoreAgainstAMap(t *testing.T) {
	var store Store
	common := store.Put("held by all")
	var all sync.WaitGroup
	for player := range 4 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(player), 6))
			type held struct {
				name    string
				holders int
			}
			want := map[Place]*held{}
			var places []Place
			for step := range 20_000 {
				growing := step%10_000 < 5_000
				switch operation := random.IntN(4); {
				case operation == 0 && len(places) > 0:
					place := places[random.IntN(len(places))]
					store.Hold(place)
					want[place].holders++
				case operation > 1 == growing || len(places) == 0:
					name := fmt.Sprintf("%d:%d:%s", player, step, strings.Repeat("n", random.IntN(240)))
					place := store.Put(name)
					if want[place] != nil {
						t.Errorf("%d is given away twice", place)
						return
					}
					want[place] = &held{name: name, holders: 1}
					places = append(places, place)
				default:
					at := random.IntN(len(places))
					place := places[at]
					store.Drop(place)
					if want[place].holders--; want[place].holders == 0 {
						delete(want, place)
						places[at] = places[len(places)-1]
						places = places[:len(places)-1]
					}
				}
				if len(places) > 0 {
					place := places[random.IntN(len(places))]
					if got := store.View(place); got != want[place].name {
						t.Errorf("at %d stands %q, want %q", place, got, want[place].name)
						return
					}
				}
				if got := store.Name(common); got != "held by all" {
					t.Errorf("the common name became %q", got)
					return
				}
			}
			for place, one := range want {
				for range one.holders {
					store.Drop(place)
				}
			}
		})
	}
	all.Wait()
}

func TestStoreNameLengths(t *testing.T) {
	var store Store
	for length := range NameBytesMax + 1 {
		name := strings.Repeat("n", length)
		if got := store.Name(store.Put(name)); got != name {
			t.Errorf("%d bytes became %q", length, got)
		}
	}
}
