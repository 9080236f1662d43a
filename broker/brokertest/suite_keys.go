package brokertest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/proto"
)

// keyNumber makes the names of keys unique: one Redis serves all cases, and keys stay.
var keyNumber atomic.Int64

func newState() broker.Subscription {
	return broker.Subscription{Channel: "state:" + strconv.FormatInt(keyNumber.Add(1), 10), Kind: broker.State}
}

func newLog() broker.Subscription {
	return broker.Subscription{Channel: "log:" + strconv.FormatInt(keyNumber.Add(1), 10), Kind: broker.Log}
}

// write publishes to one key, one call a payload, and returns the positions.
func write(t testing.TB, b broker.Broker, sub broker.Subscription, payloads ...string) []broker.Position {
	t.Helper()
	var all []broker.Position
	for _, payload := range payloads {
		message := broker.Message{Channel: sub.Channel, Kind: sub.Kind, Payload: []byte(payload)}
		positions, err := b.Publish(context.Background(), []broker.Message{message})
		if err != nil {
			t.Fatal(err)
		}
		if sub.Kind == broker.Log && len(positions) != 1 || sub.Kind != broker.Log && positions != nil {
			t.Fatalf("%d positions for one message of kind %d", len(positions), sub.Kind)
		}
		all = append(all, positions...)
	}
	return all
}

func testState(t *testing.T, e Engine) {
	b, r := e.Start(t, lingerLong)
	sub := newState()
	b.Subscribe(sub)
	r.WaitConfirmed(t, sub, 1)
	if got := r.Values(sub.Channel); !slices.Equal(got, []string{NoValue}) {
		t.Fatalf("confirmed with %q, want none", got)
	}
	began := time.Now()
	for _, value := range []string{"a", "b", "", "\x00\xff\r\n", strings.Repeat("long ", 10_000)} {
		write(t, b, sub, value)
		r.WaitValue(t, sub.Channel, value)
	}
	for _, record := range r.Records() {
		if record.What == Value && record.Payload != nil && (record.Received.Before(began) || record.Received.After(record.At)) {
			t.Fatalf("received %v before it was handed over", record.At.Sub(record.Received))
		}
	}
	if got := b.Stats(); got.Tracked != 1 || got.Published != 5 {
		t.Fatalf("stats %+v", got)
	}
}

func testStateThere(t *testing.T, e Engine) {
	b, r := e.Start(t, lingerLong)
	sub := newState()
	write(t, b, sub, "old", "now")
	b.Subscribe(sub)
	r.WaitConfirmed(t, sub, 1)
	if got := r.Values(sub.Channel); !slices.Equal(got, []string{"now"}) {
		t.Fatalf("confirmed with %q", got)
	}
	b.Subscribe(sub)
	r.WaitConfirmed(t, sub, 2)
	if got := r.Values(sub.Channel); len(got) != 1 {
		t.Fatalf("asked again, got %q", got)
	}
}

func testStateSame(t *testing.T, e Engine) {
	b, r := e.Start(t, lingerLong)
	sub := newState()
	b.Subscribe(sub)
	r.WaitConfirmed(t, sub, 1)
	for _, value := range []string{"a", "a", "a", "b", "b", "end"} {
		write(t, b, sub, value)
	}
	got := r.WaitValue(t, sub.Channel, "end")
	if !slices.Equal(got, slices.Compact(slices.Clone(got))) {
		t.Fatalf("a value that did not change was handed over: %q", got)
	}
}

func testStateNewest(t *testing.T, e Engine) {
	b, r := e.Start(t, lingerLong)
	sub := newState()
	b.Subscribe(sub)
	r.WaitConfirmed(t, sub, 1)
	write(t, b, sub, numbers(0, 2000)...)
	last := -1
	for _, value := range r.WaitValue(t, sub.Channel, "1999")[1:] {
		number, err := strconv.Atoi(value)
		if err != nil || number <= last {
			t.Fatalf("%s came after %d", value, last)
		}
		last = number
	}
}

