package netio

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// SimulatedLoop is a loop on a simulated kernel, for what stands above loops to be played with it: see
// simhub_test.go. Several may share their randomness, and are played in turn by one goroutine.
type SimulatedLoop struct {
	*Loop
	// Breaches are promises that the loop did not keep.
	Breaches []string

	kernel *simulatedKernel
	ends   []*simulatedEnd
	more   bool
}

// simulatedEnd is a peer, and who is told what it reads.
type simulatedEnd struct {
	simulatedPeer
	hear func(read []byte)
}

// SimulationSeeds gives the seeds to play, of which there is at least one for each share.
func SimulationSeeds(share uint64) (first, count uint64) {
	if *simulationSeed != 0 {
		return *simulationSeed, 1
	}
	return *simulationFirst, max(*simulationSeeds/share, 1)
}

// NewSimulatedLoop makes one.
func NewSimulatedLoop(random *rand.Rand, index int, events Events) *SimulatedLoop {
	s := &SimulatedLoop{}
	s.kernel = &simulatedKernel{world: s, random: random, clock: 1, ring: random.IntN(2) == 0}
	loop, err := newLoop(LoopOptions{Index: index, StallLimit: time.Duration(5+random.IntN(60)) * time.Second}, events, s.kernel)
	if err != nil {
		panic(err) // the options are good
	}
	s.Loop = loop
	return s
}

// Connect parks a connection. hear is called with what its peer reads, which is valid during the call.
func (s *SimulatedLoop) Connect(guest any, hear func(read []byte)) {
	end := &simulatedEnd{simulatedPeer{mood: simulatedMood(s.kernel.random.IntN(int(moodCount)))}, hear}
	s.ends = append(s.ends, end)
	if err := s.Adopt(s.kernel.open(&end.simulatedPeer), nil, guest); err != nil {
		s.breach("a connection was not adopted: %v", err)
	}
}

// Turn plays one turn, and what the peers do then.
func (s *SimulatedLoop) Turn() {
	s.more = s.turn(s.more)
	s.movePeers()
}

// Calm lets nothing go wrong from here on: peers read all that they are sent, and speak no more.
func (s *SimulatedLoop) Calm() {
	s.kernel.calm = true
	for _, socket := range s.kernel.sockets {
		if socket != nil {
			socket.room += 10_000
		}
	}
}

// Quiet says that nothing is on its way.
func (s *SimulatedLoop) Quiet() bool {
	for _, socket := range s.kernel.sockets {
		if socket != nil && (len(socket.outbound)+len(socket.inbound) > 0 || socket.fin || socket.broken()) {
			return false
		}
	}
	return !s.more && s.outboxesInUse == 0 && s.mailbox.empty()
}

// End closes all streams, and the loop.
func (s *SimulatedLoop) End() { s.tearDown() }

func (s *SimulatedLoop) breach(format string, arguments ...any) {
	if len(s.Breaches) < 5 {
		s.Breaches = append(s.Breaches, fmt.Sprintf(format, arguments...))
	}
}

func (s *SimulatedLoop) checkSleep() {
	if !s.express.empty() || !s.bulk.empty() || s.inbox != nil {
		s.breach("loop %d sleeps with work to do", s.index)
	}
}

func (s *SimulatedLoop) highest() Slot { return s.highestStream }

func (s *SimulatedLoop) movePeers() {
	kept := s.ends[:0]
	for _, end := range s.ends {
		if end.socket == nil {
			end.hear(end.left)
			continue
		}
		end.hear(s.kernel.move(&end.simulatedPeer))
		kept = append(kept, end)
	}
	clear(s.ends[len(kept):])
	s.ends = kept
}
