package main

import (
	"encoding/binary"
	"net"
	"sync"
)

// topics holds the members of every topic. It is safe for concurrent use. Writing to members
// happens under the lock: nbio's writes never block, they buffer what a socket did not take.
type topics struct {
	mu     sync.Mutex
	byName map[string]*topic
}

// topic is one channel. Members stand in a slice, in no order: walking it is what a publish costs.
type topic struct {
	name    string
	members []*member
}

// member is one client in one topic. Its index is kept up to date by join and leave.
type member struct {
	connection net.Conn // nbio's own connection, below the WebSocket layer; set before members sees it
	topic      *topic
	index      int // in topic.members; -1 once the member has left
}

func newTopics() *topics {
	return &topics{byName: make(map[string]*topic)}
}

// join makes a new member of the topic called name, if open succeeds. open sets the member's
// connection and runs under the lock.
func (t *topics) join(name string, open func(*member) error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := &member{}
	if open(m) != nil {
		return
	}
	joined := t.byName[name]
	if joined == nil {
		joined = &topic{name: name}
		t.byName[name] = joined
	}
	m.topic, m.index = joined, len(joined.members)
	joined.members = append(joined.members, m)
}

// leave takes m out of its topic, and forgets a topic that is empty. Leaving twice is harmless,
// and so is leaving without having joined.
func (t *topics) leave(m *member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	left := m.topic
	if left == nil || m.index < 0 {
		return
	}
	last := len(left.members) - 1
	left.members[m.index] = left.members[last]
	left.members[m.index].index = m.index
	left.members[last] = nil
	left.members = left.members[:last]
	m.index = -1
	if last == 0 {
		delete(t.byName, left.name)
	}
}

// publish writes frames, one or more whole WebSocket frames, to every member of the topic called
// name. A connection that fails is closed by nbio, and leaves by its close handler.
func (t *topics) publish(name string, frames []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	published := t.byName[name]
	if published == nil {
		return
	}
	for _, m := range published.members {
		_, _ = m.connection.Write(frames)
	}
}

// size gives the number of members of the topic called name.
func (t *topics) size(name string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if found := t.byName[name]; found != nil {
		return len(found.members)
	}
	return 0
}

// appendFrame appends payload to frames as one unmasked text frame (RFC 6455, 5.2).
func appendFrame(frames, payload []byte) []byte {
	const finalText = 0x81
	switch {
	case len(payload) < 126:
		frames = append(frames, finalText, byte(len(payload)))
	case len(payload) < 1<<16:
		frames = binary.BigEndian.AppendUint16(append(frames, finalText, 126), uint16(len(payload)))
	default:
		frames = binary.BigEndian.AppendUint64(append(frames, finalText, 127), uint64(len(payload)))
	}
	return append(frames, payload...)
}
