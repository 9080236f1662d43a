package netio

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/sockettest"
)

// These tests splice streams in a notation of their own, whose decoder sees whether a piece fits:
//
//	'A' number length text             fits behind anything
//	'B' number previous length text    fits behind the text numbered previous

// notation is the text numbered number, behind the one numbered previous.
type notation struct {
	number, previous uint64
	text             []byte
}

func (n notation) encode(after bool) []byte {
	kind, numbers := byte('A'), binary.BigEndian.AppendUint64(nil, n.number)
	if after {
		kind, numbers = 'B', binary.BigEndian.AppendUint64(numbers, n.previous)
	}
	piece := append([]byte{kind}, numbers...)
	piece = append(piece, byte(len(n.text)))
	return append(piece, n.text...)
}

// notationReader decodes what one stream is sent.
type notationReader struct {
	io.Reader
	last  uint64
	short int // pieces that followed on another
	all   []byte
}

var errUnfit = errors.New("a piece does not fit")

func (r *notationReader) next() (text []byte, err error) {
	kind := make([]byte, 1)
	if _, err := io.ReadFull(r, kind); err != nil {
		return nil, err
	}
	var numbers [2]uint64
	count := map[byte]int{'A': 1, 'B': 2}[kind[0]]
	if count == 0 {
		return nil, fmt.Errorf("no piece begins with %q", kind)
	}
	var length uint8
	if err := binary.Read(r, binary.BigEndian, numbers[:count]); err != nil {
		return nil, err
	}
	if err := binary.Read(r, binary.BigEndian, &length); err != nil {
		return nil, err
	}
	text = make([]byte, length)
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, err
	}
	if kind[0] == 'B' {
		r.short++
		if numbers[1] != r.last {
			return nil, fmt.Errorf("%w: it follows on %d, and %d is there", errUnfit, numbers[1], r.last)
		}
	}
	r.last = numbers[0]
	r.all = append(r.all, text...)
	return text, nil
}

// spliceTo sends text to those of the streams that want it, and now and then a word that only one
// gets and on which nothing follows.
func spliceTo(l *Loop, slots []Slot, n int, want func(stream int) bool) {
	text := bytes.Repeat([]byte{byte(n)}, 1+n%70)
	f := l.NewSplicedFrame(text, l.Now(), &Splice{
		Number: uint64(n), Previous: uint64(n - 1), Source: notation{uint64(n), uint64(n - 1), text},
	})
	defer l.Release(f)
	for stream, slot := range slots {
		if want(stream) {
			l.Send(slot, f, Lane(n%2))
		}
	}
}

func TestSplicedStreams(t *testing.T) { onTornKernels(t, testSplicedStreams) }

func testSplicedStreams(t *testing.T, k *tornKernel) {
	const streams, texts = 12, 300
	want := func(n, stream int) bool { return n%(stream+2) != 0 } // each misses others, as one that lags does
	var slots []Slot
	made := make(map[string]int)
	o := startLoop(t, LoopOptions{}, k, func(o *owner) {
		o.events.Adopted = func(s Slot, _ any) {
			o.Splice(s, []byte("head"))
			o.SendBytes(s, []byte("<head>"))
			slots = append(slots, s)
		}
		o.events.Encode = func(source any, after bool) []byte {
			n := source.(notation)
			made[fmt.Sprint(n.number, after)]++
			return n.encode(after)
		}
		o.events.Mail = func(item any) {
			n := item.(int)
			spliceTo(o.Loop, slots, n, func(stream int) bool { return want(n, stream) })
		}
	})
	var clients []*notationReader
	for range streams {
		client := adopt(t, o, nil)
		client.SetReadDeadline(time.Now().Add(20 * time.Second))
		clients = append(clients, &notationReader{Reader: client, all: []byte("head")})
	}
	for n := 1; n <= texts; n++ {
		if err := o.Post(n); err != nil {
			t.Fatal(err)
		}
	}
	for stream, client := range clients {
		checkSpliced(t, client, texts, func(n int) bool { return want(n, stream) })
	}
	o.Do(context.Background(), func() {
		for stream, slot := range slots {
			all := clients[stream].all
			if sum, length := o.TextSum(slot); sum != crc32.ChecksumIEEE(all) || length != uint32(len(all)) {
				t.Errorf("stream %d: the sum of %d bytes is %x for %d", stream, length, sum, len(all))
			}
			if at := o.LastWrite(slot); at == 0 || at > o.Tick() {
				t.Errorf("stream %d last wrote at %d, and it is %d", stream, at, o.Tick())
			}
			if n := o.Queued(slot); n != 0 {
				t.Errorf("stream %d has %d bytes queued", stream, n)
			}
		}
		for what, times := range made {
			if times != 1 {
				t.Errorf("piece %s was made %d times", what, times)
			}
		}
	})
}

