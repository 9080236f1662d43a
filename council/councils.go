package council

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Callbacks is how councils reach their logs and viewers. All must be set, and safe for many
// goroutines.
type Callbacks struct {
	// Append adds entries, in order, all or none, to the log of that name. With keep, the log is
	// gone so long after. It may wait as long as ctx.
	Append func(ctx context.Context, log string, entries [][]byte, keep time.Duration) error
	// Read gives what a log holds by now.
	Read func(ctx context.Context, log string) (*Story, error)
	// Watched reports whether somebody here follows a log. It must be quick.
	Watched func(log string) bool
	// Failed is told of a model that gave no answer, for the operator: cause never holds a key, a
	// prompt or an answer.
	Failed func(model string, kind Kind, cause error)
}

// Timings are how long a council waits for what. The zero value of each takes the promised one.
type Timings struct {
	// Turn is the time between two appends of one council: 50 ms.
	Turn time.Duration
	// Unwatched is how long a council goes on when nobody watches it: 15 s.
	Unwatched time.Duration
	// Pace is the time between two words of the demo council: 45 ms; negative: none.
	Pace time.Duration
}

const (
	turnTime      = 50 * time.Millisecond
	unwatchedTime = 15 * time.Second
	// appendPatience is for how long after its deadline a council tries to append what it has.
	appendPatience = 20 * time.Second
	// Kept is how long the log of a council is there after its end.
	Kept = 10 * time.Minute
)

// Options says what councils are made of.
type Options struct {
	Settings  Settings
	Callbacks Callbacks
	Timings   Timings
	Logger    *slog.Logger // nil: slog.Default()
}

// Councils begins, cancels and counts the councils of this process.
type Councils struct {
	settings  Settings
	callbacks Callbacks
	timings   Timings
	logger    *slog.Logger
	client    *http.Client
	judges    []judge
	demo      bool
	limit     *rateLimit

	begun    atomic.Uint64
	outcomes [KindCount]atomic.Uint64

	mutex  sync.Mutex
	closed bool
	runs   map[string]*run // by log
	users  map[string]int  // councils that run, by user
	work   sync.WaitGroup
}

// New makes councils. The error is that of [Settings.Validate].
func New(options Options) (*Councils, error) {
	if err := options.Settings.Validate(); err != nil {
		return nil, err
	}
	c := &Councils{
		settings: options.Settings.completed(), callbacks: options.Callbacks, timings: options.Timings, logger: options.Logger,
		runs: make(map[string]*run), users: make(map[string]int),
	}
	if c.logger == nil {
		c.logger = slog.Default()
	}
	orDefault(&c.timings.Turn, turnTime)
	orDefault(&c.timings.Unwatched, unwatchedTime)
	orDefault(&c.timings.Pace, demoPace)
	c.limit = newRateLimit(c.settings.PerMinute)
	c.client = newClient()
	if c.judges = judgesOf(&c.settings, c.client); len(c.judges) == 0 {
		c.judges, c.demo = demoJudges(max(c.timings.Pace, 0)), true
	}
	return c, nil
}

// Reason is why a council was not begun.
type Reason uint8

// The reasons.
const (
	BadPrompt     Reason = iota // empty, or not UTF-8
	PromptTooLong               // more than Settings.MaxPromptBytes
	TooOften                    // more than Settings.PerMinute
	TooManyOfUser               // more than Settings.MaxPerUser
	TooMany                     // more than Settings.MaxCouncils
	Closing                     // the gateway is ending
)

// Refusal says why a council was not begun, and when to try again.
type Refusal struct {
	Reason  Reason
	Message string
	Wait    time.Duration // 0: trying again is of no use, or nobody knows when it is
}

// Error gives the message, which holds nothing of the prompt.
func (r *Refusal) Error() string { return r.Message }

// NewID makes an id that nobody can guess, of 26 letters and digits.
func NewID() string {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(random[:]))
}

// PromptBytesMax is the longest prompt that is taken, in bytes.
func (c *Councils) PromptBytesMax() int { return c.settings.MaxPromptBytes }

// Begin begins a council on prompt, whose log is to be called log, for a user: whoever is to be
// counted together, "" included. When it returns nil the log holds the opening, which is returned,
// and the models are being asked. Errors are [*Refusal]s, or that of Callbacks.Append.
func (c *Councils) Begin(ctx context.Context, log, user, prompt string) (*Opening, error) {
	now := time.Now()
	if err := c.checkPrompt(prompt); err != nil {
		return nil, err
	}
	r, err := c.enter(log, user, now)
	if err != nil {
		return nil, err
	}
	opening := &Opening{Demo: c.demo, Ends: now.Add(c.settings.Deadline).UnixMilli()}
	for _, one := range c.judges {
		opening.Models = append(opening.Models, one.Model)
	}
	first := [][]byte{encode(entry{Council: opening})}
	if err := c.callbacks.Append(ctx, log, first, c.settings.Deadline+lostAfter+Kept); err != nil {
		r.cancel(errCancelled)
		c.leave(r)
		return nil, err
	}
	c.begun.Add(1)
	r.begin(prompt)
	return opening, nil
}

