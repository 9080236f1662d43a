package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/redistest"
)

// stateReads are the commands by which a gateway reads a state.
var stateReads = []string{"getrange", "get", "hlen", "hgetall"}

// commandCalls counts how often Redis was asked any of some commands.
func commandCalls(t *testing.T, redis *redistest.Server, commands ...string) int {
	t.Helper()
	count := 0
	for line := range strings.Lines(redis.CLI(t, "INFO", "commandstats")) {
		for _, command := range commands {
			if rest, ok := strings.CutPrefix(line, "cmdstat_"+command+":calls="); ok {
				digits, _, _ := strings.Cut(rest, ",")
				calls, err := strconv.Atoi(digits)
				if err != nil {
					t.Fatal(err)
				}
				count += calls
			}
		}
	}
	return count
}

// modesConfig gives the path of a file with a namespace of states.
func modesConfig(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "millrace.yaml")
	text := "namespaces:\n  state: {mode: state, access: public}\n  news: {mode: events, access: public}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// heapBytes is what is live on the gateway's heap.
func heapBytes(t *testing.T, g *gateway) int {
	t.Helper()
	least := 0
	for try := range 3 { // what a finalizer or a pool lets go of goes with the next collection
		_, rest, found := strings.Cut(g.text(t, "/debug/pprof/heap?gc=1&debug=1"), "# HeapAlloc = ")
		digits, _, _ := strings.Cut(rest, "\n")
		bytes, err := strconv.Atoi(digits)
		if err != nil || !found {
			t.Fatalf("the heap profile names no HeapAlloc (%v)", err)
		}
		if try == 0 || bytes < least {
			least = bytes
		}
	}
	return least
}

// sweepInterval is how often a gateway reads every key without a reason.
const sweepInterval = time.Minute

// TestStateJoinedByMany: ten thousand subscribers of one state at once cost Redis one read, and so
// does each change.
func TestStateJoinedByMany(t *testing.T) {
	const each = 5_000
	redis := redistest.Start(t)
	redis.CLI(t, "SET", "state:1", `{"n":1}`)
	g := crowdGateway(t, "--redis", redis.URL(), "--config", modesConfig(t))
	crowds := []*crowd{startCrowd(t, g, "sse", "state:1"), startCrowd(t, g, "websocket", "state:1")}
	began, before := time.Now(), commandCalls(t, redis, stateReads...)
	wantReads := func(want int, what string) {
		t.Helper()
		got := commandCalls(t, redis, stateReads...) - before
		if most := want + int(time.Since(began)/sweepInterval)*want; got < want || got > most {
			t.Errorf("%s took Redis %d reads, expected %d", what, got, want)
		}
	}
	all := func(number int, what string) {
		t.Helper()
		within(t, crowdPatience, what, func() bool {
			for _, c := range crowds {
				if report := c.report(t, number); report.Reached < each || report.Failed+report.Closed > 0 {
					if report.Failed+report.Closed > 0 {
						t.Fatalf("%s is %+v", c.name, report)
					}
					return false
				}
			}
			return true
		})
	}
	for _, c := range crowds {
		c.command(t, "open "+strconv.Itoa(each))
	}
	all(1, "everybody has the value")
	wantReads(1, "the crowd")
	redis.CLI(t, "SET", "state:1", `{"n":2}`)
	all(2, "everybody has the next value")
	wantReads(2, "the crowd and a change")
}

