package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/redistest"
)

// startWorkers runs the example workers in Go on a Redis.
func startWorkers(t *testing.T, redis *redistest.Server, arguments ...string) *process {
	t.Helper()
	path, err := workersPath()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Log("ffmpeg is not installed: titancore renders with our own encoder")
	}
	p := start(t, "the workers", path, append([]string{"--redis", redis.URL()}, arguments...)...)
	t.Cleanup(func() {
		if strings.Contains(p.complaints(), "DATA RACE") {
			t.Errorf("the race detector spoke:\n%s", p.complaints())
		}
	})
	return p
}

// startWorkersGateway runs a gateway on the namespaces of the example workers.
func startWorkersGateway(t *testing.T) (*redistest.Server, *gateway) {
	t.Helper()
	redis := redistest.Start(t)
	return redis, startGateway(t, "--redis", redis.URL(), "--config", "../examples/workers/millrace.yaml")
}

// hasType says what is an event of a type, whichever wire it came by.
func hasType(name string) func(heard) bool {
	return func(h heard) bool { return h.field("type") == name }
}

// TestWorkers: what the Go workers publish with plain commands is what clients hear that know
// nothing of either: a render that finishes, a campaign at once, an alert for its user alone.
func TestWorkers(t *testing.T) {
	t.Parallel()
	redis, g := startWorkersGateway(t)
	base := "http://" + g.address
	ada := dial(t, curl, base, "/api/stream?userId=ada&channel=jobs:index")
	eve := dial(t, npmWS, base, "/ws?userId=eve")
	for _, c := range []*client{ada, eve} {
		c.await(t, "connected", func(h heard) bool { return h.is("connected") })
	}
	job := dial(t, curl, base, "/api/stream?channel=job_progress:job_123&since=0")
	stages := open(t, npmWS, base, "", "video_render:job_123")
	workers := startWorkers(t, redis, "--speed", "36000", "--users", "ada", "--real-time=false", "--period", "1h")

	index := ada.await(t, "the index of jobs", hasType("index"))
	if !strings.Contains(index.Data, `"job_123"`) {
		t.Errorf("the index is %s", index.Data)
	}
	job.await(t, "the job in the queue", func(h heard) bool { return h.field("status") == "queued" })
	end := job.await(t, "the end of the job", func(h heard) bool { return h.field("status") == "complete" || h.field("status") == "failed" })
	if end.Event != "job_progress" || end.field("status") != "complete" || end.field("progress") != "1" || end.field("frame") != end.field("frames") {
		t.Errorf("the job ended with %s", end.Data)
	}
	for _, stage := range []string{"queued", "started", "finished"} {
		stages.await(t, "the stage "+stage, func(h heard) bool { return h.field("stage") == stage })
	}

	alert := ada.await(t, "an alert", hasType("alert"))
	if alert.field("campaignId") == "" || alert.field("severity") == "" || alert.field("expected") == "" {
		t.Errorf("the alert is %s", alert.Data)
	}
	redis.CLI(t, "PUBLISH", "alerts:eve", `{"type":"alert","id":"for eve"}`)
	if h := eve.await(t, "her own alert", hasType("alert")); h.field("id") != "for eve" {
		t.Errorf("eve heard %s", h.Data)
	}

	// Nobody sets the state any more: who comes now has it all the same.
	workers.end()
	for _, k := range light {
		c := open(t, k, base, "", "campaign_metrics:camp_456")
		h := c.await(t, "the campaign", hasType("campaign_metrics"))
		for _, field := range []string{"campaignId", "impressions", "clicks", "conversions", "spend", "revenue", "ctr", "cpc", "roas", "timestamp"} {
			if h.field(field) == "" {
				t.Errorf("%s: the campaign %s lacks %s", k.name, h.Data, field)
			}
		}
	}
}

// TestPythonWorker: a state that is set, seen, and gone when its worker is.
func TestPythonWorker(t *testing.T) {
	t.Parallel()
	redis, g := startWorkersGateway(t)
	worker := start(t, "machine.py", "/usr/bin/python3", "../examples/workers/python/machine.py",
		"--redis", redis.URL(), "--name", "here", "--interval", "0.1")
	for _, k := range light {
		c := open(t, k, "http://"+g.address, "", "machine:here")
		for range 2 {
			h := c.await(t, "a measurement", hasType("machine"))
			for _, field := range []string{"load", "cpuPercent", "memoryBytes", "memoryUsedPercent", "timestamp"} {
				if h.field(field) == "" {
					t.Errorf("%s: the measurement %s lacks %s", k.name, h.Data, field)
				}
			}
		}
	}
	c := open(t, npmWS, "http://"+g.address, "", "machine:here")
	worker.end()
	c.await(t, "the end of the state", func(h heard) bool { return h.is("deleted") })
}

