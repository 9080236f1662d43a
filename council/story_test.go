package council

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestStory(t *testing.T) {
	opening := `{"council":{"models":[{"model":"a","label":"A"},{"model":"b","label":"B"}],"demo":false,"ends":1000}}`
	end := `{"type":"complete","scores":{"a":1}}`
	for _, test := range []struct {
		name     string
		entries  []string
		events   []string
		complete bool
	}{
		{"nothing", nil, nil, false},
		{"no opening", []string{`{"model":"a","chunk":"x"}`}, nil, false},
		{"only begun", []string{opening}, nil, false},
		{
			"in the middle",
			[]string{opening, `{"model":"b","chunk":"<x "}`, `{"model":"a","chunk":"1"}`, `{"model":"b","chunk":"\"y>\n"}`, `{"model":"b","score":0.5,"reason":"r"}`},
			[]string{`{"model":"a","text":"1"}`, `{"model":"b","text":"<x \"y>\n"}`, `{"model":"b","score":0.5,"reason":"r"}`},
			false,
		},
		{"failed without a word", []string{opening, `{"model":"a","error":"no"}`, end}, []string{`{"model":"a","error":"no"}`}, true},
		{
			"what is not a council's",
			[]string{opening, `{"model":"c","chunk":"x"}`, `7`, `not JSON`, `{"model":"a","chunk":"x"}`, opening, end, `{"model":"a","chunk":"behind the end"}`},
			[]string{`{"model":"a","text":"x"}`},
			true,
		},
	} {
		var s Story
		for _, one := range test.entries {
			s.Read([]byte(one))
		}
		var events []string
		for _, event := range s.Events() {
			events = append(events, string(event))
		}
		if fmt.Sprint(events) != fmt.Sprint(test.events) || (s.Complete != nil) != test.complete || s.Entries != len(test.entries) {
			t.Errorf("%s: events %v, complete %s, %d entries", test.name, events, s.Complete, s.Entries)
		}
	}
}

func TestStoryIsBounded(t *testing.T) {
	var s Story
	s.Read([]byte(`{"council":{"models":[{"model":"a","label":"A"}]}}`))
	for range 100 {
		s.Read([]byte(`{"model":"a","chunk":"` + strings.Repeat("x", 10_000) + `"}`))
	}
	if size := len(s.Events()[0]); size > textBytesMax+100 {
		t.Errorf("the text has %d bytes", size)
	}
}

func TestLostCouncilIsFinished(t *testing.T) {
	kept := newShelf()
	c := newCouncils(t, Settings{}, quick, kept)
	kept.logs[logName] = [][]byte{
		[]byte(`{"council":{"models":[{"model":"a","label":"A"},{"model":"b","label":"B"}],"ends":1000}}`),
		[]byte(`{"model":"a","score":0.5,"reason":"r"}`),
		[]byte(`{"model":"b","chunk":"I wou"}`),
	}
	story := kept.story(logName)
	for at, want := range map[int64]bool{0: false, 1000: false, 1000 + lostAfter.Milliseconds(): false, 1001 + lostAfter.Milliseconds(): true} {
		if story.Lost(time.UnixMilli(at)) != want {
			t.Errorf("lost at %d: %v", at, !want)
		}
	}
	if err := c.Finish(t.Context(), logName, story); err != nil {
		t.Fatal(err)
	}
	o := readOutcome(t, c, kept, "b")
	if o.entry.Error != errLost.Error() || o.end.Scores["a"] != 0.5 || o.end.Errors["b"] != errLost.Error() || len(o.end.Errors) != 1 {
		t.Errorf("%+v, complete %+v", o.entry, o.end)
	}
	if story := kept.story(logName); story.Lost(time.Now()) || story.Complete == nil || kept.kept[logName] != Kept {
		t.Errorf("%+v, kept for %v", story, kept.kept[logName])
	}
}

func TestMembers(t *testing.T) {
	o := Opening{Models: []Model{{"a", "A <1>"}}, Demo: true}
	if got := string(o.Members("x1")); got != `"councilId":"x1","models":[{"model":"a","label":"A <1>"}],"demo":true` {
		t.Error(got)
	}
}
