package proto

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net/http/httputil"
	"strings"
	"testing"

	"github.com/millrace/millrace/proto/deflate"
)

// compressible makes an event that may be compressed, the number n of a job.
func compressible(t testing.TB, n int) *Event {
	t.Helper()
	payload := fmt.Sprintf(`{"type":"progress","jobId":"job_123","percent":%d,"stage":"encode","detail":"a frame of the video that is being made"}`, n)
	event := mustEvent(t, "job_progress:job_123", fmt.Sprintf("job_progress:job_123/k3x.%d", n), []byte(payload))
	event.MayCompress(uint64(n), 1<<20)
	return event
}

// gunzip reads a gzip stream that has a beginning, pieces, and an end.
func gunzip(t testing.TB, stream []byte) string {
	t.Helper()
	reader, err := gzip.NewReader(bytes.NewReader(stream))
	if err != nil {
		t.Fatal(err)
	}
	reader.Multistream(false)
	text, err := io.ReadAll(reader)
	if err != nil {
		t.Fatalf("%v behind %q", err, text)
	}
	return string(text)
}

var gzipForms = []Form{FormSSEGzip, FormSSEPlainGzip, FormSSEGzipWithoutID, FormSSEPlainGzipWithoutID}

// TestGzipForms: a stream of pieces, short and alone, says what a plain one does, chunks aside.
func TestGzipForms(t *testing.T) {
	for _, form := range gzipForms {
		retry := AppendSSERetry(nil, form, 3000)
		stream := AppendGzipStart(nil, form, retry)
		text := string(retry)
		var previous Text
		for n := 1; n <= 4; n++ {
			event := compressible(t, n)
			piece := event.Piece(form, previous)
			stream = append(stream, piece.Bytes(n%2 == 0)...)
			previous = event.Text(form)
			text += string(previous.Bytes)
			if n%2 == 0 && 3*len(piece.Bytes(true)) > len(previous.Bytes) {
				t.Errorf("form %d: %d bytes behind the event before, of %d", form, len(piece.Bytes(true)), len(previous.Bytes))
			}
		}
		own := AppendMessage(nil, form, "gap", AppendGap(nil, "a:1", "", GapSlow))
		stream = AppendGzipText(stream, form, own)
		text += string(own)
		stream = AppendGzipEnd(stream, form, crc32.ChecksumIEEE([]byte(text)), uint32(len(text)))
		if form.chunked() {
			body, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(stream)))
			if err != nil {
				t.Fatal(err)
			}
			stream = body
		}
		if got := gunzip(t, stream); got != text {
			t.Errorf("form %d says %q, want %q", form, got, text)
		}
		if hasID := strings.Contains(text, "id: job_progress"); hasID == (form.WithoutID() == form) {
			t.Errorf("form %d has ids: %v", form, hasID)
		}
	}
}

// TestTextNumbers: what one piece follows on no other text is taken for.
func TestTextNumbers(t *testing.T) {
	one, two, secret := compressible(t, 1), compressible(t, 2), mustEvent(t, "alerts:1", "", []byte(`"secret"`))
	seen := make(map[uint64]string)
	for _, event := range []*Event{one, two} {
		for _, form := range gzipForms {
			text := event.Text(form)
			if before, known := seen[text.Number]; known && before != string(text.Bytes) {
				t.Errorf("%q and %q have the same number", before, text.Bytes)
			}
			seen[text.Number] = string(text.Bytes)
		}
	}
	if len(seen) != 4 || seen[0] != "" {
		t.Errorf("two events with and without ids have the numbers %v", seen)
	}
	if text := secret.Text(FormSSEGzip); text.Number != 0 {
		t.Errorf("what must not be compressed has the number %d, and could be followed on", text.Number)
	}
	if piece := secret.Bytes(FormSSEPlainGzip); !bytes.Contains(piece, []byte("data: \"secret\"\n\n")) {
		t.Errorf("it does not stand as it is in %q", piece)
	}
}

