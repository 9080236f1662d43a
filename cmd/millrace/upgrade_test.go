package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/internal/redistest"
	"github.com/millrace/millrace/netio/handoff"
)

func TestDoorOf(t *testing.T) {
	for _, test := range []struct {
		line string
		pid  int
	}{
		{"0000000000000000: 00000002 00000000 00010000 0001 01 41234 @millrace-upgrade-4711", 4711},
		{"0000000000000000: 00000002 00000000 00010000 0001 01 41234 /run/systemd/notify", 0},
		{"0000000000000000: 00000002 00000000 00010000 0001 01 41234 @millrace-upgrade-47x", 0},
		{"0000000000000000: 00000002 00000000 00010000 0001 01 41234 @millrace-upgrade--1", 0},
		{"Num       RefCount Protocol Flags    Type St Inode Path", 0},
	} {
		if pid, ok := doorOf(test.line); ok != (test.pid > 0) || ok && pid != test.pid {
			t.Errorf("%q names the door of %d, %v; want %d", test.line, pid, ok, test.pid)
		}
	}
}

func TestFollowUpgrade(t *testing.T) {
	for name, test := range map[string]struct{ answer, printed, failure string }{
		"it goes well": {
			answer:  `{"stage":"copying streams","streams":0,"total":3}{"stage":"copying streams","streams":2,"total":3}{"stage":"copying streams","streams":2,"total":3}{"stage":"","streams":0,"total":0,"pid":12}`,
			printed: "copying streams\ncopying streams: 2 of 3 streams\nprocess 12 serves now, in the place of 11\n",
		},
		"it fails":         {answer: `{"stage":"subscribing","streams":2,"total":2}{"error":"no\nRedis"}`, printed: "subscribing: 2 of 2 streams\n", failure: "process 11 serves on: no; Redis"},
		"it breaks off":    {answer: `{"stage":"subscribing"}`, printed: "subscribing\n", failure: "before it said how the upgrade ended"},
		"something else":   {answer: "HTTP/1.1 400 Bad Request\r\n", failure: "before it said how the upgrade ended"},
		"nothing whatever": {failure: "before it said how the upgrade ended"},
	} {
		t.Run(name, func(t *testing.T) {
			var printed strings.Builder
			err := followUpgrade(&printed, strings.NewReader(test.answer), 11)
			if printed.String() != test.printed {
				t.Errorf("printed %q, want %q", printed.String(), test.printed)
			}
			if (err != nil) != (test.failure != "") || err != nil && !strings.Contains(err.Error(), test.failure) {
				t.Errorf("ended with %v, want %q", err, test.failure)
			}
		})
	}
}

func TestPredecessor(t *testing.T) {
	for name, environment := range map[string][]string{
		"no number":        {handoffVariable + "=x"},
		"a standard one":   {handoffVariable + "=2"},
		"no descriptor":    {handoffVariable + "=99999"},
		"no Unix socket":   {handoffVariable + "=" + openFile(t)},
		"the last of many": {"A=b", handoffVariable + "=0"},
	} {
		if conn, err := predecessor(environment); err == nil || conn != nil {
			t.Errorf("%s: it was taken", name)
		}
	}
	for name, environment := range map[string][]string{"nothing": nil, "an empty one": {handoffVariable + "="}, "another": {"MILLRACE_HANDOFFS=3"}} {
		if conn, err := predecessor(environment); err != nil || conn != nil {
			t.Errorf("%s: %v, %v", name, conn, err)
		}
	}
}

