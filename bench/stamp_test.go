package bench

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"
)

// message gives a payload of the ordinary size with a mark.
func message(t testing.TB, stamp int64, number uint32) []byte {
	t.Helper()
	p, err := newPayload(154)
	if err != nil {
		t.Fatal(err)
	}
	p.set(stamp, number)
	return slices.Clone(p.bytes)
}

func TestPayload(t *testing.T) {
	for _, size := range []int{payloadBytesMin, payloadBytesMin + 1, 154, 4096} {
		p, err := newPayload(size)
		if err != nil {
			t.Fatal(err)
		}
		p.set(123_456_789_012_345, 42)
		if len(p.bytes) != size {
			t.Errorf("payload of %d bytes has %d", size, len(p.bytes))
		}
		var decoded struct {
			T, N json.Number
		}
		if err := json.Unmarshal(p.bytes, &decoded); err != nil {
			t.Fatalf("payload of %d bytes is not JSON: %v: %s", size, err, p.bytes)
		}
		if decoded.T != "1000123456789012345" || decoded.N != "10000042" {
			t.Errorf("marks are t %s and n %s", decoded.T, decoded.N)
		}
		stamp, number, ok := readMark(p.mark)
		if !ok || stamp != 123_456_789_012_345 || number != 42 {
			t.Errorf("the mark reads as %d, %d, %v", stamp, number, ok)
		}
	}
	if _, err := newPayload(payloadBytesMin - 1); err == nil {
		t.Error("a payload too small for its mark was made")
	}
}

// received is what a scanner found.
type received struct {
	deliveries, lost, repeated uint64
	latencies                  []int64
}

// scanPieces scans the pieces as reads of one stream, all at the time now.
func scanPieces(pieces [][]byte, now int64) received {
	var s scanner
	var r received
	t := tally{record: func(nanoseconds int64) { r.latencies = append(r.latencies, nanoseconds) }}
	for _, piece := range pieces {
		s.scan(piece, now, &t)
	}
	r.deliveries, r.lost, r.repeated = t.deliveries, t.lost, t.repeated
	return r
}

func TestScanEverySplit(t *testing.T) {
	stream := slices.Concat(
		[]byte("9f\r\ndata: "), message(t, 1_000, 7), []byte("\n\n\r\n"),
		[]byte(`noise "t" and "t": and "t":1 and "t":"1" `),
		[]byte{0x81, 126, 0, 154}, message(t, 2_000, 8),
	)
	for first := 0; first <= len(stream); first++ {
		for _, second := range []int{first, first + 1, first + 2, first + 40, len(stream)} {
			if second > len(stream) {
				continue
			}
			got := scanPieces([][]byte{stream[:first], stream[first:second], stream[second:]}, 5_000)
			if got.deliveries != 2 || got.lost != 0 || got.repeated != 0 || !slices.Equal(got.latencies, []int64{4_000, 3_000}) {
				t.Fatalf("split at %d and %d: %+v", first, second, got)
			}
		}
	}
	var bytewise [][]byte
	for i := range stream {
		bytewise = append(bytewise, stream[i:i+1])
	}
	if got := scanPieces(bytewise, 5_000); got.deliveries != 2 {
		t.Fatalf("byte by byte: %+v", got)
	}
}

func TestScanSequence(t *testing.T) {
	tests := []struct {
		name           string
		numbers        []uint32
		lost, repeated uint64
	}{
		{"in order", []uint32{1, 2, 3}, 0, 0},
		{"starts late", []uint32{5, 6}, 0, 0},
		{"one missing", []uint32{1, 3}, 1, 0},
		{"many missing", []uint32{1, 10, 20}, 17, 0},
		{"one twice", []uint32{1, 2, 2, 3}, 0, 1},
		{"out of order", []uint32{1, 3, 2, 4}, 1, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var stream []byte
			for _, number := range test.numbers {
				stream = append(stream, message(t, 1, number)...)
			}
			got := scanPieces([][]byte{stream}, 2)
			if got.deliveries != uint64(len(test.numbers)) || got.lost != test.lost || got.repeated != test.repeated {
				t.Errorf("got %+v, expected %d lost and %d repeated", got, test.lost, test.repeated)
			}
		})
	}
}

// FuzzScan holds that the pieces in which bytes come change nothing.
func FuzzScan(f *testing.F) {
	f.Add(message(f, 1, 1), uint8(3), uint8(60))
	f.Add(append(message(f, 1, 1), message(f, 2, 2)...), uint8(200), uint8(1))
	f.Add([]byte(`"t":1"t":1"t"`), uint8(1), uint8(2))
	f.Fuzz(func(t *testing.T, stream []byte, first, second uint8) {
		whole := scanPieces([][]byte{stream}, 1<<40)
		a := min(int(first), len(stream))
		b := min(a+int(second), len(stream))
		pieces := scanPieces([][]byte{stream[:a], stream[a:b], stream[b:]}, 1<<40)
		if whole.deliveries != pieces.deliveries || whole.lost != pieces.lost || !slices.Equal(whole.latencies, pieces.latencies) {
			t.Errorf("whole %+v, cut at %d and %d %+v: %q", whole, a, b, pieces, stream)
		}
	})
}

func TestScanAllocatesNothing(t *testing.T) {
	stream := bytes.Repeat(message(t, 1, 1), 8)
	var s scanner
	hist := newLatency()
	total := tally{record: func(nanoseconds int64) { recordLatency(hist, nanoseconds) }}
	if allocations := testing.AllocsPerRun(100, func() {
		s.scan(stream[:100], 2, &total)
		s.scan(stream[100:], 2, &total)
	}); allocations != 0 {
		t.Errorf("%v allocations a read", allocations)
	}
}

func BenchmarkScan(b *testing.B) {
	stream := message(b, 1, 1)
	var s scanner
	hist := newLatency()
	total := tally{record: func(nanoseconds int64) { recordLatency(hist, nanoseconds) }}
	b.SetBytes(int64(len(stream)))
	for b.Loop() {
		s.scan(stream, 2, &total)
	}
}
