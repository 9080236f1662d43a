package gateway_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/proto"
)

// TestDrain: streams are sent away in the words of their wire, after all that was queued for them,
// and Run returns when the last has gone.
func TestDrain(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Limits: gateway.Limits{DrainTimeout: 15 * time.Second}})
	var streams []*stream
	for range 50 {
		for _, w := range everyWire {
			streams = append(streams, h.open(t, w, visit{channels: []string{"a:1"}}))
		}
	}
	h.publish(t, "a:1", `{"last":true}`)
	h.cancel()
	waits := make(map[time.Duration]bool)
	begin := time.Now()
	for _, s := range streams {
		s.event(t, `{"last":true}`)
		s.ends(t, proto.CloseRestart, "Service restart")
		if !s.wire.websocket {
			wantRetry(t, fmt.Sprintf("retry: %d", s.decoder.Retry.Milliseconds()))
			waits[s.decoder.Retry] = true
		}
	}
	if len(waits) < 50 {
		t.Errorf("100 event streams were told %d different times to come back at", len(waits))
	}
	h.stop(t)
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it took %v to drain streams that leave when told", took)
	}
	if conn, err := net.Dial("tcp", h.address); err == nil {
		conn.Close()
		t.Error("a connection was accepted after the end")
	}
}

// TestDrainSpread: the clients of a gateway that goes do not all come to the others at once.
func TestDrainSpread(t *testing.T) {
	t.Parallel()
	const (
		count  = 300
		spread = count * time.Second / 1000 // a thousand a second
	)
	h := serve(t, gateway.Options{Limits: gateway.Limits{DrainTimeout: 15 * time.Second}})
	var streams []*stream
	for i := range count {
		streams = append(streams, h.open(t, everyWire[i%len(everyWire)], visit{channels: []string{"a:1"}}))
	}
	h.cancel()
	streams[0].ends(t, proto.CloseRestart, "Service restart")
	first := time.Now()
	for _, s := range streams[1:] {
		s.ends(t, proto.CloseRestart, "Service restart")
	}
	if took := time.Since(first); took < spread*2/3 {
		t.Errorf("%d streams were sent away within %v, want %v", count, took, spread)
	}
	h.stop(t)
}

// begun sends a part of a request, so that the rest can be said on a connection that was accepted
// before the listener was closed.
func (h *house) begun(t testing.TB, request string) (conn net.Conn, rest string) {
	t.Helper()
	request = h.raw(request)
	conn = dial(t, h.address)
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, request[:10]); err != nil {
		t.Fatal(err)
	}
	return conn, request[10:]
}

// TestDraining: what a draining gateway answers, while a reader that has stalled keeps it from
// ending; it ends all the same.
func TestDraining(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{AdminListen: "127.0.0.1:0", Limits: gateway.Limits{DrainTimeout: 5 * time.Second}})
	stalled := h.open(t, raw, visit{channels: []string{"a:1"}})
	filler := `"` + strings.Repeat("x", 100_000) + `"`
	for range 5 {
		h.publish(t, "a:1", filler)
	}
	type late struct {
		conn net.Conn
		rest string
	}
	begin := func(request string) late {
		conn, rest := h.begun(t, request)
		return late{conn, rest}
	}
	webSocket, publish := begin(handshake("/ws")), begin(post(`{"channel":"a:1","event":1}`))
	ready := begin(get("/readyz"))
	streams := []late{begin(sse.request(visit{channels: []string{"a:1"}})), begin(sse10.request(visit{channels: []string{"a:1"}}))}
	began := time.Now()
	h.cancel()
	admin := &house{Gateway: h.Gateway, address: h.AdminAddr().String()}
	within(t, patience, "readiness is gone", func() bool { return admin.ask(t, get("/readyz")).status == 503 })
	admin.check(t, []row{
		{"readiness", get("/readyz"), 503, "draining", "Retry-After:"},
		{"stats", get("/api/realtime/stats"), 200, "", ""},
	})
	if status := h.stats(t).Status; status != "draining" {
		t.Errorf("the statistics say %s", status)
	}
	for name, one := range map[string]late{"WebSocket": webSocket, "publish": publish, "readiness": ready} {
		got := exchange(t, one.conn, one.rest)
		if got.status != 503 || got.code(t) != "draining" || got.header.Get("Retry-After") == "" || got.header.Get("Connection") != "close" {
			t.Errorf("%s was answered %d %v %s", name, got.status, got.header, got.body)
		}
	}
	for _, one := range streams {
		wantSentAway(t, exchange(t, one.conn, one.rest))
	}
	within(t, patience, "new connections are refused", func() bool {
		conn, err := net.Dial("tcp", h.address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	h.stop(t)
	if took := time.Since(began); took < 4*time.Second || took > 8*time.Second {
		t.Errorf("with a stalled reader the end came after %v, want the drain timeout of 5 s", took)
	}
	stalled.until(t, "the end", func(h heard) bool { return h.kind == heardCut || h.kind == heardEnd })
}

// TestStreamAge: a stream that is old enough is sent away as by a drain, and may come back.
func TestStreamAge(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Limits: gateway.Limits{MaxStreamAge: time.Second}})
	onEvery(t, everyWire, func(t *testing.T, w wire) {
		t.Parallel()
		s := h.open(t, w, visit{channels: []string{"a:1"}})
		s.ends(t, proto.CloseRestart, "Service restart")
		h.open(t, w, visit{channels: []string{"a:1"}})
	})
}
