package proto

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// published is what a test wants to see of a [Publication].
type published struct{ Channel, Event string }

func seenPublications(all []Publication) (seen []published) {
	for _, one := range all {
		seen = append(seen, published{one.Channel.Name(), string(one.Event)})
	}
	return seen
}

func TestParsePublications(t *testing.T) {
	for _, c := range []struct {
		name, body string
		want       []published
	}{
		{"one", `{"channel":"a:1","event":{"n":1}}`, []published{{"a:1", `{"n":1}`}}},
		{"one in a list", `[{"channel":"a:1","event":1}]`, []published{{"a:1", `1`}}},
		{"white space about everything", " \n[ { \"channel\" : \"a:1\" , \"event\" : [ 1 ] } ]\t", []published{{"a:1", `[ 1 ]`}}},
		{"null is an event", `{"channel":"a:1","event":null}`, []published{{"a:1", `null`}}},
		{"the channel as an object", `{"event":"x","channel":{"type":"a","id":"1","userId":"u"}}`, []published{{"a:1:u", `"x"`}}},
		{"a wildcard, which the caller judges", `{"channel":"a:*","event":1}`, []published{{"a:*", `1`}}},
		{"names with escapes", `{"ch\u0061nnel":"\u0061:1","event":1}`, []published{{"a:1", `1`}}},
		{"members that are unknown", `{"ref":1,"channel":"a:1","event":1,"Event":2}`, []published{{"a:1", `1`}}},
		{"the last of two names alike", `{"channel":"a:1","channel":"a:2","event":1,"event":2}`, []published{{"a:2", `2`}}},
		{"as many as may be", `[{"channel":"a:1","event":1},{"channel":"a:2","event":2},{"channel":"a:1","event":3}]`, []published{{"a:1", `1`}, {"a:2", `2`}, {"a:1", `3`}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := []byte(c.body)
			got, err := ParsePublications(body, 3)
			if err != nil {
				t.Fatal(err)
			}
			clear(body) // nothing may refer to it
			if diff := cmp.Diff(c.want, seenPublications(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParsePublicationsRefuses(t *testing.T) {
	const good = `{"channel":"a:1","event":1}`
	for _, c := range []struct {
		name, body, message string
		is                  error // nil: none of the two
	}{
		{"nothing", "", "the body must be", nil},
		{"white space", " \n", "the body must be", nil},
		{"a string", `"a:1"`, "the body must be", nil},
		{"a list in a list", "[[" + good + "]]", "event 0: the body must be", nil},
		{"an empty list", "[ ]", "holds no event", nil},
		{"half an object", good[:20], "not JSON: the JSON text ends early at byte 20", nil},
		{"half a list", "[" + good + ",", "not JSON", nil},
		{"two values", good + good, "not JSON", nil},
		{"a list, and more", "[" + good + "] x", "not JSON", nil},
		{"not JSON behind a bad channel", `[{"channel":"b","event":1},{]`, "not JSON", nil},
		{"not UTF-8", "{\"channel\":\"a:1\",\"event\":\"\xff\"}", "not UTF-8 at byte 26", nil},
		{"no event", "[" + good + `,{"channel":"a:1"}]`, `event 1: "event" is missing`, nil},
		{"no channel", `{"event":1}`, `event 0: bad channel: "channel" is missing`, ErrBadChannel},
		{"a channel that is none", "[" + good + `,{"channel":"b","event":1}]`, "event 1: bad channel", ErrBadChannel},
		{"a channel that is a number", `{"channel":1,"event":1}`, "must be a string", ErrBadChannel},
		{"a channel that is null", `{"channel":null,"event":1}`, "must be a string", ErrBadChannel},
		{"one too many", "[" + good + strings.Repeat(","+good, 3) + "]", "4 are more than 3", ErrTooManyPublications},
		{"one too many, and one bad", `[{"channel":"b","event":1}` + strings.Repeat(","+good, 3) + "]", "4 are more than 3", ErrTooManyPublications},
	} {
		t.Run(c.name, func(t *testing.T) {
			all, err := ParsePublications([]byte(c.body), 3)
			if err == nil || all != nil {
				t.Fatalf("taken: %+v, %v", all, err)
			}
			if !strings.Contains(err.Error(), c.message) {
				t.Errorf("says %q", err)
			}
			for _, one := range []error{ErrBadChannel, ErrTooManyPublications} {
				if errors.Is(err, one) != (one == c.is) {
					t.Errorf("%q is %q: %v", err, one, one != c.is)
				}
			}
		})
	}
}

// TestParsePublicationsBounded: what stands behind too many events is not kept.
func TestParsePublicationsBounded(t *testing.T) {
	const one = `{"channel":"a:1","event":1}`
	body := []byte("[" + one + strings.Repeat(","+one, 10_000) + "]")
	allocations := testing.AllocsPerRun(10, func() {
		if _, err := ParsePublications(body, 100); !errors.Is(err, ErrTooManyPublications) {
			t.Error(err)
		}
	})
	if allocations > 230 {
		t.Errorf("%v allocations for 100 events of 10,001", allocations)
	}
}

func FuzzPublications(f *testing.F) {
	for _, seed := range []string{
		`{"channel":"a:1","event":{"a":[1,"\ud800"]}}`,
		`[{"channel":{"type":"b","id":"2","userId":"3"},"event":null},{"event":1,"channel":"a:\u0000"}]`,
		` [ {"channel":"a:*","event":-1e5,"event":2} ] `,
		`[[{}]]`,
	} {
		f.Add([]byte(seed), uint8(3))
	}
	f.Fuzz(func(t *testing.T, body []byte, most uint8) {
		all, err := ParsePublications(body, int(most)+1)
		if err != nil {
			if len(err.Error()) > 500 || !utf8.ValidString(err.Error()) {
				t.Fatalf("a long refusal: %q", err)
			}
			return
		}
		if !json.Valid(body) {
			t.Fatalf("%q taken", body)
		}
		// encoding/json folds the case of names, so the comparison is by maps.
		var objects []map[string]json.RawMessage
		if err := json.Unmarshal(body, &objects); err != nil {
			objects = make([]map[string]json.RawMessage, 1)
			if err := json.Unmarshal(body, &objects[0]); err != nil {
				t.Fatal(err)
			}
		}
		if len(all) != len(objects) || len(all) > int(most)+1 || len(all) == 0 {
			t.Fatalf("%q: %d events", body, len(all))
		}
		for i, one := range all {
			if string(one.Event) != string(objects[i]["event"]) {
				t.Fatalf("%q: event %d is %q", body, i, one.Event)
			}
			if again, err := ParseChannel(one.Channel.Name()); err != nil || again != one.Channel {
				t.Fatalf("%q: channel %v", body, one.Channel)
			}
		}
	})
}
