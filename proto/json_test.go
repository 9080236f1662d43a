package proto

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// judge judges one whole JSON text as NewEvent does, UTF-8 aside.
func judge(text []byte) (position int, problem string) {
	start := skipSpace(text, 0)
	position, problem = skipValue(text, start, 0)
	w := walker{text: text, position: position, problem: problem}
	w.end()
	return w.position, w.problem
}

// jsonCases are texts that are JSON or nearly so.
var jsonCases = []struct {
	name, text string
	position   int
	problem    string
}{
	{"object", `{"a":[1,2.5e3,"x\u00e9\\",null,true,false,{}]}`, 46, problemNone},
	{"space around", " \t\r\n[ ] \n", 9, problemNone},
	{"zero", "-0", 2, problemNone},
	{"huge exponent", "1e400", 5, problemNone},
	{"fraction and exponent", "-1.25E+7", 8, problemNone},
	{"DEL in a string", "\"\x7f\"", 3, problemNone},
	{"lone surrogate escape", `"\ud800"`, 8, problemNone},
	{"every escape", `"\"\\\/\b\f\n\r\t\u0000"`, 24, problemNone},
	{"empty name", `{"":""}`, 7, problemNone},
	{"nothing", "", 0, problemEnd},
	{"space alone", "  ", 2, problemEnd},
	{"two values", "1 2", 2, problemTrailing},
	{"NUL behind", "1\x00", 1, problemTrailing},
	{"bracket behind", "[]]", 2, problemTrailing},
	{"byte order mark", "\ufeff1", 0, problemValue},
	{"raw tab in a string", "\"\t\"", 1, problemControl},
	{"raw LF in a long string", "\"0123456789\n\"", 11, problemControl},
	{"raw NUL in a name", "{\"\x00\":1}", 2, problemControl},
	{"unknown escape", `"\x"`, 2, problemEscape},
	{"short unicode escape", `"\u12"`, 5, problemEscape},
	{"unicode escape cut", `"\u12`, 5, problemEnd},
	{"escape cut", `"\`, 2, problemEnd},
	{"string cut", `"abc`, 4, problemEnd},
	{"leading zero", "01", 1, problemNumber},
	{"negative leading zero", "-01", 2, problemNumber},
	{"minus alone", "-", 1, problemEnd},
	{"minus and letter", "-a", 1, problemNumber},
	{"dot without digits", "1.", 2, problemEnd},
	{"dot and letter", "1.x", 2, problemNumber},
	{"exponent without digits", "1e", 2, problemEnd},
	{"signed exponent without digits", "1e+]", 3, problemNumber},
	{"plus", "+1", 0, problemValue},
	{"dot first", ".5", 0, problemValue},
	{"NaN", "NaN", 0, problemValue},
	{"nul", "nul", 3, problemEnd},
	{"nulx", "nulx", 0, problemLiteral},
	{"nullx", "nullx", 4, problemTrailing},
	{"truefalse", "truefalse", 4, problemTrailing},
	{"falsy", "falsy", 0, problemLiteral},
	{"comma last in a list", "[1,]", 3, problemValue},
	{"comma first in a list", "[,1]", 1, problemValue},
	{"comma last in an object", `{"a":1,}`, 7, problemKey},
	{"comma alone in an object", "{,}", 1, problemKey},
	{"list closed by a brace", "[1}", 2, problemCommaList},
	{"object closed by a bracket", `{"a":1]`, 6, problemCommaBrace},
	{"no comma in a list", "[1 2]", 3, problemCommaList},
	{"no comma in an object", `{"a":1 "b":2}`, 7, problemCommaBrace},
	{"no colon", `{"a" 1}`, 5, problemColon},
	{"no value", `{"a":}`, 5, problemValue},
	{"name is a number", `{1:2}`, 1, problemKey},
	{"list cut", "[1", 2, problemEnd},
	{"list cut at once", "[", 1, problemEnd},
	{"object cut behind name", `{"a"`, 4, problemEnd},
	{"object cut behind colon", `{"a":`, 5, problemEnd},
	{"object cut behind comma", `{"a":1,`, 7, problemEnd},
	{"comment", "[1] // x", 4, problemTrailing},
	{"single quotes", "'a'", 0, problemValue},
}

func TestJSON(t *testing.T) {
	for _, c := range jsonCases {
		t.Run(c.name, func(t *testing.T) {
			position, problem := judge([]byte(c.text))
			if position != c.position || problem != c.problem {
				t.Errorf("at %d %q, want at %d %q", position, problem, c.position, c.problem)
			}
			if valid := json.Valid([]byte(c.text)); valid != (problem == problemNone) {
				t.Errorf("encoding/json says %v", valid)
			}
		})
	}
}

func TestJSONDeep(t *testing.T) {
	for _, c := range []struct {
		open, middle, shut string
		inner              int // brackets in open
	}{{"[", "", "]", 1}, {`{"a":`, "1", "}", 1}, {`[{"a":[`, "", "]}]", 3}} {
		for _, depth := range []int{1, 20, 21, 22, 63, 64, 65, 128, 129, 3333, 9999, 10_000, 10_001, 100_000} {
			if depth%c.inner != 0 {
				continue
			}
			count := depth / c.inner
			text := []byte(strings.Repeat(c.open, count) + c.middle + strings.Repeat(c.shut, count))
			_, problem := judge(text)
			if want := depth <= jsonDepthMax; want != (problem == problemNone) || want != json.Valid(text) {
				t.Errorf("%q %d deep: %q", c.open, depth, problem)
			}
			if text[len(text)-1] ^= 0x20; depth <= jsonDepthMax { // ] and } differ in this bit
				if _, problem = judge(text); problem == problemNone {
					t.Errorf("%q %d deep, closed wrongly: taken", c.open, depth)
				}
			}
		}
	}
}

// TestJSONLinear holds hostile texts of a megabyte to a time that only a linear reader can meet.
func TestJSONLinear(t *testing.T) {
	const size = 1 << 20
	for name, text := range map[string]string{
		"opening brackets": strings.Repeat("[", size),
		"shallow pairs":    "[" + strings.Repeat("[],", size/3) + "0]",
		"one string":       `"` + strings.Repeat("a", size) + `"`,
		"escapes":          `"` + strings.Repeat(`\\`, size/2) + `"`,
		"spaces":           strings.Repeat(" ", size),
		"digits":           strings.Repeat("1", size),
		"same name":        `{"type":"a"` + strings.Repeat(`,"type":"a"`, size/11) + "}",
	} {
		start := time.Now()
		judge([]byte(text))
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: %v", name, took)
		}
	}
}

