package proto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var testMask = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// part is one frame to be written for a test, masked.
func part(final bool, opcode Opcode, payload string) []byte {
	frame := AppendMaskedFrame(nil, opcode, []byte(payload), testMask)
	if !final {
		frame[0] &^= bitFinal
	}
	return frame
}

// heard is a message as the tests compare it.
type heard struct {
	Op   Opcode
	Data string
	Code CloseCode
}

// readAll gives the reader stream in the pieces that cut returns, and returns all messages and
// the error. stream is left as it is.
func readAll(r *MessageReader, stream []byte, maxBytes int, cut func(left int) int) ([]heard, error) {
	var messages []heard
	for len(stream) > 0 {
		size := min(max(cut(len(stream)), 1), len(stream))
		b := bytes.Clone(stream[:size])
		stream = stream[size:]
		for {
			m, rest, err := r.Next(b, maxBytes)
			if err != nil {
				return messages, err
			}
			if m.Op == 0 {
				if len(rest) != 0 {
					return messages, fmt.Errorf("%d bytes left over without a message", len(rest))
				}
				break
			}
			messages = append(messages, heard{m.Op, string(m.Data), m.Code})
			b = rest
		}
	}
	return messages, nil
}

func atOnce(left int) int { return left }
func byteWise(int) int    { return 1 }

func TestReadMessages(t *testing.T) {
	kilobyte := strings.Repeat("é", 512)
	cases := []struct {
		name   string
		stream [][]byte
		want   []heard
	}{
		{"5.7 masked text", [][]byte{part(true, OpText, "Hello")}, []heard{{OpText, "Hello", 0}}},
		{"5.6 empty text", [][]byte{part(true, OpText, "")}, []heard{{OpText, "", 0}}},
		{"5.6 binary is any bytes", [][]byte{part(true, OpBinary, "\xff\x00")}, []heard{{OpBinary, "\xff\x00", 0}}},
		{"5.2 16-bit length", [][]byte{part(true, OpText, kilobyte)}, []heard{{OpText, kilobyte, 0}}},
		{"5.4 two fragments", [][]byte{part(false, OpText, "Hel"), part(true, OpContinuation, "lo")}, []heard{{OpText, "Hello", 0}}},
		{"5.4 empty fragments", [][]byte{part(false, OpText, ""), part(false, OpContinuation, ""), part(true, OpContinuation, "")}, []heard{{OpText, "", 0}}},
		{"5.4 control inside a message", [][]byte{part(false, OpText, "a"), part(true, OpPing, "p"), part(false, OpContinuation, "b"), part(true, OpPong, ""), part(true, OpContinuation, "c")}, []heard{{OpPing, "p", 0}, {OpPong, "", 0}, {OpText, "abc", 0}}},
		{"5.4 close inside a message", [][]byte{part(false, OpText, "a"), part(true, OpClose, "\x03\xe8")}, []heard{{OpClose, "", CloseNormal}}},
		{"5.4 a character across fragments", [][]byte{part(false, OpText, "\xf0\x9f"), part(false, OpContinuation, "\x98"), part(true, OpContinuation, "\x80!")}, []heard{{OpText, "😀!", 0}}},
		{"5.5.1 close without body", [][]byte{part(true, OpClose, "")}, []heard{{OpClose, "", CloseNoStatus}}},
		{"5.5.1 close with reason", [][]byte{part(true, OpClose, "\x03\xe9bye é")}, []heard{{OpClose, "bye é", CloseGoingAway}}},
		{"5.5 control of 125 bytes", [][]byte{part(true, OpPing, strings.Repeat("p", 125))}, []heard{{OpPing, strings.Repeat("p", 125), 0}}},
		{"7.4.2 private code", [][]byte{part(true, OpClose, "\x0f\xa0")}, []heard{{OpClose, "", 4000}}},
		{"several messages", [][]byte{part(true, OpText, "a"), part(true, OpBinary, "b"), part(true, OpText, "c")}, []heard{{OpText, "a", 0}, {OpBinary, "b", 0}, {OpText, "c", 0}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			stream := bytes.Join(c.stream, nil)
			for name, cut := range map[string]func(int) int{"at once": atOnce, "byte by byte": byteWise, "by threes": func(int) int { return 3 }} {
				var r MessageReader
				got, err := readAll(&r, stream, 1<<16, cut)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Errorf("%s: %s", name, diff)
				}
				if inside := c.name == "5.4 close inside a message"; r.Idle() == inside {
					t.Errorf("%s: idle %v", name, r.Idle())
				}
			}
		})
	}
}

// length64Header is a masked data header that declares any length in 64 bits.
func length64Header(length uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{bitFinal | byte(OpBinary), bitMasked | length64}, length)
}

