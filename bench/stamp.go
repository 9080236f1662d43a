package bench

import (
	"bytes"
	"fmt"
	"math/rand/v2"
)

// A message carries one mark: when it should have been sent, and which of its channel's messages
// it is. Both start with a digit 1, so that they are JSON numbers of a fixed length.
//
//	"t":1NNNNNNNNNNNNNNNNNN,"n":1NNNNNNN
const (
	markStart    = `"t":1`
	markMiddle   = `,"n":1`
	stampDigits  = 18
	numberDigits = 7
	markBytes    = len(markStart) + stampDigits + len(markMiddle) + numberDigits

	stampAt  = len(markStart)
	middleAt = stampAt + stampDigits
	numberAt = middleAt + len(markMiddle)

	// payloadBytesMin is the smallest payload that can be made.
	payloadBytesMin = len(`{"type":"tick",,"pad":""}`) + markBytes
	// numberMax is the last number of a channel's messages.
	numberMax = 9_999_999
)

// payload is a message that is sent again and again with another mark.
type payload struct {
	bytes []byte
	mark  []byte // the mark within bytes
	// changing are the places of digits that are others in each message.
	changing []int
	random   *rand.Rand
}

// newPayload makes a payload of exactly size bytes, one JSON object.
func newPayload(size int) (*payload, error) {
	if size < payloadBytesMin {
		return nil, fmt.Errorf("a message of %d bytes cannot carry its mark: at least %d", size, payloadBytesMin)
	}
	b := make([]byte, 0, size)
	b = append(b, `{"type":"tick",`...)
	at := len(b)
	b = append(b, markStart...)
	b = append(b, bytes.Repeat([]byte{'0'}, stampDigits)...)
	b = append(b, markMiddle...)
	b = append(b, bytes.Repeat([]byte{'0'}, numberDigits)...)
	b = append(b, `,"pad":"`...)
	for len(b) < size-len(`"}`) {
		b = append(b, 'a'+byte(len(b)%26))
	}
	b = append(b, `"}`...)
	return &payload{bytes: b, mark: b[at : at+markBytes]}, nil
}

// set writes the mark: the monotonic time in nanoseconds at which the message is due, and its
// number within its channel, from 1.
func (p *payload) set(stamp int64, number uint32) {
	putDigits(p.mark[stampAt:middleAt], uint64(stamp))
	putDigits(p.mark[numberAt:], uint64(number))
	for _, i := range p.changing {
		p.bytes[i] = '0' + byte(p.random.Uint32N(10))
	}
}

func putDigits(b []byte, value uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = '0' + byte(value%10)
		value /= 10
	}
}

// readMark reads the mark at the start of b, of which at least markBytes are there.
func readMark(b []byte) (stamp int64, number uint32, ok bool) {
	if string(b[middleAt:numberAt]) != markMiddle {
		return 0, 0, false
	}
	for _, digit := range b[stampAt:middleAt] {
		if digit-'0' > 9 {
			return 0, 0, false
		}
		stamp = stamp*10 + int64(digit-'0')
	}
	for _, digit := range b[numberAt:markBytes] {
		if digit-'0' > 9 {
			return 0, 0, false
		}
		number = number*10 + uint32(digit-'0')
	}
	return stamp, number, true
}

// scanner finds the marks in the bytes of one stream, in whatever pieces they come. It owes
// nothing to the wire: chunk heads, frame heads and field names lie between marks, never in one.
// No pointers.
type scanner struct {
	carry    [markBytes - 1]byte // the beginning of a mark that a read cut off
	carried  uint8
	several  bool   // channels come in one stream: numbers tell nothing
	followed bool   // next is known
	next     uint32 // number that the next message should have
}

// tally is what a crowd's streams have received together.
type tally struct {
	deliveries, lost, repeated uint64
	first, last                int64 // monotonic time of the first and the last delivery
	record                     func(nanoseconds int64)
}

// scan reads the marks in b, which was read at the monotonic time now.
func (s *scanner) scan(b []byte, now int64, t *tally) {
	if s.carried > 0 {
		var more bool
		if b, more = s.scanCarried(b, now, t); more {
			return
		}
	}
	for {
		at := bytes.Index(b, []byte(markStart))
		if at < 0 {
			s.keep(b[len(b)-cutStart(b):])
			return
		}
		b = b[at:]
		if len(b) < markBytes {
			s.keep(b)
			return
		}
		b = s.take(b, now, t)
	}
}

// take reads the mark at the start of b and gives what is behind it.
func (s *scanner) take(b []byte, now int64, t *tally) []byte {
	stamp, number, ok := readMark(b)
	if !ok {
		return b[len(markStart):]
	}
	s.count(number, t)
	if t.deliveries == 0 {
		t.first = now
	}
	t.last = now
	t.deliveries++
	t.record(now - stamp)
	return b[markBytes:]
}

// count compares the number of a message with the one that should have come.
func (s *scanner) count(number uint32, t *tally) {
	switch {
	case s.several:
		return
	case !s.followed || number == s.next:
	case number > s.next:
		t.lost += uint64(number - s.next)
	default:
		t.repeated++
		return
	}
	s.followed, s.next = true, number+1
}

// scanCarried completes what the last read cut off. It gives what of b is left to look at, or says
// that more bytes are needed still.
func (s *scanner) scanCarried(b []byte, now int64, t *tally) (rest []byte, more bool) {
	var joint [2*markBytes - 2]byte
	carried := int(s.carried)
	n := copy(joint[:], s.carry[:carried])
	n += copy(joint[n:], b[:min(len(b), markBytes-1)])
	s.carried = 0
	done := 0
	for {
		at := bytes.Index(joint[done:n], []byte(markStart))
		if at < 0 || done+at >= carried {
			if cut := cutStart(joint[done:n]); at < 0 && cut > len(b) { // b is too short even for a mark's start
				s.keep(joint[n-cut : n])
				return nil, true
			}
			return b, false
		}
		mark := joint[done+at : n]
		if len(mark) < markBytes { // b is too short for the rest of the mark
			s.keep(mark)
			return nil, true
		}
		if done = n - len(s.take(mark, now, t)); done >= carried {
			return b[done-carried:], false
		}
		// It was none, and the next one may begin in what was carried, too.
	}
}

func (s *scanner) keep(b []byte) { s.carried = uint8(copy(s.carry[:], b)) }

// cutStart is how many bytes at the end of b may be the beginning of a mark.
func cutStart(b []byte) int {
	for n := min(len(markStart)-1, len(b)); n > 0; n-- {
		if string(b[len(b)-n:]) == markStart[:n] {
			return n
		}
	}
	return 0
}
