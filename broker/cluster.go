package broker

import (
	"context"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

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
		ranges, err := r.readSlots()
		wait := jitter(topologyInterval)
		switch {
		case r.ctx.Err() != nil:
			return
		case err == nil:
			again.reset()
			r.applySlots(ranges)
		default:
			r.seekFault("cluster", err)
			wait = again.step()
		}
		if !pause(r.ctx, topologyPause, nil) || !pause(r.ctx, wait, r.refresh) {
			return
		}
	}
}

// readSlots asks the nodes that serve now, else the addresses of the URL. Any primary may answer
// with yesterday's view for a moment; whoever acts on it is told MOVED and asks again.
func (r *Redis) readSlots() ([]slotRange, error) {
	var sessions []*session
	r.mutex.Lock()
	for _, n := range r.nodes {
		if n != nil && n.session != nil {
			sessions = append(sessions, n.session)
		}
	}
	r.mutex.Unlock()
	var best []slotRange
	err := errNoSlots
	// The majority of the nodes that serve: a node that was cut off has a view of its own.
	views := make(map[string]int)
	for _, s := range sessions {
		ctx, cancel := context.WithTimeout(s.ctx, canaryInterval)
		ranges, fault := askSlots(ctx, s.client, s.node.target())
		cancel()
		if fault != nil {
			err = fault
			continue
		}
		key := describe(ranges)
		views[key]++
		if best == nil || views[key] > views[describe(best)] {
			best = ranges
		}
	}
	if best != nil {
		return best, nil
	}
	for _, address := range r.target.addresses {
		fault := r.visit(address, func(ctx context.Context, client rueidis.Client) error {
			ranges, fault := askSlots(ctx, client, address)
			best = ranges
			return fault
		})
		if fault == nil && len(best) > 0 {
			return best, nil
		}
		if fault != nil {
			err = fault
		}
	}
	return nil, err
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
func (r *Redis) applySlots(ranges []slotRange) {
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
	plain := r.choosePlain(current)
	changed = changed || plain != r.plain
	r.plain = plain
	var gone []*node
	for address, n := range known {
		if !current[address] {
			gone = append(gone, n)
		}
	}
	r.mutex.Unlock()
	if changed {
		r.reassign()
	}
	for _, n := range gone {
		r.giveUp(n)
	}
	if changed {
		r.tellHealth()
	}
}

// choosePlain returns the node of plain channels: the present one while it serves, else one that
// does, else any. The caller holds mutex.
func (r *Redis) choosePlain(current map[string]bool) int16 {
	chosen := noNode
	if r.plain != noNode && current[r.nodes[r.plain].address] {
		chosen = r.plain
	}
	if chosen != noNode && r.nodes[chosen].session != nil {
		return chosen
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
