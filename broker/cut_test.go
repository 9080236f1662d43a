package broker_test

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/broker/brokertest"
	"github.com/millrace/millrace/internal/logtest"
	"github.com/millrace/millrace/internal/polltest"
	"github.com/millrace/millrace/internal/redistest"
)

// cutPatience is how long a test of a cut waits for what must come.
const cutPatience = 30 * time.Second

// halves are the two brokers of a cut.
type halves struct {
	before, after       *broker.Redis
	first, second       *brokertest.Recorder
	cutFirst, cutSecond *broker.Cut
}

// divideBetween has one broker that hears subs, and another one that is to go on.
func divideBetween(t *testing.T, url string, subs ...broker.Subscription) *halves {
	t.Helper()
	h := &halves{}
	options := broker.RedisOptions{URL: url, Logger: quiet(), ChannelPrefix: "cut:"}
	h.before, h.first, _ = start(t, options)
	ready(t, h.before, h.first, subs...)
	options.PlainOn = h.before.PlainNode()
	made, err := broker.NewRedis(options)
	if err != nil {
		t.Fatal(err)
	}
	if h.cutSecond, err = made.Divide(broker.After); err != nil {
		t.Fatal(err)
	}
	h.after, h.second, _ = run(t, made, &logtest.Text{})
	ready(t, h.after, h.second, subs...)
	return h
}

