package proto

import (
	"encoding/json"
	"errors"
	"io"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
)

func TestNewEventMembers(t *testing.T) {
	cases := []struct {
		name, payload, typ string
		timestamp          string // RFC 3339; empty: none
	}{
		{"as workers write", string(progress), "job_progress", "2026-11-24T10:00:00.123Z"},
		{"no members", `{}`, "", ""},
		{"not an object", `["type","x"]`, "", ""},
		{"string", `"type"`, "", ""},
		{"last type wins", `{"type":"a","type":"b"}`, "b", ""},
		{"last type wins, no string", `{"type":"a","type":1}`, "", ""},
		{"last type wins, an object", `{"type":"a","type":{"type":"b"}}`, "", ""},
		{"escaped name of a member", `{"type":"a","ty\u0070e":"b"}`, "b", ""},
		{"escaped type", `{"type":"g\u0061p"}`, "gap", ""},
		{"names by their case", `{"Type":"a","TYPE":"b"}`, "", ""},
		{"nested type", `{"data":{"type":"a"}}`, "", ""},
		{"null type", `{"type":null}`, "", ""},
		{"empty type", `{"type":""}`, "", ""},
		{"spaces", " {\n\"type\" :\t\"a\" , \"timestamp\": \"2026-11-24T10:00:00+01:00\" }\n", "a", "2026-11-24T09:00:00Z"},
		{"last timestamp wins", `{"timestamp":1,"timestamp":2000}`, "", "1970-01-01T00:00:02Z"},
		{"milliseconds", `{"timestamp":1732442400123}`, "", "2024-11-24T10:00:00.123Z"},
		{"milliseconds with fraction", `{"timestamp":1500.5}`, "", "1970-01-01T00:00:01.5005Z"},
		{"milliseconds with exponent", `{"timestamp":1.5e3}`, "", "1970-01-01T00:00:01.5Z"},
		{"before 1970", `{"timestamp":-1}`, "", "1969-12-31T23:59:59.999Z"},
		{"last millisecond", `{"timestamp":253402300799999}`, "", "9999-12-31T23:59:59.999Z"},
		{"past the last", `{"timestamp":253402300800000}`, "", ""},
		{"before the first", `{"timestamp":-62135596800001}`, "", ""},
		{"64 bits", `{"timestamp":9223372036854775807}`, "", ""},
		{"more than 64 bits", `{"timestamp":99999999999999999999}`, "", ""},
		{"infinite", `{"timestamp":1e400}`, "", ""},
		{"no date", `{"timestamp":"yesterday"}`, "", ""},
		{"true", `{"timestamp":true}`, "", ""},
		{"null", `{"timestamp":null}`, "", ""},
		{"list", `{"timestamp":[1]}`, "", ""},
		{"escaped date", `{"timestamp":"2026-11-24T10:00:00\u005a"}`, "", "2026-11-24T10:00:00Z"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			event := mustEvent(t, "a:1", "a:1/e.1", []byte(c.payload))
			if event.Type() != c.typ {
				t.Errorf("type %q, want %q", event.Type(), c.typ)
			}
			at, ok := event.Timestamp()
			got := ""
			if ok {
				got = at.UTC().Format(time.RFC3339Nano)
			}
			if got != c.timestamp {
				t.Errorf("timestamp %q, want %q", got, c.timestamp)
			}
			if string(event.Payload()) != c.payload || event.ID() != "a:1/e.1" || event.Channel().Name() != "a:1" {
				t.Errorf("%q %q %q", event.Payload(), event.ID(), event.Channel())
			}
		})
	}
}

