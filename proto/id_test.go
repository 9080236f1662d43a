package proto

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestIDGolden(t *testing.T) {
	channel := mustChannel(t, "a:1")
	cases := []struct {
		name, text, want string
		id               ID
	}{
		{"event", string(AppendEventID([]byte(""), "a:1", "k3J-_", 17)), "a:1/k3J-_.17", ID{Kind: IDEvent, Channel: channel, Epoch: "k3J-_", N: 17}},
		{"event, largest", string(AppendEventID(nil, "a:1", "e", math.MaxUint64)), "a:1/e.18446744073709551615", ID{Kind: IDEvent, Channel: channel, Epoch: "e", N: math.MaxUint64}},
		{"log", string(AppendLogID(nil, "a:1", 1732442400123, 4, 1732442400100)), "a:1/1732442400123-4/1732442400100", ID{Kind: IDLog, Channel: channel, Milliseconds: 1732442400123, Sequence: 4, Horizon: 1732442400100}},
		{"log, zeros", string(AppendLogID(nil, "a:1", 0, 0, 0)), "a:1/0-0/0", ID{Kind: IDLog, Channel: channel}},
		{"value", string(AppendValueID(nil, "a:1", "order 7/é=")), "a:1/=order 7/é=", ID{Kind: IDValue, Channel: channel, Value: "order 7/é="}},
		{"value that looks like an end", string(AppendValueID(nil, "a:1", "/end")), "a:1/=/end", ID{Kind: IDValue, Channel: channel, Value: "/end"}},
		{"end", string(AppendEndID(nil, "council-score")), "council-score/end", ID{Kind: IDEnd, Stream: "council-score"}},
		{"end of a channel", string(AppendEndID(nil, "a:1:2")), "a:1:2/end", ID{Kind: IDEnd, Stream: "a:1:2"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.text != c.want {
				t.Errorf("written %q", c.text)
			}
			id, err := ParseID(c.text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.id, id, cmp.AllowUnexported(Channel{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseIDRefuses(t *testing.T) {
	cases := []struct {
		name, text string
		want       *IDError
	}{
		{"empty", "", errIDSlash},
		{"zero", "0", errIDSlash},
		{"a number past 2^63", "9223372036854775808", errIDSlash},
		{"64 KiB", strings.Repeat("a", 1<<16), errIDLength},
		{"513 bytes", "a:1/=" + strings.Repeat("a", EventIDBytesMax-4), errIDLength},
		{"channel alone", "a:1", errIDSlash},
		{"no position", "a:1/", errIDEvent},
		{"bad channel", "a/e.1", errIDChannel},
		{"reserved channel", "__a:1/e.1", errIDChannel},
		{"wildcard", "a:*/e.1", errIDChannel},
		{"control byte in the channel", "a:\n1/e.1", errIDChannel},
		{"end of nothing", "/end", errIDStream},
		{"end with a bad byte", "a b/end", errIDStream},
		{"end of a long name", strings.Repeat("a", 256) + "/end", errIDStream},
		{"empty value", "a:1/=", errIDValue},
		{"value with LF", "a:1/=\n", errIDValue},
		{"value with NUL", "a:1/=\x00", errIDValue},
		{"value with DEL", "a:1/=\x7f", errIDValue},
		{"value with a control of Latin-1", "a:1/=\u0085", errIDValue},
		{"value not UTF-8", "a:1/=\xff", errIDValue},
		{"log without sequence", "a:1/1/2", errIDLog},
		{"log without horizon", "a:1/1-2", errIDEvent},
		{"log with empty horizon", "a:1/1-2/", errIDLog},
		{"log with more", "a:1/1-2/3/4", errIDLog},
		{"log with a sign", "a:1/1--2/3", errIDLog},
		{"log with a leading zero", "a:1/01-2/3", errIDLog},
		{"log past 2^64", "a:1/18446744073709551616-0/0", errIDLog},
		{"log far past 2^64", "a:1/1-99999999999999999999999/0", errIDLog},
		{"event without epoch", "a:1/.5", errIDEvent},
		{"event without number", "a:1/e.", errIDEvent},
		{"event with a leading zero", "a:1/e.01", errIDEvent},
		{"event with a sign", "a:1/e.+1", errIDEvent},
		{"event past 2^64", "a:1/e.18446744073709551616", errIDEvent},
		{"event with two dots", "a:1/e.1.2", errIDEvent},
		{"epoch with a bad byte", "a:1/e e.1", errIDEvent},
		{"epoch too long", "a:1/" + strings.Repeat("e", EpochBytesMax+1) + ".1", errIDEvent},
		{"END", "a:1/END", errIDEvent},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			id, err := ParseID(c.text)
			if !errors.Is(err, c.want) || !errors.Is(err, ErrBadID) || id != (ID{}) {
				t.Fatalf("%+v, %v", id, err)
			}
			if err.Error() != "bad event id: "+c.want.Problem {
				t.Errorf("%q", err.Error())
			}
		})
	}
}

func FuzzID(f *testing.F) {
	for _, seed := range []string{"a:1/e.1", "a:1:2/1-2/3", "a:1/=x/y", "s/end", "a:1/01-2/3", "a:*/e.1", "/", "a:1/=\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseID(text)
		if err != nil {
			return
		}
		var again []byte
		switch id.Kind {
		case IDEvent:
			again = AppendEventID(nil, id.Channel.Name(), id.Epoch, id.N)
		case IDLog:
			again = AppendLogID(nil, id.Channel.Name(), id.Milliseconds, id.Sequence, id.Horizon)
		case IDValue:
			again = AppendValueID(nil, id.Channel.Name(), id.Value)
		case IDEnd:
			again = AppendEndID(nil, id.Stream)
		}
		if string(again) != text {
			t.Fatalf("%q became %q", text, again)
		}
		if id.Kind != IDEnd {
			if _, err := NewEvent(id.Channel, text, []byte("1")); err != nil {
				t.Fatalf("%q is no id for an event: %v", text, err)
			}
		}
	})
}
