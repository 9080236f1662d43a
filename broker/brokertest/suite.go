package brokertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
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
		err := b.Publish(context.Background(), []broker.Message{{Channel: channel, Payload: []byte(payload), Kind: kind}})
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

func testMany(t *testing.T, e Engine) {
	const publishers, channels, each = 8, 50, 20
	b, r := e.Start(t, lingerLong)
	for index := range channels {
		go b.Subscribe(plain("job:" + strconv.Itoa(index)))
	}
	for index := range channels {
		r.WaitConfirmed(t, plain("job:"+strconv.Itoa(index)), 1)
	}
	var group sync.WaitGroup
	for publisher := range publishers {
		group.Go(func() {
			for number := range each {
				for channel := range channels {
					payload := fmt.Sprintf("%d %d", publisher, number)
					message := broker.Message{Channel: "job:" + strconv.Itoa(channel), Payload: []byte(payload)}
					if err := b.Publish(context.Background(), []broker.Message{message}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	group.Wait()
	for channel := range channels {
		next := make([]int, publishers)
		for _, payload := range r.WaitEvents(t, "job:"+strconv.Itoa(channel), publishers*each) {
			var publisher, number int
			if _, err := fmt.Sscan(payload, &publisher, &number); err != nil {
				t.Fatal(err)
			}
			if number != next[publisher] {
				t.Fatalf("channel %d: publisher %d: number %d, want %d", channel, publisher, number, next[publisher])
			}
			next[publisher]++
		}
	}
	if got, want := b.Stats().Events, uint64(publishers*channels*each); got != want {
		t.Fatalf("%d events counted, want %d", got, want)
	}
}

func testPayloads(t *testing.T, e Engine) {
	b, r := e.Start(t, lingerLong)
	b.Subscribe(plain("job:1"))
	r.WaitConfirmed(t, plain("job:1"), 1)
	payloads := []string{"", "\x00\xff\r\n", `{"type":"x"}`, strings.Repeat("long ", 300_000), "ü"}
	publish(t, b, broker.Plain, "job:1", payloads...)
	wantEvents(t, r, "job:1", payloads)
}

func testReuse(t *testing.T, e Engine) {
	b, r := e.Start(t, lingerLong)
	b.Subscribe(plain("job:1"))
	r.WaitConfirmed(t, plain("job:1"), 1)
	buffer := make([]byte, 3)
	for number := range 100 {
		copy(buffer, fmt.Sprintf("%03d", number))
		if err := b.Publish(context.Background(), []broker.Message{{Channel: "job:1", Payload: buffer}}); err != nil {
			t.Fatal(err)
		}
	}
	for number, payload := range r.WaitEvents(t, "job:1", 100) {
		if payload != fmt.Sprintf("%03d", number) {
			t.Fatalf("event %d is %q", number, payload)
		}
	}
}

func testTogether(t *testing.T, e Engine) {
	b, r := e.Start(t, lingerLong)
	b.Subscribe(plain("job:1"))
	b.Subscribe(plain("job:2"))
	r.WaitConfirmed(t, plain("job:1"), 1)
	r.WaitConfirmed(t, plain("job:2"), 1)
	var group sync.WaitGroup
	for publisher := range 4 {
		group.Go(func() {
			messages := make([]broker.Message, 1000)
			for index := range messages {
				messages[index] = broker.Message{
					Channel: "job:" + strconv.Itoa(1+index%2), Payload: []byte(strconv.Itoa(publisher)),
				}
			}
			if err := b.Publish(context.Background(), messages); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for _, channel := range []string{"job:1", "job:2"} {
		got := r.WaitEvents(t, channel, 2000)
		for from := 0; from < len(got); from += 500 {
			if slices.ContainsFunc(got[from:from+500], func(payload string) bool { return payload != got[from] }) {
				t.Fatalf("%s: the messages of one call were torn apart", channel)
			}
		}
	}
}

func testBadPublish(t *testing.T, e Engine) {
	b, _ := e.Start(t, lingerLong)
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	good := []broker.Message{{Channel: "job:1", Payload: []byte("x")}}
	if err := b.Publish(context.Background(), nil); err != nil {
		t.Fatalf("no messages: %v", err)
	}
	if err := b.Publish(context.Background(), []broker.Message{{Channel: "job:*", Kind: broker.Pattern}}); err == nil {
		t.Fatal("a pattern was published to")
	}
	if err := b.Publish(context.Background(), []broker.Message{{}}); err == nil {
		t.Fatal("a channel without a name was published to")
	}
	// A canceled call may have been in time; it must not hang.
	if err := b.Publish(canceled, good); err != nil && !errors.Is(err, broker.ErrUnavailable) {
		t.Fatalf("canceled: %v", err)
	}
	fresh := e.New(t, lingerLong)
	defer fresh.Close()
	if err := fresh.Publish(context.Background(), good); !errors.Is(err, broker.ErrUnavailable) {
		t.Fatalf("not started: %v", err)
	}
	_ = b.Close()
	if err := b.Publish(context.Background(), good); !errors.Is(err, broker.ErrUnavailable) {
		t.Fatalf("closed: %v", err)
	}
}

func testCallBack(t *testing.T, e Engine) {
	recorder := NewRecorder()
	callbacks := recorder.Callbacks()
	b := e.New(t, lingerLong)
	t.Cleanup(func() { _ = b.Close() })
	confirmed, event, health := callbacks.Confirmed, callbacks.Event, callbacks.Health
	callbacks.Confirmed = func(subs []broker.Subscription, lost bool) {
		confirmed(subs, lost)
		if subs[0].Channel == "job:1" {
			b.Subscribe(plain("job:2"))
			_, _ = b.Health(), b.Stats()
		}
	}
	callbacks.Event = func(channel string, payload []byte, received time.Time) {
		event(channel, payload, received)
		b.Unsubscribe(plain("job:1"))
		b.Subscribe(plain("job:3"))
		_, _ = b.Health(), b.Stats()
	}
	callbacks.Health = func(now broker.Health) {
		health(now)
		b.Subscribe(plain("job:1"))
		_, _ = b.Health(), b.Stats()
	}
	if err := b.Start(callbacks); err != nil {
		t.Fatal(err)
	}
	recorder.WaitConfirmed(t, plain("job:2"), 1)
	publish(t, b, broker.Plain, "job:2", "x")
	recorder.WaitConfirmed(t, plain("job:3"), 1)
}

func testOverlap(t *testing.T, e Engine) {
	b, r := e.Start(t, -1)
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for number := range 200 {
				sub := plain("job:" + strconv.Itoa(number%10+10*worker))
				b.Subscribe(sub)
				if number%3 == 0 {
					b.Unsubscribe(sub)
				}
			}
		})
	}
	group.Wait()
	r.Wait(t, "quiet", func() bool { return b.Stats().Pending == 0 })
	if r.Overlapped() {
		t.Fatal("two callbacks ran at once")
	}
}

func testLife(t *testing.T, e Engine) {
	b := e.New(t, lingerLong)
	if err := b.Start(broker.Callbacks{}); err == nil {
		t.Fatal("started without callbacks")
	}
	if b.Health().Delivering {
		t.Fatal("delivers before the start")
	}
	r := NewRecorder()
	b.Subscribe(plain("job:1")) // before the start
	if err := b.Start(r.Callbacks()); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(r.Callbacks()); err == nil {
		t.Fatal("started twice")
	}
	r.WaitConfirmed(t, plain("job:1"), 1)
	for range 2 {
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	before := len(r.Records())
	b.Subscribe(plain("job:2"))
	b.Unsubscribe(plain("job:1"))
	if err := b.Start(r.Callbacks()); err == nil {
		t.Fatal("started after Close")
	}
	if after := len(r.Records()); after != before {
		t.Fatalf("%d callbacks after Close", after-before)
	}
	never := e.New(t, lingerLong)
	if err := never.Close(); err != nil {
		t.Fatalf("never started: %v", err)
	}
}

func testStats(t *testing.T, e Engine) {
	b, r := e.Start(t, lingerLong)
	health := b.Health()
	if !health.Delivering || !health.Reached || health.Reason != "" || health.Nodes < 1 ||
		health.NodesDelivering != health.Nodes || health.Since.IsZero() {
		t.Fatalf("health %+v", health)
	}
	r.Wait(t, "the health callback", func() bool {
		return slices.ContainsFunc(r.Records(), func(record Record) bool { return record.What == Health && record.Health.Delivering })
	})
	for _, sub := range []broker.Subscription{plain("job:1"), pattern("job:*"), sharded("shard:1")} {
		b.Subscribe(sub)
		r.WaitConfirmed(t, sub, 1)
	}
	publish(t, b, broker.Plain, "job:1", "a", "b")
	r.WaitEvents(t, "job:1", 2)
	b.Unsubscribe(plain("job:1"))
	stats := b.Stats()
	want := broker.Stats{Events: 2, Published: 2, Subscribed: 3}
	if stats != want {
		t.Fatalf("stats %+v, want %+v", stats, want)
	}
}

func testTwo(t *testing.T, e Engine) {
	if !e.Shared {
		// A broker of its own memory has nobody to agree with: one sees its own order.
		return
	}
	const each = 300
	first, firstRecorder := e.Start(t, lingerLong)
	second, secondRecorder := e.Start(t, lingerLong)
	for _, b := range []broker.Broker{first, second} {
		b.Subscribe(plain("job:1"))
	}
	firstRecorder.WaitConfirmed(t, plain("job:1"), 1)
	secondRecorder.WaitConfirmed(t, plain("job:1"), 1)
	var group sync.WaitGroup
	for number, b := range []broker.Broker{first, second} {
		group.Go(func() {
			for index := range each {
				publish(t, b, broker.Plain, "job:1", fmt.Sprintf("%d %d", number, index))
			}
		})
	}
	group.Wait()
	a := strings.Join(firstRecorder.WaitEvents(t, "job:1", 2*each), ",")
	c := strings.Join(secondRecorder.WaitEvents(t, "job:1", 2*each), ",")
	if !bytes.Equal([]byte(a), []byte(c)) {
		t.Fatal("the two brokers saw different orders")
	}
}
