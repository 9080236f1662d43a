package council

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/polltest"
)

// outcome is what one council told of one model.
type outcome struct {
	text  string
	score *float64
	entry entry // the verdict
	end   complete
	kind  Kind
}

const logName = "council:x:1"

// quick are timings for tests.
var quick = Timings{Turn: 5 * time.Millisecond, Pace: -1}

// begin makes councils on a shelf and begins one.
func begin(t *testing.T, s Settings, timings Timings) (*Councils, *shelf) {
	t.Helper()
	kept := newShelf()
	c := newCouncils(t, s, timings, kept)
	if _, err := c.Begin(context.Background(), logName, "user 1", testPrompt); err != nil {
		t.Fatal(err)
	}
	return c, kept
}

func newCouncils(t *testing.T, s Settings, timings Timings, kept *shelf) *Councils {
	t.Helper()
	c, err := New(Options{Settings: s, Timings: timings, Callbacks: kept.callbacks()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		over, stop := context.WithCancel(context.Background())
		stop()
		c.Close(over)
	})
	return c
}

// hold holds a council of one model to its end.
func hold(t *testing.T, s Settings, model string) outcome {
	t.Helper()
	c, kept := begin(t, s, quick)
	polltest.Eventually(t, "the council is complete", func() bool { return kept.story(logName).Complete != nil })
	polltest.Eventually(t, "the council is counted out", func() bool { return c.Stats().Running == 0 })
	for _, written := range kept.entries(logName) {
		for _, secret := range []string{testKey, testPrompt} {
			if strings.Contains(string(written), secret) {
				t.Errorf("an entry holds %q: %s", secret, written)
			}
		}
	}
	for _, cause := range kept.causes {
		if cause != nil && (strings.Contains(cause.Error(), testKey) || strings.Contains(cause.Error(), testPrompt)) {
			t.Errorf("an error holds a secret: %v", cause)
		}
	}
	return readOutcome(t, c, kept, model)
}

func readOutcome(t *testing.T, c *Councils, kept *shelf, model string) (o outcome) {
	t.Helper()
	for index, written := range kept.entries(logName) {
		var e entry
		if err := json.Unmarshal(written, &e); err != nil {
			t.Fatalf("entry %d is %s", index, written)
		}
		switch {
		case IsComplete(written):
			if err := json.Unmarshal(written, &o.end); err != nil {
				t.Fatal(err)
			}
		case e.Model == model && e.Chunk != "":
			o.text += e.Chunk
		case e.Model == model:
			o.entry, o.score = e, e.Score
		}
	}
	for kind, count := range c.Stats().Outcomes {
		if count > 0 {
			o.kind = Kind(kind)
		}
	}
	return o
}

func TestProvidersAreUnderstood(t *testing.T) {
	const said = "Clear, but “dry”: 12 €.\nUse less\tof it."
	for _, d := range dialects {
		var whole string
		for part := range strings.SplitAfterSeq(said+"\n"+verdictLine(0.78, "It is dry."), " ") {
			whole += d.say(part)
		}
		noisy := ": OK\n\n" + d.junk + strings.ReplaceAll(whole, "\n\n", "\n\n: keep-alive\n\n") + d.junk + d.end
		for _, how := range []struct {
			name   string
			answer answer
		}{
			{"all at once", answer{body: whole + d.end}},
			{"split at every byte", answer{body: whole + d.end, piece: 1}},
			{"with comments and events that say nothing", answer{body: noisy, piece: 7}},
			{"split at every byte, with comments", answer{body: noisy, piece: 1}},
			{"and silence behind its end", answer{body: whole + d.end, hang: true}},
		} {
			t.Run(d.name+" "+how.name, func(t *testing.T) {
				t.Parallel()
				u := serveUpstream(t, d, func() answer { return how.answer })
				o := hold(t, settingsFor(u.URL, d), d.name)
				if o.text != said+"\n" || o.score == nil || *o.score != 0.78 || o.entry.Reason != "It is dry." {
					t.Errorf("text %q, verdict %+v", o.text, o.entry)
				}
				_, timed := o.end.Times[d.name]
				if o.kind != Scored || o.end.Scores[d.name] != 0.78 || *o.end.Mean != 0.78 || *o.end.Spread != 0 || !timed || len(o.end.Errors) > 0 {
					t.Errorf("%v, complete %+v", o.kind, o.end)
				}
			})
		}
	}
}

