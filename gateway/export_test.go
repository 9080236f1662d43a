package gateway

import (
	"cmp"
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