// mark brings both sides to the mark.
func (h *halves) mark(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), cutPatience)
	defer cancel()
	var err error
	if h.cutFirst, err = h.before.Divide(broker.Before); err != nil {
		t.Fatal(err)
	}
	var servers [2][]string
	for side, cut := range []*broker.Cut{h.cutFirst, h.cutSecond} {
		polltest.Until(cutPatience, func() bool { // on a busy machine Redis may seem to stand still for a moment
			servers[side], err = cut.Listen(ctx, "test")
			return err == nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(servers[0], servers[1]) {
		t.Fatalf("one is connected to %v, the other to %v", servers[0], servers[1])
	}
	ready(t, h.after, h.second)
	if err := h.cutFirst.Mark(ctx); err != nil {
		t.Fatal(err)
	}
	for _, cut := range []*broker.Cut{h.cutFirst, h.cutSecond} {
		if err := cut.Wait(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// wantWhole holds what one broker handed over, and then the other, to be every number once and in
// order, from the first that came.
func wantWhole(t *testing.T, channel string, parts ...[]string) {
	t.Helper()
	next := -1
	for _, number := range slices.Concat(parts...) {
		got, err := strconv.Atoi(number)
		if err != nil || next >= 0 && got != next {
			t.Fatalf("%s: %s came where %d should", channel, number, next)
		}
		next = got + 1
	}
	for index, part := range parts {
		if len(part) == 0 {
			t.Errorf("%s: nothing came on side %d: the test shows nothing", channel, index)
		}
	}
}

func TestCutGivesEachEventToOne(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		kind     broker.Kind
		channels []string
		subs     []broker.Subscription
		cluster  bool
	}{
		"plain channels": {
			channels: []string{"a:1", "b:2", "c:3"}, subs: []broker.Subscription{plain("a:1"), plain("b:2"), plain("c:3")},
		},
		"a pattern over them": {
			channels: []string{"a:1", "a:2"}, subs: []broker.Subscription{plain("a:1"), pattern("a:*")},
		},
		"plain channels of a Cluster": {
			cluster:  true,
			channels: []string{"a:1", "b:2", "c:3"}, subs: []broker.Subscription{plain("a:1"), plain("b:2"), plain("c:3")},
		},
		"sharded channels of a Cluster": {
			cluster: true, kind: broker.Sharded,
			channels: []string{"a:1", "b:2", "c:3", "d:4"}, subs: []broker.Subscription{sharded("a:1"), sharded("b:2"), sharded("c:3"), sharded("d:4")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var url string
			var address func(string) string
			if test.cluster {
				cluster := redistest.StartCluster(t, 3)
				url, address = cluster.URL(), func(channel string) string { return cluster.Owner(cluster.Slot(t, channel)).Addr }
			} else {
				server := redistest.Start(t)
				url, address = server.URL(), at(server)
			}
			h := divideBetween(t, url, test.subs...)
			wire := make([]string, len(test.channels))
			for index, channel := range test.channels {
				wire[index] = "cut:" + channel
			}
			flood := publishNumbers(t, test.kind, address, wire...)
			for _, channel := range test.channels {
				h.first.WaitEvents(t, channel, 20)
			}
			h.mark(t)
			held := len(h.first.Events(test.channels[0]))
			h.cutSecond.Release(nil)
			for _, channel := range test.channels {
				h.second.WaitEvents(t, channel, 20)
			}
			flood.end()
			if got := len(h.first.Events(test.channels[0])); got != held {
				t.Errorf("the first broker handed over %d events behind the mark", got-held)
			}
			for _, channel := range test.channels {
				wantWhole(t, channel, h.first.Events(channel), h.second.Events(channel))
			}
		})
	}
}

// TestCutThatIsNone: where the second broker is not to be, the first one has everything.
func TestCutThatIsNone(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := divideBetween(t, server.URL(), plain("a:1"))
	flood := publishNumbers(t, broker.Plain, at(server), "cut:a:1")
	h.first.WaitEvents(t, "a:1", 10)
	h.mark(t)
	_ = h.after.Close()
	h.cutFirst.Release(nil)
	h.first.WaitEvents(t, "a:1", len(h.first.Events("a:1"))+20)
	flood.end()
	wantWhole(t, "a:1", h.first.Events("a:1"))
	if got := h.second.Events("a:1"); len(got) > 0 {
		t.Errorf("the second broker handed over %v", got)
	}
	if cut, err := h.before.Divide(broker.Before); err != nil {
		t.Errorf("there can be no second cut: %v", err)
	} else {
		cut.Release(nil)
	}
}

// TestCutNoticesALostConnection: what is behind the mark can't be known then.
func TestCutNoticesALostConnection(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := divideBetween(t, server.URL(), plain("a:1"))
	h.mark(t)
	if err := h.cutFirst.Check(); err != nil {
		t.Fatal(err)
	}
	server.CLI(t, "CLIENT", "KILL", "TYPE", "pubsub")
	deadline := time.Now().Add(cutPatience)
	for _, cut := range []*broker.Cut{h.cutFirst, h.cutSecond} {
		for cut.Check() == nil {
			if time.Now().After(deadline) {
				t.Fatal("a cut is still whole, without its connection")
			}
			<-time.After(time.Millisecond)
		}
		cut.Release(nil)
	}
	ready(t, h.before, h.first)
	if _, err := h.before.Divide(broker.After); err != nil {
		t.Error(err)
	}
	if _, err := h.before.Divide(broker.Before); err == nil {
		t.Error("there are two cuts at once")
	}
}

// TestCutNoticesAMovedSlot: what is published on a channel while it moves to another node's connection may
// have been missed on either side.
func TestCutNoticesAMovedSlot(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, 3)
	h := divideBetween(t, cluster.URL(), sharded("a:1"))
	h.mark(t)
	slot := cluster.Slot(t, "cut:a:1")
	from, to := cluster.Owner(slot), cluster.Nodes[0]
	if from == to {
		to = cluster.Nodes[1]
	}
	for _, cut := range []*broker.Cut{h.cutFirst, h.cutSecond} {
		if err := cut.Check(); err != nil {
			t.Fatal(err)
		}
	}
	cluster.Migrate(t, slot, from, to)
	deadline := time.Now().Add(cutPatience)
	for _, cut := range []*broker.Cut{h.cutFirst, h.cutSecond} {
		for cut.Check() == nil {
			if time.Now().After(deadline) {
				t.Fatal("a cut is still whole, though a channel has moved")
			}
			<-time.After(time.Millisecond)
		}
		cut.Release(nil)
	}
}

// TestRenew: what is subscribed to is handed over and confirmed as at the beginning, though nothing changed.
func TestRenew(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := clientOf(t, server)
	do(t, client, words("SET value 1", "XADD entries 5-1 data 1")...)
	value, entries := state("value"), logOf("entries")
	r, recorder, _ := start(t, broker.RedisOptions{URL: server.URL()})
	ready(t, r, recorder, value, entries)
	r.Renew(plain("value"))  // no key
	r.Renew(state("nobody")) // nobody subscribed to it
	for _, sub := range []broker.Subscription{value, entries} {
		r.Renew(sub)
		recorder.WaitConfirmed(t, sub, 2)
	}
	if values := recorder.Values("value"); !slices.Equal(values, []string{"1", "1"}) {
		t.Errorf("the values are %q", values)
	}
	want := broker.LogUpdate{Channel: "entries", From: broker.Position{Milliseconds: 5, Sequence: 1}}
	for _, update := range recorder.Updates("entries") {
		if update.From != want.From || update.Hole || len(update.Entries) != 0 {
			t.Errorf("an update is %+v, want %+v", update, want)
		}
	}
	do(t, client, words("SET value 2", "XADD entries 5-2 data 2")...)
	recorder.WaitValue(t, "value", "2")
	if got := recorder.WaitEntries(t, "entries", 1); !slices.Equal(got, []string{"2"}) {
		t.Errorf("the entries are %q", got)
	}
}

// TestCutKeepsPace: what was held back is not poured over those who get it all at once.
func TestCutKeepsPace(t *testing.T) {
	t.Parallel()
	const count = 3*broker.CutPaceEvents + 10
	server := redistest.Start(t)
	h := divideBetween(t, server.URL(), plain("a:1"))
	h.mark(t)
	server.CLI(t, "EVAL", "for i=1,"+strconv.Itoa(count)+" do redis.call('PUBLISH', 'cut:a:1', i) end", "0")
	deadline := time.Now().Add(cutPatience)
	for h.cutSecond.Held() < count {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d events came", h.cutSecond.Held(), count)
		}
		<-time.After(time.Millisecond)
	}
	calls, most := 0, 0
	h.cutSecond.Release(func() {
		calls++
		most = max(most, len(h.second.Events("a:1"))-(calls-1)*broker.CutPaceEvents)
	})
	if calls != 3 || most > broker.CutPaceEvents || len(h.second.Events("a:1")) != count {
		t.Errorf("%d events came, at most %d in one of %d goes", len(h.second.Events("a:1")), most, calls+1)
	}
	h.cutFirst.Release(nil)
}
