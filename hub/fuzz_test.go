package hub

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/millrace/millrace/proto"
)

// period is one time that a stream was subscribed to a channel, in the model.
type period struct {
	channel string
	events  []int // published while it lasted and was confirmed
	closed  bool
}

// modelStream is a plain picture of a stream.
type modelStream struct {
	*stream
	open    map[string]*period
	periods []*period
}

// model is a plain picture of the hub: what everybody should have heard.
type model struct {
	h         *harness
	streams   []*modelStream
	confirmed map[string]bool
	answered  map[string]int // edges that the broker had been told when it last confirmed
	published int
}

const modelChannels = 4

func (m *model) wanted(channel string) bool {
	for _, one := range m.streams {
		if one.open[channel] != nil {
			return true
		}
	}
	return false
}

// step carries one operation out on the hub and on the model.
func (m *model) step(operation, argument byte) {
	one := m.streams[int(argument)%len(m.streams)]
	channel := fmt.Sprintf("job:%d", int(argument/16)%modelChannels)
	switch operation % 6 {
	case 0, 1:
		outcome := one.subscribe(channel)
		if one.open[channel] == nil {
			switch {
			case outcome == Confirmed && !m.confirmed[channel]:
				// Right if the last listener left while walks were under way, so that the broker was told nothing.
				if m.answered[channel] != m.h.edgesOf(channel) {
					m.h.t.Fatal("subscribe: confirmed, and the broker has not said so")
				}
				m.confirmed[channel] = true
			case outcome != Asked && outcome != Confirmed:
				m.h.t.Fatalf("subscribe: %v", outcome)
			}
			one.open[channel] = &period{channel: channel}
			one.periods = append(one.periods, one.open[channel])
		}
	case 2:
		had := one.unsubscribe(channel)
		if (one.open[channel] != nil) != had {
			m.h.t.Fatalf("unsubscribe: %v", had)
		}
		if had {
			one.open[channel].closed = true
			delete(one.open, channel)
			if !m.wanted(channel) {
				delete(m.confirmed, channel)
			}
		}
	case 3:
		if m.wanted(channel) {
			m.confirmed[channel], m.answered[channel] = true, m.h.edgesOf(channel)
			m.h.confirm(channel)
		}
	default:
		m.published++
		m.h.publish(channel, strconv.Itoa(m.published))
		for _, other := range m.streams {
			if p := other.open[channel]; p != nil && m.confirmed[channel] {
				p.events = append(p.events, m.published)
			}
		}
	}
}

// check compares what a stream heard with its periods: all of each, in order, except that a
// subscription that ended may have missed its last events.
func (m *model) check(one *modelStream) {
	const mark = -1
	m.h.on(one.loop, func(s *Shard) {
		// Behind every walk that is pending, since walks are first in, first out.
		s.walks.push(walk{})
	})
	m.h.on(one.loop, func(s *Shard) {
		for s.Work() {
			continue
		}
		s.loop.SendBytes(one.slot, proto.AppendFrame(nil, proto.OpText, []byte(strconv.Itoa(mark))))
	})
	var heard []int
	for len(heard) == 0 || heard[len(heard)-1] != mark {
		for _, message := range one.read(1) {
			n, err := strconv.Atoi(message)
			if err != nil {
				m.h.t.Fatalf("heard %q", message)
			}
			heard = append(heard, n)
		}
	}
	heard = heard[:len(heard)-1]
	got := make(map[int]bool, len(heard))
	for i, n := range heard {
		if i > 0 && heard[i-1] >= n {
			m.h.t.Fatalf("heard out of order: %v", heard)
		}
		got[n] = true
	}
	for _, p := range one.periods {
		missing := 0
		for _, n := range p.events {
			switch {
			case got[n] && missing > 0:
				m.h.t.Fatalf("%s: event %d came though one before it did not", p.channel, n)
			case got[n]:
				delete(got, n)
			case p.closed:
				missing++
			default:
				m.h.t.Fatalf("%s: event %d is missing", p.channel, n)
			}
		}
	}
	if len(got) > 0 {
		m.h.t.Fatalf("heard what it should not have: %v", got)
	}
}

func FuzzHub(f *testing.F) {
	f.Add([]byte{0, 0, 3, 0, 4, 0})
	f.Add([]byte{0, 0, 0, 1, 0, 2, 3, 0, 4, 0, 2, 1, 4, 0, 0, 1, 4, 0, 5, 0, 2, 0, 2, 2})
	f.Add([]byte{0, 0, 0, 16, 0, 32, 0, 48, 3, 0, 3, 16, 3, 32, 4, 0, 4, 16, 4, 32, 2, 16, 4, 0, 4, 16})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 400 {
			script = script[:400]
		}
		h := newHarness(t, 1, nil)
		// Walks in tiny pieces, so that everything happens in the middle of one.
		h.on(0, func(s *Shard) { s.stepsMax, s.expressMax = 2, 1 })
		m := &model{h: h, confirmed: make(map[string]bool), answered: make(map[string]int)}
		for range 7 {
			m.streams = append(m.streams, &modelStream{stream: h.join(0, proto.FormText), open: make(map[string]*period)})
		}
		for len(script) > 1 {
			m.step(script[0], script[1])
			script = script[2:]
		}
		for _, one := range m.streams {
			m.check(one)
		}
	})
}
