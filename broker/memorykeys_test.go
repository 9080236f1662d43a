package broker_test

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/broker/brokertest"
	"github.com/millrace/millrace/proto"
)

// TestMemoryKeepsSoMuch: beyond its bound the memory broker forgets what was written the longest
// ago, and says so.
func TestMemoryKeepsSoMuch(t *testing.T) {
	t.Parallel()
	b := broker.NewMemory(broker.MemoryOptions{})
	b.SetStoreBytesMax(1 << 20)
	r := brokertest.NewRecorder()
	t.Cleanup(func() { _ = b.Close() })
	if err := b.Start(r.Callbacks()); err != nil {
		t.Fatal(err)
	}
	write := func(kind broker.Kind, channel, payload string) broker.Position {
		t.Helper()
		positions, err := b.Publish(context.Background(), []broker.Message{{Channel: channel, Kind: kind, Payload: []byte(payload)}})
		if err != nil {
			t.Fatal(err)
		}
		if kind == broker.Log {
			return positions[0]
		}
		return broker.Position{}
	}
	read := func(channel string, after broker.Position) broker.LogChunk {
		t.Helper()
		chunk, err := b.ReadLog(context.Background(), channel, after, 10)
		if err != nil {
			t.Fatal(err)
		}
		return chunk
	}
	large := strings.Repeat("x", 100<<10)
	ready(t, b, r, state("old:1"), state("new:1"), logOf("old:2"))
	write(broker.State, "old:1", "here")
	position := write(broker.Log, "old:2", "here")
	r.WaitValue(t, "old:1", "here")
	for number := range 20 {
		write(broker.State, "new:"+strconv.Itoa(number), large)
		write(broker.State, "new:1", strconv.Itoa(number))
	}
	r.WaitValue(t, "old:1", brokertest.NoValue)
	if got := r.WaitValue(t, "new:1", "19"); got[len(got)-1] != "19" {
		t.Fatalf("what was written all the time is %q", got[len(got)-1])
	}
	if chunk := read("old:2", position); !chunk.Hole || chunk.Reason != proto.GapTrimmed || !chunk.End {
		t.Fatalf("the log that is gone gives %+v", chunk)
	}
	// A single log can't outgrow the bound either, and who listens hears all of it.
	for number := range 30 {
		write(broker.Log, "old:2", strconv.Itoa(number)+large)
	}
	if got := r.WaitEntries(t, "old:2", 31); len(got) != 31 {
		t.Fatalf("%d entries", len(got))
	}
	if chunk := read("old:2", position); !chunk.Hole || len(chunk.Entries) == 0 || len(chunk.Entries) > 10 {
		t.Fatalf("what is left gives a hole (%v) and %d entries", chunk.Hole, len(chunk.Entries))
	}
}
