package main

import (
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

// The scenarios.
const (
	scenarioPlain    = "plain"    // one Redis, which is stopped now and then
	scenarioSentinel = "sentinel" // a failover, while the old primary lives on
	scenarioCluster  = "cluster"  // slots move between three primaries
	scenarioSoak     = "soak"     // one Redis, a large crowd and abuse, for an hour: nothing may grow
)

// plan is what one audit does.
type plan struct {
	scenario string
	gateway  string        // path of the binary
	duration time.Duration // of publishing, while things break
	clients  int
	channels int // of each mode

	stalling, moving, returning int // clients of each habit; all others are steady

	killEvery time.Duration // between two kills of Redis's connections
	stops     int           // how often Redis is stopped, spread evenly
	stopFor   time.Duration
	sabotage  bool
	seed      uint64

	pause     time.Duration // between two events of a channel, on average
	loudPause time.Duration // the same of a loud one
	settle    time.Duration // how long what was published may take to arrive in the end
	// entriesMax is how many entries of a log Redis keeps at least, 0: all of them.
	entriesMax int

	soak soakPlan // of the scenario soak
}

const (
	// loudChannels of each mode carry large events in quick succession, so that clients that stall
	// on them fall behind.
	loudChannels = 4
	loudBytes    = 2048
	// lateChannels of each mode have no key until the middle of the run; blinkingStates lose theirs
	// again and again.
	lateChannels   = 4
	blinkingStates = 10
	// queueAgeMax is the gateways' max-queue-age: a client that stalls for longer is slow.
	queueAgeMax = time.Second
)

// parsePlan reads the command line. What is not given depends on the scenario.
func parsePlan(arguments []string, output io.Writer) (plan, error) {
	p := plan{pause: 500 * time.Millisecond, loudPause: 40 * time.Millisecond, settle: 90 * time.Second}
	streams := 0
	flags := flag.NewFlagSet("audit", flag.ContinueOnError)
	flags.SetOutput(output)
	flags.StringVar(&p.scenario, "scenario", scenarioPlain, "plain, sentinel, cluster or soak")
	flags.StringVar(&p.gateway, "gateway", "bin/millrace", "path of the gateway's binary")
	flags.DurationVar(&p.duration, "for", 0, "how long to publish while things break (60s; sentinel and cluster 25s; soak 1h)")
	flags.IntVar(&p.clients, "clients", 0, "clients that are judged one by one (2000; sentinel and cluster 200; soak 1500)")
	flags.IntVar(&streams, "streams", 15000, "of the soak: streams in all, these clients and a crowd")
	flags.StringVar(&p.soak.crowd, "crowd", "bin/crowd", "of the soak: path of the crowd's binary")
	flags.BoolVar(&p.sabotage, "sabotage", false, "swallow every 500th message from Redis on its way to the gateways: the audit must fail")
	flags.Uint64Var(&p.seed, "seed", rand.Uint64(), "of the clients' and the publisher's choices")
	if err := flags.Parse(arguments); err != nil {
		return p, err
	}
	switch p.scenario {
	case scenarioPlain:
		p.fill(60*time.Second, 2000, 200)
		p.stops, p.stopFor = 2, 3500*time.Millisecond
	case scenarioSentinel, scenarioCluster:
		p.fill(25*time.Second, 200, 40)
		if p.sabotage {
			return p, fmt.Errorf("--sabotage is not for the scenario %s", p.scenario)
		}
	case scenarioSoak:
		p.fill(time.Hour, 1500, 200)
		return p, p.fillSoak(streams)
	default:
		return p, fmt.Errorf("there is no scenario %q", p.scenario)
	}
	return p, nil
}

// fill sets what was not given.
func (p *plan) fill(duration time.Duration, clients, channels int) {
	if p.duration == 0 {
		p.duration = duration
	}
	if p.clients == 0 {
		p.clients = clients
	}
	p.channels, p.killEvery = channels, 2*time.Second
	each := max(p.clients/40, 8)
	p.stalling, p.moving, p.returning = each, each, each
}

// fillSoak sets what a soak does otherwise: everything happens more slowly, for what counts is how
// long it goes on.
func (p *plan) fillSoak(streams int) error {
	p.soak.streams = streams - p.clients
	if p.soak.streams < 0 {
		return fmt.Errorf("%d streams are fewer than the %d clients among them", streams, p.clients)
	}
	p.pause, p.loudPause, p.settle = time.Second, 200*time.Millisecond, 3*time.Minute
	p.entriesMax = soakEntriesMax
	p.killEvery, p.stopFor = min(soakKillEvery, p.duration/8), soakStopFor
	p.soak.fill(p.duration)
	return nil
}

// rewinds reports whether Redis itself may lose what it had acknowledged.
func (p *plan) rewinds() bool { return p.scenario == scenarioSentinel }
