// Package channels is how the example workers speak on Millrace's channels: three verbs to
// publish, one for each mode of a channel, and one to read a state. [Redis] does them with plain
// commands, PUBLISH, XADD, SET and MGET, which is all that any worker needs; in `millrace serve
// --demo`, where the workers live in the gateway's own process, the gateway does them.
//
// Nothing here is needed to publish: the workers in python/ and node/ do without it.
package channels

import (
	"context"
	"log/slog"
	"regexp"
	"sync"
	"time"
)

// Publisher tells events to whoever listens. Each event is marshalled with encoding/json. Methods
// are safe for use by many goroutines; an error means that the event may not have arrived.
type Publisher interface {
	// Publish tells a fleeting event, on a channel of mode events (PUBLISH).
	Publish(ctx context.Context, channel string, event any) error
	// Append adds an entry to a channel of mode log (XADD).
	Append(ctx context.Context, channel string, event any) error
	// Set gives a channel of mode state its newest value (SET).
	Set(ctx context.Context, channel string, value any) error
}

// Reader reads what states hold.
type Reader interface {
	// Get gives the value of each channel, in their order, nil for one that has none. Values must
	// not be changed and may be kept. It is safe for use by many goroutines.
	Get(ctx context.Context, channels ...string) ([][]byte, error)
}

// Broker is both.
type Broker interface {
	Publisher
	Reader
}

// Index is the state that lists what there is of a kind: campaign_metrics:index and jobs:index.
// A page reads it to know which channels to ask for.
type Index struct {
	Type string   `json:"type"` // "index"
	IDs  []string `json:"ids"`
}

// IndexID is the id of an index; nothing that an index lists may have it.
const IndexID = "index"

// NewIndex makes an index of ids, which it copies.
func NewIndex(ids []string) Index {
	return Index{Type: "index", IDs: append([]string{}, ids...)}
}

// idPattern is what the id in a channel's name may be.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9_.@=|+-]{1,128}$`)

// IsID says whether text can be the id in a channel's name, and is none that means something else.
func IsID(text string) bool { return idPattern.MatchString(text) && text != IndexID }

// Timestamp writes the time of an event as the pages and the gateway read it.
func Timestamp(now time.Time) string { return now.UTC().Format("2006-01-02T15:04:05.000Z07:00") }

// Pauses between two tries of [Insist].
const (
	insistPauseMin = 100 * time.Millisecond
	insistPauseMax = 2 * time.Second
)

// Insist repeats an attempt to publish until it succeeds, ctx is done or patience is over, with
// pauses that double from 0.1 s to 2 s, and gives the last error. It is for what nothing later
// replaces, such as the end of a job; an event may then arrive twice.
func Insist(ctx context.Context, patience time.Duration, attempt func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for pause := insistPauseMin; ; pause = min(2*pause, insistPauseMax) {
		err := attempt(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// complaintPause is the least time between two lines of [Complaints].
const complaintPause = 10 * time.Second

// Complaints logs failures that may come many times a second, a line each 10 s at most. It is safe
// for use by many goroutines.
type Complaints struct {
	logger *slog.Logger

	mutex   sync.Mutex // guards what follows
	last    time.Time
	omitted int // since the last line
}

// NewComplaints makes one that writes to logger.
func NewComplaints(logger *slog.Logger) *Complaints { return &Complaints{logger: logger} }

// Add tells a failure. A nil error is none, and so is what fails because ctx is done.
func (c *Complaints) Add(ctx context.Context, what string, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	now := time.Now()
	if now.Sub(c.last) < complaintPause {
		c.omitted++
		return
	}
	c.logger.Warn(what, "error", err, "omitted", c.omitted)
	c.last, c.omitted = now, 0
}