// setForever sets a key a thousand times a second to rising numbers, in objects of about 2 KB, for so
// long. It returns the last number.
func setForever(t *testing.T, redis *redistest.Server, key string, first int, duration time.Duration) (last int) {
	t.Helper()
	connection, err := net.Dial("tcp", redis.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	answers := bufio.NewReader(connection)
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	padding := strings.Repeat("x", 2000)
	last = first - 1
	for end := time.Now().Add(duration); time.Now().Before(end); <-pace.C {
		last++
		command := redistest.Encode("SET", key, fmt.Sprintf(`{"n":%d,"pad":%q}`, last, padding))
		if _, err := connection.Write(command); err != nil {
			t.Fatal(err)
		}
		if line, err := answers.ReadString('\n'); err != nil || line != "+OK\r\n" {
			t.Fatalf("SET was answered %q (%v)", line, err)
		}
	}
	return last
}

// TestStateChangedFast: a value that changes a thousand times a second is read as often as its
// interval allows; whoever reads nothing meanwhile ends on the newest one, and costs no memory.
func TestStateChangedFast(t *testing.T) {
	t.Parallel()
	const (
		interval  = 9 * time.Millisecond // between two reads, less the millisecond that clocks are cut to
		growthMax = 1 << 20
	)
	redis := redistest.Start(t)
	g := crowdGateway(t, "--redis", redis.URL(), "--config", modesConfig(t), "--max-queue-bytes", "256KiB")
	var slow, quick []*crowd
	for _, wire := range []string{"sse", "websocket"} {
		slow, quick = append(slow, startCrowd(t, g, wire, "state:1")), append(quick, startCrowd(t, g, wire, "state:1"))
	}
	for i := range slow {
		slow[i].open(t, 1)
		quick[i].open(t, 10)
	}
	// So many changes that whoever reads nothing is behind afterwards: the kernel takes some 300 KB.
	last := setForever(t, redis, "state:1", 1, time.Second)
	for _, c := range slow {
		c.command(t, "stall 1")
	}
	last = setForever(t, redis, "state:1", last+1, 5*time.Second)
	before, reads, began := heapBytes(t, g), commandCalls(t, redis, stateReads...), time.Now()
	first := last + 1
	last = setForever(t, redis, "state:1", first, 3*time.Second)
	newest := func(crowds []*crowd) bool {
		for _, c := range crowds {
			report := c.report(t, last)
			if report.Closed > 0 {
				t.Fatalf("%s is %+v", c.name, report)
			}
			if report.Reached != report.Live {
				return false
			}
		}
		return true
	}
	within(t, patience, "the quick ones have the newest value", func() bool { return newest(quick) })
	reads = commandCalls(t, redis, stateReads...) - reads
	t.Logf("%d changes in %v took %d reads", last-first+1, time.Since(began).Round(time.Millisecond), reads)
	if most := int(time.Since(began)/interval) + 2; reads > most {
		t.Errorf("%d changes in %v took %d reads, expected at most %d", last-first+1, time.Since(began), reads, most)
	}
	if newest(slow) {
		t.Error("those who read nothing have the newest value: they were not behind")
	}
	if grown := heapBytes(t, g) - before; grown > growthMax {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	for _, c := range slow {
		c.command(t, "resume")
	}
	within(t, patience, "the slow ones have the newest value", func() bool { return newest(slow) })
}

// TestStalledClientCostsLittle: one client on a busy channel reads nothing for as long as it takes
// to count as slow. All others get everything, and it holds less than a megabyte. How long the others
// wait is a question for `millrace bench stalled`.
func TestStalledClientCostsLittle(t *testing.T) {
	t.Parallel()
	const (
		each, batch, batches = 500, 100, 35 // as many events as 100 a second are in max-queue-age, and more
		growthMax            = 1_000_000
	)
	for _, wire := range []string{"sse", "websocket"} {
		t.Run(wire, func(t *testing.T) {
			redis := redistest.Start(t)
			g := crowdGateway(t, "--redis", redis.URL(), "--config", modesConfig(t))
			slow, quick := startCrowd(t, g, wire, "news:1"), startCrowd(t, g, wire, "news:1")
			slow.open(t, 1)
			quick.open(t, each)
			send := func(from, to int) {
				t.Helper()
				for n := from; n < to; n++ {
					publishMany(t, redis, "news:1", n*batch+1, batch)
					within(t, crowdPatience, "everybody else has the batch", func() bool { return quick.report(t, (n+1)*batch).Reached == each })
				}
			}
			send(0, 10) // what replays and buffers hold is there by then
			slow.command(t, "stall 1")
			before := heapBytes(t, g)
			send(10, 10+batches)
			grown := heapBytes(t, g) - before
			t.Logf("the heap grew by %d bytes", grown)
			if grown > growthMax {
				t.Errorf("a client that reads nothing costs %d bytes, the limit is %d", grown, growthMax)
			}
			if report := quick.report(t, 0); report.Disordered+report.Gaps+report.Closed > 0 {
				t.Errorf("the others are %+v", report)
			}
			slow.command(t, "resume")
			within(t, patience, "it gets everything, or a gap", func() bool {
				report := slow.report(t, (10+batches)*batch)
				return report.Reached+report.Closed == 1 || report.Gaps > 0
			})
		})
	}
}
