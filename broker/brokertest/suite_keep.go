package brokertest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
)

// testKeep has logs end: one when it was first said, one whose end was put off, none without a word.
func testKeep(t *testing.T, e Engine) {
	b, r := e.Start(t, lingerLong)
	const short = time.Second
	logs := []struct {
		channel string
		keeps   []time.Duration // of its messages
		goes    bool
	}{
		{"log:short", []time.Duration{short}, true},
		{"log:brought-forward", []time.Duration{time.Hour, 0, short}, true},
		{"log:long", []time.Duration{time.Hour}, false},
		{"log:put-off", []time.Duration{short, time.Hour}, false},
		{"log:ever", []time.Duration{0, 0}, false},
	}
	for _, log := range logs {
		var messages []broker.Message
		for _, keep := range log.keeps {
			messages = append(messages, broker.Message{Channel: log.channel, Kind: broker.Log, Payload: []byte("1"), Keep: keep})
		}
		// What needs no end stands between: each reply must be taken for its own command's.
		messages = append(messages, broker.Message{Channel: "log:between", Kind: broker.Log, Payload: []byte("2")})
		positions, err := b.Publish(context.Background(), messages)
		if err != nil {
			t.Fatal(err)
		}
		if len(positions) != len(messages) || slices.Contains(positions, broker.Position{}) {
			t.Fatalf("%s: %d messages got the positions %v", log.channel, len(messages), positions)
		}
		entries := entriesOf(t, b, log.channel)
		if !log.goes && entries != len(log.keeps) {
			t.Fatalf("%s has %d entries, want %d", log.channel, entries, len(log.keeps))
		}
	}
	for _, log := range logs {
		if log.goes {
			r.Wait(t, log.channel+" is gone", func() bool { return entriesOf(t, b, log.channel) == 0 })
		}
	}
	for _, log := range logs {
		if entries := entriesOf(t, b, log.channel); !log.goes && entries != len(log.keeps) {
			t.Errorf("%s has %d entries, want %d: it had no time to go", log.channel, entries, len(log.keeps))
		}
	}
	for _, wrong := range []broker.Message{
		{Channel: "log:1", Kind: broker.Log, Keep: -1},
		{Channel: "job:1", Kind: broker.Plain, Keep: time.Hour},
	} {
		if _, err := b.Publish(context.Background(), []broker.Message{wrong}); err == nil {
			t.Errorf("%+v was taken", wrong)
		}
	}
}

func entriesOf(t *testing.T, b broker.Broker, channel string) int {
	t.Helper()
	chunk, err := b.ReadLog(context.Background(), channel, broker.Position{}, broker.ReadLogMax)
	if err != nil {
		t.Fatal(err)
	}
	return len(chunk.Entries)
}
