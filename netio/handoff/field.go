package handoff

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Key is what stands before a field's value: its number, and whether it must be understood.
type Key uint32

// Must is the key of a field that a reader has to understand, number below 1<<30.
func Must(number uint32) Key { return Key(number<<1 | 1) }

// May is the key of a field that a reader may pass over.
func May(number uint32) Key { return Key(number << 1) }

// Number is the field's number, whether it must be understood or not.
func (k Key) Number() uint32 { return uint32(k >> 1) }

// Mandatory reports whether it must be understood.
func (k Key) Mandatory() bool { return k&1 != 0 }

// Append appends a field to a message's body, or to another field's value. value is copied.
func Append[T ~[]byte | ~string](to []byte, key Key, value T) []byte {
	to = binary.AppendUvarint(to, uint64(key))
	to = binary.AppendUvarint(to, uint64(len(value)))
	return append(to, value...)
}

// AppendNumber appends a field that holds a number.
func AppendNumber(to []byte, key Key, number uint64) []byte {
	var room [binary.MaxVarintLen64]byte
	return Append(to, key, binary.AppendUvarint(room[:0], number))
}

// AppendFields appends a field that holds fields. fill appends them to what it is given, and gives
// the result back.
func AppendFields(to []byte, key Key, fill func(to []byte) []byte) []byte {
	to = binary.AppendUvarint(to, uint64(key))
	at := len(to)
	to = fill(to)
	// The length is known now, and takes its place before the value.
	length := len(to) - at
	var room [binary.MaxVarintLen64]byte
	head := binary.AppendUvarint(room[:0], uint64(length))
	to = append(to, head...)
	copy(to[at+len(head):], to[at:at+length])
	copy(to[at:], head)
	return to
}

// Field is one field of what was read.
type Field struct {
	Key   Key
	Value []byte // a part of what was read
}

// Errors of reading.
var (
	// ErrMalformed says that bytes are no fields, or a value is not of its kind.
	ErrMalformed = errors.New("handoff: malformed")
	// ErrMandatory says that a field must be understood and is not known: a newer version sent it.
	ErrMandatory = errors.New("handoff: a field that must be understood is not known to this version")
)

// Number reads a value that [AppendNumber] wrote.
func (f Field) Number() (uint64, error) {
	number, size := binary.Uvarint(f.Value)
	if size <= 0 || size != len(f.Value) {
		return 0, fmt.Errorf("%w: field %d is no number", ErrMalformed, f.Key.Number())
	}
	return number, nil
}

// Bounded reads a number of at most max.
func (f Field) Bounded(max uint64) (uint64, error) {
	number, err := f.Number()
	if err == nil && number > max {
		return 0, fmt.Errorf("%w: field %d is %d; at most %d is possible", ErrMalformed, f.Key.Number(), number, max)
	}
	return number, err
}

// Unknown is what a reader returns for a field whose number it does not know: nil where the field
// may be passed over, an [ErrMandatory] where it must be understood.
func (f Field) Unknown() error {
	if f.Key.Mandatory() {
		return fmt.Errorf("%w: number %d", ErrMandatory, f.Key.Number())
	}
	return nil
}

// Read calls take for each field of body in turn, until one fails. The values are parts of body.
func Read(body []byte, take func(Field) error) error {
	for len(body) > 0 {
		key, size := binary.Uvarint(body)
		if size <= 0 || key > 1<<31-1 {
			return fmt.Errorf("%w: no field begins here", ErrMalformed)
		}
		body = body[size:]
		length, size := binary.Uvarint(body)
		if size <= 0 || length > uint64(len(body)-size) {
			return fmt.Errorf("%w: field %d is longer than what there is", ErrMalformed, Key(key).Number())
		}
		body = body[size:]
		if err := take(Field{Key: Key(key), Value: body[:length:length]}); err != nil {
			return err
		}
		body = body[length:]
	}
	return nil
}
