package main

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

const (
	// payloadType is the type of all events, and thereby their name on an event stream.
	payloadType = "tick"
	// publishers work side by side, each on channels of its own.
	publishers    = 4
	publisherTick = 10 * time.Millisecond
	// burstChance is how many percent of the events come in a burst, of at most burstMax.
	burstChance = 20
	burstMax    = 4
	closeTries  = 100
)

// due is a line of a publisher, and when it is published on next.
type due struct {
	line *line
	at   time.Time
}

// publisher writes numbers on some of the lines.
type publisher struct {
	plan   plan
	store  store
	lines  []*due
	random *rand.Rand
	middle time.Time // when lines that are late begin
}

// newPublishers share out the lines.
func newPublishers(p plan, l *ledger, s store) []*publisher {
	now := time.Now()
	all := make([]*publisher, publishers)
	for index := range all {
		all[index] = &publisher{
			plan: p, store: s, middle: now.Add(p.duration / 2), random: rand.New(rand.NewPCG(p.seed, uint64(index))),
		}
	}
	count := 0
	for m := range modeCount {
		for _, one := range l.lines[m] {
			mine := all[count%publishers]
			mine.lines = append(mine.lines, &due{line: one, at: now})
			count++
		}
	}
	return all
}

// run publishes until ctx ends.
func (p *publisher) run(ctx context.Context) {
	ticker := time.NewTicker(publisherTick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			p.turn(time.Now())
		}
	}
}

// turn publishes on all lines that it is time for, in one go.
func (p *publisher) turn(now time.Time) {
	var writes []write
	for _, one := range p.lines {
		if one.at.After(now) || one.line.late && now.Before(p.middle) {
			continue
		}
		count := 1
		if p.store.keepsOrder() && p.random.IntN(100) < burstChance {
			count += p.random.IntN(burstMax)
		}
		mean := p.plan.pause
		if one.line.loud {
			mean = p.plan.loudPause
		}
		one.at = now.Add(time.Duration(float64(mean) * float64(count) * (0.5 + p.random.Float64())))
		for range count {
			writes = append(writes, write{line: one.line, number: one.line.take()})
		}
		if one.line.blinking && p.random.IntN(3) == 0 {
			writes = append(writes, write{line: one.line})
		}
	}
	p.write(writes)
}

func (p *publisher) write(writes []write) (all bool) {
	if len(writes) == 0 {
		return true
	}
	all = true
	for index, err := range p.store.write(writes) {
		if one := writes[index]; err == nil && one.number > 0 {
			one.line.note(one.number, fateTold)
		}
		all = all && err == nil
	}
	return all
}

// finish publishes one last number on each line, and reports whether Redis acknowledged them all.
func (p *publisher) finish(ctx context.Context) bool {
	for _, one := range p.lines {
		done := false
		for try := 0; !done && try < closeTries && ctx.Err() == nil; try++ {
			number := one.line.take()
			done = p.write([]write{{line: one.line, number: number}})
			if done {
				one.line.closing.Store(number)
			}
		}
		if !done {
			return false
		}
	}
	return true
}

// first writes to all logs and states that have a key from the beginning.
func (p *publisher) first() bool {
	var writes []write
	for _, one := range p.lines {
		if !one.line.late {
			writes = append(writes, write{line: one.line, number: one.line.take()})
		}
	}
	return p.write(writes)
}

// each runs something on all publishers at once and waits.
func each(all []*publisher, do func(*publisher) bool) bool {
	good := make([]bool, len(all))
	var waiting sync.WaitGroup
	for index, one := range all {
		waiting.Go(func() { good[index] = do(one) })
	}
	waiting.Wait()
	for _, one := range good {
		if !one {
			return false
		}
	}
	return true
}

// write is one thing to write: a number on a line, or with none the end of its key.
type write struct {
	line   *line
	number uint32
}

// payload is the event that carries the number.
func (w write) payload() string {
	p := payload{Type: payloadType, Channel: w.line.name, Number: w.number, Padding: strings.Repeat("x", w.line.padding)}
	text, err := json.Marshal(p)
	if err != nil {
		panic(err) // texts and a number
	}
	return string(text)
}

// command is what a worker without any library of ours does.
func (w write) command(b rueidis.Builder) rueidis.Completed {
	switch {
	case w.number == 0:
		return b.Del().Key(w.line.name).Build()
	case w.line.mode == modeEvents:
		return b.Publish().Channel(w.line.name).Message(w.payload()).Build()
	case w.line.mode == modeLog && w.line.entriesMax > 0:
		return b.Xadd().Key(w.line.name).Maxlen().Almost().Threshold(strconv.Itoa(w.line.entriesMax)).Id("*").
			FieldValue().FieldValue("data", w.payload()).Build()
	case w.line.mode == modeLog:
		return b.Xadd().Key(w.line.name).Id("*").FieldValue().FieldValue("data", w.payload()).Build()
	default:
		return b.Set().Key(w.line.name).Value(w.payload()).Build()
	}
}
