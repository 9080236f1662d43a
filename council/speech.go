package council

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"unicode/utf8"
)

const (
	// textBytesMax bounds what one model may say, in UTF-8.
	textBytesMax = 64 << 10
	// tailBytesMax is how much of its end is kept to find the verdict in.
	tailBytesMax = 4 << 10
	// heldBytesMax is how much may be held back because it could be the verdict.
	heldBytesMax = 2 << 10
	// chunkBytesMax is how much text goes into one entry of the log.
	chunkBytesMax = 16 << 10
	// reasonBytesMax bounds the reason of a verdict.
	reasonBytesMax = 1 << 10
)

// speech is what one model says: what is ready to be told, and the end, in which the verdict will
// be. A line that begins with { or with ``` is held back, since it may be the verdict, which is told
// as a score and not as text. Not safe for use by several goroutines.
type speech struct {
	ready     []byte
	tail      []byte // the last bytes of all that was said, those that are held among them
	held      int    // how many bytes of tail are held back
	total     int
	midOfLine bool
}

// add takes a piece of the answer, which is UTF-8. It reports false, and takes nothing, if the model
// has said too much.
func (s *speech) add(text string) bool {
	if s.total+len(text) > textBytesMax {
		return false
	}
	s.total += len(text)
	for text != "" {
		if s.held == 0 {
			plain := s.plain(text)
			s.ready = append(s.ready, text[:plain]...)
			s.remember(text[:plain])
			text = text[plain:]
		}
		if text == "" {
			break
		}
		piece := text[:min(len(text), heldBytesMax+1-s.held)]
		s.remember(piece)
		s.held += len(piece)
		text = text[len(piece):]
		if s.held > heldBytesMax {
			s.release(s.held)
		}
	}
	return true
}

// plain gives how much of text stands before a line that may be the verdict.
func (s *speech) plain(text string) int {
	for index := range len(text) {
		switch c := text[index]; {
		case c == '\n':
			s.midOfLine = false
		case !s.midOfLine && (c == '{' || c == '`'):
			return index
		case c != ' ' && c != '\t' && c != '\r':
			s.midOfLine = true
		}
	}
	return len(text)
}

func (s *speech) remember(text string) {
	s.tail = append(s.tail, text...)
	if over := len(s.tail) - tailBytesMax; over > 0 {
		s.tail = s.tail[:copy(s.tail, s.tail[over:])]
	}
}

// release lets the first count of the held bytes be told.
func (s *speech) release(count int) {
	held := s.tail[len(s.tail)-s.held:]
	s.ready = append(s.ready, held[:count]...)
	s.midOfLine = true
	s.held = 0
}

// end is the end of the answer: it finds the verdict, and lets go of what is held but not part of it.
func (s *speech) end() (v verdict, ok bool) {
	v, place, ok := findVerdict(s.tail)
	begin := len(s.tail) - s.held
	switch {
	case !ok:
		s.release(s.held)
	case place > begin:
		s.release(len(bytes.TrimSuffix(bytes.TrimSuffix(bytes.TrimRight(s.tail[begin:place], " \t\r\n"), []byte("json")), []byte("```"))))
	}
	return v, ok
}

// take gives at most count bytes of what is ready, whole characters, and forgets them.
func (s *speech) take(count int) string {
	if len(s.ready) > count {
		for count > 0 && !utf8.RuneStart(s.ready[count]) {
			count--
		}
	} else {
		count = len(s.ready)
		// A held piece may have been released in the middle of a character; the rest follows.
		for back := 1; back < utf8.UTFMax && back <= count; back++ {
			if utf8.RuneStart(s.ready[count-back]) {
				if !utf8.FullRune(s.ready[count-back : count]) {
					count -= back
				}
				break
			}
		}
	}
	text := string(s.ready[:count])
	s.ready = s.ready[count:]
	if len(s.ready) == 0 {
		s.ready = nil
	}
	return text
}

// attemptsMax bounds how many beginnings of an object are tried.
const attemptsMax = 16

// findVerdict looks for {"score":..,"reason":..} at the very end of an answer, white space and the
// end of a code block behind it aside.
func findVerdict(tail []byte) (v verdict, place int, ok bool) {
	end := bytes.TrimRight(tail, " \t\r\n")
	end = bytes.TrimRight(bytes.TrimSuffix(end, []byte("```")), " \t\r\n")
	if !bytes.HasSuffix(end, []byte("}")) {
		return verdict{}, 0, false
	}
	place = len(end)
	for range attemptsMax {
		place = bytes.LastIndexByte(end[:place], '{')
		if place < 0 {
			break
		}
		if v, ok = parseVerdict(end[place:]); ok {
			return v, place, true
		}
	}
	return verdict{}, 0, false
}

// parseVerdict reads exactly the object that was asked for: a score that is a number, a reason that
// is a text or not there, nothing else. A score outside of 0 to 1 is taken for the nearer of the two.
func parseVerdict(text []byte) (v verdict, ok bool) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	var asked struct {
		Score  *float64 `json:"score"`
		Reason string   `json:"reason"`
	}
	if decoder.Decode(&asked) != nil || asked.Score == nil || decoder.InputOffset() != int64(len(text)) {
		return verdict{}, false
	}
	score := rounded(math.Min(math.Max(*asked.Score, 0), 1))
	return verdict{score: &score, reason: shorten(asked.Reason)}, true
}

// shorten cuts a reason to its bound, between characters.
func shorten(reason string) string {
	reason = strings.TrimSpace(reason)
	if len(reason) <= reasonBytesMax {
		return reason
	}
	end := reasonBytesMax
	for end > 0 && !utf8.RuneStart(reason[end]) {
		end--
	}
	return reason[:end]
}
