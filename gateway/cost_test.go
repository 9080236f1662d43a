package gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/internal/redistest"
)

// eventAllocationsMax: four for what the Redis client reads (an array, the words "message" and the
// channel's name, the payload); the id, the event, its publication and the letter to a loop; a wire
// form and its place in the event.
const eventAllocationsMax = 10

// zippedAllocationsMax come on top for a gzip stream that hears an event behind the one before it: the
// place for compressed forms, the frame's splice with its piece, the text and the dictionary in one, the
// chunk, and the follower that knows what it follows on; and the copy that this test's client makes.
// With the race detector on, pools forget a quarter of what they are given: three are for that.
const zippedAllocationsMax = 10

// TestAllocationsPerEvent bounds what one event for one stream allocates on its whole way: from
// Redis's socket to the stream's.
func TestAllocationsPerEvent(t *testing.T) {
	redis := redistest.Start(t)
	h := serve(t, gateway.Options{Redis: redis.URL(), Logger: slog.New(slog.DiscardHandler)})
	h.awaitDelivery(t)
	publisher := dial(t, redis.Addr)
	defer publisher.Close()
	payload := fmt.Sprintf(`{"type":"progress","padding":%q}`, bytes.Repeat([]byte("x"), 100))
	command := redistest.Encode("PUBLISH", "job_progress:1", payload)
	for _, w := range everyWire {
		t.Run(w.name, func(t *testing.T) {
			s := h.open(t, w, visit{channels: []string{"job_progress:1"}})
			defer s.conn.Close()
			room, end := make([]byte, 4096), []byte(`xxx"}`)
			s.conn.SetReadDeadline(time.Now().Add(patience))
			deliver := func() {
				if _, err := publisher.Write(command); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(publisher, room[:len(":1\r\n")]); err != nil {
					t.Fatal(err)
				}
				if s.unzipped != nil {
					for !bytes.Contains(<-s.unzipped.pieces, end) {
						continue
					}
					return
				}
				// A compressed message cannot be looked at here; it comes with one write.
				for got := 0; got == 0 || !w.zipped && !bytes.Contains(room[:got], end); {
					n, err := s.conn.Read(room[got:])
					if err != nil {
						t.Fatal(err)
					}
					got += n
				}
			}
			deliver()
			limit := eventAllocationsMax
			if w.zipped {
				limit += zippedAllocationsMax
			}
			if n := testing.AllocsPerRun(500, deliver); n > float64(limit) {
				t.Errorf("an event costs %v allocations, not at most %d", n, limit)
			}
		})
	}
}
