// Package redistest starts real redis-servers for the tests of this project: one server, a
// Cluster or a primary with a replica and Sentinels, each on free ports of the loopback and in a
// directory of its own, stopped by process id when the test ends.
//
// A test that needs Redis fails, and says what to install, where redis-server is absent: a test
// that is skipped proves nothing.
package redistest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/freeport"
)

const (
	// startTimeout bounds the wait for a started server's first answer.
	startTimeout = 10 * time.Second
	// pollInterval is how often a condition is looked at while it is waited for.
	pollInterval = 10 * time.Millisecond
	// startAttempts is how many free ports are tried: another process may take one in between.
	startAttempts = 5
)

// Server is one running redis-server. Its methods are safe for use by several goroutines, but
// only one of them at a time should kill, stop or restart it.
type Server struct {
	// Addr is its HOST:PORT; the port stays the same over Restart.
	Addr string
	// Port is the port in Addr.
	Port int

	binary    string   // redis-server, also where it runs as a Sentinel
	arguments []string // of the command line, without port and directory
	directory string

	mutex   sync.Mutex // guards what follows
	command *exec.Cmd
	exited  chan struct{} // closed once command is reaped
	stopped bool          // by Stop
}

// Start runs a redis-server with the given command line arguments ("--requirepass", "secret")
// on a free port, waits until it answers, and stops it when the test ends.
func Start(t testing.TB, arguments ...string) *Server {
	t.Helper()
	server, err := Run(arguments...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return server
}

// Run is [Start] without a test, for TestMain and programs. The caller closes the server.
func Run(arguments ...string) (*Server, error) {
	var err error
	for range startAttempts {
		var port int
		if port, err = freeport.Find(); err != nil {
			return nil, err
		}
		var server *Server
		if server, err = RunOn(port, arguments...); err == nil {
			return server, nil
		}
		if errors.Is(err, exec.ErrNotFound) {
			return nil, err
		}
	}
	return nil, err
}

// RunOn is [Run] on a given port, for tests in which Redis comes later than its users.
func RunOn(port int, arguments ...string) (*Server, error) {
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("redistest: redis-server is not in PATH, install it (apt-get install redis-server): %w", err)
	}
	directory, err := os.MkdirTemp("", "redistest-")
	if err != nil {
		return nil, fmt.Errorf("redistest: make a directory for the server: %w", err)
	}
	server := &Server{
		Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Port: port,
		binary: binary, arguments: arguments, directory: directory,
	}
	if err := server.launch(); err != nil {
		server.Close()
		return nil, err
	}
	return server, nil
}

// launch starts the process and waits for its first answer.
func (s *Server) launch() error {
	arguments := s.arguments
	logged := s.logSize()
	configured := len(arguments) > 0 && strings.HasSuffix(arguments[0], ".conf")
	if configured {
		// A configuration file comes first on the command line.
		arguments = append([]string{arguments[0], "--port", strconv.Itoa(s.Port)}, arguments[1:]...)
	} else {
		arguments = append([]string{
			"--port", strconv.Itoa(s.Port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
			"--dir", s.directory, "--logfile", s.logFile(),
		}, arguments...)
	}
	command := exec.Command(s.binary, arguments...)
	command.Dir = s.directory
	// A test binary that is killed must not leave servers behind.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		return fmt.Errorf("redistest: start %s: %w", s.binary, err)
	}
	exited := make(chan struct{})
	go func() {
		_ = command.Wait() // how a server ended is told by its log
		close(exited)
	}()
	s.mutex.Lock()
	s.command, s.exited, s.stopped = command, exited, false
	s.mutex.Unlock()
	return s.awaitAnswer(exited, func() bool { return configured || s.isListening(logged) })
}

// awaitAnswer polls until the server speaks, and it is this one and no other on the same port. An error
// reply (NOAUTH) is an answer too.
func (s *Server) awaitAnswer(exited <-chan struct{}, isOurs func() bool) error {
	deadline := time.Now().Add(startTimeout)
	for time.Now().Before(deadline) {
		select {
		case <-exited:
			return fmt.Errorf("redistest: redis-server on port %d ended at once: %s", s.Port, s.logTail())
		default:
		}
		if s.answers() && isOurs() {
			return nil
		}
		time.Sleep(pollInterval)
	}
	return fmt.Errorf("redistest: redis-server on port %d did not answer within %v: %s", s.Port, startTimeout, s.logTail())
}

