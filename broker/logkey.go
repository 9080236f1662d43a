package broker

import (
	"errors"
	"strings"
	"unsafe"

	"github.com/redis/rueidis"

	"github.com/millrace/millrace/proto"
)

// payloadField is the field of a log's entry that holds the payload.
const payloadField = "data"

// errOddReply says that Redis answered what no Redis should.
var errOddReply = errors.New("Redis answered in a form that is not understood")

// applyLog takes the answer to a read of a Log and reports whether it must be read again at once,
// in another form. The caller holds mutex.
func (t *tracker) applyLog(read *keyRead, key *trackedKey) (again bool, err error) {
	if key.has(keyFresh) && read.form != formStart {
		// Somebody came back while it was read from where an earlier subscription stood.
		key.form = formStart
		return true, nil
	}
	switch read.form {
	case formStart:
		return false, t.startLog(read, key)
	case formRange:
		return t.extendLog(read, key)
	default:
		err := t.checkLog(read, key)
		if errors.Is(err, errTorn) {
			return true, nil
		}
		return false, err
	}
}

// startLog sets the cursor to the end of a log, and says where that is.
func (t *tracker) startLog(read *keyRead, key *trackedKey) error {
	answer, err := read.answers[0].ToMessage()
	read.oddType = wrongType(err)
	info, err := parseInfo(answer)
	if err != nil {
		return err
	}
	key.cursor, key.sum, key.size, key.form = info.last, info.added, 0, formRange
	key.origin = t.session.origin
	update := LogUpdate{Channel: read.channel, From: key.cursor}
	if key.has(keyDoubt) {
		update.Hole, update.Reason = true, proto.GapBroker
	}
	t.update(read, key, update)
	return nil
}

// extendLog takes the entries after the cursor. Its own entry is read too: while it is there
// nothing behind it was trimmed.
func (t *tracker) extendLog(read *keyRead, key *trackedKey) (again bool, err error) {
	answer, err := read.answers[0].ToMessage()
	if wrongType(err) {
		key.form = formCheck
		return true, nil
	}
	if err != nil {
		return false, err
	}
	entries, held, size, err := parseEntries(answer, read.cursor)
	if err != nil {
		return false, err
	}
	if !held {
		key.form = formCheck
		return true, nil
	}
	if key.sum != addedUnknown {
		key.sum += uint64(len(entries))
	}
	read.more = len(entries) == read.count
	if len(entries) > 0 {
		if key.has(keySwept) && !key.has(keyDirty) {
			t.broker.keys.sweepFound.Add(1)
		}
		key.size = uint32(min(size/len(entries), logReadBytes))
		t.update(read, key, LogUpdate{Channel: read.channel, From: read.cursor, Entries: entries})
	}
	return false, nil
}

// checkLog looks whether something is missing after the cursor and goes on from what is there.
func (t *tracker) checkLog(read *keyRead, key *trackedKey) error {
	found, size, err := readCheck(read.answers, read.cursor, read.count)
	if err != nil {
		return err
	}
	read.oddType = found.oddType
	found.added = read.added
	told := found.judge()
	if len(found.entries) > 0 {
		key.size = uint32(min(size/len(found.entries), logReadBytes))
	}
	key.form, key.sum, read.more = formRange, told.added, found.full
	update := LogUpdate{Channel: read.channel, From: told.from, Entries: found.entries, Hole: told.hole, Reason: told.reason}
	if key.has(keyDoubt) && !told.hole {
		update.Hole, update.Reason = true, proto.GapBroker
	}
	key.cursor = told.from
	if !update.Hole && len(update.Entries) == 0 {
		return nil
	}
	if key.has(keySwept) && !key.has(keyDirty|keyDoubt) {
		t.broker.keys.sweepFound.Add(1)
	}
	t.update(read, key, update)
	return nil
}

// update has an update handed over and moves the cursor behind it.
func (t *tracker) update(read *keyRead, key *trackedKey, update LogUpdate) {
	if update.Hole {
		key.flags &^= keyDoubt
		t.broker.keys.holes.Add(1)
	}
	if last := len(update.Entries) - 1; last >= 0 {
		key.cursor = update.Entries[last].Position
	}
	read.updates = append(read.updates, update)
}

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
