package broker

import (
	"context"
	"strings"

	"github.com/redis/rueidis"
)

// originsMax bounds how many origins are remembered. One that is forgotten and comes again counts
// as new, which is a hole too many.
const originsMax = 1000

// origins gives numbers to what data a server held: the run of the server and the history of its
// replication. A server that kept both, however often we lost it, holds all that it ever answered
// for. Another run, or a primary that was a replica in between, may have lost the last writes
// without a trace.
type origins map[string]uint32

// findOrigin asks the server whose data it holds.
func (s *session) findOrigin() error {
	identity, err := s.askIdentity(s.client)
	if err != nil {
		return err
	}
	r := s.node.broker
	r.mutex.Lock()
	defer r.mutex.Unlock()
	s.identity, s.origin = identity, r.originOf(identity, s.number)
	return nil
}

// askIdentity asks on one of the session's connections what data the server holds. It is empty
// where INFO is forbidden, and nothing is sure.
func (s *session) askIdentity(client rueidis.CoreClient) (string, error) {
	ctx, cancel := context.WithTimeout(s.ctx, dialTimeout)
	defer cancel()
	b := client.B()
	identity := ""
	for index, answer := range client.DoMulti(ctx, b.Info().Section("server").Build(), b.Info().Section("replication").Build()) {
		text, err := answer.ToString()
		if _, isReply := redisReply(err); isReply {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		identity += " " + infoField(text, []string{"run_id", "master_replid"}[index])
	}
	return strings.TrimSpace(identity), nil
}

// infoField returns the value of a field of what INFO gave.
func infoField(text, name string) string {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// originOf returns the number of an identity, which is that of the first session that met it.
// Without an identity every session counts as another run. The caller holds mutex.
func (r *Redis) originOf(identity string, session uint32) uint32 {
	if identity == "" {
		return session
	}
	if number, known := r.origins[identity]; known {
		return number
	}
	if len(r.origins) == originsMax {
		clear(r.origins)
	}
	r.origins[identity] = session
	return session
}

// checkOrigin notes that a log may have lost entries if it comes from data that it was not read
// from before. A slot that another node gave away is no such case, as long as that one still
// serves: its entries moved along. The caller holds mutex.
func (t *tracker) checkOrigin(key *trackedKey) {
	if key.origin == t.session.origin {
		return
	}
	if !t.broker.serves(key.origin) {
		key.flags |= keyDoubt
	}
	key.origin = t.session.origin
}

// serves reports whether a node that holds that data has slots and a session now. The caller
// holds mutex.
func (r *Redis) serves(origin uint32) bool {
	for _, n := range r.nodes {
		if n != nil && n.slots > 0 && n.session != nil && n.session.origin == origin && n.session.ctx.Err() == nil {
			return true
		}
	}
	return false
}
