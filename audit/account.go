package main

import (
	"fmt"
	"strconv"
	"strings"
)

// account is what one client saw of one channel. It belongs to its client, whose mutex guards it.
type account struct {
	line *line
	// webSocket says that the client hears of each channel by itself when it is confirmed. An event
	// stream hears once for all: until then what comes is early, and no harm.
	webSocket bool

	// Of the client, over all its connections.
	seen     bits
	declared bits   // inside of a gap
	excused  bits   // published while the client did not listen, and had no position to go on from
	high     uint32 // the highest number seen
	heard    bool   // was confirmed once
	gapOpen  bool   // a gap was declared, and no number came since
	id       string // the last id on a WebSocket: where to go on

	// Of the connection.
	confirmed bool   // the client was told that it hears the channel
	position  bool   // it named a position
	asked     bool   // it named one, or the beginning
	resumes   bool   // it named a position from which nothing may be missing
	replayed  bool   // what it had missed was sent
	last      uint32 // the last number on it
	floor     uint32 // the highest number seen before it
	deleted   bool   // the last that was heard of a state is that it is gone

	counts counts
	fault  string   // the first breach of a promise, in words
	trail  []string // what happened last before it
}

// trailMax bounds what is kept of what happened.
const trailMax = 24

// tread notes what happened.
func (a *account) tread(what string) {
	if a.fault != "" {
		return
	}
	if len(a.trail) == trailMax {
		a.trail = append(a.trail[:0], a.trail[1:]...)
	}
	a.trail = append(a.trail, what)
}

// counts is what happened to one client on one channel, or to many together.
type counts struct {
	accounts, expected, delivered  int
	missingDeclared, missingSilent int
	duplicates, disorder           int
	gaps, repeats, replays         int
	early, rewound, never          int
}

// broken is how many promises were broken.
func (c *counts) broken() int { return c.missingSilent + c.duplicates + c.disorder + c.never }

// begin follows when the client connects. position says that it names one for the channel,
// beginning that it asks for all that there is: of a log that is all, of events what is remembered.
func (a *account) begin(position, beginning bool) {
	a.tread("connect")
	if position {
		a.tread("with a position")
	}
	a.position, a.asked = position, position || beginning
	a.resumes = position || beginning && a.line.mode == modeLog
	a.confirmed, a.replayed, a.last, a.floor, a.deleted = false, false, 0, a.high, false
}

// confirm follows when the client was told that it hears the channel.
func (a *account) confirm() {
	if a.confirmed {
		return
	}
	a.confirmed = true
	a.tread("confirmed")
	first := !a.heard
	a.heard = true
	// A position that another channel gave, before this one was ever confirmed, owes nothing older.
	if a.line.mode == modeState || a.resumes && !(first && a.position) {
		return
	}
	a.gapOpen = false
	a.excused.addRange(a.floor+1, a.line.next.Load()-1)
}

// event follows when a number came.
func (a *account) event(number uint32) {
	a.tread(strconv.FormatUint(uint64(number), 10))
	switch {
	case number == 0 || number >= a.line.next.Load():
		a.counts.never++
		a.blame("%d came and was never published", number)
		return
	case !a.confirmed && !a.webSocket:
		a.counts.early++
	case !a.confirmed:
		a.counts.disorder++
		a.blame("%d came before the subscription was confirmed", number)
	}
	a.deleted = false
	if a.line.mode == modeState {
		a.value(number)
		return
	}
	before := a.last
	if before == 0 {
		before = a.high
	}
	known := a.seen.has(number)
	switch {
	case a.last > 0 && number <= a.last && known:
		a.counts.duplicates++
		a.blame("%d came again behind %d", number, a.last)
		return
	case a.last > 0 && number <= a.last:
		a.counts.disorder++
		a.blame("%d came behind %d", number, a.last)
	case known && a.replayed && a.line.mode == modeEvents && !a.position:
		a.counts.repeats++ // this gateway heard of it a moment later than the one that the client came from
	case known && a.replayed:
		a.counts.duplicates++
		a.blame("%d came again after all was replayed", number)
	case known:
		a.counts.repeats++
	default:
		a.counts.delivered++
	}
	if a.gapOpen && number > before {
		a.declared.addRange(before+1, number-1)
	}
	a.gapOpen = false
	a.seen.add(number)
	a.last, a.high = max(a.last, number), max(a.high, number)
}

// value is event for a state.
func (a *account) value(number uint32) {
	switch {
	case number == a.last:
		a.counts.duplicates++
		a.blame("the value %d came twice", number)
	case number < a.last:
		a.counts.rewound++
	}
	a.counts.delivered++
	a.last, a.high = number, max(a.high, number)
}

// gap follows when the gateway said that something may be missing.
func (a *account) gap(reason string) {
	a.tread("gap " + reason)
	a.counts.gaps++
	a.gapOpen = true
}

// replay follows when the gateway said that what had been missed was sent.
func (a *account) replay() {
	a.tread("replayed")
	a.counts.replays++
	if !a.confirmed || !a.asked || a.replayed {
		a.counts.disorder++
		a.blame("replayed was said out of place")
	}
	a.replayed = true
}

// delete follows when the gateway said that a state is gone.
func (a *account) delete() {
	a.tread("deleted")
	a.deleted = true
}

// settled reports whether the client is where the channel ended.
func (a *account) settled() bool {
	closing := a.line.closing.Load()
	switch {
	case closing == 0 || !a.confirmed:
		return false
	case a.line.mode == modeState:
		return a.last == closing && !a.deleted
	default:
		return a.seen.has(closing) || a.gapOpen
	}
}

// judge counts what is missing, once nothing comes any more. rewinds says that Redis itself may
// have gone back.
func (a *account) judge(rewinds bool) {
	a.counts.accounts = 1
	closing := a.line.closing.Load()
	if a.line.mode == modeState {
		a.counts.expected = 1
		if a.last != closing || a.deleted {
			a.counts.missingSilent++
			a.blame("the last value is %d, not %d", a.last, closing)
		}
		if !rewinds && a.counts.rewound > 0 {
			a.counts.disorder += a.counts.rewound
			a.blame("a value went back")
		}
		return
	}
	if a.gapOpen {
		a.declared.addRange(a.high+1, closing)
	}
	for number := uint32(1); number <= closing; number++ {
		if !a.line.due(number) {
			continue
		}
		switch {
		case a.seen.has(number):
			a.counts.expected++
		case a.excused.has(number):
			// nobody promised it
		case a.declared.has(number):
			a.counts.expected++
			a.counts.missingDeclared++
		default:
			a.counts.expected++
			a.counts.missingSilent++
			a.blame("%d is missing, and no gap was declared (%s)", number, a.line.fates[number])
		}
	}
}

func (f fate) String() string {
	return [...]string{"not acknowledged", "acknowledged", "in the log", "not in the log any more"}[f]
}

// blame keeps the first breach in words.
func (a *account) blame(format string, arguments ...any) {
	if a.fault == "" {
		a.fault = a.line.name + ": " + fmt.Sprintf(format, arguments...) + "; it saw: " + strings.Join(a.trail, ", ")
	}
}

// add sums up.
func (c *counts) add(other *counts) {
	c.accounts += other.accounts
	c.expected += other.expected
	c.delivered += other.delivered
	c.missingDeclared += other.missingDeclared
	c.missingSilent += other.missingSilent
	c.duplicates += other.duplicates
	c.disorder += other.disorder
	c.gaps += other.gaps
	c.repeats += other.repeats
	c.replays += other.replays
	c.early += other.early
	c.rewound += other.rewound
	c.never += other.never
}
