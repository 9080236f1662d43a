// Package brokertest holds one contract suite that every [broker.Broker] passes, and the recorder
// that it and other tests of brokers listen with.
package brokertest

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/proto"
)

// What says which callback made a [Record].
type What string

// The callbacks.
const (
	Event     What = "event"
	Confirmed What = "confirmed"
	Mended    What = "confirmed after a loss"
	Lost      What = "lost"
	Refused   What = "refused"
	Health    What = "health"
	Value     What = "value"
	Log       What = "log"
)

// Record is one callback, or one subscription of one.
type Record struct {
	What    What
	At      time.Time // when the callback ran
	Sub     broker.Subscription
	Channel string // of an event, a value or an update of a log
	Payload []byte // of an event or a value, as it was handed over
	Update  broker.LogUpdate
	// Received is what the broker gave with it.
	Received time.Time
	Err      error
	Health   broker.Health
}

// Recorder keeps every callback in the order in which they came. It is safe for use by several
// goroutines.
type Recorder struct {
	mutex   sync.Mutex
	records []Record
	counts  map[What]int
	bySub   map[subCount]int
	events  map[string][]string // payloads by channel
	values  map[string][]string // payloads by channel, NoValue for none
	updates map[string][]broker.LogUpdate
	running int  // callbacks under way that must not overlap
	overlap bool // they did
	arrived chan struct{}
}

// subCount is what is counted by subscription.
type subCount struct {
	what What
	sub  broker.Subscription
}

// NewRecorder makes an empty recorder.
func NewRecorder() *Recorder {
	return &Recorder{
		counts: make(map[What]int), bySub: make(map[subCount]int), events: make(map[string][]string),
		values: make(map[string][]string), updates: make(map[string][]broker.LogUpdate),
		arrived: make(chan struct{}, 1),
	}
}

// Callbacks returns callbacks that record.
func (r *Recorder) Callbacks() broker.Callbacks {
	return broker.Callbacks{
		Event: func(channel string, payload []byte, received time.Time) {
			r.add(Record{What: Event, Channel: channel, Payload: payload, Received: received})
		},
		Confirmed: func(subs []broker.Subscription, lost bool) {
			defer r.alone()()
			what := Confirmed
			if lost {
				what = Mended
			}
			r.addSubs(what, subs)
		},
		Lost: func(subs []broker.Subscription) {
			defer r.alone()()
			r.addSubs(Lost, subs)
		},
		Refused: func(sub broker.Subscription, err error) {
			defer r.alone()()
			r.add(Record{What: Refused, Sub: sub, Err: err})
		},
		Health: func(health broker.Health) {
			defer r.alone()()
			r.add(Record{What: Health, Health: health})
		},
		Value: func(channel string, payload []byte, received time.Time) {
			r.add(Record{What: Value, Channel: channel, Payload: payload, Received: received})
		},
		Log: func(update broker.LogUpdate, received time.Time) {
			r.add(Record{What: Log, Channel: update.Channel, Update: update, Received: received})
		},
	}
}

// alone notes when two callbacks run at once that must not.
func (r *Recorder) alone() (done func()) {
	r.mutex.Lock()
	r.running++
	r.overlap = r.overlap || r.running > 1
	r.mutex.Unlock()
	return func() {
		r.mutex.Lock()
		r.running--
		r.mutex.Unlock()
	}
}

func (r *Recorder) addSubs(what What, subs []broker.Subscription) {
	records := make([]Record, len(subs))
	for index, sub := range subs {
		records[index] = Record{What: what, Sub: sub}
	}
	r.add(records...)
}

func (r *Recorder) add(records ...Record) {
	now := time.Now()
	r.mutex.Lock()
	for index := range records {
		record := &records[index]
		record.At = now
		r.counts[record.What]++
		switch record.What {
		case Event:
			r.events[record.Channel] = append(r.events[record.Channel], string(record.Payload))
		case Value:
			text := NoValue
			if record.Payload != nil {
				text = string(record.Payload)
			}
			r.values[record.Channel] = append(r.values[record.Channel], text)
		case Log:
			r.updates[record.Channel] = append(r.updates[record.Channel], record.Update)
		default:
			r.bySub[subCount{record.What, record.Sub}]++
		}
	}
	r.records = append(r.records, records...)
	r.mutex.Unlock()
	select {
	case r.arrived <- struct{}{}:
	default:
	}
}

