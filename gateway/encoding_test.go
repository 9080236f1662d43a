package gateway_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/gateway/access"
	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/proto"
	"github.com/millrace/millrace/proto/deflate"
)

// TestAcceptEncoding: a client gets gzip if it takes it, and would not rather have none.
func TestAcceptEncoding(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{})
	off := serve(t, gateway.Options{DisableCompression: true})
	for _, row := range []struct {
		name   string
		header []string
		want   bool
	}{
		{"nothing said", nil, false},
		{"gzip", []string{"gzip"}, true},
		{"as browsers do", []string{"gzip, deflate, br, zstd"}, true},
		{"any case", []string{"GZip"}, true},
		{"its old name", []string{"x-gzip"}, true},
		{"weighed", []string{"br;q=1.0, gzip;q=0.8"}, true},
		{"weighed with spaces", []string{"gzip ; Q=0.001"}, true},
		{"refused", []string{"gzip;q=0"}, false},
		{"refused at length", []string{"gzip;q=0.000, br"}, false},
		{"anything", []string{"*"}, true},
		{"anything but gzip", []string{"*, gzip;q=0"}, false},
		{"nothing", []string{"*;q=0"}, false},
		{"identity alone", []string{"identity"}, false},
		{"rather identity", []string{"gzip;q=0.5, identity;q=0.7"}, false},
		{"as gladly", []string{"gzip;q=0.7, identity;q=0.7"}, true},
		{"another", []string{"br, deflate"}, false},
		{"in a second line", []string{"br", "gzip"}, true},
		{"an empty one", []string{""}, false},
		{"a weight that is none", []string{"gzip;q=1.5"}, false},
		{"a weight without a value", []string{"gzip;q="}, false},
		{"a weight that is a word", []string{"gzip;q=0.x"}, false},
		{"another parameter", []string{"gzip;level=1"}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			var header []string
			for _, value := range row.header {
				header = append(header, "Accept-Encoding: "+value)
			}
			for _, house := range []*house{h, off} {
				s := house.knock(t, sse, visit{channels: []string{"a:1"}, header: header})
				s.wire.zipped = row.want && house == h
				s.wantOpen(t)
				s.greeted(t)
				varies := strings.Contains(strings.Join(s.response.Header.Values("Vary"), ","), "Accept-Encoding")
				if varies != (house == h) {
					t.Errorf("Vary is %q", s.response.Header.Values("Vary"))
				}
				s.conn.Close()
			}
			head := h.ask(t, strings.Replace(get("/api/stream?channel=a:1", header...), "GET", "HEAD", 1))
			if zipped := head.header.Get("Content-Encoding") == "gzip"; zipped != row.want || !strings.Contains(strings.Join(head.header.Values("Vary"), ","), "Accept-Encoding") {
				t.Errorf("HEAD was answered with %v", head.header)
			}
		})
	}
	s := off.knock(t, deflated, visit{})
	if got := s.response.Header.Get("Sec-WebSocket-Extensions"); got != "" {
		t.Errorf("the extension %q was taken, though compression is off", got)
	}
}

// packing are the wires with ?compress=envelope.
var packing = []wire{sse, sse10, raw, enveloped, sseGzip, deflated}

// unpack gives what a message compressed holds.
func unpack(t *testing.T, message string) string {
	t.Helper()
	var fields struct{ Type, Encoding, Data string }
	if err := json.Unmarshal([]byte(message), &fields); err != nil || fields.Type != "compressed" || fields.Encoding != "gzip" {
		t.Fatalf("no message compressed: %.200s (%v)", message, err)
	}
	zipped, err := base64.StdEncoding.DecodeString(fields.Data)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := gzip.NewReader(bytes.NewReader(zipped))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestPackedPayloads: who comes with ?compress=envelope gets large payloads in messages compressed,
// and nothing else compressed.
func TestPackedPayloads(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Namespaces: map[string]access.Namespace{
		"job": {CompressOver: new(200)}, "usual": {}, "secret": {Access: access.Owner},
	}})
	large := func(size int) string { return `{"type":"frame","data":"` + strings.Repeat("a", size-26) + `"}` }
	onEvery(t, packing, func(t *testing.T, w wire) {
		s := h.knock(t, w, visit{channels: []string{"job:1", "usual:1", "secret:1"}, query: "compress=envelope"})
		s.wire.zipped = false
		s.wantOpen(t)
		s.greeted(t)
		if w.websocket {
			s.subscribe(t, "job:1", "usual:1", "secret:1")
		}
		for _, row := range []struct {
			channel string
			size    int
			packed  bool
		}{
			{"job:1", 200, false},
			{"job:1", 201, true},
			{"usual:1", 1024, false},
			{"usual:1", 1025, true},
			{"secret:1", 2000, false},
		} {
			payload := large(row.size)
			h.publish(t, row.channel, payload)
			got := s.said(t)
			text := got.text
			if row.packed {
				text = unpack(t, text)
			}
			if text != payload {
				t.Errorf("%d bytes on %s came as %v", row.size, row.channel, got)
			}
			isWord := got.kind == heardWord && got.name == "compressed"
			if row.packed && (isWord == w.envelope || !w.isRaw() && !strings.HasPrefix(got.id, row.channel+"/")) {
				t.Errorf("it came as a %s called %q with the id %q", got.kind, got.name, got.id)
			}
		}
	})
	h.check(t, []row{
		{"another way", get("/api/stream?channel=job:1&compress=zstd"), 400, "bad_request", ""},
		{"the same on a WebSocket", handshake("/ws?compress=1"), 400, "bad_request", ""},
	})
}