func TestProvidersFail(t *testing.T) {
	retryDate := time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	for _, d := range dialects {
		hello := d.say("Hello")
		for _, test := range []struct {
			name   string
			answer answer
			kind   Kind
			words  string // in the model's error
			text   string
		}{
			{"429, in seconds", answer{status: 429, header: map[string]string{"Retry-After": "30"}, body: `{"error":{"type":"rate_limit_error","message":"` + testKey + `"}}`}, RateLimited, "(429 rate_limit_error); try again in 30s", ""},
			{"429, with a date", answer{status: 429, header: map[string]string{"Retry-After": retryDate}}, RateLimited, "try again in ", ""},
			{"429, and no word", answer{status: 429, header: map[string]string{"Retry-After": "soon"}, body: "slow down " + testKey}, RateLimited, "(429); try again later", ""},
			{"401, with the key in the words", answer{status: 401, body: `{"error":{"message":"Incorrect API key provided: ` + testKey + `","type":"invalid_request_error","code":"invalid_api_key"}}`}, KeyRefused, "key (401 invalid_api_key)", ""},
			{"403, the key as the type", answer{status: 403, body: `{"error":{"type":"` + testKey + `"}}`}, KeyRefused, "key (403)", ""},
			{"404", answer{status: 404, body: `[{"error":{"code":404,"message":"no such model","status":"NOT_FOUND"}}]`}, Refused, "request (404 NOT_FOUND)", ""},
			{"503", answer{status: 503, body: "<html>"}, Failed, "failed (503)", ""},
			{"a redirect", answer{status: 307, header: map[string]string{"Location": "/elsewhere"}}, Refused, "(307)", ""},
			{"an error in the middle", answer{body: hello + d.fail}, Failed, "in the middle of its answer (", "Hello"},
			{"an end too early", answer{body: hello}, BrokenOff, "broke off", "Hello"},
			{"an end within an event", answer{body: hello + hello[:len(hello)-3]}, BrokenOff, "broke off", "Hello"},
			{"a cut", answer{body: hello, cut: true}, Unreachable, "connection was lost", "Hello"},
			{"an answer that is none", answer{body: hello + d.lost}, Declined, "would not", "Hello"},
			{"malformed JSON", answer{body: hello + "data: {\"choices\":[{\"delta\"\n\n"}, BadFormat, "protocol", "Hello"},
			{"a page", answer{body: "<html><body>hello</body></html>"}, BrokenOff, "broke off", ""},
			{"1 MB without a line end", answer{body: hello + "data: " + strings.Repeat("x", 1<<20)}, BadFormat, "more than 262144 bytes", "Hello"},
			{"silence", answer{hang: true}, TimedOut, "within 2s", ""},
			{"silence in the middle", answer{body: hello, hang: true}, TimedOut, "within 2s", "Hello"},
			{"no verdict", answer{body: hello + d.end}, NoScore, "gave no score", "Hello"},
			{"a score that is a text", answer{body: d.say("\n{\"score\":\"0.5\"}") + d.end}, NoScore, "gave no score", "\n{\"score\":\"0.5\"}"},
		} {
			t.Run(d.name+" "+test.name, func(t *testing.T) {
				t.Parallel()
				u := serveUpstream(t, d, func() answer { return test.answer })
				s := settingsFor(u.URL, d)
				if test.kind == TimedOut {
					d.settings(&s).Timeout = 2 * time.Second
				}
				o := hold(t, s, d.name)
				if o.kind != test.kind || !strings.Contains(o.entry.Error, test.words) || o.score != nil {
					t.Errorf("%v, verdict %+v; want %v, %q", o.kind, o.entry, test.kind, test.words)
				}
				if o.text != test.text && test.kind != Unreachable {
					t.Errorf("text %.100q, want %q", o.text, test.text)
				}
				if o.end.Errors[d.name] != o.entry.Error || len(o.end.Scores) != 0 || o.end.Mean != nil || o.end.Spread != nil {
					t.Errorf("complete %+v", o.end)
				}
				if u.asked.Load() != 1 {
					t.Errorf("asked %d times", u.asked.Load())
				}
			})
		}
	}
}

