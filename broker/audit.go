package broker

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// auditInterval is how often it is looked whether the server is set up for what is subscribed.
const auditInterval = time.Minute

// audit warns of settings of Redis that will hurt: a table of tracked keys that is too small, and
// eviction where there are logs. It is called by the prober.
func (s *session) audit() {
	r := s.node.broker
	r.mutex.Lock()
	keys, logs := s.node.keys, s.node.logs
	r.mutex.Unlock()
	if keys == 0 || !s.audited.IsZero() && time.Since(s.audited) < auditInterval {
		return
	}
	s.audited = time.Now()
	ctx, cancel := context.WithTimeout(s.ctx, canaryInterval)
	defer cancel()
	b := s.client.B()
	settings, err := s.client.Do(ctx, b.ConfigGet().Parameter("tracking-table-max-keys", "maxmemory", "maxmemory-policy").Build()).AsStrMap()
	if err != nil {
		return // forbidden, or gone: nothing can be said
	}
	address := s.node.target()
	if most, err := strconv.Atoi(settings["tracking-table-max-keys"]); err == nil && most > 0 && keys > most {
		r.advise("tracking "+address, "Redis remembers fewer keys than are subscribed here: changes are told that were none, and keys read for nothing",
			fmt.Sprintf("set tracking-table-max-keys well above the %d keys of this gateway and those of the others, or to 0", keys), "node", address)
	}
	if policy := settings["maxmemory-policy"]; logs > 0 && settings["maxmemory"] != "0" && len(policy) > 8 && policy[:8] == "allkeys-" {
		r.advise("eviction "+address, "Redis may evict logs when its memory is full, which their readers see as a gap",
			"set maxmemory-policy to noeviction or a volatile- one", "node", address, "policy", policy)
	}
}

// advise logs what an operator should know, once a matter and then once a reportInterval.
func (r *Redis) advise(matter, text, advice string, details ...any) {
	r.mutex.Lock()
	unlogged, quiet := r.quiet(matter)
	r.mutex.Unlock()
	if quiet || r.closing.Load() {
		return
	}
	r.logger.Warn(text, append(details, "advice", advice, "unlogged", unlogged)...)
}
