package proto

import (
	"encoding/json"
	"testing"

	"github.com/bytedance/sonic"
)

// progress is an event such as workers publish: 154 bytes.
var progress = []byte(`{"type":"job_progress","jobId":"job_123","progress":0.75,"timestamp":"2026-11-24T10:00:00.123Z","message":"Rendering frame 450 of 600","stage":"render_a"}`)

func mustChannel(t testing.TB, name string) Channel {
	t.Helper()
	channel, err := ParseChannel(name)
	if err != nil {
		t.Fatal(err)
	}
	return channel
}

func mustEvent(t testing.TB, channel, id string, payload []byte) *Event {
	t.Helper()
	event, err := NewEvent(mustChannel(t, channel), id, payload)
	if err != nil {
		t.Fatal(err)
	}
	return event
}

func BenchmarkParseChannel(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseChannel("job_progress:job_123:user_42"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNewEvent(b *testing.B) {
	channel := mustChannel(b, "job_progress:job_123")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := NewEvent(channel, "job_progress:job_123/abc.17", progress); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkValidate sets the judges of JSON side by side; only the first also finds members.
func BenchmarkValidate(b *testing.B) {
	b.Run("proto", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			event := Event{payload: progress}
			if event.read() != nil {
				b.Fatal("refused")
			}
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !json.Valid(progress) {
				b.Fatal("refused")
			}
		}
	})
	b.Run("sonic", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !sonic.Valid(progress) {
				b.Fatal("refused")
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	event := mustEvent(b, "job_progress:job_123", "job_progress:job_123/abc.17", progress)
	for form, name := range []string{"sse", "sse-plain", "text", "envelope"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				event.encode(Form(form))
			}
		})
	}
}

func BenchmarkBytesAgain(b *testing.B) {
	event := mustEvent(b, "job_progress:job_123", "job_progress:job_123/abc.17", progress)
	b.ReportAllocs()
	for b.Loop() {
		event.Bytes(FormSSE)
	}
}

func BenchmarkReadWholeFrame(b *testing.B) {
	frame := AppendMaskedFrame(nil, OpText, progress, [4]byte{1, 2, 3, 4})
	buffer := make([]byte, len(frame))
	var r MessageReader
	b.ReportAllocs()
	for b.Loop() {
		copy(buffer, frame)
		if m, _, err := r.Next(buffer, 1<<16); err != nil || m.Op != OpText {
			b.Fatal(m, err)
		}
	}
}

func BenchmarkParseCommand(b *testing.B) {
	text := []byte(`{"type":"subscribe","channel":"job_progress:job_123","ref":17}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, failure := ParseCommand(text, 100); failure != nil {
			b.Fatal(failure)
		}
	}
}

func BenchmarkParseID(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseID("job_progress:job_123/1732442400123-0/1732442400100"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSSEDecode(b *testing.B) {
	text := AppendSSE(nil, FormSSEPlain, "job_progress", "job_progress:job_123/abc.17", progress)
	var d SSEDecoder
	b.ReportAllocs()
	for b.Loop() {
		d.Feed(text)
		if _, ok := d.Next(); !ok {
			b.Fatal("no event")
		}
	}
}
