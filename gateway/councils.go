package gateway

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/council"
	"github.com/millrace/millrace/gateway/access"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/proto"
)

const (
	// councilEntryBytesMax bounds one entry of a council's log; it writes far smaller ones.
	councilEntryBytesMax = 256 << 10
	// councilReadsMax is how many logs of councils are read at once, for those who come later.
	councilReadsMax = 8
	// councilPiecesMax bounds how much of one log is read: far more than a council can say.
	councilPiecesMax = 64
	// councilPoll is how often a cancellation elsewhere is looked for.
	councilPoll = 100 * time.Millisecond
	// councilCloseTime is how long the ends of logs may take when the gateway ends.
	councilCloseTime = 2 * time.Second
	// councilNamesMax bounds the names in one word between gateways.
	councilNamesMax = 256
)

// councilsChannel is where gateways talk about councils.
var councilsChannel = func() proto.Channel {
	channel, err := proto.NewChannel(access.CouncilsType, "all", "")
	if err != nil {
		panic(err)
	}
	return channel
}()

// councilWord is what one gateway tells the others. Losing one does no harm: Seen comes again, and
// who cancels waits for the end.
type councilWord struct {
	Seen   []string `json:"seen,omitempty"`   // logs that have viewers
	Cancel string   `json:"cancel,omitempty"` // log of a council that its owner ends
}

// councils are the gateway's share of its councils: their logs in the broker, their viewers in the
// hub, and what gateways tell each other.
//
//	a viewer here, the council there:  follow ── seen, every few seconds ──► Councils.Seen
//	DELETE here, the council there:    cancel ─────────────────────────────► Councils.Cancel
//	the council's gateway is gone:     follow ── past its time, no end ── Councils.Finish, here
type councils struct {
	gateway *Gateway
	all     *council.Councils
	reads   chan struct{}

	listening sync.Once

	mutex     sync.Mutex
	followed  map[string]followed // logs that had a viewer here when last looked at, or soon will
	following bool                // keepFollowing runs
}

// followed is a council with a viewer here.
type followed struct {
	channel proto.Channel
	opening *council.Opening
	since   time.Time
}

func (g *Gateway) setUpCouncils(*heritage) error {
	c := &councils{gateway: g, reads: make(chan struct{}, councilReadsMax), followed: make(map[string]followed)}
	all, err := council.New(council.Options{
		Settings: g.options.Council, Timings: g.timings.council, Logger: g.logger,
		Callbacks: council.Callbacks{
			Append: c.append,
			Read: func(ctx context.Context, log string) (*council.Story, error) {
				story, _, err := c.read(ctx, log)
				return story, err
			},
			Watched: c.watched,
			Failed: func(model string, kind council.Kind, cause error) {
				g.reports.warn(g.logger, "a model of the council gave no answer", "model", model, "reason", kind.String(), "error", cause)
			},
		},
	})
	if err != nil {
		return err
	}
	c.all = all
	g.councils = c
	return nil
}

// watched reports whether somebody here follows the log of a council, or somebody elsewhere may: as
// long as Redis is away, nobody can say so.
func (c *councils) watched(log string) bool {
	channel, err := proto.ParseChannel(log)
	return err == nil && (c.gateway.hub.Wanted(channel) || !c.gateway.brokerHealth().Delivering)
}

// append writes entries to the log of a council.
func (c *councils) append(ctx context.Context, log string, entries [][]byte, keep time.Duration) error {
	messages := make([]broker.Message, len(entries))
	for i, entry := range entries {
		messages[i] = broker.Message{Channel: log, Payload: entry, Kind: broker.Log}
	}
	messages[len(messages)-1].Keep = keep
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	_, err := c.gateway.broker.Publish(ctx, messages)
	return err
}

// read folds the log of a council. at is where a viewer that has been told the story goes on: behind
// all of it but the end, which ends its stream.
func (c *councils) read(ctx context.Context, log string) (story *council.Story, at broker.Position, err error) {
	select {
	case c.reads <- struct{}{}:
		defer func() { <-c.reads }()
	case <-ctx.Done():
		return nil, at, ctx.Err()
	}
	story = &council.Story{}
	next := broker.Position{}
	for range councilPiecesMax {
		chunk, err := c.gateway.broker.ReadLog(ctx, log, next, broker.ReadLogMax)
		if err != nil {
			return nil, at, err
		}
		for _, entry := range chunk.Entries {
			story.Read(entry.Payload)
			next = entry.Position
			if story.Complete == nil {
				at = next
			}
		}
		if chunk.End || story.Complete != nil {
			break
		}
	}
	return story, at, nil
}

// listen hears what other gateways say of councils, from the first one on that is begun here.
func (c *councils) listen() {
	c.listening.Do(func() { c.gateway.hub.Listen(councilsChannel, c.hear) })
}

