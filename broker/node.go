package broker

import (
	"context"
	"errors"
	"time"
)

// node is one server that carries subscriptions or publishes: it serves one session after the
// other until it is given up.
type node struct {
	broker *Redis
	number int16
	ctx    context.Context
	stop   context.CancelFunc
	done   chan struct{} // closed when run has returned

	wake chan struct{} // the subscriber has something to do, buffered by one
	read chan struct{} // the tracker has something to do, buffered by one
	kick chan struct{} // try again at once, buffered by one

	// Guarded by the broker's mutex.
	address    string
	todo       agenda   // entries that the subscriber must look at
	reads      agenda   // entries that the tracker must look at
	session    *session // the one that serves now, or nil
	bySlot     int      // entries that belong here by their slot, in a Cluster
	keys       int      // entries of kind State or Log
	logs       int      // entries of kind Log
	slots      int      // slots of a Cluster that the node owns
	horizon    uint64   // how far its logs were read, 0 if unknown
	delivering bool     // the canary came back lately
	fault      string   // why not
	faultSince time.Time
	opened     bool      // a session was open once
	cutAt      time.Time // when the last session ended, zero if the node is unfit for plain channels
}

// addNode makes a node and lets it run. The caller holds mutex.
func (r *Redis) addNode(address string) *node {
	number := int16(len(r.nodes))
	for index, taken := range r.nodes {
		if taken == nil {
			number = int16(index)
			break
		}
	}
	ctx, stop := context.WithCancel(r.ctx)
	made := &node{
		broker: r, number: number, ctx: ctx, stop: stop, done: make(chan struct{}),
		wake: make(chan struct{}, 1), read: make(chan struct{}, 1), kick: make(chan struct{}, 1),
		address: address, fault: errNotConnected.Error(), faultSince: time.Now(),
	}
	if int(number) == len(r.nodes) {
		r.nodes = append(r.nodes, made)
	} else {
		r.nodes[number] = made
	}
	r.running.Go(made.run)
	return made
}

// run serves until the node is given up or the broker closed.
func (n *node) run() {
	defer close(n.done)
	r := n.broker
	var again backoff
	for n.ctx.Err() == nil {
		address := n.target()
		began := time.Now()
		opened, err := n.open(address)
		if err == nil {
			err = opened.serve()
			if opened.delivered.Load() && time.Since(began) >= backoffForget {
				again.reset()
			}
		}
		if n.ctx.Err() != nil {
			return
		}
		r.report(address, err)
		n.setFault(err)
		r.askTopology()
		if !pause(n.ctx, again.step(), n.kick) {
			return
		}
	}
}

func (n *node) target() string {
	n.broker.mutex.Lock()
	defer n.broker.mutex.Unlock()
	return n.address
}

// setFault notes that the node does not deliver and why.
func (n *node) setFault(err error) {
	n.broker.mutex.Lock()
	if n.delivering {
		n.faultSince = time.Now()
	}
	n.delivering, n.fault = false, plainWords(err)
	n.broker.mutex.Unlock()
	n.broker.tellHealth()
}

// setDelivering notes that the node delivers by the session that serves now, and for how long it
// did not.
func (n *node) setDelivering(by *session) (away time.Duration, told bool) {
	n.broker.mutex.Lock()
	if n.session != by || by.ctx.Err() != nil {
		n.broker.mutex.Unlock()
		return 0, false
	}
	away = time.Since(n.faultSince)
	n.delivering, n.fault = true, ""
	n.broker.mutex.Unlock()
	n.broker.tellHealth()
	return away, true
}

// move points the node to another server and ends the session with the present one.
func (n *node) move(address string, err error) {
	n.broker.mutex.Lock()
	session := n.session
	changed := n.address != address
	n.address = address
	n.broker.mutex.Unlock()
	if !changed {
		return
	}
	if session != nil {
		session.fail(err)
	}
	signal(n.kick)
}

// lose reports all subscriptions of an ended session as lost and queues those that are wanted
// for the next one. A key is not lost: what it holds, or what a log held meanwhile, can be read
// later. It gives the locks back after every chunk, so that a million subscriptions
// do not hold up those who subscribe meanwhile.
func (n *node) lose(ended *session) {
	r := n.broker
	r.mutex.Lock()
	if n.session == ended {
		n.session, n.cutAt = nil, time.Now()
		if errors.Is(context.Cause(ended.ctx), errDeaf) {
			n.cutAt = time.Time{} // it would be back at once, and as deaf
		}
	}
	chunks := len(r.table.chunks)
	r.mutex.Unlock()
	for chunk := range chunks {
		r.loseChunk(chunk, func(index uint32, e *entry) bool {
			lost := r.table.confirmedIn(e) == ended.number && e.flags&(flagWanted|flagLingering) != 0
			if e.kind().keyed() {
				key := r.table.key(e)
				if *r.table.session(e) != ended.number && key.askedIn != ended.number {
					return false
				}
				key.forsake()
				lost = false
			} else if *r.table.session(e) != ended.number {
				return false
			}
			r.table.release(e)
			e.flags &^= flagLeaving
			if e.has(flagWanted) {
				r.enqueue(index, e)
			}
			return lost
		})
	}
}

// loseChunk has visit look at each entry of a chunk of the table and reports those as lost for
// which it returns true. Entries that nothing holds any more are forgotten.
func (r *Redis) loseChunk(chunk int, visit func(uint32, *entry) bool) {
	r.calls.Lock()
	defer r.calls.Unlock()
	var lost []Subscription
	r.mutex.Lock()
	for offset := range uint32(registryChunk) {
		index := uint32(chunk)*registryChunk + offset
		if index >= r.table.used {
			break
		}
		e := r.table.at(index)
		if e.name == 0 {
			continue
		}
		if visit(index, e) {
			lost = append(lost, r.table.subscription(e))
		}
		r.settle(index)
	}
	r.mutex.Unlock()
	r.tellLost(lost)
}

// tellLost calls Lost. The caller holds calls.
func (r *Redis) tellLost(lost []Subscription) {
	if len(lost) == 0 {
		return
	}
	r.losses.Add(uint64(len(lost)))
	if cut := r.cut.Load(); cut != nil {
		cut.lost.Store(true)
	}
	r.tell(func() { r.callbacks.Lost(lost) })
}
