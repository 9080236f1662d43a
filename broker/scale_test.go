package broker_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/broker/brokertest"
	"github.com/millrace/millrace/internal/redistest"
)

// TestManyChannelsInFewCommands subscribes to 20,000 channels at once, loses them, gets them
// back and leaves them, each time with few commands.
func TestManyChannelsInFewCommands(t *testing.T) {
	const channels, perCommand = 20_000, 500
	server := redistest.Start(t)
	b, r, _ := start(t, broker.RedisOptions{URL: server.URL(), Linger: -1})
	ready(t, b, r)
	before := calls(t, server, "subscribe")
	for number := range channels {
		b.Subscribe(plain("job:" + strconv.Itoa(number)))
	}
	r.Wait(t, "all confirmed", func() bool { return b.Stats().Subscribed == channels })
	// Batches may be cut short, as the subscriber does not wait for more to come.
	const most = 2 * channels / perCommand
	if got := calls(t, server, "subscribe") - before; got > most {
		t.Errorf("%d SUBSCRIBEs, want at most %d", got, most)
	}
	before = calls(t, server, "subscribe")
	server.CLI(t, "CLIENT", "KILL", "TYPE", "pubsub")
	r.Wait(t, "all lost and confirmed", func() bool { return r.Count(brokertest.Mended) >= channels })
	if got := r.Count(brokertest.Lost); got != channels {
		t.Errorf("%d losses, want %d", got, channels)
	}
	if got := calls(t, server, "subscribe") - before; got > most {
		t.Errorf("%d SUBSCRIBEs after the reconnect, want at most %d", got, most)
	}
	before = calls(t, server, "unsubscribe")
	for number := range channels {
		b.Unsubscribe(plain("job:" + strconv.Itoa(number)))
	}
	r.Wait(t, "all left", func() bool { return b.Stats().Subscribed == 0 })
	if got := calls(t, server, "unsubscribe") - before; got > most {
		t.Errorf("%d UNSUBSCRIBEs, want at most %d", got, most)
	}
	r.Wait(t, "quiet in Redis", func() bool { return server.CLI(t, "PUBSUB", "CHANNELS", "job:*") == "" })
}

// TestFlappingCostsRedisLittle flips one channel as fast as it can for a second.
func TestFlappingCostsRedisLittle(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b, r, _ := start(t, broker.RedisOptions{URL: server.URL(), Linger: 50 * time.Millisecond})
	ready(t, b, r, plain("job:2"))
	before := calls(t, server, "subscribe")
	flips := 0
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); flips++ {
		b.Subscribe(plain("job:1"))
		b.Unsubscribe(plain("job:1"))
	}
	if flips < 10_000 {
		t.Fatalf("only %d flips: a method blocks", flips)
	}
	r.Wait(t, "rest", func() bool { return b.Stats().Subscribed == 1 && b.Stats().Pending == 0 })
	// At most one round trip per linger.
	if got := calls(t, server, "subscribe") - before; got > 25 {
		t.Fatalf("%d flips cost %d SUBSCRIBEs", flips, got)
	}
}
