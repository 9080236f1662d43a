package gateway

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/millrace/millrace/gateway/auth"
)

// admission counts the streams of the process, of each user and of each address, and refuses
// those above the limits. A stream is counted from before it is parked until its session ends.
type admission struct {
	limits    Limits
	total     atomic.Int64
	users     counts[string]
	addresses counts[netip.Addr]
}

// ticket is a place that a stream takes; give it back with leave.
type ticket struct {
	user    string     // empty: not counted by user
	address netip.Addr // zero: not counted by address
}

func newAdmission(limits Limits) *admission {
	return &admission{
		limits: limits,
		users:  counts[string]{of: make(map[string]int32)}, addresses: counts[netip.Addr]{of: make(map[netip.Addr]int32)},
	}
}

// enter takes a place for a stream of user from address. Loopback peers are not counted by
// address.
func (a *admission) enter(user string, address netip.Addr) (ticket, *refusal) {
	t := ticket{user: user}
	if a.total.Add(1) > int64(a.limits.MaxConnections) && a.limits.MaxConnections > 0 {
		a.total.Add(-1)
		return ticket{}, refuse(refuseOverloaded, "this gateway holds as many streams as max-connections allows; try again")
	}
	if user != "" && !a.users.add(user, a.limits.MaxConnectionsPerUser) {
		a.total.Add(-1)
		return ticket{}, refuse(refuseTooManyConnections, "this user has as many streams as max-connections-per-user allows; close one first")
	}
	if address.IsValid() && !address.IsLoopback() {
		t.address = auth.LimitKey(address)
		if !a.addresses.add(t.address, a.limits.MaxConnectionsPerAddress) {
			t.address = netip.Addr{}
			a.leave(t)
			return ticket{}, refuse(refuseTooManyConnections, "this address has as many streams as max-connections-per-address allows; close one first")
		}
	}
	return t, nil
}

// leave gives a place back.
func (a *admission) leave(t ticket) {
	a.total.Add(-1)
	if t.user != "" {
		a.users.remove(t.user)
	}
	if t.address.IsValid() {
		a.addresses.remove(t.address)
	}
}

// counts is a counter per key that forgets keys at zero, so it never holds more than one entry a
// stream.
type counts[K comparable] struct {
	mutex sync.Mutex
	of    map[K]int32
}

func (c *counts[K]) add(key K, limit int) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if limit > 0 && int(c.of[key]) >= limit {
		return false
	}
	c.of[key]++
	return true
}

func (c *counts[K]) remove(key K) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.of[key]--; c.of[key] <= 0 {
		delete(c.of, key)
	}
}
