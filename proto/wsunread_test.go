package proto

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// checkMove reads a stream in two pieces, the second one by a reader that was brought to where the
// first one stood, and compares with one that read both. It reports whether there was a second
// reader: there is none after an error or a close.
func checkMove(t interface{ Fatalf(string, ...any) }, stream []byte, cut, maxBytes int) (moved bool) {
	var before, whole MessageReader
	first, err := readAll(&before, stream[:cut], maxBytes, atOnce)
	if err != nil || len(first) > 0 && first[len(first)-1].Op == OpClose {
		return false
	}
	unread := before.AppendUnread(nil)
	if before.Idle() != (len(unread) == 0) {
		t.Fatalf("%d bytes of a reader that is idle: %v", len(unread), before.Idle())
	}
	var after MessageReader
	if got, err := readAll(&after, unread, maxBytes, atOnce); err != nil || len(got) > 0 {
		t.Fatalf("what was unread gives %v, %v", got, err)
	}
	rest, gotErr := readAll(&after, stream[cut:], maxBytes, atOnce)
	want, wantErr := readAll(&whole, stream, maxBytes, atOnce)
	if got := append(first, rest...); !slices.Equal(got, want) || !errors.Is(gotErr, wantErr) {
		t.Fatalf("moved after %d bytes it read %v, %v; want %v, %v", cut, got, gotErr, want, wantErr)
	}
	return true
}

// TestUnreadAtEveryByte moves a reader at every byte of streams that hold every kind of frame.
func TestUnreadAtEveryByte(t *testing.T) {
	for name, frames := range map[string][][]byte{
		"whole messages":          {part(true, OpText, "Hello"), part(true, OpBinary, strings.Repeat("x", 300))},
		"fragments":               {part(false, OpText, "a\xf0\x9f"), part(false, OpContinuation, "\x98\x80"), part(true, OpContinuation, "z")},
		"a ping within":           {part(false, OpText, "ab"), part(true, OpPing, "ping"), part(true, OpContinuation, "cd")},
		"empty fragments":         {part(false, OpText, ""), part(false, OpContinuation, ""), part(false, OpContinuation, "x"), part(true, OpContinuation, "")},
		"a length of eight bytes": {part(true, OpBinary, strings.Repeat("y", 1<<16))},
		"an error later":          {part(false, OpText, "ab"), part(true, OpText, "no")},
		"a close":                 {part(true, OpText, "ab"), part(true, OpClose, "\x03\xe8bye")},
	} {
		t.Run(name, func(t *testing.T) {
			stream := bytes.Join(frames, nil)
			step := max(len(stream)/2000, 1)
			for cut := 0; cut <= len(stream); cut += step {
				checkMove(t, stream, cut, 1<<20)
			}
		})
	}
}

// TestUnreadCountsEmptyFragments: a flood of empty fragments is still refused at its bound.
func TestUnreadCountsEmptyFragments(t *testing.T) {
	stream := part(false, OpText, "")
	for range emptyFragmentsMax {
		stream = append(stream, part(false, OpContinuation, "")...)
	}
	if !checkMove(t, stream, len(stream)-len(part(false, OpContinuation, "")), 1000) {
		t.Fatal("the flood was refused too early")
	}
}

func TestUnreadRandomStreams(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream []byte
		inside := false
		for range rapid.IntRange(1, 8).Draw(t, "frames") {
			opcode := rapid.SampledFrom([]Opcode{OpText, OpBinary, OpPing, OpPong}).Draw(t, "opcode")
			if inside && opcode&0x8 == 0 {
				opcode = OpContinuation
			}
			final := opcode&0x8 != 0 || rapid.Bool().Draw(t, "final")
			if opcode&0x8 == 0 {
				inside = !final
			}
			stream = append(stream, part(final, opcode, rapid.StringN(0, 40, -1).Draw(t, "text"))...)
		}
		checkMove(t, stream, rapid.IntRange(0, len(stream)).Draw(t, "cut"), 100)
	})
}

// FuzzUnread moves a reader in the middle of anything.
func FuzzUnread(f *testing.F) {
	f.Add(bytes.Join([][]byte{part(false, OpText, "a\xf0\x9f"), part(true, OpPing, "p"), part(true, OpContinuation, "\x98\x80")}, nil), uint16(5))
	f.Add(bytes.Join([][]byte{part(false, OpBinary, ""), part(false, OpContinuation, ""), part(true, OpContinuation, "")}, nil), uint16(8))
	f.Fuzz(func(t *testing.T, stream []byte, cut uint16) {
		checkMove(t, stream, min(int(cut), len(stream)), 1000)
	})
}
