package bench

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// level is the ratio up to which two figures count as the same.
const level = 1.01

// defeat is a figure in which another subject was better than ours.
type defeat struct {
	text  string
	ratio float64 // how many times worse ours is
}

// defeats lists where another server was better than ours in the median of the rounds, the worst
// first. The floor is no server.
func (r *Result) defeats() []defeat {
	var all []defeat
	for _, f := range figures() {
		for _, wire := range r.measuredWires() {
			ours := r.spread(ourName, f.question(wire))
			if ours.Count == 0 {
				continue
			}
			for _, name := range r.measuredSubjects() {
				if strings.HasPrefix(name, floorName) || strings.HasPrefix(name, ourName) {
					continue
				}
				theirs, ratio := r.spread(name, f.question(wire)), r.ratio(ourName, name, f.question(wire))
				if ratio.Count == 0 {
					continue
				}
				worse := ratio.Median
				if f.more {
					worse = 1 / worse
				}
				if worse > level {
					text := fmt.Sprintf("%s, over %s: %s has %s, Millrace %s (%s)", f.full, wire, name,
						f.format(theirs.Median), f.format(ours.Median), showRatio(ratio.Median))
					all = append(all, defeat{text, worse})
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b defeat) int { return cmp.Compare(b.ratio, a.ratio) })
	return all
}

// missedTargets says, a line each, which targets ours did not reach.
func (r *Result) missedTargets() []string {
	var lines []string
	for _, t := range targets() {
		for _, wire := range r.measuredWires() {
			reached := t.reached(r, wire)
			if reached.Count == 0 || t.met(reached.Median) {
				continue
			}
			line := fmt.Sprintf("%s, over %s: %s, has to be %s", t.figure().full, wire, t.show(reached.Median), t.rule())
			if scaled := t.atPace(r, wire); scaled.Count > 0 {
				line += fmt.Sprintf(" (%s at the pace of the bound)", t.show(scaled.Median))
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// lose says where ours is not good enough: every target missed, and every figure of every table in
// which another server was better.
func (p *report) lose() {
	p.say("## Where we lose\n\nFound in the samples: no line is left out.\n\n")
	missed, defeats := p.missedTargets(), p.defeats()
	if len(missed) == 0 {
		p.say("Every target that was measured is met.\n\n")
	} else {
		p.say("Targets missed:\n\n")
		for _, line := range missed {
			p.say("- %s\n", line)
		}
		p.say("\n")
	}
	if len(defeats) == 0 {
		p.say("No other server was better in the median of any figure.\n\n")
		return
	}
	p.say("Other servers were better, by more than one in a hundred, in:\n\n")
	for _, one := range defeats {
		p.say("- %s\n", one.text)
	}
	p.say("\n")
}

// explain tells how it was measured.
func (p *report) explain() {
	s := &p.Settings
	p.say(`## Method

- Crowds of %d streams are event loops in processes of their own: no goroutine and no buffer a stream, so that they
  take little of the machine. Memory is compared between %d and %d streams, %g s after the last handshake.
- Messages are JSON of %d bytes and carry the time at which they were due and their number within their channel. Latency is
  counted from the time due, not from the time sent, so that no delay hides another (coordinated omission); it
  includes the publisher, Redis where the server uses it, and the reader. Every delivery goes into an HDR histogram.
- Paced loads last %g s: fan-out %.0f messages a second to all streams, unicast %.0f a second to one stream each. Bursts
  are %d messages back to back to all, %d a round, the next when the last has arrived.
- CPU time is user and system time of the server's processes alone, from the scheduler's account. The kernel's work for TCP
  is in it, and on loopback that of the receiving side too. Redis is not in it; the server's Redis client is.
- Process memory is the proportional set size of the server's processes. Kernel memory is the growth of the machine's slabs, for
  both ends of each connection, since both are on this machine.
- Servers take turns within each round. In a round each is started once for a crowd on one channel (idle, connect, fanout,
  stalled, mixed, storm), once for a crowd of which each stream has its own channel (idle, unicast), Millrace once with states and
  logs beside such a crowd (state, log), and each once for each of the other questions. Only keepalive watches all servers at the same
  time, for a minute: they are almost idle, and each one's CPU time is its own. It, tracked and the million are measured once, all else
  in every round.
- While the latency of single messages is measured beside a fan-out or a storm, the processes that read them come before the
  larger crowd on the clients' core, which would else be what is measured.
- The million: %d streams at most in one process (a process has 20,000 descriptors here), all processes on one port, as many
  crowds from several loopback addresses, one Redis, everybody on all cores; watched at rest for %.0f s; then one message is published, once.

`, s.Streams, s.IdleLow, s.IdleHigh, s.Settle, s.MessageBytes, s.Paced, s.FanoutPerSecond, s.UnicastPerSecond, s.BurstMessages, s.Bursts,
		fleetStreamsEach, s.MillionKeepalive)
}

func (p *report) listSubjects() {
	p.say("## Servers and their settings\n\n")
	for _, about := range p.Subjects {
		if about.Skipped == "" {
			p.say("- **%s**: %s\n", about.Name, about.About)
		}
	}
	for _, about := range p.Subjects {
		if about.Skipped != "" {
			p.say("- %s was skipped: %s\n", about.Name, about.Skipped)
		}
	}
}