func testKeyComesBack(t *testing.T, e Engine) {
	b, r := e.Start(t, lingerLong)
	state, log := newState(), newLog()
	write(t, b, state, "a")
	b.Subscribe(state)
	b.Subscribe(log)
	r.WaitConfirmed(t, state, 1)
	r.WaitConfirmed(t, log, 1)
	b.Unsubscribe(state)
	b.Unsubscribe(log)
	positions := write(t, b, log, "missed")
	b.Subscribe(state)
	b.Subscribe(log)
	r.WaitConfirmed(t, state, 2)
	r.WaitConfirmed(t, log, 2)
	if got := r.Values(state.Channel); !slices.Equal(got, []string{"a", "a"}) {
		t.Fatalf("who came back got %q", got)
	}
	updates := r.Updates(log.Channel)
	last := updates[len(updates)-1]
	if last.From != positions[0] || len(last.Entries) != 0 || last.Hole {
		t.Fatalf("who came back to a log whose end is %v was told %+v", positions[0], last)
	}
	write(t, b, log, "heard")
	r.Wait(t, "the next entry", func() bool { return slices.Contains(r.Entries(log.Channel), "heard") })
}

func testLog(t *testing.T, e Engine) {
	b, r := e.Start(t, lingerLong)
	sub, quiet := newLog(), newLog()
	before := write(t, b, sub, "before", "too")
	b.Subscribe(sub)
	b.Subscribe(quiet)
	r.WaitConfirmed(t, sub, 1)
	r.WaitConfirmed(t, quiet, 1)
	first := r.Updates(sub.Channel)
	if len(first) != 1 || first[0].From != before[1] || len(first[0].Entries) != 0 || first[0].Hole {
		t.Fatalf("the first update is %+v, the log's end %v", first, before[1])
	}
	if first := r.Updates(quiet.Channel); len(first) != 1 || first[0].From != (broker.Position{}) {
		t.Fatalf("the first update of a log that is not there is %+v", first)
	}
	positions := write(t, b, sub, numbers(0, 500)...)
	positions = append(positions, write(t, b, quiet, numbers(0, 3)...)...)
	want := append(numbers(0, 500), numbers(0, 3)...)
	r.WaitEntries(t, sub.Channel, 500)
	r.WaitEntries(t, quiet.Channel, 3)
	index := 0
	for _, channel := range []string{sub.Channel, quiet.Channel} {
		for _, entry := range wantContinuous(t, r, channel) {
			if string(entry.Payload) != want[index] || entry.Position != positions[index] {
				t.Fatalf("entry %d is %q at %v, want %q at %v", index, entry.Payload, entry.Position, want[index], positions[index])
			}
			index++
		}
	}
}

// wantContinuous checks that every update goes on where the one before ended, and returns all
// entries.
func wantContinuous(t testing.TB, r *Recorder, channel string) []broker.Entry {
	t.Helper()
	var entries []broker.Entry
	updates := r.Updates(channel)
	at := updates[0].From
	for index, update := range updates {
		if update.Hole || update.From != at {
			t.Fatalf("%s: update %d has a hole (%v) or begins at %v instead of %v", channel, index, update.Hole, update.From, at)
		}
		for _, entry := range update.Entries {
			if !at.Before(entry.Position) {
				t.Fatalf("%s: %v came after %v", channel, entry.Position, at)
			}
			at = entry.Position
		}
		entries = append(entries, update.Entries...)
	}
	return entries
}

