package broker_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/broker/brokertest"
	"github.com/millrace/millrace/internal/logtest"
	"github.com/millrace/millrace/internal/redistest"
)

func plain(channel string) broker.Subscription {
	return broker.Subscription{Channel: channel, Kind: broker.Plain}
}

func pattern(channel string) broker.Subscription {
	return broker.Subscription{Channel: channel, Kind: broker.Pattern}
}

func sharded(channel string) broker.Subscription {
	return broker.Subscription{Channel: channel, Kind: broker.Sharded}
}

// publish publishes without a deadline of its own.
func publish(b broker.Broker, messages ...broker.Message) error {
	_, err := b.Publish(context.Background(), messages)
	return err
}

// start makes a broker with a recorder and a journal. It does not wait for Redis.
func start(t testing.TB, options broker.RedisOptions) (*broker.Redis, *brokertest.Recorder, *logtest.Text) {
	t.Helper()
	lines := &logtest.Text{}
	options.Logger = slog.New(slog.NewTextHandler(lines, &slog.HandlerOptions{Level: slog.LevelDebug}))
	made, err := broker.NewRedis(options)
	if err != nil {
		t.Fatal(err)
	}
	return run(t, made, lines)
}

// startSweeping is start with another interval of the sweep.
func startSweeping(t testing.TB, server *redistest.Server, interval time.Duration) (*broker.Redis, *brokertest.Recorder, *logtest.Text) {
	t.Helper()
	made, err := broker.NewRedis(broker.RedisOptions{URL: server.URL(), Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	made.SetSweepInterval(interval)
	return run(t, made, &logtest.Text{})
}

func run(t testing.TB, made *broker.Redis, lines *logtest.Text) (*broker.Redis, *brokertest.Recorder, *logtest.Text) {
	t.Helper()
	recorder := brokertest.NewRecorder()
	t.Cleanup(func() {
		_ = made.Close()
		if recorder.Overlapped() {
			t.Error("two callbacks ran at once")
		}
	})
	if err := made.Start(recorder.Callbacks()); err != nil {
		t.Fatal(err)
	}
	return made, recorder, lines
}

// ready waits until the broker delivers and has confirmed subs.
func ready(t testing.TB, b broker.Broker, r *brokertest.Recorder, subs ...broker.Subscription) {
	t.Helper()
	for _, sub := range subs {
		b.Subscribe(sub)
	}
	r.Wait(t, "delivery and subscriptions", func() bool {
		return b.Health().Delivering && b.Stats().Pending == 0
	})
}

// numbered publishes rising numbers from a connection of its own, all the time, and knows which
// of them Redis took.
type numbered struct {
	channels []string
	kind     broker.Kind
	taken    [][]int // per channel
	stop     chan struct{}
	done     chan struct{}
	rate     atomic.Int64 // numbers a second
}

// publishNumbers begins to publish 0, 1, 2... on every channel. addresses returns the server of a
// channel at this moment.
func publishNumbers(t testing.TB, kind broker.Kind, address func(channel string) string, channels ...string) *numbered {
	t.Helper()
	n := &numbered{
		channels: channels, kind: kind, taken: make([][]int, len(channels)),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	n.rate.Store(500)
	go n.run(address)
	t.Cleanup(n.end)
	return n
}

func (n *numbered) run(address func(string) string) {
	defer close(n.done)
	clients := make(map[string]rueidis.Client)
	defer func() {
		for _, client := range clients {
			client.Close()
		}
	}()
	for number := 0; ; number++ {
		select {
		case <-n.stop:
			return
		case <-time.After(time.Second / time.Duration(n.rate.Load())):
		}
		for index, channel := range n.channels {
			client := n.client(clients, address(channel))
			if client == nil {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
			if err := client.Do(ctx, n.command(client.B(), channel, strconv.Itoa(number))).Error(); err == nil {
				n.taken[index] = append(n.taken[index], number)
			}
			cancel()
		}
	}
}

func (n *numbered) command(b rueidis.Builder, channel, number string) rueidis.Completed {
	switch n.kind {
	case broker.Sharded:
		return b.Spublish().Channel(channel).Message(number).Build()
	case broker.State:
		return b.Set().Key(channel).Value(number).Build()
	case broker.Log:
		return b.Xadd().Key(channel).Id("*").FieldValue().FieldValue("data", number).Build()
	default:
		return b.Publish().Channel(channel).Message(number).Build()
	}
}

func (n *numbered) client(clients map[string]rueidis.Client, address string) rueidis.Client {
	if clients[address] == nil {
		client, err := rueidis.NewClient(rueidis.ClientOption{
			InitAddress: []string{address}, ForceSingleClient: true, DisableCache: true, DisableRetry: true,
			PipelineMultiplex: -1, RingScaleEachConn: 4, Dialer: net.Dialer{Timeout: 300 * time.Millisecond},
		})
		if err != nil {
			if client != nil {
				client.Close()
			}
			return nil
		}
		clients[address] = client
	}
	return clients[address]
}

func (n *numbered) end() {
	select {
	case <-n.stop:
	default:
		close(n.stop)
	}
	<-n.done
}

// check ends the publisher, waits for its last number, and holds the records to the promise: in
// order, once, and each number that Redis took and that did not come lies between a Lost and a
// confirmation with a loss.
func (n *numbered) check(t *testing.T, r *brokertest.Recorder) {
	t.Helper()
	for _, channel := range n.channels {
		r.WaitEvents(t, channel, len(r.Events(channel))+2)
	}
	n.end()
	for index, channel := range n.channels {
		taken := n.taken[index]
		if len(taken) == 0 {
			t.Fatalf("%s: nothing was published", channel)
		}
		last := strconv.Itoa(taken[len(taken)-1])
		r.Wait(t, "the last number of "+channel, func() bool {
			events := r.Events(channel)
			return len(events) > 0 && events[len(events)-1] == last
		})
		if err := account(taken, r.Records(), broker.Subscription{Channel: channel, Kind: n.kind}); err != nil {
			t.Fatalf("%s: %v\n%s", channel, err, r.Tail(30))
		}
	}
}

func account(taken []int, records []brokertest.Record, sub broker.Subscription) error {
	next := 0 // index into taken of the number that should come
	lost, mended := false, false
	confirmed := false
	last := -1
	for _, record := range records {
		switch {
		case record.Sub == sub && record.What == brokertest.Lost:
			lost, mended = true, false
		case record.Sub == sub && record.What == brokertest.Mended:
			mended = lost
		case record.What == brokertest.Event && record.Channel == sub.Channel:
			number, err := strconv.Atoi(string(record.Payload))
			if err != nil {
				return err
			}
			// A number may arrive although its publisher got no answer.
			from := next
			for next < len(taken) && taken[next] < number {
				next++
			}
			if number <= last {
				return fmt.Errorf("%d came after %d", number, last)
			}
			last = number
			if missing := next - from; missing > 0 && confirmed && !mended {
				return fmt.Errorf("%d numbers before %d are missing and nobody said so", missing, number)
			}
			if next < len(taken) && taken[next] == number {
				next++
			}
			confirmed, lost, mended = true, false, false
		}
	}
	if !confirmed {
		return fmt.Errorf("no number came")
	}
	return nil
}

// at returns a function that says that every channel is on one server.
func at(server *redistest.Server) func(string) string {
	return func(string) string { return server.Addr }
}

// calls returns how often a command was called, from INFO commandstats.
func calls(t testing.TB, server *redistest.Server, command string) int {
	t.Helper()
	info := server.CLI(t, "INFO", "commandstats")
	_, rest, found := strings.Cut(info, "cmdstat_"+command+":calls=")
	if !found {
		return 0
	}
	digits, _, _ := strings.Cut(rest, ",")
	count, err := strconv.Atoi(digits)
	if err != nil {
		t.Fatal(err)
	}
	return count
}