// TestShortPiecesAreShared as long as all follow on the same text.
func TestShortPiecesAreShared(t *testing.T) {
	one, two, three := compressible(t, 1), compressible(t, 2), compressible(t, 3)
	first := three.Piece(FormSSEGzip, two.Text(FormSSEGzip)).Bytes(true)
	again := three.Piece(FormSSEGzip, two.Text(FormSSEGzip)).Bytes(true)
	if &first[0] != &again[0] {
		t.Error("the same piece was made twice")
	}
	// Another one is right too, and does not take the place of the first.
	if other := three.Piece(FormSSEPlainGzip, one.Text(FormSSEGzip)).Bytes(true); bytes.Equal(other, first) {
		t.Error("what follows on another text is the same")
	}
	if again = three.Piece(FormSSEGzip, two.Text(FormSSEGzip)).Bytes(true); &first[0] != &again[0] {
		t.Error("the piece was made again")
	}
}

// readFrame reads one frame as a client with permessage-deflate does.
func readFrame(t testing.TB, frame []byte) (text string, compressed bool) {
	t.Helper()
	reader := MessageReader{ClientSide: true, Inflater: &deflate.Inflater{}}
	message, rest, err := reader.Next(bytes.Clone(frame), 0)
	if err != nil || message.Op != OpText || len(rest) != 0 {
		t.Fatalf("%v, %d bytes behind it, %v", message.Op, len(rest), err)
	}
	return string(message.Data), frame[0]&bitCompressed != 0
}

func TestDeflateForms(t *testing.T) {
	large := `{"type":"frame","data":"` + strings.Repeat("abcdefgh", 20_000) + `"}`
	for _, c := range []struct {
		name       string
		payload    string
		notice     bool
		may        bool
		compressed [2]bool // as text, in an envelope
	}{
		{"an event", `{"type":"progress","percent":1,"of":"percent progress of the progress"}`, false, true, [2]bool{true, true}},
		{"a short one, whose envelope is not", `{"n":1}`, false, true, [2]bool{false, true}},
		{"one that must not be compressed", large, false, false, [2]bool{false, false}},
		{"a large one", large, false, true, [2]bool{true, true}},
		{"a reserved type", `{"type":"gap","gap":"gap gap gap gap gap gap gap gap gap gap"}`, false, true, [2]bool{true, true}},
		{"a notice", `{"type":"batch","channel":"job_progress:job_123","events":[{"percent":1},{"percent":2},{"percent":3},{"percent":4}]}`, true, true, [2]bool{true, true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			make := NewEvent
			if c.notice {
				make = NewNotice
			}
			channel, err := ParseChannel("job_progress:job_123")
			if err != nil {
				t.Fatal(err)
			}
			event, err := make(channel, "job_progress:job_123/k3x.1", []byte(c.payload))
			if err != nil {
				t.Fatal(err)
			}
			if c.may {
				event.MayCompress(1, 1<<20)
			}
			for i, forms := range [2][2]Form{{FormText, FormTextDeflate}, {FormEnvelope, FormEnvelopeDeflate}} {
				want, _ := readFrame(t, event.Bytes(forms[0]))
				got, compressed := readFrame(t, event.Bytes(forms[1]))
				if got != want || compressed != c.compressed[i] {
					t.Errorf("form %d: the same: %v, compressed: %v", forms[1], got == want, compressed)
				}
				if compressed && len(event.Bytes(forms[1])) >= len(event.Bytes(forms[0])) {
					t.Errorf("form %d is no shorter", forms[1])
				}
			}
		})
	}
}

// unpack gives the payload of a message compressed.
func unpack(t testing.TB, message string) string {
	t.Helper()
	var fields struct{ Type, Encoding, Data string }
	if err := json.Unmarshal([]byte(message), &fields); err != nil || fields.Type != "compressed" || fields.Encoding != "gzip" {
		t.Fatalf("no message compressed: %.200s (%v)", message, err)
	}
	zipped, err := base64.StdEncoding.DecodeString(fields.Data)
	if err != nil {
		t.Fatal(err)
	}
	return gunzip(t, zipped)
}

