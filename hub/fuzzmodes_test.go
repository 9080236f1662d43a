package hub

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/proto"
)

// modeChannels are those of the model: plain events, events with a memory, conflated events, a
// state, and two logs.
var modeChannels = [...]string{"job:1", "kept:1", "newest:1", "state:1", "log:1", "log:2"}

// mode is what the model knows of one channel. What is published is a number, 1 more each time.
type mode struct {
	name    string
	typ     string
	last    int  // the last number published
	told    int  // of a log: the last that the hub was told of
	deleted bool // of a state: there is no value
}

// subscribedSpan is one time that a stream was subscribed to a channel.
type subscribedSpan struct {
	items []int // numbers as they came, 0 for a gap
	from  int   // everything behind this number is due
	until int   // the last number due
	ended bool  // unsubscribed: the end may be missing
	early bool  // live only: what was lost just before may come, too
}

// modesStream is one client of the model.
type modesStream struct {
	*stream
	open  map[string]*subscribedSpan
	spans map[string][]*subscribedSpan
	// lastID is the id of the last message of a channel, and lastNumber what it held.
	lastID     map[string]string
	lastNumber map[string]int
}

// modesModel is a plain picture of channels in all modes, of clients that stall, and of what each
// should have heard.
type modesModel struct {
	h       *harness
	streams []*modesStream
	modes   map[string]*mode
}

const modesBudget = 64 << 10

func newModesModel(t *testing.T) *modesModel {
	h := newHarness(t, 2, func(o *Options) { o.MaxQueueBytes = modesBudget })
	h.rules["kept"] = &Rules{Replay: Replay{Size: 4, TTL: time.Hour}}
	h.rules["newest"] = &Rules{Conflate: true}
	h.rules["state"] = &Rules{Kind: broker.State}
	h.rules["log"] = &Rules{Kind: broker.Log}
	m := &modesModel{h: h, modes: make(map[string]*mode)}
	for _, name := range modeChannels {
		m.modes[name] = &mode{name: name, typ: typeOf(name), deleted: true}
	}
	for loop := range 2 {
		h.on(loop, func(s *Shard) { s.stepsMax, s.expressMax, s.walksMax = 4, 1, 2 })
	}
	for n := range 5 {
		m.streams = append(m.streams, &modesStream{
			stream: h.join(n%2, proto.FormEnvelope),
			open:   make(map[string]*subscribedSpan), spans: make(map[string][]*subscribedSpan),
			lastID: make(map[string]string), lastNumber: make(map[string]int),
		})
	}
	return m
}

func (m *modesModel) wanted(channel string) bool { return m.h.hub.directory.wanting(channel) != 0 }

// step carries one operation out on the hub and on the model.
func (m *modesModel) step(operation, argument byte) {
	one := m.streams[int(argument)%len(m.streams)]
	c := m.modes[modeChannels[int(argument/8)%len(modeChannels)]]
	switch operation % 16 {
	case 0, 1, 2:
		m.subscribe(one, c, operation%16 == 2)
	case 3:
		m.unsubscribe(one, c)
	case 4, 5, 6, 7, 8:
		for range 1 + int(argument)%3 {
			m.publish(c)
		}
	case 9:
		one.stall()
	case 10, 11:
		m.settle(one)
	case 12:
		m.h.logs.trim("log:1", int(argument)%3)
		m.tell(m.modes["log:1"])
	case 13:
		m.rewind(m.modes["log:2"])
	case 14:
		m.loseMail()
	case 15:
		if m.wanted("job:1") {
			m.h.hub.Lost(plain("job:1"))
			m.h.hub.Confirmed(plain("job:1"), true)
		}
	}
}

func (m *modesModel) subscribe(one *modesStream, c *mode, resume bool) {
	if one.open[c.name] != nil {
		return
	}
	if len(one.spans[c.name]) > 0 {
		m.settle(one) // so that what comes from now on belongs to the new span
	}
	fresh := !m.wanted(c.name)
	from := From{}
	span := &subscribedSpan{from: c.last, until: -1}
	if c.typ == "log" && !fresh {
		span.from = c.told
	}
	if resume && one.lastID[c.name] != "" {
		from = m.h.hub.From(parse(m.h.t, c.name), one.lastID[c.name])
		span.from = one.lastNumber[c.name]
	}
	span.early = c.typ == "log" && from.Kind == FromNow // see loseMail; and walks are few
	one.open[c.name] = span
	one.spans[c.name] = append(one.spans[c.name], span)
	outcome := one.subscribeFrom(c.name, from)
	switch {
	case outcome == Confirmed:
	case c.typ == "log":
		m.h.openLog(c.name)
		c.told = c.last
	case c.typ == "state":
		m.h.value(c.name, c.value())
		m.h.confirmState(c.name)
	default:
		m.h.confirm(c.name)
	}
	m.h.on(one.loop, func(*Shard) {}) // what follows is published after subscribed was said
	m.h.on(one.loop, func(*Shard) {})
}

