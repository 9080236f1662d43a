package main

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
)

// mode is that of a channel.
type mode uint8

const (
	modeEvents mode = iota
	modeLog
	modeState
	modeCount
)

func (m mode) String() string { return [...]string{"events", "log", "state"}[m] }

// fate is what became of one number.
type fate uint8

const (
	fateUnknown fate = iota // written, but not answered
	fateTold                // Redis acknowledged it
	fateHeld                // Redis holds it in the end, in a log
	fateGone                // Redis acknowledged it, and does not hold it in the end
)

// line is one channel and what was published on it: the numbers 1, 2, 3 and so on.
type line struct {
	name     string
	mode     mode
	loud     bool
	padding  int  // bytes that make an event larger
	late     bool // has no key before the middle of the run
	blinking bool // is deleted now and then
	// entriesMax is how many entries of a log Redis keeps at least, 0: all of them.
	entriesMax int

	next    atomic.Uint32 // the number that will be published next
	closing atomic.Uint32 // the last number that is sure to be acknowledged; 0 before the end

	mutex sync.Mutex
	fates []fate // by number
}

// ledger is all channels.
type ledger struct {
	lines  [modeCount][]*line
	byName map[string]*line
}

func newLedger(p plan) *ledger {
	channels := p.channels
	l := &ledger{byName: make(map[string]*line)}
	for m := range modeCount {
		for number := range channels {
			one := &line{name: m.String() + ":" + strconv.Itoa(number), mode: m, entriesMax: p.entriesMax, fates: make([]fate, 1)}
			if one.loud = number < loudChannels; one.loud {
				one.padding = loudBytes
			}
			one.late = !one.loud && number < loudChannels+lateChannels
			one.blinking = m == modeState && number >= channels-min(blinkingStates, channels/4)
			one.next.Store(1)
			l.lines[m] = append(l.lines[m], one)
			l.byName[one.name] = one
		}
	}
	return l
}

// take gives the number to publish next: from here on it counts as published.
func (l *line) take() uint32 {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.fates = append(l.fates, fateUnknown)
	return l.next.Add(1) - 1
}

// note keeps what became of a number.
func (l *line) note(number uint32, f fate) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.fates[number] = f
}

// published is how many numbers Redis acknowledged, or holds.
func (l *line) published() int {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	count := 0
	for _, f := range l.fates {
		if f != fateUnknown {
			count++
		}
	}
	return count
}

// settle replaces what was acknowledged on a log by what Redis holds: numbers, in its order.
func (l *line) settle(held []uint32) error {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for number, f := range l.fates {
		if f == fateTold {
			l.fates[number] = fateGone
		}
	}
	last := uint32(0)
	for _, number := range held {
		if number <= last || int(number) >= len(l.fates) {
			return fmt.Errorf("%s holds %d behind %d: the publisher did not write in order", l.name, number, last)
		}
		l.fates[number], last = fateHeld, number
	}
	return nil
}

// due reports whether everybody who listens must get the number, or be told of a gap.
func (l *line) due(number uint32) bool { return l.fates[number] != fateUnknown }
