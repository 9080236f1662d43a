package bench

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/millrace/millrace/proto"
)

// Wire is how a stream reaches a subscriber.
type Wire string

// The wires.
const (
	SSE       Wire = "sse"
	WebSocket Wire = "ws"

	// bothWires stands for measurements that use both together.
	bothWires Wire = "sse and ws"
)

// Wires lists all wires.
func Wires() []Wire { return []Wire{SSE, WebSocket} }

// step is one exchange of a handshake: what the subscriber says, and the bytes that must occur in
// what the server says then. "{channel}" in Send stands for the stream's channel and "{token}"
// for a token of its own.
type step struct {
	Send   string `json:"send"`
	Expect []byte `json:"expect"`
	// Frame sends Send as a masked WebSocket text frame.
	Frame bool `json:"frame,omitempty"`
}

// bytesFor gives what the stream of a channel sends. token may be empty.
func (s step) bytesFor(channel, token string) []byte {
	text := bytes.ReplaceAll([]byte(s.Send), []byte("{channel}"), []byte(channel))
	text = bytes.ReplaceAll(text, []byte("{token}"), []byte(token))
	if !s.Frame {
		return text
	}
	return proto.AppendMaskedFrame(nil, proto.OpText, text, [4]byte{0x2f, 0x11, 0x5a, 0x9c})
}

// requestStep is the HTTP request of a handshake, and what its answer must hold.
func requestStep(wire Wire, target string, headers []string, expect string) step {
	request := "GET " + target + " HTTP/1.1\r\nHost: 127.0.0.1\r\n"
	if wire == WebSocket {
		// The key of RFC 6455, 1.3: no subscriber here checks the answer to it.
		request += "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	} else {
		request += "Accept: text/event-stream\r\n"
	}
	for _, header := range headers {
		request += header + "\r\n"
	}
	return step{Send: request + "\r\n", Expect: []byte(expect)}
}

// switching is in the answer to every WebSocket handshake that is taken.
const switching = "101 Switching Protocols"

// frameStep is a WebSocket text message, and what the answer to it must hold.
func frameStep(text, expect string) step {
	return step{Send: text, Expect: []byte(expect), Frame: true}
}

// sharedChannel is the number of the channel that a whole crowd listens to; own channels count
// from 1.
const sharedChannel = 0

// channelName is the channel of a number. format holds one %d.
func channelName(format string, number int) string {
	if format == "" {
		return strconv.Itoa(number)
	}
	return fmt.Sprintf(format, number)
}
