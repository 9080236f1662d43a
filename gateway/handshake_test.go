package gateway_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
)

// handshakeAllocationsMax bounds what the whole gateway allocates from accept to connected, on a
// channel that is there already: desk, net/http's request, stream and first messages. Measured are
// 36 to 37; the rest is for the runtime's own.
const handshakeAllocationsMax = 40

// TestHandshakeAllocations: the clients have sent their requests before the gateway accepts any,
// so that nothing else is counted.
func TestHandshakeAllocations(t *testing.T) {
	g, err := gateway.New(gateway.Options{Listen: "127.0.0.1:0", Loops: 1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	request := []byte("GET /api/stream?channel=job_progress:0 HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")
	clients := make([]net.Conn, 400)
	for i := range clients {
		if clients[i], err = net.Dial("tcp", g.Addr().String()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { clients[i].Close() })
		clients[i].SetDeadline(time.Now().Add(patience))
		if _, err := clients[i].Write(request); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	go func() { ended <- g.Run(ctx) }()
	room := make([]byte, 4<<10)
	for _, client := range clients {
		for length := 0; !bytes.Contains(room[:length], []byte(`"type":"connected"`)); {
			n, err := client.Read(room[length:])
			if err != nil {
				t.Fatal(err)
			}
			length += n
		}
	}
	runtime.ReadMemStats(&after)
	for _, client := range clients {
		client.Close() // or the drain waits for them
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	average := float64(after.Mallocs-before.Mallocs) / float64(len(clients))
	if average > handshakeAllocationsMax {
		t.Errorf("a handshake costs %.1f allocations, want at most %d", average, handshakeAllocationsMax)
	}
}
