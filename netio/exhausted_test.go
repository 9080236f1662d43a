package netio

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/logtest"
	"github.com/millrace/millrace/internal/polltest"
)

// exhaustedReport is what the child tells of itself for each line it reads.
type exhaustedReport struct {
	Stats     DeskStats
	Processor time.Duration
	LogLines  int
}

// exhaustedChild is a desk in a process with a low descriptor limit. It prints its address, then
// a report for each line on its input, and ends with it.
func exhaustedChild() int {
	log := &logtest.Text{}
	desk, err := startDesk(DeskOptions{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "well") }),
		Adopt:   adoptNothing, MaxConnections: -1, Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err == nil {
		err = limitDescriptors(nextDescriptor() + 8)
	}
	if err != nil {
		fmt.Println("failed:", err)
		return 1
	}
	fmt.Println(desk.Addr())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		report, _ := json.Marshal(exhaustedReport{desk.Stats(), processorTime(), strings.Count(log.String(), "\n")})
		fmt.Println(string(report))
	}
	if err := shutDown(desk, time.Second); err != nil {
		fmt.Println("failed:", err)
		return 1
	}
	return 0
}

// TestExhausted runs a desk out of descriptors, in a process of its own since a limit is a process's.
func TestExhausted(t *testing.T) {
	child := startExhausted(t)
	bystander := child.dial(t)
	if err := exchange(bystander); err != nil {
		t.Fatalf("the bystander, before: %v", err)
	}
	var crowd []net.Conn
	for range 400 {
		crowd = append(crowd, child.dial(t))
	}
	polltest.Eventually(t, "connections are refused for want of descriptors", func() bool {
		return child.report(t).Stats.Refused[RefusedDescriptors] > 0
	})
	if err := exchange(bystander); err != nil {
		t.Errorf("the bystander, meanwhile: %v", err)
	}
	before := child.report(t).Processor
	const window = 500 * time.Millisecond
	timer := time.NewTimer(window) // the time is what is measured here
	<-timer.C
	if used := child.report(t).Processor - before; used > window/3 {
		t.Errorf("the desk spins: %v of processor time in %v", used, window)
	}
	for _, connection := range crowd {
		connection.Close()
	}
	polltest.Eventually(t, "accepting comes back", func() bool {
		connection := child.dial(t)
		defer connection.Close()
		return exchange(connection) == nil
	})
	report := child.report(t)
	if report.LogLines != 1 {
		t.Errorf("%d log lines instead of one", report.LogLines)
	}
	t.Logf("%+v", report)
}

// exhaustedProcess is the child as its parent sees it.
type exhaustedProcess struct {
	address string
	input   io.WriteCloser
	output  *bufio.Scanner
}

func startExhausted(t *testing.T) *exhaustedProcess {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(executable)
	command.Env = append(os.Environ(), deskChildVariable+"=exhausted")
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	child := &exhaustedProcess{input: input, output: bufio.NewScanner(output)}
	t.Cleanup(func() {
		input.Close()
		if err := command.Wait(); err != nil {
			t.Errorf("the child ended with %v", err)
		}
	})
	child.output.Scan()
	child.address = child.output.Text()
	return child
}

func (p *exhaustedProcess) dial(t *testing.T) net.Conn {
	t.Helper()
	connection, err := net.Dial("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return connection
}

func (p *exhaustedProcess) report(t *testing.T) (report exhaustedReport) {
	t.Helper()
	fmt.Fprintln(p.input)
	if !p.output.Scan() {
		t.Fatal("the child says nothing")
	}
	if err := json.Unmarshal(p.output.Bytes(), &report); err != nil {
		t.Fatalf("the child says %q: %v", p.output.Text(), err)
	}
	return report
}

// exchange makes one request and checks its answer.
func exchange(connection net.Conn) error {
	connection.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(connection, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(response.Body)
	if err == nil && string(body) != "well" {
		err = fmt.Errorf("the body is %q", body)
	}
	return err
}

func limitDescriptors(count int) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = uint64(count)
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}

// nextDescriptor is the number that the next descriptor gets.
func nextDescriptor() int {
	fd, err := syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer syscall.Close(fd)
	return fd
}

func processorTime() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// TestKeepDescriptors: a connection that would take one of the last descriptors is closed, whoever
// has taken the others.
func TestKeepDescriptors(t *testing.T) {
	limit := descriptorLimit()
	desk := &Desk{highestDescriptor: limit - 20, logger: slog.New(slog.DiscardHandler)}
	for fd, want := range map[int]bool{3: false, limit - 21: false, limit - 20: true, limit - 1: true} {
		reason, refused := desk.admit(fd)
		if refused != want || refused && reason != RefusedDescriptors {
			t.Errorf("descriptor %d of %d: refused %v (%v), want %v", fd, limit, refused, reason, want)
		}
	}
}
