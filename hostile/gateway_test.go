package hostile

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/processtest"
)

// gateway is one running `millrace serve`.
type gateway struct {
	address string // HOST:PORT of the public listener
	admin   string // HOST:PORT of the admin listener
	command *exec.Cmd
	exited  chan struct{} // closed when the process has ended

	mutex sync.Mutex
	log   []string // lines of standard error
	// stuck, while it is held, keeps the log from being read: the pipe fills up.
	stuck sync.Mutex
}

// portNext is where the search for free ports goes on. The range lies below the ports that the
// kernel gives to connections, which a case may take by the thousand.
var portNext atomic.Uint32

const portFirst, portCount = 12_000, 16_000

func init() { portNext.Store(rand.Uint32N(portCount)) }

// freeAddress gives a loopback address that nobody listens on.
func freeAddress(t testing.TB) string {
	t.Helper()
	return freeAddressOf(t, "127.0.0.1")
}

func freeAddressOf(t testing.TB, host string) string {
	t.Helper()
	for range 100 {
		address := host + ":" + strconv.Itoa(portFirst+int(portNext.Add(1)%portCount))
		if listener, err := net.Listen("tcp", address); err == nil {
			listener.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

// start says how a gateway is started.
type start struct {
	arguments   []string
	file        string // text of the configuration, "" for none
	descriptors int    // the limit of descriptors, 0: this process's own
	unready     bool   // do not wait until it is ready
	address     string // HOST:PORT, "": a free one
	log         string // file that the log is written to, "": we read it
	group       string // folder of the control group to run in, "": this process's own
}

// run starts the gateway, which ends with the test.
func (s start) run(t testing.TB) *gateway {
	t.Helper()
	path, err := gatewayPath()
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{address: s.address, admin: freeAddress(t), exited: make(chan struct{})}
	if g.address == "" {
		g.address = freeAddress(t)
	}
	arguments := []string{path, "serve", "--listen", g.address, "--admin-listen", g.admin, "--log-level", "debug", "--log-format", "json"}
	if s.file != "" {
		file := filepath.Join(t.TempDir(), "millrace.yaml")
		if err := os.WriteFile(file, []byte(s.file), 0o600); err != nil {
			t.Fatal(err)
		}
		arguments = append(arguments, "--config", file)
	}
	arguments = append(arguments, s.arguments...)
	if s.descriptors > 0 {
		arguments = append([]string{"sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$@"`, s.descriptors), "sh"}, arguments...)
	}
	if s.group != "" {
		arguments = append([]string{"sh", "-c", `echo $$ >"$1/cgroup.procs"; shift; exec "$@"`, "sh", s.group}, arguments...)
	}
	if s.log != "" {
		arguments = append([]string{"sh", "-c", `log=$1; shift; exec "$@" 2>"$log"`, "sh", s.log}, arguments...)
	}
	g.command = exec.Command(arguments[0], arguments[1:]...)
	// Should this process be killed, its children must not outlive it.
	g.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	output, err := g.command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.command.Start(); err != nil {
		t.Fatal(err)
	}
	go g.follow(output)
	t.Cleanup(func() { g.end(t) })
	if !s.unready && !processtest.Poll(patience, func() bool { return g.ended() || g.status("/readyz") == http.StatusOK }) {
		t.Fatalf("/readyz did not say 200 within %v:\n%s", patience, g.said())
	}
	if g.ended() && !s.unready {
		t.Fatalf("the gateway ended at once:\n%s", g.said())
	}
	return g
}

// follow keeps the log, and notes the end.
func (g *gateway) follow(output io.Reader) {
	reader := bufio.NewReader(output)
	for {
		g.stuck.Lock()
		line, err := reader.ReadString('\n')
		g.stuck.Unlock()
		if line != "" {
			logs.Line("a gateway of a case", line)
			g.mutex.Lock()
			g.log = append(g.log, strings.TrimSuffix(line, "\n"))
			g.mutex.Unlock()
		}
		if err != nil {
			break
		}
	}
	_ = g.command.Wait() // how it ended is in ProcessState
	close(g.exited)
}

// end asks the gateway to go, and kills it after a moment.
func (g *gateway) end(t testing.TB) {
	g.signal(syscall.SIGTERM)
	g.signal(syscall.SIGTERM) // at once
	select {
	case <-g.exited:
	case <-time.After(5 * time.Second):
		g.signal(syscall.SIGKILL)
		<-g.exited
	}
	if t.Failed() {
		lines := slices.DeleteFunc(g.lines(), func(line string) bool { return strings.Contains(line, `"DEBUG"`) })
		t.Logf("the end of the gateway's log:\n%s", strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
}

func (g *gateway) signal(signal syscall.Signal) {
	_ = g.command.Process.Signal(signal) // it may have ended already
}

func (g *gateway) ended() bool {
	select {
	case <-g.exited:
		return true
	default:
		return false
	}
}

// exit waits for the end and gives the exit code, -1 for a signal.
func (g *gateway) exit(t testing.TB, limit time.Duration) int {
	t.Helper()
	select {
	case <-g.exited:
		return g.command.ProcessState.ExitCode()
	case <-time.After(limit):
		t.Fatalf("the gateway did not end within %v", limit)
		return 0
	}
}

func (g *gateway) lines() []string {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	return append([]string(nil), g.log...)
}

func (g *gateway) said() string { return strings.Join(g.lines(), "\n") }

// admins asks the admin routes; a connection for each request, so that none is left to count.
var admins = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}

// status asks the admin listener for a path and gives the answer's status, 0 where there is none.
func (g *gateway) status(path string) int {
	status, _ := g.ask(http.MethodGet, path)
	return status
}

// ask asks the admin listener.
func (g *gateway) ask(method, path string) (status int, body []byte) {
	request, err := http.NewRequest(method, "http://"+g.admin+path, http.NoBody)
	if err != nil {
		return 0, nil
	}
	response, err := admins.Do(request)
	if err != nil {
		return 0, nil
	}
	defer response.Body.Close()
	body, _ = io.ReadAll(response.Body)
	return response.StatusCode, body
}

// stats is what the cases read of /api/realtime/stats.
type stats struct {
	Status   string `json:"status"`
	Channels struct {
		Connected     bool `json:"isConnected"`
		Active        int  `json:"activeChannels"`
		Subscriptions int  `json:"totalSubscriptions"`
	} `json:"channels"`
	Memory struct {
		Goroutines int `json:"goroutines"`
	} `json:"memory"`
}

func (g *gateway) stats() (s stats, err error) {
	status, body := g.ask(http.MethodGet, "/api/realtime/stats")
	if status != http.StatusOK {
		return s, fmt.Errorf("statistics answered %d", status)
	}
	return s, json.Unmarshal(body, &s)
}

// metrics gives every series by its name with labels.
func (g *gateway) metrics() (map[string]float64, error) {
	status, body := g.ask(http.MethodGet, "/metrics")
	if status != http.StatusOK {
		return nil, fmt.Errorf("metrics answered %d", status)
	}
	values := make(map[string]float64)
	for line := range bytes.Lines(body) {
		text := strings.TrimSpace(string(line))
		end := strings.LastIndexByte(text, ' ')
		if end < 0 || strings.HasPrefix(text, "#") {
			continue
		}
		number, err := strconv.ParseFloat(text[end+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("metric line %q: %w", line, err)
		}
		values[text[:end]] = number
	}
	return values, nil
}

// cost is what the process holds.
type cost struct {
	descriptors, goroutines int
	bytes                   int // resident
	reserved                int // bytes of address space
}

// cost is measured after a collection, so that garbage does not count.
func (g *gateway) cost() (c cost, err error) {
	if status, _ := g.ask(http.MethodGet, "/debug/pprof/heap?gc=1"); status != http.StatusOK {
		return c, fmt.Errorf("collecting garbage answered %d", status)
	}
	s, err := g.stats()
	if err != nil {
		return c, err
	}
	folder := "/proc/" + strconv.Itoa(g.command.Process.Pid)
	open, err := os.ReadDir(folder + "/fd")
	if err != nil {
		return c, err
	}
	text, err := os.ReadFile(folder + "/statm")
	if err != nil {
		return c, err
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return c, errors.New("statm is not what it was")
	}
	reserved, err := strconv.Atoi(fields[0])
	if err != nil {
		return c, err
	}
	resident, err := strconv.Atoi(fields[1])
	page := os.Getpagesize()
	return cost{descriptors: len(open), goroutines: s.Memory.Goroutines, bytes: resident * page, reserved: reserved * page}, err
}
