package main

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"
)

// shortPlan is an audit that every run of the tests can afford.
func shortPlan(t *testing.T) plan {
	t.Helper()
	path, err := gatewayPath()
	if err != nil {
		t.Fatal(err)
	}
	return plan{
		scenario: scenarioPlain, gateway: path, duration: 10 * time.Second, clients: 200, channels: 40,
		stalling: 10, moving: 20, returning: 10, killEvery: time.Second, stops: 1, stopFor: 3 * time.Second,
		pause: 300 * time.Millisecond, loudPause: 40 * time.Millisecond, settle: time.Minute, seed: 1,
	}
}

func carryOut(t *testing.T, p plan) (*report, string) {
	t.Helper()
	result, err := newAudit(p, io.Discard).run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	result.print(&text)
	return result, text.String()
}

// TestPromisesAreKept is the audit itself, in small.
func TestPromisesAreKept(t *testing.T) {
	t.Parallel()
	result, text := carryOut(t, shortPlan(t))
	if !result.passed() || result.unsettled > 0 {
		t.Fatalf("%d clients did not get to the end\n%s", result.unsettled, text)
	}
	for m := range modeCount {
		for w := range wireCount {
			if row := result.rows[m][w]; row.accounts == 0 || row.delivered == 0 {
				t.Errorf("nothing was seen of %s by %s\n%s", m, w, text)
			}
		}
	}
}

// TestSabotageIsFound breaks a promise on purpose: Redis's messages get lost and nobody says so.
func TestSabotageIsFound(t *testing.T) {
	t.Parallel()
	p := shortPlan(t)
	p.sabotage, p.stops, p.killEvery = true, 0, time.Hour
	p.duration, p.settle = 8*time.Second, 4*time.Second // whoever waits for what was swallowed waits in vain
	result, text := carryOut(t, p)
	if result.passed() || result.rows[modeEvents][wireSSE].missingSilent+
		result.rows[modeEvents][wireSSEMany].missingSilent+result.rows[modeEvents][wireWS].missingSilent == 0 {
		t.Fatalf("%d messages were swallowed, and the audit did not see it\n%s", result.faults.house.proxy.swallowed.Load(), text)
	}
}
