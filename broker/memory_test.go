package broker_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/broker/brokertest"
)

// TestMemoryQueueIsBounded: while a callback is held up, publishers wait, and give up in time.
func TestMemoryQueueIsBounded(t *testing.T) {
	t.Parallel()
	held := make(chan struct{})
	recorder := brokertest.NewRecorder()
	callbacks := recorder.Callbacks()
	event := callbacks.Event
	callbacks.Event = func(channel string, payload []byte, received time.Time) {
		<-held
		event(channel, payload, received)
	}
	b := broker.NewMemory(broker.MemoryOptions{QueueMessagesMax: 10})
	t.Cleanup(func() { _ = b.Close() })
	if err := b.Start(callbacks); err != nil {
		t.Fatal(err)
	}
	ready(t, b, recorder, plain("job:1"))
	one := []broker.Message{{Channel: "job:1", Payload: []byte("x")}}
	if _, err := b.Publish(context.Background(), make([]broker.Message, 11)); err == nil {
		t.Fatal("more than the queue holds was taken")
	}
	for range 10 {
		if _, err := b.Publish(context.Background(), one); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := b.Publish(ctx, one)
	if !errors.Is(err, broker.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	waiting := make(chan error, 1)
	go func() { waiting <- publish(b, one...) }()
	close(held)
	if err := <-waiting; err != nil {
		t.Fatal(err)
	}
	recorder.WaitEvents(t, "job:1", 11)
}

// TestAccount proves that the check of numbered events can fail.
func TestAccount(t *testing.T) {
	sub := plain("job:1")
	event := func(payload string) brokertest.Record {
		return brokertest.Record{What: brokertest.Event, Channel: sub.Channel, Payload: []byte(payload)}
	}
	told := func(what brokertest.What) brokertest.Record { return brokertest.Record{What: what, Sub: sub} }
	lost, mended := told(brokertest.Lost), told(brokertest.Mended)
	cases := []struct {
		name    string
		records []brokertest.Record
		good    bool
	}{
		{"all there", []brokertest.Record{event("1"), event("2"), event("3"), event("4")}, true},
		{"late start", []brokertest.Record{event("2"), event("3"), event("4")}, true},
		{"loss told", []brokertest.Record{event("1"), lost, mended, event("4")}, true},
		{"loss told with events in between", []brokertest.Record{event("1"), event("2"), lost, mended, event("4")}, true},
		{"nothing", nil, false},
		{"silent loss", []brokertest.Record{event("1"), event("3"), event("4")}, false},
		{"loss never mended", []brokertest.Record{event("1"), lost, event("4")}, false},
		{"mended but not lost", []brokertest.Record{event("1"), mended, event("4")}, false},
		{"loss told too early", []brokertest.Record{event("1"), lost, mended, event("2"), event("4")}, false},
		{"twice", []brokertest.Record{event("1"), event("1")}, false},
		{"backwards", []brokertest.Record{event("1"), event("2"), event("1")}, false},
	}
	for _, one := range cases {
		t.Run(one.name, func(t *testing.T) {
			if err := account([]int{1, 2, 3, 4}, one.records, sub); (err == nil) != one.good {
				t.Fatalf("got %v", err)
			}
		})
	}
}
