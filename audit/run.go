package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"
)

// audit is one run.
type audit struct {
	plan    plan
	house   *house
	ledger  *ledger
	clients []*client
	strain  *strain       // of a soak, else nil
	closing chan struct{} // closed when clients shall stay where they are and read
	log     io.Writer
}

// crowdWindow is how many clients begin at once: a crowd that comes in one moment is another
// test's subject.
const crowdWindow = 20 * time.Millisecond

// newAudit sets the clients up, without starting anything.
func newAudit(p plan, log io.Writer) *audit {
	return &audit{plan: p, ledger: newLedger(p), closing: make(chan struct{}), log: log}
}

// run carries the audit out and gives what came of it.
func (a *audit) run(ctx context.Context) (*report, error) {
	var err error
	a.house, err = openHouse(ctx, a.plan)
	defer a.house.close()
	if err != nil {
		return nil, err
	}
	way, err := a.house.openStore()
	if err != nil {
		return nil, err
	}
	defer way.close()
	if a.plan.scenario == scenarioSoak {
		a.strain, err = openStrain(a.plan, a.house, way)
		defer a.strain.close()
		if err != nil {
			return nil, err
		}
	}
	all := newPublishers(a.plan, a.ledger, way)
	if !each(all, (*publisher).first) {
		return nil, errors.New("the first numbers could not be published")
	}
	a.makeClients()
	listening, stopListening := context.WithCancel(ctx)
	defer stopListening()
	var clients sync.WaitGroup
	for _, one := range a.clients {
		clients.Go(func() {
			sleep(listening, between(one.random, 0, time.Duration(len(a.clients))*time.Millisecond+crowdWindow))
			one.run(listening)
		})
	}
	result, err := a.listen(ctx, all, way)
	stopListening()
	clients.Wait()
	if err == nil && a.strain != nil {
		a.say("everybody leaves")
		err = a.strain.leave(ctx)
	}
	if err != nil {
		return nil, err
	}
	return result, a.judge(result, way)
}

// listen is what happens while the clients listen.
func (a *audit) listen(ctx context.Context, all []*publisher, way store) (*report, error) {
	if a.strain != nil {
		if err := a.strain.gather(ctx, a.say); err != nil {
			return nil, err
		}
	}
	breaking, err := a.publish(ctx, all, way)
	if err != nil {
		return nil, err
	}
	if err := a.finish(ctx, all); err != nil {
		return nil, err
	}
	if a.strain != nil {
		if err := a.strain.settle(ctx); err != nil {
			return nil, err
		}
	}
	result := &report{plan: a.plan, faults: breaking, strain: a.strain, unsettled: a.unsettled()}
	for _, one := range a.house.gateways {
		stats, err := one.stats()
		if err != nil {
			return nil, err
		}
		result.stats = append(result.stats, stats)
	}
	return result, nil
}

// publish writes while things break.
func (a *audit) publish(ctx context.Context, all []*publisher, way store) (*faults, error) {
	during, stop := context.WithTimeout(ctx, a.plan.duration)
	defer stop()
	breaking := &faults{
		house: a.house, ledger: a.ledger, store: way, owners: make(map[int]int),
		random: rand.New(rand.NewPCG(a.plan.seed, 1<<32)),
	}
	var publishing sync.WaitGroup
	for _, one := range all {
		publishing.Go(func() { one.run(during) })
	}
	var strained error
	if a.strain != nil {
		publishing.Go(func() { strained = a.strain.run(during, stop, a.say) })
	}
	err := breaking.run(during)
	stop()
	publishing.Wait()
	return breaking, errors.Join(ctx.Err(), err, strained)
}

// finish waits until all is well again, publishes the last numbers, and waits until they arrive.
// That they do not is no error of the audit, but its result.
func (a *audit) finish(ctx context.Context, all []*publisher) error {
	a.say("nothing breaks any more; waiting for gateways and clients")
	close(a.closing)
	if err := a.house.awaitReady(ctx, a.plan.settle); err != nil {
		return err
	}
	if !a.await(ctx, (*client).confirmed) {
		a.say("not all clients hear their channels")
	}
	if !each(all, func(p *publisher) bool { return p.finish(ctx) }) {
		return errors.New("the last numbers could not be published")
	}
	a.await(ctx, (*client).settled)
	return ctx.Err()
}

// await waits until something is true of all clients, and reports whether it is.
func (a *audit) await(ctx context.Context, done func(*client) bool) bool {
	deadline := time.Now().Add(a.plan.settle)
	for {
		all := true
		for _, one := range a.clients {
			if all = done(one); !all {
				break
			}
		}
		if all || ctx.Err() != nil || time.Now().After(deadline) {
			return all
		}
		sleep(ctx, pollPause)
	}
}

func (a *audit) unsettled() int {
	count := 0
	for _, one := range a.clients {
		if !one.settled() {
			count++
		}
	}
	return count
}

// judge compares what was seen with what was published.
func (a *audit) judge(result *report, way store) error {
	for _, one := range a.ledger.lines[modeLog] {
		numbers, err := held(way.client(), one)
		if err != nil {
			return err
		}
		if err := one.settle(numbers); err != nil {
			return err
		}
	}
	for m := range modeCount {
		for _, one := range a.ledger.lines[m] {
			result.published[m] += one.published()
		}
	}
	for _, one := range a.clients {
		result.take(one)
	}
	return nil
}

func (a *audit) say(format string, arguments ...any) {
	fmt.Fprintf(a.log, "audit: "+format+"\n", arguments...)
}
