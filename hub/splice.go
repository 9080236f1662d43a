package hub

import (
	"container/list"

	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// This file makes frames for streams that take their events as a gzip stream. Each event has one
// piece that fits behind anything, and, where it is known what came before it on its channel, a
// short one that fits behind that. Which of them a stream gets is netio's to say, when it writes.
// Neither is made before some stream needs it, and all loops share what one of them has made.
//
// What a short piece follows on is always of the same channel: text of another one, which somebody
// else may have published, never bears on its length.

const (
	// lastBytesMax bounds what one loop keeps of the texts that came last on its channels, in bytes,
	// with lastOverhead for each. What is pushed out is followed by a piece that fits anywhere.
	lastBytesMax = 8 << 20
	lastOverhead = 256
	// followBytesMax is the longest text, in bytes, of which a short piece is made: with a longer one
	// what came before saves too little for compressing it a second time.
	followBytesMax = 64 << 10
)

// EncodePiece is [netio.Events].Encode of a loop whose shard has event streams in a gzip form.
func EncodePiece(source any, after bool) []byte { return source.(*proto.Piece).Bytes(after) }

// frame registers an event in a form; for a gzip form, as what may follow on the text before.
// fanout says that it goes to many.
func (s *Shard) frame(event *proto.Event, form proto.Form, born int64, fanout bool, before proto.Text) netio.Frame {
	switch {
	case form.IsGzip():
		text := event.Text(form)
		both := &splicedPiece{splice: netio.Splice{Number: text.Number}, piece: event.Piece(form, before)}
		both.splice.Source = &both.piece
		if text.Number != 0 && len(text.Bytes) <= followBytesMax {
			both.splice.Previous = before.Number
		}
		return s.loop.NewSplicedFrame(text.Bytes, born, &both.splice)
	case fanout:
		return s.loop.NewFanoutFrame(event.Bytes(form), born)
	default:
		return s.loop.NewFrame(event.Bytes(form), born)
	}
}

// splicedPiece is an event's piece and what netio knows of it, in one.
type splicedPiece struct {
	splice netio.Splice
	piece  proto.Piece
}

// OwnFrame registers what the Append functions of package proto wrote for who takes events in form:
// words of the gateway's own, which are not compressed. The caller releases it.
func (s *Shard) OwnFrame(form proto.Form, text []byte) netio.Frame {
	if form.IsGzip() {
		return s.loop.NewSplicedFrame(text, 0, &netio.Splice{Alone: proto.AppendGzipText(nil, form, text)})
	}
	return s.loop.NewFrame(text, 0)
}

// textOf gives the text of an event in a gzip form, nothing in another one.
func textOf(event *proto.Event, form proto.Form) proto.Text {
	if !form.IsGzip() {
		return proto.Text{}
	}
	return event.Text(form)
}

// lastKey names a channel, and whether its texts carry ids.
type lastKey struct {
	channel   uint32
	withoutID bool
}

// lastText is what came last on a channel that streams in a gzip form hear.
type lastText struct {
	key  lastKey
	text proto.Text
}

func (l *lastText) bytes() int { return lastOverhead + len(l.text.Bytes) }

// lastTexts knows what came last on the channels of a shard, the most recent of them.
type lastTexts struct {
	byKey map[lastKey]*list.Element
	order list.List // of *lastText, the newest in front
	bytes int
}

// of gives the last text of a channel; one with number 0 where none is known.
func (l *lastTexts) of(channel uint32, form proto.Form) proto.Text {
	if !form.IsGzip() || channel == 0 {
		return proto.Text{}
	}
	if element := l.byKey[keyOf(channel, form)]; element != nil {
		return element.Value.(*lastText).text
	}
	return proto.Text{}
}

func keyOf(channel uint32, form proto.Form) lastKey {
	return lastKey{channel: channel, withoutID: form.WithoutID() == form}
}

// keep takes note of what a walk brought last.
func (l *lastTexts) keep(channel uint32, form proto.Form, text proto.Text) {
	if channel == 0 || text.Number == 0 {
		return
	}
	key := keyOf(channel, form)
	element := l.byKey[key]
	if element == nil {
		if l.byKey == nil {
			l.byKey = make(map[lastKey]*list.Element)
		}
		element = l.order.PushFront(&lastText{key: key})
		l.byKey[key] = element
	} else {
		l.order.MoveToFront(element)
		l.bytes -= element.Value.(*lastText).bytes()
	}
	last := element.Value.(*lastText)
	last.text = text.Tail()
	for l.bytes += last.bytes(); l.bytes > lastBytesMax; {
		l.remove(l.order.Back())
	}
}

func (l *lastTexts) remove(element *list.Element) {
	last := l.order.Remove(element).(*lastText)
	delete(l.byKey, last.key)
	l.bytes -= last.bytes()
}

// forget lets go of what came on a channel that nobody here wants any more: its number may become
// another one's.
func (l *lastTexts) forget(channel uint32) {
	for _, withoutID := range [...]bool{false, true} {
		if element := l.byKey[lastKey{channel, withoutID}]; element != nil {
			l.remove(element)
		}
	}
}

// allowCompression lets an event be compressed where its rules say so.
func (h *Hub) allowCompression(event *proto.Event, rules *Rules) {
	if rules.Compress {
		event.MayCompress(h.texts.Add(1), rules.CompressOver)
	}
}
