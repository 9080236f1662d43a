package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// TestLogQueueKeepsOrder: what is written comes out whole and in order, the last line too.
func TestLogQueueKeepsOrder(t *testing.T) {
	var output, want strings.Builder
	queue := newLogQueue(&output)
	line := make([]byte, 0, 16)
	for n := range 1000 {
		line = fmt.Appendf(line[:0], "line %d\n", n) // one array for all: the queue must copy
		want.Write(line)
		if written, err := queue.Write(line); written != len(line) || err != nil {
			t.Fatalf("line %d: %d, %v", n, written, err)
		}
	}
	queue.close()
	if output.String() != want.String() || queue.dropped.Load() > 0 {
		t.Errorf("%d dropped, and %d bytes of %d came", queue.dropped.Load(), output.Len(), want.Len())
	}
}

// TestLogQueueNeverBlocks: an output that takes nothing stops nobody, not even at the end.
func TestLogQueueNeverBlocks(t *testing.T) {
	reader, writer := io.Pipe() // takes nothing before it is read
	queue := newLogQueue(writer)
	const lines = logLinesMax + 100
	for range lines {
		_, _ = queue.Write([]byte("line\n"))
	}
	// One line may be in the writer's hand, beside those that wait.
	if dropped := queue.dropped.Load(); dropped < lines-logLinesMax-1 || dropped > lines-logLinesMax {
		t.Errorf("%d lines were dropped of %d", dropped, lines)
	}
	began := time.Now()
	queue.close()
	if took := time.Since(began); took < logCloseWait {
		t.Errorf("the end waited %v for the output, want %v", took, logCloseWait)
	}
	reader.Close()
	<-queue.ended
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestLogQueueCountsWhatIsNotTaken(t *testing.T) {
	queue := newLogQueue(full{})
	for range 10 {
		_, _ = queue.Write([]byte("line\n"))
	}
	queue.close()
	if dropped := queue.dropped.Load(); dropped != 10 {
		t.Errorf("%d lines were counted as dropped, want 10", dropped)
	}
}
