package gateway

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// ordersRemembered is how many orders are remembered for streams that are on their way in.
const ordersRemembered = 256

// recentOrders remembers the orders that were carried out here last. A client whose token is judged,
// whose webhook is asked or whose connection waits for a loop has no stream yet that an order could
// find: the stream obeys, when it comes, what was said since its request began. It is safe for many
// goroutines.
type recentOrders struct {
	count atomic.Uint64 // of all orders so far

	mutex sync.Mutex
	last  [ordersRemembered]*order // by their number, counted around
}

// remember notes an order, before any loop is told of it.
func (r *recentOrders) remember(said *order) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	number := r.count.Load()
	r.last[number%ordersRemembered] = said
	r.count.Store(number + 1)
}

// since gives the orders that came when there had been so many. known is false where some of them are
// forgotten.
func (r *recentOrders) since(count uint64) (list []*order, known bool) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	now := r.count.Load()
	known = now-count <= ordersRemembered
	for number := max(count, now-min(now, ordersRemembered)); number < now; number++ {
		list = append(list, r.last[number%ordersRemembered])
	}
	return list, known
}

// obeyRecent has a stream that comes in obey what was said since its request began, and reports
// whether it goes on. Where nobody knows any more what that was, it does not: its client comes back.
func (s *sessions) obeyRecent(slot netio.Slot, g *guest) bool {
	recent := &s.gateway.orders.recent
	if recent.count.Load() == g.ordersBefore {
		return true
	}
	list, known := recent.since(g.ordersBefore)
	stays := known
	for _, said := range list {
		switch {
		case said.User != "" && said.User != g.who.User:
		case said.Do == orderUnsubscribe:
			if g.wants(said.channel) {
				g.turnAway(said.channel)
				g.taken = append(g.taken, said.channel)
			}
		case said.User != "" || g.wants(said.channel) || g.wants(said.wildcard):
			stays = false
		}
	}
	if !stays {
		s.disconnect(slot)
	}
	return stays
}

// wants reports whether a stream comes for the channel.
func (g *guest) wants(channel proto.Channel) bool {
	return slices.Contains(g.channels, channel) ||
		slices.ContainsFunc(g.wishes, func(wish ask) bool { return wish.channel == channel })
}

// turnAway takes a channel from those that a stream comes for.
func (g *guest) turnAway(channel proto.Channel) {
	for i := len(g.channels) - 1; i >= 0; i-- {
		if g.channels[i] != channel {
			continue
		}
		g.channels = slices.Delete(slices.Clone(g.channels), i, i+1)
		if g.from != nil {
			g.from = slices.Delete(g.from, i, i+1)
		}
	}
	g.wishes = slices.DeleteFunc(g.wishes, func(wish ask) bool { return wish.channel == channel })
}
