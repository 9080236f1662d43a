package council

import (
	"context"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/polltest"
)

// Each rubric prefers, of two texts, the one that is better by its own measure.
func TestRubricsMeasure(t *testing.T) {
	good := "Our shoes weigh 180 grams. We tested them on 40 roads in Norway, and you can run 900 kilometres in a pair.\n" +
		"Order a pair from Oslo today. Send it back within 30 days if it does not fit."
	for _, test := range []struct {
		name   string
		judge  func(*measured) opinion
		worse  string
		advice string // that the worse one gets
	}{
		{"clarity", judgeClarity, "Notwithstanding the aforementioned considerations regarding operationalization of infrastructural capabilities, organizations " +
			"endeavouring to institutionalize transformational methodologies should nevertheless contemplate comprehensive implementation of multidimensional frameworks.", "long"},
		{"concreteness", judgeConcreteness, "we have various innovative solutions of quality for several things and many robust seamless stuff.", "Nothing here can be checked"},
		{"tone", judgeTone, "AMAZING!!! The BEST, most INCREDIBLE, revolutionary shoes EVER! Guaranteed! Buy NOW!!!", "shouts"},
		{"structure", judgeStructure, "shoes", "Nobody is told what to do next"},
	} {
		better, worse := test.judge(measure(good)), test.judge(measure(test.worse))
		if better.score < worse.score+0.25 {
			t.Errorf("%s: %.2f for the good text, %.2f for the bad one", test.name, better.score, worse.score)
		}
		if !strings.Contains(worse.says, test.advice) || strings.Contains(better.says, test.advice) {
			t.Errorf("%s says %q of the bad text, %q of the good one", test.name, worse.says, better.says)
		}
	}
}

func TestRubricsTakeAnything(t *testing.T) {
	for _, text := range []string{"", "...", "!", "\x00", "5", "日本語のテキスト。", strings.Repeat("word ", 10_000), strings.Repeat("A", 10_000), "I. A! 3? \n\n\n"} {
		for _, one := range demoJudges(0) {
			var s speech
			err := one.asker.ask(context.Background(), text, func(piece string) { s.add(piece) })
			if v, ok := s.end(); err != nil || !ok || *v.score < 0 || *v.score > 1 || v.reason == "" || len(s.ready) < 10 {
				t.Errorf("%s of %.20q: %v, %+v, %q", one.Name, text, err, v, s.ready)
			}
		}
	}
}

func TestDemoCouncil(t *testing.T) {
	c, kept := begin(t, Settings{}, quick)
	polltest.Eventually(t, "the council is complete", func() bool { return kept.story(logName).Complete != nil })
	o := readOutcome(t, c, kept, "tone")
	if opening := kept.story(logName).Opening; !opening.Demo || len(opening.Models) != 4 {
		t.Errorf("%+v", opening)
	}
	if len(o.end.Scores) != 4 || o.score == nil || !strings.Contains(o.text, "exclamation marks") {
		t.Errorf("%q, %+v", o.text, o.end)
	}
}

// panicky is a judge whose answer makes the program panic.
type panicky struct{}

func (panicky) ask(_ context.Context, prompt string, say func(string)) error {
	say("Hello")
	panic(prompt)
}

// A panic is the failure of one model: the others go on, and nothing of it is told but that.
func TestPanicOfAModel(t *testing.T) {
	kept := newShelf()
	c := newCouncils(t, Settings{}, quick, kept)
	c.judges = append(c.judges, judge{Model: Model{"bad", "Bad"}, asker: panicky{}})
	if _, err := c.Begin(t.Context(), logName, "user 1", testPrompt); err != nil {
		t.Fatal(err)
	}
	polltest.Eventually(t, "the council is complete", func() bool { return kept.story(logName).Complete != nil })
	o := readOutcome(t, c, kept, "bad")
	if o.text != "Hello" || o.entry.Error != errPanicked.Error() || len(o.end.Scores) != 4 {
		t.Errorf("%+v", o)
	}
	polltest.Eventually(t, "it is over", func() bool { return !c.Runs(logName) })
}