func (m *modesModel) unsubscribe(one *modesStream, c *mode) {
	span := one.open[c.name]
	if had := one.unsubscribe(c.name); had != (span != nil) {
		m.h.t.Fatalf("unsubscribe: %v", had)
	}
	if span != nil {
		span.ended, span.until = true, c.last
		delete(one.open, c.name)
	}
}

func (c *mode) value() string {
	if c.deleted {
		return ""
	}
	return fmt.Sprintf(`{"k":%d}`, c.last)
}

func (m *modesModel) publish(c *mode) {
	if c.typ == "state" && c.last%5 == 4 && !c.deleted {
		c.deleted = true
		if m.wanted(c.name) {
			m.h.value(c.name, "")
		}
		return
	}
	c.last++
	c.deleted = false
	payload := fmt.Sprintf(`{"k":%d}`, c.last)
	switch c.typ {
	case "log":
		m.h.logs.add(c.name, payload)
		if c.last%3 != 0 { // else with the next
			m.tell(c)
		}
	case "state":
		if m.wanted(c.name) {
			m.h.value(c.name, payload)
		}
	default:
		m.h.publish(c.name, payload)
	}
}

func (m *modesModel) tell(c *mode) {
	if m.wanted(c.name) {
		m.h.tellLog(c.name, 0)
		c.told = c.last
	}
}

// rewind lets another log take the place of one. What clients remember of it is forgotten with it:
// positions of the old log may mean something else in the new one.
func (m *modesModel) rewind(c *mode) {
	m.tell(c) // else what is not told yet would vanish without a trace
	m.h.logs.rewind(c.name, broker.Position{Milliseconds: 1})
	m.tell(c)
	for _, one := range m.streams {
		delete(one.lastID, c.name)
	}
	c.told = c.last
}

// loseMail lets both loops miss an update of a log.
func (m *modesModel) loseMail() {
	c := m.modes["log:1"]
	if !m.wanted(c.name) {
		return
	}
	m.tell(c)
	c.last++
	at := m.h.logs.add(c.name, fmt.Sprintf(`{"k":%d}`, c.last))
	m.h.logs.mutex.Lock()
	m.h.logs.logs[c.name].told = at
	m.h.logs.mutex.Unlock()
	c.told = c.last
	m.h.hub.directory.setStanding(c.name, standing{position: at})
	for loop := range m.h.loops {
		m.h.hub.Shard(loop).untold.Store(true)
		m.h.on(loop, func(*Shard) {})
		m.h.on(loop, func(*Shard) {})
	}
}

// stall makes the queue of a stream longer than its budget.
func (one *modesStream) stall() {
	one.client.SetReadBuffer(32 << 10) // settle makes it large again
	junk := proto.AppendFrame(nil, proto.OpText, []byte(`"`+strings.Repeat("x", 32<<10)+`"`))
	for full := false; !full; {
		one.h.on(one.loop, func(s *Shard) {
			s.loop.SendBytes(one.slot, junk)
			full = s.loop.Queued(one.slot) > modesBudget
		})
	}
}

// settle reads until the stream has caught up with everything.
func (m *modesModel) settle(one *modesStream) {
	one.client.SetReadBuffer(1 << 20)
	deadline := time.Now().Add(20 * time.Second)
	for settled := false; !settled; {
		if time.Now().After(deadline) {
			m.h.on(one.loop, func(s *Shard) { m.h.t.Fatalf("it never catches up: %+v", s.Explain(one.slot)) })
		}
		one.collect(time.Now().Add(time.Millisecond))
		m.h.on(one.loop, func(s *Shard) {
			settled = s.walks.empty() && s.pasts.empty() && len(s.missed) == 0 && !s.untold.Load() && s.loop.Queued(one.slot) == 0
			if b := s.behind[one.slot]; b != nil {
				for _, r := range b.records {
					settled = settled && r.state == recordJoined
				}
			}
		})
	}
	m.h.on(one.loop, func(s *Shard) {
		s.loop.SendBytes(one.slot, proto.AppendFrame(nil, proto.OpText, []byte(`{"type":"mark"}`)))
	})
	for !one.collect(deadline) {
		continue
	}
}

