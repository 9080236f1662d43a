package netio_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/internal/names"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// hubWorld is a hub on simulated loops, with a broker that the world plays, too. Its peers hold the
// first promise of all (docs/protocol.md): what is published after a stream was told that it is
// subscribed reaches it, in order and once, or a gap says that it may have missed something.
type hubWorld struct {
	random   *rand.Rand
	hub      *hub.Hub
	loops    []*netio.SimulatedLoop
	streams  []map[netio.Slot]*hubStream // by loop
	all      []*hubStream
	channels []*hubChannel
	breaches []string
}

// hubChannel is what the broker's side knows of one channel.
type hubChannel struct {
	name      proto.Channel
	wanted    bool // the hub asked for it
	confirmed bool // and was told that it has it
	number    int  // of the last event, delivered or lost
}

// hubStream is one stream and its peer.
type hubStream struct {
	world   *hubWorld
	loop    int
	slot    netio.Slot
	open    bool
	form    proto.Form
	reader  proto.MessageReader
	decoder proto.SSEDecoder
	hears   map[string]*hearing
}

// hearing is what a peer knows of one channel.
type hearing struct {
	live bool // told that it is subscribed, and not that it is no longer
	from int  // number of the first event that it was promised
	last int  // number of the last event that it heard, or that it was not promised
	gap  bool // told since then
}

var eventRules hub.Rules

func newHubWorld(t *testing.T, seed uint64) *hubWorld {
	w := &hubWorld{random: rand.New(rand.NewPCG(seed, 0x687562))}
	for _, name := range []string{"a:1", "a:2", "b:1", "b:2:u"} {
		channel, err := proto.ParseChannel(name)
		if err != nil {
			t.Fatal(err)
		}
		w.channels = append(w.channels, &hubChannel{name: channel})
	}
	const loops = 2
	var err error
	w.hub, err = hub.New(hub.Options{
		Loops: loops, Epoch: "life",
		Source: hub.Source{
			Subscribe:   func(s broker.Subscription, _ names.Place) { w.channel(s.Channel).wanted = true },
			Unsubscribe: func(s broker.Subscription) { c := w.channel(s.Channel); c.wanted, c.confirmed = false, false },
		},
		Events: hub.Events{
			Subscribed: func(shard *hub.Shard, slot netio.Slot, channel proto.Channel) {
				w.streams[shard.Loop().Index()][slot].told(shard, w.channel(channel.Name()))
			},
			Mail: func(shard *hub.Shard, item any) { item.(func(*hub.Shard))(shard) },
		},
		RulesOf:       func(string) *hub.Rules { return &eventRules },
		MaxQueueBytes: 500 + w.random.IntN(4000),
	})
	if err != nil {
		t.Fatal(err)
	}
	for index := range loops {
		shard := w.hub.Shard(index)
		w.streams = append(w.streams, make(map[netio.Slot]*hubStream))
		loop := netio.NewSimulatedLoop(w.random, index, netio.Events{
			Adopted:  func(slot netio.Slot, guest any) { guest.(*hubStream).adopted(shard, slot) },
			Received: func(netio.Slot, []byte) {}, Timer: func(netio.Slot) {},
			Drained: shard.Drained,
			Closed: func(slot netio.Slot, _ netio.Reason) {
				shard.Leave(slot)
				w.streams[index][slot].open = false
				delete(w.streams[index], slot)
			},
			Mail: shard.Mail, Work: shard.Work,
			Panicked: func(value any, stack []byte) { w.breach("panic: %v\n%s", value, stack) },
		})
		shard.Attach(loop.Loop)
		w.loops = append(w.loops, loop)
	}
	return w
}

func (w *hubWorld) breach(format string, arguments ...any) {
	if len(w.breaches) < 5 {
		w.breaches = append(w.breaches, fmt.Sprintf(format, arguments...))
	}
}

func (w *hubWorld) channel(name string) *hubChannel {
	for _, c := range w.channels {
		if c.name.Name() == name {
			return c
		}
	}
	w.breach("the hub speaks of %q, which nobody asked for", name)
	return &hubChannel{}
}

