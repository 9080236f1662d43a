package hostile

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// commandCases are the cases of letter D: JSON commands.
var commandCases = []abuse{
	{
		id: "D1", sent: "deep nesting, 1e400, duplicate keys, unknown fields, trailing bytes, lone surrogates, NUL",
		counts: map[string]int{"rate-limited": 0}, bytesSpare: 16 << 20,
		do: strangeJSON,
	},
	{
		id: "D2", sent: "64 KiB of newlines, of commas; 4,000 commands in a message; 5,000 channels in a command",
		do: crowdedMessages,
	},
	{
		id: "D3", sent: "the same subscription twice, unsubscribing what was never subscribed, connecting again", redis: true,
		file: "namespaces:\n  job_progress:\n    replay: {size: 0, ttl: 100ms}\n",
		do:   repeatedCommands,
	},
	{
		id: "D4", sent: "subscribe and unsubscribe on fresh channels as fast as the socket takes them", redis: true,
		file:   "namespaces:\n  job_progress:\n    replay: {size: 4, ttl: 100ms}\n",
		counts: map[string]int{"rate-limited": some, "end flood": 1},
		do:     commandFlood,
	},
	{
		id: "D5", sent: "channels of 64 KiB, of nothing, with * ? [ spaces, CR LF, bad UTF-8, our own prefix, on every way in", redis: true,
		arguments: []string{"--max-header-bytes", "256KiB", "--max-message-bytes", "256KiB"},
		counts:    map[string]int{"request bad_channel": some, "request bad_request": maybe},
		do:        badChannels,
	},
}

func strangeJSON(w *world) {
	s := w.websocket("/ws?channel=job_progress:d1")
	s.await("subscribed")
	for _, test := range []struct {
		name, command string
		kinds         []string // one of which must answer
	}{
		{"deep arrays", `{"type":"ping","x":` + strings.Repeat("[", 60_000), []string{"bad_request"}},
		{"deep and whole", `{"type":"ping","x":` + strings.Repeat("[", 30_000) + strings.Repeat("]", 30_000) + `}`, []string{"bad_request", "pong"}},
		{"deep objects", strings.Repeat(`{"type":`, 8000), []string{"bad_request"}},
		{"1e400", `{"type":"ping","ref":1e400}`, []string{"bad_request", "pong"}},
		{"-0e-999", `{"type":"ping","x":-0e-999}`, []string{"pong"}},
		{"unknown fields", `{"type":"ping","a":{"b":[1,2,{"type":"publish"}]},"":null}`, []string{"pong"}},
		{"trailing bytes", `{"type":"ping"} {"type":"ping"}`, []string{"bad_request"}},
		{"a comma too many", `{"type":"ping",}`, []string{"bad_request"}},
		{"a lone surrogate", `{"type":"ping","ref":"\ud800"}`, []string{"bad_request", "pong"}},
		{"a lone surrogate as type", `{"type":"\udc00ping"}`, []string{"bad_request", "unknown_command"}},
		{"NUL in a channel", `{"type":"subscribe","channel":"job_progress:\u0000"}`, []string{"bad_channel"}},
		{"NUL in the type", `{"type":"pi\u0000ng"}`, []string{"bad_request", "unknown_command"}},
		{"a number as channel", `{"type":"subscribe","channel":1e999}`, []string{"bad_request", "bad_channel"}},
		{"a type that is no text", `{"type":{"type":"ping"}}`, []string{"bad_request", "unknown_command"}},
		{"a long ref", `{"type":"ping","ref":"` + strings.Repeat("r", 1000) + `"}`, []string{"bad_request"}},
		{"a mark in an unknown command", `{"type":"` + payloadMark + `"}`, []string{"unknown_command"}},
		{"a mark in a bad channel", `{"type":"subscribe","channel":"` + payloadMark + `"}`, []string{"bad_channel"}},
	} {
		answer := s.reply(test.command)
		if !slices.Contains(test.kinds, answer.Type) && !slices.Contains(test.kinds, answer.Code) {
			w.Errorf("%s: answered with %.200s, want one of %v", test.name, answer.text, test.kinds)
		}
	}
	// Of two keys the last counts, in the check and in the use.
	listener := w.websocket("/ws?channel=job_progress:d1")
	listener.await("subscribed")
	if answer := s.reply(`{"channel":"__millrace:1","type":"subscribe","type":"publish","channel":"job_progress:d1","event":1,"event":{"n":7}}`); answer.Type != "published" {
		w.Errorf("duplicate keys: answered with %s", answer.text)
	}
	listener.wantText(`{"n":7}`)
	w.note("an error with a code for each, the socket goes on; of duplicate keys the last counts, in check and use")
}