func (s *Server) answers() bool {
	connection, err := net.DialTimeout("tcp", s.Addr, time.Second)
	if err != nil {
		return false
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(time.Second))
	if _, err := connection.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	answer := make([]byte, 1)
	_, err = connection.Read(answer)
	return err == nil && (answer[0] == '+' || answer[0] == '-')
}

func (s *Server) logFile() string { return filepath.Join(s.directory, "redis.log") }

func (s *Server) logSize() int64 {
	info, err := os.Stat(s.logFile())
	if err != nil {
		return 0
	}
	return info.Size()
}

// isListening reports whether the server has said in its log, behind what stood there before, that it has its
// port. It may still be loading what it holds.
func (s *Server) isListening(before int64) bool {
	content, err := os.ReadFile(s.logFile())
	return err == nil && bytes.Contains(content[min(before, int64(len(content))):], []byte("Server initialized"))
}

func (s *Server) logTail() string {
	content, err := os.ReadFile(s.logFile())
	if err != nil {
		return "it left no log"
	}
	const tailBytesMax = 600
	return string(content[max(0, len(content)-tailBytesMax):])
}

// URL is redis://HOST:PORT.
func (s *Server) URL() string { return "redis://" + s.Addr }

// Directory is where the server keeps its files; it is removed by Close.
func (s *Server) Directory() string { return s.directory }

// Signal sends a signal to the process.
func (s *Server) Signal(signal syscall.Signal) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.command == nil {
		return
	}
	select {
	case <-s.exited: // reaped: the number may be somebody else's by now
	default:
		_ = s.command.Process.Signal(signal)
	}
}

// Stop freezes the server (SIGSTOP): connections stay, nothing answers.
func (s *Server) Stop() {
	s.Signal(syscall.SIGSTOP)
	s.mutex.Lock()
	s.stopped = true
	s.mutex.Unlock()
}

// Cont lets a stopped server go on.
func (s *Server) Cont() {
	s.Signal(syscall.SIGCONT)
	s.mutex.Lock()
	s.stopped = false
	s.mutex.Unlock()
}

// Kill ends the server at once (SIGKILL) and waits until it is gone.
func (s *Server) Kill() {
	s.mutex.Lock()
	exited := s.exited
	s.mutex.Unlock()
	if exited == nil {
		return
	}
	s.Signal(syscall.SIGKILL)
	<-exited
}

// Restart starts a killed server again on the same port with the same arguments; one that still
// runs is killed first.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if err := s.Revive(); err != nil {
		t.Fatal(err)
	}
}

// Revive is [Server.Restart] without a test.
func (s *Server) Revive() error {
	s.Kill()
	return s.launch()
}

// Close kills the server and removes its directory. It may be called twice.
func (s *Server) Close() {
	s.Kill()
	_ = os.RemoveAll(s.directory)
}

// CLI runs redis-cli against the server and returns what it printed, without the last newline.
func (s *Server) CLI(t testing.TB, arguments ...string) string {
	t.Helper()
	output, err := s.Command(arguments...)
	if err != nil {
		t.Fatal(err)
	}
	return output
}

// Command is [Server.CLI] without a test.
func (s *Server) Command(arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	arguments = append([]string{"-p", strconv.Itoa(s.Port)}, arguments...)
	command := exec.CommandContext(ctx, "redis-cli", arguments...)
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("redistest: redis-cli on port %d: %w: %s", s.Port, err, output.String())
	}
	return strings.TrimRight(output.String(), "\n"), nil
}

// Encode writes a command in Redis's protocol, for bytes that redis-cli does not take on its command
// line, and for many commands on one connection.
func Encode(words ...string) []byte {
	command := fmt.Appendf(nil, "*%d\r\n", len(words))
	for _, word := range words {
		command = fmt.Appendf(command, "$%d\r\n%s\r\n", len(word), word)
	}
	return command
}