func TestNewEventRefuses(t *testing.T) {
	cases := []struct {
		name, channel, id, payload string
		cause                      error
		offset                     int
	}{
		{"empty", "a:1", "", "", ErrEmpty, 0},
		{"white space", "a:1", "", " \n", ErrEmpty, 0},
		{"not JSON", "a:1", "", "hello", ErrNotJSON, 0},
		{"cut", "a:1", "", `{"a":1`, ErrNotJSON, 6},
		{"trailing", "a:1", "", `{"a":1}{`, ErrNotJSON, 7},
		{"trailing behind a list", "a:1", "", `[1]x`, ErrNotJSON, 3},
		{"CR in a string", "a:1", "", "\"\r\"", ErrNotJSON, 1},
		{"100,000 deep", "a:1", "", strings.Repeat("[", 100_000), ErrNotJSON, 10_000},
		{"100,000 deep inside", "a:1", "", `{"a":` + strings.Repeat("[", 100_000), ErrNotJSON, 10_004},
		{"binary", "a:1", "", "\x00\xff", ErrNotUTF8, 1},
		{"UTF-8 cut", "a:1", "", "\"\xe2\x82\"", ErrNotUTF8, 1},
		{"overlong", "a:1", "", "\"a\xc0\x80\"", ErrNotUTF8, 2},
		{"surrogate", "a:1", "", "\"\xed\xa0\x80\"", ErrNotUTF8, 1},
		{"byte order mark", "a:1", "", "\ufeff{}", ErrNotJSON, 0},
		{"id with LF", "a:1", "a\nb", "1", ErrBadID, 0},
		{"id with CR", "a:1", "a\rb", "1", ErrBadID, 0},
		{"id with NUL", "a:1", "a\x00b", "1", ErrBadID, 0},
		{"id not UTF-8", "a:1", "a\xff", "1", ErrBadID, 0},
		{"id too long", "a:1", strings.Repeat("a", EventIDBytesMax+1), "1", ErrBadID, 0},
		{"wildcard", "a:*", "", "1", ErrBadChannel, 0},
		{"no channel", "", "", "1", ErrBadChannel, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			channel, _ := ParseChannel(c.channel)
			for _, build := range []func(Channel, string, []byte) (*Event, error){NewEvent, NewNotice} {
				event, err := build(channel, c.id, []byte(c.payload))
				if event != nil || !errors.Is(err, c.cause) {
					t.Fatalf("%v, %v", event, err)
				}
				var bad *PayloadError
				if errors.As(err, &bad) && bad.Offset != c.offset {
					t.Errorf("at byte %d, want %d", bad.Offset, c.offset)
				}
				if len(err.Error()) > 200 {
					t.Errorf("message of %d bytes", len(err.Error()))
				}
			}
		})
	}
}

func TestEventGolden(t *testing.T) {
	cases := []struct {
		name, id, payload                string
		sse, ssePlain, text, textEnvelop string
	}{
		{
			name: "plain word", id: "a:1/e.7", payload: `{"type":"alert","x":1}`,
			sse:         "37\r\nid: a:1/e.7\nevent: alert\ndata: {\"type\":\"alert\",\"x\":1}\n\n\r\n",
			ssePlain:    "id: a:1/e.7\nevent: alert\ndata: {\"type\":\"alert\",\"x\":1}\n\n",
			text:        "\x81\x16" + `{"type":"alert","x":1}`,
			textEnvelop: "\x81\x4d" + `{"type":"event","channel":"a:1","id":"a:1/e.7","data":{"type":"alert","x":1}}`,
		},
		{
			name: "no id", payload: `1`,
			sse:         "9\r\ndata: 1\n\n\r\n",
			ssePlain:    "data: 1\n\n",
			text:        "\x81\x011",
			textEnvelop: "\x81\x29" + `{"type":"event","channel":"a:1","data":1}`,
		},
		{
			name: "reserved", id: "i", payload: `{"type":"gap"}`,
			sse:         "1c\r\nid: i\ndata: {\"type\":\"gap\"}\n\n\r\n",
			ssePlain:    "id: i\ndata: {\"type\":\"gap\"}\n\n",
			text:        "\x81\x3f" + `{"type":"event","channel":"a:1","id":"i","data":{"type":"gap"}}`,
			textEnvelop: "\x81\x3f" + `{"type":"event","channel":"a:1","id":"i","data":{"type":"gap"}}`,
		},
		{
			name: "line ends in the payload", payload: "{\r\n\"a\":\r1\n}",
			sse:         "24\r\ndata: {\ndata: \"a\":\ndata: 1\ndata: }\n\n\r\n",
			ssePlain:    "data: {\ndata: \"a\":\ndata: 1\ndata: }\n\n",
			text:        "\x81\x0b{\r\n\"a\":\r1\n}",
			textEnvelop: "\x81\x33" + `{"type":"event","channel":"a:1","data":` + "{\r\n\"a\":\r1\n}}",
		},
		{
			name: "id to be escaped", id: `a:1/="\é`, payload: `2`,
			sse:         "17\r\nid: a:1/=\"\\é\ndata: 2\n\n\r\n",
			ssePlain:    "id: a:1/=\"\\é\ndata: 2\n\n",
			text:        "\x81\x012",
			textEnvelop: "\x81\x3c" + `{"type":"event","channel":"a:1","id":"a:1/=\"\\é","data":2}`,
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			event := mustEvent(t, "a:1", c.id, []byte(c.payload))
			for form, want := range []string{c.sse, c.ssePlain, c.text, c.textEnvelop} {
				got := event.Bytes(Form(form))
				if diff := cmp.Diff(want, string(got)); diff != "" {
					t.Errorf("form %d: %s", form, diff)
				}
				if cap(got) > len(got)+16 {
					t.Errorf("form %d: %d bytes in room for %d", form, len(got), cap(got))
				}
				if again := event.Bytes(Form(form)); unsafe.SliceData(again) != unsafe.SliceData(got) {
					t.Errorf("form %d written twice", form)
				}
			}
		})
	}
}

