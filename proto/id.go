package proto

import (
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// IDKind says what an event's id can be resumed from.
type IDKind uint8

const (
	// IDEvent is CHANNEL/EPOCH.N: the N-th event that one gateway's life handed over.
	IDEvent IDKind = iota + 1
	// IDLog is CHANNEL/MS-SEQ/H: an entry of a log, and how far all logs were read by then.
	IDLog
	// IDValue is CHANNEL/=VALUE: what the publisher calls the event.
	IDValue
	// IDEnd is STREAM/end: the stream is finished, there is nothing to resume.
	IDEnd
)

const (
	// EpochBytesMax bounds an epoch, in bytes.
	EpochBytesMax = 64
	// endSuffix ends the id of a finished stream.
	endSuffix = "/end"
)

// ID is an event's id taken apart. It refers to the text that it was parsed from.
type ID struct {
	Kind IDKind
	// Channel is zero for IDEnd.
	Channel Channel
	// Epoch and N are those of IDEvent.
	Epoch string
	N     uint64
	// Milliseconds and Sequence name the entry of IDLog; Horizon is the read horizon, Redis time
	// in ms since 1970, 0 where it is not known.
	Milliseconds, Sequence, Horizon uint64
	// Value is that of IDValue.
	Value string
	// Stream is that of IDEnd.
	Stream string
}

// IDError says why a text is no id. It wraps [ErrBadID] and repeats nothing of the text.
type IDError struct{ Problem string }

func (e *IDError) Error() string { return ErrBadID.Error() + ": " + e.Problem }

// Unwrap makes errors.Is(err, ErrBadID) true.
func (e *IDError) Unwrap() error { return ErrBadID }

// The reasons why a text is no id.
var (
	errIDLength  = &IDError{"longer than 512 bytes"}
	errIDSlash   = &IDError{"there is no / behind the channel's name"}
	errIDChannel = &IDError{"what is before the / is no channel"}
	errIDStream  = &IDError{"what is before /end is no name of a stream"}
	errIDValue   = &IDError{"the value behind = is empty, not UTF-8, or holds a control character"}
	errIDLog     = &IDError{"a position in a log is MS-SEQ/H, three whole numbers"}
	errIDEvent   = &IDError{"a position of events is EPOCH.N"}
)

// AppendEventID appends CHANNEL/EPOCH.N. epoch is 1 to 64 bytes of [A-Za-z0-9_-].
func AppendEventID(dst []byte, channel, epoch string, n uint64) []byte {
	dst = append(dst, channel...)
	dst = append(dst, '/')
	dst = append(dst, epoch...)
	dst = append(dst, '.')
	return strconv.AppendUint(dst, n, 10)
}

// AppendLogID appends CHANNEL/MS-SEQ/H: Redis's own id of the entry and the read horizon in ms.
func AppendLogID(dst []byte, channel string, milliseconds, sequence, horizon uint64) []byte {
	dst = append(dst, channel...)
	dst = append(dst, '/')
	dst = strconv.AppendUint(dst, milliseconds, 10)
	dst = append(dst, '-')
	dst = strconv.AppendUint(dst, sequence, 10)
	dst = append(dst, '/')
	return strconv.AppendUint(dst, horizon, 10)
}

// AppendValueID appends CHANNEL/=VALUE. The value is the publisher's: [NewEvent] refuses the id
// if it cannot be said on a wire, [ParseID] if it holds a control character.
func AppendValueID(dst []byte, channel, value string) []byte {
	dst = append(dst, channel...)
	dst = append(dst, '/', '=')
	return append(dst, value...)
}

// AppendEndID appends STREAM/end. stream is 1 to 255 bytes of what channels' names are made of.
func AppendEndID(dst []byte, stream string) []byte {
	return append(append(dst, stream...), endSuffix...)
}

// ParseID takes an id apart that a client claims to have seen. What these functions append comes
// out as it went in; anything else is an [*IDError]: an unknown position.
func ParseID(text string) (ID, error) {
	if len(text) > EventIDBytesMax {
		return ID{}, errIDLength
	}
	name, position, found := strings.Cut(text, "/")
	if !found {
		return ID{}, errIDSlash
	}
	if position == endSuffix[1:] {
		if !validStream(name) {
			return ID{}, errIDStream
		}
		return ID{Kind: IDEnd, Stream: name}, nil
	}
	channel, err := ParseChannel(name)
	if err != nil || channel.Wildcard() {
		return ID{}, errIDChannel
	}
	id := ID{Channel: channel}
	if value, ok := strings.CutPrefix(position, "="); ok {
		if !validValue(value) {
			return ID{}, errIDValue
		}
		id.Kind, id.Value = IDValue, value
		return id, nil
	}
	if entry, horizon, ok := strings.Cut(position, "/"); ok {
		return parseLogID(id, entry, horizon)
	}
	return parseEventID(id, position)
}

func parseLogID(id ID, entry, horizon string) (ID, error) {
	milliseconds, sequence, _ := strings.Cut(entry, "-")
	var good [3]bool
	id.Milliseconds, good[0] = parseNumber(milliseconds)
	id.Sequence, good[1] = parseNumber(sequence)
	id.Horizon, good[2] = parseNumber(horizon)
	if good != [3]bool{true, true, true} {
		return ID{}, errIDLog
	}
	id.Kind = IDLog
	return id, nil
}

func parseEventID(id ID, position string) (ID, error) {
	epoch, number, _ := strings.Cut(position, ".")
	n, ok := parseNumber(number)
	if !ok || !validEpoch(epoch) {
		return ID{}, errIDEvent
	}
	id.Kind, id.Epoch, id.N = IDEvent, epoch, n
	return id, nil
}

// parseNumber reads a whole number as AppendUint writes it: no sign, no leading zero.
func parseNumber(text string) (uint64, bool) {
	if text == "" || text[0] == '0' && len(text) > 1 {
		return 0, false
	}
	number := uint64(0)
	for i := range len(text) {
		if !isDigit(text[i]) {
			return 0, false
		}
		digit := uint64(text[i] - '0')
		if number > (math.MaxUint64-digit)/10 {
			return 0, false
		}
		number = number*10 + digit
	}
	return number, true
}

// epochByte marks the bytes of which epochs are made.
var epochByte = byteSet("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")

func validEpoch(epoch string) bool {
	if epoch == "" || len(epoch) > EpochBytesMax {
		return false
	}
	for i := range len(epoch) {
		if !epochByte[epoch[i]] {
			return false
		}
	}
	return true
}

func validStream(stream string) bool {
	if stream == "" || len(stream) > ChannelBytesMax {
		return false
	}
	for i := range len(stream) {
		if !channelByte[stream[i]] && stream[i] != ':' {
			return false
		}
	}
	return true
}

// validValue refuses the control characters of ASCII and those of Latin-1 (U+0080 to U+009F), which
// some terminals obey where they print a log, too.
func validValue(value string) bool {
	return value != "" && utf8.ValidString(value) && !strings.ContainsFunc(value, unicode.IsControl)
}
