package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// This file runs in a child of this test binary, which is the first process of its namespaces. It mounts
// a root of its own, takes from itself what a machine's root may do to the kernel that others use too,
// and becomes systemd.

const (
	// machineVariable makes this test binary a machine. It holds a folder to mount its root in.
	machineVariable = "MILLRACE_E2E_MACHINE"
	// machineBinaryVariable holds the path of the binary that the machine has as /usr/bin/millrace.
	machineBinaryVariable = "MILLRACE_E2E_MACHINE_BINARY"
	// exitNoMachine is the exit code of a child that may not become one.
	exitNoMachine = 77

	systemdPath = "/lib/systemd/systemd"
	nsenterPath = "/usr/bin/nsenter"
	unitName    = "millrace.service"
	unitSocket  = "millrace.socket"
	bootTarget  = "machine.target"
	// unitFolder is where systemd finds its units in a machine, and nowhere else.
	unitFolder = "/etc/systemd/machine"
	// redisSocket is where the machine's Redis is reached from outside, beside 127.0.0.1:6379 inside: a
	// socket with a path is of a file system, and not of a network.
	redisSocket = "/tmp/redis.sock"
)

// machineEnvironment is that of every program in a machine.
var machineEnvironment = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}

// The configuration of the gateway, where the unit has it.
const (
	configPath    = "/etc/millrace/millrace.yaml"
	machineConfig = `listen: 127.0.0.1:8080
redis: redis://127.0.0.1:6379
namespaces:
  ticks:
    mode: log
  default: {}
`
)

// machineFiles are files of a machine beside those of this one.
var machineFiles = map[string]string{
	"/etc/hostname": "machine\n",
	"/etc/hosts":    "127.0.0.1 localhost\n",
	configPath:      machineConfig,
	// Nothing is said of auditing, which is the kernel's and would be turned on or off for everybody.
	"/etc/systemd/journald.conf":  "[Journal]\nStorage=volatile\nAudit=\nReadKMsg=no\nRateLimitBurst=0\n",
	unitFolder + "/" + bootTarget: "[Unit]\nDefaultDependencies=no\nWants=systemd-journald.service redis.service\nAfter=systemd-journald.service redis.service\n",
	unitFolder + "/redis.service": `[Unit]
DefaultDependencies=no
[Service]
ExecStart=/usr/bin/redis-server --bind 127.0.0.1 --port 6379 --unixsocket ` + redisSocket + ` --save "" --appendonly no --dir /tmp
`,
	// What every service depends on unless it says otherwise: here they mean nothing.
	unitFolder + "/sysinit.target":        "[Unit]\nDefaultDependencies=no\n",
	unitFolder + "/basic.target":          "[Unit]\nDefaultDependencies=no\n",
	unitFolder + "/shutdown.target":       "[Unit]\nDefaultDependencies=no\n",
	unitFolder + "/network-online.target": "[Unit]\nDefaultDependencies=no\n",
}

// machineCopies are files of a machine that are copies of this one's, from the folder of this package. Of
// the journal's sockets it has not the one that hears what the kernel audits.
var machineCopies = map[string]string{
	unitFolder + "/" + unitName:                     "../deploy/systemd/" + unitName,
	unitFolder + "/" + unitSocket:                   "../deploy/systemd/" + unitSocket,
	unitFolder + "/systemd-journald.service":        "/lib/systemd/system/systemd-journald.service",
	unitFolder + "/systemd-journald.socket":         "/lib/systemd/system/systemd-journald.socket",
	unitFolder + "/systemd-journald-dev-log.socket": "/lib/systemd/system/systemd-journald-dev-log.socket",
}

// machineDevices are the devices of a machine. There is no console and no log of the kernel among them.
var machineDevices = []string{"null", "zero", "full", "random", "urandom", "tty"}

// lostCapabilities are for what namespaces do not divide: clocks, modules, devices, the logs of the
// kernel, the power switch.
var lostCapabilities = []uintptr{
	unix.CAP_SYS_TIME, unix.CAP_WAKE_ALARM, unix.CAP_SYS_MODULE, unix.CAP_SYS_RAWIO, unix.CAP_MKNOD, unix.CAP_SYSLOG,
	unix.CAP_AUDIT_CONTROL, unix.CAP_AUDIT_READ, unix.CAP_AUDIT_WRITE, unix.CAP_SYS_BOOT, unix.CAP_SYS_PACCT,
	unix.CAP_MAC_ADMIN, unix.CAP_MAC_OVERRIDE,
}

// becomeMachine is the main function of a machine until it is systemd's.
func becomeMachine() int {
	err := enterMachine(os.Getenv(machineVariable), os.Getenv(machineBinaryVariable))
	fmt.Fprintln(os.Stderr, err)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.ENODEV) {
		return exitNoMachine // of a container, for instance, which may not mount, or a kernel without overlays
	}
	return 1
}

