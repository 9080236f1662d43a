package proto

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// wanted is a command as the tests write it.
type wanted struct {
	Kind              CommandKind
	Channels          []string
	Since             []string
	Token, Event, Ref string
}

func seen(c Command) wanted {
	w := wanted{Kind: c.Kind, Since: c.Since, Token: c.Token, Event: string(c.Event), Ref: string(c.Ref)}
	for _, channel := range c.Channels {
		w.Channels = append(w.Channels, channel.Name())
	}
	return w
}

func TestParseCommandGood(t *testing.T) {
	deep := strings.Repeat("[", 9000) + strings.Repeat("]", 9000)
	cases := []struct {
		name, text string
		want       wanted
	}{
		{"subscribe", `{"type":"subscribe","channel":"a:1","ref":17}`, wanted{Kind: Subscribe, Channels: []string{"a:1"}, Ref: "17"}},
		{"subscribe to an object", `{"type":"subscribe","channel":{"type":"job_progress","id":"job_123"}}`, wanted{Kind: Subscribe, Channels: []string{"job_progress:job_123"}}},
		{"an object of a user", `{"type":"subscribe","channel":{"userId":"456","type":"alerts"}}`, wanted{Kind: Subscribe, Channels: []string{"alerts:456"}}},
		{"an object of all three", `{"type":"subscribe","channel":{"type":"x","id":"1","userId":"2","more":[]}}`, wanted{Kind: Subscribe, Channels: []string{"x:1:2"}}},
		{"an object with null", `{"type":"subscribe","channel":{"type":"x","id":"1","userId":null}}`, wanted{Kind: Subscribe, Channels: []string{"x:1"}}},
		{"an object, last wins", `{"type":"subscribe","channel":{"type":"x","id":"1","id":"2"}}`, wanted{Kind: Subscribe, Channels: []string{"x:2"}}},
		{"channels of both forms", `{"type":"subscribe","channels":["a:1",{"type":"b","id":"2"},"c:*"],"ref":"r"}`, wanted{Kind: Subscribe, Channels: []string{"a:1", "b:2", "c:*"}, Ref: `"r"`}},
		{"channel twice", `{"type":"subscribe","channels":["a:1","a:1"]}`, wanted{Kind: Subscribe, Channels: []string{"a:1", "a:1"}}},
		{"escaped channel", `{"type":"subscribe","channel":"\u0061:1"}`, wanted{Kind: Subscribe, Channels: []string{"a:1"}}},
		{"since for all", `{"type":"subscribe","channels":["a:1","b:2"],"since":"a:1/e.7"}`, wanted{Kind: Subscribe, Channels: []string{"a:1", "b:2"}, Since: []string{"a:1/e.7", "a:1/e.7"}}},
		{"since the beginning", `{"type":"subscribe","channel":"a:1","since":0}`, wanted{Kind: Subscribe, Channels: []string{"a:1"}, Since: []string{"0"}}},
		{"since by channel", `{"type":"subscribe","channels":["a:1","b:2","a:1"],"since":{"a:1":"x","b\u003a2":"y","b:2":null,"c:3":"z"}}`, wanted{Kind: Subscribe, Channels: []string{"a:1", "b:2", "a:1"}, Since: []string{"x", "", "x"}}},
		{"since of 64 KiB is cut", `{"type":"subscribe","channel":"a:1","since":"` + strings.Repeat("x", 1<<16) + `"}`, wanted{Kind: Subscribe, Channels: []string{"a:1"}, Since: []string{strings.Repeat("x", EventIDBytesMax+1)}}},
		{"since null", `{"type":"subscribe","channel":"a:1","since":null}`, wanted{Kind: Subscribe, Channels: []string{"a:1"}}},
		{"unsubscribe", `{"type":"unsubscribe","channel":"a:1","since":[]}`, wanted{Kind: Unsubscribe, Channels: []string{"a:1"}}},
		{"ping", `{"type":"ping"}`, wanted{Kind: Ping}},
		{"ping with a ref", ` { "ref" : "é" , "type" : "ping" } `, wanted{Kind: Ping, Ref: `"é"`}},
		{"refresh", `{"type":"refresh","token":"a.b.c"}`, wanted{Kind: Refresh, Token: "a.b.c"}},
		{"publish", `{"type":"publish","channel":"a:1","event":{"a": [1]},"ref":"r"}`, wanted{Kind: Publish, Channels: []string{"a:1"}, Event: `{"a": [1]}`, Ref: `"r"`}},
		{"publish null", `{"type":"publish","channel":"a:1","event":null}`, wanted{Kind: Publish, Channels: []string{"a:1"}, Event: `null`}},
		{"publish to a list of one", `{"type":"publish","channels":["a:1"],"event":1}`, wanted{Kind: Publish, Channels: []string{"a:1"}, Event: `1`}},
		{"unknown members", `{"type":"ping","x":` + deep + `,"y":1e400,"z":"\ud800"}`, wanted{Kind: Ping}},
		{"last type wins", `{"type":"publish","type":"ping"}`, wanted{Kind: Ping}},
		{"last channel wins", `{"type":"subscribe","channel":"bad","channel":"a:1"}`, wanted{Kind: Subscribe, Channels: []string{"a:1"}}},
		{"last wins by an escaped name", `{"type":"subscribe","channel":"a:1","chann\u0065l":"b:2"}`, wanted{Kind: Subscribe, Channels: []string{"b:2"}}},
		{"last channel is null", `{"type":"subscribe","channel":"a:1","channel":null,"channels":["b:2"]}`, wanted{Kind: Subscribe, Channels: []string{"b:2"}}},
		{"last event wins", `{"type":"publish","channel":"a:1","event":1,"event":2}`, wanted{Kind: Publish, Channels: []string{"a:1"}, Event: `2`}},
		{"null is absent", `{"type":"ping","ref":null,"channel":null,"token":null}`, wanted{Kind: Ping}},
		{"longest ref", `{"type":"ping","ref":"` + strings.Repeat("r", 62) + `"}`, wanted{Kind: Ping, Ref: `"` + strings.Repeat("r", 62) + `"`}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			text := []byte(c.text)
			command, failure := ParseCommand(text, 10)
			if failure != nil {
				t.Fatal(failure)
			}
			// The text may be overwritten at once: a command owns what it holds.
			for i := range text {
				text[i] = '!'
			}
			if diff := cmp.Diff(c.want, seen(command)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// subscribeTo is a command with a channel in raw JSON.
func subscribeTo(channel string) string {
	return `{"ref":7,"type":"subscribe","channel":` + channel + `}`
}

// badCommands are refused with at most three channels a command.
var badCommands = []struct {
	name, text, code, channel, ref string
	message                        string // a part of it
}{
	{"empty", "", CodeBadRequest, "", "", "ends early at byte 0"},
	{"not UTF-8", "{\"type\":\"\xff\"}", CodeBadRequest, "", "", "UTF-8; it is not at byte 9"},
	{"list", `[{"type":"ping"}]`, CodeBadRequest, "", "", "a JSON object was expected at byte 0"},
	{"string", `"ping"`, CodeBadRequest, "", "", "a JSON object was expected"},
	{"newlines", strings.Repeat("\n", 1<<16), CodeBadRequest, "", "", "ends early"},
	{"commas", strings.Repeat(",", 1<<16), CodeBadRequest, "", "", "a JSON object was expected"},
	{"10,000 commands", strings.Repeat(`{"type":"ping"}`, 10_000), CodeBadRequest, "", "", "something follows the JSON value at byte 15"},
	{"trailing bytes", `{"type":"ping"}x`, CodeBadRequest, "", "", "something follows"},
	{"cut", `{"type":"ping"`, CodeBadRequest, "", "", "ends early at byte 14"},
	{"100,000 deep", `{"type":"ping","x":` + strings.Repeat("[", 100_000), CodeBadRequest, "", "", "deeper than 10,000"},
	{"raw control character", "{\"type\":\"pi\tng\"}", CodeBadRequest, "", "", "control character"},
	{"no type", `{"ref":7}`, CodeBadRequest, "", "7", `"type" must be`},
	{"type is a number", `{"type":1}`, CodeBadRequest, "", "", `"type" must be`},
	{"last type is null", `{"type":"ping","type":null}`, CodeBadRequest, "", "", `"type" must be`},
	{"unknown", `{"type":"presence","ref":"r"}`, CodeUnknownCommand, "", `"r"`, "subscribe"},
	{"server's own word", `{"type":"connected"}`, CodeUnknownCommand, "", "", "subscribe"},
	{"case of the type", `{"type":"Ping"}`, CodeUnknownCommand, "", "", "subscribe"},
	{"lone surrogate type", `{"type":"\ud800"}`, CodeUnknownCommand, "", "", "subscribe"},
	{"ref is an object", `{"type":"ping","ref":{}}`, CodeBadRequest, "", "", `"ref" must be a string or a number`},
	{"ref is true", `{"type":"ping","ref":true}`, CodeBadRequest, "", "", `"ref" must be`},
	{"ref too long", `{"type":"ping","ref":"` + strings.Repeat("r", 63) + `"}`, CodeBadRequest, "", "", "64 bytes"},
	{"no channel", `{"ref":7,"type":"subscribe"}`, CodeBadRequest, "", "7", "missing"},
	{"channel and channels", `{"type":"subscribe","channel":"a:1","channels":["a:1"]}`, CodeBadRequest, "", "", "exclude"},
	{"channels is a string", `{"type":"subscribe","channels":"a:1"}`, CodeBadRequest, "", "", "must be a list"},
	{"channels is empty", `{"type":"unsubscribe","channels":[]}`, CodeBadRequest, "", "", "must not be empty"},
	{"too many channels", `{"type":"subscribe","ref":7,"channels":["a:1","a:2","a:3","a:4","bad"]}`, CodeTooManySubscriptions, "", "7", "more channels than the 3"},
	{"bad channel", subscribeTo(`"a b"`), CodeBadChannel, "a b", "7", "byte 1"},
	{"bad channel in a list", `{"type":"subscribe","channels":["a:1","b"]}`, CodeBadChannel, "b", "", "two or three parts"},
	{"NUL in a channel", subscribeTo(`"a:\u0000"`), CodeBadChannel, "a:\x00", "7", "byte 2"},
	{"CR LF in a channel", subscribeTo(`"a:\r\n"`), CodeBadChannel, "a:\r\n", "7", "byte 2"},
	{"lone surrogate in a channel", subscribeTo(`"a:\ud800"`), CodeBadChannel, "a:\ufffd", "7", "byte 2"},
	{"reserved channel", subscribeTo(`"__a:1"`), CodeBadChannel, "__a:1", "7", "reserved"},
	{"glob", subscribeTo(`"a:[x]"`), CodeBadChannel, "a:[x]", "7", "byte 2"},
	{"empty channel", subscribeTo(`""`), CodeBadChannel, "", "7", "empty"},
	{"channel of 64 KiB", subscribeTo(`"` + strings.Repeat("a", 1<<16) + `"`), CodeBadChannel, "", "7", "longer than 255"},
	{"channel is a number", subscribeTo(`1`), CodeBadChannel, "", "7", "bad channel: it must be a string"},
	{"channel is a list", subscribeTo(`["a:1"]`), CodeBadChannel, "", "7", "bad channel: it must be a string"},
	{"object without type", subscribeTo(`{"id":"1"}`), CodeBadChannel, "", "7", "the type is missing"},
	{"object without id", subscribeTo(`{"type":"a"}`), CodeBadChannel, "", "7", "both id and userId are missing"},
	{"object with a number", subscribeTo(`{"type":"a","id":1}`), CodeBadChannel, "", "7", "of strings"},
	{"object with an empty user", subscribeTo(`{"type":"a","id":"1","userId":""}`), CodeBadChannel, "", "7", "of strings"},
	{"object with a colon", subscribeTo(`{"type":"a","id":"1:2"}`), CodeBadChannel, "", "7", "colon"},
	{"since is a list", `{"type":"subscribe","channel":"a:1","since":["x"]}`, CodeBadRequest, "", "", `"since"`},
	{"since is true", `{"type":"subscribe","channel":"a:1","since":true}`, CodeBadRequest, "", "", `"since"`},
	{"since holds an object", `{"type":"subscribe","channel":"a:1","since":{"a:1":{}}}`, CodeBadRequest, "", "", `"since"`},
	{"since names too many", `{"type":"subscribe","channel":"a:1","since":{"a:1":"1","a:2":"2","a:3":"3","a:4":"4"}}`, CodeBadRequest, "", "", "more channels than the 3"},
	{"refresh without token", `{"type":"refresh"}`, CodeBadRequest, "", "", `"token"`},
	{"refresh with an empty token", `{"type":"refresh","token":""}`, CodeBadRequest, "", "", `"token"`},
	{"refresh with a number", `{"type":"refresh","token":1}`, CodeBadRequest, "", "", `"token"`},
	{"publish without event", `{"type":"publish","channel":"a:1"}`, CodeBadRequest, "", "", `"event"`},
	{"publish without channel", `{"type":"publish","event":1}`, CodeBadRequest, "", "", "missing"},
	{"publish to two channels", `{"type":"publish","channels":["a:1","a:2"],"event":1}`, CodeBadRequest, "", "", "one channel"},
	{"publish to a wildcard", `{"type":"publish","channel":"a:*","event":1}`, CodeBadChannel, "a:*", "", "wildcard"},
	{"publish to a bad channel", `{"type":"publish","channel":"a","event":1}`, CodeBadChannel, "a", "", "parts"},
}

func TestParseCommandRefuses(t *testing.T) {
	for _, c := range badCommands {
		t.Run(c.name, func(t *testing.T) {
			command, failure := ParseCommand([]byte(c.text), 3)
			if failure == nil {
				t.Fatalf("taken: %+v", seen(command))
			}
			if diff := cmp.Diff(wanted{}, seen(command)); diff != "" {
				t.Errorf("a command beside an error: %s", diff)
			}
			if failure.Code != c.code || failure.Channel != c.channel || string(failure.Ref) != c.ref {
				t.Errorf("%+v", failure)
			}
			if !strings.Contains(failure.Message, c.message) {
				t.Errorf("message %q", failure.Message)
			}
			if failure.Error() != failure.Code+": "+failure.Message {
				t.Errorf("%q", failure.Error())
			}
			checkRefusal(t, failure)
		})
	}
}

// checkRefusal holds what is true of every refusal: short, and fit to be sent.
func checkRefusal(t *testing.T, failure *CommandError) {
	t.Helper()
	if len(failure.Message) > 500 || len(failure.Channel) > ChannelBytesMax || len(failure.Ref) > RefBytesMax {
		t.Errorf("a long refusal: %q", failure)
	}
	answer := AppendError(nil, failure.Code, failure.Message, failure.Channel, failure.Ref)
	if !json.Valid(answer) || !utf8.Valid(answer) {
		t.Errorf("%q is not JSON", answer)
	}
}

func TestCommandKindString(t *testing.T) {
	for kind, want := range []string{"unknown", "subscribe", "unsubscribe", "ping", "refresh", "publish", "unknown"} {
		if got := CommandKind(kind).String(); got != want {
			t.Errorf("%d: %q, want %q", kind, got, want)
		}
	}
}

func TestParseCommandNoLimit(t *testing.T) {
	text := `{"type":"subscribe","channels":["a:1"` + strings.Repeat(`,"a:1"`, 999) + `]}`
	if command, failure := ParseCommand([]byte(text), 0); failure != nil || len(command.Channels) != 1000 {
		t.Errorf("%d channels, %v", len(command.Channels), failure)
	}
}

// TestParseCommandStopsEarly: what comes behind one channel too many is not looked at twice.
func TestParseCommandStopsEarly(t *testing.T) {
	text := []byte(`{"type":"subscribe","channels":["a:1"` + strings.Repeat(`,"a:1"`, 10_000) + `]}`)
	allocations := testing.AllocsPerRun(10, func() {
		if _, failure := ParseCommand(text, 100); failure == nil || failure.Code != CodeTooManySubscriptions {
			t.Error(failure)
		}
	})
	if allocations > 130 {
		t.Errorf("%v allocations for 100 channels of 10,001", allocations)
	}
}

func FuzzCommand(f *testing.F) {
	for _, seed := range []string{
		`{"type":"subscribe","channels":["a:1",{"type":"b","id":"2","userId":"3"}],"since":{"a:1":"x"},"ref":17}`,
		`{"type":"publish","channel":"a:1","event":{"a":[1,"\ud800"]},"ref":"r"}`,
		`{"type":"refresh","token":"a.b.c"}`,
		`{"type":"unsubscribe","channel":{"type":"alerts","userId":"456"}}`,
		`{"type":"ping","type":"p\u0069ng"}`,
		`{"channel":"a:\u0000","type":"subscribe","ref":-1e5}`,
	} {
		f.Add([]byte(seed), uint8(3))
	}
	f.Fuzz(func(t *testing.T, text []byte, maxChannels uint8) {
		command, failure := ParseCommand(text, int(maxChannels)+1)
		if failure != nil {
			checkRefusal(t, failure)
			return
		}
		if !json.Valid(text) {
			t.Fatalf("%q taken", text)
		}
		// encoding/json folds the case of names, so the comparison is by a map.
		var members map[string]json.RawMessage
		if err := json.Unmarshal(text, &members); err != nil {
			t.Fatal(err)
		}
		var typ string
		if err := json.Unmarshal(members["type"], &typ); err != nil || command.Kind.String() != typ {
			t.Fatalf("%q: kind %d", text, command.Kind)
		}
		if len(command.Ref) > 0 && string(command.Ref) != string(members["ref"]) {
			t.Fatalf("%q: ref %q", text, command.Ref)
		}
		if command.Kind == Publish && (string(command.Event) != string(members["event"]) || len(command.Channels) != 1) {
			t.Fatalf("%q: event %q on %v", text, command.Event, command.Channels)
		}
		if len(command.Channels) > int(maxChannels)+1 || len(command.Since) > 0 && len(command.Since) != len(command.Channels) {
			t.Fatalf("%q: %d channels, %d positions", text, len(command.Channels), len(command.Since))
		}
		for _, channel := range command.Channels {
			if again, err := ParseChannel(channel.Name()); err != nil || again != channel {
				t.Fatalf("%q: channel %v", text, channel)
			}
		}
	})
}
