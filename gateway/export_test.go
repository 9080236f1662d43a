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
