package bench

import (
	"bytes"
	"slices"
	"testing"

	"github.com/millrace/millrace/proto"
)

func TestHopFindsPings(t *testing.T) {
	large := bytes.Repeat([]byte{0x89}, 70_000) // looks like pings all over
	stream := slices.Concat(
		proto.AppendFrame(nil, proto.OpText, []byte("a")),
		proto.AppendFrame(nil, proto.OpPing, nil),
		proto.AppendFrame(nil, proto.OpText, bytes.Repeat([]byte{0x89, 0}, 100)),
		proto.AppendFrame(nil, proto.OpText, large),
		proto.AppendFrame(nil, proto.OpPing, []byte("echo")),
	)
	cuts := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 200, 212, 213, 214, 215, 216, 217, 218, 219, 220, 221, len(stream) - 6, len(stream) - 5, len(stream) - 1, len(stream)}
	for _, first := range cuts {
		for _, second := range cuts {
			if second < first {
				continue
			}
			var h hop
			pings := 0
			for _, piece := range [][]byte{stream[:first], stream[first:second], stream[second:]} {
				if !h.frames(piece, func([]byte) { pings++ }) {
					t.Fatalf("cut at %d and %d: taken for masked", first, second)
				}
			}
			if pings != 2 || h.remaining != 0 || h.had != 0 {
				t.Fatalf("cut at %d and %d: %d pings, %d bytes remaining, %d of a head", first, second, pings, h.remaining, h.had)
			}
		}
	}
}

func TestHopRefusesMasks(t *testing.T) {
	var h hop
	masked := proto.AppendMaskedFrame(nil, proto.OpText, []byte("abc"), [4]byte{1, 2, 3, 4})
	if h.frames(masked, func([]byte) {}) {
		t.Error("a masked frame was taken from a server")
	}
}

func TestHopGivesPayloads(t *testing.T) {
	var h hop
	var got []byte
	h.frames(proto.AppendFrame(nil, proto.OpPing, []byte("echo")), func(payload []byte) { got = slices.Clone(payload) })
	if string(got) != "echo" {
		t.Errorf("the ping carried %q", got)
	}
}

func TestAfterStep(t *testing.T) {
	head := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
	subscribed := string(proto.AppendFrame(nil, proto.OpText, []byte(`{"type":"subscribed"}`)))
	event := string(proto.AppendFrame(nil, proto.OpText, []byte("event")))
	tests := []struct {
		name, bytes, expect, rest string
		wire                      Wire
		missing                   uint64
	}{
		{name: "events right behind", wire: SSE, bytes: "HTTP/1.1 200 OK\r\n\r\nhello data", expect: "hello", rest: " data"},
		{name: "head alone", wire: WebSocket, bytes: head, expect: "101"},
		{name: "a frame behind the head", wire: WebSocket, bytes: head + event, expect: "101", rest: event},
		{name: "answer in a frame", wire: WebSocket, bytes: event + subscribed + event, expect: "subscribed", rest: event},
		{name: "answer in a frame behind the head", wire: WebSocket, bytes: head + subscribed + event, expect: "subscribed", rest: event},
		{name: "answer's frame is cut", wire: WebSocket, bytes: subscribed[:len(subscribed)-2], expect: "subscribed", missing: 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			at := bytes.Index([]byte(test.bytes), []byte(test.expect))
			rest, missing := afterStep(test.wire, []byte(test.bytes), at+len(test.expect))
			if string(rest) != test.rest || missing != test.missing {
				t.Errorf("got %q and %d missing, expected %q and %d", rest, missing, test.rest, test.missing)
			}
		})
	}
}