func TestEventSSEName(t *testing.T) {
	longest := strings.Repeat("a", eventNameBytesMax)
	for typ, want := range map[string]string{
		"alert": "alert", "a.b-c_9": "a.b-c_9", longest: longest,
		"": eventMessage, longest + "a": eventMessage, "a b": eventMessage, "a:b": eventMessage,
		"é": eventMessage, "a\nid: 9": eventMessage, "a\x00": eventMessage, "error": eventMessage, "message": eventMessage,
	} {
		payload, _ := json.Marshal(map[string]string{"type": typ})
		event := mustEvent(t, "a:1", "", payload)
		var d SSEDecoder
		d.Feed(event.Bytes(FormSSEPlain))
		got, ok := d.Next()
		if !ok || got.Event != want || got.Data != string(payload) {
			t.Errorf("type %q: %+v", typ, got)
		}
		if _, more := d.Next(); more {
			t.Errorf("type %q forged an event", typ)
		}
	}
}

// reservedTypes is the contract's list.
const reservedTypes = "connected subscribed unsubscribed published pong error server_error gap replayed " +
	"batch compressed deleted complete event open message refresh"

// TestReserved holds that no payload of a publisher can be taken for the gateway's own word.
func TestReserved(t *testing.T) {
	for typ := range strings.FieldsSeq(reservedTypes) {
		t.Run(typ, func(t *testing.T) {
			if !Reserved(typ) {
				t.Fatal("not reserved")
			}
			for _, payload := range []string{
				`{"type":"` + typ + `"}`,
				`{"type":"harmless","type":"` + typ + `"}`,
				`{"ty\u0070e":"\u00` + strconv.FormatInt(int64(typ[0]), 16) + typ[1:] + `"}`,
			} {
				event := mustEvent(t, "a:1", "i", []byte(payload))
				var envelope struct {
					Type, Channel, ID string
					Data              json.RawMessage
				}
				text := event.Bytes(FormText)
				if err := json.Unmarshal(text[headerSize(len(text)-2):], &envelope); err != nil {
					t.Fatal(err)
				}
				if envelope.Type != "event" || envelope.Channel != "a:1" || envelope.ID != "i" || string(envelope.Data) != payload {
					t.Errorf("%s: %s", payload, text)
				}
				if strings.Contains(string(event.Bytes(FormSSE)), "event:") {
					t.Errorf("%s: %s", payload, event.Bytes(FormSSE))
				}
			}
		})
	}
	for _, typ := range []string{"", "job_progress", "Gap", "gaps", "subscribe", "ping"} {
		if Reserved(typ) {
			t.Errorf("%q is reserved", typ)
		}
	}
}

func TestNotice(t *testing.T) {
	message := AppendGap(nil, "a:1", "a:1/e.7", GapBroker)
	notice, err := NewNotice(mustChannel(t, "a:1"), "", message)
	if err != nil {
		t.Fatal(err)
	}
	frame := string(AppendFrame(nil, OpText, message))
	for _, form := range []Form{FormText, FormEnvelope} {
		if got := string(notice.Bytes(form)); got != frame {
			t.Errorf("form %d: %q", form, got)
		}
	}
	if got, want := string(notice.Bytes(FormSSEPlain)), "event: gap\ndata: "+string(message)+"\n\n"; got != want {
		t.Errorf("%q", got)
	}
}

