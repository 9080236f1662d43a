package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/leaktest"
	"github.com/millrace/millrace/internal/processtest"
)

// binary is the path of the command under test, built once.
var binary string

// patience is how long a test waits for what must happen. It is long, for a busy machine, and costs nothing
// where things work.
const patience = time.Minute

func TestMain(m *testing.M) {
	if os.Getenv(handoffVariable) != "" {
		os.Exit(takeOverAndFail())
	}
	// What is slow here waits for processes.
	_ = flag.Set("test.parallel", "8")
	flag.Parse() // what the command line says comes last
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	folder, err := os.MkdirTemp("", "millrace-command-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailure
	}
	defer os.RemoveAll(folder)
	if binary, err = processtest.Build(folder, "millrace", "."); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailure
	}
	return leaktest.Run(m)
}

// invocation is one run of the binary.
type invocation struct {
	arguments   []string
	environment []string // besides PATH
	folder      string
	input       io.Reader
	wrapper     []string   // a command that runs what is put behind it; nil: none
	files       []*os.File // it finds these as descriptors from 3 on
}

// outcome is what one run left.
type outcome struct {
	code           int
	stdout, stderr string
}

func (i *invocation) command(ctx context.Context) *exec.Cmd {
	line := append(append(slices.Clone(i.wrapper), binary), i.arguments...)
	command := exec.CommandContext(ctx, line[0], line[1:]...)
	command.ExtraFiles = i.files
	command.Env = append([]string{"PATH=" + os.Getenv("PATH")}, i.environment...)
	command.Dir, command.Stdin = i.folder, i.input
	return command
}

// run runs the binary to its end.
func (i *invocation) run(t *testing.T) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	command := i.command(ctx)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %v: %v\n%s%s", i.arguments, err, &stdout, &stderr)
	}
	return outcome{code: command.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
}

// running is a run that goes on, and what it has said so far.
type running struct {
	t       *testing.T
	command *exec.Cmd
	stdin   io.WriteCloser
	readers sync.WaitGroup

	mutex          sync.Mutex // guards what follows
	stdout, stderr []string
	news           chan struct{} // a line came, buffered by one
}

// start starts the binary. It is killed at the test's end if it still runs then.
func (i *invocation) start(t *testing.T) *running {
	t.Helper()
	command := i.command(context.Background())
	started := &running{t: t, command: command, news: make(chan struct{}, 1)}
	if i.input == nil {
		stdin, err := command.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		started.stdin = stdin
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	started.readers.Go(func() { started.collect(stdout, &started.stdout) })
	started.readers.Go(func() { started.collect(stderr, &started.stderr) })
	t.Cleanup(func() {
		if command.ProcessState == nil {
			_ = command.Process.Kill()
			started.readers.Wait()
			_ = command.Wait()
		}
	})
	return started
}

func (r *running) collect(stream io.Reader, lines *[]string) {
	scanner := bufio.NewScanner(stream)
	for scanner.Scan() {
		r.mutex.Lock()
		*lines = append(*lines, scanner.Text())
		r.mutex.Unlock()
		select {
		case r.news <- struct{}{}:
		default:
		}
	}
}

// said gives everything that was said so far.
func (r *running) said() (stdout, stderr string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return strings.Join(r.stdout, "\n"), strings.Join(r.stderr, "\n")
}

// waitFor waits until either stream holds text.
func (r *running) waitFor(text string) {
	r.t.Helper()
	deadline := time.After(patience)
	for {
		stdout, stderr := r.said()
		if strings.Contains(stdout, text) || strings.Contains(stderr, text) {
			return
		}
		select {
		case <-r.news:
		case <-deadline:
			r.t.Fatalf("%q was not said\nstandard output:\n%s\nstandard error:\n%s", text, stdout, stderr)
		}
	}
}

// signal sends one signal.
func (r *running) signal(number syscall.Signal) {
	r.t.Helper()
	if err := r.command.Process.Signal(number); err != nil {
		r.t.Fatal(err)
	}
}

// wait waits for the end.
func (r *running) wait() outcome {
	r.t.Helper()
	late := time.AfterFunc(patience, func() { _ = r.command.Process.Kill() })
	defer late.Stop()
	r.readers.Wait()
	err := r.command.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	stdout, stderr := r.said()
	return outcome{code: r.command.ProcessState.ExitCode(), stdout: stdout, stderr: stderr}
}
