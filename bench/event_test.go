package bench

import (
	"bytes"
	"encoding/json"
	"testing"
)

func TestEventPayload(t *testing.T) {
	for _, size := range []int{154, 155, 300, 4096} {
		p, err := newEventPayload(size)
		if err != nil {
			t.Fatal(err)
		}
		var before []byte
		for n := range uint32(200) {
			p.set(123_456_789, n)
			if len(p.bytes) != size || !json.Valid(p.bytes) {
				t.Fatalf("an event of %d bytes has %d: %s", size, len(p.bytes), p.bytes)
			}
			if _, number, ok := readMark(p.mark); !ok || number != n {
				t.Errorf("the mark of %d bytes reads as %d, %v", size, number, ok)
			}
			if bytes.Equal(before, p.bytes[len(p.bytes)/3:]) {
				t.Errorf("of %d bytes nothing but the mark changes", size)
			}
			before = bytes.Clone(p.bytes[len(p.bytes)/3:])
		}
	}
	if _, err := newEventPayload(100); err == nil {
		t.Error("an event too small for its mark was made")
	}
}