func crowdedMessages(w *world) {
	s := w.websocket("/ws")
	s.await("connected")
	commands := strings.Repeat(`{"type":"ping"}`, 4000)
	channels := make([]string, 5000)
	for n := range channels {
		channels[n] = `"a:` + strconv.Itoa(n) + `"`
	}
	for _, test := range []struct{ name, message, code string }{
		{"newlines", strings.Repeat("\n", 64<<10), "bad_request"},
		{"commas", strings.Repeat(",", 64<<10), "bad_request"},
		{"commands", commands, "bad_request"},
		{"commands by line", strings.ReplaceAll(commands, "}{", "}\n{"), "bad_request"},
		{"a list of commands", "[" + strings.ReplaceAll(commands, "}{", "},{") + "]", "bad_request"},
		{"channels", `{"type":"subscribe","channels":[` + strings.Join(channels, ",") + `]}`, "too_many_subscriptions"},
		{"channels that end in nothing", `{"type":"subscribe","channels":[` + strings.Repeat(`"a:1",`, 10_000), "bad_request"},
	} {
		answer := s.reply(test.message)
		if answer.Type != "error" || answer.Code != test.code {
			w.Errorf("%s: answered with %.200s, want %s", test.name, answer.text, test.code)
		}
	}
	// One answer each: what comes next is the next command's.
	if pong := s.reply(`{"type":"ping","ref":"after"}`); pong.Ref != "after" {
		w.Errorf("after the crowded messages came %.200s", pong.text)
	}
	if s, err := w.gateway.stats(); err != nil || s.Channels.Subscriptions != len(w.bystanders) {
		w.Errorf("%d subscriptions are held (%v), want %d", s.Channels.Subscriptions, err, len(w.bystanders))
	}
	w.note("one error each: one command a message, channels capped while parsing")
}

// redisSubscribers is how many of Redis's clients are subscribed to a channel.
func (w *world) redisSubscribers(channel string) string {
	w.Helper()
	return strings.TrimPrefix(w.redis.CLI(w.T, "PUBSUB", "NUMSUB", channel), channel+"\n")
}

func repeatedCommands(w *world) {
	s := w.websocket("/ws")
	s.await("connected")
	const channel = "job_progress:d3"
	for _, test := range []struct{ command, kind, code string }{
		{`{"type":"unsubscribe","channel":"job_progress:d3"}`, "unsubscribed", ""},
		{`{"type":"subscribe","channel":"job_progress:d3","ref":1}`, "subscribed", ""},
		{`{"type":"subscribe","channel":"job_progress:d3","ref":1}`, "subscribed", ""},
		{`{"type":"subscribe","channel":"job_progress:d3","ref":2}`, "subscribed", ""},
		{`{"type":"connect"}`, "error", "unknown_command"},
		{`{"type":"connected"}`, "error", "unknown_command"},
		{`{"type":"ping","ref":1}`, "pong", ""},
	} {
		if answer := s.reply(test.command); answer.Type != test.kind || answer.Code != test.code {
			w.Errorf("%s: answered with %s, want %s %s", test.command, answer.text, test.kind, test.code)
		}
	}
	s.command(`{"type":"subscribe","channels":["job_progress:d3","job_progress:d3","job_progress:d3"]}`)
	s.command(`{"type":"ping","ref":"behind"}`)
	s.await("pong")
	if got := w.redisSubscribers(channel); got != "1" {
		w.Errorf("Redis has %s subscribers of the channel, want 1", got)
	}
	w.publish(channel, `{"n":9}`)
	s.wantText(`{"n":9}`)
	for range 3 {
		if answer := s.reply(`{"type":"unsubscribe","channel":"job_progress:d3"}`); answer.Type != "unsubscribed" {
			w.Errorf("unsubscribing was answered with %s", answer.text)
		}
	}
	w.within(patience, "no subscription remains in Redis", func() bool { return w.redisSubscribers(channel) == "0" })
	w.note("one answer each; subscribed seven times, one subscription in Redis; unsubscribed once, none")
}