// checkSpliced reads the head, and then all texts that a stream wants.
func checkSpliced(t *testing.T, client *notationReader, texts int, want func(n int) bool) {
	t.Helper()
	head := make([]byte, len("<head>"))
	if _, err := io.ReadFull(client.Reader, head); err != nil || string(head) != "<head>" {
		t.Fatalf("the head: %q, %v", head, err)
	}
	short := 0
	for n := 1; n <= texts; n++ {
		if !want(n) {
			continue
		}
		text, err := client.next()
		if err != nil || !bytes.Equal(text, bytes.Repeat([]byte{byte(n)}, 1+n%70)) {
			t.Fatalf("text %d: %x, %v", n, text, err)
		}
		if n > 1 && want(n-1) {
			short++
		}
	}
	if client.short != short {
		t.Errorf("%d short pieces came, %d texts stand behind their previous one", client.short, short)
	}
}

// TestEncodingIsSpread: a burst for one stream is not encoded in one turn, during which nobody else
// would be served.
func TestEncodingIsSpread(t *testing.T) {
	const texts, most = 1000, encodeBytesMax / encodeBytesMin
	slots := make(chan Slot, 1)
	made, turns := 0, []int{}
	o := startLoop(t, LoopOptions{}, nil, func(o *owner) {
		o.events.Adopted = func(s Slot, _ any) {
			o.Splice(s, nil)
			slots <- s
		}
		o.events.Encode = func(source any, after bool) []byte {
			made++
			return source.(notation).encode(after)
		}
		o.events.Work = func() bool { // before each flush
			turns, made = append(turns, made), 0
			return false
		}
	})
	client := &notationReader{Reader: adopt(t, o, nil)}
	slot := <-slots
	o.Do(context.Background(), func() {
		for n := 1; n <= texts; n++ {
			spliceTo(o.Loop, []Slot{slot}, n, func(int) bool { return true })
		}
	})
	for n := 1; n <= texts; n++ {
		if text, err := client.next(); err != nil || len(text) != 1+n%70 {
			t.Fatalf("text %d has %d bytes, %v", n, len(text), err)
		}
	}
	o.Do(context.Background(), func() {
		if turns = append(turns, made); slices.Max(turns) != most {
			t.Errorf("pieces were made as %v, want %d at most", turns, most)
		}
	})
}

// TestTextSumCountsTheQueue: the end of a stream is queued behind what still waits.
func TestTextSumCountsTheQueue(t *testing.T) {
	slots := make(chan Slot, 1)
	o := startLoop(t, LoopOptions{}, nil, func(o *owner) {
		o.events.Adopted = func(s Slot, _ any) {
			o.Splice(s, nil)
			slots <- s
		}
		o.events.Encode = func(source any, after bool) []byte { return source.(notation).encode(after) }
	})
	client := &notationReader{Reader: adopt(t, o, nil)}
	slot := <-slots
	var sum, length uint32
	o.Do(context.Background(), func() {
		for n := 1; n <= 3*chunkLen; n++ {
			spliceTo(o.Loop, []Slot{slot}, n, func(int) bool { return true })
		}
		sum, length = o.TextSum(slot)
	})
	for range 3 * chunkLen {
		if _, err := client.next(); err != nil {
			t.Fatal(err)
		}
	}
	if sum != crc32.ChecksumIEEE(client.all) || length != uint32(len(client.all)) {
		t.Errorf("%x and %d were told for %d bytes, whose sum is %x", sum, length, len(client.all), crc32.ChecksumIEEE(client.all))
	}
}