// run plays a world to its end.
func (w *hubWorld) run() {
	for range 150 + w.random.IntN(150) {
		w.happen()
		for _, loop := range w.loops {
			loop.Turn()
		}
	}
	w.settle()
	for _, loop := range w.loops {
		loop.End()
		w.breaches = append(w.breaches, loop.Breaches...)
	}
	w.hub.Close()
}

// happen is what comes from outside between two turns.
func (w *hubWorld) happen() {
	if len(w.streams[0])+len(w.streams[1]) < 40 && w.random.IntN(3) == 0 {
		one := &hubStream{
			world: w, loop: w.random.IntN(len(w.loops)), reader: proto.MessageReader{ClientSide: true}, hears: make(map[string]*hearing),
			form: []proto.Form{proto.FormText, proto.FormEnvelope, proto.FormSSEPlain}[w.random.IntN(3)],
		}
		w.all = append(w.all, one)
		w.loops[one.loop].Connect(one, one.hear)
	}
	for _, c := range w.channels {
		w.happenOn(c)
	}
	if len(w.all) == 0 || w.random.IntN(4) > 0 {
		return
	}
	one, c := w.all[w.random.IntN(len(w.all))], w.channels[w.random.IntN(len(w.channels))]
	change := func(shard *hub.Shard) {
		if !one.open || !shard.Loop().Open(one.slot) {
			return
		}
		if w.random.IntN(2) == 0 {
			one.subscribe(shard, c)
		} else if shard.Unsubscribe(one.slot, c.name) {
			one.say(shard, "unsubscribed", c, 0)
		}
	}
	if err := w.loops[one.loop].Post(change); err != nil {
		w.breach("a command was not posted: %v", err)
	}
}

// happenOn is what the broker does with one channel.
func (w *hubWorld) happenOn(c *hubChannel) {
	subscription := []broker.Subscription{{Channel: c.name.Name(), Kind: broker.Plain}}
	switch {
	case !c.wanted:
	case !c.confirmed:
		if w.random.IntN(3) == 0 {
			c.confirmed = true
			w.hub.Confirmed(subscription, false)
		}
	case w.random.IntN(60) == 0: // Redis is gone, and what is published meanwhile is lost
		w.hub.Lost(subscription)
		c.number += w.random.IntN(3)
		if w.random.IntN(2) == 0 {
			for _, loop := range w.loops {
				loop.Turn()
			}
		}
		w.hub.Confirmed(subscription, true)
	default:
		for range max(w.random.IntN(6)-2, 0) {
			c.number++
			payload := fmt.Sprintf(`{"channel":%q,"n":%d,"pad":%q}`, c.name.Name(), c.number, strings.Repeat("x", w.random.IntN(200)))
			if _, err := w.hub.Event(c.name.Name(), []byte(payload), time.Now()); err != nil && c.wanted {
				w.breach("event %d of %s was dropped: %v", c.number, c.name.Name(), err)
			}
		}
	}
}

// settle lets nothing go wrong any more, and then looks at what every peer has heard.
func (w *hubWorld) settle() {
	for _, c := range w.channels {
		if c.wanted && !c.confirmed {
			c.confirmed = true
			w.hub.Confirmed([]broker.Subscription{{Channel: c.name.Name(), Kind: broker.Plain}}, false)
		}
	}
	for _, loop := range w.loops {
		loop.Calm()
	}
	quiet := false
	for n := 0; n < 3000 && !quiet; n++ {
		for _, loop := range w.loops {
			loop.Turn()
		}
		quiet = !slices.ContainsFunc(w.loops, func(loop *netio.SimulatedLoop) bool { return !loop.Quiet() })
	}
	if !quiet {
		w.breach("the loops do not come to rest")
	}
	for _, one := range w.all {
		if !one.open {
			continue
		}
		for _, c := range w.channels {
			if h := one.hears[c.name.Name()]; h != nil && h.live && h.last < c.number && !h.gap {
				w.breach("a stream of loop %d heard %s up to %d of %d, and no gap: a silent loss", one.loop, c.name.Name(), h.last, c.number)
			}
		}
	}
}

