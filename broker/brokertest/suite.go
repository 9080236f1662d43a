package brokertest

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
)

// Engine is what a suite runs on.
type Engine struct {
	// New makes a broker that is not started. Linger is as in the broker's options. The suite
	// closes it.
	New func(t testing.TB, linger time.Duration) broker.Broker
	// Shared says that the brokers of one Engine hear each other.
	Shared bool
	// ManyNodes says that brokers may publish at different nodes, so that only what one broker published
	// has one order everywhere.
	ManyNodes bool
}

// lingerLong outlasts every test.
const lingerLong = time.Hour

// Run holds brokers to the contract. start is called once per case.
func Run(t *testing.T, start func(t testing.TB) Engine) {
	cases := []struct {
		name string
		run  func(*testing.T, Engine)
	}{
		{"every event after the confirmation arrives once and in order", testOrder},
		{"a channel that nobody asked for is silent", testSilence},
		{"what can't be a channel's name is passed over", testBadName},
		{"a pattern hears all its channels", testPattern},
		{"channel and pattern hand an event over once", testOnce},
		{"equal events in a row are all handed over", testEqualEvents},
		{"sharded and plain channels do not hear each other", testSharded},
		{"asking again confirms again", testConfirmAgain},
		{"coming back within the linger loses nothing", testLinger},
		{"after the linger it is quiet", testLingerEnds},
		{"flapping ends in the last state", testFlapping},
		{"many publishers and channels at once", testMany},
		{"payloads of every kind arrive unchanged", testPayloads},
		{"a publisher may reuse its buffer", testReuse},
		{"a thousand messages in one call stay together", testTogether},
		{"what can't be published is refused", testBadPublish},
		{"callbacks may call back", testCallBack},
		{"callbacks that tell of subscriptions do not overlap", testOverlap},
		{"life cycle", testLife},
		{"stats and health", testStats},
		{"two brokers see one order", testTwo},
		{"a state is told at once and when it changes", testState},
		{"a state that is there comes before the confirmation", testStateThere},
		{"a state that does not change is not told again", testStateSame},
		{"the newest of many states comes", testStateNewest},
		{"who comes back to a key is told anew", testKeyComesBack},
		{"a log is told from its end on", testLog},
		{"ten thousand entries of a log come once", testLogBurst},
		{"kinds in one call", testMixedPublish},
		{"a log's past is read in pages", testReadLog},
		{"what was trimmed is a hole", testReadTrimmed},
		{"a log of a broker that is away", testReadLogAway},
		{"a log that is not kept", testKeep},
		{"callbacks of keys may call back", testKeyCallBack},
		{"no horizon overtakes what was handed over", testHorizon},
	}
	for _, one := range cases {
		t.Run(one.name, func(t *testing.T) { one.run(t, start(t)) })
	}
}

// Start makes a broker that records and waits until it delivers.
func (e Engine) Start(t testing.TB, linger time.Duration) (broker.Broker, *Recorder) {
	t.Helper()
	recorder := NewRecorder()
	started := e.New(t, linger)
	t.Cleanup(func() { _ = started.Close() })
	if err := started.Start(recorder.Callbacks()); err != nil {
		t.Fatal(err)
	}
	recorder.Wait(t, "delivery", func() bool { return started.Health().Delivering })
	return started, recorder
}

func plain(channel string) broker.Subscription {
	return broker.Subscription{Channel: channel, Kind: broker.Plain}
}

func pattern(channel string) broker.Subscription {
	return broker.Subscription{Channel: channel, Kind: broker.Pattern}
}

func sharded(channel string) broker.Subscription {
	return broker.Subscription{Channel: channel, Kind: broker.Sharded}
}

