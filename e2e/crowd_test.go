package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/processtest"
	"github.com/millrace/millrace/internal/redistest"
)

// crowd is a running crowd of clients of one wire: see the folder crowd.
type crowd struct {
	*process
}

// crowdReport is what a crowd says of itself.
type crowdReport struct {
	Live       int    `json:"live"`
	Failed     int    `json:"failed"`
	Closed     int    `json:"closed"`
	Reached    int    `json:"reached"`
	Events     int    `json:"events"`
	Disordered int    `json:"disordered"`
	Gaps       int    `json:"gaps"`
	Answers    int    `json:"answers"`
	Inflated   int    `json:"inflated"`
	SilenceMs  int    `json:"silenceMs"`
	Why        string `json:"why"`
}

// crowdPatience is how long a crowd may take to open, or to receive everything.
const crowdPatience = 100 * time.Second

func startCrowd(t *testing.T, g *gateway, wire, channel string) *crowd {
	t.Helper()
	path, err := crowdPath()
	if err != nil {
		t.Fatal(err)
	}
	c := &crowd{start(t, "crowd of "+wire, path, "-address", g.address, "-wire", wire, "-channel", channel)}
	c.polite = time.Second
	return c
}

func (c *crowd) command(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(c.input, line+"\n"); err != nil {
		t.Fatalf("%s is gone (%v): %s", c.name, err, c.complaints())
	}
}

func (c *crowd) report(t *testing.T, number int) crowdReport {
	t.Helper()
	c.command(t, "report "+strconv.Itoa(number))
	select {
	case line, more := <-c.lines:
		var report crowdReport
		if err := json.Unmarshal([]byte(line), &report); !more || err != nil {
			t.Fatalf("%s reported %q (%v): %s", c.name, line, err, c.complaints())
		}
		return report
	case <-time.After(crowdPatience):
		t.Fatalf("%s does not report", c.name)
	}
	return crowdReport{}
}

// open has so many streams in all, live, and none lost on the way.
func (c *crowd) open(t *testing.T, count int) {
	t.Helper()
	c.command(t, "open "+strconv.Itoa(count))
	var report crowdReport
	done := processtest.Poll(crowdPatience, func() bool {
		report = c.report(t, 0)
		return report.Live == count || report.Failed+report.Closed > 0
	})
	if !done || report.Failed+report.Closed > 0 {
		t.Fatalf("%s wanted %d streams and has %+v", c.name, count, report)
	}
}

// crowdGateway runs the gateway without the race detector, with room for a crowd.
func crowdGateway(t *testing.T, arguments ...string) *gateway {
	t.Helper()
	path, err := plain()
	if err != nil {
		t.Fatal(err)
	}
	return startBinary(t, path, append([]string{"--max-connections", "0"}, arguments...)...)
}

// residentBytes asks the gateway to collect its garbage and gives what it holds of real memory.
func residentBytes(t *testing.T, g *gateway) int {
	t.Helper()
	for range 3 { // what a finalizer or a pool lets go of goes with the next collection
		if status := g.status("/debug/pprof/heap?gc=1"); status != 200 {
			t.Fatalf("/debug/pprof/heap?gc=1 says %d", status)
		}
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return statusField(t, string(text), "VmRSS:") << 10
}

// statusField reads a number of /proc/PID/status.
func statusField(t *testing.T, text, name string) int {
	t.Helper()
	_, rest, found := strings.Cut(text, "\n"+name)
	fields := strings.Fields(rest)
	if !found || len(fields) == 0 {
		t.Fatalf("/proc status has no %s", name)
	}
	number, err := strconv.Atoi(fields[0])
	if err != nil {
		t.Fatal(err)
	}
	return number
}

// TestIdleMemory: what a stream costs while nothing happens, each on a channel of its own. The
// slope counts, not the sum: what the process needs at all is another question.
func TestIdleMemory(t *testing.T) {
	const (
		few, many      = 2_000, 18_000
		streamBytesMax = 1024
	)
	for _, wire := range []string{"sse", "websocket"} {
		t.Run(wire, func(t *testing.T) {
			redis := redistest.Start(t)
			g := crowdGateway(t, "--redis", redis.URL())
			c := startCrowd(t, g, wire, "idle:%d")
			c.open(t, few)
			before := settledBytes(t, g)
			c.open(t, many)
			after := settledBytes(t, g)
			slope := float64(after-before) / (many - few)
			t.Logf("%s: %d MiB with %d streams, %d MiB with %d: %.0f bytes a stream",
				wire, before>>20, few, after>>20, many, slope)
			if slope >= streamBytesMax {
				t.Errorf("an idle stream costs %.0f bytes, the limit is %d", slope, streamBytesMax)
			}
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.cmd.Process.Pid))
			if err != nil {
				t.Fatal(err)
			}
			if threads := statusField(t, string(text), "Threads:"); threads > 64 {
				t.Errorf("the gateway has %d threads", threads)
			}
			wantFewGoroutines(t, g)
			redis.CLI(t, "PUBLISH", "idle:17999", `{"n":1}`)
			within(t, patience, "the last stream hears its event", func() bool { return c.report(t, 1).Reached == 1 })
			if report := c.report(t, 0); report.Live != many || report.Gaps != 0 {
				t.Errorf("the crowd ends as %+v", report)
			}
		})
	}
}

