package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const patience = 10 * time.Second

// serverFile is the server, built once by TestMain.
//
// The tests run it as its users do, in a process of its own. Besides, the race detector cannot
// judge nbio: the library hands a connection from one goroutine to another through epoll, which
// the detector does not see.
var serverFile string

func TestMain(m *testing.M) {
	idle := goleak.IgnoreCurrent() // the library starts some with its package
	before := openDescriptors()
	folder, err := os.MkdirTemp("", "nbio-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	serverFile = filepath.Join(folder, "nbio")
	code := 1
	if output, err := exec.Command("go", "build", "-o", serverFile, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the server: %v\n%s", err, output)
	} else {
		code = m.Run()
	}
	_ = os.RemoveAll(folder)
	if err := goleak.Find(idle); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	for deadline := time.Now().Add(patience); openDescriptors() > before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			fmt.Fprintf(os.Stderr, "open descriptors: %d before the tests, %d after\n", before, openDescriptors())
			os.Exit(1)
		}
	}
	os.Exit(code)
}

// openDescriptors leaves out those that the runtime keeps for good, its epoll and its eventfd.
func openDescriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	open := 0
	for _, entry := range entries {
		target, err := os.Readlink("/proc/self/fd/" + entry.Name())
		if err == nil && !strings.HasPrefix(target, "anon_inode:") {
			open++
		}
	}
	return open
}

// start runs the server on free ports and gives its two addresses. When the test ends the server
// is asked to stop, and has to exit with 0.
func start(t *testing.T, flags ...string) (listen, feed string) {
	t.Helper()
	server := exec.Command(serverFile, append(flags, "--listen", "127.0.0.1:0", "--feed", "127.0.0.1:0")...)
	server.Stderr = os.Stderr
	output, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		kill := time.AfterFunc(patience, func() { _ = server.Process.Kill() })
		defer kill.Stop()
		if err := server.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := server.Wait(); err != nil {
			t.Errorf("after SIGTERM the server ended with: %v", err)
		}
	})
	if _, err := fmt.Fscanf(output, "listen=%s feed=%s\n", &listen, &feed); err != nil {
		t.Fatalf("reading the line that says that the server is ready: %v", err)
	}
	return listen, feed
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	connection, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return connection
}

// handshake asks for an upgrade of path and gives the status line and what follows the head.
func handshake(t *testing.T, address, path string) (status string, rest *bufio.Reader) {
	t.Helper()
	connection := dial(t, address)
	_, err := fmt.Fprintf(connection, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", path, address)
	if err != nil {
		t.Fatal(err)
	}
	rest = bufio.NewReader(connection)
	status, err = rest.ReadString('\n')
	for line := status; err == nil && line != "\r\n"; {
		line, err = rest.ReadString('\n')
	}
	if err != nil {
		t.Fatalf("reading the head of the answer: %v", err)
	}
	return strings.TrimSpace(status), rest
}

func subscribe(t *testing.T, address, channel string) *bufio.Reader {
	t.Helper()
	status, stream := handshake(t, address, "/"+channel)
	if status != "HTTP/1.1 101 Switching Protocols" {
		t.Fatalf("subscribing to %s was answered %q", channel, status)
	}
	return stream
}

func expect(t *testing.T, stream *bufio.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(stream, got); err != nil || string(got) != want {
		t.Fatalf("read %q (error %v), want %q", got[:n], err, want)
	}
}

func frame(payload string) string { return string(appendFrame(nil, []byte(payload))) }

func TestOneEvent(t *testing.T) {
	listen, feed := start(t)
	hears, other := subscribe(t, listen, "a:1"), subscribe(t, listen, "a:2")
	publisher := dial(t, feed)
	for _, payload := range []string{`{"n":1}`, strings.Repeat("x", 126), strings.Repeat("y", 1<<16)} {
		if _, err := fmt.Fprintf(publisher, "a:1 %s\n", payload); err != nil {
			t.Fatal(err)
		}
		expect(t, hears, frame(payload))
	}
	if _, err := io.WriteString(publisher, "a:2 last\n"); err != nil {
		t.Fatal(err)
	}
	expect(t, other, frame("last")) // and nothing of a:1 before it
}

func TestBurstKeepsOrder(t *testing.T) {
	for name, flags := range map[string][]string{"a write each": nil, "gathered": {"--gather"}} {
		t.Run(name, func(t *testing.T) {
			listen, feed := start(t, flags...)
			one, two := subscribe(t, listen, "a:1"), subscribe(t, listen, "a:2")
			var lines, wantOne, wantTwo strings.Builder
			for n := range 200 {
				fmt.Fprintf(&lines, "a:1 {\"n\":%d}\n", n)
				wantOne.WriteString(frame(fmt.Sprintf(`{"n":%d}`, n)))
				if n%3 == 0 {
					fmt.Fprintf(&lines, "a:2 %d\n", n)
					wantTwo.WriteString(frame(fmt.Sprint(n)))
				}
			}
			if _, err := io.WriteString(dial(t, feed), lines.String()); err != nil {
				t.Fatal(err)
			}
			expect(t, one, wantOne.String())
			expect(t, two, wantTwo.String())
		})
	}
}

// TestSubscribedWithTheAnswer publishes as soon as the last of many clients has its 101.
func TestSubscribedWithTheAnswer(t *testing.T) {
	listen, feed := start(t)
	publisher := dial(t, feed)
	for round := range 200 {
		stream := subscribe(t, listen, "a:1")
		payload := fmt.Sprint("round ", round)
		if _, err := fmt.Fprintf(publisher, "a:1 %s\n", payload); err != nil {
			t.Fatal(err)
		}
		expect(t, stream, frame(payload))
	}
}

func TestRefusals(t *testing.T) {
	listen, _ := start(t)
	for name, path := range map[string]string{"no channel": "/", "channel too long": "/" + strings.Repeat("c", 256)} {
		t.Run(name, func(t *testing.T) {
			if status, _ := handshake(t, listen, path); status != "HTTP/1.1 400 Bad Request" {
				t.Errorf("answered %q, want 400", status)
			}
		})
	}
}

func TestLeave(t *testing.T) {
	subscriptions := newTopics()
	members := make([]*member, 5)
	for i := range members {
		subscriptions.join("a:1", func(m *member) error { members[i] = m; return nil })
	}
	for want, i := range []int{2, 4, 0, 1, 3} {
		subscriptions.leave(members[i])
		subscriptions.leave(members[i])
		if got := subscriptions.size("a:1"); got != len(members)-1-want {
			t.Fatalf("after %d have left there are %d members", want+1, got)
		}
	}
	if len(subscriptions.byName) != 0 {
		t.Error("an empty topic is kept")
	}
}
