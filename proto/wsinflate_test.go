package proto

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/millrace/millrace/proto/deflate"
)

// zippedPart is part of a compressed message: its first frame says so.
func zippedPart(final bool, opcode Opcode, payload string) []byte {
	frame := part(final, opcode, payload)
	if opcode != OpContinuation {
		frame[0] |= bitCompressed
	}
	return frame
}

// zipped is the payload of a compressed message.
func zipped(text string) string {
	if text == "" {
		return "\x00" // RFC 7692, 7.2.3.6
	}
	block := deflate.AppendBlock(nil, []byte(text), nil)
	return string(block[:len(block)-4]) // RFC 7692, 7.2.1: without 00 00 ff ff
}

// TestReadCompressed reads what a client with permessage-deflate sends (RFC 7692, 6.2), in pieces of
// every size.
func TestReadCompressed(t *testing.T) {
	const limit = 1000
	long := strings.Repeat("many words, ", 50)
	hello := zipped("Hello")
	for _, c := range []struct {
		name   string
		frames [][]byte
		want   []heard
		code   CloseCode
	}{
		{"a message", [][]byte{zippedPart(true, OpText, zipped(long))}, []heard{{Op: OpText, Data: long}}, 0},
		{"RFC 7692, 7.2.3.1", [][]byte{zippedPart(true, OpText, "\xf2\x48\xcd\xc9\xc9\x07\x00")}, []heard{{Op: OpText, Data: "Hello"}}, 0},
		{
			"RFC 7692, 7.2.3.1: two fragments",
			[][]byte{zippedPart(false, OpText, "\xf2\x48\xcd"), zippedPart(true, OpContinuation, "\xc9\xc9\x07\x00")},
			[]heard{{Op: OpText, Data: "Hello"}},
			0,
		},
		{
			"a ping inside of one",
			[][]byte{zippedPart(false, OpText, hello[:3]), part(true, OpPing, "p"), zippedPart(true, OpContinuation, hello[3:])},
			[]heard{{Op: OpPing, Data: "p"}, {Op: OpText, Data: "Hello"}},
			0,
		},
		{
			"plain ones among them",
			[][]byte{part(true, OpText, "a"), zippedPart(true, OpText, hello), part(false, OpText, "b"), part(true, OpContinuation, "c")},
			[]heard{{Op: OpText, Data: "a"}, {Op: OpText, Data: "Hello"}, {Op: OpText, Data: "bc"}},
			0,
		},
		{"binary", [][]byte{zippedPart(true, OpBinary, zipped("\xff"))}, []heard{{Op: OpBinary, Data: "\xff"}}, 0},
		{"an empty one", [][]byte{zippedPart(true, OpText, "\x00")}, []heard{{Op: OpText}}, 0},
		{"the longest", [][]byte{zippedPart(true, OpText, zipped(strings.Repeat("a", limit)))}, []heard{{Op: OpText, Data: strings.Repeat("a", limit)}}, 0},
		{"one too long", [][]byte{zippedPart(true, OpText, zipped(strings.Repeat("a", limit+1)))}, nil, CloseTooBig},
		{"a bomb", [][]byte{zippedPart(true, OpText, zipped(strings.Repeat("a", 1<<20))[:1000])}, nil, CloseTooBig},
		{"one whose compressed bytes are too many", [][]byte{zippedPart(true, OpText, strings.Repeat("x", limit+33))}, nil, CloseTooBig},
		{"not UTF-8 inside", [][]byte{zippedPart(true, OpText, zipped("caf\xe9"))}, nil, CloseNotUTF8},
		{"not compressed", [][]byte{zippedPart(true, OpText, "\x06")}, nil, CloseProtocolError},
		{"the bit on a continuation", [][]byte{zippedPart(false, OpText, hello), func() []byte {
			frame := part(true, OpContinuation, "")
			frame[0] |= bitCompressed
			return frame
		}()}, nil, CloseProtocolError},
		{"the bit on a ping", [][]byte{zippedPart(true, OpPing, "p")}, nil, CloseProtocolError},
		{"another reserved bit", [][]byte{func() []byte {
			frame := zippedPart(true, OpText, hello)
			frame[0] |= 0x20
			return frame
		}()}, nil, CloseProtocolError},
	} {
		t.Run(c.name, func(t *testing.T) {
			stream := bytes.Join(c.frames, nil)
			inflater := &deflate.Inflater{}
			for size := 1; size <= len(stream); size = size*3/2 + 1 {
				r := MessageReader{Inflater: inflater}
				got, err := readAll(&r, stream, limit, func(int) int { return size })
				var failure *ProtocolError
				if c.code == 0 && err != nil || c.code != 0 && (!errors.As(err, &failure) || failure.Code != c.code) {
					t.Fatalf("in pieces of %d: %v, want %d", size, err, c.code)
				}
				if difference := cmp.Diff(c.want, got); difference != "" {
					t.Fatalf("in pieces of %d: %s", size, difference)
				}
				if c.code == 0 && !r.Idle() {
					t.Errorf("in pieces of %d: the reader is not idle", size)
				}
			}
		})
	}
}

