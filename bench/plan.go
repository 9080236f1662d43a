package bench

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// seat is a subject over a wire.
type seat struct {
	subject subject
	wire    Wire
}

func (s seat) speaks() bool {
	spoken := s.subject.wires()
	return slices.Contains(spoken, s.wire) || s.wire == bothWires && len(spoken) == len(Wires())
}

// asked is a part of a scenario that is to be measured.
type asked struct {
	scenario *scenario
	part     *part
}

// cell names the measurement of it.
func (a asked) cell(at seat, round int) Cell {
	return Cell{Scenario: a.scenario.name, Part: a.part.name, Subject: at.subject.name(), Wire: at.wire, Round: round}
}

// task is what is measured in one go: either parts, one after the other, of one seat, or one part of
// several seats at the same time.
type task struct {
	round int
	seats []seat
	asked []asked
}

func (t *task) String() string {
	var questions []string
	for _, a := range t.asked {
		name := a.scenario.name
		if a.part.name != "" {
			name += " (" + a.part.name + ")"
		}
		questions = append(questions, name)
	}
	who := fmt.Sprintf("%d servers at the same time", len(t.seats))
	if len(t.seats) == 1 {
		who = fmt.Sprintf("%s over %s", t.seats[0].subject.name(), t.seats[0].wire)
	}
	return fmt.Sprintf("round %d, %s: %s", t.round, who, strings.Join(questions, ", "))
}

// seconds says about how long the task takes.
func (t *task) seconds(s *Settings) float64 {
	var total float64
	for _, a := range t.asked {
		total += a.part.seconds(s)
	}
	if t.asked[0].part.on != groundBare {
		total += standSeconds(s)
	}
	return total
}

// standSeconds says about how long it takes to start a subject, to connect a crowd and to end both.
func standSeconds(s *Settings) float64 { return 1 + 1.5*float64(s.Streams)/streamsDefault }

// duration says about how long tasks take.
func duration(tasks []task, s *Settings) time.Duration {
	var total float64
	for i := range tasks {
		total += tasks[i].seconds(s)
	}
	return secondsOf(total)
}

// planner makes the list of tasks.
type planner struct {
	settings *Settings
	full     bool
	named    bool // somebody named the scenarios: all subjects that can be asked are asked
	wires    []Wire
	present  []subject
	done     func(*Cell) bool // was measured earlier
}

// tasks puts the measurements in order. Within a round the subjects take turns at each group of
// parts, so that what changes on the machine in the meantime changes for all of them. What is
// measured in one round only comes last: nothing may suffer from what it leaves behind.
func (p *planner) tasks(questions []scenario) []task {
	var tasks []task
	groups := groupsOf(questions)
	for round := 1; round <= p.settings.Rounds; round++ {
		for _, group := range groups {
			tasks = append(tasks, p.turn(group, round, false)...)
		}
	}
	for _, group := range groups {
		tasks = append(tasks, p.turn(group, 1, true)...)
	}
	return tasks
}

// groupsOf puts parts together that stand on the same ground; each that needs none is alone.
func groupsOf(questions []scenario) [][]asked {
	var groups [][]asked
	for i := range questions {
		for k := range questions[i].parts {
			a := asked{scenario: &questions[i], part: &questions[i].parts[k]}
			at := slices.IndexFunc(groups, func(group []asked) bool {
				return a.part.on != groundBare && group[0].part.on == a.part.on
			})
			if at < 0 {
				groups = append(groups, []asked{a})
			} else {
				groups[at] = append(groups[at], a)
			}
		}
	}
	return groups
}

// turn gives the tasks of one group in one round, over all wires and subjects. Those that are
// measured once are due after all rounds, with late.
func (p *planner) turn(group []asked, round int, late bool) []task {
	var tasks []task
	for _, wire := range p.wiresOf(group[0].scenario) {
		for _, one := range p.present {
			at := seat{subject: one, wire: wire}
			var due []asked
			for _, a := range group {
				cell := a.cell(at, round)
				if p.asks(a, at) && p.due(a.scenario, round, late) && !p.done(&cell) {
					due = append(due, a)
				}
			}
			switch {
			case len(due) == 0:
			case due[0].part.together != nil && len(tasks) > 0:
				tasks[0].seats = append(tasks[0].seats, at)
			default:
				tasks = append(tasks, task{round: round, seats: []seat{at}, asked: due})
			}
		}
	}
	return tasks
}

func (p *planner) due(question *scenario, round int, late bool) bool {
	if question.once || late {
		return question.once && late
	}
	return round == 1 || p.full || !question.onceQuick
}

// concerns says whether a subject is asked anything.
func (p *planner) concerns(one subject, questions []scenario) bool {
	for i := range questions {
		for _, wire := range p.wiresOf(&questions[i]) {
			for k := range questions[i].parts {
				a := asked{scenario: &questions[i], part: &questions[i].parts[k]}
				if p.asks(a, seat{subject: one, wire: wire}) {
					return true
				}
			}
		}
	}
	return false
}

// wiresOf are the wires over which a scenario is asked, in turn.
func (p *planner) wiresOf(question *scenario) []Wire {
	switch {
	case question.over == "":
		return p.wires
	case question.over == bothWires || slices.Contains(p.wires, question.over):
		return []Wire{question.over}
	}
	return nil
}

// unsuited says, a line each, which subjects can't be asked which questions, and why.
func unsuited(subjects []subject, questions []scenario) (lines []string) {
	for i := range questions {
		for _, one := range subjects {
			if suits := questions[i].suits; suits != nil && !suits(one) && questions[i].lacks != "" {
				lines = append(lines, fmt.Sprintf("%s is not asked for %s: it has %s", one.name(), questions[i].name, questions[i].lacks))
			}
		}
	}
	return lines
}

// asks says whether a part is for a seat.
func (p *planner) asks(a asked, at seat) bool {
	suits := func(check func(subject) bool) bool { return check == nil || check(at.subject) }
	return at.speaks() && suits(a.scenario.suits) && suits(a.part.suits) && (p.named || usuallyAsked(at.subject, a.scenario))
}
