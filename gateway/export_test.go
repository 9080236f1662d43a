package gateway

import (
	"cmp"
	"context"
	"time"

	"github.com/millrace/millrace/council"
	"github.com/millrace/millrace/netio/handoff"
)

// Timings are shorter waits for a test; zero is the promised one.
type Timings struct {
	KeepAlive, Heartbeat, Silence, Confirm, Message, Follow time.Duration
	Council                                                 council.Timings
}

// testSilence is how long a client of a test may be silent, where the test is not about that: one that reads
// nothing answers no ping either, and a busy machine may take longer for the rest than is promised.
const testSilence = 20 * time.Minute

func (t Timings) completed() timings {
	return timings{
		keepAlive: cmp.Or(t.KeepAlive, contractTimings.keepAlive),
		heartbeat: cmp.Or(t.Heartbeat, contractTimings.heartbeat),
		silence:   cmp.Or(t.Silence, testSilence),
		confirm:   cmp.Or(t.Confirm, contractTimings.confirm),
		message:   cmp.Or(t.Message, contractTimings.message),
		follow:    cmp.Or(t.Follow, contractTimings.follow),
		council:   t.Council,
	}
}

// NewWithTimings is New with other waits than the promised ones.
func NewWithTimings(options Options, waits Timings) (*Gateway, error) {
	return newGateway(options, waits.completed())
}

// InheritWithTimings is Inherit likewise.
func InheritWithTimings(ctx context.Context, options Options, waits Timings, conn *handoff.Conn) (*Gateway, error) {
	return inherit(ctx, options, waits.completed(), conn, "new")
}

// MessageListen is the message by which a new gateway is told to hear what the old one hears.
const MessageListen = messageListen

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

// OrdersRemembered is how many orders are remembered for streams that are on their way in.
const OrdersRemembered = ordersRemembered

// ReadOrder reads an entry of that log, and says what would be done, and to whom.
func ReadOrder(payload []byte) (do, client, user, channel string, err error) {
	said, _, err := readOrder(payload)
	if err != nil {
		return "", "", "", "", err
	}
	return said.Do, said.Client, said.User, said.channel.Name(), nil
}
