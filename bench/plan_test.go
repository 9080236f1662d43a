package bench

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func nothingDone(*Cell) bool { return false }

func plannedFor(t *testing.T, p planner, names ...string) []task {
	t.Helper()
	questions, err := pickScenarios(names, p.full)
	if err != nil {
		t.Fatal(err)
	}
	if p.done == nil {
		p.done = nothingDone
	}
	return p.tasks(questions)
}

func TestPlanOrder(t *testing.T) {
	p := planner{
		settings: &Settings{Rounds: 2}, full: true, named: true, wires: Wires(),
		present: []subject{millrace{}, floor{}, nbio{}},
	}
	var got []string
	for _, one := range plannedFor(t, p, "fanout", "mixed", "connect", "keepalive", "million") {
		got = append(got, one.String())
	}
	var want []string
	for round := 1; round <= 2; round++ {
		for _, line := range []string{
			"millrace over sse: connect (no token), fanout, mixed", "floor over sse: connect (no token), fanout, mixed",
			"millrace over ws: connect (no token), fanout, mixed", "floor over ws: connect (no token), fanout, mixed",
			"nbio over ws: connect (no token), fanout, mixed",
			"millrace over sse: connect (token)", "millrace over ws: connect (token)",
		} {
			want = append(want, fmt.Sprintf("round %d, %s", round, line))
		}
	}
	want = append(want, "round 1, 2 servers at the same time: keepalive", "round 1, millrace over sse and ws: million")
	if difference := cmp.Diff(want, got); difference != "" {
		t.Error(difference)
	}
}

// TestPlanUsual: variants of a subject are asked where they differ, and all where somebody says so.
func TestPlanUsual(t *testing.T) {
	p := planner{settings: &Settings{Rounds: 1}, full: true, wires: []Wire{SSE}, present: []subject{floor{}, floor{gather: true}}}
	asked := func(tasks []task) string {
		var names []string
		for _, one := range tasks {
			if one.seats[0].subject.name() == "floor-gather" {
				for _, a := range one.asked {
					names = append(names, a.scenario.name)
				}
			}
		}
		return strings.Join(names, " ")
	}
	if got := asked(plannedFor(t, p)); got != "fanout" {
		t.Errorf("the gathering floor is asked for %q, expected the fan-out alone", got)
	}
	p.named = true
	if got := asked(plannedFor(t, p, "unicast")); got != "unicast" {
		t.Errorf("the gathering floor is asked for %q, expected what was named", got)
	}
}

// TestPlanGoesOn: what was measured is not measured again, the rest of a task is.
func TestPlanGoesOn(t *testing.T) {
	p := planner{settings: &Settings{Rounds: 1}, full: true, named: true, wires: []Wire{SSE}, present: []subject{floor{}}}
	r := &Result{Cells: []Cell{
		{Scenario: "fanout", Subject: "floor", Wire: SSE, Round: 1},
		{Scenario: "storm", Subject: "floor", Wire: SSE, Round: 1, Failure: "it fell over"},
		{Scenario: "unicast", Subject: "floor", Wire: WebSocket, Round: 1},
	}}
	p.done = r.done
	tasks := plannedFor(t, p, "fanout", "mixed", "storm", "unicast")
	var got []string
	for _, one := range tasks {
		got = append(got, one.String())
	}
	want := []string{"round 1, floor over sse: mixed, storm", "round 1, floor over sse: unicast"}
	if !slices.Equal(got, want) {
		t.Errorf("planned %q, expected %q", got, want)
	}
}

// TestPlanQuick: a look measures memory in its first round only.
func TestPlanQuick(t *testing.T) {
	p := planner{settings: &Settings{Rounds: 2}, wires: []Wire{SSE}, present: []subject{floor{}}}
	for _, one := range plannedFor(t, p) {
		for _, a := range one.asked {
			if a.scenario.name == "idle" && one.round > 1 {
				t.Errorf("%s", one.String())
			}
		}
	}
}

// TestPlanFits: the two runs that the Makefile starts are as short as it says, by the plan.
func TestPlanFits(t *testing.T) {
	here := []subject{
		millrace{}, millrace{memory: true}, floor{}, floor{gather: true}, nbio{}, nchan{}, plain{}, centrifuge{}, centrifuge{delay: "1ms"}, centrifuge{prepared: true},
	}
	for _, test := range []struct {
		name    string
		options Options
		present []subject
		limit   time.Duration
	}{
		{"make bench", Options{}, []subject{millrace{}, floor{}, floor{gather: true}, nchan{}, plain{}}, 8 * time.Minute},
		{"make bench-full", Options{Full: true}, here, 82 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := test.options.resolve()
			if err != nil {
				t.Fatal(err)
			}
			tasks := plannedFor(t, planner{settings: s, full: test.options.Full, wires: Wires(), present: test.present})
			if planned := duration(tasks, s); planned > test.limit || planned < test.limit/2 {
				t.Errorf("planned for %v, expected at most %v and more than half of it", planned, test.limit)
			}
		})
	}
}