// TestTrailsAreReused: a trail goes back with its stream, and leaves nothing to the next one.
func TestTrailsAreReused(t *testing.T) {
	closed := make(chan Reason, 1)
	var slot Slot
	o := startLoop(t, LoopOptions{}, nil, func(o *owner) {
		o.events.Adopted = func(s Slot, _ any) {
			slot = s
			o.Splice(s, nil)
		}
		o.events.Closed = func(_ Slot, r Reason) { closed <- r }
		o.events.Encode = func(source any, after bool) []byte { return source.(notation).encode(after) }
	})
	for range 3 {
		client := adopt(t, o, nil)
		reader := &notationReader{Reader: client}
		for n := 7; n <= 8; n++ {
			o.Do(context.Background(), func() { spliceTo(o.Loop, []Slot{slot}, n, func(int) bool { return true }) })
			if _, err := reader.next(); err != nil {
				t.Fatal(err)
			}
		}
		if reader.short != 1 {
			t.Errorf("%d short pieces, not one", reader.short)
		}
		client.Close()
		<-closed
	}
	o.Do(context.Background(), func() {
		if o.highestTrail != 1 {
			t.Errorf("%d trails were made for one stream after the other", o.highestTrail)
		}
	})
}

// TestEncodeFails: a piece that cannot be made costs the stream, not the loop.
func TestEncodeFails(t *testing.T) {
	for name, encode := range map[string]func(any, bool) []byte{
		"it panics":           func(any, bool) []byte { panic("no") },
		"it gives no byte":    func(any, bool) []byte { return nil },
		"it gives empty ones": func(any, bool) []byte { return []byte{} },
	} {
		t.Run(name, func(t *testing.T) {
			closed := make(chan Reason, 1)
			var spliced, plain Slot
			o := startLoop(t, LoopOptions{}, nil, func(o *owner) {
				o.events.Adopted = func(s Slot, guest any) {
					if plain = s; guest == "spliced" {
						spliced = s
						o.Splice(s, nil)
					}
				}
				o.events.Closed = func(_ Slot, r Reason) { closed <- r }
				o.events.Encode = encode
			})
			adopt(t, o, "spliced")
			client := adopt(t, o, "plain")
			sockettest.Eventually(t, "both are there", func() bool { return stats(t, o).Open == 2 })
			o.Do(context.Background(), func() {
				spliceTo(o.Loop, []Slot{spliced}, 1, func(int) bool { return true })
				o.SendBytes(plain, []byte("well"))
			})
			if reason := <-closed; reason != ReasonBug {
				t.Errorf("the stream was closed because of %v", reason)
			}
			client.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.ReadFull(client, make([]byte, 4)); err != nil {
				t.Errorf("the other stream: %v", err)
			}
		})
	}
}

// TestSplicedDeliveryAllocatesNothing: what a stream costs beyond the pieces that all share.
func TestSplicedDeliveryAllocatesNothing(t *testing.T) {
	text, alone := []byte("the text"), []byte("alone!")
	splice := &Splice{Number: 1, Previous: 1, Alone: alone, after: []byte("after!")}
	wantLeanDelivery(t, len(alone), func(l *Loop, slot Slot) { l.Splice(slot, nil) }, func(l *Loop) Frame {
		return l.NewSplicedFrame(text, l.now, splice)
	})
}
