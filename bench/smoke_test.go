package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/processtest"
)

// Runs that take place side by side have all cores: to keep a server's core for it, a run moves the whole
// process, and so the others in it.

// TestRunWhole measures ours, the floor and the plain servers for a moment: everything is real but
// the size.
func TestRunWhole(t *testing.T) {
	t.Parallel()
	var progress strings.Builder
	result, err := Run(t.Context(), Options{
		Scenarios: []string{"fanout", "unicast"}, Subjects: []string{"millrace", "floor", "plain-go"}, AllCores: true,
		Streams: 100, Rounds: 1, Duration: 500 * time.Millisecond, Binary: program(t), Progress: &progress,
	})
	if err != nil {
		t.Fatal(err)
	}
	if failures := result.Failures(); len(failures) > 0 {
		t.Fatalf("measurements failed: %q", failures)
	}
	if want := 3 * 2 * 3; len(result.Samples) != want {
		t.Errorf("%d samples, expected %d", len(result.Samples), want)
	}
	for i := range result.Samples {
		s := &result.Samples[i]
		if s.missing() != 0 || s.Metrics[metricExpected] == 0 || s.Metrics[metricLost] != 0 || s.Metrics[metricRepeated] != 0 {
			t.Errorf("%s over %s, %s: deliveries are wrong: %v", s.Subject, s.Wire, s.Case, s.Metrics)
		}
		if s.Metrics[metricCPUPerMillion] <= 0 {
			t.Errorf("%s over %s, %s: no CPU time: %v", s.Subject, s.Wire, s.Case, s.Metrics)
		}
	}
	if !strings.Contains(progress.String(), "floor over ws: fanout") {
		t.Errorf("progress says nothing of the floor: %s", &progress)
	}
}

