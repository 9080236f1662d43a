package deflate

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gobwas/ws/wsflate"
	"pgregory.net/rapid"
)

// progress is an event of the size that most are, the number n of a job.
func progress(n int) []byte {
	return fmt.Appendf(nil, "id: job_progress:job_123/k3x.%d\nevent: progress\n"+
		`data: {"type":"progress","jobId":"job_123","percent":%d,"stage":"encode","timestamp":"2026-11-26T06:%02d:00Z"}`+"\n\n", n, n%100, n%60)
}

// noise is text that cannot be compressed.
func noise(size int) []byte {
	random := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, size)
	for i := range text {
		text[i] = byte(random.Uint32())
	}
	return text
}

// TestSizes holds what the design counts on.
func TestSizes(t *testing.T) {
	text, next := progress(41), progress(42)
	for _, c := range []struct {
		name            string
		got             []byte
		atLeast, atMost int
	}{
		{"alone", AppendBlock(nil, text, nil), 1, len(text)},
		{"behind its predecessor", AppendBlock(nil, next, text), 1, len(text) / 3},
		{"noise is stored", AppendBlock(nil, noise(500), nil), 510, 510},
		{"noise of several stored blocks", AppendBlock(nil, noise(storedBytesMax+1), nil), storedBytesMax + 16, storedBytesMax + 16},
		{"stored", AppendStored(nil, text), len(text) + 10, len(text) + 10},
		{"nothing", AppendBlock(nil, nil, text), 0, 0},
	} {
		if n := len(c.got); n < c.atLeast || n > c.atMost {
			t.Errorf("%s: %d bytes for %d, want %d to %d", c.name, n, len(text), c.atLeast, c.atMost)
		}
	}
}

// errDry says that a decoder asked for more than was sent.
var errDry = fmt.Errorf("nothing more was sent")

// drySource is what came so far; it never says that this was all.
type drySource struct{ *bytes.Buffer }

func (d drySource) Read(p []byte) (int, error) {
	n, err := d.Buffer.Read(p)
	if err == io.EOF {
		err = errDry
	}
	return n, err
}

func (d drySource) ReadByte() (byte, error) {
	b, err := d.Buffer.ReadByte()
	if err == io.EOF {
		err = errDry
	}
	return b, err
}

// TestSplice puts blocks of all kinds behind one another, as streams do, and reads each text as
// soon as its block is there.
func TestSplice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var wire bytes.Buffer
		wire.WriteString(GzipHead)
		var reader *gzip.Reader
		var all, last []byte
		steps := rapid.IntRange(1, 30).Draw(t, "steps")
		for n := range steps {
			text := drawText(t, n)
			switch kind := rapid.IntRange(0, 2).Draw(t, "kind"); {
			case kind == 0:
				wire.Write(AppendStored(nil, text))
			case kind == 1 && last != nil:
				wire.Write(AppendBlock(nil, text, last))
			default:
				wire.Write(AppendBlock(nil, text, nil))
			}
			if reader == nil {
				var err error
				if reader, err = gzip.NewReader(drySource{&wire}); err != nil {
					t.Fatal(err)
				}
				reader.Multistream(false) // nothing follows
			}
			got := make([]byte, len(text))
			_, err := io.ReadFull(reader, got)
			if err != nil || !bytes.Equal(got, text) {
				t.Fatalf("text %d of %d bytes: %v, the same: %v", n, len(text), err, bytes.Equal(got, text))
			}
			all = append(all, text...)
			last = text
		}
		wire.Write(AppendGzipEnd(nil, crc32.ChecksumIEEE(all), uint32(len(all))))
		if n, err := reader.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Fatalf("the end: %d bytes, %v", n, err)
		}
	})
}

func drawText(t *rapid.T, n int) []byte {
	switch rapid.IntRange(0, 3).Draw(t, "text") {
	case 0:
		return noise(rapid.IntRange(1, 300).Draw(t, "size"))
	case 1:
		return bytes.Repeat(progress(n), rapid.IntRange(1, 600).Draw(t, "times"))
	case 2:
		return []byte(rapid.StringN(1, 40, 200).Draw(t, "words"))
	default:
		return progress(n)
	}
}

func TestGzipIsWhole(t *testing.T) {
	for _, text := range [][]byte{{}, progress(1), noise(70_000), bytes.Repeat(progress(1), 2000)} {
		reader, err := gzip.NewReader(bytes.NewReader(AppendGzip([]byte("xx"), text)[2:]))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(reader)
		if err != nil || !bytes.Equal(got, text) {
			t.Errorf("%d bytes: %v, the same: %v", len(text), err, bytes.Equal(got, text))
		}
	}
}

// TestMessage reads messages by another implementation of RFC 7692.
func TestMessage(t *testing.T) {
	for _, c := range []struct {
		name    string
		text    string
		shorter bool
	}{
		{"an event", string(progress(1)) + string(progress(2)), true},
		{"one that is too short to gain", `{"n":1}`, false},
		{"noise", string(noise(200)), false},
		{"nothing", "", false},
		{"a large one", strings.Repeat(string(progress(3)), 1000), true},
	} {
		payload, shorter := AppendMessage([]byte("x"), []byte(c.text))
		if shorter != c.shorter {
			t.Errorf("%s: shorter is %v", c.name, shorter)
		}
		if !shorter {
			if string(payload) != "x" {
				t.Errorf("%s: %d bytes were appended all the same", c.name, len(payload)-1)
			}
			continue
		}
		got, err := wsflate.DefaultHelper.Decompress(payload[1:])
		if err != nil || string(got) != c.text {
			t.Errorf("%s: %v, the same: %v", c.name, err, string(got) == c.text)
		}
	}
}
