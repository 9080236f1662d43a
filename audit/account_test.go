package main

import "testing"

// step is one thing that a client sees.
type step func(*account)

func connect(position bool) step {
	return func(a *account) {
		a.begin(position, false)
		a.confirm()
	}
}

// connectForAll asks for all that there is.
func connectForAll(a *account) {
	a.begin(false, true)
	a.confirm()
}

func numbers(all ...uint32) step {
	return func(a *account) {
		for _, number := range all {
			a.event(number)
		}
	}
}

func gap(a *account)    { a.gap("broker") }
func replay(a *account) { a.replay() }

// publish has Redis acknowledge all numbers up to and including last.
func publish(last uint32) step {
	return func(a *account) {
		for a.line.next.Load() <= last {
			a.line.note(a.line.take(), fateTold)
		}
	}
}

func doubt(a *account) { a.line.take() }

func TestAccount(t *testing.T) {
	cases := []struct {
		name  string
		mode  mode
		steps []step
		want  counts // of what is judged; the rest is not looked at
	}{
		{"all of it", modeEvents, []step{connect(false), publish(3), numbers(1, 2, 3)}, counts{expected: 3}},
		{"lost in silence", modeEvents, []step{connect(false), publish(3), numbers(1, 3)}, counts{expected: 3, missingSilent: 1}},
		{"lost in silence at the end", modeLog, []step{connect(false), publish(3), numbers(1, 2)}, counts{expected: 3, missingSilent: 1}},
		{"lost and declared", modeEvents, []step{connect(false), publish(4), numbers(1), gap, numbers(4)}, counts{expected: 4, missingDeclared: 2}},
		{"declared at the end", modeEvents, []step{connect(false), publish(3), numbers(1), gap}, counts{expected: 3, missingDeclared: 2}},
		{"a gap too early", modeEvents, []step{connect(false), publish(4), gap, numbers(1, 2, 4)}, counts{expected: 4, missingSilent: 1}},
		{"a gap too late", modeEvents, []step{connect(false), publish(4), numbers(1, 4), gap}, counts{expected: 4, missingSilent: 2}},
		{"twice", modeLog, []step{connect(false), publish(2), numbers(1, 1, 2)}, counts{expected: 2, duplicates: 1}},
		{"out of order", modeLog, []step{connect(false), publish(2), numbers(2, 1)}, counts{expected: 2, disorder: 1}},
		{"never published", modeEvents, []step{connect(false), publish(1), numbers(1, 2)}, counts{expected: 1, never: 1}},
		{"before it listened", modeEvents, []step{publish(2), connect(false), publish(3), numbers(3)}, counts{expected: 1}},
		{"away without a position", modeEvents, []step{connect(false), publish(1), numbers(1), publish(3), connect(false), publish(4), numbers(4)}, counts{expected: 2}},
		{"away with a position", modeLog, []step{connect(false), publish(1), numbers(1), publish(3), connect(true), numbers(3)}, counts{expected: 3, missingSilent: 1}},
		{"replayed again", modeLog, []step{connect(false), publish(3), numbers(1, 2), connect(true), numbers(2, 3), replay}, counts{expected: 3, repeats: 1}},
		{"again after the replay", modeLog, []step{connect(false), publish(3), numbers(1, 2), connect(true), replay, numbers(2, 3)}, counts{expected: 3, duplicates: 1}},
		{"elsewhere, which is a little behind", modeEvents, []step{connect(false), publish(3), numbers(1, 2, 3), connectForAll, numbers(1, 2), replay, numbers(3)}, counts{expected: 3, repeats: 3}},
		{"the same with a position", modeEvents, []step{connect(false), publish(3), numbers(1, 2, 3), connect(true), numbers(2), replay, numbers(3)}, counts{expected: 3, repeats: 1, duplicates: 1}},
		{"the same of a log", modeLog, []step{connect(false), publish(3), numbers(1, 2, 3), connectForAll, numbers(1, 2), replay, numbers(3)}, counts{expected: 3, repeats: 2, duplicates: 1}},
		{"replayed without being asked", modeLog, []step{connect(false), publish(1), numbers(1), replay}, counts{expected: 1, disorder: 1}},
		{"a publisher in doubt", modeEvents, []step{connect(false), publish(1), doubt, publish(3), numbers(1, 3)}, counts{expected: 2}},
		{"a state skips", modeState, []step{connect(false), publish(3), numbers(1, 3)}, counts{expected: 1}},
		{"a state that is not the last", modeState, []step{connect(false), publish(3), numbers(1, 2)}, counts{expected: 1, missingSilent: 1}},
		{"a state that is gone", modeState, []step{connect(false), publish(1), numbers(1), (*account).delete}, counts{expected: 1, missingSilent: 1}},
		{"a state goes back", modeState, []step{connect(false), publish(3), numbers(2, 1, 3)}, counts{expected: 1, disorder: 1, rewound: 1}},
		{"a state comes twice", modeState, []step{connect(false), publish(1), numbers(1, 1)}, counts{expected: 1, duplicates: 1}},
		{"a state again on another connection", modeState, []step{connect(false), publish(1), numbers(1), connect(false), numbers(1)}, counts{expected: 1}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			one := &account{line: &line{name: "x:1", mode: c.mode, fates: make([]fate, 1)}}
			one.line.next.Store(1)
			for _, do := range c.steps {
				do(one)
			}
			one.line.closing.Store(one.line.next.Load() - 1)
			one.judge(false)
			got := one.counts
			c.want.accounts, c.want.delivered, c.want.gaps, c.want.replays = got.accounts, got.delivered, got.gaps, got.replays
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			if (got.broken() > 0) != (one.fault != "") {
				t.Errorf("%d breaches, and the words %q", got.broken(), one.fault)
			}
		})
	}
}

// TestLedgerOfALog takes what Redis holds in the end for the truth.
func TestLedgerOfALog(t *testing.T) {
	one := &line{name: "log:1", mode: modeLog, fates: make([]fate, 1)}
	one.next.Store(1)
	for range 3 {
		one.take()
	}
	one.note(1, fateTold)
	one.note(2, fateTold)
	if err := one.settle([]uint32{1, 3}); err != nil {
		t.Fatal(err)
	}
	for number, want := range []fate{fateUnknown, fateHeld, fateGone, fateHeld} {
		if got := one.fates[number]; got != want {
			t.Errorf("%d is %s, want %s", number, got, want)
		}
	}
	if one.settle([]uint32{2, 1}) == nil {
		t.Error("a log in which the numbers fall was taken for good")
	}
}
