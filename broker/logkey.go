package broker

import (
	"errors"
	"strings"
	"unsafe"

	"github.com/redis/rueidis"
)

// payloadField is the field of a log's entry that holds the payload.
const payloadField = "data"

// errOddReply says that Redis answered what no Redis should.
var errOddReply = errors.New("Redis answered in a form that is not understood")

// parseEntries reads what XRANGE gave from a cursor on: the entries after it, whether its own
// stood before them, and how many bytes they have.
func parseEntries(reply rueidis.RedisMessage, cursor Position) (entries []Entry, held bool, size int, err error) {
	rows, err := reply.ToArray()
	if err != nil {
		return nil, false, 0, err
	}
	for index := range rows {
		entry, err := parseEntry(&rows[index])
		if err != nil {
			return nil, false, 0, err
		}
		if entry.Position == cursor {
			held = true
			continue
		}
		size += len(entry.Payload)
		if entries == nil {
			entries = make([]Entry, 0, len(rows)-index)
		}
		entries = append(entries, entry)
	}
	return entries, held, size, nil
}

func parseEntry(row *rueidis.RedisMessage) (Entry, error) {
	parts, err := row.ToArray()
	if err != nil || len(parts) != 2 {
		return Entry{}, errOddReply
	}
	text, err := parts[0].ToString()
	if err != nil {
		return Entry{}, errOddReply
	}
	position, ok := ParsePosition(text)
	if !ok {
		return Entry{}, errOddReply
	}
	fields, err := parts[1].ToArray()
	if err != nil || len(fields)%2 != 0 {
		return Entry{}, errOddReply
	}
	payload, err := entryPayload(fields)
	return Entry{Position: position, Payload: payload}, err
}

// entryPayload is the field data, or else all fields as an object, in their order.
func entryPayload(fields []rueidis.RedisMessage) ([]byte, error) {
	size := len("{}")
	for index := 0; index < len(fields); index += 2 {
		name, nameErr := fields[index].ToString()
		value, valueErr := fields[index+1].ToString()
		if nameErr != nil || valueErr != nil {
			return nil, errOddReply
		}
		if name == payloadField {
			return unsafe.Slice(unsafe.StringData(value), len(value)), nil
		}
		size += len(name) + len(value) + len(`"":"",`)
	}
	object := append(make([]byte, 0, size), '{')
	for index := 0; index < len(fields); index += 2 {
		if index > 0 {
			object = append(object, ',')
		}
		name, _ := fields[index].ToString()
		value, _ := fields[index+1].ToString()
		object = appendQuoted(append(appendQuoted(object, name), ':'), value)
	}
	return append(object, '}'), nil
}

// appendQuoted appends text as a JSON string. What is not UTF-8 stays as it is, so that it is
// seen for what it is where events are checked.
func appendQuoted(dst []byte, text string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for index := range len(text) {
		switch b := text[index]; {
		case b == '"', b == '\\':
			dst = append(dst, '\\', b)
		case b < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
		default:
			dst = append(dst, b)
		}
	}
	return append(dst, '"')
}

// parseInfo reads what XINFO STREAM gave. A key of another type, or none, is no log.
func parseInfo(reply rueidis.RedisMessage) (logInfo, error) {
	if err := reply.Error(); err != nil {
		if noKey(err) || wrongType(err) {
			return logInfo{}, nil
		}
		return logInfo{}, err
	}
	parts, err := reply.AsMap()
	if err != nil {
		return logInfo{}, errOddReply
	}
	info := logInfo{exists: true, added: addedUnknown}
	number := func(name string) (uint64, bool) {
		part, ok := parts[name]
		if !ok {
			return 0, false
		}
		value, err := part.AsUint64()
		return value, err == nil
	}
	position := func(name string) (Position, bool) {
		part := parts[name]
		text, err := part.ToString()
		if err != nil {
			return Position{}, false
		}
		return ParsePosition(text)
	}
	length, lengthOK := number("length")
	last, lastOK := position("last-generated-id")
	if !lengthOK || !lastOK {
		return logInfo{}, errOddReply
	}
	info.length, info.last = length, last
	if added, ok := number("entries-added"); ok {
		info.added = added
	}
	info.deleted, _ = position("max-deleted-entry-id")
	if first := parts["first-entry"]; length > 0 {
		entry, err := parseEntry(&first)
		if err != nil {
			return logInfo{}, errOddReply
		}
		info.first = entry.Position
	}
	return info, nil
}

// noKey reports whether XINFO said that there is no such key.
func noKey(err error) bool {
	reply, ok := redisReply(err)
	return ok && strings.Contains(reply.Error(), "no such key")
}

// wrongType reports whether Redis said that the key holds something else.
func wrongType(err error) bool {
	reply, ok := redisReply(err)
	return ok && strings.HasPrefix(reply.Error(), "WRONGTYPE")
}
