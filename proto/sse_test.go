package proto

import (
	"bufio"
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAppendSSEGolden(t *testing.T) {
	cases := []struct{ name, event, id, data, want string }{
		{"all fields", "alert", "7", "x", "id: 7\nevent: alert\ndata: x\n\n"},
		{"no name", "", "7", "x", "id: 7\ndata: x\n\n"},
		{"message is no name", "message", "", "x", "data: x\n\n"},
		{"empty data", "", "", "", "data: \n\n"},
		{"leading space", "", "", " x", "data:  x\n\n"},
		{"LF", "", "", "a\nb", "data: a\ndata: b\n\n"},
		{"CR", "", "", "a\rb", "data: a\ndata: b\n\n"},
		{"CRLF", "", "", "a\r\nb", "data: a\ndata: b\n\n"},
		{"LF CR", "", "", "a\n\rb", "data: a\ndata: \ndata: b\n\n"},
		{"only line ends", "", "", "\r\n\r\n\n\r", "data: \ndata: \ndata: \ndata: \ndata: \n\n"},
		{"last empty line", "", "", "a\n", "data: a\ndata: \n\n"},
		{"line separators are text", "", "", "a\u2028b\u0085", "data: a\u2028b\u0085\n\n"},
		{"fields in the data", "", "", "id: 9\nevent: x\n\ndata: y", "data: id: 9\ndata: event: x\ndata: \ndata: data: y\n\n"},
		{"LF in the id", "alert", "7\ndata: forged", "x", "event: alert\ndata: x\n\n"},
		{"CR in the id", "alert", "7\rretry: 0", "x", "event: alert\ndata: x\n\n"},
		{"NUL in the id", "alert", "7\x00", "x", "event: alert\ndata: x\n\n"},
		{"LF in the name", "a\n\ndata: forged\n\n", "7", "x", "id: 7\ndata: x\n\n"},
		{"CR in the name", "a\rid: 9", "7", "x", "id: 7\ndata: x\n\n"},
		{"NUL in the name", "a\x00", "7", "x", "id: 7\ndata: x\n\n"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			plain := string(AppendSSE([]byte("before"), FormSSEPlain, c.event, c.id, []byte(c.data)))
			if plain != "before"+c.want {
				t.Errorf("plain %q", plain)
			}
			chunk := string(AppendSSE(nil, FormSSE, c.event, c.id, []byte(c.data)))
			if want := strconv.FormatInt(int64(len(c.want)), 16) + "\r\n" + c.want + "\r\n"; chunk != want {
				t.Errorf("chunk %q", chunk)
			}
		})
	}
}

func TestAppendSSEOther(t *testing.T) {
	cases := []struct{ name, got, want string }{
		{"comment", string(AppendSSEComment(nil, FormSSEPlain, "keep-alive")), ": keep-alive\n\n"},
		{"comment in a chunk", string(AppendSSEComment(nil, FormSSE, "keep-alive")), "e\r\n: keep-alive\n\n\r\n"},
		{"comment with line ends", string(AppendSSEComment(nil, FormSSEPlain, "a\n\rid: 9\x00")), ": a  id: 9 \n\n"},
		{"retry", string(AppendSSERetry(nil, FormSSEPlain, 3*time.Second)), "retry: 3000\n\n"},
		{"retry in a chunk", string(AppendSSERetry(nil, FormSSE, 3*time.Second)), "d\r\nretry: 3000\n\n\r\n"},
		{"retry below a millisecond", string(AppendSSERetry(nil, FormSSEPlain, time.Microsecond)), "retry: 0\n\n"},
		{"retry below zero", string(AppendSSERetry(nil, FormSSEPlain, -time.Second)), "retry: 0\n\n"},
		{"end", string(AppendSSEEnd(nil, FormSSE)), "0\r\n\r\n"},
		{"end without chunks", string(AppendSSEEnd(nil, FormSSEPlain)), ""},
	}
	for _, c := range cases {
		if c.got != c.want {
			t.Errorf("%s: %q, want %q", c.name, c.got, c.want)
		}
	}
}