// collect reads what comes until the deadline, and reports whether it read a mark.
func (one *modesStream) collect(deadline time.Time) (marked bool) {
	one.client.SetReadDeadline(deadline)
	buffer := make([]byte, 64<<10)
	for !marked {
		got, err := one.client.Read(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
		if err != nil {
			one.h.t.Fatal(err)
		}
		for rest := buffer[:got]; ; {
			var message proto.Message
			message, rest, err = one.reader.Next(rest, 1<<20)
			if err != nil {
				one.h.t.Fatal(err)
			}
			if message.Op == proto.OpContinuation {
				break
			}
			marked = one.note(message.Data) || marked
		}
	}
	return true
}

// note takes a message into the picture, and reports whether it is a mark.
func (one *modesStream) note(text []byte) (mark bool) {
	var message struct {
		Type, Channel, ID string
		Data              struct{ K int }
	}
	if text[0] == '"' {
		return false // what stall sent
	}
	if err := json.Unmarshal(text, &message); err != nil {
		one.h.t.Fatalf("%s: %v", text, err)
	}
	spans := one.spans[message.Channel]
	switch message.Type {
	case "mark":
		return true
	case "event":
		one.lastID[message.Channel], one.lastNumber[message.Channel] = message.ID, message.Data.K
		last := spans[len(spans)-1]
		last.items = append(last.items, message.Data.K)
	case "gap", "deleted":
		last := spans[len(spans)-1]
		last.items = append(last.items, 0)
	}
	return false
}

// check compares what a stream heard with what was due.
func (m *modesModel) check(one *modesStream) {
	for name, spans := range one.spans {
		c := m.modes[name]
		for _, span := range spans {
			if span.until < 0 {
				span.until = c.last
			}
			if c.typ == "state" {
				m.checkState(one, c, span)
				continue
			}
			m.checkOrder(one, c, span)
		}
	}
}

// checkOrder checks that numbers rise, and that none is missing but where a gap was told.
func (m *modesModel) checkOrder(one *modesStream, c *mode, span *subscribedSpan) {
	previous, gap := span.from, false
	if len(span.items) > 0 && span.early {
		previous = min(previous, span.items[0]-1)
	}
	for _, k := range span.items {
		switch {
		case k == 0:
			gap = true
			continue
		case k <= previous:
			m.h.t.Fatalf("%s: %d came after %d: %+v", c.name, k, previous, span)
		case k != previous+1 && !gap && c.typ != "newest":
			m.h.t.Fatalf("%s: nothing between %d and %d, and no gap: %+v", c.name, previous, k, span)
		}
		previous, gap = k, false
	}
	if previous != span.until && !gap && !span.ended {
		m.h.t.Fatalf("%s: ends with %d instead of %d, and no gap: %+v", c.name, previous, span.until, span)
	}
}

// checkState checks that numbers rise, and that the end is the state's.
func (m *modesModel) checkState(one *modesStream, c *mode, span *subscribedSpan) {
	previous, last := 0, 0
	for _, k := range span.items {
		if k != 0 && k <= previous {
			m.h.t.Fatalf("%s: %d came after %d: %+v", c.name, k, previous, span)
		}
		previous, last = max(previous, k), k
	}
	want := c.last
	if c.deleted {
		want = 0
	}
	if !span.ended && last != want {
		m.h.t.Fatalf("%s: ends with %d instead of %d: %+v", c.name, last, want, span)
	}
}

func (m *modesModel) run(script []byte) {
	for len(script) > 1 {
		m.step(script[0], script[1])
		script = script[2:]
	}
	for _, c := range m.modes {
		if c.typ == "log" {
			m.tell(c)
		}
	}
	for _, one := range m.streams {
		m.settle(one)
		m.check(one)
	}
}

func FuzzModes(f *testing.F) {
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 1))
		script := make([]byte, 120)
		for i := range script {
			script[i] = byte(random.IntN(256))
		}
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 400 {
			script = script[:400]
		}
		newModesModel(t).run(script)
	})
}
