package broker_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/broker/brokertest"
	"github.com/millrace/millrace/internal/names"
	"github.com/millrace/millrace/internal/redistest"
)

// TestSharedNames: the broker holds a name that somebody else keeps too, as long as it needs it
// and no longer.
func TestSharedNames(t *testing.T) {
	t.Parallel()
	var store names.Store
	server := redistest.Start(t)
	b, r, _ := start(t, broker.RedisOptions{URL: server.URL(), Names: &store, Linger: -1})
	ready(t, b, r)
	place := store.Put("job:shared")
	b.SubscribeNamed(plain("job:shared"), place)
	store.Drop(place) // the broker holds it now
	others := map[names.Place]bool{}
	for number := range 100 { // as long, so that they would take its place
		others[store.Put("job:othe"+strconv.Itoa(10+number%90))] = true
	}
	if others[place] {
		t.Fatal("a name that the broker needs was forgotten")
	}
	r.WaitConfirmed(t, plain("job:shared"), 1)
	server.CLI(t, "CLIENT", "KILL", "TYPE", "pubsub")
	r.Wait(t, "lost and confirmed again", func() bool { return r.Count(brokertest.Mended) > 0 })
	if got := server.CLI(t, "PUBSUB", "CHANNELS", "job:*"); strings.TrimSpace(got) != "job:shared" {
		t.Errorf("Redis was asked for %q", got)
	}
	b.Unsubscribe(plain("job:shared"))
	r.Wait(t, "the name's place is free", func() bool { return store.Put("job:shared") == place })
}
