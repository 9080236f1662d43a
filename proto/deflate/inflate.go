package deflate

import (
	"bytes"
	"errors"
	"io"

	"github.com/klauspost/compress/flate"
)

var (
	// ErrTooLarge says that a message holds more than the caller allows.
	ErrTooLarge = errors.New("deflate: the message inflates to more bytes than are allowed")
	// ErrCorrupt says that a message is not what RFC 7692 calls one.
	ErrCorrupt = errors.New("deflate: the message is not compressed as RFC 7692 says")
)

// messageEnd is put behind a message's payload: what its sender took off (RFC 7692, 7.2.2), and an
// empty last block, at which the reader stops.
const messageEnd = syncMark + "\x01" + syncMark

// Inflater undoes permessage-deflate messages. The zero value is ready; it makes its window with
// the first message and keeps it, about 40 KiB, so one serves a whole loop. It belongs to one
// goroutine.
type Inflater struct {
	input  []byte
	source bytes.Reader
	reader io.Reader // a flate.Resetter
	output []byte
}

// roomKept is how much room for a message an Inflater keeps between two of them.
const roomKept = 64 << 10

// Message gives the text of a message whose payload is compressed and which refers to no other
// message. The text is valid until the next call. No more than bytesMax bytes, 0 being no bound,
// are ever inflated. Errors are [ErrTooLarge] and [ErrCorrupt].
func (i *Inflater) Message(payload []byte, bytesMax int) ([]byte, error) {
	i.input = append(append(i.input[:0], payload...), messageEnd...)
	i.source.Reset(i.input)
	if i.reader == nil {
		i.reader = flate.NewReader(&i.source)
	} else if err := i.reader.(flate.Resetter).Reset(&i.source, nil); err != nil {
		return nil, ErrCorrupt
	}
	defer i.shrink()
	i.output = i.output[:0]
	for {
		if len(i.output) == cap(i.output) {
			i.output = append(i.output, 0)[:len(i.output)]
		}
		room := i.output[len(i.output):cap(i.output)]
		if bytesMax > 0 {
			room = room[:min(len(room), bytesMax+1-len(i.output))]
		}
		n, err := i.reader.Read(room)
		i.output = i.output[:len(i.output)+n]
		switch {
		case bytesMax > 0 && len(i.output) > bytesMax:
			return nil, ErrTooLarge
		case err == io.EOF:
			// A sender's own last block may stand before ours, with a zero byte behind it (RFC 7692,
			// 7.2.3.4); more than that is no message.
			if i.source.Len() > len(messageEnd)+1 {
				return nil, ErrCorrupt
			}
			return i.output, nil
		case err != nil:
			return nil, ErrCorrupt
		}
	}
}

// shrink lets go of the room that only a large message needed. What Message returned stays valid.
func (i *Inflater) shrink() {
	if cap(i.input) > roomKept {
		i.input = nil
	}
	if cap(i.output) > roomKept {
		i.output = nil
	}
}