// maxBytesOfBad is the limit that badStreams are read with.
const maxBytesOfBad = 1 << 16

// badStreams break RFC 6455, or a limit of 64 KiB a message, at a known byte.
var badStreams = []struct {
	name   string
	stream []byte
	want   *ProtocolError
	early  int // bytes of stream after which the error must have come
}{
	{"5.1 unmasked", AppendFrame(nil, OpText, []byte("Hello")), errUnmasked, 2},
	{"5.2 RSV1", []byte{0xC1, 0x80}, errReservedBits, 2},
	{"5.2 RSV2", []byte{0xA1, 0x80}, errReservedBits, 2},
	{"5.2 RSV3", []byte{0x91, 0x80}, errReservedBits, 2},
	{"5.2 RSV on a ping", []byte{0xC9, 0x80}, errReservedBits, 2},
	{"5.2 opcode 3", []byte{0x83, 0x80}, errReservedOpcode, 2},
	{"5.2 opcode 7", []byte{0x87, 0x80}, errReservedOpcode, 2},
	{"5.2 opcode B", []byte{0x8B, 0x80}, errReservedOpcode, 2},
	{"5.2 opcode F", []byte{0x8F, 0x80}, errReservedOpcode, 2},
	{"5.2 length 125 in 16 bits", []byte{0x82, 0xFE, 0, 125}, errLengthForm, 4},
	{"5.2 length 65535 in 64 bits", length64Header(65535), errLengthForm, 10},
	{"5.2 length with the top bit", length64Header(1 << 63), errLengthSign, 10},
	{"5.2 length of all bits", length64Header(1<<64 - 1), errLengthSign, 10},
	{"10.4 length 2^63-1", length64Header(1<<63 - 1), errTooBig, 10},
	{"10.4 length 2^62", length64Header(1 << 62), errTooBig, 10},
	{"10.4 length 2^46", length64Header(1 << 46), errTooBig, 10},
	{"10.4 one over the limit", length64Header(maxBytesOfBad + 1), errTooBig, 10},
	{"10.4 the sum one over the limit", append(part(false, OpBinary, strings.Repeat("x", maxBytesOfBad)), 0x80, 0x81), errTooBig, 10 + 4 + maxBytesOfBad + 2},
	{"5.4 stray continuation", part(true, OpContinuation, "x"), errStray, 2},
	{"5.4 stray continuation, not final", part(false, OpContinuation, "x"), errStray, 2},
	{"5.4 text inside a message", append(part(false, OpText, "a"), part(true, OpText, "b")...), errInsideMessage, 9},
	{"5.4 binary inside a message", append(part(false, OpText, "a"), part(false, OpBinary, "b")...), errInsideMessage, 9},
	{"5.5 fragmented ping", part(false, OpPing, ""), errControlFragment, 2},
	{"5.5 fragmented close", part(false, OpClose, "\x03\xe8"), errControlFragment, 2},
	{"5.5 ping of 126 bytes", []byte{0x89, 0xFE, 0, 126}, errControlLong, 2},
	{"5.5 close in 64 bits of length", []byte{0x88, 0xFF}, errControlLong, 2},
	{"5.5.1 close of one byte", part(true, OpClose, "\x03"), errCloseBody, 2},
	{"5.5.1 close reason not UTF-8", part(true, OpClose, "\x03\xe8\xff"), errCloseReason, 9},
	{"5.5.1 close reason cut", part(true, OpClose, "\x03\xe8\xe2\x82"), errCloseReason, 10},
	{"7.4 close code 999", part(true, OpClose, "\x03\xe7"), errCloseCode, 8},
	{"7.4.1 close code 1005", part(true, OpClose, "\x03\xed"), errCloseCode, 8},
	{"8.1 text not UTF-8", part(true, OpText, "a\xffbbbbbbbb"), errText, 8},
	{"8.1 overlong", part(true, OpText, "\xc0\x80bbbbbbbb"), errText, 7},
	{"8.1 overlong of three", part(true, OpText, "\xe0\x80bbbbbbbb"), errText, 8},
	{"8.1 surrogate", part(true, OpText, "\xed\xa0bbbbbbbb"), errText, 8},
	{"8.1 above U+10FFFF", part(true, OpText, "\xf4\x90bbbbbbbb"), errText, 8},
	{"8.1 byte F5", part(true, OpText, "\xf5bbbbbbbb"), errText, 7},
	{"8.1 continuation byte alone", part(true, OpText, "\x80bbbbbbbb"), errText, 7},
	{"8.1 character cut by the end", part(true, OpText, "\xe2\x82"), errText, 8},
	{"8.1 character cut by the end of fragments", append(part(false, OpText, "\xe2"), part(true, OpContinuation, "\x82")...), errText, 14},
	{"8.1 character broken across fragments", append(part(false, OpText, "\xe2\x82"), part(true, OpContinuation, "xxxxx")...), errText, 15},
}

