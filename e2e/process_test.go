package e2e

import (
	"bufio"
	"errors"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a child that a test started: its input, its lines of output, and its end.
type process struct {
	name   string
	cmd    *exec.Cmd
	input  io.WriteCloser
	lines  chan string   // of standard output; closed at its end
	exited chan struct{} // closed when the process has ended and err is set
	err    error
	// polite is how long the child is given to end by itself once its input is closed. Zero for
	// those that do not read it.
	polite time.Duration

	mutex    sync.Mutex
	errorLog []string // lines of standard error, the last errorLinesMax of them
}

const (
	errorLinesMax = 400
	// linesMax bounds what a child may be ahead of its test; beyond it the child waits.
	linesMax = 200_000
	// patience is how long a test waits for what should happen at once. It is long, for a busy
	// machine, and costs nothing where things work.
	patience = time.Minute
)

// start runs a program until the test ends, and then ends it by its own id.
func start(t *testing.T, name, path string, arguments ...string) *process {
	t.Helper()
	p := &process{name: name, lines: make(chan string, linesMax), exited: make(chan struct{})}
	p.cmd = exec.Command(path, arguments...)
	// Should this process be killed, its children must not outlive it.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	input, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.input = input
	output, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	complaints, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v (make test installs what these tests need)", name, err)
	}
	var readers sync.WaitGroup
	readers.Go(func() { p.readLines(output) })
	readers.Go(func() { p.readErrors(complaints, strings.HasPrefix(path, builds)) })
	go func() {
		readers.Wait()
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.end()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, p.complaints())
		}
	})
	return p
}

func (p *process) readLines(output io.Reader) {
	defer close(p.lines)
	reader := bufio.NewReaderSize(output, 64<<10)
	for {
		line, err := reader.ReadString('\n')
		if line != "" {
			p.lines <- strings.TrimSuffix(line, "\n")
		}
		if err != nil {
			return
		}
	}
}

// readErrors keeps what a child complains of. What a binary of ours says there is its log.
func (p *process) readErrors(complaints io.Reader, ours bool) {
	scanner := bufio.NewScanner(complaints)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		if ours {
			logs.Line(p.name, scanner.Text())
		}
		p.mutex.Lock()
		p.errorLog = append(p.errorLog, scanner.Text())
		if len(p.errorLog) > errorLinesMax {
			p.errorLog = p.errorLog[1:]
		}
		p.mutex.Unlock()
	}
}

func (p *process) complaints() string {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return strings.Join(p.errorLog, "\n")
}

// end closes the child's input, which ends the polite ones, asks the others, and kills what is
// left after a moment.
func (p *process) end() {
	p.input.Close()
	go func() { // a child that waits for its reader could not end
		for range p.lines {
		}
	}()
	select {
	case <-p.exited:
		return
	case <-time.After(p.polite):
	}
	p.signal(syscall.SIGTERM)
	select {
	case <-p.exited:
		return
	case <-time.After(3 * time.Second):
	}
	p.signal(syscall.SIGKILL)
	<-p.exited
}

func (p *process) signal(signal syscall.Signal) {
	_ = p.cmd.Process.Signal(signal) // it may have ended already
}

// wait gives the exit code once the child has ended.
func (p *process) wait(t *testing.T, patience time.Duration) int {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		t.Fatalf("%s did not end within %v", p.name, patience)
	}
	var failure *exec.ExitError
	if errors.As(p.err, &failure) {
		return failure.ExitCode()
	}
	if p.err != nil {
		t.Fatalf("%s: %v", p.name, p.err)
	}
	return 0
}
