package hostile

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"strconv"
	"strings"
	"time"
)

// framingCases are the cases of letter C: WebSocket framing.
var framingCases = []abuse{
	{
		id: "C1", sent: "frame heads that declare 2^63-1, 2^62, 2^46 and 65,537 bytes, then nothing",
		counts: map[string]int{"end message_too_big": len(declared)}, bytesSpare: 12 << 20,
		do: declareMuch,
	},
	{
		id: "C2", sent: "a length with the top bit set",
		counts: map[string]int{"end protocol_error": 2},
		do: func(w *world) {
			for name, length := range map[string]uint64{"2^63": 1 << 63, "all bits": 1<<64 - 1} {
				head := binary.BigEndian.AppendUint64([]byte{fin | opText, 0x80 | 127}, length)
				w.websocket("/ws").wantClosed(name, string(append(head, 0, 0, 0, 0)), 1002)
			}
			w.note("1002")
		},
	},
	{
		id: "C3", sent: "unmasked frames, reserved bits and opcodes, stray fragments, bad control frames, each with a command in it",
		counts: map[string]int{"end protocol_error": len(brokenFrames)},
		do:     breakFraming,
	},
	{
		id: "C4", sent: "70,000 fragments of one byte; 1,000,000 empty fragments; a message that never ends",
		counts: map[string]int{"end message_too_big": 2, "end unfinished_message": 1}, bytesSpare: 16 << 20,
		do: manyFragments,
	},
	{
		id: "C5", sent: "pings of 125 bytes from a client that never reads its pongs",
		arguments: []string{"--commands-per-second", "1000000", "--max-queue-bytes", "256KiB"},
		counts:    map[string]int{"end slow": 1, "rate-limited": maybe},
		do:        pingFlood,
	},
	{
		id: "C6", sent: "text that is not UTF-8: whole, across fragments, across reads, in a reason",
		counts: map[string]int{"end bad_text": 2*len(badTexts) + 2},
		do:     badText,
	},
	{
		id: "C7", sent: "close codes that may not be sent, a close body of one byte, data behind a close, no answer to ours",
		counts: map[string]int{"end protocol_error": len(badCloses) + 1, "end client_closed": 3},
		do:     badClose,
	},
	{
		id: "C8", sent: "offers of permessage-deflate: all parameters, twice, out of range, garbage",
		counts: map[string]int{"request bad_request": len(noOffers)},
		do:     deflateOffers,
	},
	{
		id: "C9", sent: "64 KB that inflate to 64 MiB, with RSV1",
		counts: map[string]int{"end message_too_big": 1}, bytesSpare: 16 << 20,
		do: bomb,
	},
	{
		id: "C10", sent: "handshakes with another method, version, key; lists and case in headers; 200 subprotocols",
		counts: map[string]int{
			"request method_not_allowed": 1, "request bad_request": 4, "request upgrade_required": 4, "request version_unsupported": 1,
		},
		do: handshakes,
	},
}

// declared are the lengths of C1; a message may have 64 KiB.
var declared = map[string]uint64{"2^63-1": 1<<63 - 1, "2^62": 1 << 62, "2^46": 1 << 46, "one too many": 64<<10 + 1}

// declareMuch wants nothing allocated by what is declared: memory that is taken and never touched
// shows in the address space only.
func declareMuch(w *world) {
	before := w.measured()
	for name, length := range declared {
		head := binary.BigEndian.AppendUint64([]byte{fin | opText, 0x80 | 127}, length)
		w.websocket("/ws").wantClosed(name, string(append(head, 0, 0, 0, 0)), 1009)
	}
	if grown := w.measured().reserved - before.reserved; grown > 128<<20 {
		w.Errorf("%d bytes of address space were taken", grown)
	}
	w.note("1009 from the head alone, nothing allocated")
}

// forgedCommand publishes if it is carried out.
const forgedCommand = `{"type":"publish","channel":"job_progress:c","event":{"forged":1}}`

