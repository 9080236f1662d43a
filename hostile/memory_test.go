package hostile

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// groupsMade numbers the control groups of this process.
var groupsMade atomic.Int64

// memoryGroup makes a control group that may take so many bytes, and gives its folder. It is gone at
// the end of the case. Where none can be made, the case is skipped.
func (w *world) memoryGroup(bytes int) (folder string) {
	w.Helper()
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		w.Skipf("there are no control groups: %v", err)
	}
	top, limit := "", ""
	for line := range strings.Lines(string(text)) {
		switch parts := strings.SplitN(strings.TrimSpace(line), ":", 3); {
		case len(parts) != 3:
		case parts[1] == "memory":
			top, limit = filepath.Join("/sys/fs/cgroup/memory", parts[2]), "memory.limit_in_bytes"
		case parts[0] == "0" && top == "":
			// Version 2 lets no group have processes beside groups that are bounded: ours stands at the root.
			top, limit = "/sys/fs/cgroup", "memory.max"
		}
	}
	folder = filepath.Join(top, fmt.Sprintf("millrace-hostile-%d-%d", os.Getpid(), groupsMade.Add(1)))
	if err := os.Mkdir(folder, 0o755); err != nil {
		w.Skipf("no control group can be made: %v", err)
	}
	w.Cleanup(func() { // after the gateway has ended
		if err := os.Remove(folder); err != nil && !errors.Is(err, os.ErrNotExist) {
			w.Errorf("the control group stays: %v", err)
		}
	})
	if err := os.WriteFile(filepath.Join(folder, limit), []byte(strconv.Itoa(bytes)), 0o600); err != nil {
		w.Skipf("the memory of a control group cannot be bounded here: %v", err)
	}
	return folder
}

// killed is how many processes of a control group the kernel has ended.
func (w *world) killed(folder string) int {
	w.Helper()
	for _, name := range []string{"memory.events", "memory.oom_control"} {
		text, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if number, found := strings.CutPrefix(line, "oom_kill "); found {
				count, err := strconv.Atoi(strings.TrimSpace(number))
				if err != nil {
					w.Fatal(err)
				}
				return count
			}
		}
	}
	w.Fatal("the control group does not say whom the kernel has ended")
	return 0
}

const littleMemoryBytes = 192 << 20

func withLittleMemory(w *world) { w.abuse.group = w.memoryGroup(littleMemoryBytes) }

// littleMemory has more queued than the gateway may take.
func littleMemory(w *world) {
	const each = 1 << 20 // max-queue-bytes
	readers := 2 * littleMemoryBytes / each
	var sockets []*connection
	taken, refused := 0, 0
	payload := `{"fill":"` + strings.Repeat("x", 100<<10) + `"}`
	for n := range readers {
		c := w.dial()
		_ = c.SetReadBuffer(4 << 10)
		c.say(w.head(fmt.Sprintf("GET /api/stream?channel=job_progress:i2_%d HTTP/1.1", n), "Host: HOST"))
		sockets = append(sockets, c)
	}
	w.within(patience, "the readers are there", func() bool {
		s, err := w.gateway.stats()
		return err == nil && s.Channels.Subscriptions >= readers/2
	})
	// Somebody new comes all the while.
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			if w.overloaded() {
				refused++
			} else {
				taken++
			}
		}
	}()
	// About 80 MiB a second: a lot, and no more than can be answered.
	pace := time.NewTicker(60 * time.Millisecond)
	defer pace.Stop()
	for n := 0; n < 12*readers; n += 50 {
		var commands [][]string
		for next := range 50 {
			commands = append(commands, []string{"PUBLISH", fmt.Sprintf("job_progress:i2_%d", (n+next)%readers), payload})
		}
		<-pace.C
		w.pipeline(w.redis.Addr, commands)
	}
	w.within(patience, "readers are closed for memory", func() bool { return w.counted()["end memory"] > 0 })
	close(stop)
	<-done
	w.wantAlive()
	if count := w.killed(w.abuse.group); count > 0 {
		w.Errorf("the kernel has ended %d processes", count)
	}
	closed := w.counted()["end memory"]
	for _, c := range sockets {
		c.Close()
	}
	w.within(patience, "new streams are taken again", func() bool { return !w.overloaded() })
	if refused == 0 {
		w.Errorf("nobody new was refused, and %d were taken", taken)
	}
	w.held("%d readers that do not read, %d MiB queued for them at most", readers, readers*each>>20)
	w.note("503 for %d of %d who came, then the end for %d that did not read; the kernel ended nobody; new streams are taken again afterwards", refused, refused+taken, closed)
}

// overloaded asks for a WebSocket, and says whether it was refused for want of room.
func (w *world) overloaded() bool {
	c, err := net.DialTimeout("tcp", w.gateway.address, patience)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(c, w.head(append([]string{"GET /ws HTTP/1.1"}, handshake...)...))
	line := make([]byte, len("HTTP/1.1 503"))
	_, err = io.ReadFull(c, line)
	return err == nil && string(line) == "HTTP/1.1 503"
}
