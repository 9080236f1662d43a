package gateway

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/internal/names"
)

// admission counts the streams of the process, of each user and of each address, and refuses
// those above the limits. A stream is counted from before it is parked until its session ends.
type admission struct {
	limits    Limits
	total     atomic.Int64
	full      atomic.Bool // memory is nearly at its bound: nobody enters
	users     holders
	addresses holders
}

// ticket is a place that a stream takes; give it back with leave. No pointers.
type ticket struct {
	user    uint32 // number in admission.users; 0: not counted by user
	address uint32 // number in admission.addresses; 0: not counted by address
}

func newAdmission(limits Limits) *admission {
	return &admission{
		limits: limits,
		users:  holders{tally: names.NewTally()}, addresses: holders{tally: names.NewTally()},
	}
}

// enter takes a place for a stream of user from address. Loopback peers are not counted by
// address.
func (a *admission) enter(user string, address netip.Addr) (t ticket, refused *refusal) {
	if a.full.Load() {
		return ticket{}, refuse(refuseOverloaded, "this gateway has no memory to spare; try again")
	}
	if a.total.Add(1) > int64(a.limits.MaxConnections) && a.limits.MaxConnections > 0 {
		a.total.Add(-1)
		return ticket{}, refuse(refuseOverloaded, "this gateway holds as many streams as max-connections allows; try again")
	}
	ok := true
	if user != "" {
		if t.user, ok = a.users.add(user, a.limits.MaxConnectionsPerUser); !ok {
			a.leave(t)
			return ticket{}, refuse(refuseTooManyConnections, "this user has as many streams as max-connections-per-user allows; close one first")
		}
	}
	if address.IsValid() && !address.IsLoopback() {
		if t.address, ok = a.addresses.add(auth.LimitKey(address), a.limits.MaxConnectionsPerAddress); !ok {
			a.leave(t)
			return ticket{}, refuse(refuseTooManyConnections, "this address has as many streams as max-connections-per-address allows; close one first")
		}
	}
	return t, nil
}

// resume takes the place of a stream that another process let in: it is counted, and not judged again.
// key is as addressKey gives it.
func (a *admission) resume(user, key string) (t ticket) {
	a.total.Add(1)
	if user != "" {
		t.user, _ = a.users.add(user, 0)
	}
	if key != "" {
		t.address, _ = a.addresses.add(key, 0)
	}
	return t
}

// leave gives a place back.
func (a *admission) leave(t ticket) {
	a.total.Add(-1)
	if t.user != 0 {
		a.users.remove(t.user)
	}
	if t.address != 0 {
		a.addresses.remove(t.address)
	}
}

// user is the id of the user whose place t is, "" if it is nobody's.
func (a *admission) user(t ticket) string {
	if t.user == 0 {
		return ""
	}
	return a.users.key(t.user)
}

// isUser reports whether t is the place of a user, who has an id.
func (a *admission) isUser(t ticket, user string) bool {
	return t.user != 0 && a.users.is(t.user, user)
}

// hasUser reports whether a stream of a user is here, or about to be.
func (a *admission) hasUser(user string) bool { return a.users.has(user) }

// address is where the stream whose place t is comes from, as it is counted: of IPv6 the /64. It is
// "" for this machine.
func (a *admission) address(t ticket) string {
	return auth.LimitKeyText(a.addressKey(t))
}

// addressKey is the key of that address, as [auth.LimitKey] makes it.
func (a *admission) addressKey(t ticket) string {
	if t.address == 0 {
		return ""
	}
	return a.addresses.key(t.address)
}

// holders is a tally for many goroutines. Its lock is held for no longer than a look-up takes.
type holders struct {
	mutex sync.Mutex
	tally *names.Tally
}

func (h *holders) add(key string, limit int) (number uint32, ok bool) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	return h.tally.Add(key, limit)
}

func (h *holders) remove(number uint32) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.tally.Remove(number)
}

func (h *holders) has(key string) bool {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	return h.tally.Has(key)
}

func (h *holders) is(number uint32, key string) bool {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	return h.tally.View(number) == key
}

func (h *holders) key(number uint32) string {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	return h.tally.Key(number)
}