var brokenFrames = map[string]string{
	"unmasked":                       string([]byte{fin | opText, byte(len(forgedCommand))}) + forgedCommand,
	"RSV1":                           frame(fin|rsv1|opText, forgedCommand),
	"RSV2":                           frame(fin|rsv2|opText, forgedCommand),
	"RSV1 on a ping":                 frame(fin|rsv1|opPing, ""),
	"opcode 3":                       frame(fin|3, forgedCommand),
	"opcode 11":                      frame(fin|11, forgedCommand[:100%len(forgedCommand)]),
	"a stray continuation":           frame(fin, forgedCommand),
	"a new message inside a message": frame(opText, "{") + frame(fin|opText, forgedCommand),
	"a ping of 126 bytes":            frame(fin|opPing, strings.Repeat("a", 126)),
	"a fragmented ping":              frame(opPing, ""),
	"a fragmented close":             frame(opClose, ""),
	"RSV1 on a continuation":         frame(opText, "{") + frame(fin|rsv1, "}"),
}

func breakFraming(w *world) {
	listener := w.websocket("/ws?channel=job_progress:c")
	listener.await("subscribed")
	for name, bytes := range brokenFrames {
		w.websocket("/ws").wantClosed(name, bytes+frame(fin|opText, forgedCommand), 1002)
	}
	w.publish("job_progress:c", `{"n":1}`)
	if text, err := listener.text(); err != nil || text != `{"n":1}` {
		w.Errorf("the channel brought %q (%v): a broken frame's command was carried out", text, err)
	}
	w.note("%d times 1002, sent once; no command was carried out", len(brokenFrames))
}

func manyFragments(w *world) {
	long := w.websocket("/ws")
	go long.say(frame(opText, "1") + strings.Repeat(frame(0, "1"), 70_000))
	if got := long.closed(); got.code != 1009 {
		w.Errorf("70,000 fragments of a byte: closed with %d, want 1009", got.code)
	}
	empty := w.websocket("/ws")
	go empty.say(frame(opText, "") + strings.Repeat(frame(0, ""), 1_000_000))
	if got := empty.closed(); got.code != 1009 {
		w.Errorf("1,000,000 empty fragments: closed with %d, want 1009", got.code)
	}
	endless := w.websocket("/ws")
	_ = endless.SetDeadline(time.Now().Add(patience + time.Minute))
	began := time.Now()
	endless.say(frame(opText, "{"))
	if got := endless.closed(); got.code != 1008 || time.Since(began) < 20*time.Second {
		w.Errorf("a message that never ends: closed with %d %q after %v, want 1008 after about 30 s", got.code, got.reason, time.Since(began))
	}
	w.note("1009 at 64 KiB in all, and for too many empty fragments; 1008 after %.0f s, `Message not finished`", time.Since(began).Seconds())
}

func pingFlood(w *world) {
	s := w.websocket("/ws")
	if err := s.SetReadBuffer(2048); err != nil {
		w.Fatal(err)
	}
	flood := strings.Repeat(frame(fin|opPing, strings.Repeat("p", 125)), 1000)
	sent := 0
	for range 1000 {
		if _, err := s.Write([]byte(flood)); err != nil {
			break // it was closed, with what it had not read
		}
		sent += 1000
	}
	w.within(patience, "the flood is ended", func() bool { return w.counted()["end slow"] == 1 })
	if sent == 1_000_000 {
		w.Errorf("%d pings were taken", sent)
	}
	w.note("closed once 256 KiB of pongs waited, after %d pings", sent)
}

var badTexts = map[string]string{
	"a stray byte": "\"\xff\"", "overlong": "\"\xc0\xaf\"", "overlong NUL": "\xc0\x80", "a surrogate": "\"\xed\xa0\x80\"", "past U+10FFFF": "\"\xf4\x90\x80\x80\"",
	"a letter cut off": "\"\xe2\x82", "a lone continuation": "\x80",
}

