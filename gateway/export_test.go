package gateway

import (
	"cmp"
	"context"
	"time"

	"github.com/millrace/millrace/council"
)

// Timings are shorter waits for a test; zero is the promised one.
type Timings struct {
	KeepAlive, Heartbeat, Silence, Confirm, Message, Follow time.Duration
	Council                                                 council.Timings
}

// NewWithTimings is New with other waits than the promised ones.
func NewWithTimings(options Options, waits Timings) (*Gateway, error) {
	return newGateway(options, timings{
		keepAlive: cmp.Or(waits.KeepAlive, contractTimings.keepAlive),
		heartbeat: cmp.Or(waits.Heartbeat, contractTimings.heartbeat),
		silence:   cmp.Or(waits.Silence, contractTimings.silence),
		confirm:   cmp.Or(waits.Confirm, contractTimings.confirm),
		message:   cmp.Or(waits.Message, contractTimings.message),
		follow:    cmp.Or(waits.Follow, contractTimings.follow),
		council:   waits.Council,
	})
}

// StickLoop keeps a loop from turning, and returns once it does not, until release is called.
func (g *Gateway) StickLoop(index int) (release func()) {
	stuck, released := make(chan struct{}), make(chan struct{})
	go g.loops[index].Do(context.Background(), func() {
		close(stuck)
		<-released
	})
	<-stuck
	return func() { close(released) }
}

// OrdersChannel is the log on which gateways tell each other of an operator's orders.
const OrdersChannel = ordersChannel

// ReadOrder reads an entry of that log, and says what would be done, and to whom.
func ReadOrder(payload []byte) (do, client, user, channel string, err error) {
	said, _, err := readOrder(payload)
	if err != nil {
		return "", "", "", "", err
	}
	return said.Do, said.Client, said.User, said.channel.Name(), nil
}
