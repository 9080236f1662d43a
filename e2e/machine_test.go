package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/internal/processtest"
)

// machine is a machine of its own as far as its programs can tell: a real systemd, the first process of
// namespaces of its own (processes, mounts, network, control groups, IPC, host name), runs the shipped
// unit with our binary, a Redis and a journal. machineboot_test.go is what happens inside until systemd
// is there.
//
// Who owns what. This process owns one child, which becomes that systemd. The kernel ends everything in
// the machine with it, also where this process is killed, and with the last of them go its mounts and
// its network: nobody else ever saw them. Its files are this machine's, to be read; what is written
// there is in memory, and goes too. What is left to us is an empty control group, which end removes, or,
// where we were killed, the next one that boots.
type machine struct {
	child  *exec.Cmd
	exited chan struct{} // closed once the child is reaped
	folder string        // where the child mounts its root, which nobody sees but the child
	group  string        // the folder of its control group
}

const (
	// commandPatience is how long a command may take in a machine. A unit that does not say that it is
	// ready keeps `systemctl start` waiting for longer.
	commandPatience = 60 * time.Second
	// journalLinesMax bounds what a failure shows of the journal, its end.
	journalLinesMax = 400
	// groupPrefix begins the names of the control groups of machines; the id of their owner follows.
	groupPrefix = "millrace-machine-"
)

// errNoMachine is where none can be made.
var errNoMachine = errors.New("a machine of its own needs root, systemd and namespaces")

// boot boots a machine with a binary at /usr/bin/millrace, and waits until its Redis and its journal are
// there. It ends with the test; where the test fails, the log has what the journal says. Where no
// machine can be made, the test is skipped.
func boot(t *testing.T, binary string) *machine {
	t.Helper()
	m, err := startMachine(t.TempDir(), binary)
	if errors.Is(err, errNoMachine) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.showJournal(t)
		m.end(t)
	})
	within(t, commandPatience, "systemd listens", func() bool {
		select {
		case <-m.exited:
			if m.child.ProcessState.ExitCode() == exitNoMachine {
				t.Skipf("%v: %s", errNoMachine, m.console())
			}
			t.Fatalf("the machine did not boot (%v): %s", m.child.ProcessState, m.console())
		default:
		}
		return fileExists(m.path("run/systemd/private"))
	})
	m.run(t, "systemctl", "start", bootTarget)
	return m
}

// startMachine starts the child that becomes a machine.
func startMachine(folder, binary string) (*machine, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: this is user %d", errNoMachine, os.Geteuid())
	}
	for _, program := range []string{systemdPath, nsenterPath} {
		if !fileExists(program) {
			return nil, fmt.Errorf("%w: there is no %s (make deps, as root on Debian, brings it)", errNoMachine, program)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	m := &machine{folder: folder, exited: make(chan struct{})}
	console, err := os.Create(filepath.Join(folder, "console"))
	if err != nil {
		return nil, err
	}
	defer console.Close()
	if m.group, err = makeGroup(); err != nil {
		return nil, fmt.Errorf("%w, and a control group: %w", errNoMachine, err)
	}
	group, err := os.Open(m.group)
	if err != nil {
		return nil, errors.Join(err, removeGroup(m.group))
	}
	defer group.Close()
	m.child = exec.Command(self)
	m.child.Env = append(os.Environ(), machineVariable+"="+folder, machineBinaryVariable+"="+binary)
	m.child.Stdout, m.child.Stderr = console, console
	m.child.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig:  syscall.SIGKILL,
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		// First the group, then the namespace, whose root is the group in which it is made.
		UseCgroupFD: true, CgroupFD: int(group.Fd()), Unshareflags: unix.CLONE_NEWCGROUP,
	}
	if err := m.child.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("%w, which this machine does not allow: %w", errNoMachine, err), removeGroup(m.group))
	}
	go func() {
		_ = m.child.Wait() // how it ended is in its ProcessState
		close(m.exited)
	}()
	return m, nil
}

