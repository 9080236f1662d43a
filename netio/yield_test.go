package netio

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/millrace/millrace/internal/sockettest"

	"golang.org/x/sys/unix"
)

// TestBusyLoopLetsSocketsBeHeard has a loop that never rests on the only processor, and a goroutine
// that waits for a socket: it must hear of it within a few turns, not when the runtime's monitor looks.
func TestBusyLoopLetsSocketsBeHeard(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const rounds, turnsMax = 50, 40
	var turns atomic.Int64
	o := startLoop(t, LoopOptions{}, nil, func(o *owner) {
		o.events.Work = func() bool {
			turns.Add(1)
			return true
		}
	})
	fd, client := sockettest.Pair(t)
	defer unix.Close(fd)
	heard := make(chan int64)
	go func() {
		defer close(heard)
		var one [1]byte
		for range rounds {
			if _, err := client.Read(one[:]); err != nil {
				t.Error(err)
				return
			}
			heard <- turns.Load()
		}
	}()
	slow := 0
	for range rounds {
		var said int64
		// On the loop itself: the turn in which the byte goes out is known, and the reader is asleep by then.
		if err := o.Do(context.Background(), func() {
			said = turns.Load()
			if _, err := unix.Write(fd, []byte{1}); err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Fatal(err)
		}
		if late := <-heard - said; late > turnsMax {
			slow++
		}
	}
	if slow > rounds/2 {
		t.Errorf("%d of %d times the reader was heard after more than %d turns", slow, rounds, turnsMax)
	}
}
