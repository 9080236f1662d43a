package handoff

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
)

func readAll(body []byte) (fields []Field, err error) {
	err = Read(body, func(f Field) error {
		fields = append(fields, f)
		return nil
	})
	return fields, err
}

func TestFieldsComeBack(t *testing.T) {
	body := Append(nil, Must(1), "first")
	body = Append(body, May(2), []byte{})
	body = AppendNumber(body, Must(300), math.MaxUint64)
	body = AppendFields(body, May(1<<30-1), func(to []byte) []byte {
		return Append(to, Must(1), strings.Repeat("x", 300))
	})
	fields, err := readAll(body)
	if err != nil || len(fields) != 4 {
		t.Fatalf("%d fields, %v; want 4", len(fields), err)
	}
	for i, want := range []Key{Must(1), May(2), Must(300), May(1<<30 - 1)} {
		if fields[i].Key != want {
			t.Errorf("field %d has the key %d, want %d", i, fields[i].Key, want)
		}
	}
	if got := string(fields[0].Value); got != "first" || len(fields[1].Value) != 0 {
		t.Errorf("values %q and %q", got, fields[1].Value)
	}
	if number, err := fields[2].Number(); err != nil || number != math.MaxUint64 {
		t.Errorf("number %d, %v", number, err)
	}
	inner, err := readAll(fields[3].Value)
	if err != nil || len(inner) != 1 || string(inner[0].Value) != strings.Repeat("x", 300) {
		t.Errorf("the fields within came back as %v, %v", inner, err)
	}
}

func TestGoldenBytes(t *testing.T) {
	body := Append(nil, Must(1), "ab")
	body = AppendNumber(body, May(2), 300)
	body = AppendFields(body, Must(70), func(to []byte) []byte { return AppendNumber(to, May(0), 0) })
	want := []byte{3, 2, 'a', 'b', 4, 2, 0xac, 2, 0x8d, 1, 3, 0, 1, 0}
	if !bytes.Equal(body, want) {
		t.Errorf("% x, want % x: another version could no longer read it", body, want)
	}
}

func TestMalformed(t *testing.T) {
	whole := Append(nil, Must(5), "value")
	for name, body := range map[string][]byte{
		"no length":             {3},
		"value cut short":       whole[:len(whole)-1],
		"key never ends":        bytes.Repeat([]byte{0x80}, 12),
		"key too large":         {0xff, 0xff, 0xff, 0xff, 0x7f, 0},
		"length beyond the end": {2, 0xff, 0xff, 0xff, 0xff, 0x0f},
	} {
		if _, err := readAll(body); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
	for name, value := range map[string][]byte{"empty": {}, "too long": {0, 0}, "never ends": {0x80}} {
		if _, err := (Field{Key: May(1), Value: value}).Number(); !errors.Is(err, ErrMalformed) {
			t.Errorf("a number that is %s: %v, want ErrMalformed", name, err)
		}
	}
	if _, err := (Field{Key: May(1), Value: []byte{9}}).Bounded(8); !errors.Is(err, ErrMalformed) {
		t.Errorf("a number beyond its bound: %v, want ErrMalformed", err)
	}
}

func TestUnknownFields(t *testing.T) {
	if err := (Field{Key: May(9)}).Unknown(); err != nil {
		t.Errorf("a field that may be missed: %v", err)
	}
	if err := (Field{Key: Must(9)}).Unknown(); !errors.Is(err, ErrMandatory) {
		t.Errorf("a field that must be understood: %v, want ErrMandatory", err)
	}
}

func TestReadEndsWithTheFirstError(t *testing.T) {
	body := Append(Append(nil, May(1), "a"), May(2), "b")
	calls := 0
	want := errors.New("enough")
	err := Read(body, func(Field) error { calls++; return want })
	if !errors.Is(err, want) || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

// FuzzRead: whatever comes is read without a panic and never beyond its end, and what was read is
// the same once it is written again.
func FuzzRead(f *testing.F) {
	f.Add([]byte{})
	f.Add(AppendNumber(Append(nil, Must(1), "ab"), May(2), 300))
	f.Add(AppendFields(nil, Must(3), func(to []byte) []byte { return Append(to, May(1), "within") }))
	f.Add([]byte{2, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		fields, err := readAll(body)
		if !bytes.Equal(before, body) {
			t.Fatal("reading changed the bytes")
		}
		var again []byte
		for _, field := range fields {
			again = Append(again, field.Key, field.Value)
			if cap(field.Value) != len(field.Value) {
				t.Fatal("a value could be appended over what follows it")
			}
			if number, err := field.Number(); err == nil && number > math.MaxUint64>>1 && len(field.Value) < 9 {
				t.Fatalf("%d was read from %d bytes", number, len(field.Value))
			}
		}
		if err != nil {
			return
		}
		fieldsAgain, err := readAll(again)
		if err != nil || !slices.EqualFunc(fields, fieldsAgain, func(a, b Field) bool {
			return a.Key == b.Key && bytes.Equal(a.Value, b.Value)
		}) {
			t.Fatalf("written again it is %v, %v; was %v", fieldsAgain, err, fields)
		}
	})
}
