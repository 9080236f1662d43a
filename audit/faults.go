package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/redistest"
)

// faults breaks what may break, one thing after the other.
type faults struct {
	house  *house
	ledger *ledger
	store  store // of the publisher
	random *rand.Rand
	owners map[int]int // of the slots that were moved: indexes of nodes

	kills, killed, stops, restarts, failovers, migrations int
}

// kinds of connections that a gateway has to Redis, by what CLIENT LIST shows.
var connectionKinds = []string{"pub/sub", "tracking", "command", "all"}

// run breaks things until ctx ends, and then leaves all servers running.
func (f *faults) run(ctx context.Context) error {
	kill := time.NewTicker(f.house.plan.killEvery)
	defer kill.Stop()
	special := f.special()
	timer := time.NewTimer(special.first)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-kill.C:
			if err := f.kill(); err != nil {
				return err
			}
		case <-timer.C:
			if err := special.do(ctx); err != nil {
				return err
			}
			timer.Reset(special.pause)
		}
	}
}

// special is the scenario's own fault.
type special struct {
	first, pause time.Duration
	do           func(context.Context) error
}

func (f *faults) special() special {
	p := f.house.plan
	switch p.scenario {
	case scenarioSentinel:
		return special{first: p.duration / 3, pause: time.Hour, do: f.failOver}
	case scenarioCluster:
		return special{first: time.Second, pause: 300 * time.Millisecond, do: f.migrate}
	case scenarioSoak:
		return special{first: p.soak.faultEvery / 2, pause: max(p.soak.faultEvery-p.stopFor, time.Second), do: f.stopOrRestart}
	}
	pause := p.duration / time.Duration(p.stops+1)
	return special{first: pause, pause: max(pause-p.stopFor, time.Second), do: f.stop}
}

// kill closes connections of the gateways, of one kind or all.
func (f *faults) kill() error {
	kind := connectionKinds[f.kills%len(connectionKinds)]
	f.kills++
	for _, server := range f.house.servers() {
		list, err := server.Command("CLIENT", "LIST")
		if err != nil {
			if f.house.sentinel != nil {
				continue // it is the one that is stopped
			}
			return fmt.Errorf("kill connections: %w", err)
		}
		for text := range strings.Lines(list) {
			id, ofKind := connection(text)
			if id == "" || kind != "all" && kind != ofKind {
				continue
			}
			if _, err := server.Command("CLIENT", "KILL", "ID", id); err == nil {
				f.killed++ // else it was gone already
			}
		}
	}
	return nil
}

// connection reads one line of CLIENT LIST: the id of a gateway's connection, "" for any other,
// and its kind.
func connection(text string) (id, kind string) {
	fields := make(map[string]string)
	for _, word := range strings.Fields(text) {
		name, value, _ := strings.Cut(word, "=")
		fields[name] = value
	}
	switch flags := fields["flags"]; {
	case fields["name"] != "millrace":
		return "", ""
	case strings.Contains(flags, "P"):
		return fields["id"], "pub/sub"
	case strings.Contains(flags, "t"):
		return fields["id"], "tracking"
	default:
		return fields["id"], "command"
	}
}

// restartEvery says how many of the larger faults of a soak share one restart of Redis.
const restartEvery = 5

// stopOrRestart stops Redis, or now and then kills it and starts it anew: the second time first, so that a
// short soak has both.
func (f *faults) stopOrRestart(ctx context.Context) error {
	if (f.stops+f.restarts)%restartEvery == 1 {
		return f.restart(ctx)
	}
	return f.freeze(ctx)
}

// restart kills Redis and starts it anew, with what is in its file: all that it had acknowledged. It
// waits until nobody writes, so that nothing is in doubt.
func (f *faults) restart(ctx context.Context) error {
	f.house.writing.Lock()
	defer f.house.writing.Unlock()
	f.restarts++
	if err := f.house.server.Revive(); err != nil {
		return fmt.Errorf("start Redis anew: %w", err)
	}
	deadline := time.Now().Add(restartTimeout)
	for {
		err := f.store.client().Do(ctx, f.store.client().B().Ping().Build()).Error()
		switch {
		case err == nil || ctx.Err() != nil:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("reach Redis after its restart: %w", err)
		}
		sleep(ctx, pollPause)
	}
}

// restartTimeout bounds how long Redis may read its file.
const restartTimeout = time.Minute

// stop freezes Redis, as often as is planned.
func (f *faults) stop(ctx context.Context) error {
	if f.stops == f.house.plan.stops {
		return nil
	}
	return f.freeze(ctx)
}

// freeze stops Redis for a while: connections stay, nothing answers.
func (f *faults) freeze(ctx context.Context) error {
	f.stops++
	f.house.server.Stop()
	defer f.house.server.Cont()
	sleep(ctx, f.house.plan.stopFor)
	return nil
}

const (
	failoverTimeout = 30 * time.Second
	// afterlife is how long the old primary stays frozen once there is a new one.
	afterlife = 2 * time.Second
)

// failOver freezes the primary until the Sentinels have made another, and then lets it live on: it
// thinks that it is the primary until it is told.
func (f *faults) failOver(ctx context.Context) error {
	group := f.house.sentinel
	before, err := group.PrimaryAddr()
	if err != nil {
		return err
	}
	group.Primary.Stop()
	defer group.Primary.Cont()
	deadline := time.Now().Add(failoverTimeout)
	for {
		address, err := group.PrimaryAddr()
		switch {
		case err == nil && address != before:
			f.failovers++
			sleep(ctx, afterlife)
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("the Sentinels made no other primary within %v", failoverTimeout)
		}
		time.Sleep(pollPause) // to its end, also when no more faults are wanted: a failover that began has to come about
	}
}

// migrate moves the slot of a random channel, with or without a key, to another node.
func (f *faults) migrate(context.Context) error {
	cluster := f.house.cluster
	lines := f.ledger.lines[f.random.IntN(int(modeCount))]
	one := lines[f.random.IntN(len(lines))]
	slot, err := cluster.SlotOf(one.name)
	if err != nil {
		return err
	}
	from, known := f.owners[slot]
	if !known {
		from = indexOf(cluster.Nodes, cluster.Owner(slot))
	}
	to := (from + 1 + f.random.IntN(len(cluster.Nodes)-1)) % len(cluster.Nodes)
	if err := cluster.MigrateSlot(slot, cluster.Nodes[from], cluster.Nodes[to]); err != nil {
		return fmt.Errorf("move the slot of %s: %w", one.name, err)
	}
	f.owners[slot] = to
	f.migrations++
	return nil
}

func indexOf(all []*redistest.Server, one *redistest.Server) int {
	for index, server := range all {
		if server == one {
			return index
		}
	}
	return -1
}

// String says what was done.
func (f *faults) String() string {
	text := fmt.Sprintf("%d kills (%d connections)", f.kills, f.killed)
	if f.stops > 0 {
		text += fmt.Sprintf(", Redis stopped %d times for %v", f.stops, f.house.plan.stopFor)
	}
	if f.restarts > 0 {
		text += fmt.Sprintf(", killed and started anew %d times", f.restarts)
	}
	if f.failovers > 0 {
		text += fmt.Sprintf(", %d failover with the old primary alive", f.failovers)
	}
	if f.migrations > 0 {
		text += fmt.Sprintf(", %d slots moved", f.migrations)
	}
	if f.house.proxy != nil {
		text += fmt.Sprintf(", SABOTAGE: %d messages swallowed", f.house.proxy.swallowed.Load())
	}
	return text
}
