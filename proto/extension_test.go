package proto

import (
	"net/http"
	"strings"
	"testing"
)

func TestNegotiateDeflate(t *testing.T) {
	const accepted = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	for _, c := range []struct {
		name   string
		values []string
		want   string
	}{
		{"none", nil, ""},
		{"an empty header", []string{""}, ""},
		{"the bare offer", []string{"permessage-deflate"}, accepted},
		{"what browsers send", []string{"permessage-deflate; client_max_window_bits"}, accepted},
		{"all parameters", []string{"permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15; client_max_window_bits=15"}, accepted + "; server_max_window_bits=15"},
		{"a value in quotes", []string{`permessage-deflate;client_max_window_bits="1\0"`}, accepted},
		{"without spaces", []string{"permessage-deflate;client_no_context_takeover"}, accepted},
		{"with many", []string{" permessage-deflate \t;  client_max_window_bits = 9 "}, accepted},
		{"empty elements", []string{", ,permessage-deflate,"}, accepted},
		{"another extension", []string{"x-webkit-deflate-frame"}, ""},
		{"behind another extension", []string{`foo; bar="baz", permessage-deflate`}, accepted},
		{"in a second header", []string{"foo", "permessage-deflate"}, accepted},
		{"a name is told apart by its case", []string{"Permessage-Deflate"}, ""},
		{"the second offer, the first being declined", []string{"permessage-deflate; server_max_window_bits=10, permessage-deflate"}, accepted},
		{"a smaller window of ours", []string{"permessage-deflate; server_max_window_bits=14"}, ""},
		{"a window of ours without a size", []string{"permessage-deflate; server_max_window_bits"}, ""},
		{"a leading zero", []string{"permessage-deflate; server_max_window_bits=015"}, ""},
		{"the smallest window of the client's", []string{"permessage-deflate; client_max_window_bits=8"}, accepted},
		{"too small a window of the client's", []string{"permessage-deflate; client_max_window_bits=7"}, ""},
		{"too large a window of the client's", []string{"permessage-deflate; client_max_window_bits=16"}, ""},
		{"a window of the client's with a leading zero", []string{"permessage-deflate; client_max_window_bits=08"}, ""},
		{"a value where none is allowed", []string{"permessage-deflate; server_no_context_takeover=1"}, ""},
		{"the same on the other side", []string{"permessage-deflate; client_no_context_takeover=true"}, ""},
		{"a parameter twice", []string{"permessage-deflate; client_max_window_bits; client_max_window_bits=10"}, ""},
		{"an unknown parameter", []string{"permessage-deflate; window"}, ""},
	} {
		got, failure := NegotiateDeflate(c.values)
		if failure != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", c.name, got, failure, c.want)
		}
	}
	for _, malformed := range []string{
		"permessage-deflate;", "permessage-deflate; =1", "permessage-deflate x", "per(message", "permessage-deflate; client_max_window_bits=",
		`permessage-deflate; client_max_window_bits="10`, `permessage-deflate; client_max_window_bits=""`, `foo; bar="b z"`, `foo; bar="\ "`,
		"permessage-deflate=15", ";permessage-deflate",
	} {
		answer, failure := NegotiateDeflate([]string{malformed})
		if failure == nil || failure.Status != http.StatusBadRequest || answer != "" {
			t.Errorf("%q was answered %q, %v", malformed, answer, failure)
		}
	}
}

// FuzzNegotiateDeflate: whatever comes, an answer names one of what may be answered.
func FuzzNegotiateDeflate(f *testing.F) {
	f.Add("permessage-deflate; client_max_window_bits")
	f.Add(`foo; bar="baz", permessage-deflate; server_max_window_bits=10,permessage-deflate;server_max_window_bits="15"`)
	f.Add(strings.Repeat(",", 1000))
	f.Fuzz(func(t *testing.T, value string) {
		const accepted = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
		answer, failure := NegotiateDeflate([]string{value})
		switch strings.TrimSuffix(answer, "; server_max_window_bits=15") {
		case accepted:
			if failure != nil || !strings.Contains(value, "permessage-deflate") {
				t.Fatalf("%q was answered %q, %v", value, answer, failure)
			}
		case "":
		default:
			t.Fatalf("%q was answered %q", value, answer)
		}
	})
}