// TestNoticeWithID: a batch has the id of its last event on every wire that has ids.
func TestNoticeWithID(t *testing.T) {
	const id = "a:1/=say \"hi\""
	message := AppendBatch(nil, "a:1", [][]byte{[]byte("1"), []byte("2")})
	notice, err := NewNotice(mustChannel(t, "a:1"), id, message)
	if err != nil {
		t.Fatal(err)
	}
	const enveloped = `{"id":"a:1/=say \"hi\"","type":"batch","channel":"a:1","events":[1,2]}`
	for form, want := range map[Form]string{
		FormText:              string(AppendFrame(nil, OpText, message)),
		FormEnvelope:          string(AppendFrame(nil, OpText, []byte(enveloped))),
		FormSSEPlain:          "id: " + id + "\nevent: batch\ndata: " + string(message) + "\n\n",
		FormSSEPlainWithoutID: "event: batch\ndata: " + string(message) + "\n\n",
	} {
		if got := string(notice.Bytes(form)); got != want {
			t.Errorf("form %d: %q, expected %q", form, got, want)
		}
	}
}

// TestEnd has the end told in every form, behind it what ends an event stream, and its id also to
// those who otherwise get none.
func TestEnd(t *testing.T) {
	message := AppendComplete(nil, []byte(`1`))
	end, err := NewEnd(mustChannel(t, "a:1:2"), message)
	if err != nil || !end.Ends() || mustEvent(t, "a:1", "", message).Ends() {
		t.Fatal(err, end)
	}
	plain := "id: a:1:2/end\nevent: complete\ndata: " + string(message) + "\n\n"
	chunked := strconv.FormatInt(int64(len(plain)), 16) + "\r\n" + plain + "\r\n0\r\n\r\n"
	enveloped := append([]byte(`{"id":"a:1:2/end",`), message[1:]...)
	for form, want := range map[Form]string{
		FormSSE: chunked, FormSSEWithoutID: chunked, FormSSEPlain: plain, FormSSEPlainWithoutID: plain,
		FormText: string(AppendFrame(nil, OpText, message)), FormEnvelope: string(AppendFrame(nil, OpText, enveloped)),
	} {
		if got := string(end.Bytes(form)); got != want {
			t.Errorf("form %d: %q, want %q", form, got, want)
		}
	}
	if id, err := ParseID(end.ID()); err != nil || id.Kind != IDEnd || id.Stream != "a:1:2" {
		t.Errorf("the id is %q: %+v, %v", end.ID(), id, err)
	}
	if _, err := NewEnd(mustChannel(t, "a:1"), []byte("{")); err == nil {
		t.Error("an end that is no JSON was taken")
	}
}

func TestEventUnknownForm(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a form that does not exist was written")
		}
	}()
	mustEvent(t, "a:1", "", []byte("1")).encode(FormCount)
}

// TestEventShared asks for all forms from many goroutines at once: all see the same bytes.
func TestEventShared(t *testing.T) {
	const readers = 8
	for range 200 {
		event := mustEvent(t, "a:1", "a:1/e.1", []byte(`{"type":"gap"}`))
		var seen [readers][FormCount]*byte
		start := make(chan struct{})
		var group sync.WaitGroup
		for reader := range readers {
			group.Go(func() {
				<-start
				for form := range FormCount {
					seen[reader][form] = unsafe.SliceData(event.Bytes(form))
				}
			})
		}
		close(start)
		group.Wait()
		for reader := range readers {
			if seen[reader] != seen[0] {
				t.Fatal("two streams got different bytes")
			}
		}
	}
}

// TestChunks reads a stream of chunks by net/http's reader: heads and tails are right for every
// size around the places where they grow.
func TestChunks(t *testing.T) {
	var wire, want []byte
	for _, size := range []int{0, 1, 7, 8, 9, 247, 248, 249, 4087, 4088, 4089, 65527, 65528, 65529, 1 << 20} {
		data := []byte(strings.Repeat("x", size))
		wire = AppendSSE(wire, FormSSE, "", "", data)
		want = AppendSSE(want, FormSSEPlain, "", "", data)
	}
	wire = AppendSSERetry(AppendSSEComment(wire, FormSSE, "keep-alive"), FormSSE, 3*time.Second)
	want = AppendSSERetry(AppendSSEComment(want, FormSSEPlain, "keep-alive"), FormSSEPlain, 3*time.Second)
	wire, want = AppendSSEEnd(wire, FormSSE), AppendSSEEnd(want, FormSSEPlain)
	got, err := io.ReadAll(httputil.NewChunkedReader(strings.NewReader(string(wire))))
	if err != nil || string(got) != string(want) {
		t.Fatalf("%v: %d bytes, want %d", err, len(got), len(want))
	}
}

