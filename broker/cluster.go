package broker

import (
	"context"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// formerForget is how long the address of a former node is still asked for the slots.
const formerForget = 5 * time.Minute

// plainPatience is how long the node of plain channels may be away before another takes its place.
// The nodes tell each other of events, so that another one may have heard a little less than the one
// that was lost: who goes there at once, because of a mere cut, may be told again what he was told.
const plainPatience = time.Second

// plainOnPatience is how long the node of [RedisOptions].PlainOn may take to be connected for the first time.
const plainOnPatience = 5 * time.Second

// slotRange is one row of CLUSTER SLOTS: the primary of the slots from first to last.
type slotRange struct {
	first, last int
	address     string
}

// followCluster reads the slots at the start, at every sign of change and now and then, and
// gives each primary a node.
func (r *Redis) followCluster() {
	var again backoff
	for {
		r.mutex.Lock()
		horizon := r.lowestHorizon()
		r.mutex.Unlock()
		ranges, err := r.readSlots()
		wait := jitter(topologyInterval)
		switch {
		case r.ctx.Err() != nil:
			return
		case err == nil:
			again.reset()
			if r.applySlots(ranges, horizon) {
				wait = min(wait, plainPatience)
			}
		default:
			r.seekFault("cluster", err)
			wait = again.step()
		}
		if !pause(r.ctx, topologyPause, nil) || !pause(r.ctx, wait, r.refresh) {
			return
		}
	}
}

// readSlots asks the nodes that serve now, the addresses of the URL, and those that were nodes a
// while ago, all at once, and returns the view that most of them share. Any node may answer with
// yesterday's view for a moment, and whoever acts on that is told MOVED and asks again; but one
// that was cut off from the rest must not become our only source.
func (r *Redis) readSlots() ([]slotRange, error) {
	sources := r.slotSources()
	views := make([][]slotRange, len(sources))
	faults := make([]error, len(sources))
	var asked sync.WaitGroup
	at := 0
	for address, s := range sources {
		index := at
		at++
		asked.Go(func() {
			ask := func(ctx context.Context, client rueidis.Client) error {
				ctx, cancel := context.WithTimeout(ctx, canaryInterval)
				defer cancel()
				views[index], faults[index] = askSlots(ctx, client, address)
				return faults[index]
			}
			if s != nil {
				_ = ask(s.ctx, s.client)
			} else {
				faults[index] = r.visit(address, ask)
			}
		})
	}
	asked.Wait()
	if best := mostShared(views); best != nil {
		return best, nil
	}
	for _, fault := range faults {
		if fault != nil {
			return nil, fault
		}
	}
	return nil, errNoSlots
}

// slotSources returns who can be asked for the slots, and by which session; nil is for a
// connection that must be made.
func (r *Redis) slotSources() map[string]*session {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	sources := make(map[string]*session)
	for _, address := range r.target.addresses {
		sources[address] = nil
	}
	for address, at := range r.former {
		if time.Since(at) > formerForget {
			delete(r.former, address)
			continue
		}
		sources[address] = nil
	}
	for _, n := range r.nodes {
		if n != nil && n.session != nil {
			sources[n.address] = n.session
		}
	}
	return sources
}

// mostShared returns the view that came most often, of equally shared ones the one that knows
// more slots.
func mostShared(views [][]slotRange) []slotRange {
	votes := make(map[string]int)
	var best []slotRange
	rank := func(view []slotRange) (int, int) {
		slots := 0
		for _, one := range view {
			slots += one.last - one.first + 1
		}
		return votes[describe(view)], slots
	}
	for _, view := range views {
		if view != nil {
			votes[describe(view)]++
		}
	}
	for _, view := range views {
		if view == nil {
			continue
		}
		shared, slots := rank(view)
		bestShared, bestSlots := 0, 0
		if best != nil {
			bestShared, bestSlots = rank(best)
		}
		if shared > bestShared || shared == bestShared && slots > bestSlots {
			best = view
		}
	}
	return best
}

func describe(ranges []slotRange) string {
	var text strings.Builder
	for _, one := range ranges {
		text.WriteString(strconv.Itoa(one.first) + "-" + strconv.Itoa(one.last) + "=" + one.address + " ")
	}
	return text.String()
}

// askSlots runs CLUSTER SLOTS. CLUSTER SHARDS would tell more, but on Redis 7 tells it wrongly
// after a failover.
func askSlots(ctx context.Context, client rueidis.Client, asked string) ([]slotRange, error) {
	rows, err := client.Do(ctx, client.B().ClusterSlots().Build()).ToArray()
	if err != nil {
		return nil, err
	}
	var ranges []slotRange
	for _, row := range rows {
		fields, err := row.ToArray()
		if err != nil || len(fields) < 3 {
			continue
		}
		first, firstErr := fields[0].AsInt64()
		last, lastErr := fields[1].AsInt64()
		primary, primaryErr := fields[2].ToArray()
		if firstErr != nil || lastErr != nil || primaryErr != nil || len(primary) < 2 ||
			first < 0 || last >= slotCount || first > last {
			continue
		}
		host, _ := primary[0].ToString()
		port, portErr := primary[1].AsInt64()
		if host == "?" || portErr != nil {
			continue // a node whose address nobody knows yet
		}
		if host == "" { // the one that was asked, which does not know its own name
			host, _, _ = net.SplitHostPort(asked)
		}
		ranges = append(ranges, slotRange{int(first), int(last), net.JoinHostPort(host, strconv.FormatInt(port, 10))})
	}
	if len(ranges) == 0 {
		return nil, errNoSlots
	}
	return ranges, nil
}

// applySlots makes the nodes and the table of slots what the Cluster says, moves subscriptions
// whose place changed, and gives up the nodes that are no primaries any more.
//
// horizon is how far all nodes were read before the Cluster was asked. Only when no slot has
// moved by then is that true of every log: one that Redis does not hold yet moves with its slot
// without a word, and what is then appended is told by a node that nobody asked.
//
// waits says that the node of plain channels is away, and that it is soon time to take another.
func (r *Redis) applySlots(ranges []slotRange, horizon uint64) (waits bool) {
	r.mutex.Lock()
	known := make(map[string]*node)
	for _, n := range r.nodes {
		if n != nil {
			known[n.address] = n
		}
	}
	slots := new([slotCount]int16)
	for slot := range slots {
		slots[slot] = noNode
	}
	current := make(map[string]bool)
	for _, one := range ranges {
		current[one.address] = true
		if known[one.address] == nil {
			known[one.address] = r.addNode(one.address)
		}
		for slot := one.first; slot <= one.last; slot++ {
			slots[slot] = known[one.address].number
		}
	}
	changed := r.slots == nil || *r.slots != *slots
	r.slots, r.fault = slots, ""
	r.countSlots()
	if !changed {
		r.raiseHorizon(horizon)
	}
	plain := r.choosePlain(current)
	changed = changed || plain != r.plain
	r.plain = plain
	waits = plain != noNode && r.nodes[plain].session == nil
	var gone []*node
	for address, n := range known {
		if !current[address] {
			gone = append(gone, n)
		}
	}
	r.mutex.Unlock()
	if changed {
		r.reassign()
		r.mutex.Lock()
		r.dropHorizons()
		r.mutex.Unlock()
	}
	for _, n := range gone {
		r.giveUp(n)
	}
	if changed {
		r.tellHealth()
	}
	return waits
}

// countSlots counts what each node owns. The caller holds mutex.
func (r *Redis) countSlots() {
	for _, n := range r.nodes {
		if n != nil {
			n.slots = 0
		}
	}
	r.ownerless = false
	for _, number := range r.slots {
		if number == noNode {
			r.ownerless = true
			continue
		}
		r.nodes[number].slots++
	}
}

// choosePlain returns the node of plain channels: the present one while it serves, or did a moment
// ago, else one that does, else any. The caller holds mutex.
func (r *Redis) choosePlain(current map[string]bool) int16 {
	if current[r.plainOn] && time.Since(r.made) < plainOnPatience {
		for _, n := range r.nodes {
			if n != nil && n.address == r.plainOn && !n.opened {
				return n.number // its first connection is on its way
			}
		}
	}
	chosen := noNode
	if r.plain != noNode && current[r.nodes[r.plain].address] {
		chosen = r.plain
	}
	if chosen != noNode {
		if n := r.nodes[chosen]; n.session != nil || time.Since(n.cutAt) < plainPatience {
			return chosen
		}
	}
	for _, n := range r.nodes {
		switch {
		case n == nil || !current[n.address]:
		case n.session != nil:
			return n.number
		case chosen == noNode:
			chosen = n.number
		}
	}
	return chosen
}

// giveUp ends a node and frees its number once nothing points to it.
func (r *Redis) giveUp(n *node) {
	n.stop()
	r.mutex.Lock()
	serving := n.session
	r.mutex.Unlock()
	if serving != nil {
		serving.fail(errRemoved)
	}
	<-n.done
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.nodes[n.number] = nil
	r.former[n.address] = time.Now()
}

// deafToBus reports whether the session carries the plain channels of a Cluster but does not hear
// most of the other nodes: a PUBLISH on those does not reach it, and nothing else would tell.
func (s *session) deafToBus() bool {
	r := s.node.broker
	var others []*session
	r.mutex.Lock()
	if r.cluster && s.node.number == r.plain {
		for _, n := range r.nodes {
			if n != nil && n.session != nil && n.session != s {
				others = append(others, n.session)
			}
		}
	}
	r.mutex.Unlock()
	s.heard.Range(func(number, at any) bool {
		if time.Since(at.(time.Time)) > heardForget {
			s.heard.Delete(number) // a session that is over
		}
		return true
	})
	sure, deaf := 0, 0
	for _, other := range others {
		if !other.delivered.Load() || min(time.Since(other.opened), time.Since(s.opened)) < busSilence {
			continue
		}
		sure++
		if at, heard := s.heard.Load(other.number); !heard || time.Since(at.(time.Time)) > busSilence {
			deaf++
		}
	}
	return 2*deaf > sure
}