// Records returns a copy of what was recorded.
func (r *Recorder) Records() []Record {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return append([]Record(nil), r.records...)
}

// Overlapped reports whether Confirmed, Lost, Refused or Health ran at the same time.
func (r *Recorder) Overlapped() bool {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.overlap
}

// Count returns how often what was recorded, of any subscription.
func (r *Recorder) Count(what What) int {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.counts[what]
}

// CountOf returns how often what was recorded of sub.
func (r *Recorder) CountOf(what What, sub broker.Subscription) int {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.bySub[subCount{what, sub}]
}

// Events returns the payloads that came on channel. The slice is only to be read.
func (r *Recorder) Events(channel string) []string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.events[channel]
}

// NoValue stands for the absence of a value.
const NoValue = "(no value)"

// Values returns what was handed over of a State, [NoValue] for none. The slice is only to be
// read.
func (r *Recorder) Values(channel string) []string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.values[channel]
}

// Updates returns what was handed over of a Log. The slice is only to be read.
func (r *Recorder) Updates(channel string) []broker.LogUpdate {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.updates[channel]
}

// Entries returns the payloads of all entries that were handed over of a Log.
func (r *Recorder) Entries(channel string) []string {
	var entries []string
	for _, update := range r.Updates(channel) {
		for _, entry := range update.Entries {
			entries = append(entries, string(entry.Payload))
		}
	}
	return entries
}

// Holes returns the reasons of the holes that were told of a Log.
func (r *Recorder) Holes(channel string) []proto.GapReason {
	var holes []proto.GapReason
	for _, update := range r.Updates(channel) {
		if update.Hole {
			holes = append(holes, update.Reason)
		}
	}
	return holes
}

// WaitValue waits until the last value of a State is want and returns all of them.
func (r *Recorder) WaitValue(t testing.TB, channel, want string) []string {
	t.Helper()
	r.Wait(t, fmt.Sprintf("%s to be %.100s", channel, want), func() bool {
		values := r.Values(channel)
		return len(values) > 0 && values[len(values)-1] == want
	})
	return r.Values(channel)
}

// WaitEntries waits until count entries of a Log came and returns their payloads.
func (r *Recorder) WaitEntries(t testing.TB, channel string, count int) []string {
	t.Helper()
	r.Wait(t, fmt.Sprintf("%d entries of %s", count, channel), func() bool { return len(r.Entries(channel)) >= count })
	return r.Entries(channel)
}

// WaitTimeout is how long waits of this package last before they fail the test.
const WaitTimeout = 20 * time.Second

// Wait looks at condition whenever something was recorded, and now and then, and fails the test
// if it does not hold within [WaitTimeout].
func (r *Recorder) Wait(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(WaitTimeout)
	defer deadline.Stop()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-r.arrived:
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("waited %v in vain for: %s\nlast records:\n%s", WaitTimeout, what, r.Tail(20))
		}
	}
}

// WaitConfirmed waits until sub was confirmed, with or without a loss, at least times times.
func (r *Recorder) WaitConfirmed(t testing.TB, sub broker.Subscription, times int) {
	t.Helper()
	r.Wait(t, fmt.Sprintf("confirmation %d of %s", times, sub.Channel), func() bool {
		return r.CountOf(Confirmed, sub)+r.CountOf(Mended, sub) >= times
	})
}

// WaitEvents waits until count events came on channel and returns their payloads.
func (r *Recorder) WaitEvents(t testing.TB, channel string, count int) []string {
	t.Helper()
	r.Wait(t, fmt.Sprintf("%d events on %s", count, channel), func() bool { return len(r.Events(channel)) >= count })
	return r.Events(channel)
}

// Tail describes the last records, events by channel and length only.
func (r *Recorder) Tail(count int) string {
	records := r.Records()
	var text strings.Builder
	for _, record := range records[max(0, len(records)-count):] {
		fmt.Fprintf(&text, "%s %s %s%s %d bytes, delivering %v %s %v\n", record.At.Format("05.000"), record.What,
			record.Sub.Channel, record.Channel, len(record.Payload), record.Health.Delivering, record.Health.Reason, record.Err)
	}
	return text.String()
}
