package deflate

import (
	"bytes"
	"compress/flate"
	"errors"
	"strings"
	"testing"
)

// compressed is text compressed by the standard library, up to what finish ends it with.
func compressed(t testing.TB, text string, finish func(*flate.Writer) error) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := finish(w); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// sent is a message as a client sends it.
func sent(t testing.TB, text string) []byte {
	t.Helper()
	return bytes.TrimSuffix(compressed(t, text, (*flate.Writer).Flush), []byte(syncMark))
}

// ended is a message whose sender ended its stream with a last block (RFC 7692, 7.2.3.4).
func ended(t testing.TB, text string) []byte {
	t.Helper()
	return append(compressed(t, text, (*flate.Writer).Close), 0)
}

func TestInflate(t *testing.T) {
	const limit = 1000
	// RFC 7692, 7.2.3: "Hello", compressed in each way that there is.
	const hello = "Hello"
	for _, c := range []struct {
		name    string
		payload []byte
		want    string
		err     error
	}{
		{"RFC 7692, 7.2.3.1: fixed codes", []byte("\xf2\x48\xcd\xc9\xc9\x07\x00"), hello, nil},
		{"RFC 7692, 7.2.3.3: stored", []byte("\x00\x05\x00\xfa\xffHello\x00"), hello, nil},
		{"RFC 7692, 7.2.3.4: a last block", []byte("\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), hello, nil},
		{"RFC 7692, 7.2.3.5: two blocks", []byte("\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"), hello, nil},
		{"RFC 7692, 7.2.3.6: empty", []byte("\x00"), "", nil},
		{"a last block of the standard library's", ended(t, hello), hello, nil},
		{"just as long as allowed", sent(t, strings.Repeat("a", limit)), strings.Repeat("a", limit), nil},
		{"a byte too long", sent(t, strings.Repeat("a", limit+1)), "", ErrTooLarge},
		{"a bomb", sent(t, strings.Repeat("a", 8<<20)), "", ErrTooLarge},
		{"cut off", sent(t, strings.Repeat("ab", 100))[:4], "", ErrCorrupt},
		{"a reserved kind of block", []byte{0x06}, "", ErrCorrupt},
		{"a stored block whose length is wrong", []byte("\x00\x05\x00\xfa\xfeHello\x00"), "", ErrCorrupt},
		{"a distance before the beginning", []byte("\xf2\x48\xcd\xc9\xc9\x07\x00\x62\x00\x11\x00"), "", ErrCorrupt},
		{"more behind a last block", append(ended(t, hello), sent(t, hello)...), "", ErrCorrupt},
	} {
		t.Run(c.name, func(t *testing.T) {
			var i Inflater
			for range 2 { // the second time with what the first left
				got, err := i.Message(c.payload, limit)
				if !errors.Is(err, c.err) || string(got) != c.want {
					t.Errorf("%.40q, %v; want %.40q, %v", got, err, c.want, c.err)
				}
			}
			if got, err := i.Message(sent(t, hello), limit); err != nil || string(got) != hello {
				t.Errorf("the message after it: %q, %v", got, err)
			}
		})
	}
}

// TestInflateHoldsNoBomb: of what inflates to more than is allowed no more is ever made.
func TestInflateHoldsNoBomb(t *testing.T) {
	var i Inflater
	if _, err := i.Message(sent(t, strings.Repeat("a", 8<<20)), 1000); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	if room := cap(i.output); room > 4096 {
		t.Errorf("%d bytes of room were made for a message that may have 1000", room)
	}
	if got, err := i.Message(sent(t, strings.Repeat("b", 1<<20)), 0); err != nil || len(got) != 1<<20 {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if cap(i.output) > roomKept || cap(i.input) > roomKept {
		t.Error("the room of a large message was kept")
	}
}

func FuzzInflate(f *testing.F) {
	f.Add([]byte("\xf2\x48\xcd\xc9\xc9\x07\x00"), 10)
	f.Add([]byte("\x00\x05\x00\xfa\xffHello\x00"), 0)
	f.Add(sent(f, strings.Repeat("abc", 1000)), 100)
	f.Add(ended(f, "end"), 100)
	f.Fuzz(func(t *testing.T, payload []byte, limit int) {
		limit = limit % (1 << 16)
		var i Inflater
		text, err := i.Message(payload, max(limit, 1))
		if err == nil && len(text) > max(limit, 1) {
			t.Fatalf("%d bytes of at most %d", len(text), limit)
		}
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrTooLarge) {
			t.Fatal(err)
		}
	})
}

// FuzzDeflate: what is compressed, alone, behind a dictionary or as a message, inflates to the same.
func FuzzDeflate(f *testing.F) {
	f.Add([]byte("a text"), []byte("a dictionary"))
	f.Add(progress(2), progress(1))
	f.Add(bytes.Repeat(progress(2), 400), bytes.Repeat(progress(1), 400))
	f.Add(noise(100), noise(100))
	f.Fuzz(func(t *testing.T, text, dictionary []byte) {
		var i Inflater
		alone := AppendBlock(nil, text, nil)
		if got, err := i.Message(append(bytes.Clone(alone), 0), 0); err != nil || !bytes.Equal(got, text) {
			t.Fatalf("alone: %v", err)
		}
		both := append(AppendStored(nil, dictionary), AppendBlock(nil, text, dictionary)...)
		want := append(bytes.Clone(dictionary), text...)
		if got, err := i.Message(append(both, 0), 0); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("behind a dictionary: %v", err)
		}
		if payload, shorter := AppendMessage(nil, text); shorter {
			if got, err := i.Message(payload, 0); err != nil || !bytes.Equal(got, text) {
				t.Fatalf("a message: %v", err)
			}
		}
	})
}