// TestNodeWorker: a log that is heard from its beginning, though it was over before anybody came.
func TestNodeWorker(t *testing.T) {
	t.Parallel()
	redis, g := startWorkersGateway(t)
	folder := t.TempDir()
	all := sha256.New()
	for number := range 3 {
		text := strings.Repeat(fmt.Sprintf("line of file %d\n", number), 1000*number)
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("file %d", number)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256([]byte(text))
		_, _ = io.WriteString(all, hex.EncodeToString(sum[:])) // never fails
	}
	run := func(name, address string) int {
		worker := start(t, "checksums.mjs", node(t), "../examples/workers/node/checksums.mjs", "--redis", address, "--name", name, folder)
		return worker.wait(t, patience)
	}
	if code := run("photos", redis.URL()); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	c := dial(t, curl, "http://"+g.address, "/api/stream?channel=files:photos&since=0")
	c.await(t, "the beginning", func(h heard) bool { return h.field("status") == "processing" && h.field("progress") == "0" })
	end := c.await(t, "the end", func(h heard) bool { return h.field("status") == "complete" })
	if end.field("sha256") != hex.EncodeToString(all.Sum(nil)) || end.field("files") != "3" {
		t.Errorf("it ended with %s", end.Data)
	}
	if code := run("photos", "redis://127.0.0.1:1"); code != 1 {
		t.Errorf("without a Redis its exit code is %d", code)
	}
	redis.CLI(t, "CONFIG", "SET", "requirepass", redisPassword)
	if code := run("photos", "redis://:a%20pass%3Aword@"+redis.Addr+"/0"); code != 0 {
		t.Errorf("with a password its exit code is %d", code)
	}
	if code := run("photos", redis.URL()); code != 1 {
		t.Errorf("without the password its exit code is %d", code)
	}
}

// descendants lists the processes that a process has started, and those that they have.
func descendants(process int) (all []string) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", process))
	for _, list := range lists {
		ids, _ := os.ReadFile(list) // the thread may have ended
		for id := range strings.FieldsSeq(string(ids)) {
			var number int
			if _, err := fmt.Sscan(id, &number); err == nil {
				all = append(append(all, id), descendants(number)...)
			}
		}
	}
	return all
}

// TestMakeDemo: one command shows all of it, and Ctrl-C ends all of it.
func TestMakeDemo(t *testing.T) {
	t.Parallel()
	millrace, err := racy()
	if err != nil {
		t.Fatal(err)
	}
	workers, err := workersPath()
	if err != nil {
		t.Fatal(err)
	}
	temporary := t.TempDir()
	address := "127.0.0.1:" + freePort(t)
	demo := start(t, "make demo", "env", "LISTEN="+address, "MILLRACE="+millrace, "WORKERS="+workers, "SPEED=36000", "TMPDIR="+temporary,
		"../examples/workers/demo.sh")
	said := func(text string) {
		t.Helper()
		for deadline := time.After(patience); ; {
			select {
			case line, more := <-demo.lines:
				if !more {
					t.Fatalf("it ended before it said %q:\n%s", text, demo.complaints())
				}
				if strings.Contains(line, text) {
					return
				}
			case <-deadline:
				t.Fatalf("it did not say %q:\n%s", text, demo.complaints())
			}
		}
	}
	said("http://" + address + "/?userId=demo")
	said("Ctrl-C ends all")
	base := "http://" + address
	dial(t, curl, base, "/api/stream?userId=demo&channel=machine:here").await(t, "an alert", hasType("alert"))
	dial(t, curl, base, "/api/stream?channel=machine:here").await(t, "this machine", hasType("machine"))
	dial(t, curl, base, "/api/stream?channel=files:docs&since=0").await(t, "the walk's end", func(h heard) bool { return h.field("status") == "complete" })
	dial(t, curl, base, "/api/stream?channel=job_progress:job_123&since=0").await(t, "a render's end", func(h heard) bool { return h.field("status") == "complete" })

	running := descendants(demo.cmd.Process.Pid)
	if len(running) < 4 {
		t.Errorf("only %d processes run", len(running))
	}
	demo.signal(syscall.SIGINT)
	said("all ended")
	if code := demo.wait(t, patience); code != 0 {
		t.Errorf("exit code %d:\n%s", code, demo.complaints())
	}
	for _, id := range running {
		if _, err := os.Stat("/proc/" + id); err == nil {
			name, _ := os.ReadFile("/proc/" + id + "/comm")
			t.Errorf("process %s is left: %s", id, name)
		}
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("in the temporary folder %v is left (%v)", left, err)
	}
}

// TestMakeDemoSaysWhatIsMissing: without redis-server it says what to install.
func TestMakeDemoSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	tools := t.TempDir()
	for _, name := range []string{"bash", "dirname"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(tools, name)); err != nil {
			t.Fatal(err)
		}
	}
	demo := start(t, "make demo", "/usr/bin/env", "PATH="+tools, "../examples/workers/demo.sh")
	if code := demo.wait(t, patience); code != 1 || !strings.Contains(demo.complaints(), "redis-server is not installed (apt-get install redis-server)") {
		t.Errorf("exit code %d:\n%s", code, demo.complaints())
	}
}

// TestMakeDemoSaysThatThePortIsTaken: before it starts anything, and before it tells what to open there.
func TestMakeDemoSaysThatThePortIsTaken(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	there, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	demo := start(t, "make demo", "env", "LISTEN="+taken.Addr().String(), "MILLRACE="+there, "WORKERS="+there, "../examples/workers/demo.sh")
	want := "another program serves on " + taken.Addr().String()
	if code := demo.wait(t, patience); code != 1 || !strings.Contains(demo.complaints(), want) {
		t.Errorf("exit code %d:\n%s", code, demo.complaints())
	}
	for line := range demo.lines {
		t.Errorf("it said %q", line)
	}
}
