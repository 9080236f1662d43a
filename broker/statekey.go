package broker

import (
	"hash/maphash"
	"slices"
	"unsafe"

	"github.com/redis/rueidis"
)

const (
	// valueBytesDefault is the default of RedisOptions.MaxValueBytes.
	valueBytesDefault = 1 << 20
	// hashFieldBytes is the least that a field of a hash adds to its text: "":"",
	hashFieldBytes = 6
)

var valueSeed = maphash.MakeSeed()

// valueSum stands for a value, so that a read shows whether it changed; 0 is no value. The bytes
// themselves are not kept: they would cost a copy of everything that is subscribed. With 64 bits
// from a seed that nobody knows, a change that goes unseen is as likely as a fault of the memory,
// and the next change mends it.
func valueSum(payload []byte) uint64 {
	if payload == nil {
		return 0
	}
	return max(maphash.Bytes(valueSeed, payload), 1)
}

// applyState takes the answer to a read of a State and reports whether it must be read again at
// once, in another form. The caller holds mutex.
func (t *tracker) applyState(read *keyRead, key *trackedKey) (again bool, err error) {
	value, next, again, err := t.value(read)
	if err != nil || again {
		key.form = next
		return again, err
	}
	key.form = next
	key.size = uint32(min(len(value), readBatchBytes))
	sum := valueSum(value)
	read.payload, read.give = value, sum != key.sum || key.has(keyFresh)
	if sum != key.sum && key.has(keySwept) && !key.has(keyDirty|keyFresh) {
		t.broker.keys.sweepFound.Add(1)
	}
	key.sum = sum
	return false, nil
}

// value reads what a State holds from an answer, and says in which form to read it next, at once
// or when it has changed.
func (t *tracker) value(read *keyRead) (value []byte, next keyForm, again bool, err error) {
	answer, err := read.answers[0].ToMessage()
	absent := rueidis.IsRedisNil(err)
	if wrongType(err) {
		switch read.form {
		case formCount: // neither a string nor a hash
			read.oddType = true
			return nil, formString, false, nil
		case formHash:
			return nil, formString, true, nil
		default:
			return nil, formCount, true, nil
		}
	}
	if err != nil && !absent {
		return nil, formString, false, err
	}
	switch read.form {
	case formCount:
		length, err := answer.ToInt64()
		switch {
		case err != nil:
			return nil, formString, false, err
		case length == 0:
			return nil, formString, false, nil
		case length > int64(t.broker.valueBytesMax/hashFieldBytes):
			read.tooLarge = true
			return nil, formCount, false, nil
		}
		return nil, formHash, true, nil
	case formHash:
		value, err := hashText(answer)
		switch {
		case err != nil:
			return nil, formString, false, err
		case value == nil:
			return nil, formString, false, nil
		case len(value) > t.broker.valueBytesMax:
			read.tooLarge = true
			return nil, formCount, false, nil
		}
		return value, formHash, false, nil
	case formEmpty:
		if absent {
			return nil, formString, false, nil
		}
	}
	text, err := answer.ToString()
	switch {
	case err != nil:
		return nil, formString, false, err
	case text == "" && read.form == formString:
		return nil, formEmpty, true, nil
	case len(text) > t.broker.valueBytesMax:
		read.tooLarge = true
		return nil, formString, false, nil
	case text == "":
		return []byte{}, formString, false, nil
	}
	return unsafe.Slice(unsafe.StringData(text), len(text)), formString, false, nil
}

// hashText is a hash as a JSON object of strings, its names sorted so that equal hashes have equal
// bytes; nil for an empty one, which Redis does not know.
func hashText(answer rueidis.RedisMessage) ([]byte, error) {
	fields, err := answer.AsStrMap()
	if err != nil {
		return nil, err
	}
	if len(fields) == 0 {
		return nil, nil
	}
	names := make([]string, 0, len(fields))
	size := len("{}")
	for name, value := range fields {
		names = append(names, name)
		size += len(name) + len(value) + hashFieldBytes
	}
	slices.Sort(names)
	object := append(make([]byte, 0, size), '{')
	for index, name := range names {
		if index > 0 {
			object = append(object, ',')
		}
		object = appendQuoted(append(appendQuoted(object, name), ':'), fields[name])
	}
	return append(object, '}'), nil
}