func TestUnreachable(t *testing.T) {
	d := dialects[0]
	o := hold(t, settingsFor("http://127.0.0.1:1", d), d.name)
	if o.kind != Unreachable || !strings.Contains(o.entry.Error, "could not be reached") || strings.Contains(o.entry.Error, "127.0.0.1") {
		t.Errorf("%v, %q", o.kind, o.entry.Error)
	}
}

func TestTooMuchIsSaid(t *testing.T) {
	d := dialects[0]
	body := strings.Repeat(d.say(strings.Repeat("é", 512)), 200)
	u := serveUpstream(t, d, func() answer { return answer{body: body, hang: true} })
	o := hold(t, settingsFor(u.URL, d), d.name)
	if o.kind != TooLong || len(o.text) > textBytesMax || len(o.text) < textBytesMax-1024 || strings.Trim(o.text, "é") != "" {
		t.Errorf("%v, %d bytes: %q", o.kind, len(o.text), o.entry.Error)
	}
	polltest.Eventually(t, "the request has ended", func() bool { return u.open.Load() == 0 })
}

// One model's failure is its own: the others go on.
func TestTheOthersGoOn(t *testing.T) {
	var s Settings
	for _, d := range dialects {
		answers := answer{body: d.say(d.name+" says so.\n"+verdictLine(0.5, "so")) + d.end, piece: 11}
		switch d.name {
		case "gpt":
			answers = answer{status: 500}
		case "gemini":
			answers = answer{body: d.say("I think\n"+verdictLine(0.9, "good")) + d.end}
		}
		u := serveUpstream(t, d, func() answer { return answers })
		*d.settings(&s) = Provider{Key: testKey, Model: "a-model", BaseURL: u.URL + "/v1/"}
	}
	c, kept := begin(t, s, quick)
	polltest.Eventually(t, "the council is complete", func() bool { return kept.story(logName).Complete != nil })
	o := readOutcome(t, c, kept, "claude")
	if o.text != "claude says so.\n" || len(o.end.Scores) != 3 || len(o.end.Errors) != 1 || len(o.end.Times) != 4 || o.end.Errors["gpt"] == "" {
		t.Errorf("text %q, complete %+v", o.text, o.end)
	}
	if *o.end.Mean != 0.6333 || *o.end.Spread != 0.4 {
		t.Errorf("mean %v, spread %v", *o.end.Mean, *o.end.Spread)
	}
	opening := kept.story(logName).Opening
	want := []Model{{"gemini", "Gemini"}, {"claude", "Claude"}, {"gpt", "GPT"}, {"perplexity", "Perplexity"}}
	for index, model := range opening.Models {
		if model != want[index] {
			t.Errorf("model %d is %v, want %v", index, model, want[index])
		}
	}
	if opening.Demo || kept.kept[logName] != Kept {
		t.Errorf("demo %v, kept for %v", opening.Demo, kept.kept[logName])
	}
}

// Every end ends the requests that are open, and says why to each model.
func TestEnds(t *testing.T) {
	d := dialects[0]
	for _, test := range []struct {
		name      string
		timings   Timings
		deadline  time.Duration
		end       func(c *Councils, kept *shelf)
		want      error
		kind      Kind
		cancelled bool
	}{
		{"cancelled", quick, 0, func(c *Councils, _ *shelf) { <-c.Cancel(logName) }, errCancelled, Stopped, true},
		{"unwatched", Timings{Turn: quick.Turn, Unwatched: 200 * time.Millisecond}, 0, func(_ *Councils, kept *shelf) { kept.watch(false) }, errUnwatched, Stopped, false},
		{"deadline", quick, 2 * time.Second, func(*Councils, *shelf) {}, errDeadline, TimedOut, false},
		{"closing", quick, 0, func(c *Councils, _ *shelf) { c.Close(context.Background()) }, errClosing, Stopped, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			u := serveUpstream(t, d, func() answer { return answer{body: d.say("I would "), hang: true} })
			s := settingsFor(u.URL, d)
			s.Deadline = test.deadline
			c, kept := begin(t, s, test.timings)
			polltest.Eventually(t, "the model speaks", func() bool { return len(kept.entries(logName)) > 1 || kept.story(logName).Complete != nil })
			test.end(c, kept)
			polltest.Eventually(t, "the council is complete", func() bool { return kept.story(logName).Complete != nil })
			polltest.Eventually(t, "the upstream sees its request end", func() bool { return u.gone.Load() == 1 })
			o := readOutcome(t, c, kept, d.name)
			if o.entry.Error != test.want.Error() || o.kind != test.kind || o.end.Cancelled != test.cancelled {
				t.Errorf("%+v, %v, complete %+v", o.entry, o.kind, o.end)
			}
			polltest.Eventually(t, "it is gone", func() bool { return !c.Runs(logName) })
			if c.Cancel(logName) != nil {
				t.Error("a council that is over was cancelled")
			}
		})
	}
}

