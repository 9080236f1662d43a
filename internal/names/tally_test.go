package names

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// keyOf makes one of many keys, of every kind of length.
func keyOf(number int) string {
	lengths := [...]int{0, 1, 3, 10, 10, 10, 11, 40, 127, 131, 254, 255, 256, 1000, 9000, KeyBytesMax}
	name := strconv.Itoa(number) + ":"
	length := lengths[number%len(lengths)]
	if number < len(lengths) && length == 0 {
		return ""
	}
	return name + strings.Repeat(string(rune('a'+number%26)), max(0, length-len(name)))
}

// tallyModel is a tally and the map that it must agree with.
type tallyModel struct {
	t     testing.TB
	tally *Tally
	want  map[string]int
	held  []uint32 // a number for each Add that was not ended
}

func (m *tallyModel) add(key string, limit int) {
	number, ok := m.tally.Add(key, limit)
	if want := limit <= 0 || m.want[key] < limit; ok != want {
		m.t.Fatalf("adding to %d holders with limit %d: %v, want %v", m.want[key], limit, ok, want)
	}
	if !ok {
		return
	}
	m.want[key]++
	m.held = append(m.held, number)
	if number == 0 || m.tally.Key(number) != key || m.tally.Count(number) != m.want[key] {
		m.t.Fatalf("number %d is called %.40q with %d holders, want %.40q with %d", number, m.tally.Key(number), m.tally.Count(number), key, m.want[key])
	}
}

func (m *tallyModel) remove(which int) {
	number, last := m.held[which], len(m.held)-1
	m.held[which], m.held = m.held[last], m.held[:last]
	key := m.tally.Key(number)
	if m.want[key] == 0 {
		m.t.Fatalf("a number that is held is called %.40q, which nobody holds", key)
	}
	m.tally.Remove(number)
	if m.want[key]--; m.want[key] == 0 {
		delete(m.want, key)
	}
	if m.tally.Len() != len(m.want) {
		m.t.Fatalf("%d keys, want %d", m.tally.Len(), len(m.want))
	}
}

// check looks at every key that is held.
func (m *tallyModel) check() {
	counts := make(map[string]int, len(m.want))
	for _, number := range m.held {
		counts[m.tally.Key(number)]++
	}
	for key, count := range counts {
		if m.want[key] != count {
			m.t.Fatalf("%.40q is held %d times, want %d", key, count, m.want[key])
		}
	}
	if len(counts) != len(m.want) {
		m.t.Fatalf("%d keys are held, want %d", len(counts), len(m.want))
	}
}

// TestTallyAgainstAMap plays random holders on a tally and on a map, through growth, decline and
// an end at nothing.
func TestTallyAgainstAMap(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	m := &tallyModel{t: t, tally: NewTally(), want: map[string]int{}}
	for step := range 60_000 {
		growing := step%20_000 < 10_000
		if random.IntN(4) > 0 == growing {
			m.add(keyOf(random.IntN(3000)), random.IntN(5))
		} else if len(m.held) > 0 {
			m.remove(random.IntN(len(m.held)))
		}
		if step%5000 == 0 {
			m.check()
		}
	}
	for len(m.held) > 0 {
		m.remove(0)
	}
	if kept := m.tally.texts.chunkCount(); kept > 1 {
		t.Errorf("an empty tally keeps %d chunks", kept)
	}
	m.add("again", 0)
}

// FuzzTally does the same with what the fuzzer makes of it: two bytes a step.
func FuzzTally(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 1, 0, 0, 2, 1, 0})
	f.Add([]byte{0, 14, 0, 14, 2, 14, 1, 0, 0, 30, 1, 0, 0, 15, 1, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		m := &tallyModel{t: t, tally: NewTally(), want: map[string]int{}}
		for ; len(script) > 1; script = script[2:] {
			switch operation, argument := script[0], int(script[1]); {
			case operation%3 != 1:
				m.add(keyOf(argument), int(operation)/3%4)
			case len(m.held) > 0:
				m.remove(argument % len(m.held))
			}
		}
		m.check()
	})
}

// TestBlocks: every length has a block that holds it and its length, little larger, and two
// lengths share a size of block only if their blocks have the same number of grains.
func TestBlocks(t *testing.T) {
	grainsOf := map[int]uint32{}
	for length := range textBytesMax + 1 {
		size, grains := blockFor(length)
		need := length + 1
		if length >= longText {
			need = length + 3
		}
		if int(grains)*grainLen < need || int(grains)*grainLen > max(need+grainLen-1, need*5/4+grainLen) {
			t.Fatalf("%d bytes get a block of %d", length, int(grains)*grainLen)
		}
		if size < 1 || size >= blockSizes {
			t.Fatalf("%d bytes: size %d of %d", length, size, blockSizes)
		}
		if before, known := grainsOf[size]; known && before != grains {
			t.Fatalf("blocks of size %d have %d and %d grains", size, before, grains)
		}
		grainsOf[size] = grains
	}
}

// TestFreedTextsServeAgain: a crowd that comes and goes does not make the arena grow, as long as
// its keys are about as long.
func TestFreedTextsServeAgain(t *testing.T) {
	tally := NewTally()
	tally.Add("stays", 0)
	grown := 0
	for wave := range 20 {
		var held []uint32
		for n := range 5000 {
			number, _ := tally.Add(fmt.Sprintf("user-%d-%05d", wave%10, n), 0)
			held = append(held, number)
		}
		for _, number := range held {
			tally.Remove(number)
		}
		if wave == 0 {
			grown = tally.texts.chunkCount()
		}
	}
	if got := tally.texts.chunkCount(); got != grown {
		t.Errorf("%d chunks, after the first wave %d", got, grown)
	}
}

// TestTallyBytes holds a key to what it may cost: its text, a length, a count and its share of the
// index.
func TestTallyBytes(t *testing.T) {
	const keys, keyBytes = 100_000, 11
	const most = keyBytes + 15
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	tally := NewTally()
	for n := range keys {
		tally.Add(fmt.Sprintf("user-%06d", n), 0)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := float64(after.HeapAlloc-before.HeapAlloc) / keys
	t.Logf("%.1f bytes for a key of %d", each, keyBytes)
	if each > most {
		t.Errorf("a key of %d bytes costs %.1f, the limit is %d", keyBytes, each, most)
	}
	if tally.Len() != keys {
		t.Errorf("%d keys, want %d", tally.Len(), keys)
	}
}
