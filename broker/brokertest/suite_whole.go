package brokertest

import (
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
					if _, err := b.Publish(context.Background(), []broker.Message{message}); err != nil {
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
		if _, err := b.Publish(context.Background(), []broker.Message{{Channel: "job:1", Payload: buffer}}); err != nil {
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
			if _, err := b.Publish(context.Background(), messages); err != nil {
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
	if _, err := b.Publish(context.Background(), nil); err != nil {
		t.Fatalf("no messages: %v", err)
	}
	if _, err := b.Publish(context.Background(), []broker.Message{{Channel: "job:*", Kind: broker.Pattern}}); err == nil {
		t.Fatal("a pattern was published to")
	}
	if _, err := b.Publish(context.Background(), []broker.Message{{}}); err == nil {
		t.Fatal("a channel without a name was published to")
	}
	// A canceled call may have been in time; it must not hang.
	if _, err := b.Publish(canceled, good); err != nil && !errors.Is(err, broker.ErrUnavailable) {
		t.Fatalf("canceled: %v", err)
	}
	fresh := e.New(t, lingerLong)
	defer fresh.Close()
	if _, err := fresh.Publish(context.Background(), good); !errors.Is(err, broker.ErrUnavailable) {
		t.Fatalf("not started: %v", err)
	}
	_ = b.Close()
	if _, err := b.Publish(context.Background(), good); !errors.Is(err, broker.ErrUnavailable) {
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
	if stats.CanaryDelay < 0 || stats.CanaryDelay > time.Minute || stats.HorizonAge < 0 || stats.HorizonAge > time.Minute {
		t.Errorf("a canary is under way for %v, the horizon rose %v ago", stats.CanaryDelay, stats.HorizonAge)
	}
	// A horizon may be known without any log, and memory has no canary.
	stats.Horizon, stats.HorizonAge, stats.CanaryDelay = 0, 0, 0
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
	a, c := firstRecorder.WaitEvents(t, "job:1", 2*each), secondRecorder.WaitEvents(t, "job:1", 2*each)
	if e.ManyNodes {
		for number := range 2 {
			of := fmt.Sprintf("%d ", number)
			others := func(event string) bool { return !strings.HasPrefix(event, of) }
			if got, other := slices.DeleteFunc(slices.Clone(a), others), slices.DeleteFunc(slices.Clone(c), others); !slices.Equal(got, other) {
				t.Fatalf("the two brokers saw different orders of what broker %d published", number)
			}
		}
		return
	}
	if !slices.Equal(a, c) {
		t.Fatal("the two brokers saw different orders")
	}
}
