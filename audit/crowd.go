package main

import "math/rand/v2"

// makeClients says who listens to what, and how. A quarter of the clients is on each wire. Every
// channel of events, log or state has about as many listeners; those who stall listen to the loud
// ones, where it shows. Every other eight ask for compression.
func (a *audit) makeClients() {
	addresses := make([]string, 0, len(a.house.gateways))
	for _, one := range a.house.gateways {
		addresses = append(addresses, one.address)
	}
	habits := a.habits()
	for number := range a.plan.clients {
		c := &client{
			number: number, wire: wire(number % int(wireCount)), habit: habits[number],
			addresses: addresses, at: number / int(wireCount) % len(addresses), closing: a.closing,
			random: rand.New(rand.NewPCG(a.plan.seed, 1<<40+uint64(number))),
			byName: make(map[string]*account), refusals: make(map[string]int),
		}
		c.beginning = c.random.IntN(3) == 0
		c.packed = number/int(wireCount)/len(addresses)%2 == 1
		for _, one := range a.choose(c) {
			account := &account{line: one, webSocket: c.wire.isWebSocket()}
			c.accounts = append(c.accounts, account)
			c.byName[one.name] = account
		}
		a.clients = append(a.clients, c)
	}
}

// habits gives each client its habit, in random order.
func (a *audit) habits() []habit {
	habits := make([]habit, a.plan.clients)
	next := 0
	for _, group := range []struct {
		habit habit
		count int
	}{{stalling, a.plan.stalling}, {moving, a.plan.moving}, {returning, a.plan.returning}} {
		for range group.count {
			habits[next] = group.habit
			next++
		}
	}
	random := rand.New(rand.NewPCG(a.plan.seed, 1<<41))
	random.Shuffle(len(habits), func(i, j int) { habits[i], habits[j] = habits[j], habits[i] })
	return habits
}

// manyChannels is how many channels a client has that has more than one.
const manyChannels = 5

// choose gives a client its channels. Of those with five a third has logs only, which resume
// without loss; a third events only; the others a mix, on which events begin with a gap each time.
func (a *audit) choose(c *client) []*line {
	count := 1
	if c.wire != wireSSE {
		count = manyChannels
	}
	mix := c.random.IntN(3)
	chosen := make([]*line, 0, count)
	taken := make(map[*line]bool)
	for len(chosen) < count {
		m := mode(c.random.IntN(int(modeCount)))
		if count > 1 && mix < 2 {
			m = [...]mode{modeLog, modeEvents}[mix]
		}
		lines := a.ledger.lines[m][loudChannels:]
		if c.habit == stalling || c.random.IntN(50) == 0 {
			lines = a.ledger.lines[m][:loudChannels]
			if len(chosen) >= loudChannels {
				lines = a.ledger.lines[m]
			}
		}
		if one := lines[c.random.IntN(len(lines))]; !taken[one] {
			taken[one] = true
			chosen = append(chosen, one)
		}
	}
	return chosen
}