func badText(w *world) {
	for name, text := range badTexts {
		w.websocket("/ws").wantClosed(name, frame(fin|opText, text), 1007)
		half := len(text) / 2
		w.websocket("/ws").wantClosed(name+", in two fragments", frame(opText, text[:half])+frame(fin, text[half:]), 1007)
	}
	s := w.websocket("/ws")
	bytes := frame(fin|opText, "\"\xe2\x82\"")
	s.say(bytes[:len(bytes)-2])
	s.say(bytes[len(bytes)-2:])
	if got := s.closed(); got.code != 1007 {
		w.Errorf("cut by a read: closed with %d, want 1007", got.code)
	}
	w.websocket("/ws").wantClosed("a reason", frame(fin|opClose, "\x03\xe8\xff"), 1007)
	// What is cut and whole is good.
	good := w.websocket("/ws")
	good.say(frame(opText, "{\"type\":\"ping\",\"ref\":\"\xe2\x82"))
	good.say(frame(fin, "\xac\"}"))
	if pong := good.await("pong"); pong.Ref != "€" {
		w.Errorf("a letter in two fragments came back as %v", pong.Ref)
	}
	w.note("%d times 1007; a letter in two fragments is whole", 2*len(badTexts)+2)
}

var badCloses = []int{0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535}

func closeFrame(code int, reason string) string {
	return frame(fin|opClose, string(binary.BigEndian.AppendUint16(nil, uint16(code)))+reason)
}

func badClose(w *world) {
	for _, code := range badCloses {
		w.websocket("/ws").wantClosed("code "+strconv.Itoa(code), closeFrame(code, ""), 1002)
	}
	w.websocket("/ws").wantClosed("one byte", frame(fin|opClose, "\x03"), 1002)
	w.websocket("/ws").wantClosed("data behind", closeFrame(1000, "bye")+frame(fin|opText, forgedCommand)+frame(fin|opPing, ""), 1000)
	w.websocket("/ws").wantClosed("a code of ours", closeFrame(4999, ""), 4999)
	// An empty close is answered, and closed on our side though the client never closes.
	s := w.websocket("/ws")
	s.say(frame(fin|opClose, ""))
	if got := s.closed(); got.code != 1005 && got.code != 1000 {
		w.Errorf("an empty close was answered with %d", got.code)
	}
	w.note("1002 for %d codes and a body of one byte; one echo for good ones; nothing behind it", len(badCloses))
}

// noOffers are no lists of extensions (RFC 6455, 9.1).
var noOffers = []string{";;;,,,===", "permessage-deflate; x=\"y", "permessage-deflate client_max_window_bits", "permessage-deflate;"}

// deflateOffers wants each offer answered as RFC 7692, 7.1 says: of a list the first that can be, by
// each of its parameters. We never take a window of less than 15 bits for our own messages.
func deflateOffers(w *world) {
	const taken = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	offers := []struct{ offer, answer string }{
		{"permessage-deflate", taken},
		{"permessage-deflate; client_max_window_bits", taken},
		{"permessage-deflate; client_max_window_bits=15; server_max_window_bits=15", taken + "; server_max_window_bits=15"},
		{"permessage-deflate; server_no_context_takeover; client_no_context_takeover", taken},
		{"permessage-deflate, permessage-deflate; server_max_window_bits=10", taken},
		{"permessage-deflate; server_max_window_bits=10, permessage-deflate", taken},
		{"permessage-deflate; server_max_window_bits=8", ""},
		{`permessage-deflate; server_max_window_bits="10"`, ""},
		{"x-webkit-deflate-frame", ""},
		{"permessage-deflate; server_max_window_bits=7", ""},
		{"permessage-deflate; server_max_window_bits=16", ""},
		{"permessage-deflate; server_max_window_bits", ""},
		{"permessage-deflate; client_max_window_bits=08", ""},
		{"permessage-deflate; server_no_context_takeover=1", ""},
		{"permessage-deflate; server_no_context_takeover; server_no_context_takeover", ""},
		{"permessage-deflate; unknown", ""},
		{"permessage-deflate" + strings.Repeat("; a=b", 1000), ""},
	}
	for _, test := range offers {
		s := w.websocket("/ws", "Sec-WebSocket-Extensions: "+test.offer)
		if got := s.header.Get("Sec-WebSocket-Extensions"); got != test.answer {
			w.Errorf("%.80q was answered with %q, want %q", test.offer, got, test.answer)
		}
		s.Close()
	}
	for _, text := range noOffers {
		c := w.dial()
		c.say(w.head(append(append([]string{"GET /ws HTTP/1.1"}, handshake...), "Sec-WebSocket-Extensions: "+text)...))
		if response, _ := c.answer(); response.StatusCode != 400 {
			w.Errorf("%q was answered with %s, want 400", text, response.Status)
		}
		c.Close()
	}
	w.note("101 for all %d, each taken or declined as its parameters say; 400 for %d that are no lists", len(offers), len(noOffers))
}

