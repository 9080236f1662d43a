package proto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"unicode/utf8"

	"github.com/gobwas/ws"
	"github.com/google/go-cmp/cmp"
)

// headerCut is what the reference says of a header that is cut off: it waits for the whole,
// where the reader may know already.
const headerCut CloseCode = 1

// reference reads a whole stream in the plainest way, to compare with: frames by gobwas/ws's
// blocking reader, rules by hand.
func reference(stream []byte, maxBytes int) (messages []heard, code CloseCode) {
	source := bytes.NewReader(stream)
	var message []byte
	var opcode ws.OpCode
	for {
		left := source.Len()
		header, err := ws.ReadHeader(source)
		switch {
		case left == 0:
			return messages, 0
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return messages, headerCut
		case err != nil:
			return messages, 1002
		}
		state := ws.StateServerSide
		if opcode != 0 {
			state |= ws.StateFragmented
		}
		if ws.CheckHeader(header, state) != nil || header.OpCode == ws.OpClose && header.Length == 1 {
			return messages, 1002
		}
		size := 2
		if header.Length > 125 {
			size = 4
		}
		if header.Length > 65535 {
			size = 10
		}
		if left-source.Len() != size+4 {
			return messages, 1002
		}
		if !header.OpCode.IsControl() && header.Length > int64(maxBytes-len(message)) {
			return messages, 1009
		}
		payload := make([]byte, min(header.Length, int64(source.Len())))
		_, _ = source.Read(payload)
		ws.Cipher(payload, header.Mask, 0)
		whole := int64(len(payload)) == header.Length
		if header.OpCode.IsControl() {
			if !whole {
				return messages, 0
			}
			m, code := referenceControl(header.OpCode, payload)
			if code != 0 {
				return messages, code
			}
			messages = append(messages, m)
			continue
		}
		if opcode == 0 {
			opcode = header.OpCode
		}
		message = append(message, payload...)
		done := whole && header.Fin
		if opcode == ws.OpText && !plausible(message, !done) {
			return messages, 1007
		}
		if !whole {
			return messages, 0
		}
		if done {
			messages = append(messages, heard{Op: Opcode(opcode), Data: string(message)})
			message, opcode = nil, 0
		}
	}
}

// referenceControl makes a message of a control frame, or returns the code to close with.
func referenceControl(opcode ws.OpCode, payload []byte) (m heard, code CloseCode) {
	m = heard{Op: Opcode(opcode), Data: string(payload)}
	if opcode != ws.OpClose {
		return m, 0
	}
	m.Code, m.Data = CloseNoStatus, ""
	if len(payload) >= 2 {
		m.Code, m.Data = CloseCode(binary.BigEndian.Uint16(payload)), string(payload[2:])
		if !closeCodes(int(m.Code)) {
			return m, 1002
		}
	}
	if !utf8.ValidString(m.Data) {
		return m, 1007
	}
	return m, 0
}

// plausible reports whether text is UTF-8, or, if more may come, the start of it.
func plausible(text []byte, more bool) bool {
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r == utf8.RuneError && size == 1 {
			return more && !utf8.FullRune(text)
		}
		text = text[size:]
	}
	return true
}

// checkReading compares the reader on every piece of work with itself in one piece and with the
// reference.
func checkReading(t interface{ Fatalf(string, ...any) }, stream []byte, maxBytes int, cut func(int) int) {
	var whole, pieces MessageReader
	want, wantErr := readAll(&whole, stream, maxBytes, atOnce)
	got, gotErr := readAll(&pieces, stream, maxBytes, cut)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%x in pieces: %s", stream, diff)
	}
	if !errors.Is(gotErr, wantErr) {
		t.Fatalf("%x in pieces: %v, at once: %v", stream, gotErr, wantErr)
	}
	if whole.Idle() != pieces.Idle() {
		t.Fatalf("%x: idle %v and %v", stream, whole.Idle(), pieces.Idle())
	}
	var failure *ProtocolError
	if errors.As(wantErr, &failure) && failure == errEmptyFragments {
		return // a rule of ours
	}
	messages, code := reference(stream, maxBytes)
	if diff := cmp.Diff(messages, want); diff != "" {
		t.Fatalf("%x beside the reference: %s", stream, diff)
	}
	switch {
	case code == headerCut:
	case failure == nil && code != 0, failure != nil && failure.Code != code:
		t.Fatalf("%x: %v, the reference says %d", stream, wantErr, code)
	}
}