// TestReadCompressedUnasked: without the extension its bit is reserved.
func TestReadCompressedUnasked(t *testing.T) {
	var r MessageReader
	_, err := readAll(&r, zippedPart(true, OpText, zipped("Hello")), 1000, func(left int) int { return left })
	var failure *ProtocolError
	if !errors.As(err, &failure) || failure.Code != CloseProtocolError {
		t.Errorf("%v", err)
	}
}

// TestReadCompressedStreams: messages arrive as they were sent, compressed or not, however they are
// cut into fragments and pieces.
func TestReadCompressedStreams(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream []byte
		var want []heard
		for range rapid.IntRange(1, 5).Draw(t, "messages") {
			text := strings.Repeat(rapid.StringN(0, 40, -1).Draw(t, "text"), rapid.IntRange(1, 5).Draw(t, "times"))
			want = append(want, heard{Op: OpText, Data: text})
			if !rapid.Bool().Draw(t, "compressed") {
				stream = append(stream, part(true, OpText, text)...)
				continue
			}
			payload := zipped(text)
			cut := rapid.IntRange(0, len(payload)).Draw(t, "cut")
			stream = append(stream, zippedPart(false, OpText, payload[:cut])...)
			stream = append(stream, zippedPart(true, OpContinuation, payload[cut:])...)
		}
		pieces := rapid.SliceOfN(rapid.IntRange(1, 40), 1, 10).Draw(t, "pieces")
		turn := 0
		r := MessageReader{Inflater: &deflate.Inflater{}}
		got, err := readAll(&r, stream, 0, func(int) int {
			turn++
			return pieces[turn%len(pieces)]
		})
		if difference := cmp.Diff(want, got); err != nil || difference != "" {
			t.Fatalf("%v %s", err, difference)
		}
	})
}

func FuzzWSReadCompressed(f *testing.F) {
	f.Add(zippedPart(true, OpText, zipped("Hello")), uint16(100))
	f.Add(zippedPart(true, OpText, zipped(strings.Repeat("a", 5000))), uint16(100))
	f.Add(bytes.Join([][]byte{zippedPart(false, OpText, "\xf2\x48"), part(true, OpPing, "p"), zippedPart(true, OpContinuation, "\xcd\xc9")}, nil), uint16(9))
	f.Fuzz(func(t *testing.T, stream []byte, limit uint16) {
		maxBytes := int(limit) + 1
		whole := MessageReader{Inflater: &deflate.Inflater{}}
		got, err := readAll(&whole, stream, maxBytes, func(left int) int { return left })
		for _, message := range got {
			if message.Op == OpText && len(message.Data) > maxBytes {
				t.Fatalf("a message of %d bytes, and %d are allowed", len(message.Data), maxBytes)
			}
		}
		single := MessageReader{Inflater: &deflate.Inflater{}}
		again, failure := readAll(&single, stream, maxBytes, func(int) int { return 1 })
		if difference := cmp.Diff(got, again); difference != "" || (err == nil) != (failure == nil) {
			t.Fatalf("byte by byte it is read otherwise: %v, %v, %s", err, failure, difference)
		}
	})
}
