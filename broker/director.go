package broker

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

const (
	// sentinelInterval is how often the Sentinels are asked who the primary is.
	sentinelInterval = time.Second
	// topologyInterval is how often a Cluster's slots are read without a reason.
	topologyInterval = 5 * time.Second
	// topologyPause is the least time between two readings, however many reasons there are.
	topologyPause = 100 * time.Millisecond
)

// findNodes finds out what the addresses of a plain URL are: one standalone server, or nodes of
// a Cluster, which it then follows.
func (r *Redis) findNodes() {
	var again backoff
	for {
		address, mode, err := r.findMode()
		switch {
		case err != nil:
		case mode == "sentinel":
			err = errIsSentinel
		case mode == "cluster":
			r.mutex.Lock()
			r.cluster = true
			r.mutex.Unlock()
			r.followCluster()
			return
		case len(r.target.addresses) > 1:
			err = errNotCluster
		default:
			r.settleOn(address)
			return
		}
		r.seekFault(address, err)
		if !pause(r.ctx, again.step(), nil) {
			return
		}
	}
}

// findMode asks the addresses in turn until one answers.
func (r *Redis) findMode() (address, mode string, err error) {
	for _, address = range r.target.addresses {
		var found identity
		err = r.visit(address, func(ctx context.Context, client rueidis.Client) error {
			found, err = identify(ctx, client)
			return err
		})
		if err == nil || r.ctx.Err() != nil {
			return address, found.mode, err
		}
	}
	return address, "", err
}

// visit connects to a server for one exchange.
func (r *Redis) visit(address string, do func(context.Context, rueidis.Client) error) error {
	l := newLine(r.ctx, nil)
	client, err := r.connect(l, r.clientOption(l, address))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.ctx, dialTimeout)
	defer cancel()
	err = do(ctx, client)
	l.sever()
	client.Close()
	return err
}

// settleOn makes the server at address the node of all subscriptions.
func (r *Redis) settleOn(address string) {
	r.mutex.Lock()
	r.plain = r.addNode(address).number
	r.fault = ""
	r.mutex.Unlock()
	r.reassign()
	r.tellHealth()
}

// reassign gives every entry the node that should carry it now. What was confirmed on another
// one is reported as lost.
func (r *Redis) reassign() {
	r.mutex.Lock()
	chunks := len(r.table.chunks)
	r.mutex.Unlock()
	for chunk := range chunks {
		r.loseChunk(chunk, func(index uint32, e *entry) bool {
			before, session := e.node, r.confirmedBy(e)
			r.assign(e)
			if e.node == before {
				return false
			}
			lost := r.table.confirmedIn(e) != 0
			if session != nil {
				session.release(e)
			}
			r.table.release(e)
			e.flags &^= flagLeaving
			if e.kind().keyed() {
				r.forsake(index, e)
				lost = false
			}
			if e.has(flagWanted) {
				r.enqueue(index, e)
			}
			return lost
		})
	}
}

// sentinel is one Sentinel and the client that asks it, made when needed.
type sentinel struct {
	address string
	line    *line
	client  rueidis.Client
}

// followSentinels keeps the one node pointed at whom most Sentinels call the primary.
func (r *Redis) followSentinels() {
	sentinels := make([]*sentinel, len(r.target.addresses))
	for index, address := range r.target.addresses {
		sentinels[index] = &sentinel{address: address}
	}
	defer func() {
		for _, s := range sentinels {
			s.close()
		}
	}()
	var primary *node
	for {
		address, err := r.vote(sentinels, primary)
		switch {
		case r.ctx.Err() != nil:
			return
		case err != nil && primary == nil:
			r.seekFault("sentinels", err)
		case err != nil:
			r.report("sentinels", err)
		case primary == nil:
			r.settleOn(address)
			r.mutex.Lock()
			primary = r.nodes[r.plain]
			r.mutex.Unlock()
		default:
			primary.move(address, errMoved)
		}
		if !pause(r.ctx, jitter(sentinelInterval), nil) {
			return
		}
	}
}

// vote asks all Sentinels at once and returns the address that most of them name; on a tie the
// present one stays.
func (r *Redis) vote(sentinels []*sentinel, present *node) (string, error) {
	answers := make([]string, len(sentinels))
	faults := make([]error, len(sentinels))
	var asked sync.WaitGroup
	for index, s := range sentinels {
		asked.Go(func() { answers[index], faults[index] = s.ask(r) })
	}
	asked.Wait()
	votes := make(map[string]int)
	best := ""
	if present != nil {
		best = present.target()
	}
	for _, answer := range answers {
		if answer == "" {
			continue
		}
		votes[answer]++
		if votes[answer] > votes[best] {
			best = answer
		}
	}
	if votes[best] > 0 {
		return best, nil
	}
	for _, fault := range faults {
		if fault != nil {
			return "", fault
		}
	}
	return "", errNoPrimary
}

// ask returns whom the Sentinel takes for the primary; empty where it knows no such name.
func (s *sentinel) ask(r *Redis) (string, error) {
	if s.client == nil {
		s.line = newLine(r.ctx, nil)
		option := r.clientOption(s.line, s.address)
		option.Username, option.Password = r.target.sentinelUsername, r.target.sentinelPassword
		option.SelectDB = 0
		client, err := r.connect(s.line, option)
		if err != nil {
			return "", err
		}
		s.client = client
	}
	ctx, cancel := context.WithTimeout(r.ctx, sentinelInterval)
	defer cancel()
	words, err := s.client.Do(ctx, s.client.B().SentinelGetMasterAddrByName().Master(r.target.master).Build()).AsStrSlice()
	switch {
	case rueidis.IsRedisNil(err):
		return "", nil
	case err != nil:
		if _, isReply := redisReply(err); !isReply {
			s.close()
		}
		return "", err
	case len(words) != 2:
		return "", errNoPrimary
	}
	return net.JoinHostPort(words[0], words[1]), nil
}

func (s *sentinel) close() {
	if s.client == nil {
		return
	}
	s.line.sever()
	s.client.Close()
	s.client = nil
}