func TestReadRefuses(t *testing.T) {
	for _, c := range badStreams {
		t.Run(c.name, func(t *testing.T) {
			for name, cut := range map[string]func(int) int{"at once": atOnce, "byte by byte": byteWise} {
				for _, stream := range [][]byte{c.stream, append(bytes.Clone(c.stream), part(true, OpText, "behind")...)} {
					var r MessageReader
					messages, err := readAll(&r, stream, maxBytesOfBad, cut)
					if !errors.Is(err, c.want) || len(messages) > 0 {
						t.Fatalf("%s: %v, %v", name, messages, err)
					}
					if m, rest, again := r.Next(part(true, OpText, "x"), maxBytesOfBad); !errors.Is(again, c.want) || m.Op != 0 || rest != nil || r.Idle() {
						t.Errorf("%s: afterwards %v, %v", name, m, again)
					}
				}
			}
			var r MessageReader
			if _, err := readAll(&r, c.stream[:c.early-1], maxBytesOfBad, byteWise); err != nil {
				t.Errorf("after %d bytes already: %v", c.early-1, err)
			}
			if _, err := readAll(&r, c.stream[c.early-1:c.early], maxBytesOfBad, byteWise); !errors.Is(err, c.want) {
				t.Errorf("after %d bytes: %v", c.early, err)
			}
		})
	}
}

func TestReadClientSide(t *testing.T) {
	r := MessageReader{ClientSide: true}
	stream := append(AppendFrame(nil, OpText, []byte("a")), AppendClose(nil, CloseRestart, "drain")...)
	got, err := readAll(&r, stream, 0, byteWise)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]heard{{OpText, "a", 0}, {OpClose, "drain", CloseRestart}}, got); diff != "" {
		t.Error(diff)
	}
	if _, err = readAll(&r, part(true, OpText, "x"), 0, atOnce); !errors.Is(err, errMasked) {
		t.Errorf("RFC 6455, 5.1: masked frame of a server: %v", err)
	}
}

func TestReadInPlace(t *testing.T) {
	b := append(part(true, OpText, "Hello"), part(true, OpPing, "x")...)
	var r MessageReader
	m, rest, err := r.Next(b, 16)
	if err != nil || string(m.Data) != "Hello" || &m.Data[0] != &b[6] {
		t.Fatalf("%v, %v: not in place", m, err)
	}
	if m, rest, err = r.Next(rest, 16); err != nil || m.Op != OpPing || &m.Data[0] != &b[17] || len(rest) != 0 {
		t.Fatalf("%v, %v: not in place", m, err)
	}
	if !r.Idle() || r.message != nil || r.control != nil {
		t.Error("something is kept")
	}
}

// TestReadKeepsWhatCame announces much and sends little: memory follows what was sent.
func TestReadKeepsWhatCame(t *testing.T) {
	const announced = 1 << 40
	var r MessageReader
	if _, err := readAll(&r, append(length64Header(announced), testMask[:]...), 0, atOnce); err != nil {
		t.Fatal(err)
	}
	sent := 0
	for range 3000 {
		piece := make([]byte, 7)
		if _, err := readAll(&r, piece, 0, atOnce); err != nil {
			t.Fatal(err)
		}
		if sent += len(piece); cap(r.message) > 2*sent {
			t.Fatalf("%d bytes kept of %d", cap(r.message), sent)
		}
	}
	var small MessageReader
	if _, err := readAll(&small, part(true, OpBinary, strings.Repeat("x", 1000))[:900], 1<<16, func(int) int { return 100 }); err != nil {
		t.Fatal(err)
	}
	if cap(small.message) > 1000 {
		t.Errorf("%d bytes for a message of 1,000", cap(small.message))
	}
}

