package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/internal/freeport"
)

const (
	startTimeout  = 20 * time.Second // for a child to listen
	endTimeout    = 5 * time.Second  // for a child to end by itself after SIGTERM
	pollInterval  = 10 * time.Millisecond
	wordsBytesMax = 4 << 10 // kept of what a child said last
)

// cores is a set of processors; empty means all.
type cores []int

// placement says where processes run.
type placement struct {
	server cores
	client cores
	usable cores // all that this process could use before it was pinned itself
}

// everywhere gives everybody all cores. They are named, since children inherit the harness's own.
func (p placement) everywhere() placement {
	return placement{server: p.usable, client: p.usable, usable: p.usable}
}

// place puts the server on the first core of this machine and everybody else on the others, or
// everybody everywhere.
func place(all bool) (placement, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return placement{}, fmt.Errorf("which cores there are: %w", err)
	}
	var usable cores
	for core := range len(set) * 64 {
		if set.IsSet(core) {
			usable = append(usable, core)
		}
	}
	if all {
		return placement{usable: usable}, nil
	}
	if len(usable) < 2 {
		return placement{}, errors.New("this process may use one core only: the server and its crowd need one each; give --cores all to share it")
	}
	return placement{server: usable[:1], client: usable[1:], usable: usable}, nil
}

// child is a process that the harness started. It ends before the harness does.
type child struct {
	name    string
	command *exec.Cmd
	exited  chan struct{} // closed once it is reaped
	words   *lastWords
}

// launch is what a child is started with.
type launch struct {
	name      string // in errors
	path      string
	arguments []string
	cores     cores
	env       []string // besides the harness's own
	stdin     io.Reader
	stdout    io.Writer
}

// spawn starts a child on its cores. ctx only bounds the start; the caller must end the child.
func spawn(ctx context.Context, l launch) (*child, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c := &child{name: l.name, exited: make(chan struct{}), words: &lastWords{}}
	c.command = exec.Command(l.path, l.arguments...)
	c.command.Env = append(os.Environ(), l.env...)
	if len(l.cores) == 1 {
		c.command.Env = append(c.command.Env, "GOMAXPROCS=1")
	}
	c.command.Stdin, c.command.Stdout, c.command.Stderr = l.stdin, l.stdout, c.words
	if l.stdout == nil {
		c.command.Stdout = c.words
	}
	c.command.WaitDelay = time.Second // a grandchild may hold the pipe of the last words
	// A group of its own keeps Ctrl-C from it: the harness ends it in order. Whatever happens to
	// the harness, the kernel ends the child.
	c.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := startOn(c.command, l.cores); err != nil {
		return nil, fmt.Errorf("start %s: %w", l.name, err)
	}
	go func() {
		_ = c.command.Wait()
		close(c.exited)
	}()
	return c, nil
}

// startMutex keeps the affinity of the thread that forks from being another start's.
var startMutex sync.Mutex

// startOn starts a command whose threads, from the first, may use the given cores only.
func startOn(command *exec.Cmd, on cores) error {
	startMutex.Lock()
	defer startMutex.Unlock()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if len(on) > 0 {
		var before unix.CPUSet
		if err := unix.SchedGetaffinity(0, &before); err != nil {
			return err
		}
		if err := pinThread(on); err != nil {
			return err
		}
		defer func() { _ = unix.SchedSetaffinity(0, &before) }()
	}
	return command.Start()
}

func pinThread(on cores) error {
	var set unix.CPUSet
	for _, core := range on {
		set.Set(core)
	}
	return unix.SchedSetaffinity(0, &set)
}

// pinProcess moves all threads of this process to the given cores, and gives the function that
// moves them back.
func pinProcess(on cores) (restore func(), err error) {
	var before, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, fmt.Errorf("keep the harness off the server's core: %w", err)
	}
	for _, core := range on {
		set.Set(core)
	}
	if len(on) == 0 {
		set = before
	}
	restore = func() { _ = pinThreads(&before) }
	if err := pinThreads(&set); err != nil {
		restore()
		return nil, fmt.Errorf("keep the harness off the server's core: %w", err)
	}
	return restore, nil
}

func pinThreads(set *unix.CPUSet) error {
	tasks, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		thread, err := strconv.Atoi(filepath.Base(task))
		if err != nil {
			continue
		}
		if err := unix.SchedSetaffinity(thread, set); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// prioritize sets the niceness of all threads of the child, as far as that is allowed: more than
// before always is.
func (c *child) prioritize(niceness int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", c.pid()))
	for _, task := range tasks {
		if thread, err := strconv.Atoi(filepath.Base(task)); err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, thread, niceness)
		}
	}
}

func (c *child) pid() int { return c.command.Process.Pid }

func (c *child) running() bool {
	select {
	case <-c.exited:
		return false
	default:
		return true
	}
}

// stop ends the child: in order if it obeys, else at once.
func (c *child) stop() {
	if !c.running() {
		return
	}
	_ = c.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.exited:
	case <-time.After(endTimeout):
		// The group: an nginx that is killed would leave its workers.
		_ = syscall.Kill(-c.pid(), syscall.SIGKILL)
		<-c.exited
	}
}

// drain tells the child to end, and waits until it has sent everybody away.
func (c *child) drain(ctx context.Context, limit time.Duration) error {
	if err := c.command.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("tell %s to end: %w", c.name, err)
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c.exited:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return fmt.Errorf("%s did not end within %v; its last words: %s", c.name, limit, c.words)
	}
}

// listening waits until something accepts on address, or the child is gone.
func (c *child) listening(ctx context.Context, address string) error {
	return c.await(ctx, "listen on "+address, func() bool {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
}

// await polls until ok, the child's end, ctx's, or startTimeout.
func (c *child) await(ctx context.Context, what string, ok func() bool) error {
	deadline := time.Now().Add(startTimeout)
	for !ok() {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case !c.running():
			return fmt.Errorf("%s ended before it could %s; its last words: %s", c.name, what, c.words)
		case time.Now().After(deadline):
			return fmt.Errorf("%s did not %s within %v; its last words: %s", c.name, what, startTimeout, c.words)
		}
		pause(ctx, pollInterval)
	}
	return nil
}

// pause waits for d or for the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// freeAddress is a loopback address with a port that nobody has at this moment.
func freeAddress() (string, error) {
	port, err := freeport.Find()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), err
}

// lastWords keeps the end of what a child writes. Safe for use by many goroutines.
type lastWords struct {
	mutex sync.Mutex
	text  []byte
}

// Write keeps p. It never fails.
func (w *lastWords) Write(p []byte) (int, error) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.text = append(w.text, p...)
	if extra := len(w.text) - wordsBytesMax; extra > 0 {
		w.text = append(w.text[:0], w.text[extra:]...)
	}
	return len(p), nil
}

func (w *lastWords) String() string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	text := strings.TrimSpace(string(w.text))
	if text == "" {
		return "(none)"
	}
	return text
}
