package bench

import "encoding/binary"

// hop follows the frames of one WebSocket from head to head (RFC 6455, 5.2), without looking at
// what is in them, so that pings are found wherever reads cut the bytes. No pointers.
type hop struct {
	remaining uint64   // bytes of the current frame's payload that have not come yet
	head      [10]byte // the beginning of a head that a read cut off
	had       uint8
}

const (
	opcodePing = 0x9
	pingBytes  = 125 // RFC 6455, 5.5: the most a control frame carries
)

// frames reads b and calls ping for each ping in it, with its payload where that came whole with
// its head, else with nothing. It reports false if the peer masks its frames, which no server may
// (RFC 6455, 5.1).
func (h *hop) frames(b []byte, ping func(payload []byte)) bool {
	for len(b) > 0 {
		if h.remaining > 0 {
			n := min(h.remaining, uint64(len(b)))
			h.remaining -= n
			b = b[n:]
			continue
		}
		n := copy(h.head[h.had:], b)
		length, headBytes := frameHead(h.head[:int(h.had)+n])
		if headBytes == 0 {
			h.had += uint8(n)
			return true
		}
		if h.head[1]&0x80 != 0 {
			return false
		}
		b = b[headBytes-int(h.had):]
		h.had, h.remaining = 0, length
		if h.head[0]&0x0f == opcodePing {
			if length <= pingBytes && length <= uint64(len(b)) {
				ping(b[:length])
			} else {
				ping(nil)
			}
		}
	}
	return true
}

// frameHead reads the head of an unmasked frame: the payload's length, and the head's own, 0 if b
// is too short for it.
func frameHead(b []byte) (length uint64, headBytes int) {
	if len(b) < 2 {
		return 0, 0
	}
	switch short := b[1] & 0x7f; {
	case short < 126:
		return uint64(short), 2
	case short == 126 && len(b) >= 4:
		return uint64(binary.BigEndian.Uint16(b[2:])), 4
	case short == 127 && len(b) >= 10:
		return binary.BigEndian.Uint64(b[2:]), 10
	}
	return 0, 0
}