// TestRunGoesOn: a second run with the first one's file measures its own round only.
func TestRunGoesOn(t *testing.T) {
	options := Options{
		Scenarios: []string{"unicast"}, Subjects: []string{"floor"}, Wires: []Wire{WebSocket}, Streams: 50, Rounds: 1,
		Duration: 500 * time.Millisecond, Binary: program(t), Output: filepath.Join(t.TempDir(), "result.json"), Append: true,
	}
	first, err := Run(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	options.Rounds = 2
	if _, err := Run(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	both, err := ReadResult(options.Output)
	if err != nil {
		t.Fatal(err)
	}
	if len(both.Samples) != 2 || both.Samples[0].Round != 1 || both.Samples[1].Round != 2 || both.Settings.Rounds != 2 || both.Seconds <= first.Seconds {
		t.Errorf("after a second round: %d rounds, samples %+v", both.Settings.Rounds, both.Samples)
	}
	if got, want := both.Samples[0].Metrics[metricP99], first.Samples[0].Metrics[metricP99]; got != want {
		t.Errorf("the first round was measured again: p99 is %v, was %v", got, want)
	}
	options.Streams = 51
	if _, err := Run(t.Context(), options); err == nil || !strings.Contains(err.Error(), "settings") {
		t.Errorf("with another crowd: %v", err)
	}
}

// TestRunRest: every other scenario gives its samples, of ours.
func TestRunRest(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ scenarios, cases []string }{
		{
			[]string{"idle", "connect", "stalled"},
			[]string{"idle shared", "idle own", "idle own, token", "connect no token", "connect token", "stalled alone", "stalled beside"},
		},
		{
			[]string{"mixed", "storm", "independence", "gateways"},
			[]string{"mixed alone", "mixed beside a fan-out", "storm during", "independence few others", "independence many others", "gateways one", "gateways ten"},
		},
		{[]string{"keepalive"}, []string{"keepalive idle"}},
		{[]string{"restart"}, []string{"restart alone", "restart rolling"}},
		{[]string{"million"}, []string{"million connect", "million rest", "million broadcast"}},
	} {
		t.Run(strings.Join(test.scenarios, " "), func(t *testing.T) {
			t.Parallel()
			result, err := Run(t.Context(), Options{
				Scenarios: test.scenarios, Subjects: []string{"millrace"}, Wires: []Wire{WebSocket}, AllCores: true,
				Streams: 300, Million: 200, Rounds: 1, Duration: 500 * time.Millisecond, Binary: program(t),
			})
			if err != nil {
				t.Fatal(err)
			}
			cases := make(map[string]bool)
			for i := range result.Samples {
				s := &result.Samples[i]
				cases[s.Scenario+" "+s.Case] = true
				if s.missing() != 0 {
					t.Errorf("%s, %s: %v of %v deliveries are missing", s.Scenario, s.Case, s.missing(), s.Metrics[metricExpected])
				}
			}
			for _, want := range test.cases {
				if !cases[want] {
					t.Errorf("no sample of %q; failures: %q", want, result.Failures())
				}
			}
		})
	}
}

// TestRunModes: states and logs give their samples, over each wire where that makes a difference, and
// who has none is named.
func TestRunModes(t *testing.T) {
	t.Parallel()
	var progress strings.Builder
	result, err := Run(t.Context(), Options{
		Scenarios: []string{"state", "log", "tracked"}, Subjects: []string{"millrace", "floor"}, AllCores: true,
		Streams: 100, Rounds: 1, Duration: 500 * time.Millisecond, Binary: program(t), Progress: &progress,
	})
	if err != nil {
		t.Fatal(err)
	}
	if failures := result.Failures(); len(failures) > 0 {
		t.Fatalf("measurements failed: %q", failures)
	}
	cases := make(map[string]Sample)
	for _, s := range result.Samples {
		cases[s.Scenario+" "+s.Case+" "+string(s.Wire)] = s
		missing, lost := s.missing(), s.Metrics[metricLost]
		if s.Scenario == "state" { // on a busy machine values are passed over where the next one is there already
			missing, lost = 0, 0
		}
		if missing > 0 || s.Metrics[metricExpected] == 0 || lost != 0 || s.Metrics[metricRepeated] != 0 {
			t.Errorf("%s over %s, %s: deliveries are wrong: %v", s.Scenario, s.Wire, s.Case, s.Metrics)
		}
	}
	for _, want := range []string{"state steady sse", "state steady ws", "log steady sse", "log steady ws"} {
		if cases[want].Metrics[metricP99] <= 0 {
			t.Errorf("%s took no time: %v", want, cases[want].Metrics)
		}
	}
	one, ten := cases["tracked one ws"].Metrics, cases["tracked ten ws"].Metrics
	if len(cases) != 6 || one[metricRedisCPU] <= 0 || ten[metricRedisCPU] < one[metricRedisCPU] || ten[metricRedisPerKey] < one[metricRedisPerKey] {
		t.Errorf("%d cases; one gateway cost Redis %v, ten %v", len(cases), one, ten)
	}
	if !strings.Contains(progress.String(), "floor is not asked for state") {
		t.Errorf("nothing is said of the floor: %s", &progress)
	}
}

// TestRunCompressed: compressed streams beside plain ones, each on its own wire alone.
func TestRunCompressed(t *testing.T) {
	t.Parallel()
	result, err := Run(t.Context(), Options{
		Scenarios: []string{"sse-gzip", "ws-deflate"}, Subjects: []string{"millrace", "floor"}, AllCores: true,
		Streams: 40, Rounds: 1, Duration: 500 * time.Millisecond, Binary: program(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	if failures := result.Failures(); len(failures) > 0 {
		t.Fatalf("measurements failed: %q", failures)
	}
	if want := 2 * (len(gzipCases) + len(deflateCases)); len(result.Samples) != want {
		t.Errorf("%d samples, expected %d", len(result.Samples), want)
	}
	for i := range result.Samples {
		s := &result.Samples[i]
		if (s.Wire == SSE) != (s.Scenario == "sse-gzip") || s.Subject != "millrace" {
			t.Errorf("%s was asked of %s over %s", s.Scenario, s.Subject, s.Wire)
		}
		times, compressed := s.Metrics[metricTimesFewerBytes], strings.HasSuffix(s.Case, ", compressed")
		if s.Metrics[metricBytesPerDelivery] <= 0 || s.Metrics[metricCPUPerMillion] <= 0 || times < 1 || compressed != (times > 1) {
			t.Errorf("%s, %s: %v", s.Scenario, s.Case, s.Metrics)
		}
	}
}

// TestRunEndsEarly: a run that is told to end in the middle gives what it has and leaves no process.
func TestRunEndsEarly(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	watched := make(chan bool, 1)
	go func() {
		// The floor and its crowd are there.
		watched <- processtest.Poll(startTimeout, func() bool { return len(family([]int{os.Getpid()})) >= 3 })
		cancel(errors.New("told to end"))
	}()
	result, err := Run(ctx, Options{
		Scenarios: []string{"fanout"}, Subjects: []string{"floor"}, Duration: time.Hour, Wires: []Wire{SSE}, Streams: 10, Rounds: 1, Binary: program(t),
	})
	if !<-watched {
		t.Error("the run started no processes")
	}
	if err == nil || !strings.Contains(err.Error(), "told to end") || result == nil {
		t.Errorf("result %v, error %v", result, err)
	}
	if left := family([]int{os.Getpid()}); len(left) > 1 {
		t.Errorf("processes are left: %v", left)
	}
}

// TestFloorWritesOncePerDelivery asks the kernel how many write calls the floor made.
func TestFloorWritesOncePerDelivery(t *testing.T) {
	const streams, messages = 40, 25
	for _, test := range []struct {
		name   string
		gather bool
		writes func(n int64) bool
		says   string
	}{
		{"one each", false, func(n int64) bool { return n == streams*messages }, "exactly one a delivery"},
		{"gathered", true, func(n int64) bool { return n >= streams && n < streams*messages/4 }, "a few a stream"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := newSite(&Options{Binary: program(t)}, placement{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.close()
			c := &cell{Cell: Cell{Wire: WebSocket}, subject: floor{gather: test.gather}, stand: &stand{site: s}, settings: &Settings{Streams: streams, MessageBytes: 154}}
			l, err := c.crowded(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			before := writeCalls(t, l.server.pids()[0])
			if _, err := l.publisher.burst(sharedChannel, messages); err != nil {
				t.Fatal(err)
			}
			reply, err := l.crowd.delivered(t.Context(), streams*messages, deliveryGrace)
			if err != nil || reply.Deliveries != streams*messages {
				t.Fatalf("%d deliveries, error %v", reply.Deliveries, err)
			}
			if n := writeCalls(t, l.server.pids()[0]) - before; !test.writes(n) {
				t.Errorf("%d write calls for %d deliveries, expected %s", n, streams*messages, test.says)
			}
		})
	}
}

// writeCalls is how many write calls a process has made, as the kernel counts them.
func writeCalls(t *testing.T, pid int) int64 {
	t.Helper()
	for line := range strings.Lines(string(readFile(t, fmt.Sprintf("/proc/%d/io", pid)))) {
		if value, ok := strings.CutPrefix(line, "syscw: "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("the kernel does not count write calls: /proc/PID/io has no syscw")
	return 0
}

// TestCrowdNoticesLoss: what never comes and what comes twice is counted.
func TestCrowdNoticesLoss(t *testing.T) {
	s, err := newSite(&Options{Binary: program(t)}, placement{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	c := &cell{Cell: Cell{Wire: SSE}, subject: floor{}, stand: &stand{site: s}, settings: &Settings{Streams: 10, MessageBytes: 154}}
	l, err := c.crowded(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	send := func(number uint32) {
		l.publisher.numbers[sharedChannel] = number - 1
		if _, err := l.publisher.burst(sharedChannel, 1); err != nil {
			t.Fatal(err)
		}
	}
	for _, number := range []uint32{1, 2, 5, 5} {
		send(number)
	}
	if _, err := l.crowd.delivered(t.Context(), 40, deliveryGrace); err != nil {
		t.Fatal(err)
	}
	reply, err := l.crowd.report()
	if err != nil {
		t.Fatal(err)
	}
	if reply.Deliveries != 40 || reply.Lost != 20 || reply.Repeated != 10 {
		t.Errorf("%d deliveries, %d lost, %d repeated, expected 40, 20 and 10", reply.Deliveries, reply.Lost, reply.Repeated)
	}
}

// TestCrowdInsists: what is refused is asked for again, and counted, until it is given up.
func TestCrowdInsists(t *testing.T) {
	s, err := newSite(&Options{Binary: program(t)}, placement{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	running, err := floor{}.start(t.Context(), s, startOptions{})
	if err != nil {
		t.Fatal(err)
	}
	crowd, err := s.crowd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const streams, tries = 20, 2
	plan := running.plan(SSE, streams)
	plan.Channel = "no number" // which the floor refuses
	refused, err := crowd.insist(t.Context(), plan, connectLimit, tries)
	if err == nil || refused != streams*(1+tries) {
		t.Errorf("%d refused, error %v, expected %d and an error", refused, err, streams*(1+tries))
	}
	if _, err := crowd.ask(crowdCommand{Op: "forgive"}); err != nil {
		t.Fatal(err)
	}
	refused, err = crowd.insist(t.Context(), running.plan(SSE, streams), connectLimit, tries)
	if err != nil || refused != 0 {
		t.Errorf("%d refused, error %v, expected none", refused, err)
	}
}

// TestCrowdReconnects: the storm's command brings every stream back.
func TestCrowdReconnects(t *testing.T) {
	s, err := newSite(&Options{Binary: program(t)}, placement{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	c := &cell{Cell: Cell{Wire: WebSocket}, subject: plain{}, ground: groundOwn, stand: &stand{site: s}, settings: &Settings{Streams: 200, MessageBytes: 154}}
	l, err := c.crowded(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before, err := l.crowd.ask(crowdCommand{Op: "status"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.crowd.ask(crowdCommand{Op: "reconnect"}); err != nil {
		t.Fatal(err)
	}
	back := func(r *crowdReply) bool { return r.DialNanos > before.LiveNanos && r.Live == r.Wanted }
	reply, ok, err := l.crowd.until(t.Context(), connectLimit, back)
	if err != nil || !ok || reply.Live != 200 || reply.Failed != 0 {
		t.Errorf("after a reconnect: %+v, %v", reply, err)
	}
}