// end ends everything in the machine, and looks whether something is left of it.
func (m *machine) end(t *testing.T) {
	t.Helper()
	_ = m.child.Process.Kill()
	<-m.exited // after every process in it
	var err error
	if !processtest.Poll(patience, func() bool { err = removeGroup(m.group); return err == nil }) {
		t.Errorf("the control group of the machine is left: %v", err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(m.folder)) {
		t.Errorf("something is mounted in %s (%v): %s", m.folder, err, mounts)
	}
}

// path gives the path by which this process reaches a file of the machine, which may be below /proc and
// /run there.
func (m *machine) path(inside string) string {
	return filepath.Join("/proc", strconv.Itoa(m.child.Process.Pid), "root", inside)
}

// read gives the text of a file of the machine.
func (m *machine) read(t *testing.T, inside string) string {
	t.Helper()
	text, err := os.ReadFile(m.path(inside))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// try runs a command in the machine, and gives what it printed.
func (m *machine) try(arguments ...string) (said string, err error) {
	select {
	case <-m.exited: // and its id may be somebody else's
		return "", fmt.Errorf("the machine has ended (%v)", m.child.ProcessState)
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandPatience)
	defer cancel()
	command := exec.CommandContext(ctx, nsenterPath, append([]string{
		"--target", strconv.Itoa(m.child.Process.Pid), "--pid", "--mount", "--net", "--ipc", "--uts", "--cgroup", "--",
	}, arguments...)...)
	command.Env = machineEnvironment
	command.WaitDelay = time.Second // what it started may have its output, and ends with the machine
	output, err := command.CombinedOutput()
	return string(output), err
}

// run runs a command in the machine, which has to end well, and gives what it printed.
func (m *machine) run(t *testing.T, arguments ...string) (said string) {
	t.Helper()
	said, err := m.try(arguments...)
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(arguments, " "), err, said)
	}
	return said
}

// properties gives what systemd knows of the unit, by the names that `systemctl show` has for it.
func (m *machine) properties(t *testing.T, names ...string) map[string]string {
	t.Helper()
	properties := make(map[string]string)
	for line := range strings.Lines(m.run(t, "systemctl", "show", "--property="+strings.Join(names, ","), unitName)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		properties[name] = value
	}
	return properties
}

// mainPID gives the process that systemd takes for the gateway, by its id in the machine.
func (m *machine) mainPID(t *testing.T) string {
	t.Helper()
	return m.properties(t, "MainPID")["MainPID"]
}

// journal gives the lines that the unit has said, and systemd of it.
func (m *machine) journal() (lines []string, err error) {
	said, err := m.try("journalctl", "--unit="+unitName, "--no-pager", "--output=short-precise")
	return strings.Split(strings.TrimSpace(said), "\n"), err
}

// showJournal has the watch over all logs look at the journal, and logs it where the test has failed.
func (m *machine) showJournal(t *testing.T) {
	t.Helper()
	lines, err := m.journal()
	for _, line := range lines {
		logs.Line(unitName, line)
	}
	if t.Failed() {
		lines = lines[max(0, len(lines)-journalLinesMax):]
		t.Logf("the journal of %s (%v):\n%s\nthe console:\n%s", unitName, err, strings.Join(lines, "\n"), m.console())
	}
}

// console gives what was printed before systemd had a journal.
func (m *machine) console() string {
	text, err := os.ReadFile(filepath.Join(m.folder, "console"))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}

// near gives the same client, on the network of the machine.
func (m *machine) near(k kind) kind {
	from := k.command
	k.command = func(t *testing.T, base, path string) []string {
		return append([]string{nsenterPath, fmt.Sprintf("--net=/proc/%d/ns/net", m.child.Process.Pid), "--"}, from(t, base, path)...)
	}
	return k
}

// makeGroup makes a control group for a machine, below the one of this process, and gives its folder.
// What owners that are gone have left it takes away.
func makeGroup() (string, error) {
	here, err := ownGroup()
	if err != nil {
		return "", err
	}
	others, err := filepath.Glob(filepath.Join(here, groupPrefix+"*"))
	if err != nil {
		return "", err
	}
	for _, other := range others {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(other), groupPrefix), "-")
		if !fileExists(filepath.Join("/proc", owner)) {
			_ = removeGroup(other) // the kernel keeps one that is in use
		}
	}
	group, err := os.MkdirTemp(here, fmt.Sprintf("%s%d-", groupPrefix, os.Getpid()))
	if err != nil {
		return "", err
	}
	return group, os.Chmod(group, 0o755) // the root of all groups, to the machine
}

// ownGroup gives the folder of the control group of this process, of version 2.
func ownGroup() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for mount := range strings.Lines(string(mounts)) {
		fields := strings.Fields(mount) // proc_pid_mountinfo(5): the fifth is where, the one behind "-" what
		if dash := slices.Index(fields, "-"); dash < 5 || len(fields) < dash+2 || fields[dash+1] != "cgroup2" {
			continue
		}
		for group := range strings.Lines(string(groups)) {
			if own, found := strings.CutPrefix(strings.TrimSpace(group), "0::"); found {
				return filepath.Join(fields[4], own), nil
			}
		}
	}
	return "", errors.New("control groups of version 2 are not mounted")
}

// removeGroup removes a control group and those below it, which no process is in.
func removeGroup(folder string) error {
	var folders []string
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			folders = append(folders, path)
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, path := range slices.Backward(folders) {
		err = errors.Join(err, syscall.Rmdir(path))
	}
	return err
}
