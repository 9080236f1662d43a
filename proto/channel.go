package proto

import (
	"errors"
	"strconv"
	"strings"
)

const (
	// ChannelPartBytesMax bounds each part of a channel's name, in bytes.
	ChannelPartBytesMax = 128
	// ChannelBytesMax bounds a channel's whole name, in bytes, colons included.
	ChannelBytesMax = 255
	// channelQuoteBytesMax bounds how much of a bad name an error repeats, in bytes.
	channelQuoteBytesMax = 64
)

// ErrBadChannel is what every error of [ParseChannel] and [NewChannel] is, by errors.Is.
var ErrBadChannel = errors.New("bad channel")

// Channel is the name of a channel together with the places of its parts: type:id,
// type:id:userId, or type:* for every channel of a type. It is a comparable value of 24 bytes,
// immutable and safe for use by many goroutines. The zero value is no channel.
type Channel struct {
	name string
	// first and second are the offsets of the colons; second is 0 where there are two parts.
	first, second uint8
}

// ChannelError says what is wrong with a channel's name. It wraps [ErrBadChannel].
type ChannelError struct {
	// Name is the name as given, or its first 64 bytes. It is not escaped.
	Name string
	// Offset is the byte of the name that is at fault.
	Offset int
	// Problem says in words what was wrong and what is allowed. It repeats nothing of the name.
	Problem string
}

// Error repeats at most 64 bytes of the name, quoted and escaped.
func (e *ChannelError) Error() string {
	return "bad channel " + strconv.QuoteToASCII(e.Name) + " at byte " + strconv.Itoa(e.Offset) + ": " + e.Problem
}

// Unwrap makes errors.Is(err, ErrBadChannel) true.
func (e *ChannelError) Unwrap() error { return ErrBadChannel }

func newChannelError(name string, offset int, problem string) *ChannelError {
	if len(name) > channelQuoteBytesMax {
		name = strings.Clone(name[:channelQuoteBytesMax])
	}
	return &ChannelError{Name: name, Offset: offset, Problem: problem}
}

// The problems that a name can have.
const (
	problemEmpty    = "the name is empty; a channel is type:id or type:id:userId"
	problemLong     = "the name is longer than 255 bytes"
	problemParts    = "a channel has two or three parts, as in type:id or type:id:userId"
	problemPart     = "a part is empty"
	problemPartLong = "a part is longer than 128 bytes"
	problemByte     = "this byte is not allowed; allowed are letters, digits and _ . @ = | + -"
	problemReserved = "types that start with __ are reserved"
	problemWildcard = "* is allowed only as the whole second part of two, as in type:*"
)

// channelByte marks the bytes of which parts are made.
var channelByte = byteSet("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.@=|+-")

func byteSet(members string) (set [256]bool) {
	for i := range len(members) {
		set[members[i]] = true
	}
	return set
}

// ParseChannel is the one place where a channel's name is judged, whoever it came from. The name
// has two or three parts of 1 to 128 bytes of [A-Za-z0-9_.@=|+-] joined by colons, 255 bytes at
// most in all; the first, the type, does not start with "__". "type:*" is a wildcard, which
// [Channel.Wildcard] tells. Case matters; nothing is normalised.
//
// The channel refers to name, which is not copied: whoever cut it out of a buffer that will be
// reused clones it first. A good name costs no allocation. Every error is a [*ChannelError].
func ParseChannel(name string) (Channel, error) {
	if name == "" {
		return Channel{}, newChannelError(name, 0, problemEmpty)
	}
	if len(name) > ChannelBytesMax {
		return Channel{}, newChannelError(name, ChannelBytesMax, problemLong)
	}
	channel := Channel{name: name}
	start, colons := 0, 0
	for i := range len(name) {
		switch c := name[i]; {
		case channelByte[c]:
			if i-start == ChannelPartBytesMax {
				return Channel{}, newChannelError(name, i, problemPartLong)
			}
		case c == ':':
			if i == start {
				return Channel{}, newChannelError(name, i, problemPart)
			}
			switch colons {
			case 0:
				channel.first = uint8(i)
			case 1:
				channel.second = uint8(i)
			default:
				return Channel{}, newChannelError(name, i, problemParts)
			}
			colons++
			start = i + 1
		case c == '*':
			if colons != 1 || i != start || i != len(name)-1 {
				return Channel{}, newChannelError(name, i, problemWildcard)
			}
		default:
			return Channel{}, newChannelError(name, i, problemByte)
		}
	}
	switch {
	case start == len(name):
		return Channel{}, newChannelError(name, start, problemPart)
	case colons == 0:
		return Channel{}, newChannelError(name, len(name), problemParts)
	case strings.HasPrefix(name, "__"):
		return Channel{}, newChannelError(name, 0, problemReserved)
	}
	return channel, nil
}

// NewChannel makes a channel from the object form: type and id give type:id, type and userID
// give type:userID, all three give type:id:userID. It allocates the name once, so that nothing
// of the arguments is kept. Errors are those of [ParseChannel].
func NewChannel(typ, id, userID string) (Channel, error) {
	// A colon inside a part would silently make another channel of it. The lengths are checked
	// here so that a huge part is never joined.
	for _, part := range [...]string{typ, id, userID} {
		if len(part) > ChannelPartBytesMax {
			return Channel{}, newChannelError(part, ChannelPartBytesMax, problemPartLong)
		}
		if i := strings.IndexByte(part, ':'); i >= 0 {
			return Channel{}, newChannelError(part, i, "a part holds a colon, which separates parts")
		}
	}
	switch {
	case typ == "":
		return Channel{}, newChannelError("", 0, "the type is missing")
	case id == "" && userID == "":
		return Channel{}, newChannelError(typ, len(typ), "both id and userId are missing")
	case userID == "":
		return ParseChannel(typ + ":" + id)
	case id == "":
		return ParseChannel(typ + ":" + userID)
	}
	return ParseChannel(typ + ":" + id + ":" + userID)
}

// Colons gives the offsets of the colons in the name; second is 0 where there are two parts. With
// the name they are all that a channel is: see [MakeChannel].
func (c Channel) Colons() (first, second uint8) { return c.first, c.second }

// MakeChannel makes a channel again from the name and the colons that it had, which it believes:
// for who keeps so many channels that 24 bytes for each are too many.
func MakeChannel(name string, first, second uint8) Channel {
	return Channel{name: name, first: first, second: second}
}

// Name is the whole name, as it goes into Redis behind the configured prefix.
func (c Channel) Name() string { return c.name }

// String is Name.
func (c Channel) String() string { return c.name }

// Type is the first part, which selects the namespace.
func (c Channel) Type() string { return c.name[:c.first] }

// Parts is 2 or 3, or 0 for the zero value.
func (c Channel) Parts() int {
	switch {
	case c.name == "":
		return 0
	case c.second == 0:
		return 2
	}
	return 3
}

// Owner is the last part: the user who owns the channel where access is by owner. It is "*" for
// a wildcard, which nobody owns: refuse wildcards before comparing.
func (c Channel) Owner() string {
	switch {
	case c.name == "":
		return ""
	case c.second == 0:
		return c.name[c.first+1:]
	}
	return c.name[c.second+1:]
}

// Wildcard reports whether the channel is type:*, every channel of its type.
func (c Channel) Wildcard() bool {
	// '*' is in no other name.
	return c.name != "" && c.name[len(c.name)-1] == '*'
}

// IsZero reports whether c is no channel at all.
func (c Channel) IsZero() bool { return c.name == "" }