func testLogBurst(t *testing.T, e Engine) {
	const calls, each = 20, 500
	b, r := e.Start(t, lingerLong)
	sub := newLog()
	b.Subscribe(sub)
	r.WaitConfirmed(t, sub, 1)
	for call := range calls {
		messages := make([]broker.Message, each)
		for index := range messages {
			messages[index] = broker.Message{Channel: sub.Channel, Kind: broker.Log, Payload: []byte(strconv.Itoa(call*each + index))}
		}
		if _, err := b.Publish(context.Background(), messages); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.WaitEntries(t, sub.Channel, calls*each); !slices.Equal(got, numbers(0, calls*each)) {
		t.Fatalf("%d entries that differ from number %d on", len(got), firstDifference(got, numbers(0, calls*each)))
	}
	wantContinuous(t, r, sub.Channel)
}

func testMixedPublish(t *testing.T, e Engine) {
	b, r := e.Start(t, lingerLong)
	state, log, event := newState(), newLog(), plain("job:1")
	for _, sub := range []broker.Subscription{state, log, event} {
		b.Subscribe(sub)
		r.WaitConfirmed(t, sub, 1)
	}
	var messages []broker.Message
	for _, sub := range []broker.Subscription{event, log, state, log} {
		messages = append(messages, broker.Message{Channel: sub.Channel, Kind: sub.Kind, Payload: []byte("x")})
	}
	positions, err := b.Publish(context.Background(), messages)
	if err != nil {
		t.Fatal(err)
	}
	none := broker.Position{}
	if len(positions) != 4 || positions[0] != none || positions[2] != none || !positions[1].Before(positions[3]) {
		t.Fatalf("positions %v", positions)
	}
	r.WaitEvents(t, event.Channel, 1)
	r.WaitValue(t, state.Channel, "x")
	r.WaitEntries(t, log.Channel, 2)
	// An event on the name of a key is none of the key's business, and the other way round.
	publish(t, b, broker.Plain, state.Channel, "y")
	publish(t, b, broker.Plain, log.Channel, "y")
	write(t, b, state, "z")
	r.WaitValue(t, state.Channel, "z")
	if got := r.Entries(log.Channel); len(got) != 2 || r.Count(Event) != 1 {
		t.Fatalf("%d entries and %d events", len(got), r.Count(Event))
	}
}

func testReadLog(t *testing.T, e Engine) {
	b, _ := e.Start(t, lingerLong)
	sub := newLog()
	read := func(after broker.Position, count int) broker.LogChunk {
		t.Helper()
		chunk, err := b.ReadLog(context.Background(), sub.Channel, after, count)
		if err != nil {
			t.Fatal(err)
		}
		return chunk
	}
	zero := broker.Position{}
	if got := read(zero, 10); len(got.Entries) != 0 || !got.End || got.Hole {
		t.Fatalf("a log that is not there gives %+v", got)
	}
	if got := read(broker.Position{Milliseconds: 5}, 10); !got.End || !got.Hole {
		t.Fatalf("a position in a log that is not there gives %+v", got)
	}
	positions := write(t, b, sub, numbers(0, 25)...)
	var got []string
	at := zero
	for page := 0; ; page++ {
		chunk := read(at, 10)
		if chunk.Hole || len(chunk.Entries) > 10 {
			t.Fatalf("page %d: hole %v, %d entries", page, chunk.Hole, len(chunk.Entries))
		}
		for _, entry := range chunk.Entries {
			got = append(got, string(entry.Payload))
			at = entry.Position
		}
		if chunk.End {
			break
		}
	}
	if !slices.Equal(got, numbers(0, 25)) {
		t.Fatalf("page by page got %q", got)
	}
	last := positions[24]
	cases := []struct {
		name  string
		after broker.Position
		first int // entry that comes first, 25 for none
		hole  bool
	}{
		{"after an entry", positions[10], 11, false},
		{"after the last", last, 25, false},
		{"beyond the last", broker.Position{Milliseconds: last.Milliseconds + 1}, 25, true},
		{"the end of a millisecond beyond the last", broker.Position{Milliseconds: last.Milliseconds + 1, Sequence: math.MaxUint64}, 25, false},
		{"before the first", broker.Position{Milliseconds: 1}, 0, true},
	}
	for _, one := range cases {
		chunk := read(one.after, 1000)
		if len(chunk.Entries) != 25-one.first || chunk.Hole != one.hole || !chunk.End {
			t.Errorf("%s: %d entries, end %v, hole %v", one.name, len(chunk.Entries), chunk.End, chunk.Hole)
		}
	}
}

func testReadTrimmed(t *testing.T, e Engine) {
	b, r := e.Start(t, lingerLong)
	sub := newLog()
	b.Subscribe(sub)
	r.WaitConfirmed(t, sub, 1)
	var positions []broker.Position
	for number := range 1000 {
		message := broker.Message{Channel: sub.Channel, Kind: broker.Log, Payload: []byte(strconv.Itoa(number)), MaxLen: 100}
		given, err := b.Publish(context.Background(), []broker.Message{message})
		if err != nil {
			t.Fatal(err)
		}
		positions = append(positions, given...)
	}
	for _, after := range []broker.Position{{}, positions[10]} {
		chunk, err := b.ReadLog(context.Background(), sub.Channel, after, broker.ReadLogMax)
		if err != nil {
			t.Fatal(err)
		}
		if !chunk.Hole || chunk.Reason != proto.GapTrimmed || len(chunk.Entries) < 100 || len(chunk.Entries) > 300 || !chunk.End {
			t.Fatalf("after %v: hole %v %v, %d entries", after, chunk.Hole, chunk.Reason, len(chunk.Entries))
		}
	}
	// Who listens heard them all before they went, or, too slow for once, of a hole.
	r.Wait(t, "the last entry", func() bool { return slices.Contains(r.Entries(sub.Channel), "999") })
	if got := r.Entries(sub.Channel); !slices.Equal(got, numbers(0, 1000)) && len(r.Holes(sub.Channel)) == 0 {
		t.Fatalf("%d entries, and no hole", len(got))
	}
}

func testReadLogAway(t *testing.T, e Engine) {
	b := e.New(t, lingerLong)
	if _, err := b.ReadLog(context.Background(), "log:1", broker.Position{}, 1); !errors.Is(err, broker.ErrUnavailable) {
		t.Fatalf("not started: %v", err)
	}
	_ = b.Close()
	if _, err := b.ReadLog(context.Background(), "log:1", broker.Position{}, 1); !errors.Is(err, broker.ErrUnavailable) {
		t.Fatalf("closed: %v", err)
	}
}

func testKeyCallBack(t *testing.T, e Engine) {
	recorder := NewRecorder()
	callbacks := recorder.Callbacks()
	b := e.New(t, lingerLong)
	t.Cleanup(func() { _ = b.Close() })
	state, log, more := newState(), newLog(), newState()
	var reads atomic.Int64
	every := func(channel string) {
		b.Subscribe(more)
		b.Unsubscribe(plain("job:1"))
		b.Prefer([]broker.Subscription{state, log, more, plain("job:1")})
		_, _ = b.Health(), b.Stats()
		_, err := b.ReadLog(context.Background(), log.Channel, broker.Position{}, 10)
		if err == nil {
			reads.Add(1)
		} else if !errors.Is(err, broker.ErrUnavailable) { // it is being closed
			t.Errorf("%s: %v", channel, err)
		}
	}
	value, update := callbacks.Value, callbacks.Log
	callbacks.Value = func(channel string, payload []byte, received time.Time) {
		value(channel, payload, received)
		every(channel)
	}
	callbacks.Log = func(one broker.LogUpdate, received time.Time) {
		update(one, received)
		every(one.Channel)
	}
	if err := b.Start(callbacks); err != nil {
		t.Fatal(err)
	}
	b.Subscribe(state)
	b.Subscribe(log)
	recorder.WaitConfirmed(t, state, 1)
	recorder.WaitConfirmed(t, log, 1)
	write(t, b, log, "x")
	recorder.WaitEntries(t, log.Channel, 1)
	recorder.WaitConfirmed(t, more, 1)
	if reads.Load() == 0 {
		t.Fatal("no log could be read")
	}
}

// testHorizon writes to many logs, to some of them all the time, and holds every horizon against
// what came later.
func testHorizon(t *testing.T, e Engine) {
	const logs, busy, writers = 30, 3, 4
	b, r := e.Start(t, lingerLong)
	var subs []broker.Subscription
	for range logs {
		subs = append(subs, newLog())
		b.Subscribe(subs[len(subs)-1])
	}
	for _, sub := range subs {
		r.WaitConfirmed(t, sub, 1)
	}
	stop := make(chan struct{})
	var group sync.WaitGroup
	for range writers {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				messages := make([]broker.Message, 1+busy)
				for index := range messages {
					messages[index] = broker.Message{Channel: subs[index].Channel, Kind: broker.Log, Payload: []byte("x"), MaxLen: 1000}
				}
				messages[busy].Channel = subs[rand.IntN(logs)].Channel
				if _, err := b.Publish(context.Background(), messages); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 2 {
		before := b.Stats().Horizon
		r.Wait(t, "the horizon to rise", func() bool { return b.Stats().Horizon > before })
	}
	close(stop)
	group.Wait()
	end := write(t, b, subs[0], "end")[0]
	r.Wait(t, "the last entry", func() bool { return slices.Contains(r.Entries(subs[0].Channel), "end") })
	r.Wait(t, "the horizon to pass the last entry", func() bool {
		write(t, b, subs[1], "x")
		return b.Stats().Horizon > end.Milliseconds
	})
	if err := CheckHorizons(r.Records()); err != nil {
		t.Fatal(err)
	}
}

// CheckHorizons returns an error if a horizon in records says that something was handed over that
// came only later.
func CheckHorizons(records []Record) error {
	horizon, at := uint64(0), 0
	for index, record := range records {
		if record.What != Log {
			continue
		}
		for _, entry := range record.Update.Entries {
			if entry.Position.Milliseconds <= horizon {
				return fmt.Errorf("update %d gave the horizon %d, and update %d of %s then came with %v", at, horizon, index, record.Channel, entry.Position)
			}
		}
		if record.Update.Horizon > horizon {
			horizon, at = record.Update.Horizon, index
		}
	}
	return nil
}
