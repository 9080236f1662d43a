package council

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestRate(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	for _, test := range []struct {
		name    string
		offsets []time.Duration // of the asks of one user
		waits   []time.Duration
	}{
		{"three at once, then one each 20 s", []time.Duration{0, 0, 0, 0, 20 * time.Second, 20 * time.Second}, []time.Duration{0, 0, 0, 20 * time.Second, 0, 20 * time.Second}},
		{"slowly, for ever", []time.Duration{0, 20 * time.Second, 40 * time.Second, time.Minute, 80 * time.Second}, []time.Duration{0, 0, 0, 0, 0}},
		{"a refusal costs nothing", []time.Duration{0, 0, 0, 0, 0, 0, 19 * time.Second}, []time.Duration{0, 0, 0, 20 * time.Second, 20 * time.Second, 20 * time.Second, time.Second}},
		{"a clock that goes back", []time.Duration{0, -time.Second}, []time.Duration{0, 0}},
	} {
		l := newRateLimit(3)
		for index, offset := range test.offsets {
			if wait := l.take("user", start.Add(offset)); wait != test.waits[index] {
				t.Errorf("%s: ask %d waits %v, want %v", test.name, index, wait, test.waits[index])
			}
			if wait := l.take(fmt.Sprint("another", index), start.Add(offset)); wait != 0 {
				t.Errorf("%s: another user waits %v", test.name, wait)
			}
		}
	}
}

func TestRateForgets(t *testing.T) {
	l := newRateLimit(1)
	start := time.Unix(1_000_000, 0)
	for index := range limitKeysMax + 10 {
		if wait := l.take(fmt.Sprint(index), start); wait > 0 != (index > limitKeysMax) {
			t.Fatalf("user %d waits %v", index, wait)
		}
	}
	if len(l.paid) > limitKeysMax+1 {
		t.Errorf("%d users are remembered", len(l.paid))
	}
	l.take("late", start.Add(3*time.Minute))
	if len(l.paid) != 1 {
		t.Errorf("%d users are remembered after three minutes", len(l.paid))
	}
}

func TestBeginIsRefused(t *testing.T) {
	d := dialects[0]
	u := serveUpstream(t, d, func() answer { return answer{hang: true} })
	s := settingsFor(u.URL, d)
	s.MaxCouncils, s.MaxPerUser, s.PerMinute, s.MaxPromptBytes = 4, 2, 3, 100
	kept := newShelf()
	c := newCouncils(t, s, quick, kept)
	for index, test := range []struct {
		name   string
		user   string
		prompt string
		reason Reason
		wait   bool
		good   bool
	}{
		{name: "empty", user: "1", prompt: " \n", reason: BadPrompt},
		{name: "not UTF-8", user: "1", prompt: "a\xff", reason: BadPrompt},
		{name: "long", user: "1", prompt: strings.Repeat("x", 101), reason: PromptTooLong},
		{name: "the first", user: "1", prompt: testPrompt, good: true},
		{name: "the second", user: "1", prompt: testPrompt, good: true},
		{name: "too many of one", user: "1", prompt: testPrompt, reason: TooManyOfUser, wait: true},
		{name: "another user's", user: "2", prompt: testPrompt, good: true},
		{name: "the fourth", user: "", prompt: testPrompt, good: true},
		{name: "the fifth", user: "3", prompt: testPrompt, reason: TooMany, wait: true},
		{name: "still too many of one", user: "1", prompt: testPrompt, reason: TooManyOfUser, wait: true},
	} {
		_, err := c.Begin(context.Background(), fmt.Sprint("council:", index), test.user, test.prompt)
		var refused *Refusal
		switch {
		case test.good && err != nil, !test.good && !errors.As(err, &refused):
			t.Errorf("%s: the error is %v", test.name, err)
		case !test.good && (refused.Reason != test.reason || refused.Wait > 0 != test.wait || strings.Contains(refused.Message, testPrompt)):
			t.Errorf("%s: %+v", test.name, refused)
		}
	}
	<-c.Cancel("council:3")
	if _, err := c.Begin(context.Background(), "council:again", "1", testPrompt); err != nil {
		t.Errorf("after one was cancelled: %v", err)
	}
	<-c.Cancel("council:4")
	var refused *Refusal
	if _, err := c.Begin(context.Background(), "council:often", "1", testPrompt); !errors.As(err, &refused) || refused.Reason != TooOften || refused.Wait <= 0 || refused.Wait > 20*time.Second {
		t.Errorf("the fourth in a minute: %v", err)
	}
	c.Close(context.Background())
	if _, err := c.Begin(context.Background(), "council:late", "4", testPrompt); !errors.As(err, &refused) || refused.Reason != Closing {
		t.Errorf("after the end: %v", err)
	}
}
