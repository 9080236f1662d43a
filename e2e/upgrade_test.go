package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/processtest"
	"github.com/millrace/millrace/internal/redistest"
)

// upgradeStreamsVariable says how many streams TestUpgradeDropsNobody holds; `make upgrade-test` sets it.
const upgradeStreamsVariable = "MILLRACE_UPGRADE_STREAMS"

// upgraded is a gateway whose process changes: what was started first, and what serves now.
type upgraded struct {
	*gateway
	serving int // process id
}

// upgradable takes care that whatever process serves at the end of the test ends.
func upgradable(t *testing.T, g *gateway) *upgraded {
	u := &upgraded{gateway: g, serving: g.cmd.Process.Pid}
	t.Cleanup(func() {
		// The first process has its parent's pipes, and so has each one after it: they are closed, and
		// g.exited with them, when the last has ended.
		for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			_ = syscall.Kill(u.serving, signal)
			select {
			case <-g.exited:
				return
			case <-time.After(patience):
			}
		}
		t.Errorf("process %d does not end", u.serving)
	})
	return u
}

var nowServing = regexp.MustCompile(`process (\d+) serves now, in the place of (\d+)`)

// upgrade runs `millrace upgrade` to a binary, and gives what it printed.
func (u *upgraded) upgrade(t *testing.T, binary string) (said string, err error) {
	t.Helper()
	command, err := plain()
	if err != nil {
		t.Fatal(err)
	}
	output, err := exec.Command(command, "upgrade", "--pid", strconv.Itoa(u.serving), "--binary", binary).CombinedOutput()
	if found := nowServing.FindSubmatch(output); err == nil && found != nil {
		u.serving, _ = strconv.Atoi(string(found[1]))
	} else if err == nil {
		t.Fatalf("the upgrade ended well, and says %s", output)
	}
	return string(output), err
}

// ticker publishes {"n":1,...}, {"n":2,...} and so on, long enough to be compressed, on a channel as an
// event, and adds the same to a log.
type ticker struct {
	last atomic.Int64
	stop func() error // once
}

// tick has a ticker publish at the Redis that listens at an address.
func tick(t *testing.T, network, address string, every time.Duration, channel, log string) *ticker {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	k := &ticker{}
	over, done := make(chan struct{}), make(chan error, 1)
	go func() {
		defer conn.Close()
		pace := time.NewTicker(every)
		defer pace.Stop()
		for {
			select {
			case <-over:
				done <- nil
				return
			case <-pace.C:
			}
			payload := fmt.Sprintf(`{"n":%d,"what":"tick, tick, tick, tick, tick, tick, tick, tick, tick, tick, tick, tick"}`, k.last.Load()+1)
			if err := tell(conn, append(redistest.Encode("PUBLISH", channel, payload), redistest.Encode("XADD", log, "*", "data", payload)...)); err != nil {
				done <- err
				return
			}
			k.last.Add(1)
		}
	}()
	k.stop = sync.OnceValue(func() error {
		close(over)
		return <-done
	})
	t.Cleanup(func() { k.end(t) })
	return k
}

// tell gives Redis a PUBLISH and an XADD, and waits for the answers: a number, and an id in two lines.
func tell(conn net.Conn, commands []byte) error {
	if _, err := conn.Write(commands); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	for lines := 0; lines < 3; {
		n, err := conn.Read(answer)
		if err != nil {
			return err
		}
		if strings.Contains(string(answer[:n]), "-ERR") {
			return fmt.Errorf("it answered %q", answer[:n])
		}
		lines += strings.Count(string(answer[:n]), "\n")
	}
	return nil
}

// end stops it, and gives the last number.
func (k *ticker) end(t *testing.T) int {
	t.Helper()
	if err := k.stop(); err != nil {
		t.Errorf("publishing: %v", err)
	}
	return int(k.last.Load())
}

// upgradeConfig has a namespace whose channels are logs.
func upgradeConfig(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "millrace.yaml")
	text := "namespaces:\n  ticks:\n    mode: log\n  default: {}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestUpgradeDropsNobody takes crowds of every wire, some of whom do not read and some of whom have sent half
