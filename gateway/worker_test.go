package gateway_test

import (
	"bufio"
	"context"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/redistest"
)

// publishAt publishes as a worker that knows nothing of us, with bytes that redis-cli would not
// take on its command line.
func publishAt(t testing.TB, address, channel string, payloads ...string) {
	t.Helper()
	conn := dial(t, address)
	defer conn.Close()
	var commands []byte
	for _, payload := range payloads {
		commands = append(commands, redistest.Encode("PUBLISH", channel, payload)...)
	}
	if _, err := conn.Write(commands); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(conn)
	for range payloads {
		if line, err := answers.ReadString('\n'); err != nil || line[0] != ':' {
			t.Fatalf("Redis answered %q (%v)", line, err)
		}
	}
}

// worker publishes {"n":1}, {"n":2} and so on until its test ends, whether Redis is there or not.
type worker struct {
	channel string
	last    atomic.Int64 // number that Redis has taken, or may have
}

func startWorker(t testing.TB, address, channel string) *worker {
	t.Helper()
	w := &worker{channel: channel}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.run(ctx, address)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func (w *worker) run(ctx context.Context, address string) {
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	var conn net.Conn
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	for number := int64(1); ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if conn == nil {
			fresh, err := net.DialTimeout("tcp", address, time.Second)
			if err != nil {
				continue
			}
			conn = fresh
		}
		// A number is never published twice: whether Redis took one that was not answered, nobody
		// knows.
		good := publishOn(conn, w.channel, `{"n":`+strconv.FormatInt(number, 10)+`}`)
		w.last.Store(number)
		number++
		if !good {
			conn.Close()
			conn = nil
		}
	}
}

func publishOn(conn net.Conn, channel, payload string) bool {
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write(redistest.Encode("PUBLISH", channel, payload)); err != nil {
		return false
	}
	answer := make([]byte, 64)
	n, err := conn.Read(answer)
	return err == nil && n > 0 && answer[0] == ':'
}

// follower holds a stream of numbered events to the promise: in order, none twice, and a number
// is missing only beside a declared gap.
type follower struct {
	*stream
	last   int64
	gap    bool // told since the last event
	gaps   int
	missed int64 // inside gaps
}

// follow reads until the event of that number, or a later one, has come.
func (f *follower) follow(t testing.TB, until int64) {
	t.Helper()
	for f.last < until {
		h := f.said(t)
		switch {
		case h.kind == heardEvent:
			f.number(t, h.text)
		case h.kind == heardWord && h.name == "gap":
			f.gap = true
			f.gaps++
			if reason := h.field("reason"); reason != "broker" {
				t.Errorf("%s: the gap's reason is %q, want broker", f.wire.name, reason)
			}
		default:
			t.Fatalf("%s lost its stream at %d: %v", f.wire.name, f.last, h)
		}
	}
}

func (f *follower) number(t testing.TB, payload string) {
	t.Helper()
	number, ok := numberOf(payload)
	if !ok {
		t.Fatalf("%s heard %s", f.wire.name, payload)
	}
	switch {
	case f.last == 0 || number == f.last+1:
	case number <= f.last:
		t.Errorf("%s: %d came after %d: twice, or out of order", f.wire.name, number, f.last)
	case f.gap:
		f.missed += number - f.last - 1
	default:
		t.Errorf("%s: %d came after %d and no gap was told: a silent loss", f.wire.name, number, f.last)
	}
	f.last, f.gap = number, false
}

// numberOf reads {"n":NUMBER...
func numberOf(payload string) (int64, bool) {
	if len(payload) < 6 || payload[:5] != `{"n":` {
		return 0, false
	}
	end := 5
	for end < len(payload) && '0' <= payload[end] && payload[end] <= '9' {
		end++
	}
	number, err := strconv.ParseInt(payload[5:end], 10, 64)
	return number, err == nil
}
