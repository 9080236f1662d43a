package netio

import "sync/atomic"

// MailMax is how many posts may wait in one mailbox. A loop that falls this far behind is
// better told less: the poster must make the loss known in its own way.
const MailMax = 1 << 16

// letter is one post, linked to the one posted before it.
type letter struct {
	item any
	next *letter
}

// mailbox takes posts from any goroutine for one. Posting is a push on a lock-free stack;
// the loop takes the whole stack at once and turns it round, so nobody ever waits for anybody
// and a poster that is descheduled in the middle holds up nothing.
type mailbox struct {
	top     atomic.Pointer[letter]
	waiting atomic.Int64
	// asleep is set by the loop before it waits and cleared by the first poster after that, who
	// alone rings: one wake-up for any number of posts.
	asleep atomic.Bool
}

// push adds item. ok is false if the box is full or closed; ring says that the caller must wake
// the loop.
func (m *mailbox) push(item any, urgent bool) (ok, ring bool) {
	if m.waiting.Add(1) > MailMax && !urgent {
		m.waiting.Add(-1)
		return false, false
	}
	l := &letter{item: item}
	for {
		top := m.top.Load()
		if top == closedBox {
			m.waiting.Add(-1)
			return false, false
		}
		l.next = top
		if m.top.CompareAndSwap(top, l) {
			return true, m.asleep.Load() && m.asleep.CompareAndSwap(true, false)
		}
	}
}

// closedBox on top of the stack says that the loop takes no more mail.
var closedBox = &letter{}

// take empties the box and gives the letters in the order of their posting.
func (m *mailbox) take() *letter {
	if m.top.Load() == nil {
		return nil
	}
	return m.reverse(m.top.Swap(nil))
}

// close empties the box for the last time; every later push is refused.
func (m *mailbox) close() *letter {
	top := m.top.Swap(closedBox)
	if top == closedBox {
		return nil
	}
	return m.reverse(top)
}

func (m *mailbox) reverse(top *letter) *letter {
	var first *letter
	n := int64(0)
	for top != nil {
		next := top.next
		top.next = first
		first, top = top, next
		n++
	}
	m.waiting.Add(-n)
	return first
}

func (m *mailbox) empty() bool { return m.top.Load() == nil }