func (c *Councils) checkPrompt(prompt string) error {
	switch {
	case strings.TrimSpace(prompt) == "":
		return &Refusal{Reason: BadPrompt, Message: "there is no text to judge: give it as prompt"}
	case len(prompt) > c.settings.MaxPromptBytes:
		return &Refusal{Reason: PromptTooLong, Message: fmt.Sprintf("the prompt has %d bytes, at most %d are possible", len(prompt), c.settings.MaxPromptBytes)}
	case !utf8.ValidString(prompt):
		return &Refusal{Reason: BadPrompt, Message: "the prompt is not UTF-8"}
	}
	return nil
}

// enter takes a place for a run, within all bounds.
func (c *Councils) enter(log, user string, now time.Time) (*run, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	const soon = 5 * time.Second
	switch {
	case c.closed:
		return nil, &Refusal{Reason: Closing, Message: "this gateway is going; try again"}
	case c.users[user] >= c.settings.MaxPerUser:
		return nil, &Refusal{Reason: TooManyOfUser, Message: fmt.Sprintf("you have %d councils at once, which is the most; wait for one, or cancel it", c.settings.MaxPerUser), Wait: soon}
	case len(c.runs) >= c.settings.MaxCouncils:
		return nil, &Refusal{Reason: TooMany, Message: "this gateway holds as many councils as it can; try again", Wait: soon}
	}
	if wait := c.limit.take(user, now); wait > 0 {
		return nil, &Refusal{Reason: TooOften, Message: fmt.Sprintf("more councils than %d a minute; slow down", c.settings.PerMinute), Wait: wait}
	}
	r := newRun(c, log, user, now)
	c.runs[log] = r
	c.users[user]++
	c.work.Add(1)
	return r, nil
}

// leave ends what is left of a run and gives its place back.
func (c *Councils) leave(r *run) {
	r.cancel(nil)
	r.models.Wait()
	r.free()
	r.quit()
	c.mutex.Lock()
	delete(c.runs, r.log)
	if c.users[r.user]--; c.users[r.user] == 0 {
		delete(c.users, r.user)
	}
	c.mutex.Unlock()
	close(r.ended)
	c.work.Done()
}

func (c *Councils) find(log string) *run {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.runs[log]
}

// Runs reports whether the council with that log runs in this process.
func (c *Councils) Runs(log string) bool { return c.find(log) != nil }

// Seen says that the council with that log is watched somewhere, if it runs here.
func (c *Councils) Seen(log string) {
	if r := c.find(log); r != nil {
		r.seen(time.Now())
	}
}

// Cancel ends a council that runs here: its requests are ended at once, and when ended is closed its
// log is complete. Nil: none with that log runs here.
func (c *Councils) Cancel(log string) (ended <-chan struct{}) {
	r := c.find(log)
	if r == nil {
		return nil
	}
	r.cancel(errCancelled)
	return r.ended
}

// Finish completes the log of a council whose gateway is gone ([Story.Lost]). Two that do so at the
// same time do no harm: what stands behind the end is never read.
func (c *Councils) Finish(ctx context.Context, log string, story *Story) error {
	return c.callbacks.Append(ctx, log, story.finish(), Kept)
}

// Close ends all councils, in order as long as ctx allows, and waits for them. None begins after it.
func (c *Councils) Close(ctx context.Context) {
	c.mutex.Lock()
	c.closed = true
	for _, r := range c.runs {
		r.abandon(ctx)
	}
	c.mutex.Unlock()
	c.work.Wait()
	c.client.CloseIdleConnections()
}

// Wait waits until no council runs or ctx is done.
func (c *Councils) Wait(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if c.Stats().Running == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Stats is what councils count.
type Stats struct {
	Running int
	Begun   uint64
	// Outcomes counts models by how they ended.
	Outcomes [KindCount]uint64
	Demo     bool
}

// Stats gives a copy of the counters.
func (c *Councils) Stats() Stats {
	s := Stats{Begun: c.begun.Load(), Demo: c.demo}
	for kind := range s.Outcomes {
		s.Outcomes[kind] = c.outcomes[kind].Load()
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	s.Running = len(c.runs)
	return s
}

// ended counts how a model ended, and tells the operator of what only he can mend.
func (c *Councils) ended(model string, kind Kind, cause error) {
	c.outcomes[kind].Add(1)
	switch kind {
	case Scored, NoScore, TooLong, Declined, Stopped:
	default:
		c.callbacks.Failed(model, kind, cause)
	}
}

var errPanicked = errors.New("a defect of this program")
