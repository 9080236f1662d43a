package hub

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/millrace/millrace/proto"
)

// listenQueueMax is how many events may wait for the callbacks of this program; beyond it they
// are dropped, and a gap says so.
const listenQueueMax = 4096

// Notice is what a [Hub.Listen] callback is told: an event, or, with Gap set, that events may be
// missing.
type Notice struct {
	Channel string
	ID      string
	Data    []byte // must not be changed; may be kept
	Gap     string // empty: an event. Else the reason, as in the gap message
}

// listener is one callback.
type listener struct {
	call  func(Notice)
	ended atomic.Bool
}

// firstValue is the value of a state, for a listener that came later.
type firstValue struct {
	to    *listener
	event *proto.Event
}

// listeners call the functions of this program back, all from one goroutine of their own. To the
// directory they are one more loop.
type listeners struct {
	hub    *Hub
	index  int // its bit in the directory
	queue  chan any
	behind atomic.Bool
	done   chan struct{}

	mutex     sync.Mutex
	closed    bool
	running   bool
	byChannel map[string][]*listener
}

func newListeners(h *Hub, index int) *listeners {
	return &listeners{
		hub: h, index: index,
		queue: make(chan any, listenQueueMax), done: make(chan struct{}),
		byChannel: make(map[string][]*listener),
	}
}

// Listen calls call for every event on channel, which may be a wildcard, from some moment soon
// after Listen returns until cancel; of a state, first for the value that it has, if that is known. Calls come one at a time, all listeners together from one
// goroutine; a slow one makes all of them miss events and be told of a gap. cancel does not wait
// for a call that is under way.
func (h *Hub) Listen(channel proto.Channel, call func(Notice)) (cancel func()) {
	return h.listeners.add(channel.Name(), call)
}

func (l *listeners) add(channel string, call func(Notice)) (cancel func()) {
	added := &listener{call: call}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.closed {
		return func() {}
	}
	if !l.running {
		l.running = true
		go l.run()
	}
	if len(l.byChannel[channel]) == 0 {
		l.hub.directory.want(channel, l.index)
	}
	l.byChannel[channel] = append(slices.Clip(l.byChannel[channel]), added) // readers keep the old one
	if now, known := l.hub.directory.standing(channel); known && now.event != nil {
		l.post(&firstValue{to: added, event: now.event})
	}
	return func() { l.remove(channel, added) }
}

func (l *listeners) remove(channel string, gone *listener) {
	if gone.ended.Swap(true) {
		return
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	var rest []*listener
	for _, other := range l.byChannel[channel] {
		if other != gone {
			rest = append(rest, other)
		}
	}
	if len(rest) > 0 {
		l.byChannel[channel] = rest
		return
	}
	delete(l.byChannel, channel)
	l.hub.directory.unwant(channel, l.index)
}

func (l *listeners) post(item any) {
	select {
	case l.queue <- item:
	default:
		l.behind.Store(true)
	}
}

func (l *listeners) close() {
	l.mutex.Lock()
	wasRunning := l.running && !l.closed
	l.closed = true
	l.mutex.Unlock()
	if wasRunning {
		close(l.done)
	}
}

func (l *listeners) run() {
	for {
		select {
		case <-l.done:
			return
		case item := <-l.queue:
			l.handle(item)
		}
		if l.behind.CompareAndSwap(true, false) {
			l.gapEverywhere()
		}
	}
}

func (l *listeners) handle(item any) {
	switch item := item.(type) {
	case *publication:
		channel := item.event.Channel()
		notice := Notice{Channel: channel.Name(), ID: item.event.ID(), Data: item.event.Payload()}
		l.tell(channel.Name(), notice)
		l.tell(channel.Type()+wildcardSuffix, notice)
	case *logPublication:
		channel := item.channel.Name()
		if item.hole {
			l.tell(channel, Notice{Channel: channel, Gap: item.reason.String()})
		}
		for _, entry := range item.entries {
			l.tell(channel, Notice{Channel: channel, ID: entry.event.ID(), Data: entry.event.Payload()})
		}
	case *firstValue:
		if !item.to.ended.Load() {
			item.to.call(Notice{Channel: item.event.Channel().Name(), Data: item.event.Payload()})
		}
	case *interestChange:
		if !item.confirmed || !item.lost {
			return
		}
		for _, channel := range item.channels {
			l.tell(channel, Notice{Channel: channel, Gap: proto.GapBroker.String()})
		}
	}
}

func (l *listeners) gapEverywhere() {
	l.mutex.Lock()
	var channels []string
	for channel := range l.byChannel {
		channels = append(channels, channel)
	}
	l.mutex.Unlock()
	for _, channel := range channels {
		l.tell(channel, Notice{Channel: channel, Gap: proto.GapSlow.String()})
	}
}

func (l *listeners) tell(channel string, notice Notice) {
	l.mutex.Lock()
	all := l.byChannel[channel] // never changed in place
	l.mutex.Unlock()
	for _, one := range all {
		if !one.ended.Load() {
			one.call(notice)
		}
	}
}