// TestReadFragmentFlood: fragments of one byte end at the limit, those of none at their own.
func TestReadFragmentFlood(t *testing.T) {
	const maxBytes = 1000
	flood := func(payload string) (int, error) {
		var r MessageReader
		frame := part(false, OpBinary, payload)
		for count := range 1_000_000 {
			if _, err := readAll(&r, frame, maxBytes, atOnce); err != nil {
				return count, err
			}
			frame = part(false, OpContinuation, payload)
		}
		return 0, nil
	}
	if count, err := flood("x"); !errors.Is(err, errTooBig) || count != maxBytes {
		t.Errorf("one byte: %v after %d", err, count)
	}
	if count, err := flood(""); !errors.Is(err, errEmptyFragments) || count != emptyFragmentsMax {
		t.Errorf("no byte: %v after %d", err, count)
	}
	// The limit is per message, not per stream.
	var r MessageReader
	for range 10 * emptyFragmentsMax {
		stream := append(part(false, OpText, ""), part(true, OpContinuation, "")...)
		if _, err := readAll(&r, stream, maxBytes, atOnce); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReadBigMessageAllocates: a message of a megabyte in pieces costs few allocations.
func TestReadBigMessageAllocates(t *testing.T) {
	stream := part(true, OpText, strings.Repeat("é", 1<<19))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var r MessageReader
	b := make([]byte, 4096)
	for rest := stream; len(rest) > 0; {
		size := copy(b, rest)
		rest = rest[size:]
		if m, _, err := r.Next(b[:size], 1<<20); err != nil || m.Op != 0 && len(m.Data) != 1<<20 {
			t.Fatal(len(m.Data), err)
		}
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 4<<20 {
		t.Errorf("%d bytes allocated", grown)
	}
}

func TestWholeCharacters(t *testing.T) {
	for text, want := range map[string]struct {
		size int
		ok   bool
	}{
		"": {0, true}, "a": {1, true}, "é": {2, true}, "a\xc3": {1, true}, "\xe2\x82": {0, true},
		"a\xf0\x9f\x98": {1, true}, "😀": {4, true}, "a\xff": {2, false}, "\xc0": {1, false},
		"\x80\x80\x80": {3, false}, "é\x80": {3, false}, "\xf0\x9f\x98\x80\x80": {5, false},
	} {
		if size, ok := wholeCharacters([]byte(text)); size != want.size || ok != want.ok {
			t.Errorf("%q: %d, %v", text, size, ok)
		}
	}
}

func FuzzWSRead(f *testing.F) {
	for _, frames := range [][][]byte{
		{part(true, OpText, "Hello"), part(true, OpClose, "\x03\xe8bye")},
		{part(false, OpText, "a\xf0\x9f"), part(true, OpPing, "p"), part(true, OpContinuation, "\x98\x80")},
		{part(true, OpBinary, strings.Repeat("x", 300)), part(true, OpText, "\xed\xa0")},
		{length64Header(1 << 63)},
		{part(false, OpBinary, ""), part(false, OpContinuation, ""), part(true, OpContinuation, "")},
		{AppendFrame(nil, OpText, []byte("unmasked"))},
	} {
		f.Add(bytes.Join(frames, nil), []byte{1, 2, 3}, uint16(1000))
	}
	f.Fuzz(func(t *testing.T, stream, cuts []byte, maxBytes uint16) {
		turn := 0
		checkReading(t, stream, int(maxBytes)+1, func(int) int {
			if len(cuts) == 0 {
				return 1
			}
			turn++
			return int(cuts[turn%len(cuts)]) + 1
		})
	})
}

// TestReadRandomStreams writes streams that are mostly good, which fuzzing rarely finds, and
// reads them in random pieces.
func TestReadRandomStreams(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream []byte
		inside := false
		for range rapid.IntRange(1, 8).Draw(t, "frames") {
			opcode := rapid.SampledFrom([]Opcode{OpText, OpText, OpBinary, OpPing, OpPong, OpContinuation}).Draw(t, "opcode")
			text := rapid.StringN(0, 40, -1).Draw(t, "text")
			if inside && opcode&0x8 == 0 && rapid.IntRange(0, 9).Draw(t, "honest") > 0 {
				opcode = OpContinuation
			}
			final := opcode&0x8 != 0 || rapid.Bool().Draw(t, "final")
			if opcode&0x8 == 0 {
				inside = !final
			}
			stream = append(stream, part(final, opcode, text)...)
		}
		pieces := rapid.SliceOfN(rapid.IntRange(1, 20), 1, 10).Draw(t, "pieces")
		turn := 0
		checkReading(t, stream, 120, func(int) int {
			turn++
			return pieces[turn%len(pieces)]
		})
	})
}

// TestReadEveryCut cuts one stream at every pair of places.
func TestReadEveryCut(t *testing.T) {
	stream := slices.Concat(part(false, OpText, "h\xc3"), part(true, OpPing, "pp"), part(true, OpContinuation, "\xa9!"), part(true, OpClose, "\x03\xe8bye"))
	want := []heard{{OpPing, "pp", 0}, {OpText, "hé!", 0}, {OpClose, "bye", CloseNormal}}
	for first := 1; first < len(stream); first++ {
		for second := 1; first+second <= len(stream); second++ {
			sizes := []int{first, second, len(stream)}
			var r MessageReader
			got, err := readAll(&r, stream, 16, func(int) int {
				size := sizes[0]
				sizes = sizes[1:]
				return size
			})
			if err != nil || !slices.Equal(got, want) || !r.Idle() {
				t.Fatalf("cut at %d and %d: %v, %v", first, first+second, got, err)
			}
		}
	}
}
