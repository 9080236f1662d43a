package hostile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/internal/processtest"
	"github.com/millrace/millrace/internal/redistest"
)

// host is another machine to the gateway, at the other end of a cable: a network namespace with one end
// of a veth pair. Its packets can be made to vanish, as where a cable is cut: nobody is told.
//
// The namespace has no name. It belongs to this process and to those that run in it, and goes with
// them, and with it its rules and both ends of the cable: nothing is left, however this process ends.
type host struct {
	namespace   *os.File
	cable       string // the name of the end that is here
	here, there string // the addresses of its ends
}

// hostsMade numbers the hosts of this process. Each has four addresses of 198.18.0.0/15, which are for
// tests between networks (RFC 2544) and nobody's; other processes make hosts too, so it starts anywhere.
var hostsMade atomic.Uint32

const (
	hostsFirst = 198<<24 | 18<<16
	hostsMax   = 1 << 15
)

func init() { hostsMade.Store(rand.Uint32N(hostsMax)) }

// errNoHost is where none can be made.
var errNoHost = errors.New("another host is a network namespace")

// newHost makes a host, which is gone at the end of the case. Where none can be made, the case is skipped.
func (w *world) newHost() *host {
	w.Helper()
	h, err := makeHost()
	if errors.Is(err, errNoHost) {
		w.Skip(err)
	}
	if h != nil {
		w.Cleanup(func() { h.end(w) }) // when whoever runs in it, or talks to it, has ended
	}
	if err != nil {
		w.Fatal(err)
	}
	return h
}

// makeHost makes a host, for the caller to end also where there is an error.
func makeHost() (*host, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w, which root alone can make", errNoHost)
	}
	for _, program := range []string{"ip", "iptables"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w, for which %s is needed: make deps, as root on Debian, brings it", errNoHost, program)
		}
	}
	number := hostsMade.Add(1) % hostsMax
	h := &host{cable: fmt.Sprintf("mill%d-%d", os.Getpid()%1_000_000, number%1000), here: hostAddress(number, 1), there: hostAddress(number, 2)}
	err := elsewhere(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			h.namespace, err = os.Open("/proc/thread-self/ns/net")
		}
		return err
	})
	if errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("%w, and this machine allows none: %w", errNoHost, err)
	}
	if err != nil {
		return nil, err
	}
	err = runAll([]*os.File{h.namespace}, "ip link add "+h.cable+" type veth peer name cable netns /proc/self/fd/3",
		"ip address add "+h.here+"/30 dev "+h.cable, "ip link set "+h.cable+" up")
	if err != nil {
		return h, err
	}
	return h, h.run("ip address add "+h.there+"/30 dev cable", "ip link set cable up", "ip link set lo up")
}

func hostAddress(number, end uint32) string {
	address := hostsFirst + 4*number + end
	return netip.AddrFrom4([4]byte{byte(address >> 24), byte(address >> 16), byte(address >> 8), byte(address)}).String()
}

// end lets go of the namespace, and takes the cable away at once: the kernel would in its own time.
func (h *host) end(t testing.TB) {
	t.Helper()
	h.namespace.Close()
	_ = exec.Command("ip", "link", "delete", h.cable).Run() // it may never have been there
	if _, err := net.InterfaceByName(h.cable); err == nil {
		t.Errorf("the cable %s is left", h.cable)
	}
}

// run runs commands on the host.
func (h *host) run(commands ...string) error {
	return h.inside(func() error { return runAll(nil, commands...) })
}

// runAll runs commands, with files as their descriptors from 3 on.
func runAll(files []*os.File, commands ...string) error {
	for _, line := range commands {
		words := strings.Fields(line)
		command := exec.Command(words[0], words[1:]...)
		command.ExtraFiles = files
		if output, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", line, err, output)
		}
	}
	return nil
}

// inside runs do on the host, nil for this one: sockets that it opens, and processes that it starts,
// belong there. It must not end the test.
func (h *host) inside(do func() error) error {
	if h == nil {
		return do()
	}
	return elsewhere(func() error {
		if err := unix.Setns(int(h.namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return do()
	})
}

// elsewhere runs do on a thread of its own, which may go to another network namespace, and comes back.
func elsewhere(do func() error) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		home, failure := os.Open("/proc/thread-self/ns/net")
		if failure != nil {
			err = failure
			return
		}
		defer home.Close()
		err = do()
		if failure = unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); failure != nil {
			err = errors.Join(err, failure)
			return // locked to its thread, which so ends too
		}
		runtime.UnlockOSThread()
	}()
	<-done
	return err
}

// vanish has every packet between the host and this one dropped, on the host: who sends one here
// notices nothing. What the host says to itself goes on.
func (h *host) vanish() error {
	return h.run("iptables -w -A INPUT -i cable -j DROP", "iptables -w -A OUTPUT -o cable -j DROP")
}

// comeBack ends that.
func (h *host) comeBack() error { return h.run("iptables -w -F") }

// withFarPeers has the gateway listen at the end of a cable whose other end is w.far.
func withFarPeers(w *world) {
	w.far = w.newHost()
	w.abuse.address = freeAddressOf(w.T, w.far.here)
}

// withFarRedis has the gateway fed by a Redis on w.far.
func withFarRedis(w *world) {
	w.far = w.newHost()
	err := w.far.inside(func() (err error) {
		w.redis, err = redistest.Run("--bind", "127.0.0.1", w.far.there, "--protected-mode", "no")
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(w.redis.Close)
	w.redisHost = w.far
	w.abuse.arguments = append(slices.Clone(w.abuse.arguments), "--redis", w.farRedisURL())
}

func (w *world) farRedisURL() string { return fmt.Sprintf("redis://%s:%d", w.far.there, w.redis.Port) }

// fromFar is the world as it is seen from w.far: connections are made from there.
func (w *world) fromFar() *world {
	far := w.at(w.gateway)
	far.stands = w.far
	return far
}

// hostVariable makes this test binary one that has a host, and is killed for it.
const hostVariable = "MILLRACE_HOSTILE_HOST"

// haveHost makes a host whose packets vanish, says the name of its cable, and waits to be killed.
func haveHost() int {
	h, err := makeHost()
	if err == nil {
		err = h.vanish()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(h.cable)
	_, _ = io.Copy(io.Discard, os.Stdin) // should who started this one be gone
	return 1
}

// TestHostIsGone: of a process that is killed, nothing is left of its hosts.
func TestHostIsGone(t *testing.T) {
	h, err := makeHost()
	if errors.Is(err, errNoHost) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	h.end(t)

	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), hostVariable+"=1")
	child.Stderr = os.Stderr
	input, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer input.Close()
	output, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(output).ReadString('\n')
	cable := strings.TrimSpace(line)
	_, there := net.InterfaceByName(cable)
	_ = child.Process.Kill()
	_ = child.Wait()
	if err != nil || there != nil {
		t.Fatalf("the child said %q (%v), and its cable: %v", line, err, there)
	}
	if !processtest.Poll(patience, func() bool {
		_, err := net.InterfaceByName(cable)
		return err != nil
	}) {
		t.Errorf("the cable %s of a process that is gone is left", cable)
	}
}
