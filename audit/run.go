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
	closing chan struct{} // closed when clients shall stay where they are and read
	log     io.Writer
}

// crowdWindow is how many clients begin at once: a crowd that comes in one moment is another
// test's subject.
const crowdWindow = 20 * time.Millisecond

// newAudit sets the clients up, without starting anything.
func newAudit(p plan, log io.Writer) *audit {
	return &audit{plan: p, ledger: newLedger(p.channels), closing: make(chan struct{}), log: log}
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
	breaking, err := a.publish(ctx, all)
	if err == nil {
		err = a.finish(ctx, all)
	}
	result := &report{plan: a.plan, faults: breaking, unsettled: a.unsettled()}
	for _, one := range a.house.gateways {
		if err == nil {
			var stats string
			stats, err = one.stats()
			result.stats = append(result.stats, stats)
		}
	}
	stopListening()
	clients.Wait()
	if err != nil {
		return nil, err
	}
	return result, a.judge(result, way)
}

// publish writes while things break.
func (a *audit) publish(ctx context.Context, all []*publisher) (*faults, error) {
	during, stop := context.WithTimeout(ctx, a.plan.duration)
	defer stop()
	breaking := &faults{
		house: a.house, ledger: a.ledger, owners: make(map[int]int),
		random: rand.New(rand.NewPCG(a.plan.seed, 1<<32)),
	}
	var publishing sync.WaitGroup
	for _, one := range all {
		publishing.Go(func() { one.run(during) })
	}
	err := breaking.run(during)
	stop()
	publishing.Wait()
	if ctx.Err() != nil {
		return breaking, ctx.Err()
	}
	return breaking, err
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
