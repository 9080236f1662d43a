package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// activate is what systemd does between fork and exec: the variables name the process that is meant.
var activate = []string{"/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`}

// listeningSocket opens a TCP socket on a free port of the loopback, and gives a copy to pass on.
func listeningSocket(t *testing.T) (*os.File, string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return fileOf(t, listener.(*net.TCPListener)), listener.Addr().String()
}

func fileOf(t *testing.T, socket interface{ File() (*os.File, error) }) *os.File {
	t.Helper()
	file, err := socket.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

// passed is a run to which systemd passes sockets under names, a colon between two of them.
func passed(names string, files ...*os.File) invocation {
	environment := []string{"LISTEN_FDS=" + strconv.Itoa(len(files))}
	if names != "" {
		environment = append(environment, "LISTEN_FDNAMES="+names)
	}
	return invocation{wrapper: activate, environment: environment, files: files}
}

// statusOf asks an address for a path and gives the answer's status, 0 where there was none.
func statusOf(address, path string) int {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	response, err := client.Get("http://" + address + path)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

func TestServeOnPassedSockets(t *testing.T) {
	for _, test := range []struct{ name, names string }{
		{"by its name", "millrace"},
		{"by the name of its unit", "millrace.socket"},
		{"without a name", ""},
		{"of a program that knows no name", "unknown"},
	} {
		t.Run(test.name, func(t *testing.T) {
			file, address := listeningSocket(t)
			run := passed(test.names, file)
			started, said := startGateway(t, run)
			if said != "http://"+address {
				t.Errorf("it serves %s, want the socket that was passed, %s", said, address)
			}
			if got := statusOf(address, "/healthz"); got != http.StatusOK {
				t.Errorf("/healthz answers %d on it", got)
			}
			started.signal(syscall.SIGTERM)
			if ended := started.wait(); ended.code != 0 {
				t.Errorf("exit code %d:\n%s", ended.code, ended.stderr)
			}
		})
	}
}

func TestAdminOnPassedSocket(t *testing.T) {
	admin, adminAddress := listeningSocket(t)
	file, address := listeningSocket(t)
	startGateway(t, passed("admin:millrace", admin, file))
	for _, want := range []struct {
		address string
		status  int
	}{{adminAddress, http.StatusOK}, {address, http.StatusNotFound}} {
		if got := statusOf(want.address, "/metrics"); got != want.status {
			t.Errorf("/metrics on %s answers %d, want %d", want.address, got, want.status)
		}
	}
}

// TestPassedToAnother: the variables of a parent, which name the parent, are not ours.
func TestPassedToAnother(t *testing.T) {
	file, address := listeningSocket(t)
	run := passed("millrace", file)
	run.wrapper, run.environment = nil, append(run.environment, "LISTEN_PID=1")
	if _, said := startGateway(t, run); said == "http://"+address {
		t.Error("it serves on a socket that was passed to another process")
	}
}

// TestRestartRefusesNobody: systemd keeps the socket, so who comes while no gateway runs waits, and
// is answered by the next one.
func TestRestartRefusesNobody(t *testing.T) {
	file, address := listeningSocket(t)
	first, _ := startGateway(t, passed("millrace", file))
	first.signal(syscall.SIGTERM)
	if ended := first.wait(); ended.code != 0 {
		t.Fatalf("exit code %d:\n%s", ended.code, ended.stderr)
	}
	waiting, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatalf("nobody serves, and a client is refused: %v", err)
	}
	defer waiting.Close()
	_ = waiting.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(waiting, "GET /healthz HTTP/1.1\r\nHost: %s\r\n\r\n", address)
	startGateway(t, passed("millrace", file))
	response, err := http.ReadResponse(bufio.NewReader(waiting), nil)
	if err != nil {
		t.Fatalf("the next gateway did not answer: %v", err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("the next gateway answered %d", response.StatusCode)
	}
}

func TestWrongSockets(t *testing.T) {
	one, _ := listeningSocket(t)
	two, _ := listeningSocket(t)
	packets, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	local, err := net.ListenUnix("unix", &net.UnixAddr{Name: t.TempDir() + "/socket", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	open, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	for _, test := range []struct {
		name, names string
		files       []*os.File
		want        string
	}{
		{"an unknown name", "http", []*os.File{one}, "FileDescriptorName=millrace"},
		{"no names for two", "", []*os.File{one, two}, "FileDescriptorName=millrace"},
		{"a name twice", "millrace:millrace", []*os.File{one, two}, "two sockets named"},
		{"datagrams", "millrace", []*os.File{fileOf(t, packets)}, "no listening socket"},
		{"a unix socket", "millrace", []*os.File{fileOf(t, local)}, "not TCP"},
		{"a file", "millrace", []*os.File{os.Stdin}, "no listening socket"},
		{"without authentication, open to all", "millrace", []*os.File{fileOf(t, open.(*net.TCPListener))}, "insecure-no-auth"},
	} {
		t.Run(test.name, func(t *testing.T) {
			run := passed(test.names, test.files...)
			run.arguments = []string{"serve"}
			if ran := run.run(t); ran.code != exitFailure || !strings.Contains(ran.stderr, test.want) {
				t.Errorf("exit code %d, want %d and %q in %s", ran.code, exitFailure, test.want, ran.stderr)
			}
		})
	}
}

// TestSocketActivate has systemd's own program open the socket and start the gateway when the first
// client comes.
func TestSocketActivate(t *testing.T) {
	program, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Skip("systemd-socket-activate is not on this machine")
	}
	file, address := listeningSocket(t)
	file.Close() // a port that was free a moment ago
	run := invocation{
		wrapper:   []string{program, "--listen=" + address, "--fdname=millrace", "--"},
		arguments: []string{"serve", "--listen", "127.0.0.1:1"},
	}
	started := run.start(t)
	started.waitFor("Listening on")
	if got := statusOf(address, "/healthz"); got != http.StatusOK {
		t.Errorf("/healthz answers %d", got)
	}
	started.waitFor(`"serving http://` + address)
}