func TestAllocations(t *testing.T) {
	event := mustEvent(t, "a:1", "a:1/e.1", progress)
	event.Bytes(FormSSE)
	channel := mustChannel(t, "a:1")
	frame := AppendMaskedFrame(nil, OpText, progress, [4]byte{1, 2, 3, 4})
	ping := AppendMaskedFrame(nil, OpPing, []byte("x"), [4]byte{1, 2, 3, 4})
	buffer := make([]byte, 0, 1024)
	var r, bad MessageReader
	for _, c := range []struct {
		name string
		most float64
		run  func()
	}{
		{"ParseChannel", 0, func() { _, _ = ParseChannel("job_progress:job_123:user_42") }},
		{"ParseID", 0, func() { _, _ = ParseID("a:1/1732442400123-0/1732442400100") }},
		{"NewEvent", 1, func() { _, _ = NewEvent(channel, "a:1/e.1", progress) }},
		{"Bytes again", 0, func() { event.Bytes(FormSSE) }},
		{"Bytes first", 2, func() { event.forms[FormText].Store(nil); event.Bytes(FormText) }},
		{"whole text frame", 0, func() {
			buffer = append(append(buffer[:0], frame...), ping...)
			_, rest, _ := r.Next(buffer, 1<<16)
			_, rest, _ = r.Next(rest, 1<<16)
			if m, _, _ := r.Next(rest, 1<<16); m.Op != 0 {
				t.Error("a third message")
			}
		}},
		{"bad frame", 2, func() {
			bad.failure = nil
			_, _, _ = bad.Next(append(buffer[:0], 0xFF, 0xFF), 1<<16)
		}},
		{"AppendGap", 0, func() { buffer = AppendGap(buffer[:0], "a:1", "a:1/e.1", GapSlow) }},
		{"AppendSSE into room", 0, func() { buffer = AppendSSE(buffer[:0], FormSSE, "a", "b", progress) }},
	} {
		if got := testing.AllocsPerRun(100, c.run); got > c.most {
			t.Errorf("%s: %v allocations, at most %v wanted", c.name, got, c.most)
		}
	}
}

func TestWithoutID(t *testing.T) {
	event := mustEvent(t, "a:1", "a:1/e.1", []byte(`{"type":"x"}`))
	plain := "event: x\ndata: {\"type\":\"x\"}\n\n"
	cases := []struct {
		form, want Form
		text       string
	}{
		{FormSSE, FormSSEWithoutID, "1d\r\n" + plain + "\r\n"},
		{FormSSEPlain, FormSSEPlainWithoutID, plain},
		{FormSSEPlainWithoutID, FormSSEPlainWithoutID, plain},
		{FormText, FormText, string(event.Bytes(FormText))},
		{FormEnvelope, FormEnvelope, string(event.Bytes(FormEnvelope))},
	}
	for _, c := range cases {
		if got := c.form.WithoutID(); got != c.want {
			t.Errorf("form %d becomes %d, not %d", c.form, got, c.want)
		} else if text := string(event.Bytes(got)); text != c.text {
			t.Errorf("form %d: %q, not %q", got, text, c.text)
		}
	}
}

func TestMember(t *testing.T) {
	cases := []struct {
		name, payload, want string
		ok                  bool
	}{
		{"string", `{"a":1,"key":"v"}`, "v", true},
		{"escaped", `{"k\u0065y":"\u00e9"}`, "é", true},
		{"empty", `{"key":""}`, "", true},
		{"number", ` {"key": -1.50e3 } `, "-1.50e3", true},
		{"bool", `{"key":true}`, "true", true},
		{"the last counts", `{"key":1,"key":2}`, "2", true},
		{"null", `{"key":null}`, "", false},
		{"object", `{"key":{}}`, "", false},
		{"list", `{"key":[1]}`, "", false},
		{"absent", `{"other":1}`, "", false},
		{"nested", `{"a":{"key":1}}`, "", false},
		{"no object", `[{"key":1}]`, "", false},
		{"cut", `{"key":1`, "", false},
		{"trailing", `{"key":1}}`, "", false},
		{"nothing", "", "", false},
	}
	for _, c := range cases {
		if got, ok := Member([]byte(c.payload), "key"); got != c.want || ok != c.ok {
			t.Errorf("%s: %q, %v", c.name, got, ok)
		}
	}
}
