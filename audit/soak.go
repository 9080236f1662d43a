package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// soakPlan is what a soak does besides.
type soakPlan struct {
	crowd      string        // path of the crowd's binary
	streams    int           // of the throng
	channels   int           // of each mode, for the throng
	round      time.Duration // between two events of one of these channels
	visits     int           // a second, of the churn
	abusePause time.Duration // between two abuses of one kind
	faultEvery time.Duration // between two of Redis's larger faults
	sample     time.Duration // between two samples
	warmUp     time.Duration // how long samples do not count
}

const (
	soakKillEvery  = 15 * time.Second
	soakStopFor    = 3500 * time.Millisecond
	soakFaultEvery = time.Minute
	soakSample     = 10 * time.Second
	soakWarmUp     = 10 * time.Minute
	soakVisits     = 200
	soakAbusePause = 5 * time.Second
	soakRound      = time.Second
	throngChannels = 40
	// soakEntriesMax of a log are more than who is away for some seconds can miss, and so few that
	// Redis's memory does not grow for long.
	soakEntriesMax = 500
	// soakSamples is how many samples a short soak takes, at least.
	soakSamples = 30
)

// fill sets what depends on the soak's length: one of some minutes shows as many faults as it can,
// and samples accordingly.
func (s *soakPlan) fill(duration time.Duration) {
	s.channels, s.round, s.visits, s.abusePause = throngChannels, soakRound, soakVisits, soakAbusePause
	s.faultEvery = min(soakFaultEvery, duration/4)
	s.sample = min(soakSample, duration/soakSamples)
	s.warmUp = min(soakWarmUp, duration/2)
}

// strain is what a soak puts on the gateways besides the clients that are judged one by one, and
// the measuring of it. Its parts are its own until close.
type strain struct {
	plan     plan
	house    *house
	store    store
	throng   *throng
	churn    *churn
	abuse    *abusers
	meters   []*meter
	began    time.Time
	throngs  []throngReport
	leftover []string // what was not given back when everybody had gone
}

// openStrain measures the gateways while they are empty. The caller closes the strain.
func openStrain(p plan, h *house, s store) (*strain, error) {
	addresses := make([]string, 0, len(h.gateways))
	t := &strain{plan: p, house: h, store: s}
	for _, one := range h.gateways {
		addresses = append(addresses, one.address)
		m, err := newMeter(one)
		if err != nil {
			return t, err
		}
		t.meters = append(t.meters, m)
	}
	t.churn = newChurn(p, addresses)
	t.abuse = newAbusers(p, addresses)
	return t, nil
}

// gather brings the throng in, and waits until all of it listens.
func (t *strain) gather(ctx context.Context, say func(string, ...any)) error {
	var err error
	if t.throng, err = openThrong(t.plan, t.house.gateways); err != nil {
		return err
	}
	if err := t.throng.gather(ctx); err != nil {
		return err
	}
	say("%d streams of the crowd listen", t.plan.soak.streams)
	return nil
}

// run publishes to the throng, churns, abuses and measures until ctx ends. An error calls stop, which has to
// end ctx.
func (t *strain) run(ctx context.Context, stop func(), say func(string, ...any)) error {
	t.began = time.Now()
	var published, measured error
	var all sync.WaitGroup
	all.Go(func() {
		if published = t.throng.publish(ctx, t.store); published != nil {
			stop()
		}
	})
	all.Go(func() {
		if measured = t.measure(ctx, say); measured != nil {
			stop()
		}
	})
	all.Go(func() { t.churn.run(ctx) })
	all.Go(func() { t.abuse.run(ctx) })
	all.Wait()
	return errors.Join(published, measured)
}

// sayEvery is how often a soak says how it goes.
const sayEvery = time.Minute

// measure samples all gateways until ctx ends.
func (t *strain) measure(ctx context.Context, say func(string, ...any)) error {
	ticker := time.NewTicker(t.plan.soak.sample)
	defer ticker.Stop()
	said := t.began
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if ctx.Err() != nil { // both at once: visitors leave already
				return nil
			}
		}
		for _, one := range t.meters {
			if err := one.sample(time.Since(t.began)); err != nil {
				return err
			}
		}
		if time.Since(said) < sayEvery {
			continue
		}
		said = time.Now()
		for number, one := range t.meters {
			say("%v: gateway %d: %s", time.Since(t.began).Round(time.Second), number+1, one.latest())
		}
		say("%s; %s", t.churn, t.abuse)
	}
}

// settle publishes to the throng until the last number has come to everybody, and keeps what it
// says then.
func (t *strain) settle(ctx context.Context) error {
	var err error
	t.throngs, err = t.throng.finish(ctx, t.store, t.plan.settle)
	return err
}

// leave sends the throng home and waits until the gateways have forgotten everybody. All clients
// have gone before.
func (t *strain) leave(ctx context.Context) error {
	t.throng.close()
	for number, one := range t.meters {
		left, err := one.leftover(ctx, t.plan.settle)
		if err != nil {
			return err
		}
		if one.reasons, err = one.gateway.reasons(); err != nil {
			return err
		}
		for _, what := range left {
			t.leftover = append(t.leftover, fmt.Sprintf("gateway %d %s", number+1, what))
		}
	}
	return nil
}

// close ends the throng, where it still is.
func (t *strain) close() {
	if t.throng != nil {
		t.throng.close()
	}
}
