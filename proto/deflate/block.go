package deflate

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/klauspost/compress/flate"
)

// DictionaryBytesMax is how much of the end of a dictionary [AppendBlock] looks at.
const DictionaryBytesMax = 8 << 10

const (
	// storedBytesMax is how much one stored block holds (RFC 1951, 3.2.4).
	storedBytesMax = 1<<16 - 1
	// storedHeadBytes is the head of a stored block that begins at a whole byte.
	storedHeadBytes = 5
	// syncMark ends what was flushed: the length of an empty stored block, and its complement.
	syncMark = "\x00\x00\xff\xff"
)

// sink collects what a compressor writes.
type sink []byte

func (s *sink) Write(p []byte) (int, error) {
	*s = append(*s, p...)
	return len(p), nil
}

// AppendBlock appends text as blocks that begin and end at a whole byte, none of which is the last
// of its stream. They may refer to the last [DictionaryBytesMax] bytes of dictionary, which must be
// what stands right before them; with none they refer to nothing outside of themselves. They
// are never longer than text stored as it is.
func AppendBlock(dst, text, dictionary []byte) []byte {
	start := len(dst)
	dst = compress(slices.Grow(dst, storedSize(len(text))), text, dictionary)
	if len(dst)-start >= storedSize(len(text)) {
		dst = AppendStored(dst[:start], text)
	}
	return dst
}

// sinks lends sinks, of which a compressor would need one for each text.
var sinks = sync.Pool{New: func() any { return new(sink) }}

func compress(dst, text, dictionary []byte) []byte {
	out := sinks.Get().(*sink)
	*out = dst
	if err := flate.StatelessDeflate(out, text, false, dictionary); err != nil {
		panic(fmt.Sprintf("deflate: memory does not take bytes: %v", err))
	}
	dst, *out = *out, nil
	sinks.Put(out)
	return dst
}

// AppendStored appends text as it is, in blocks that begin and end at a whole byte (RFC 1951,
// 3.2.4) and of which none is the last of its stream. An empty block follows, without which some
// decoders, Go's among them, keep the text to themselves until more comes.
func AppendStored(dst, text []byte) []byte {
	for len(text) > 0 {
		part := text[:min(len(text), storedBytesMax)]
		text = text[len(part):]
		dst = append(dst, 0)
		dst = binary.LittleEndian.AppendUint16(dst, uint16(len(part)))
		dst = binary.LittleEndian.AppendUint16(dst, ^uint16(len(part)))
		if dst = append(dst, part...); len(text) == 0 {
			dst = append(append(dst, 0), syncMark...)
		}
	}
	return dst
}

// storedSize is what AppendStored makes of size bytes.
func storedSize(size int) int {
	if size == 0 {
		return 0
	}
	return size + (1+(size+storedBytesMax-1)/storedBytesMax)*storedHeadBytes
}

// AppendMessage appends text as the payload of one permessage-deflate message (RFC 7692, 7.2.1)
// that refers to no other message. shorter is false, and nothing is appended, where that saves
// nothing: the message is then sent as it is, which RFC 7692, 6 leaves to the sender.
func AppendMessage(dst, text []byte) (_ []byte, shorter bool) {
	start := len(dst)
	dst = compress(slices.Grow(dst, len(text)), text, nil)
	dst = dst[:len(dst)-len(syncMark)]
	if len(dst)-start >= len(text) {
		return dst[:start], false
	}
	return dst, true
}
