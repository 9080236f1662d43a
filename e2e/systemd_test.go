package e2e

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// reloads is how many times the unit is reloaded under traffic.
const reloads = 3

// unitAddress is where the unit serves, in its machine.
const unitAddress = "http://127.0.0.1:8080"

// unitGroup is the control group of the unit.
const unitGroup = "/sys/fs/cgroup/system.slice/" + unitName

// TestShippedUnit has a real systemd run deploy/systemd/millrace.service, as it stands: it starts, is
// reloaded while events come, keeps its sandbox, and stops. Then, with a shorter WatchdogSec, a process
// that stands still is replaced. Each step goes on where the one before ended.
func TestShippedUnit(t *testing.T) {
	t.Parallel()
	binary, err := plain()
	if err != nil {
		t.Fatal(err)
	}
	m := boot(t, binary)
	startUnit(t, m)
	listeners := listenTo(t, m)
	sandbox(t, m)
	reloadUnderTraffic(t, m, listeners)
	sandbox(t, m) // of the process that took over
	stopUnit(t, m, listeners)
	replaceStopped(t, m)
}

// startUnit starts it. systemctl ends when the gateway has said that it is ready (Type=notify), or has failed to.
func startUnit(t *testing.T, m *machine) {
	t.Helper()
	m.run(t, "systemctl", "start", unitName)
	wantProperties(t, m, map[string]string{"Type": "notify", "ActiveState": "active", "SubState": "running", "NRestarts": "0", "Result": "success"})
	delivers(t, m)
}

// delivers waits until the gateway answers that Redis delivers to it.
func delivers(t *testing.T, m *machine) {
	t.Helper()
	within(t, patience, "Redis delivers", func() bool {
		_, err := m.try("curl", "--silent", "--fail", unitAddress+"/readyz?redis")
		return err == nil
	})
}

func wantProperties(t *testing.T, m *machine, want map[string]string) {
	t.Helper()
	names := make([]string, 0, len(want))
	for name := range want {
		names = append(names, name)
	}
	for name, value := range m.properties(t, names...) {
		if value != want[name] {
			t.Errorf("systemd says %s=%s of the unit, want %s", name, value, want[name])
		}
	}
}

// listener is a client that we did not write, on the machine's network, and how it is told to come back.
type listener struct {
	*client
	toldToLeave func(t *testing.T, c *client)
}

// listenTo opens a stream of each wire, one of them of a log.
func listenTo(t *testing.T, m *machine) []listener {
	t.Helper()
	ended := func(t *testing.T, c *client) {
		t.Helper()
		c.await(t, "a retry time", func(h heard) bool { return h.Kind == "retry" })
		if code := c.wait(t, patience); code != 0 {
			t.Errorf("%s ended with %d, want 0: a stream ends in order (%s)", c.name, code, c.complaints())
		}
	}
	closed := func(t *testing.T, c *client) {
		t.Helper()
		if h := c.await(t, "the close", func(h heard) bool { return h.Kind == "close" }); h.Code != 1012 {
			t.Errorf("%s was closed with %d %q, want 1012", c.name, h.Code, h.Reason)
		}
	}
	return []listener{
		{open(t, m.near(curl), unitAddress, "", "news:all"), ended},
		{open(t, m.near(curlGzip), unitAddress, "", "ticks:all"), ended},
		{open(t, m.near(pythonWS), unitAddress, "", "news:all"), closed},
	}
}

// reloadUnderTraffic reloads the unit while numbers are published: each time another process is the main
// one, and every stream hears each number once and in its order.
func reloadUnderTraffic(t *testing.T, m *machine, listeners []listener) {
	t.Helper()
	ticker := tick(t, "unix", m.path(redisSocket), 20*time.Millisecond, "news:all", "ticks:all")
	flows := func() {
		t.Helper()
		more := ticker.last.Load() + 10
		within(t, patience, "events are published", func() bool { return ticker.last.Load() >= more })
	}
	flows()
	processes := []string{m.mainPID(t)}
	for range reloads {
		m.run(t, "systemctl", "reload", unitName)
		now := m.mainPID(t)
		if slices.Contains(processes, now) || now == "0" {
			t.Fatalf("after a reload the main process is %s, before it were %v", now, processes)
		}
		processes = append(processes, now)
		// The process before stays for a moment. Only once it is gone is systemd alone with the new one.
		within(t, patience, "the process before is gone", func() bool { return strings.Count(m.read(t, unitGroup+"/cgroup.procs"), "\n") == 1 })
		flows()
	}
	reloadThatFails(t, m)
	flows()
	last := ticker.end(t)
	for _, l := range listeners {
		for number := 1; number <= last; number++ {
			h := l.await(t, "an event, a gap or the end", func(h heard) bool { return h.field("n") != "" || h.is("gap") || h.Kind == "close" })
			if h.field("n") != strconv.Itoa(number) {
				t.Fatalf("%s heard %+v, want event %d of %d", l.name, h, number, last)
			}
		}
	}
	wantProperties(t, m, map[string]string{"MainPID": processes[reloads], "ActiveState": "active", "NRestarts": "0", "Result": "success"})
	t.Logf("%d reloads with %d events: processes %v", reloads, last, processes)
}

// reloadThatFails reloads the unit with a configuration that is wrong: systemctl fails, and all stays as it was.
func reloadThatFails(t *testing.T, m *machine) {
	t.Helper()
	config := m.path(configPath)
	if err := writeFile(config, machineConfig+"no-such-setting: 1\n"); err != nil {
		t.Fatal(err)
	}
	if said, err := m.try("systemctl", "reload", unitName); err == nil {
		t.Errorf("a reload with a wrong configuration ended well: %s", said)
	}
	if err := writeFile(config, machineConfig); err != nil {
		t.Fatal(err)
	}
}

