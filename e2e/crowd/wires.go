package main

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// kind is what a word of the gateway means to a stream.
type kind uint8

const (
	nothing   kind = iota
	connected      // the stream is open
	joined         // the channel is confirmed
	event          // a numbered event
	gap
	answered // a command was
	closed
)

// word is one thing that the gateway said.
type word struct {
	kind   kind
	number int32  // of an event
	why    string // of a close
	answer []byte // what a client must send back at once
}

// wire is how one kind of stream is spoken.
type wire interface {
	request(host, channel string) []byte
	status() string
	// join gives the command that subscribes, nil where the request has named the channel.
	join(channel string) []byte
	// next takes the first whole word off text; whole is false where there is none.
	next(text []byte) (w word, rest []byte, whole bool)
}

var numberMark = []byte(`"n":`)

// numbered gives the number in a payload, if it has one.
func numbered(payload []byte) (int32, bool) {
	start := bytes.Index(payload, numberMark)
	if start < 0 {
		return 0, false
	}
	digits := payload[start+len(numberMark):]
	end := 0
	for end < len(digits) && digits[end] >= '0' && digits[end] <= '9' {
		end++
	}
	number, err := strconv.ParseInt(string(digits[:end]), 10, 32)
	return int32(number), err == nil
}

// sse reads a stream line by line. The chunk heads between events are lines like any other that
// mean nothing here: that they are right is for other clients to test.
type sse struct{}

func (sse) request(host, channel string) []byte {
	return fmt.Appendf(nil, "GET /api/stream?channel=%s HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n\r\n", channel, host)
}

func (sse) status() string     { return "200" }
func (sse) join(string) []byte { return nil }

func (sse) next(text []byte) (w word, rest []byte, whole bool) {
	end := bytes.IndexByte(text, '\n')
	if end < 0 {
		return word{}, text, false
	}
	line, rest := text[:end], text[end+1:]
	switch {
	case bytes.HasPrefix(line, []byte("data:")):
		if number, ok := numbered(line); ok {
			return word{kind: event, number: number}, rest, true
		}
	case bytes.HasPrefix(line, []byte("event: connected")):
		return word{kind: connected}, rest, true
	case bytes.HasPrefix(line, []byte("event: gap")):
		return word{kind: gap}, rest, true
	case bytes.HasPrefix(line, []byte("event: server_error")):
		return word{kind: closed, why: "server_error"}, rest, true
	}
	return word{}, rest, true
}

// webSocket reads frames, none of which is ever fragmented by the gateway.
type webSocket struct{}

func (webSocket) request(host, _ string) []byte {
	return fmt.Appendf(nil, "GET /ws HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", host)
}

func (webSocket) status() string { return "101" }

func (webSocket) join(channel string) []byte {
	return frame(0x81, fmt.Appendf(nil, `{"type":"subscribe","channel":%q}`, channel))
}

// pingCommand is a whole frame with a command that is answered.
var pingCommand = frame(0x81, []byte(`{"type":"ping"}`))

// frame masks with zeros, which leave a payload as it is.
func frame(first byte, payload []byte) []byte {
	head := []byte{first, 0x80 | byte(len(payload))}
	if len(payload) > 125 {
		head = binary.BigEndian.AppendUint16([]byte{first, 0x80 | 126}, uint16(len(payload)))
	}
	return append(append(head, 0, 0, 0, 0), payload...)
}

func (webSocket) next(text []byte) (w word, rest []byte, whole bool) {
	payload, rest, whole := takeFrame(text)
	if !whole {
		return word{}, text, false
	}
	return meaning(text[0], payload), rest, true
}

// takeFrame takes the first whole frame off text.
func takeFrame(text []byte) (payload, rest []byte, whole bool) {
	if len(text) < 2 {
		return nil, text, false
	}
	head, length := 2, uint64(text[1]&0x7f)
	switch {
	case length == 126 && len(text) >= 4:
		head, length = 4, uint64(binary.BigEndian.Uint16(text[2:]))
	case length == 127 && len(text) >= 10:
		head, length = 10, binary.BigEndian.Uint64(text[2:])
	case length > 125:
		return nil, text, false
	}
	if uint64(len(text)-head) < length {
		return nil, text, false
	}
	return text[head : head+int(length)], text[head+int(length):], true
}

// meaning is what a frame says to a stream.
func meaning(first byte, payload []byte) word {
	switch first & 0x0f {
	case 8:
		return word{kind: closed, why: fmt.Sprintf("close frame %x", payload), answer: frame(0x88, payload)}
	case 9:
		return word{answer: frame(0x8a, payload)}
	}
	if number, ok := numbered(payload); ok {
		return word{kind: event, number: number}
	}
	for mark, kind := range map[string]kind{`"type":"connected"`: connected, `"type":"subscribed"`: joined, `"type":"gap"`: gap, `"type":"pong"`: answered} {
		if bytes.Contains(payload, []byte(mark)) {
			return word{kind: kind}
		}
	}
	return word{}
}

// deflated is a webSocket to which messages are compressed, each by itself: one reader serves all
// streams (RFC 7692, 7.1.1.1).
type deflated struct {
	webSocket
	inflater io.Reader
	undone   int // messages that were compressed
}

const (
	rsv1 = 0x40
	// deflateTail is what a sender leaves away (RFC 7692, 7.2.1), and an empty last block.
	deflateTail = "\x00\x00\xff\xff\x01\x00\x00\xff\xff"
)

func (d *deflated) request(host, channel string) []byte {
	text := d.webSocket.request(host, channel)
	return append(text[:len(text)-len("\r\n")], "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"...)
}

func (d *deflated) next(text []byte) (w word, rest []byte, whole bool) {
	payload, rest, whole := takeFrame(text)
	if !whole {
		return word{}, text, false
	}
	if text[0]&rsv1 != 0 {
		var err error
		if payload, err = d.inflate(payload); err != nil {
			return word{kind: closed, why: "what it said does not inflate: " + err.Error()}, rest, true
		}
	}
	return meaning(text[0], payload), rest, true
}

func (d *deflated) inflate(payload []byte) ([]byte, error) {
	d.undone++
	from := io.MultiReader(bytes.NewReader(payload), strings.NewReader(deflateTail))
	if d.inflater == nil {
		d.inflater = flate.NewReader(from)
	} else if err := d.inflater.(flate.Resetter).Reset(from, nil); err != nil {
		return nil, err
	}
	return io.ReadAll(d.inflater)
}