func publish(t testing.TB, b broker.Broker, kind broker.Kind, channel string, payloads ...string) {
	t.Helper()
	for _, payload := range payloads {
		_, err := b.Publish(context.Background(), []broker.Message{{Channel: channel, Payload: []byte(payload), Kind: kind}})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func numbers(from, to int) []string {
	var list []string
	for number := from; number < to; number++ {
		list = append(list, strconv.Itoa(number))
	}
	return list
}

func wantEvents(t testing.TB, r *Recorder, channel string, want []string) {
	t.Helper()
	if got := r.WaitEvents(t, channel, len(want)); !slices.Equal(got, want) {
		t.Fatalf("%s: got %d events, want %d; they differ from number %d on", channel, len(got), len(want), firstDifference(got, want))
	}
}

func firstDifference(a, b []string) int {
	for index := range min(len(a), len(b)) {
		if a[index] != b[index] {
			return index
		}
	}
	return min(len(a), len(b))
}

func testOrder(t *testing.T, e Engine) {
	b, r := e.Start(t, lingerLong)
	b.Subscribe(plain("job:1"))
	r.WaitConfirmed(t, plain("job:1"), 1)
	began := time.Now()
	publish(t, b, broker.Plain, "job:1", numbers(0, 1000)...)
	wantEvents(t, r, "job:1", numbers(0, 1000))
	for _, record := range r.Records() {
		if record.What == Event && (record.Received.Before(began) || record.Received.After(record.At)) {
			t.Fatalf("received %v before it was handed over", record.At.Sub(record.Received))
		}
	}
}

func testSilence(t *testing.T, e Engine) {
	b, r := e.Start(t, lingerLong)
	b.Subscribe(plain("job:1"))
	r.WaitConfirmed(t, plain("job:1"), 1)
	publish(t, b, broker.Plain, "job:2", "x")
	publish(t, b, broker.Plain, "job:11", "x")
	publish(t, b, broker.Plain, "job:1", "end")
	wantEvents(t, r, "job:1", []string{"end"})
	if count := r.Count(Event); count != 1 {
		t.Fatalf("%d events, want 1", count)
	}
}

func testBadName(t *testing.T, e Engine) {
	b, r := e.Start(t, lingerLong)
	longest := "job:" + strings.Repeat("1", 251)
	for _, sub := range []broker.Subscription{plain(""), plain(longest + "1"), {Channel: "job:1", Kind: broker.Log + 1}} {
		b.Subscribe(sub)
		b.Unsubscribe(sub)
	}
	b.Subscribe(plain(longest))
	r.WaitConfirmed(t, plain(longest), 1)
	publish(t, b, broker.Plain, longest, "end")
	wantEvents(t, r, longest, []string{"end"})
	if stats := b.Stats(); stats.Subscribed != 1 || stats.Pending != 0 {
		t.Errorf("%d subscriptions and %d pending, want one", stats.Subscribed, stats.Pending)
	}
}

func testPattern(t *testing.T, e Engine) {
	b, r := e.Start(t, lingerLong)
	b.Subscribe(pattern("job:*"))
	r.WaitConfirmed(t, pattern("job:*"), 1)
	publish(t, b, broker.Plain, "jobs:1", "x")
	publish(t, b, broker.Plain, "job:1", "a")
	publish(t, b, broker.Plain, "job:1:user", "b")
	wantEvents(t, r, "job:1", []string{"a"})
	wantEvents(t, r, "job:1:user", []string{"b"})
	if count := r.Count(Event); count != 2 {
		t.Fatalf("%d events, want 2", count)
	}
}

func testOnce(t *testing.T, e Engine) {
	b, r := e.Start(t, lingerLong)
	subs := []broker.Subscription{plain("job:1"), pattern("job:*"), pattern("job:1:*"), plain("job:1:u")}
	for _, sub := range subs {
		b.Subscribe(sub)
	}
	for _, sub := range subs {
		r.WaitConfirmed(t, sub, 1)
	}
	for number := range 100 {
		publish(t, b, broker.Plain, "job:1", strconv.Itoa(number))
		publish(t, b, broker.Plain, "job:1:u", strconv.Itoa(number))
		publish(t, b, broker.Plain, "job:2", strconv.Itoa(number))
		publish(t, b, broker.Plain, "job:1:v", strconv.Itoa(number))
	}
	for _, channel := range []string{"job:1", "job:1:u", "job:2", "job:1:v"} {
		wantEvents(t, r, channel, numbers(0, 100))
	}
	if count := r.Count(Event); count != 400 {
		t.Fatalf("%d events, want 400", count)
	}
}

func testEqualEvents(t *testing.T, e Engine) {
	b, r := e.Start(t, lingerLong)
	subs := []broker.Subscription{pattern("job:*"), pattern("job:1:*"), plain("job:1:u")}
	for _, sub := range subs {
		b.Subscribe(sub)
		r.WaitConfirmed(t, sub, 1)
		publish(t, b, broker.Plain, "job:1:u", "same", "same", "same")
	}
	publish(t, b, broker.Plain, "job:1:u", "end")
	want := append(slices.Repeat([]string{"same"}, 9), "end")
	wantEvents(t, r, "job:1:u", want)
}

func testSharded(t *testing.T, e Engine) {
	b, r := e.Start(t, lingerLong)
	b.Subscribe(plain("job:1"))
	b.Subscribe(sharded("shard:1"))
	b.Subscribe(pattern("shard:*"))
	for _, sub := range []broker.Subscription{plain("job:1"), sharded("shard:1"), pattern("shard:*")} {
		r.WaitConfirmed(t, sub, 1)
	}
	publish(t, b, broker.Sharded, "job:1", "not for plain")
	publish(t, b, broker.Sharded, "shard:2", "not for the pattern")
	publish(t, b, broker.Sharded, "shard:1", "a")
	publish(t, b, broker.Plain, "shard:1", "b")
	publish(t, b, broker.Plain, "job:1", "c")
	r.WaitEvents(t, "job:1", 1)
	r.WaitEvents(t, "shard:1", 2)
	got := r.Events("shard:1")
	slices.Sort(got)
	if !slices.Equal(got, []string{"a", "b"}) || r.Count(Event) != 3 {
		t.Fatalf("shard:1 got %q of %d events in all", got, r.Count(Event))
	}
}

func testConfirmAgain(t *testing.T, e Engine) {
	b, r := e.Start(t, lingerLong)
	for times := 1; times <= 3; times++ {
		b.Subscribe(plain("job:1"))
		r.WaitConfirmed(t, plain("job:1"), times)
	}
	publish(t, b, broker.Plain, "job:1", "once")
	wantEvents(t, r, "job:1", []string{"once"})
	if r.Count(Mended) != 0 {
		t.Fatal("a loss was told where none was")
	}
}

func testLinger(t *testing.T, e Engine) {
	b, r := e.Start(t, lingerLong)
	b.Subscribe(plain("job:1"))
	r.WaitConfirmed(t, plain("job:1"), 1)
	b.Unsubscribe(plain("job:1"))
	publish(t, b, broker.Plain, "job:1", numbers(0, 10)...)
	b.Subscribe(plain("job:1"))
	r.WaitConfirmed(t, plain("job:1"), 2)
	publish(t, b, broker.Plain, "job:1", numbers(10, 20)...)
	r.Wait(t, "the last event", func() bool { return slices.Contains(r.Events("job:1"), "19") })
	if got := r.Events("job:1"); !slices.Equal(got[len(got)-10:], numbers(10, 20)) {
		t.Fatalf("after coming back got %q", got)
	}
	if r.Count(Mended) != 0 || r.Count(Lost) != 0 {
		t.Fatal("a loss was told where none was")
	}
}

func testLingerEnds(t *testing.T, e Engine) {
	b, r := e.Start(t, -1)
	b.Subscribe(plain("job:1"))
	b.Subscribe(plain("job:2"))
	r.WaitConfirmed(t, plain("job:1"), 1)
	r.WaitConfirmed(t, plain("job:2"), 1)
	b.Unsubscribe(plain("job:1"))
	b.Unsubscribe(plain("job:1"))
	b.Unsubscribe(plain("job:3"))
	r.Wait(t, "the end of the subscription", func() bool { return b.Stats().Subscribed == 1 })
	publish(t, b, broker.Plain, "job:1", "x")
	publish(t, b, broker.Plain, "job:2", "y")
	wantEvents(t, r, "job:2", []string{"y"})
	if got := r.Events("job:1"); len(got) != 0 {
		t.Fatalf("got %q after the end", got)
	}
	b.Subscribe(plain("job:1"))
	r.WaitConfirmed(t, plain("job:1"), 2)
	publish(t, b, broker.Plain, "job:1", "z")
	wantEvents(t, r, "job:1", []string{"z"})
}

func testFlapping(t *testing.T, e Engine) {
	for _, linger := range []time.Duration{-1, lingerLong} {
		b, r := e.Start(t, linger)
		for range 10_000 {
			b.Subscribe(plain("job:1"))
			b.Unsubscribe(plain("job:1"))
			b.Unsubscribe(plain("job:2"))
			b.Subscribe(plain("job:2"))
		}
		b.Subscribe(plain("job:1"))
		r.Wait(t, "both subscriptions", func() bool {
			stats := b.Stats()
			return stats.Subscribed == 2 && stats.Pending == 0
		})
		publish(t, b, broker.Plain, "job:1", "a")
		publish(t, b, broker.Plain, "job:2", "b")
		wantEvents(t, r, "job:1", []string{"a"})
		wantEvents(t, r, "job:2", []string{"b"})
	}
}