func (c *councils) hear(notice hub.Notice) {
	var word councilWord
	if json.Unmarshal(notice.Data, &word) != nil {
		return // a gap
	}
	for _, log := range word.Seen {
		c.all.Seen(log)
	}
	if word.Cancel != "" {
		c.all.Cancel(word.Cancel)
	}
}

// tell says a word to all gateways. An error is no harm: see councilWord.
func (c *councils) tell(ctx context.Context, word councilWord) {
	data, err := json.Marshal(word)
	if err != nil {
		panic(err) // of a type of our own: a defect
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	_, _ = c.gateway.broker.Publish(ctx, []broker.Message{{Channel: councilsChannel.Name(), Payload: data, Kind: broker.Plain}})
}

// follow says that somebody here is about to watch a council, and goes on saying so as long as
// somebody does.
func (c *councils) follow(ctx context.Context, channel proto.Channel, opening *council.Opening) {
	log := channel.Name()
	c.mutex.Lock()
	c.followed[log] = followed{channel: channel, opening: opening, since: time.Now()}
	begin := !c.following
	c.following = true
	c.mutex.Unlock()
	if begin {
		c.gateway.spawn(c.keepFollowing)
	}
	if !c.all.Runs(log) {
		c.tell(ctx, councilWord{Seen: []string{log}})
	}
}

// followAgain goes on following a council whose viewers came from another process.
func (c *councils) followAgain(ctx context.Context, channel proto.Channel) {
	story, _, err := c.read(ctx, channel.Name())
	if err != nil || story.Opening == nil {
		return // gone, or Redis is away: who runs it hears nothing of its viewers for now
	}
	c.follow(ctx, channel, story.Opening)
}

// keepFollowing looks after what is watched here, until nothing is.
func (c *councils) keepFollowing(ctx context.Context) {
	tick := time.NewTicker(c.gateway.timings.follow)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		elsewhere, lost, more := c.look(time.Now())
		for len(elsewhere) > 0 {
			count := min(len(elsewhere), councilNamesMax)
			c.tell(ctx, councilWord{Seen: elsewhere[:count]})
			elsewhere = elsewhere[count:]
		}
		for _, one := range lost {
			c.finish(ctx, one)
		}
		if !more {
			return
		}
	}
}

// look forgets what nobody here watches any more, and gives the logs of councils that run elsewhere
// and those that should be over.
func (c *councils) look(now time.Time) (elsewhere []string, lost []followed, more bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for log, one := range c.followed {
		// Who comes is followed a little before the hub knows.
		if !c.gateway.hub.Wanted(one.channel) && now.Sub(one.since) > c.gateway.timings.confirm {
			delete(c.followed, log)
			continue
		}
		if !c.all.Runs(log) {
			elsewhere = append(elsewhere, log)
			if (&council.Story{Opening: one.opening}).Lost(now) {
				lost = append(lost, one)
			}
		}
	}
	c.following = len(c.followed) > 0
	return elsewhere, lost, c.following
}

// finish completes a log that nobody else will, so that who watches it is not left waiting.
func (c *councils) finish(ctx context.Context, one followed) {
	story, _, err := c.read(ctx, one.channel.Name())
	if err != nil || story.Complete != nil {
		return // later, or not needed
	}
	if story.Opening == nil {
		story.Opening = one.opening // Redis lost the log
	}
	if err := c.all.Finish(ctx, one.channel.Name(), story); err != nil {
		c.gateway.reports.warn(c.gateway.logger, "a council whose gateway is gone could not be completed", "error", err)
	}
}

// cancel ends a council wherever it runs and waits until its log is complete.
func (c *councils) cancel(ctx context.Context, log string) error {
	if ended := c.all.Cancel(log); ended != nil {
		select {
		case <-ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	tick := time.NewTicker(councilPoll)
	defer tick.Stop()
	for told := false; ; told = true {
		story, _, err := c.read(ctx, log)
		switch {
		case err != nil:
			return err
		case story.Opening == nil:
			return errNoCouncil
		case story.Complete != nil:
			return nil
		case story.Lost(time.Now()):
			return c.all.Finish(ctx, log, story)
		case !told:
			c.tell(ctx, councilWord{Cancel: log})
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// drain lets councils come to their end as long as ctx allows, where their viewers can read on from
// another gateway.
func (c *councils) drain(ctx context.Context) {
	if c.gateway.options.Redis != "" {
		_ = c.all.Wait(ctx)
	}
}

// close ends all councils and their logs.
func (c *councils) close() {
	ctx, stop := context.WithTimeout(context.Background(), councilCloseTime)
	defer stop()
	c.all.Close(ctx)
}
