package main

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
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

func TestUpgradeOfNobody(t *testing.T) {
	const nobody = "99999999" // above what a process id can be
	ran := (&invocation{arguments: []string{"upgrade", "--pid", nobody}}).run(t)
	if ran.code != 1 || !strings.Contains(ran.stderr, "kill -HUP "+nobody) {
		t.Errorf("exit code %d: %s", ran.code, ran.stderr)
	}
}
