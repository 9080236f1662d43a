package titancore

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"time"
)

// progressLineMax bounds a line of ffmpeg's; a longer one is passed over.
const progressLineMax = 1 << 10

// progressReader reads what `ffmpeg -progress pipe:1` writes: lines of KEY=VALUE, a block of which
// ends with progress=continue, the last one with progress=end. It is an io.Writer, so that a
// process may write into it, and takes the bytes in whatever pieces they come. It never fails:
// what it does not understand is as if it were not there.
type progressReader struct {
	report func(Progress) // called at the end of each block

	line     []byte // that is not complete yet
	overlong bool   // the line is too long and is passed over
	block    Progress
	ended    bool // progress=end was seen
}

// Write takes the next bytes.
func (r *progressReader) Write(piece []byte) (int, error) {
	taken := len(piece)
	for {
		line, rest, whole := bytes.Cut(piece, []byte{'\n'})
		switch {
		case len(r.line)+len(line) > progressLineMax:
			r.overlong = true
		case !r.overlong:
			r.line = append(r.line, line...)
		}
		if !whole {
			return taken, nil
		}
		if !r.overlong {
			r.take(strings.TrimSpace(string(r.line)))
		}
		r.line, r.overlong = r.line[:0], false
		piece = rest
	}
}

// take reads one line.
func (r *progressReader) take(line string) {
	key, value, found := strings.Cut(line, "=")
	if !found {
		return
	}
	value = strings.TrimSpace(value)
	switch key {
	case "frame":
		if frame, err := strconv.Atoi(value); err == nil && frame >= 0 {
			r.block.Frame = frame
		}
	case "fps":
		r.block.FramesPerSecond = positive(value)
	case "speed":
		r.block.Speed = positive(strings.TrimSuffix(value, "x"))
	case "out_time_us", "out_time_ms":
		// Both are microseconds: the second one's name is an old mistake that ffmpeg keeps.
		if microseconds, err := strconv.ParseInt(value, 10, 64); err == nil && microseconds >= 0 && microseconds < math.MaxInt64/1000 {
			r.block.OutTime = time.Duration(microseconds) * time.Microsecond
		}
	case "progress":
		r.ended = r.ended || value == "end"
		r.report(r.block)
		// What is done stays done where the next block does not say it, or says N/A; how fast it
		// goes is then not known.
		r.block.FramesPerSecond, r.block.Speed = 0, 0
	}
}

// positive reads a number that is more than 0; for anything else, such as N/A, it gives 0.
func positive(text string) float64 {
	number, err := strconv.ParseFloat(text, 64)
	if err != nil || !(number > 0) || math.IsInf(number, 0) {
		return 0
	}
	return number
}