// enterMachine returns only where it fails.
func enterMachine(folder, binary string) error {
	// Not a word of what follows may reach the mounts of others.
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	root, err := mountRoot(folder)
	if err != nil {
		return err
	}
	if err := mountSystem(root); err != nil {
		return err
	}
	if err := writeFiles(root); err != nil {
		return err
	}
	if err := bind(binary, filepath.Join(root, "usr/bin/millrace")); err != nil {
		return err
	}
	if err := changeRoot(root); err != nil {
		return err
	}
	for _, capability := range lostCapabilities {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0); err != nil {
			return fmt.Errorf("letting go of capability %d: %w", capability, err)
		}
	}
	// A container's systemd leaves to the machine below what is that one's: clock, core dumps, modules.
	// Generators would make units for the disks and the services of this machine.
	environment := append([]string{
		"container=millrace-e2e", "SYSTEMD_UNIT_PATH=" + unitFolder,
		"SYSTEMD_GENERATOR_PATH=/nowhere", "SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/nowhere",
	}, machineEnvironment...)
	return syscall.Exec(systemdPath, []string{systemdPath, "--system", "--unit=" + bootTarget, "--log-target=journal", "--show-status=no"}, environment)
}

// mountRoot mounts the files of this machine, with what is written to them in memory.
func mountRoot(folder string) (root string, err error) {
	upper, work, root := filepath.Join(folder, "upper"), filepath.Join(folder, "work"), filepath.Join(folder, "root")
	if err := mount("tmpfs", folder, "tmpfs", 0, "mode=0755,size=128m"); err != nil {
		return "", err
	}
	for _, path := range []string{upper, work, root} {
		if err := os.Mkdir(path, 0o755); err != nil {
			return "", err
		}
	}
	return root, mount("overlay", root, "overlay", 0, "lowerdir=/,upperdir="+upper+",workdir="+work)
}

// mountSystem mounts what a machine's first process finds. Settings of the kernel, most of which no
// namespace divides, can be read.
func mountSystem(root string) error {
	const bare = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, m := range []struct {
		kind, target string
		flags        uintptr
		options      string
	}{
		{"proc", "proc", bare, ""},
		{"sysfs", "sys", bare | unix.MS_RDONLY, ""},
		{"cgroup2", "sys/fs/cgroup", bare, ""}, // from our own group on
		{"tmpfs", "dev", unix.MS_NOSUID, "mode=0755"},
		{"tmpfs", "run", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
		{"tmpfs", "tmp", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	} {
		if err := mount(m.kind, filepath.Join(root, m.target), m.kind, m.flags, m.options); err != nil {
			return err
		}
	}
	settings := filepath.Join(root, "proc/sys")
	if err := mount(settings, settings, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if err := mount("", settings, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|bare, ""); err != nil {
		return err
	}
	for _, device := range machineDevices {
		if err := bind("/dev/"+device, filepath.Join(root, "dev", device)); err != nil {
			return err
		}
	}
	return os.Symlink("pts/ptmx", filepath.Join(root, "dev/ptmx")) // systemd mounts pts
}

// writeFiles writes the files of a machine that are its own, and its user.
func writeFiles(root string) error {
	for path, from := range machineCopies {
		text, err := os.ReadFile(from)
		if err == nil {
			err = writeFile(filepath.Join(root, path), string(text))
		}
		if err != nil {
			return err
		}
	}
	for path, text := range machineFiles {
		if err := writeFile(filepath.Join(root, path), text); err != nil {
			return err
		}
	}
	if err := writeFile(filepath.Join(root, "etc/passwd"), "root:x:0:0::/root:/bin/sh\nmillrace:x:4711:4711::/:/usr/sbin/nologin\n"); err != nil {
		return err
	}
	return writeFile(filepath.Join(root, "etc/group"), "root:x:0:\nmillrace:x:4711:\n")
}

func writeFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// changeRoot makes root this process's, and lets go of the one before.
func changeRoot(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	// pivot_root(2), "pivot_root(".", ".")": the old one is stacked on the new one, and then taken away.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("letting go of the root before: %w", err)
	}
	return os.Chdir("/")
}

// bind has a file of this machine at a place of its own.
func bind(from, to string) error {
	if err := writeFile(to, ""); err != nil {
		return err
	}
	return mount(from, to, "", unix.MS_BIND, "")
}

func mount(source, target, kind string, flags uintptr, options string) error {
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		return fmt.Errorf("mounting %s on %s: %w", kind, target, err)
	}
	return nil
}