func (one *hubStream) adopted(shard *hub.Shard, slot netio.Slot) {
	one.slot, one.open = slot, true
	one.world.streams[one.loop][slot] = one
	shard.Join(slot, one.form)
	for range 1 + one.world.random.IntN(3) {
		one.subscribe(shard, one.world.channels[one.world.random.IntN(len(one.world.channels))])
	}
}

func (one *hubStream) subscribe(shard *hub.Shard, c *hubChannel) {
	if shard.Subscribe(one.slot, c.name, hub.From{}) == hub.Confirmed {
		one.told(shard, c)
	}
}

// told tells the client that it is subscribed: what is published from now on is promised.
func (one *hubStream) told(shard *hub.Shard, c *hubChannel) {
	one.say(shard, "subscribed", c, c.number+1)
	shard.Begin(one.slot, c.name)
}

func (one *hubStream) say(shard *hub.Shard, word string, c *hubChannel, number int) {
	text := fmt.Appendf(nil, `{"type":%q,"channel":%q,"n":%d}`, word, c.name.Name(), number)
	shard.Loop().SendBytes(one.slot, proto.AppendMessage(nil, one.form, word, text))
}

// hear takes what the peer has read.
func (one *hubStream) hear(read []byte) {
	if one.form == proto.FormSSEPlain {
		one.decoder.Feed(read)
		for {
			event, more := one.decoder.Next()
			if !more {
				return
			}
			one.message([]byte(event.Data))
		}
	}
	for rest := bytes.Clone(read); len(rest) > 0; {
		var message proto.Message
		var err error
		if message, rest, err = one.reader.Next(rest, 1<<20); err != nil {
			one.world.breach("a peer reads what is no WebSocket: %v", err)
			return
		}
		if message.Op == proto.OpText {
			one.message(message.Data)
		}
	}
}

// message takes one message: an event, bare or in its envelope, or a word of ours.
func (one *hubStream) message(text []byte) {
	var said struct {
		Type, Channel string
		N             int
		Data          struct{ N int }
	}
	if err := json.Unmarshal(text, &said); err != nil {
		one.world.breach("a peer reads %q, which is not JSON", text)
		return
	}
	h := one.hears[said.Channel]
	if h == nil {
		h = &hearing{}
		one.hears[said.Channel] = h
	}
	switch said.Type {
	case "subscribed":
		*h = hearing{live: true, from: said.N, last: said.N - 1}
	case "unsubscribed":
		h.live = false
	case "gap":
		h.gap = true
	default:
		one.event(said.Channel, h, max(said.N, said.Data.N))
	}
}

func (one *hubStream) event(channel string, h *hearing, number int) {
	switch {
	case !h.live:
		one.world.breach("event %d of %s came, and the stream was told that it is not subscribed", number, channel)
	case number < h.from: // published before it was subscribed, and on its way
	case number <= h.last:
		one.world.breach("event %d of %s came after %d: twice, or out of order", number, channel, h.last)
	case number > h.last+1 && !h.gap:
		one.world.breach("event %d of %s came after %d, and no gap: a silent loss", number, channel, h.last)
	}
	if number >= h.from {
		h.last, h.gap = max(h.last, number), false
	}
}

// TestHubSimulation plays a hub on simulated loops: the promise to clients holds whatever the kernel,
// the peers and the broker do.
func TestHubSimulation(t *testing.T) {
	const share = 25 // of the seeds: a world of a hub is larger
	first, count := netio.SimulationSeeds(share)
	for seed := first; seed < first+count; seed++ {
		w := newHubWorld(t, seed)
		w.run()
		for _, breach := range w.breaches {
			t.Errorf("seed %d: %s", seed, breach)
		}
		if len(w.breaches) > 0 {
			t.Fatalf("play it again with: make sim SEED=%d", seed)
		}
	}
	t.Logf("%d seeds from %d on", count, first)
}