// bomb sends a compressed message that is a thousand times as large inflated.
func bomb(w *world) {
	var small bytes.Buffer
	deflate, err := flate.NewWriter(&small, flate.BestCompression)
	if err != nil {
		w.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range 64 {
		_, _ = deflate.Write(zeros)
	}
	_ = deflate.Flush() // into memory: none of these fails
	payload := strings.TrimSuffix(small.String(), "\x00\x00\xff\xff")
	if len(payload) > 65_500 {
		payload = payload[:65_500] // 64 MB still, and no longer than a message may be
	}
	s := w.websocket("/ws", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
	if s.header.Get("Sec-WebSocket-Extensions") == "" {
		w.Fatal("permessage-deflate is declined")
	}
	s.wantClosed("a bomb", frame(fin|rsv1|opText, payload), 1009)
	w.note("1009")
}

func handshakes(w *world) {
	key := handshake[4]
	for _, test := range []struct {
		name, line string
		replace    string // of the handshake, by with
		with       string
		status     int
	}{
		{"POST", "POST /ws HTTP/1.1", "", "", 405},
		{"HTTP/1.0", "GET /ws HTTP/1.0", "", "", 505},
		{"24 letters that are no base64", "", key, "Sec-WebSocket-Key: ************************", 400},
		{"17 bytes", "", key, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA=", 400},
		{"15 bytes", "", key, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA", 400},
		{"no key", "", key, "X-A: b", 400},
		{"version 12", "", handshake[3], "Sec-WebSocket-Version: 12", 426},
		{"version 13, 8", "", handshake[3], "Sec-WebSocket-Version: 13, 8", 426},
		{"no Connection", "", handshake[2], "Connection: keep-alive", 426},
		{"another Upgrade", "", handshake[1], "Upgrade: websockets", 426},
		{"a list in Connection", "", handshake[2], "Connection: keep-alive, Upgrade", 101},
		{"case", "", handshake[1], "uPGRADE: WebSocket", 101},
	} {
		if test.line == "" {
			test.line = "GET /ws HTTP/1.1"
		}
		lines := append([]string{test.line}, handshake...)
		if test.line[0] == 'P' {
			lines = append(lines, "Content-Length: 0")
		}
		for i, line := range lines {
			if line == test.replace {
				lines[i] = test.with
			}
		}
		c := w.dial()
		c.say(w.head(lines...))
		if test.status == 101 {
			c.upgraded()
		} else if response, _ := c.answer(); response.StatusCode != test.status ||
			test.status == 426 && response.Header.Get("Sec-WebSocket-Version") != "13" {
			w.Errorf("%s: answered with %s, version %q, want %d", test.name, response.Status, response.Header.Get("Sec-WebSocket-Version"), test.status)
		}
		c.Close()
	}
	began := time.Now()
	s := w.websocket("/ws", "Sec-WebSocket-Protocol: "+strings.Repeat("a ,"+strings.Repeat(" ", 30), 200)+"b")
	if got := s.header.Get("Sec-WebSocket-Protocol"); got != "" {
		w.Errorf("the subprotocol %q was answered, which nobody knows", got)
	}
	if took := time.Since(began); took > 5*time.Second {
		w.Errorf("200 subprotocols took %v", took)
	}
	w.note("405, 505, 400, 426 with the version; lists and case accepted; no unknown subprotocol answered")
}
