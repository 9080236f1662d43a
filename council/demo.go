package council

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"
)

// opinion is what a rubric thinks of a text.
type opinion struct {
	says   string // sentences
	score  float64
	reason string
}

// rubric is a judge that asks nobody: it measures the text and says what it found.
type rubric struct {
	judge func(*measured) opinion
	pace  time.Duration // between two words, so that one can watch it speak; 0: none
}

// demoPace is about as fast as a model speaks.
const demoPace = 45 * time.Millisecond

// demoJudges are the council of a gateway that no provider knows.
func demoJudges(pace time.Duration) (judges []judge) {
	for _, one := range []struct {
		name, label string
		judge       func(*measured) opinion
	}{
		{"clarity", "Clarity", judgeClarity},
		{"concreteness", "Concreteness", judgeConcreteness},
		{"tone", "Tone", judgeTone},
		{"structure", "Structure", judgeStructure},
	} {
		judges = append(judges, judge{Model: Model{one.name, one.label}, asker: &rubric{judge: one.judge, pace: pace}})
	}
	return judges
}

func (r *rubric) ask(ctx context.Context, prompt string, say func(string)) error {
	found := r.judge(measure(prompt))
	speak := time.NewTimer(0)
	defer speak.Stop()
	for word := range strings.SplitAfterSeq(found.says, " ") {
		if r.pace > 0 {
			speak.Reset(r.pace/2 + rand.N(r.pace))
			select {
			case <-speak.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		say(word)
	}
	score := rounded(min(max(found.score, 0), 1))
	say("\n" + string(encode(struct {
		Score  float64 `json:"score"`
		Reason string  `json:"reason"`
	}{score, found.reason})))
	return nil
}