func TestPackedForms(t *testing.T) {
	const id = "job_progress:job_123/k3x.1"
	large := `{"type":"frame","data":"` + strings.Repeat("abcdefgh", 200) + `"}`
	event := func(payload string, over int) *Event {
		event := mustEvent(t, "job_progress:job_123", id, []byte(payload))
		if over > 0 {
			event.MayCompress(1, over)
		}
		return event
	}
	for form := FormSSEPacked; form <= FormEnvelopePacked; form++ {
		plain := forms[form].plain
		for name, same := range map[string]*Event{
			"not over the size":      event(large, len(large)),
			"no shorter when zipped": event(`{"type":"x","d":"q8Zr1T"}`, 1),
			"not to be compressed":   event(large, 0),
		} {
			if !bytes.Equal(same.Bytes(form), same.Bytes(plain)) {
				t.Errorf("form %d, %s: %.80q", form, name, same.Bytes(form))
			}
		}
		packed := event(large, len(large)-1).Bytes(form)
		if len(packed) >= len(large) {
			t.Errorf("form %d: %d bytes for %d", form, len(packed), len(large))
		}
		if form.IsSSE() {
			checkPackedSSE(t, form, packed, large, id)
			continue
		}
		text, _ := readFrame(t, packed)
		if form == FormEnvelopePacked {
			var envelope struct {
				Type, Channel, ID string
				Data              json.RawMessage
			}
			if err := json.Unmarshal([]byte(text), &envelope); err != nil || envelope.Type != "event" || envelope.ID != id || envelope.Channel != "job_progress:job_123" {
				t.Errorf("the envelope is %.100s (%v)", text, err)
			}
			text = string(envelope.Data)
		}
		if got := unpack(t, text); got != large {
			t.Errorf("form %d says %.100q", form, got)
		}
	}
	reserved := `{"type":"gap","data":"` + strings.Repeat("abcdefgh", 200) + `"}`
	if text, _ := readFrame(t, event(reserved, 10).Bytes(FormTextPacked)); !strings.HasPrefix(text, `{"type":"event","channel":"job_progress:job_123"`) {
		t.Errorf("a reserved type came without its envelope: %.100s", text)
	}
}

func checkPackedSSE(t *testing.T, form Form, packed []byte, payload, id string) {
	t.Helper()
	if forms[form].own == FormSSE {
		body, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(append(packed[:len(packed):len(packed)], "0\r\n\r\n"...))))
		if err != nil {
			t.Fatal(err)
		}
		packed = body
	}
	var decoder SSEDecoder
	decoder.Feed(packed)
	event, ok := decoder.Next()
	if !ok || event.Event != "compressed" || event.HasID != (form.WithoutID() != form) || event.HasID && event.ID != id {
		t.Fatalf("form %d: %+v", form, event)
	}
	if got := unpack(t, event.Data); got != payload {
		t.Errorf("form %d says %.100q", form, got)
	}
}

// TestFormFacts: every form knows its relatives, and keeps its kind in going over to them.
func TestFormFacts(t *testing.T) {
	for form := range FormCount {
		facts := forms[form]
		for _, relative := range []Form{facts.withoutID, facts.enveloped, facts.plain, facts.own} {
			if relative.IsSSE() != form.IsSSE() {
				t.Errorf("form %d becomes form %d of another wire", form, relative)
			}
		}
		for _, relative := range []Form{facts.withoutID, facts.enveloped} {
			if relative.IsGzip() != form.IsGzip() || relative.IsDeflate() != form.IsDeflate() || (relative < formPlainCount) != (form < formPlainCount) {
				t.Errorf("form %d is compressed otherwise as form %d", form, relative)
			}
		}
		if facts.plain >= formPlainCount || facts.own >= formPlainCount || forms[facts.plain].plain != facts.plain {
			t.Errorf("form %d stands for form %d and is spoken to in %d", form, facts.plain, facts.own)
		}
	}
}
