package main

import (
	"strings"
	"testing"
	"time"
)

// shortSoak is a soak that every run of the tests can afford: too short for memory to say anything, but all that
// happens in a long one happens.
func shortSoak(t *testing.T) plan {
	t.Helper()
	p := shortPlan(t)
	path, err := crowdPath()
	if err != nil {
		t.Fatal(err)
	}
	p.scenario, p.clients, p.stalling, p.moving, p.returning = scenarioSoak, 80, 4, 8, 4
	p.pause, p.loudPause, p.entriesMax = time.Second, 200*time.Millisecond, soakEntriesMax
	p.killEvery, p.duration = 3*time.Second, 15*time.Second
	p.soak = soakPlan{
		crowd: path, streams: 120, channels: 5, round: time.Second, visits: 20, abusePause: 5 * time.Second,
		faultEvery: 6 * time.Second, sample: time.Second, warmUp: 5 * time.Second,
	}
	return p
}

// TestSoak is the soak in small.
func TestSoak(t *testing.T) {
	t.Parallel()
	result, text := carryOut(t, shortSoak(t))
	if len(result.broken) > 0 || result.unsettled > 0 {
		t.Fatalf("%d clients did not get to the end\n%s", result.unsettled, text)
	}
	for _, one := range result.strain.broken() {
		if !strings.Contains(one, " rises: ") { // what is warming up does
			t.Errorf("%s\n%s", one, text)
		}
	}
	for _, r := range result.strain.throngs {
		if r.Events == 0 || r.Live != r.part.streams {
			t.Errorf("the crowd of %s, %s reports %+v", r.part.wire, r.part.mode, r)
		}
	}
	for l, count := range result.strain.churn.visits {
		if count == 0 {
			t.Errorf("nobody left %s", leaving(l))
		}
	}
	for index, count := range result.strain.abuse.counts {
		if count.done == 0 {
			t.Errorf("there was no abuse by %s", abuses[index].name)
		}
	}
	for number, one := range result.strain.meters {
		if one.reasons["streams ended, peer_closed"] == 0 {
			t.Errorf("gateway %d counts %s", number+1, one.reasons)
		}
		for s, trend := range one.trends(result.plan.soak.warmUp) {
			if series := series(s); trend.most == 0 {
				t.Errorf("gateway %d: nothing was measured of %s\n%s", number+1, series, text)
			}
		}
	}
	if faults := result.faults; faults.stops == 0 || faults.restarts == 0 || faults.kills == 0 {
		t.Errorf("it broke too little: %s", faults)
	}
}

// TestSoakFails has each thing that a soak watches go wrong once.
func TestSoakFails(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name  string
		spoil func(*strain)
		words string
	}{
		{"a stream of the crowd closed", func(s *strain) { s.throngs[0].Closed, s.throngs[0].Reached = 1, 9 }, "streams were closed"},
		{"an event missing in silence", func(s *strain) { s.throngs[0].Disordered = 1 }, "missing without a gap"},
		{"an event of a log missing behind a gap", func(s *strain) {
			s.throngs[0].part.mode = modeLog
		}, "30 numbers are missing of logs"},
		{"the last number missing", func(s *strain) { s.throngs[0].Reached = 9 }, "did not get the last number"},
		{"nothing compressed", func(s *strain) { s.throngs[0].Inflated = 0 }, "nothing came compressed"},
		{"a visitor refused", func(s *strain) { s.churn.failures["status 503"] = 1 }, "1 visitors failed, status 503"},
		{"abuse without an end", func(s *strain) { s.abuse.note(0, errNotEnded) }, "random bytes was not ended 1 of 1 times"},
		{"something left over", func(s *strain) { s.leftover = []string{"gateway 1 has 3 streams"} }, "has 3 streams"},
		{"a bug", func(s *strain) { s.meters[0].reasons = reasons{"streams ended, bug": 1} }, "gateway 1: streams ended, bug: 1"},
		{"memory that leaks", func(s *strain) {
			s.meters[0].points[seriesResident] = hour(func(share float64) float64 { return 100 + 10*share })
		}, "gateway 1: resident memory, MiB rises"},
		{"a descriptor in ten thousand visits that leaks", func(s *strain) {
			s.meters[1].points[seriesSpare] = hour(func(share float64) float64 { return 40 + float64(int(72*share)) })
		}, "gateway 2: descriptors beside streams rises"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := soundStrain()
			if words := s.broken(); len(words) > 0 {
				t.Fatalf("it fails before anything is wrong: %q", words)
			}
			c.spoil(s)
			words := s.broken()
			if len(words) != 1 || !strings.Contains(words[0], c.words) {
				t.Errorf("it says %q, want %q", words, c.words)
			}
			if result := (report{strain: s}); result.passed() {
				t.Error("the soak passed")
			}
		})
	}
}

// soundStrain is a soak after which nothing is wrong.
func soundStrain() *strain {
	p := plan{scenario: scenarioSoak}
	p.soak.fill(time.Hour)
	s := &strain{plan: p, throng: new(throng), churn: newChurn(p, nil), abuse: newAbusers(p, nil)}
	part := &throngPart{wire: "gzip", mode: modeEvents, streams: 10}
	s.throngs = []throngReport{{part: part, Live: 10, Reached: 10, Events: 100, Inflated: 100, Gaps: 20, Declared: 30}}
	for range gatewayCount {
		m := new(meter)
		for one := range seriesCount {
			m.points[one] = hour(func(share float64) float64 { return 100 + float64(int(share*360)%3) })
		}
		s.meters = append(s.meters, m)
	}
	return s
}

// TestTakeMetrics reads what a gateway says.
func TestTakeMetrics(t *testing.T) {
	text := "# HELP millrace_streams streams now\nmillrace_streams{wire=\"sse\"} 7\nmillrace_streams{wire=\"websocket\"} 5\n" +
		"millrace_subscriptions 20\nmillrace_channels 3\ngo_goroutines 40\ngo_memstats_next_gc_bytes 2.5e+07\nprocess_resident_memory_bytes 1e8\n" +
		"millrace_streams_behind 9\n"
	var got values
	if err := got.takeMetrics([]byte(text)); err != nil {
		t.Fatal(err)
	}
	want := values{
		seriesStreams: 12, seriesSubscriptions: 20, seriesChannels: 3, seriesGoroutines: 40, seriesHeap: 2.5e7, seriesResident: 1e8,
	}
	if got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if err := new(values).takeMetrics([]byte("go_goroutines 40\n")); err == nil {
		t.Error("metrics that are missing were not missed")
	}
}

// TestSoakPlan checks what a soak of some length does.
func TestSoakPlan(t *testing.T) {
	long, err := parsePlan([]string{"--scenario", "soak"}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if long.duration != time.Hour || long.clients+long.soak.streams != 15000 || long.soak.visits != 200 || long.soak.faultEvery != time.Minute ||
		long.soak.warmUp != 10*time.Minute || long.soak.sample != 10*time.Second {
		t.Errorf("a soak is %+v", long)
	}
	short, err := parsePlan([]string{"--scenario", "soak", "--for", "3m", "--streams", "1000", "--clients", "100"}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if samples := (short.duration - short.soak.warmUp) / short.soak.sample; samples < samplesMin || short.soak.streams != 900 ||
		short.duration/short.soak.faultEvery < 2 {
		t.Errorf("a short soak has %d samples to judge: %+v", samples, short)
	}
	if _, err := parsePlan([]string{"--scenario", "soak", "--streams", "10"}, t.Output()); err == nil {
		t.Error("a soak with fewer streams than clients was taken")
	}
}