func TestAppendSSEHead(t *testing.T) {
	got := string(AppendSSEHead(nil, true, []byte("Access-Control-Allow-Origin: https://a.example\r\nVary: Origin\r\n")))
	want := "HTTP/1.1 200 OK\r\n" +
		"Content-Type: text/event-stream; charset=utf-8\r\n" +
		"Cache-Control: no-store, no-transform\r\n" +
		"X-Accel-Buffering: no\r\n" +
		"Transfer-Encoding: chunked\r\n" +
		"Access-Control-Allow-Origin: https://a.example\r\n" +
		"Vary: Origin\r\n\r\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got = string(AppendSSEHead(nil, false, nil))
	want = "HTTP/1.0 200 OK\r\n" +
		"Content-Type: text/event-stream; charset=utf-8\r\n" +
		"Cache-Control: no-store, no-transform\r\n" +
		"X-Accel-Buffering: no\r\n" +
		"Connection: close\r\n\r\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestSSEResponse lets net/http read what a stream says from head to end.
func TestSSEResponse(t *testing.T) {
	for _, http11 := range []bool{true, false} {
		form := FormSSEPlain
		if http11 {
			form = FormSSE
		}
		wire := AppendSSEHead(nil, http11, nil)
		wire = AppendSSERetry(wire, form, 3*time.Second)
		wire = AppendSSE(wire, form, "alert", "7", []byte("x"))
		wire = AppendSSEEnd(wire, form)
		response, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(wire)), nil)
		if err != nil {
			t.Fatal(err)
		}
		var body bytes.Buffer
		if _, err = body.ReadFrom(response.Body); err != nil {
			t.Fatal(err)
		}
		if body.String() != "retry: 3000\n\nid: 7\nevent: alert\ndata: x\n\n" || response.Close != !http11 {
			t.Errorf("HTTP/1.1 %v: %q, close %v", http11, body.String(), response.Close)
		}
	}
}

func TestSSEDecoder(t *testing.T) {
	cases := []struct {
		name, stream string
		want         []SSEEvent
		lastID       string
		comments     int
	}{
		{"all fields", "id: 7\nevent: a\ndata: x\nretry: 10\n\n", []SSEEvent{{ID: "7", HasID: true, Event: "a", Data: "x", Retry: 10 * time.Millisecond, HasRetry: true}}, "7", 0},
		{"no space behind colons", "id:7\ndata:x\n\n", []SSEEvent{{ID: "7", HasID: true, Event: "message", Data: "x"}}, "7", 0},
		{"one space only is taken", "data:  x \n\n", []SSEEvent{{Event: "message", Data: " x "}}, "", 0},
		{"CR", "data: a\rdata: b\r\r", []SSEEvent{{Event: "message", Data: "a\nb"}}, "", 0},
		{"CRLF", "data: a\r\ndata: b\r\n\r\n", []SSEEvent{{Event: "message", Data: "a\nb"}}, "", 0},
		{"mixed line ends", "data: a\rdata: b\n\r\ndata: c\n\n", []SSEEvent{{Event: "message", Data: "a\nb"}, {Event: "message", Data: "c"}}, "", 0},
		{"field without colon", "data\n\n", []SSEEvent{{Event: "message"}}, "", 0},
		{"two empty lines of data", "data\ndata\n\n", []SSEEvent{{Event: "message", Data: "\n"}}, "", 0},
		{"the standard's third example", "data\n\ndata\ndata\n\ndata:", []SSEEvent{{Event: "message"}, {Event: "message", Data: "\n"}}, "", 0},
		{"no data, no event", "event: a\nid: 7\n\ndata: x\n\n", []SSEEvent{{ID: "7", Event: "message", Data: "x"}}, "7", 0},
		{"id stays", "id: 7\ndata: x\n\ndata: y\n\n", []SSEEvent{{ID: "7", HasID: true, Event: "message", Data: "x"}, {ID: "7", Event: "message", Data: "y"}}, "7", 0},
		{"empty id resets", "id: 7\ndata: x\n\nid\ndata: y\n\n", []SSEEvent{{ID: "7", HasID: true, Event: "message", Data: "x"}, {HasID: true, Event: "message", Data: "y"}}, "", 0},
		{"NUL in the id", "id: 7\x00\ndata: x\n\n", []SSEEvent{{Event: "message", Data: "x"}}, "", 0},
		{"id of an unfinished event", "id: 7\ndata: x\n\nid: 8\ndata: y\n", []SSEEvent{{ID: "7", HasID: true, Event: "message", Data: "x"}}, "7", 0},
		{"comments", ": a\n:\ndata: x\n:b\n\n", []SSEEvent{{Event: "message", Data: "x"}}, "", 3},
		{"byte order mark", "\xef\xbb\xbfdata: x\n\n", []SSEEvent{{Event: "message", Data: "x"}}, "", 0},
		{"two byte order marks", "\xef\xbb\xbf\xef\xbb\xbfdata: x\n\ndata: y\n\n", []SSEEvent{{Event: "message", Data: "y"}}, "", 0},
		{"half a byte order mark", "\xef\xbbdata: x\n\ndata: y\n\n", []SSEEvent{{Event: "message", Data: "y"}}, "", 0},
		{"unknown fields", "x: y\nDATA: z\n data: a\ndata: x\n\n", []SSEEvent{{Event: "message", Data: "x"}}, "", 0},
		{"bad retries", "retry: -1\nretry: 1.5\nretry: \nretry: 1 \ndata: x\n\n", []SSEEvent{{Event: "message", Data: "x"}}, "", 0},
		{"huge retry", "retry: 99999999999999999999\ndata: x\n\n", []SSEEvent{{Event: "message", Data: "x", Retry: 1<<63 - 1, HasRetry: true}}, "", 0},
		{"unfinished", "data: x\n", nil, "", 0},
		{"nothing", "", nil, "", 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, step := range []int{1, 2, 3, 5, len(c.stream) + 1} {
				var d SSEDecoder
				got := decodeSSE(&d, []byte(c.stream), step)
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Errorf("%d bytes at a time: %s", step, diff)
				}
				if d.LastID != c.lastID || d.Comments != c.comments {
					t.Errorf("%d bytes at a time: last id %q, %d comments", step, d.LastID, d.Comments)
				}
			}
		})
	}
}