// settledBytes waits until memory stops falling: the runtime gives freed pages back at its own pace.
func settledBytes(t *testing.T, g *gateway) int {
	t.Helper()
	least, still := residentBytes(t, g), 0
	processtest.Poll(20*time.Second, func() bool {
		now := residentBytes(t, g)
		if now < least-least/100 {
			still = 0
		} else {
			still++
		}
		least = min(least, now)
		return still >= 20
	})
	return least
}

// wantFewGoroutines: streams have none.
func wantFewGoroutines(t *testing.T, g *gateway) {
	t.Helper()
	line, _, _ := strings.Cut(g.text(t, "/debug/pprof/goroutine?debug=1"), "\n")
	count, err := strconv.Atoi(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:]))
	if err != nil {
		t.Fatalf("the goroutine profile begins %q", line)
	}
	if count > 200 {
		t.Errorf("the gateway has %d goroutines for 18,000 idle streams", count)
	}
}

// TestFanOut: one channel, 10,000 streams of both wires, 1,000 events back to back. Everybody
// gets all of them in order, though one reader of each wire has stopped reading.
func TestFanOut(t *testing.T) {
	const each, events = 5_000, 1_000
	redis := redistest.Start(t)
	g := crowdGateway(t, "--redis", redis.URL())
	crowds := []*crowd{startCrowd(t, g, "sse", "fan:out"), startCrowd(t, g, "websocket", "fan:out")}
	for _, c := range crowds {
		c.open(t, each)
		c.command(t, "stall 1")
	}
	began := time.Now()
	publishMany(t, redis, "fan:out", 1, events)
	for _, c := range crowds {
		reached := processtest.Poll(crowdPatience, func() bool { return c.report(t, events).Reached >= each-1 })
		if report := c.report(t, events); !reached || report.Disordered > 0 || report.Gaps > 0 || report.Closed > 0 {
			t.Fatalf("%s ends as %+v, want %d streams at event %d, all in order", c.name, report, each-1, events)
		}
	}
	took := time.Since(began)
	t.Logf("%d deliveries in %v: %.0f a second", 2*each*events, took.Round(time.Millisecond), 2*each*events/took.Seconds())

	// The stalled ones were not forgotten: they get everything late, or are told of a gap.
	for _, c := range crowds {
		c.command(t, "resume")
		within(t, patience, "the stalled reader of "+c.name, func() bool {
			report := c.report(t, events)
			return report.Reached == each || report.Gaps > 0
		})
	}
}

// publishMany sends events with the numbers from first on to Redis in one pipeline, each of about
// 150 bytes.
func publishMany(t *testing.T, redis *redistest.Server, channel string, first, count int) {
	t.Helper()
	connection, err := net.Dial("tcp", redis.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(crowdPatience))
	var pipeline []byte
	for n := first; n < first+count; n++ {
		payload := fmt.Sprintf(`{"type":"job_progress","n":%d,"jobId":"job_123","status":"processing","message":"%s"}`, n, strings.Repeat("x", 70))
		pipeline = append(pipeline, redistest.Encode("PUBLISH", channel, payload)...)
	}
	go func() { _, _ = connection.Write(pipeline) }() // what fails shows in the answers
	answers, buffer := 0, make([]byte, 4096)
	for answers < count {
		n, err := connection.Read(buffer)
		if err != nil {
			t.Fatalf("Redis took %d of %d events: %v", answers, count, err)
		}
		answers += strings.Count(string(buffer[:n]), "\n")
	}
}