func commandFlood(w *world) {
	calls := w.redisCalls("subscribe")
	s := w.websocket("/ws")
	s.await("connected")
	go func() {
		for n := range 10_000 {
			channel := fmt.Sprintf(`"channel":"job_progress:flood%d"`, n)
			s.say(frame(fin|opText, `{"type":"subscribe",`+channel+`}`) + frame(fin|opText, `{"type":"unsubscribe",`+channel+`}`))
		}
	}()
	other := w.websocket("/ws")
	slowest := time.Duration(0)
	for n := range 20 {
		began := time.Now()
		if answer := other.reply(fmt.Sprintf(`{"type":"subscribe","channel":"job_progress:calm%d"}`, n)); answer.Type != "subscribed" {
			w.Errorf("another socket's subscribe was answered with %s", answer.text)
		}
		slowest = max(slowest, time.Since(began))
	}
	limited := 0
	var last closedError
	for {
		opcode, payload, err := s.frame()
		if err != nil {
			w.Fatalf("the flood was not closed in order: %v", err)
		}
		if opcode == opClose {
			last = closedBy(payload)
			break
		}
		if parsed(string(payload)).Code == "rate_limited" {
			limited++
		}
	}
	if last.code != 1008 || limited == 0 {
		w.Errorf("closed with %d %q after %d answers of rate_limited, want 1008 after some", last.code, last.reason, limited)
	}
	s.Close()
	other.Close()
	if calls = w.redisCalls("subscribe") - calls; calls > 600 {
		w.Errorf("Redis saw %d calls of SUBSCRIBE", calls)
	}
	w.within(patience, "the table of channels shrinks again", func() bool {
		s, err := w.gateway.stats()
		return err == nil && s.Channels.Active <= 2
	})
	w.note("rate_limited %d times, then 1008; Redis saw %d SUBSCRIBEs; another socket's took %d ms at most", limited, calls, slowest.Milliseconds())
}

// redisCalls is how often Redis was sent a command.
func (w *world) redisCalls(command string) int {
	w.Helper()
	for line := range strings.Lines(w.redis.CLI(w.T, "INFO", "commandstats")) {
		if rest, found := strings.CutPrefix(strings.TrimSpace(line), "cmdstat_"+command+":calls="); found {
			count, err := strconv.Atoi(rest[:strings.IndexByte(rest, ',')])
			if err != nil {
				w.Fatal(err)
			}
			return count
		}
	}
	return 0
}

// badChannels offers names that are none by every way in.
func badChannels(w *world) {
	names := []string{
		strings.Repeat("a", 32<<10) + ":" + strings.Repeat("b", 32<<10), "", ":", "a:", ":b", "a", "a:b:c:d", "a:b*", "a:?", "a:[b]", "a b:c", "a:b\r\nPING", "a:b\x00",
		"a:\xff", "a:é", "__millrace:1", "__keyspace@0__:a", "a:b/c", "a:{b}", "a:b:", "*", "*:*", "a:" + strings.Repeat("b", 129), "a:\u202eb",
	}
	s := w.websocket("/ws")
	s.await("connected")
	for _, name := range names {
		quoted := strconv.Quote(name)
		if !strings.Contains(name, "\xff") {
			quoted = strings.NewReplacer(`\x00`, `\u0000`, `\x7f`, `\u007f`).Replace(quoted)
			if answer := s.reply(`{"type":"subscribe","channel":` + quoted + `}`); answer.Code != "bad_channel" {
				w.Errorf("%.40q on a WebSocket was answered with %.200s", name, answer.text)
			}
			if status, body := w.publishHTTP("", name, "1"); status != 400 {
				w.Errorf("%.40q for publishing was answered with %d %.200s", name, status, body)
			}
		}
		for _, path := range []string{"/api/stream?channel=", "/ws?channel="} {
			c := w.dial()
			c.say(w.head(append([]string{"GET " + path + url.QueryEscape(name) + " HTTP/1.1"}, handshake...)...))
			if response, body := c.answer(); response.StatusCode != 400 {
				w.Errorf("%.40q at %s was answered with %s %.200s", name, path, response.Status, body)
			}
			c.Close()
		}
	}
	if got := w.redis.CLI(w.T, "PUBSUB", "NUMPAT"); got != "0" {
		w.Errorf("Redis has %s patterns", got)
	}
	for channel := range strings.Lines(w.redis.CLI(w.T, "PUBSUB", "CHANNELS")) {
		if name := strings.TrimSpace(channel); name != feedChannel && !strings.HasPrefix(name, "__millrace:") {
			w.Errorf("Redis has a subscriber of %q", name)
		}
	}
	w.note("bad_channel on WebSocket, 400 on HTTP, for %d names by 4 ways; nothing of them in Redis", len(names))
}
