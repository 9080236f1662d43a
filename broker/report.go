package broker

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"
)

// reportInterval is how often a fault that lasts is logged again.
const reportInterval = time.Minute

// reportsMax is how many faults are remembered before those that are over are forgotten.
const reportsMax = 1000

// reported remembers the last log line about one node and cause.
type reported struct {
	at    time.Time
	since int // faults that went by without a line
}

// report logs a fault, once a node and cause and then once a reportInterval. where is the
// address of a node, or what was being looked for.
func (r *Redis) report(where string, err error) {
	class, advice := diagnose(err)
	r.mutex.Lock()
	unlogged, quiet := r.quiet(where + " " + string(class))
	r.mutex.Unlock()
	if quiet || r.closing.Load() {
		return
	}
	r.logger.Warn("redis does not deliver", "node", where, "cause", string(class),
		"error", plainWords(err), "advice", advice, "unlogged", unlogged)
	var panicked *callbackPanic
	if errors.As(err, &panicked) {
		r.logger.Error("a callback of the broker panicked", "panic", fmt.Sprint(panicked.value), "stack", string(panicked.stack))
	}
}

// quiet reports whether a matter was logged so lately that it is not to be logged again, and how
// often it was not since. The caller holds mutex.
func (r *Redis) quiet(matter string) (unlogged int, quiet bool) {
	last, known := r.lastReported[matter]
	if known && time.Since(last.at) < reportInterval {
		last.since++
		r.lastReported[matter] = last
		return 0, true
	}
	r.forgetReports()
	r.lastReported[matter] = reported{at: time.Now()}
	return last.since, false
}

// forgetReports bounds the memory of faults, whose nodes may come and go. The caller holds mutex.
func (r *Redis) forgetReports() {
	if len(r.lastReported) < reportsMax {
		return
	}
	for key, last := range r.lastReported {
		if time.Since(last.at) >= reportInterval {
			delete(r.lastReported, key)
		}
	}
}

// recovered logs that a node delivers again and forgets what was reported of it, if anything
// was: the next fault is news.
func (r *Redis) recovered(where string, away time.Duration) {
	r.mutex.Lock()
	news := false
	for key, last := range r.lastReported {
		// Keep the memory of a fault that comes again within the interval, or a server that
		// flaps fills the log.
		if strings.HasPrefix(key, where+" ") {
			news = true
			if time.Since(last.at) >= reportInterval {
				delete(r.lastReported, key)
			}
		}
	}
	r.mutex.Unlock()
	if news && !r.closing.Load() {
		r.logger.Info("redis delivers again", "node", where, "away", away.Round(time.Millisecond))
	}
}

// tell runs a callback other than Event, unless the broker is being closed. A panic in it is
// logged and goes no further: the process and everybody else's channels live on. The caller
// holds calls.
func (r *Redis) tell(callback func()) {
	if r.closing.Load() {
		return
	}
	defer func() {
		if value := recover(); value != nil {
			r.report("callback", &callbackPanic{value: value, stack: debug.Stack()})
		}
	}()
	callback()
}

// seekFault notes why no node is known, for Health.
func (r *Redis) seekFault(where string, err error) {
	r.report(where, err)
	r.mutex.Lock()
	r.fault = where + ": " + plainWords(err)
	r.mutex.Unlock()
	r.tellHealth()
}

// tellHealth works out the health anew and tells it if it changed.
func (r *Redis) tellHealth() {
	r.calls.Lock()
	defer r.calls.Unlock()
	r.mutex.Lock()
	now := r.assess()
	changed := now.Delivering != r.health.Delivering || now.Reason != r.health.Reason
	if now.Delivering != r.health.Delivering {
		now.Since = time.Now()
	}
	r.health = now
	r.mutex.Unlock()
	if changed {
		r.tell(func() { r.callbacks.Health(now) })
	}
}

// assess sums up the nodes that carry subscriptions. The caller holds mutex.
func (r *Redis) assess() Health {
	health := Health{Reached: r.health.Reached, Since: r.health.Since}
	for _, n := range r.nodes {
		if n == nil || !r.carries(n) {
			continue
		}
		health.Nodes++
		if n.delivering {
			health.NodesDelivering++
		} else if health.Reason == "" {
			health.Reason = n.address + ": " + n.fault
		}
	}
	if health.Nodes == 0 {
		health.Reason = r.fault
		if health.Reason == "" {
			health.Reason = errNotConnected.Error()
		}
	}
	health.Delivering = health.Nodes > 0 && health.NodesDelivering == health.Nodes
	health.Reached = health.Reached || health.NodesDelivering > 0
	return health
}

// carries reports whether subscriptions depend on n. In a Cluster a primary without any does not
// count: it may be away without anybody missing it.
func (r *Redis) carries(n *node) bool {
	return !r.cluster || n.number == r.plain || n.bySlot > 0
}