// a command, through five upgrades back and forth between two builds while events come: nobody is
// closed, every event comes once and in its order, and nobody waits long.
func TestUpgradeDropsNobody(t *testing.T) {
	t.Parallel()
	count, binaries, every := 300, [2]func() (string, error){racy, racyNext}, 50*time.Millisecond
	large := os.Getenv(upgradeStreamsVariable)
	if large != "" {
		var err error
		if count, err = strconv.Atoi(large); err != nil {
			t.Fatal(err)
		}
		binaries, every = [2]func() (string, error){plain, next}, 500*time.Millisecond
	}
	redis := redistest.Start(t)
	path, err := binaries[0]()
	if err != nil {
		t.Fatal(err)
	}
	g := upgradable(t, startBinary(t, path, "--redis", redis.URL(), "--config", upgradeConfig(t), "--max-connections", "0"))
	crowds := crowdsOf(t, g.gateway, count)
	ticker := tick(t, "tcp", redis.Addr, every, "news:all", "ticks:all")
	crowds.reach(t, 1)
	some := crowds.each / 20
	crowds.command(t, fmt.Sprintf("stall %d", some))
	crowds.command(t, "watch")
	before := int(ticker.last.Load()) + 6
	if !processtest.Poll(crowdPatience, func() bool { return int(ticker.last.Load()) >= before }) {
		t.Fatal("no events are published")
	}
	crowds.logSilence(t, "before the first upgrade", before)
	crowds.command(t, "watch")
	for round := range 5 {
		to, err := binaries[(round+1)%2]()
		if err != nil {
			t.Fatal(err)
		}
		crowds.sockets.command(t, fmt.Sprintf("half %d", some))
		if said, err := g.upgrade(t, to); err != nil {
			t.Fatalf("upgrade %d: %v: %s", round+1, err, said)
		}
		crowds.sockets.command(t, "whole")
		if status := g.status("/readyz"); status != 200 {
			t.Errorf("after upgrade %d /readyz says %d", round+1, status)
		}
	}
	crowds.command(t, "resume")
	last := ticker.end(t)
	crowds.reach(t, last)
	if !processtest.Poll(crowdPatience, func() bool { return crowds.sockets.report(t, last).Answers >= 5*some }) {
		t.Errorf("%d commands were answered of which one process has read a half and another one the rest, want %d", crowds.sockets.report(t, last).Answers, 5*some)
	}
	crowds.undisturbed(t, last)
	if silence := crowds.logSilence(t, "through five upgrades", last); large != "" && silence > every+time.Second {
		t.Errorf("somebody heard nothing for %v, with an event each %v; want at most a second more", silence, every)
	}
	for _, line := range strings.Split(g.complaints(), "\n") {
		if strings.Contains(line, "stoodStill") {
			t.Log(line)
		}
	}
}

// upgradeCrowds are crowds of every wire that hear the same numbers, as events and from a log.
type upgradeCrowds struct {
	all     []*crowd
	sockets *crowd // those of them that are plain WebSockets
	each    int    // streams of each
}

// crowdsOf opens crowds of so many streams in all.
func crowdsOf(t *testing.T, g *gateway, count int) *upgradeCrowds {
	t.Helper()
	crowds := &upgradeCrowds{sockets: startCrowd(t, g, "websocket", "news:all"), each: count / 6}
	crowds.all = []*crowd{crowds.sockets, startCrowd(t, g, "deflate", "news:all")}
	for _, wire := range []string{"sse", "gzip"} {
		crowds.all = append(crowds.all, startCrowd(t, g, wire, "news:all"), startCrowd(t, g, wire, "ticks:all"))
	}
	for _, c := range crowds.all {
		c.open(t, crowds.each)
	}
	return crowds
}

func (u *upgradeCrowds) command(t *testing.T, line string) {
	t.Helper()
	for _, c := range u.all {
		c.command(t, line)
	}
}

// reach returns when everybody has heard the event with that number.
func (u *upgradeCrowds) reach(t *testing.T, number int) {
	t.Helper()
	for _, c := range u.all {
		var report crowdReport
		if !processtest.Poll(crowdPatience, func() bool { report = c.report(t, number); return report.Reached == u.each }) {
			t.Fatalf("%s: not everybody has reached event %d: %+v", c.name, number, report)
		}
	}
}

// undisturbed holds everybody to have heard each event up to the last once and in order.
func (u *upgradeCrowds) undisturbed(t *testing.T, last int) {
	t.Helper()
	for _, c := range u.all {
		report := c.report(t, last)
		if report.Closed+report.Failed+report.Gaps+report.Disordered != 0 || report.Events != last*u.each {
			t.Errorf("%s: %+v after %d events, want each once and in order, and nobody closed", c.name, report, last)
		}
		if compressed := strings.HasSuffix(c.name, "deflate") || strings.HasSuffix(c.name, "gzip"); compressed && report.Inflated < last {
			t.Errorf("%s: %d messages came compressed", c.name, report.Inflated)
		}
	}
}

