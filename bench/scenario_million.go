package bench

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// fleetStreamsEach is how many streams one process of the fleet holds, of 20,000 descriptors:
	// SO_REUSEPORT spreads by hash, so some get a few hundred more.
	fleetStreamsEach = 18_900
	fleetSteps       = 20 // the crowd grows in so many steps, with a look at memory between them
	fleetStepsNoted  = 5  // steps, after which it is said how far it is
	// So many crowd processes connect at once, with so many handshakes under way each: 128 in all
	// keep the machine busy, more would only make each of them wait.
	fleetAtOnce   = 16
	fleetWindow   = 8
	fleetTries    = 3               // after the first, of a handshake that is refused
	fleetSources  = 2               // loopback addresses of each crowd process
	fleetCalm     = 2 * time.Second // from the start of all processes to the first stream
	fleetInterval = 250 * time.Millisecond
	fleetGrace    = 30 * time.Second // without a delivery, before a broadcast is called lost
	// memoryGuard is the part of the machine's memory that must stay available.
	memoryGuard = 0.08
)

// fleet is many gateways that share one port, and the crowds before them.
type fleet struct {
	*cell
	gateways *server // one of them, with all their processes
	crowds   []*crowdClient
	wanted   []int // streams of each crowd
	live     int
	refused  atomic.Int64 // handshakes that were tried again
}

func millionSeconds(s *Settings) float64 {
	return 30 + s.MillionKeepalive + 600*float64(s.Million)/1e6
}

// runMillion holds as many streams as are asked for, half of them over each wire: what they cost,
// at rest and with one event for all of them.
func runMillion(ctx context.Context, c *cell) error {
	f := &fleet{cell: c}
	// So many processes share whatever cores there are.
	c.site.place = c.site.place.everywhere()
	processes := max(len(Wires()), (c.settings.Million+fleetStreamsEach-1)/fleetStreamsEach)
	if err := f.startGateways(ctx, processes); err != nil {
		return err
	}
	if err := f.startCrowds(ctx, processes); err != nil {
		return err
	}
	pause(ctx, fleetCalm)
	if err := f.ramp(ctx); err != nil {
		return err
	}
	if err := f.rest(ctx); err != nil {
		return err
	}
	return f.broadcast(ctx)
}

func (f *fleet) startGateways(ctx context.Context, count int) error {
	address, err := freeAddress()
	if err != nil {
		return err
	}
	for range count {
		running, err := f.start(ctx, startOptions{address: address})
		if err != nil {
			return err
		}
		if f.gateways != nil {
			running.children = append(running.children, f.gateways.children...)
		}
		f.gateways = running
	}
	// Redis has a machine of its own where there are so many gateways; here it must not wait for them.
	f.site.redisServer.prioritize(nicenessMeasured)
	// A connection is spread over those that listen at its moment: all must.
	return f.gateways.children[0].await(ctx, "listen, all of them", func() bool {
		return listeners(address) >= count
	})
}

// listeners counts the sockets that listen on an address of IPv4.
func listeners(address string) int {
	_, port, _ := net.SplitHostPort(address)
	number, _ := strconv.Atoi(port)
	text, _ := os.ReadFile("/proc/net/tcp")
	count := 0
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) > 3 && fields[3] == "0A" && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", number)) {
			count++
		}
	}
	return count
}

func (f *fleet) startCrowds(ctx context.Context, count int) error {
	for i := range count {
		crowd, err := f.site.crowd(ctx)
		if err != nil {
			return err
		}
		crowd.interval = fleetInterval
		f.crowds = append(f.crowds, crowd)
		share := f.settings.Million / count
		if i < f.settings.Million%count {
			share++
		}
		f.wanted = append(f.wanted, share)
	}
	return nil
}

// everyCrowd does something with all crowds, some at a time, and gives the first error.
func (f *fleet) everyCrowd(atOnce int, do func(i int, crowd *crowdClient) error) error {
	errs := make([]error, len(f.crowds))
	turns := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i, crowd := range f.crowds {
		turns <- struct{}{}
		all.Go(func() {
			errs[i] = do(i, crowd)
			<-turns
		})
	}
	all.Wait()
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("crowd %d: %w", i, err)
		}
	}
	return nil
}

