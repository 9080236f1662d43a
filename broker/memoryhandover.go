package broker

import (
	"bytes"
	"strings"
	"time"
)

// do carries out one job and calls back without the lock.
func (m *Memory) do(job memoryJob) {
	// Whatever was appended to any log before this millisecond has been handed over.
	m.horizon.Store(job.at - 1)
	if job.messages == nil {
		m.confirm(job)
		return
	}
	for index := range job.messages {
		message := &job.messages[index]
		switch message.Kind {
		case State:
			m.handState(message.Channel, job.published)
		case Log:
			m.handLog(message, job.positions[index], job.published)
		default:
			if m.wants(message) {
				m.events.Add(1)
				m.tell(func() { m.callbacks.Event(message.Channel, message.Payload, job.published) })
			}
		}
	}
	for _, sub := range job.evicted {
		if sub.Kind == State {
			m.handState(sub.Channel, job.published)
		}
	}
	m.mutex.Lock()
	m.queued -= len(job.messages)
	close(m.freed)
	m.freed = make(chan struct{})
	m.mutex.Unlock()
}

// handState hands over what a state holds by now, if somebody listens and does not have it.
func (m *Memory) handState(channel string, at time.Time) {
	m.mutex.Lock()
	entry := m.wanted[Subscription{Channel: channel, Kind: State}]
	value := m.store.state(channel)
	if entry == nil || !entry.confirmed || !entry.fresh && same(entry.told, value) {
		m.mutex.Unlock()
		return
	}
	entry.told, entry.fresh = value, false
	m.mutex.Unlock()
	m.tell(func() { m.callbacks.Value(channel, value, at) })
}

// same reports whether two values are equal, or both are none.
func same(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

// handLog hands over an entry of a log, if somebody listens.
func (m *Memory) handLog(message *Message, position Position, at time.Time) {
	m.mutex.Lock()
	entry := m.wanted[Subscription{Channel: message.Channel, Kind: Log}]
	if entry == nil || !entry.confirmed {
		m.mutex.Unlock()
		return
	}
	update := LogUpdate{
		Channel: message.Channel, From: entry.cursor, Entries: []Entry{{Position: position, Payload: message.Payload}},
		Horizon: m.horizon.Load(),
	}
	entry.cursor = position
	m.mutex.Unlock()
	m.tell(func() { m.callbacks.Log(update, at) })
}

// startLog says where a log stood when it was asked for.
func (m *Memory) startLog(job memoryJob) {
	m.mutex.Lock()
	entry := m.wanted[job.confirm]
	entry.cursor, entry.fresh = job.end, false
	update := LogUpdate{Channel: job.confirm.Channel, From: job.end, Horizon: m.horizon.Load()}
	m.mutex.Unlock()
	m.tell(func() { m.callbacks.Log(update, job.published) })
}

// confirm makes a subscription count from here on.
func (m *Memory) confirm(job memoryJob) {
	sub := job.confirm
	m.mutex.Lock()
	entry := m.wanted[sub]
	entry.asked = false
	if !entry.wanted && !entry.lingers {
		m.forget(sub)
		m.mutex.Unlock()
		return
	}
	fresh := entry.fresh && entry.wanted
	if !entry.confirmed {
		entry.confirmed = true
		m.confirms++
		if sub.Kind.keyed() {
			m.tracked++
		}
		if entry.wanted {
			m.pending--
		}
	}
	if sub.Kind == Pattern {
		m.patterns[strings.TrimSuffix(sub.Channel, "*")] = true
	}
	m.mutex.Unlock()
	switch {
	case fresh && sub.Kind == State:
		m.handState(sub.Channel, job.published)
	case fresh && sub.Kind == Log:
		m.startLog(job)
	}
	m.tell(func() { m.callbacks.Confirmed([]Subscription{sub}, false) })
}
