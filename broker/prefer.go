package broker

// Prefer implements [Broker].
func (r *Redis) Prefer(subs []Subscription) {
	subs = subs[:min(len(subs), PreferMax)]
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for _, index := range r.preferred {
		r.table.at(index).flags &^= flagPreferred // or of whoever has the number now
	}
	r.preferred = r.preferred[:0]
	for _, sub := range subs {
		if sub.Kind >= kindCount {
			continue
		}
		if index, e := r.table.find(sub.Kind, sub.Channel); e != nil {
			e.flags |= flagPreferred
			r.preferred = append(r.preferred, index)
		}
	}
}
