package gateway_test

import (
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/gateway/access"
	"github.com/millrace/millrace/internal/redistest"
)

// modes are namespaces of every mode, and of every way to pace one.
func modes() map[string]access.Namespace {
	return map[string]access.Namespace{
		"state":     {Mode: access.State},
		"log":       {Mode: access.Log},
		"short":     {Mode: access.Log, MaxLen: new(1)},
		"events":    {},
		"named":     {IDField: "uuid"},
		"throttled": {Throttle: 100 * time.Millisecond},
		"paced":     {Mode: access.State, Throttle: 100 * time.Millisecond},
		"batched":   {Batch: 100 * time.Millisecond},
		"conflated": {Conflate: true},
		"keyed":     {Conflate: true, ConflateBy: "jobId"},
		"alerts":    {Mode: access.Log},
		"system":    {Mode: access.State},
		"default":   {},
	}
}

// writer writes as a worker does: to the broker of a gateway, by plain Redis commands where it is
// Redis and by the library where it is memory.
type writer struct {
	house *house
	redis *redistest.Server // nil: memory
}

// onEachBroker runs a test on the memory broker and on a Redis of its own.
func onEachBroker(t *testing.T, options gateway.Options, test func(t *testing.T, w writer)) {
	t.Helper()
	if options.Namespaces == nil {
		options.Namespaces = modes()
	}
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		test(t, writer{house: serve(t, options)})
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		h, redis := serveRedis(t, options, gateway.Timings{})
		test(t, writer{house: h, redis: redis})
	})
}

// write carries out a command of Redis's where there is one, and else has the gateway publish.
func (w writer) write(t testing.TB, channel, payload string, command ...string) {
	t.Helper()
	if w.redis == nil {
		w.house.publish(t, channel, payload)
		return
	}
	w.redis.CLI(t, command...)
}

func (w writer) publish(t testing.TB, channel, payload string) {
	t.Helper()
	w.write(t, channel, payload, "PUBLISH", channel, payload)
}

func (w writer) set(t testing.TB, channel, payload string) {
	t.Helper()
	w.write(t, channel, payload, "SET", channel, payload)
}

func (w writer) add(t testing.TB, channel, payload string) {
	t.Helper()
	w.write(t, channel, payload, "XADD", channel, "*", "data", payload)
}