// logSilence logs how long somebody who reads has heard nothing since that is watched, and gives the
// longest.
func (u *upgradeCrowds) logSilence(t *testing.T, when string, number int) (longest time.Duration) {
	t.Helper()
	for _, c := range u.all {
		report := c.report(t, number)
		silence := time.Duration(report.SilenceMs) * time.Millisecond
		longest = max(longest, silence)
		t.Logf("%s, %d streams, %d events: the longest silence %s is %v", c.name, report.Live, report.Events, when, silence)
	}
	return longest
}

// TestUpgradeThatFails: a program that is none, one that ends at once, and one that is cut off at each
// message in turn leave the gateway serving everybody, and say why.
func TestUpgradeThatFails(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	g := upgradable(t, startGateway(t, "--redis", redis.URL()))
	crowds := []*crowd{startCrowd(t, g.gateway, "sse", "news:all"), startCrowd(t, g.gateway, "websocket", "news:all")}
	const count = 50
	for _, c := range crowds {
		c.open(t, count)
	}
	last := 0
	undisturbed := func(after string) {
		t.Helper()
		last++
		redis.CLI(t, "PUBLISH", "news:all", fmt.Sprintf(`{"n":%d}`, last))
		for _, c := range crowds {
			var report crowdReport
			heard := processtest.Poll(patience, func() bool { report = c.report(t, last); return report.Reached == count })
			if !heard || report.Closed+report.Disordered+report.Gaps != 0 || report.Events != last*count {
				t.Fatalf("%s, after %s: %+v, want %d events each, once and in order", c.name, after, report, last)
			}
		}
	}
	folder := t.TempDir()
	script := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, test := range []struct{ name, binary, want string }{
		{"no such program", filepath.Join(folder, "none"), "no such file"},
		{"one that ends", script("ends", "exit 7"), "exit status 7"},
	} {
		said, err := g.upgrade(t, test.binary)
		if err == nil || !strings.Contains(said, test.want) || !strings.Contains(said, "serves on") {
			t.Errorf("%s: %v: %s", test.name, err, said)
		}
		undisturbed(test.name)
	}
	to, err := racyNext()
	if err != nil {
		t.Fatal(err)
	}
	message := 1
	for ; ; message++ {
		name := fmt.Sprintf("cut-%d", message)
		said, err := g.upgrade(t, script(name, relayCommand(t, message, to)))
		undisturbed(name)
		if err == nil {
			break // there was no such message: nothing was cut
		}
		if !strings.Contains(said, "serves on") {
			t.Errorf("%s: %s", name, said)
		}
	}
	if message < 6 {
		t.Errorf("a hand-over has %d messages; it should have more", message-1)
	}
}

// TestUpgradeTellsSystemd: over the socket that systemd gives, it is told that the service reloads, and
// then which process is it now and that it is ready; and that one is a child of systemd's.
func TestUpgradeTellsSystemd(t *testing.T) {
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", socket.LocalAddr().String())
	hear := func(want string) {
		t.Helper()
		_ = socket.SetReadDeadline(time.Now().Add(patience))
		buffer := make([]byte, 256)
		count, err := socket.Read(buffer)
		if err != nil || string(buffer[:count]) != want {
			t.Fatalf("heard %q, error %v; want %q", buffer[:count], err, want)
		}
	}
	redis := redistest.Start(t)
	g := upgradable(t, startGateway(t, "--redis", redis.URL()))
	hear("READY=1")
	if !processtest.Poll(patience, func() bool { return g.status("/readyz?redis") == 200 }) {
		t.Fatal("Redis does not deliver")
	}
	first := g.serving
	to, err := racyNext()
	if err != nil {
		t.Fatal(err)
	}
	if said, err := g.upgrade(t, to); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	hear("RELOADING=1")
	for range 2 { // both say it
		hear(fmt.Sprintf("MAINPID=%d\nREADY=1", g.serving))
	}
	if g.serving == first {
		t.Error("it is the same process")
	}
	// As far as the gateway knows this process is systemd, which waits for its own children alone.
	if parent := parentOf(t, g.serving); parent != os.Getpid() {
		t.Errorf("it is a child of process %d, want a child of the service manager, %d", parent, os.Getpid())
	}
	_ = syscall.Kill(g.serving, syscall.SIGTERM)
	hear("STOPPING=1")
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(g.serving, &status, 0, nil); err != nil || status.ExitStatus() != 0 {
		t.Errorf("it ended with %d (%v)", status.ExitStatus(), err)
	}
}

// parentOf gives the parent of a process.
func parentOf(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	return statusField(t, string(text), "PPid:")
}