func TestSSEDecoderRetry(t *testing.T) {
	var d SSEDecoder
	d.Feed(AppendSSERetry(nil, FormSSEPlain, 3*time.Second))
	if _, ok := d.Next(); ok || !d.HasRetry || d.Retry != 3*time.Second {
		t.Errorf("%+v", d)
	}
}

// decodeSSE feeds stream in pieces of step bytes.
func decodeSSE(d *SSEDecoder, stream []byte, step int) []SSEEvent {
	var events []SSEEvent
	for len(stream) > 0 {
		part := stream[:min(step, len(stream))]
		stream = stream[len(part):]
		d.Feed(part)
		for {
			event, ok := d.Next()
			if !ok {
				break
			}
			events = append(events, event)
		}
	}
	return events
}

// FuzzSSE holds that whatever is said arrives as said, line ends aside, and that nothing said can
// pass for another field or event.
func FuzzSSE(f *testing.F) {
	f.Add("alert", "a:1/e.7", []byte(`{"type":"alert"}`), uint8(1))
	f.Add("", "", []byte("a\r\nb\rc\n"), uint8(3))
	f.Add("a\nid: 9", "7\r\ndata: x", []byte("\n\nevent: forged\n\n"), uint8(2))
	f.Add("message", "\x00", []byte{}, uint8(7))
	f.Add(" a", " 7", []byte(" x"), uint8(4))
	f.Fuzz(func(t *testing.T, event, id string, data []byte, step uint8) {
		plain := AppendSSE(nil, FormSSEPlain, event, id, data)
		chunk := AppendSSE(nil, FormSSE, event, id, data)
		if want := strconv.FormatInt(int64(len(plain)), 16) + "\r\n" + string(plain) + "\r\n"; string(chunk) != want {
			t.Fatalf("chunk %q", chunk)
		}
		want := SSEEvent{ID: "before", Event: "message", Data: normalizeLines(string(data))}
		if id != "" && !strings.ContainsAny(id, "\r\n\x00") {
			want.ID, want.HasID = id, true
		}
		if event != "" && !strings.ContainsAny(event, "\r\n\x00") {
			want.Event = event
		}
		stream := append([]byte("id: before\n\n"), plain...)
		stream = AppendSSEComment(stream, FormSSEPlain, event)
		stream = append(stream, "data: after\n\n"...)
		var d SSEDecoder
		got := decodeSSE(&d, stream, int(step)+1)
		after := SSEEvent{ID: want.ID, Event: "message", Data: "after"}
		if diff := cmp.Diff([]SSEEvent{want, after}, got); diff != "" {
			t.Fatalf("%q: %s", plain, diff)
		}
		if d.HasRetry || d.Comments != 1 {
			t.Fatalf("%q: retry %v, %d comments", plain, d.HasRetry, d.Comments)
		}
	})
}

// normalizeLines turns every line end into LF.
func normalizeLines(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
}

// FuzzSSEDecoder holds that the pieces in which a stream comes make no difference.
func FuzzSSEDecoder(f *testing.F) {
	f.Add([]byte("\xef\xbb\xbfid: 7\r\ndata: x\r\rretry: 5\n\n: c\n"), uint8(1))
	f.Add([]byte("data\n\ndata\ndata\n\ndata:"), uint8(2))
	f.Fuzz(func(t *testing.T, stream []byte, step uint8) {
		var whole, pieces SSEDecoder
		want := decodeSSE(&whole, stream, len(stream)+1)
		got := decodeSSE(&pieces, stream, int(step)+1)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
		if whole.LastID != pieces.LastID || whole.Comments != pieces.Comments || whole.Retry != pieces.Retry {
			t.Fatalf("%+v, %+v", whole, pieces)
		}
	})
}