// Who watches elsewhere keeps a council going, as long as it is said.
func TestWatchedElsewhere(t *testing.T) {
	t.Parallel()
	d := dialects[0]
	u := serveUpstream(t, d, func() answer { return answer{hang: true} })
	kept := newShelf()
	kept.watched = false
	c := newCouncils(t, settingsFor(u.URL, d), Timings{Turn: quick.Turn, Unwatched: 2 * time.Second}, kept)
	if _, err := c.Begin(context.Background(), logName, "user 1", testPrompt); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	polltest.Until(4*time.Second, func() bool {
		c.Seen(logName)
		c.Seen("council:another")
		return false
	})
	if !c.Runs(logName) {
		t.Fatalf("it ended while it was watched, after %v", time.Since(begun))
	}
	polltest.Eventually(t, "it ends unwatched", func() bool { return !c.Runs(logName) })
}

// What cannot be appended is tried again, and nothing of it comes twice or not at all.
func TestAppendsFail(t *testing.T) {
	d := dialects[0]
	away := errors.New("away")
	for _, test := range []struct {
		name   string
		broken func(attempt int) (bool, error)
	}{
		{"not carried out", func(attempt int) (bool, error) { return attempt%2 == 1, away }},
		{"carried out, but the answer is lost", func(attempt int) (bool, error) {
			if attempt%2 == 0 {
				return true, away
			}
			return true, nil
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var body, want string
			for index := range 30 {
				word := strings.Repeat(string(rune('a'+index%26)), 5) + " "
				body, want = body+d.say(word), want+word
			}
			u := serveUpstream(t, d, func() answer { return answer{body: body + d.say("\n"+verdictLine(1, "yes")) + d.end, piece: 20} })
			kept := newShelf()
			kept.broken = func(attempt int) (bool, error) {
				carriedOut, err := test.broken(attempt)
				if carriedOut && attempt%2 == 1 {
					err = nil
				}
				return carriedOut, err
			}
			c := newCouncils(t, settingsFor(u.URL, d), quick, kept)
			if _, err := c.Begin(context.Background(), logName, "user 1", testPrompt); err != nil {
				t.Fatal(err)
			}
			polltest.Eventually(t, "it is over", func() bool { return !c.Runs(logName) })
			if o := readOutcome(t, c, kept, d.name); o.text != want+"\n" || o.score == nil {
				t.Errorf("text %q, want %q; %+v", o.text, want, o.entry)
			}
			if entries := kept.entries(logName); !IsComplete(entries[len(entries)-1]) || IsComplete(entries[len(entries)-2]) {
				t.Errorf("the log ends with %s", entries[len(entries)-2:])
			}
		})
	}
}

func TestABeginThatCannotAppend(t *testing.T) {
	away := errors.New("away")
	kept := newShelf()
	kept.broken = func(int) (bool, error) { return false, away }
	c := newCouncils(t, Settings{}, quick, kept)
	if _, err := c.Begin(context.Background(), logName, "user 1", testPrompt); !errors.Is(err, away) {
		t.Fatalf("the error is %v", err)
	}
	if s := c.Stats(); s.Running != 0 || s.Begun != 0 {
		t.Errorf("%+v", s)
	}
}