// sandbox looks at what the kernel says of the main process: what the unit asks for is in force. Limits above
// this machine's own, and the score of OOMScoreAdjust, are not looked at: root of a container may not set them.
func sandbox(t *testing.T, m *machine) {
	t.Helper()
	process := "/proc/" + m.mainPID(t) + "/"
	// Words of lines, so that columns do not matter.
	for _, test := range []struct{ file, want, setting string }{
		{"status", "Uid: 4711 4711 4711 4711", "User=millrace"},
		{"status", "Gid: 4711 4711 4711 4711", "Group=millrace"},
		{"status", "Umask: 0077", "UMask=0077"},
		{"status", "NoNewPrivs: 1", "NoNewPrivileges=yes"},
		{"status", "Seccomp: 2", "SystemCallFilter= and other filters"}, // 2: by a filter
		{"status", "CapBnd: 0000000000000000", "CapabilityBoundingSet="},
		{"status", "CapEff: 0000000000000000", "CapabilityBoundingSet="},
		{"limits", "Max core file size 0 0 bytes", "LimitCORE=0"},
		{"uid_map", "4711 4711 1", "PrivateUsers=yes"},
	} {
		lines := strings.Split(m.read(t, process+test.file), "\n")
		if !slices.ContainsFunc(lines, func(line string) bool { return strings.Join(strings.Fields(line), " ") == test.want }) {
			t.Errorf("%s: %s of the main process has not %q:\n%s", test.setting, test.file, test.want, strings.Join(lines, "\n"))
		}
	}
	mounts := make(map[string]string)
	for line := range strings.Lines(m.read(t, process+"mountinfo")) {
		mounts[strings.Fields(line)[4]] = line // where (proc_pid_mountinfo(5)); what is mounted last hides the rest
	}
	for _, test := range []struct{ place, want, setting string }{
		{"/", " / ro,", "ProtectSystem=strict"},
		{"/home", " /systemd/inaccessible/dir ", "ProtectHome=yes"},
		{"/tmp", " /systemd-private-", "PrivateTmp=yes"},
		{"/dev", " ro,nosuid,noexec", "PrivateDevices=yes"},
		{"/proc", "hidepid=invisible", "ProtectProc=invisible"},
		{"/proc/irq", " ro,", "ProtectKernelTunables=yes"},
		{"/proc/kmsg", " /systemd/inaccessible/", "ProtectKernelLogs=yes"},
		{"/sys/fs/cgroup", " ro,", "ProtectControlGroups=yes"},
	} {
		if !strings.Contains(mounts[test.place], test.want) {
			t.Errorf("%s: at %s the main process has %q, want %q", test.setting, test.place, mounts[test.place], test.want)
		}
	}
}

// stopUnit stops it: every stream is told to come back, and the unit ends well. It has been reloaded: systemd
// waits for a main process that another one than itself has started.
func stopUnit(t *testing.T, m *machine, listeners []listener) {
	t.Helper()
	m.run(t, "systemctl", "stop", unitName)
	for _, l := range listeners {
		l.toldToLeave(t, l.client)
	}
	wantProperties(t, m, map[string]string{
		"ActiveState": "inactive", "SubState": "dead", "Result": "success", "ExecMainStatus": "0", "NRestarts": "0",
	})
}

// watchdogDropIn is for a test that need not wait for the 30 s of the unit.
const watchdogDropIn = "[Service]\nWatchdogSec=10s\n"

// replaceStopped stops the main process (SIGSTOP), of the second life of the unit and after a reload: systemd
// finds out by its watchdog, ends it by SIGABRT, at which it writes where it stood, and starts another. In this
// life it serves on a socket of systemd's, and so does the next.
func replaceStopped(t *testing.T, m *machine) {
	t.Helper()
	if err := writeFile(m.path(filepath.Join(unitFolder, unitName+".d", "watchdog.conf")), watchdogDropIn); err != nil {
		t.Fatal(err)
	}
	m.run(t, "systemctl", "daemon-reload")
	m.run(t, "systemctl", "start", unitSocket)
	startUnit(t, m)
	m.run(t, "systemctl", "reload", unitName)
	stopped := m.mainPID(t)
	m.run(t, "systemctl", "kill", "--kill-whom=main", "--signal=SIGSTOP", unitName)
	within(t, commandPatience, "the process that stands still is gone", func() bool { return !fileExists(m.path("/proc/" + stopped)) })
	within(t, commandPatience, "another process serves", func() bool {
		now := m.properties(t, "MainPID", "ActiveState", "NRestarts")
		return now["ActiveState"] == "active" && now["NRestarts"] != "0" && now["MainPID"] != stopped
	})
	delivers(t, m)
	journal, err := m.journal()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		want  string
		times int // at least
	}{
		{"systemd passed a listening socket", 2}, // not to the process of the reload: that one was handed it
		{"Watchdog timeout (limit 10s)!", 1},
		{"SIGABRT: abort", 1},
		{"goroutine ", 1},
		{"status=6/ABRT", 1},
		{"Failed with result 'watchdog'", 1},
	} {
		times := 0
		for _, line := range journal {
			times += strings.Count(line, test.want)
		}
		if times < test.times {
			t.Errorf("the journal has %q %d times, want %d", test.want, times, test.times)
		}
	}
}
