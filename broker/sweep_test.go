package broker_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/broker/brokertest"
	"github.com/millrace/millrace/internal/logtest"
	"github.com/millrace/millrace/internal/redistest"
)

// swallower stands between a broker and its server and lets Redis's word of changed keys vanish.
type swallower struct {
	listener  net.Listener
	target    string
	hungry    atomic.Bool // it swallows from now on
	swallowed atomic.Int64
	running   sync.WaitGroup
}

func startSwallower(t *testing.T, server *redistest.Server) *swallower {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &swallower{listener: listener, target: server.Addr}
	s.running.Go(s.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		s.running.Wait()
	})
	return s
}

func (s *swallower) accept() {
	for {
		near, err := s.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", s.target)
		if err != nil {
			_ = near.Close()
			continue
		}
		s.running.Go(func() {
			_, _ = io.Copy(far, near)
			_ = far.Close()
		})
		s.running.Go(func() {
			defer near.Close()
			buffer := make([]byte, 64<<10)
			for {
				count, err := far.Read(buffer)
				if err != nil {
					return
				}
				if _, err := near.Write(s.bite(buffer[:count])); err != nil {
					return
				}
			}
		})
	}
}

// bite takes words of changed states and logs out of what Redis says. On an idle connection each
// comes in one piece.
func (s *swallower) bite(said []byte) []byte {
	const word = ">2\r\n$10\r\ninvalidate\r\n*1\r\n"
	if !s.hungry.Load() {
		return said
	}
	for _, name := range []string{"$7\r\nstate:1\r\n", "$5\r\nlog:1\r\n", "$5\r\nlog:2\r\n"} {
		if bytes.Contains(said, []byte(word+name)) {
			s.swallowed.Add(1)
			said = bytes.Replace(said, []byte(word+name), nil, 1)
		}
	}
	return said
}

// TestSweepFindsWhatWasNotHeard: Redis's word of a change is lost on the way, which should never
// happen. The sweep finds it, counts it, and misses neither a value nor an entry, nor that one
// came and went.
func TestSweepFindsWhatWasNotHeard(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	between := startSwallower(t, server)
	b, err := broker.NewRedis(broker.RedisOptions{URL: "redis://" + between.listener.Addr().String(), Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	b.SetSweepInterval(time.Second)
	_, r, _ := run(t, b, &logtest.Text{})
	subs := []broker.Subscription{state("state:1"), logOf("log:1"), logOf("log:2")}
	ready(t, b, r, subs...)
	client := clientOf(t, server)
	do(t, client, words("SET state:1 heard", "XADD log:1 5-1 data a", "XADD log:2 5-1 data a")...)
	r.WaitValue(t, "state:1", "heard")
	r.WaitEntries(t, "log:1", 1)
	r.WaitEntries(t, "log:2", 1)
	before := b.Stats().Reads
	r.Wait(t, "a sweep that finds nothing", func() bool { return b.Stats().Reads > before+3 })
	if found := b.Stats().SweepFound; found != 0 {
		t.Fatalf("the sweep found %d where all was heard", found)
	}
	between.hungry.Store(true)
	do(t, client, slices.Concat(words("MULTI", "SET state:1 unheard", "XADD log:1 6-1 data b", "XADD log:2 6-1 data b", "XDEL log:2 6-1"), words("EXEC"))...)
	r.WaitValue(t, "state:1", "unheard")
	if got := r.WaitEntries(t, "log:1", 2); got[1] != "b" {
		t.Fatalf("got %q", got)
	}
	r.Wait(t, "the hole", func() bool { return len(r.Holes("log:2")) == 1 })
	if stats := b.Stats(); stats.SweepFound != 3 || between.swallowed.Load() != 3 {
		t.Fatalf("%d swallowed, stats %+v", between.swallowed.Load(), stats)
	}
	if len(r.Holes("log:1")) != 0 || r.Count(brokertest.Lost) != 0 {
		t.Fatal("a loss was told where none was")
	}
}

// TestHorizonOverManyLogs lets many writers append to many logs, some of which come and go, and
// the connection be cut, and holds every horizon against what came later.
func TestHorizonOverManyLogs(t *testing.T) {
	t.Parallel()
	const logs = 200
	server := redistest.Start(t)
	b, r, _ := start(t, broker.RedisOptions{URL: server.URL()})
	var names []string
	for number := range logs {
		names = append(names, fmt.Sprintf("log:%d", number))
		b.Subscribe(logOf(names[number]))
	}
	ready(t, b, r)
	var writers []*numbered
	for first := 0; first < logs; first += 50 {
		writer := publishNumbers(t, broker.Log, at(server), names[first:first+50]...)
		writers = append(writers, writer)
	}
	for round := range 3 {
		horizon := b.Stats().Horizon
		r.Wait(t, "the horizon to rise", func() bool { return b.Stats().Horizon > horizon })
		kill(t, server, "flags=t")
		r.Wait(t, "delivery", func() bool { return b.Stats().Reconnects > uint64(round) && b.Health().Delivering })
	}
	for _, writer := range writers {
		writer.checkLogs(t, r)
	}
	for _, name := range names {
		if holes := r.Holes(name); len(holes) > 0 {
			t.Fatalf("%s: holes %v", name, holes)
		}
	}
}
