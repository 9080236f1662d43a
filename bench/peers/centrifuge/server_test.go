package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
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

// serverFile is the server, built once by TestMain: the tests run it as its users do, in a process
// of its own, and with the race detector if they have it themselves.
var serverFile string

func TestMain(m *testing.M) {
	before := openDescriptors()
	folder, err := os.MkdirTemp("", "centrifuge-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	serverFile = filepath.Join(folder, "centrifuge")
	build := []string{"build", "-o", serverFile, "."}
	if raceDetector {
		build = []string{"build", "-race", "-o", serverFile, "."}
	}
	code := 1
	if output, err := exec.Command("go", build...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the server: %v\n%s", err, output)
	} else {
		code = m.Run()
	}
	_ = os.RemoveAll(folder)
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(); err != nil && code == 0 {
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

// startProcess runs command, reads what it prints first with read, and at the end of the test asks
// it to stop: it has to exit with 0.
func startProcess(t *testing.T, command *exec.Cmd, read func(io.Reader) error) {
	t.Helper()
	command.Stderr = os.Stderr
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatalf("starting %s: %v", command.Path, err)
	}
	t.Cleanup(func() {
		kill := time.AfterFunc(patience, func() { _ = command.Process.Kill() })
		defer kill.Stop()
		if err := command.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := command.Wait(); err != nil {
			t.Errorf("after SIGTERM %s ended with: %v", command.Path, err)
		}
	})
	if err := read(output); err != nil {
		t.Fatalf("%s does not say that it is ready: %v", command.Path, err)
	}
}

// startServer gives the addresses for clients and for the feed.
func startServer(t *testing.T, flags ...string) (listen, feed string) {
	t.Helper()
	command := exec.Command(serverFile, append(flags, "--listen", "127.0.0.1:0", "--feed", "127.0.0.1:0")...)
	startProcess(t, command, func(output io.Reader) error {
		_, err := fmt.Fscanf(output, "listen=%s feed=%s\n", &listen, &feed)
		return err
	})
	return listen, feed
}

// startRedis gives the path of its socket.
func startRedis(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	socket := filepath.Join(folder, "redis.sock")
	command := exec.Command("redis-server", "--port", "0", "--unixsocket", socket, "--dir", folder, "--save", "", "--appendonly", "no")
	startProcess(t, command, func(output io.Reader) error {
		for lines := bufio.NewScanner(output); lines.Scan(); {
			if strings.Contains(lines.Text(), "accept connections at") {
				go func() { _, _ = io.Copy(io.Discard, output) }()
				return nil
			}
		}
		return io.ErrUnexpectedEOF
	})
	return socket
}

func dial(t *testing.T, network, address string) net.Conn {
	t.Helper()
	connection, err := net.DialTimeout(network, address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return connection
}

// request sends a GET and gives the status line and what follows the head.
func request(t *testing.T, connection net.Conn, path string, headers ...string) (status string, rest *bufio.Reader) {
	t.Helper()
	head := append([]string{"GET " + path + " HTTP/1.1", "Host: localhost"}, headers...)
	if _, err := io.WriteString(connection, strings.Join(head, "\r\n")+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	rest = bufio.NewReader(connection)
	status, err := rest.ReadString('\n')
	for line := status; err == nil && line != "\r\n"; {
		line, err = rest.ReadString('\n')
	}
	if err != nil {
		t.Fatalf("reading the head of the answer: %v", err)
	}
	return strings.TrimSpace(status), rest
}

// stream is what a subscribed client reads.
type stream struct {
	net.Conn
	*bufio.Reader
}

// wire is one way to subscribe. subscribe returns when the client has been told that it is
// subscribed.
type wire struct {
	subscribe func(t *testing.T, address, channel string) stream
	event     string // what the client receives for the payload %s
}

var wires = map[string]wire{
	"uni_sse": {
		subscribe: func(t *testing.T, address, channel string) stream {
			path := "/connection/uni_sse?cf_connect=" + url.QueryEscape(`{"subs":{"`+channel+`":{}}}`)
			connection := dial(t, "tcp", address)
			status, rest := request(t, connection, path)
			if status != "HTTP/1.1 200 OK" {
				t.Fatalf("answered %q", status)
			}
			await(t, rest, `"subs":{"`+channel+`":{}}`)
			return stream{connection, rest}
		},
		event: "data: {\"channel\":\"a:1\",\"pub\":{\"data\":%s}}\n\n",
	},
	"uni_websocket, asked in the query": {
		subscribe: func(t *testing.T, address, channel string) stream {
			path := "/connection/uni_websocket?cf_connect=" + url.QueryEscape(`{"subs":{"`+channel+`":{}}}`)
			client := upgrade(t, address, path, "")
			await(t, client.Reader, `"subs":{"`+channel+`":{}}`)
			return client
		},
		event: `{"channel":"a:1","pub":{"data":%s}}`,
	},
	"uni_websocket": {
		subscribe: func(t *testing.T, address, channel string) stream {
			client := upgrade(t, address, "/connection/uni_websocket", `{"subs":{"`+channel+`":{}}}`)
			await(t, client.Reader, `"subs":{"`+channel+`":{}}`)
			return client
		},
		event: `{"channel":"a:1","pub":{"data":%s}}`,
	},
	"websocket": {
		subscribe: func(t *testing.T, address, channel string) stream {
			client := upgrade(t, address, "/connection/websocket",
				`{"id":1,"connect":{}}`+"\n"+`{"id":2,"subscribe":{"channel":"`+channel+`"}}`)
			await(t, client.Reader, `{"id":2,"subscribe":{`)
			return client
		},
		event: `{"push":{"channel":"a:1","pub":{"data":%s}}}`,
	},
	"websocket, subscribed by the server": {
		subscribe: func(t *testing.T, address, channel string) stream {
			client := upgrade(t, address, "/connection/websocket", `{"id":1,"connect":{"subs":{"`+channel+`":{}}}}`)
			await(t, client.Reader, `"subs":{"`+channel+`":{}}`)
			return client
		},
		event: `{"push":{"channel":"a:1","pub":{"data":%s}}}`,
	},
}

// upgrade asks for a WebSocket, and sends first as a message if there is anything in it.
func upgrade(t *testing.T, address, path, first string) stream {
	t.Helper()
	connection := dial(t, "tcp", address)
	status, rest := request(t, connection, path, "Connection: Upgrade", "Upgrade: websocket",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
	if status != "HTTP/1.1 101 Switching Protocols" {
		t.Fatalf("answered %q", status)
	}
	if first == "" {
		return stream{connection, rest}
	}
	// A text frame under a mask of zeros, which changes nothing.
	frame := append([]byte{0x81, 0x80 | byte(len(first)), 0, 0, 0, 0}, first...)
	if _, err := connection.Write(frame); err != nil {
		t.Fatal(err)
	}
	return stream{connection, rest}
}

// settle publishes on channel until client hears it: the library says that a client is subscribed
// a moment before it is.
func settle(t *testing.T, listen, channel string, client stream) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		publishHTTP(t, listen, channel, []string{`"anybody there?"`})
		if err := client.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Peek(1); err == nil {
			await(t, client.Reader, `"anybody there?"`)
			if err := client.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("nothing published reaches the client")
}

// await reads until want has gone by.
func await(t *testing.T, stream *bufio.Reader, want string) {
	t.Helper()
	var read strings.Builder
	for !strings.HasSuffix(read.String(), want) {
		one, err := stream.ReadByte()
		if err != nil {
			last := read.String()
			t.Fatalf("waiting for %q: %v; the last that came: %q", want, err, last[max(0, len(last)-300):])
		}
		read.WriteByte(one)
	}
}

func publishFeed(t *testing.T, feed, channel string, payloads []string) {
	t.Helper()
	var lines strings.Builder
	for _, payload := range payloads {
		fmt.Fprintf(&lines, "%s %s\n", channel, payload)
	}
	if _, err := io.WriteString(dial(t, "tcp", feed), lines.String()); err != nil {
		t.Fatal(err)
	}
}

func publishHTTP(t *testing.T, listen, channel string, payloads []string) {
	t.Helper()
	for _, payload := range payloads {
		response, err := http.Post("http://"+listen+"/publish?channel="+url.QueryEscape(channel), "application/json", strings.NewReader(payload))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			t.Error(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusNoContent {
			t.Fatalf("publishing was answered %s", response.Status)
		}
	}
}

// publishRedis does what a worker does that has no library: README.md gives the bytes.
func publishRedis(t *testing.T, socket, channel string, payloads []string) {
	t.Helper()
	connection := dial(t, "unix", socket)
	answers := bufio.NewReader(connection)
	for _, payload := range payloads {
		topic := "centrifuge.client." + channel
		message := string(binary.AppendUvarint([]byte{0x22}, uint64(len(payload)))) + payload
		_, err := fmt.Fprintf(connection, "*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(topic), topic, len(message), message)
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := answers.ReadString('\n'); err != nil || answer != ":1\r\n" {
			t.Fatalf("PUBLISH was answered %q (error %v), want one subscriber", answer, err)
		}
	}
}

func TestOneEvent(t *testing.T) {
	socket := startRedis(t)
	for engine, flags := range map[string][]string{
		"memory":         {"--engine", "memory"},
		"redis":          {"--redis", "unix://" + socket},
		"redis, delayed": {"--redis", "unix://" + socket, "--write-delay", "1ms", "--frame-messages", "16"},
	} {
		t.Run(engine, func(t *testing.T) {
			listen, feed := startServer(t, flags...)
			for name, wire := range wires {
				t.Run(name, func(t *testing.T) {
					client := wire.subscribe(t, listen, "a:1")
					settle(t, listen, "a:1", client)
					publishFeed(t, feed, "a:1", []string{`{"way":"feed"}`})
					await(t, client.Reader, fmt.Sprintf(wire.event, `{"way":"feed"}`))
					publishHTTP(t, listen, "a:1", []string{`{"way":"http"}`})
					await(t, client.Reader, fmt.Sprintf(wire.event, `{"way":"http"}`))
					if engine != "memory" {
						publishRedis(t, socket, "a:1", []string{`{"way":"redis"}`})
						await(t, client.Reader, fmt.Sprintf(wire.event, `{"way":"redis"}`))
					}
				})
			}
		})
	}
}

// TestBurst checks that everything arrives, whole and in order, however it was put together on the
// way.
func TestBurst(t *testing.T) {
	socket := startRedis(t)
	payloads := make([]string, 200)
	for i := range payloads {
		payloads[i] = fmt.Sprintf(`{"n":%d,"filler":%q}`, i, strings.Repeat("x", i))
	}
	for name, wire := range wires {
		t.Run(name, func(t *testing.T) {
			listen, _ := startServer(t, "--redis", "unix://"+socket)
			client, other := wire.subscribe(t, listen, "a:1"), wire.subscribe(t, listen, "a:2")
			settle(t, listen, "a:1", client)
			settle(t, listen, "a:2", other)
			publishRedis(t, socket, "a:1", payloads)
			for _, payload := range payloads {
				await(t, client.Reader, fmt.Sprintf(wire.event, payload))
			}
			publishRedis(t, socket, "a:2", []string{`"for the other"`})
			await(t, other.Reader, `"data":"for the other"`)
		})
	}
}

func TestRefusals(t *testing.T) {
	listen, _ := startServer(t, "--engine", "memory")
	for name, path := range map[string]string{
		"no connect request":       "/connection/uni_sse",
		"a request of no channel":  "/connection/uni_sse?cf_connect={}",
		"a request that is broken": "/connection/uni_sse?cf_connect={",
	} {
		t.Run(name, func(t *testing.T) {
			if status, _ := request(t, dial(t, "tcp", listen), path); status != "HTTP/1.1 400 Bad Request" {
				t.Errorf("answered %q, want 400", status)
			}
		})
	}
	t.Run("a WebSocket of no channel", func(t *testing.T) {
		await(t, upgrade(t, listen, "/connection/uni_websocket", "{}").Reader, "bad request")
	})
}

func TestBadFlags(t *testing.T) {
	for name, flags := range map[string][]string{
		"engine":   {"--engine", "carrier-pigeon"},
		"no redis": {"--redis", "unix://" + filepath.Join(t.TempDir(), "none.sock")},
		"no port":  {"--engine", "memory", "--listen", "127.0.0.1:99999"},
	} {
		t.Run(name, func(t *testing.T) {
			output, err := exec.Command(serverFile, flags...).CombinedOutput()
			if err == nil || len(output) == 0 {
				t.Errorf("ended with %v and said %q, want a failure and a reason", err, output)
			}
		})
	}
}