func TestAppendQuoted(t *testing.T) {
	cases := []struct{ name, text, want string }{
		{"empty", "", `""`},
		{"plain", "abc", `"abc"`},
		{"quote and backslash", `a"b\c`, `"a\"b\\c"`},
		{"line ends and tab", "a\r\n\tb", `"a\r\n\tb"`},
		{"controls", "\x00\x1f\x7f", "\"\\u0000\\u001f\x7f\""},
		{"not ASCII", "é€😀\u2028", "\"é€😀\u2028\""},
		{"not UTF-8", "a\xffb\xc3", `"a\ufffdb\ufffd"`},
		{"surrogate in UTF-8", "\xed\xa0\x80", `"\ufffd\ufffd\ufffd"`},
		{"the replacement itself", "\ufffd", "\"\ufffd\""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := string(appendQuoted([]byte("x"), c.text)); got != "x"+c.want {
				t.Errorf("%s", got)
			}
		})
	}
}

func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"a":[1,2.5e3,"x\u00e9\\",null,true,false,{}]}`))
	f.Add([]byte(`{"type":"a","type":"\u0062","timestamp":1e400}`))
	f.Add([]byte(`[[[[]]],{"":{}},"\ud83d\ude00\ud800\"",-0.5E-3]`))
	f.Add([]byte(`"0123456789abcdef` + "\x1f" + `"`))
	f.Add(progress)
	f.Fuzz(func(t *testing.T, text []byte) {
		position, problem := judge(text)
		if valid := json.Valid(text); valid != (problem == problemNone) {
			t.Fatalf("%q: encoding/json %v, we %q at %d", text, valid, problem, position)
		}
		if position < 0 || position > len(text) {
			t.Fatalf("%q: place %d", text, position)
		}
		if problem != problemNone || !utf8.Valid(text) {
			return
		}
		checkMembers(t, text)
		var want string
		if json.Unmarshal(text, &want) == nil && string(text) != "null" {
			trimmed := strings.Trim(string(text), " \t\r\n")
			if got, ok := stringValue([]byte(trimmed)); !ok || got != want {
				t.Fatalf("%q: string %q, want %q", text, got, want)
			}
			var again string
			if err := json.Unmarshal(appendQuoted(nil, want), &again); err != nil || again != want {
				t.Fatalf("%q: quoted and back: %q, %v", text, again, err)
			}
		}
	})
}

// checkMembers compares the walk over an object with encoding/json's, where the last wins too.
func checkMembers(t *testing.T, text []byte) {
	t.Helper()
	var want map[string]json.RawMessage
	if json.Unmarshal(text, &want) != nil || want == nil {
		return
	}
	got := map[string]string{}
	w := walkObject(text, 0)
	for w.next() {
		got[w.name()] = string(w.value.of(text))
	}
	if w.end(); w.problem != problemNone || len(got) != len(want) {
		t.Fatalf("%q: %d members, want %d; %q", text, len(got), len(want), w.problem)
	}
	for name, value := range want {
		if got[name] != string(value) {
			t.Fatalf("%q: member %q is %q, want %q", text, name, got[name], value)
		}
	}
}

// TestMembers: the members as they stand in the text, and whether it is one object.
func TestMembers(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want string // NAME=VALUE; of each member
		good bool
	}{
		"object":           {`{"a":1,"b":[2, 3]}`, `a=1;b=[2, 3];`, true},
		"space":            {" { \"a\" : \"x\" ,\n\"b\":{} } ", `a="x";b={};`, true},
		"empty":            {`{}`, ``, true},
		"escaped name":     {`{"\u0061":1}`, `\u0061=1;`, true},
		"name twice":       {`{"a":1,"a":2}`, `a=1;a=2;`, true},
		"text behind":      {`{"a":1}x`, `a=1;`, false},
		"cut":              {`{"a":1,"b":`, `a=1;`, false},
		"list":             {`[1]`, ``, false},
		"nothing":          {``, ``, false},
		"comma at the end": {`{"a":1,}`, `a=1;`, false},
	} {
		t.Run(name, func(t *testing.T) {
			var got strings.Builder
			good := Members([]byte(test.text), func(name, value []byte) {
				got.Write(name)
				got.WriteByte('=')
				got.Write(value)
				got.WriteByte(';')
			})
			if got.String() != test.want || good != test.good {
				t.Fatalf("got %s and %v, want %s and %v", got.String(), good, test.want, test.good)
			}
		})
	}
}
