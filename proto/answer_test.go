package proto

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestAnswersGolden(t *testing.T) {
	ref := []byte(`"r"`)
	cases := []struct {
		name string
		got  []byte
		want string
	}{
		{"connected", AppendConnected(nil, "c1", "u1", []Channel{mustChannel(t, "a:1"), mustChannel(t, "b:*")}), `{"type":"connected","clientId":"c1","userId":"u1","channels":["a:1","b:*"]}`},
		{"connected, nobody", AppendConnected(nil, "c1", "", nil), `{"type":"connected","clientId":"c1","userId":null,"channels":[]}`},
		{"connected, escapes", AppendConnected(nil, "c1", "\"u\n\xff", nil), `{"type":"connected","clientId":"c1","userId":"\"u\n\ufffd","channels":[]}`},
		{"subscribed", AppendSubscribed(nil, "a:1", ref), `{"type":"subscribed","channel":"a:1","ref":"r"}`},
		{"subscribed, no ref", AppendSubscribed(nil, "a:1", nil), `{"type":"subscribed","channel":"a:1"}`},
		{"unsubscribed", AppendUnsubscribed(nil, "a:1", []byte("-1e5")), `{"type":"unsubscribed","channel":"a:1","ref":-1e5}`},
		{"published", AppendPublished(nil, []string{"a:1/e.1", "a:1/=\""}, true, ref), `{"type":"published","ids":["a:1/e.1","a:1/=\""],"distributed":true,"ref":"r"}`},
		{"published, no ids", AppendPublished(nil, []string{""}, false, nil), `{"type":"published","ids":[null],"distributed":false}`},
		{"pong", AppendPong(nil, ref), `{"type":"pong","ref":"r"}`},
		{"pong, no ref", AppendPong(nil, nil), `{"type":"pong"}`},
		{"refreshed", AppendRefreshed(nil, ref), `{"type":"refresh","ref":"r"}`},
		{"refreshed, no ref", AppendRefreshed(nil, nil), `{"type":"refresh"}`},
		{"error", AppendError(nil, CodeBadChannel, "bad \"x\"", "x y", ref), `{"type":"error","code":"bad_channel","message":"bad \"x\"","channel":"x y","ref":"r"}`},
		{"error, short", AppendError(nil, CodeRateLimited, "slow down", "", nil), `{"type":"error","code":"rate_limited","message":"slow down"}`},
		{"gap", AppendGap(nil, "a:1", "a:1/e.7", GapSlow), `{"type":"gap","channel":"a:1","after":"a:1/e.7","reason":"slow"}`},
		{"gap, no id", AppendGap(nil, "a:1", "", GapBroker), `{"type":"gap","channel":"a:1","reason":"broker"}`},
		{"gap, id too long", AppendGap(nil, "a:1", strings.Repeat("x", EventIDBytesMax+1), GapUnknownPosition), `{"type":"gap","channel":"a:1","reason":"unknown_position"}`},
		{"gap, id of a client", AppendGap(nil, "a:1", "\"\r\n\x00", GapTrimmed), `{"type":"gap","channel":"a:1","after":"\"\r\n\u0000","reason":"trimmed"}`},
		{"replayed", AppendReplayed(nil, "a:1", 12), `{"type":"replayed","channel":"a:1","count":12}`},
		{"deleted", AppendDeleted(nil, "a:1"), `{"type":"deleted","channel":"a:1"}`},
		{"batch", AppendBatch(nil, "a:1", [][]byte{[]byte("1"), []byte(`{"a":2}`)}), `{"type":"batch","channel":"a:1","events":[1,{"a":2}]}`},
		{"batch of none", AppendBatch(nil, "a:1", nil), `{"type":"batch","channel":"a:1","events":[]}`},
		{"complete", AppendComplete(nil, []byte(`{"a":1}`)), `{"type":"complete","data":{"a":1}}`},
		{"complete, no data", AppendComplete(nil, nil), `{"type":"complete"}`},
		{"server_error", AppendServerError(nil, CodeBrokerUnavailable, "no \"Redis\""), `{"code":"broker_unavailable","message":"no \"Redis\""}`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if string(c.got) != c.want {
				t.Errorf("%s, want %s", c.got, c.want)
			}
			if !json.Valid(c.got) || strings.ContainsAny(string(c.got), "\r\n\x00") {
				t.Errorf("%q is not one line of JSON", c.got)
			}
			var message struct{ Type string }
			if json.Unmarshal(c.got, &message) == nil && message.Type != "" && !Reserved(message.Type) {
				t.Errorf("%q is not reserved", message.Type)
			}
		})
	}
}

func TestGapReason(t *testing.T) {
	want := []string{"slow", "broker", "trimmed", "rewound", "unknown_position", "unknown_reason"}
	for reason, name := range want {
		if got := GapReason(reason).String(); got != name {
			t.Errorf("%d: %q, want %q", reason, got, name)
		}
	}
}

func TestAppendMessage(t *testing.T) {
	text := []byte(`{"type":"pong"}`)
	cases := []struct {
		form Form
		want string
	}{
		{FormSSE, "23\r\nevent: pong\ndata: {\"type\":\"pong\"}\n\n\r\n"},
		{FormSSEPlain, "event: pong\ndata: {\"type\":\"pong\"}\n\n"},
		{FormText, "\x81\x0f" + string(text)},
		{FormEnvelope, "\x81\x0f" + string(text)},
	}
	for _, c := range cases {
		if got := string(AppendMessage(nil, c.form, "pong", text)); got != c.want {
			t.Errorf("form %v: %q, want %q", c.form, got, c.want)
		}
	}
}
