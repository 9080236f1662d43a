// Package channelstest gives the tests of the example workers a real Redis, and ears.
package channelstest

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/millrace/millrace/examples/workers/channels"
	"github.com/millrace/millrace/internal/redistest"
)

// Patience is how long a test waits for what must happen. It is long, for a busy machine, and
// costs nothing where things work.
const Patience = time.Minute

// Redis is a server of a test's own, and a worker's connection to it.
type Redis struct {
	*channels.Redis
	Server *redistest.Server

	t      testing.TB
	client rueidis.Client
}

// Start starts a Redis that ends with the test.
func Start(t testing.TB) *Redis {
	t.Helper()
	server := redistest.Start(t)
	worker, err := channels.Dial(server.URL(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(worker.Close)
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server.Addr}, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &Redis{Redis: worker, Server: server, t: t, client: client}
}

// Event is something that was published.
type Event struct {
	Channel string
	Data    map[string]any
}

// Text gives a field that is a text, "" where it is none.
func (e Event) Text(field string) string {
	text, _ := e.Data[field].(string)
	return text
}

// Number gives a field that is a number, 0 where it is none.
func (e Event) Number(field string) float64 {
	number, _ := e.Data[field].(float64)
	return number
}

// event reads what was published on a channel.
func (r *Redis) event(channel, data string) Event {
	e := Event{Channel: channel}
	if err := json.Unmarshal([]byte(data), &e.Data); err != nil {
		r.t.Errorf("what was published on %s is no JSON object: %v: %q", channel, err, data)
	}
	return e
}

// Log gives all entries of a log. Its command is pinned: one that is said again after a lost connection
// must not be used anew while the goroutine that wrote it to the old connection may look at it.
func (r *Redis) Log(channel string) (events []Event) {
	r.t.Helper()
	entries, err := r.client.Do(r.t.Context(), r.client.B().Xrange().Key(channel).Start("-").End("+").Build().Pin()).AsXRange()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, entry := range entries {
		events = append(events, r.event(channel, entry.FieldValues["data"]))
	}
	return events
}

// State gives a state's value, and whether there is one. Its command is pinned as that of [Redis.Log] is.
func (r *Redis) State(channel string) (Event, bool) {
	r.t.Helper()
	value, err := r.client.Do(r.t.Context(), r.client.B().Get().Key(channel).Build().Pin()).ToString()
	if rueidis.IsRedisNil(err) {
		return Event{}, false
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return r.event(channel, value), true
}

// SetState writes a state as it is.
func (r *Redis) SetState(channel, value string) {
	r.t.Helper()
	if err := r.client.Do(r.t.Context(), r.client.B().Set().Key(channel).Value(value).Build()).Error(); err != nil {
		r.t.Fatal(err)
	}
}

// Calls counts how often a command (in small letters) was called since the server's start.
func (r *Redis) Calls(command string) int {
	r.t.Helper()
	_, rest, found := strings.Cut(r.Server.CLI(r.t, "INFO", "commandstats"), "cmdstat_"+command+":calls=")
	if !found {
		return 0
	}
	number, _, _ := strings.Cut(rest, ",")
	calls, err := strconv.Atoi(number)
	if err != nil {
		r.t.Fatal(err)
	}
	return calls
}

// Heard is what was published on the channels of a pattern since [Redis.Hear].
type Heard struct {
	mutex  sync.Mutex // guards what follows
	events []Event
}

// Events gives what was heard so far.
func (h *Heard) Events() []Event {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	return append([]Event{}, h.events...)
}

// Hear listens to the channels of a pattern until the test ends. It returns once Redis has
// confirmed that it does.
func (r *Redis) Hear(pattern string) *Heard {
	r.t.Helper()
	heard := &Heard{}
	confirmed := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(rueidis.WithOnSubscriptionHook(context.Background(), func(rueidis.PubSubSubscription) {
		select {
		case confirmed <- struct{}{}:
		default:
		}
	}))
	var listening sync.WaitGroup
	listening.Go(func() {
		_ = r.client.Receive(ctx, r.client.B().Psubscribe().Pattern(pattern).Build(), func(message rueidis.PubSubMessage) {
			event := r.event(message.Channel, message.Message)
			heard.mutex.Lock()
			defer heard.mutex.Unlock()
			heard.events = append(heard.events, event)
		})
	})
	r.t.Cleanup(func() {
		cancel()
		listening.Wait()
	})
	select {
	case <-confirmed:
	case <-time.After(Patience):
		r.t.Fatalf("Redis did not confirm a subscription to %s", pattern)
	}
	return heard
}
