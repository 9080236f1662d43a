package gateway_test

import (
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/gateway/access"
	"github.com/millrace/millrace/netio/handoff"
	"github.com/millrace/millrace/proto"
)

// atListen calls do when everything was copied, and before the new gateway hears what the old one does.
func atListen(do func()) func(int, *handoff.Message) fate {
	return func(_ int, m *handoff.Message) fate {
		if m.Kind == gateway.MessageListen {
			do()
		}
		return passes
	}
}

// TestHandOverThatTakesLong: a client that answers pings is not taken for silent, however long ago it was
// heard when its stream was copied.
func TestHandOverThatTakesLong(t *testing.T) {
	t.Parallel()
	const heartbeat, silence = 2 * time.Second, 6 * time.Second
	options := gateway.Options{Namespaces: modes()}
	h, redis := serveRedis(t, options, gateway.Timings{})
	options.Redis = redis.URL()
	s := h.open(t, raw, visit{channels: []string{"events:1"}})
	_ = s.conn.SetDeadline(time.Time{}) // it is here for longer than others
	_, err := h.tryHandOverTo(t, options, gateway.Timings{Heartbeat: heartbeat, Silence: silence}, atListen(func() {
		<-time.After(silence + time.Second)
	}))
	if err != nil {
		t.Fatal(err)
	}
	h.stop(t)
	for pings := 0; pings < 2; {
		switch heard := s.next(patience); heard.kind {
		case heardPing:
			pings++
			s.send(t, masked(proto.OpPong, heard.text))
		default:
			t.Fatalf("heard %v, want a ping", heard)
		}
	}
	s.alive(t)
}

// TestHandOverOfAValueHeldBack: the new gateway holds a value back that the old one has sent, and must not
// send the one before it again.
func TestHandOverOfAValueHeldBack(t *testing.T) {
	t.Parallel()
	options := gateway.Options{Namespaces: map[string]access.Namespace{"slow": {Mode: access.State, Throttle: time.Minute}}}
	h, redis := serveRedis(t, options, gateway.Timings{})
	options.Redis = redis.URL()
	w := writer{house: h, redis: redis}
	w.set(t, "slow:1", `{"v":1}`)
	s := h.open(t, raw, visit{channels: []string{"slow:1"}})
	s.event(t, `{"v":1}`)
	heir, err := h.tryHandOver(t, options, atListen(func() {
		w.set(t, "slow:1", `{"v":2}`)
		s.event(t, `{"v":2}`)
		<-time.After(100 * time.Millisecond) // for the new gateway to read it, which nobody can see
		w.set(t, "slow:1", `{"v":3}`)
	}))
	if err != nil {
		t.Fatal(err)
	}
	h.stop(t)
	s.event(t, `{"v":3}`)
	s.alive(t)
	later := heir.open(t, raw, visit{channels: []string{"slow:1"}})
	later.event(t, `{"v":3}`)
}