// ramp connects everybody, step by step, and measures memory before and after.
func (f *fleet) ramp(ctx context.Context) error {
	before, kernelBefore, err := f.memory()
	if err != nil {
		return err
	}
	total := thisMachine("").MemoryBytes
	var took time.Duration
	for step := range fleetSteps {
		began := time.Now()
		if err := f.everyCrowd(fleetAtOnce, func(i int, crowd *crowdClient) error { return f.grow(ctx, i, crowd, step) }); err != nil {
			return err
		}
		took += time.Since(began)
		if step%fleetStepsNoted == fleetStepsNoted-1 {
			f.say(fmt.Sprintf("million: step %d of %d, %.0f s", step+1, fleetSteps, took.Seconds()))
		}
		left, err := availableBytes()
		if err != nil {
			return err
		}
		if float64(left) < memoryGuard*float64(total) && step < fleetSteps-1 {
			f.say(fmt.Sprintf("million: stopped after step %d of %d: only %s of memory are left", step+1, fleetSteps, showBytes(float64(left))))
			break
		}
	}
	if refused := f.refused.Load(); refused > 0 {
		f.say(fmt.Sprintf("million: %d handshakes were refused and tried again", refused))
	}
	if f.live, err = f.liveStreams(); err != nil {
		return err
	}
	pause(ctx, secondsOf(f.settings.Settle))
	after, kernelAfter, err := f.memory()
	if err != nil {
		return err
	}
	f.add("connect", map[string]float64{
		metricStreams: float64(f.live), metricRefused: float64(f.refused.Load()), metricSeconds: took.Seconds(), metricPerSecond: float64(f.live) / took.Seconds(),
		metricMemoryBytes: float64(after), metricBaseBytes: float64(before), metricProcesses: float64(len(f.crowds)),
		metricStreamsBytes: float64(after - before), metricBytesPerStream: float64(after-before) / float64(f.live),
		metricKernelBytes: float64(kernelAfter - kernelBefore), metricKernelPerStream: float64(kernelAfter-kernelBefore) / float64(f.live),
	})
	return ctx.Err()
}

// grow connects one step's share of one crowd. On a busy machine a gateway may not hear from Redis
// in time and refuse: that is counted, and tried again.
func (f *fleet) grow(ctx context.Context, i int, crowd *crowdClient, step int) error {
	wire := Wires()[i%len(Wires())]
	plan := f.gateways.plan(wire, f.wanted[i]*(step+1)/fleetSteps-f.wanted[i]*step/fleetSteps)
	plan.Window, plan.Sources, plan.SourceFirst = fleetWindow, fleetSources, i*fleetSources
	refused, err := crowd.insist(ctx, plan, connectLimit, fleetTries)
	f.refused.Add(int64(refused))
	return err
}

func (f *fleet) memory() (process, kernel int64, err error) {
	if process, err = residentBytes(f.gateways.pids()); err != nil {
		return 0, 0, err
	}
	kernel, err = kernelBytes()
	return process, kernel, err
}

func (f *fleet) liveStreams() (int, error) {
	live := 0
	for _, crowd := range f.crowds {
		reply, err := crowd.ask(crowdCommand{Op: "status"})
		if err != nil {
			return 0, err
		}
		live += reply.Live
	}
	return live, nil
}

// rest watches all streams while nothing happens.
func (f *fleet) rest(ctx context.Context) error {
	f.say(fmt.Sprintf("million: %d streams are live and left alone for %.0f s", f.live, f.settings.MillionKeepalive))
	before, err := cpuTime(f.gateways.pids())
	if err != nil {
		return err
	}
	pause(ctx, secondsOf(f.settings.MillionKeepalive))
	after, err := cpuTime(f.gateways.pids())
	if err != nil {
		return err
	}
	live, err := f.liveStreams()
	if err != nil {
		return err
	}
	if live != f.live {
		return fmt.Errorf("%d of %d streams were left after %.0f s at rest", live, f.live, f.settings.MillionKeepalive)
	}
	f.add("rest", map[string]float64{
		metricCPUSeconds: seconds(after-before) * 60 / f.settings.MillionKeepalive,
		metricSeconds:    f.settings.MillionKeepalive, metricStreams: float64(live),
	})
	return ctx.Err()
}

// broadcast publishes one message, once, for everybody.
func (f *fleet) broadcast(ctx context.Context) error {
	if err := f.everyCrowd(len(f.crowds), func(_ int, crowd *crowdClient) error { return crowd.reset() }); err != nil {
		return err
	}
	l, err := f.newLoad(f.gateways, f.crowds[0], f.live)
	if err != nil {
		return err
	}
	before, err := cpuTime(f.gateways.pids())
	if err != nil {
		return err
	}
	began, err := l.publisher.burst(sharedChannel, 1)
	if err != nil {
		return err
	}
	m := &measured{sent: 1, expected: uint64(f.live)}
	var first, last int64
	merged := newLatency()
	var mutex sync.Mutex
	err = f.everyCrowd(len(f.crowds), func(_ int, crowd *crowdClient) error {
		live, err := crowd.ask(crowdCommand{Op: "status"})
		if err != nil {
			return err
		}
		if _, err := crowd.delivered(ctx, uint64(live.Live), fleetGrace); err != nil {
			return err
		}
		reply, err := crowd.report()
		if err != nil {
			return err
		}
		latency, err := reply.latency()
		if err != nil {
			return err
		}
		mutex.Lock()
		defer mutex.Unlock()
		merged.Merge(latency)
		m.reply.Deliveries += reply.Deliveries
		m.reply.Lost += reply.Lost
		m.reply.Repeated += reply.Repeated
		if reply.FirstNanos != 0 && (first == 0 || reply.FirstNanos < first) {
			first = reply.FirstNanos
		}
		last = max(last, reply.LastNanos)
		return nil
	})
	if err != nil {
		return err
	}
	after, err := cpuTime(f.gateways.pids())
	if err != nil {
		return err
	}
	m.cpu = after - before
	f.add("broadcast", m.counts(), histogramMetrics(merged), map[string]float64{
		metricFirstSeconds: seconds(first - began), metricSeconds: seconds(last - began),
	})
	return nil
}