// TestSecretsAreNotCompressed: on a stream that takes gzip, what belongs to one user is carried as it
// is, and nothing follows on it; what all may hear is compressed all the same.
func TestSecretsAreNotCompressed(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Auth: gateway.AuthOptions{HMACSecret: secret}})
	token := mint(t, auth.MintClaims{User: "456"})
	s := h.knock(t, sseGzip, visit{channels: []string{"job_progress:1"}, header: []string{bearer(token)}})
	s.wantOpen(t)
	s.greeted(t)
	payload := func(n int) string {
		return fmt.Sprintf(`{"type":"progress","secret":"the words that nobody else may know","n":%d}`, n)
	}
	before := h.bytesWritten(t)
	send := func(channel string, n int) (size int) {
		h.publish(t, channel, payload(n))
		s.event(t, payload(n))
		written := h.bytesWritten(t)
		size, before = int(written-before), written
		return size
	}
	send("job_progress:1", 1)
	if size := send("job_progress:1", 2); size > len(payload(2))*2/3 {
		t.Errorf("an event that all may hear took %d bytes behind another", size)
	}
	for n := 3; n < 5; n++ {
		if size := send("alerts:456", n); size < len(payload(n)) {
			t.Errorf("a secret of %d bytes took %d bytes: it was compressed", len(payload(n)), size)
		}
	}
	if size := send("job_progress:1", 5); size < len(payload(5))*2/3 {
		t.Errorf("an event behind a secret took %d bytes: it follows on something", size)
	}
}

// bytesWritten is what all loops have written so far.
func (h *house) bytesWritten(t testing.TB) (written uint64) {
	t.Helper()
	for _, loop := range h.stats(t).Loops {
		written += loop.BytesWritten
	}
	return written
}

// TestDeflateBomb: what a client's message inflates to is what counts, and no more of it is made.
func TestDeflateBomb(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{Limits: gateway.Limits{MaxMessageBytes: 4096}})
	zipped := func(text string) []byte {
		payload, _ := deflate.AppendMessage(nil, []byte(text))
		frame := masked(proto.OpText, string(payload))
		frame[0] |= 0x40 // RFC 7692, 6: RSV1
		return frame
	}
	ping := func(size int) string {
		const text = `{"type":"ping","ref":""}`
		return `{"type":"ping","ref":"` + strings.Repeat("x", size-len(text)) + `"}`
	}
	s := h.open(t, deflated, visit{})
	s.send(t, zipped(ping(80)))
	s.wordWith(t, "pong", "ref="+strings.Repeat("x", 80-24))
	s.send(t, zipped(ping(4097)))
	s.ends(t, proto.CloseTooBig, "message too big")
	s = h.open(t, deflated, visit{})
	s.send(t, zipped(strings.Repeat(" ", 64<<20)))
	s.ends(t, proto.CloseTooBig, "message too big")
	s = h.open(t, deflated, visit{})
	frame := masked(proto.OpText, "\x06")
	frame[0] |= 0x40
	s.send(t, frame)
	s.ends(t, proto.CloseProtocolError, "message not compressed as RFC 7692 says")
	s = h.open(t, raw, visit{})
	s.send(t, zipped(ping(80)))
	s.ends(t, proto.CloseProtocolError, "reserved bits set without an extension")
	if got := h.metrics(t)[`millrace_streams_ended_total{reason="message_too_big"}`]; got != 2 {
		t.Errorf("%v streams are counted as ended by too large a message, not 2", got)
	}
}

// TestGoHears: the client of the standard library asks for gzip by itself, and hears each event as it
// comes and the end.
func TestGoHears(t *testing.T) {
	t.Parallel()
	h := serve(t, gateway.Options{})
	client := http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	response, err := client.Get("http://" + h.address + "/api/stream?channel=a:1")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if !response.Uncompressed {
		t.Fatal("it was not compressed")
	}
	var decoder proto.SSEDecoder
	room := make([]byte, 4096)
	next := func(name string) proto.SSEEvent {
		t.Helper()
		for {
			if event, ok := decoder.Next(); ok {
				if event.Event != name {
					t.Fatalf("%+v came instead of %s", event, name)
				}
				return event
			}
			n, err := response.Body.Read(room)
			decoder.Feed(room[:n])
			if err != nil && n == 0 {
				t.Fatalf("instead of %s: %v", name, err)
			}
		}
	}
	watchdog := time.AfterFunc(patience, func() { response.Body.Close() })
	defer watchdog.Stop()
	next("connected")
	for n := range 20 {
		payload := fmt.Sprintf(`{"type":"tick","n":%d}`, n)
		h.publish(t, "a:1", payload)
		if got := next("tick").Data; got != payload {
			t.Fatalf("%s came, not %s", got, payload)
		}
	}
	h.cancel()
	if rest, err := io.ReadAll(response.Body); err != nil || !bytes.Contains(rest, []byte("retry:")) {
		t.Errorf("the end is %q, %v", rest, err)
	}
}