// openFile gives the number of a descriptor that is a file's, for predecessor to close.
func openFile(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Open(os.DevNull, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(fd)
}

func TestEndsContainer(t *testing.T) {
	for name, test := range map[string]struct {
		pid, parent int
		first       string
		want        bool
	}{
		"the first":                   {1, 0, "millrace", true},
		"a child of its init":         {7, 1, "tini", true},
		"a child of Docker's":         {7, 1, "docker-init", true},
		"a grandchild":                {8, 7, "tini", false},
		"a service of systemd":        {4711, 1, "systemd", false},
		"one that nobody waits for":   {4711, 1, "init", false},
		"where nothing can be read":   {4711, 1, "", false},
		"started by a person's shell": {4711, 4000, "systemd", false},
	} {
		if got := endsContainer(test.pid, test.parent, test.first); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestUpgradeOfNobody(t *testing.T) {
	const nobody = "99999999" // above what a process id can be
	ran := (&invocation{arguments: []string{"upgrade", "--pid", nobody}}).run(t)
	if ran.code != 1 || !strings.Contains(ran.stderr, "kill -HUP "+nobody) {
		t.Errorf("exit code %d: %s", ran.code, ran.stderr)
	}
}

// TestSuccessorHearsSignals: one that takes over is not ended by SIGHUP, which is not meant for it, and ends
// by itself on SIGTERM.
func TestSuccessorHearsSignals(t *testing.T) {
	conn, file, err := handoff.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	successor := (&invocation{
		arguments:   []string{"serve", "--listen", "127.0.0.1:0"},
		environment: []string{handoffVariable + "=" + strconv.Itoa(handoffDescriptor)},
		files:       []*os.File{file},
	}).start(t)
	file.Close()
	successor.waitFor("taking over from another process")
	successor.signal(syscall.SIGHUP)
	successor.signal(syscall.SIGTERM)
	if ended := successor.wait(); ended.code != exitFailure || !strings.Contains(ended.stderr, "inherit: ") {
		t.Errorf("exit code %d: %s", ended.code, ended.stderr)
	}
}

// takeOverAndFail is what this test's binary does where a gateway starts it as its successor: it takes over,
// and is gone. It gives the exit code.
func takeOverAndFail() int {
	conn, err := predecessor(os.Environ())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailure
	}
	redis := os.Args[slices.Index(os.Args, "--redis")+1]
	if _, err := gateway.Inherit(context.Background(), gateway.Options{Redis: redis}, conn, "fails"); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return exitFailure
}

// TestUpgradeToOneThatFails: where the process that took over is gone at once, the one before says so by its
// exit code, for who watches over it to start another. Of one that is a service manager's child it knows the
// end, and not the exit code.
func TestUpgradeToOneThatFails(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	manager := newNotifySocket(t)
	for name, test := range map[string]struct {
		environment []string
		want        string
	}{
		"its child":                 {nil, "exit status 1: nobody serves"},
		"a child of its own parent": {[]string{"NOTIFY_SOCKET=" + manager.path}, errEndedElsewhere.Error() + ": nobody serves"},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			started, address := startGateway(t, invocation{arguments: []string{"--redis", server.URL()}, environment: test.environment})
			for deadline := time.Now().Add(patience); !isDelivering(t, address); <-time.After(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("Redis does not deliver")
				}
			}
			pid := strconv.Itoa(started.command.Process.Pid)
			ran := (&invocation{arguments: []string{"upgrade", "--pid", pid, "--binary", self}}).run(t)
			if ended := started.wait(); ended.code != exitFailure || !strings.Contains(ended.stderr, test.want) {
				t.Errorf("exit code %d: %s\nand the upgrade (%d): %s%s", ended.code, ended.stderr, ran.code, ran.stdout, ran.stderr)
			}
		})
	}
}

func isDelivering(t *testing.T, address string) bool {
	t.Helper()
	client := &http.Client{Timeout: patience}
	defer client.CloseIdleConnections()
	answer, err := client.Get(address + "/readyz?redis")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// TestRetiredIsNotUpgraded: it has nothing left to hand over, and must not tell systemd of it.
func TestRetiredIsNotUpgraded(t *testing.T) {
	u := newUpgrader(t.Context(), nil, slog.New(slog.DiscardHandler))
	u.retired.Store(true)
	if _, err := u.upgrade("", nil); !errors.Is(err, errRetired) {
		t.Errorf("it was upgraded: %v", err)
	}
}
