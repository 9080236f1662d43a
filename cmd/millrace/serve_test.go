package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/internal/settings"
)

var servedAddress = regexp.MustCompile(`"msg":"serving (http://[0-9.:]+)"`)

// startGateway starts `millrace serve` on a free port and gives its address.
func startGateway(t *testing.T, run invocation) (*running, string) {
	t.Helper()
	run.arguments = append([]string{"serve", "--listen", "127.0.0.1:0"}, run.arguments...)
	started := run.start(t)
	started.waitFor(`"serving http://`)
	_, stderr := started.said()
	return started, servedAddress.FindStringSubmatch(stderr)[1]
}

func TestServeDrainsOnSignals(t *testing.T) {
	for _, number := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(number.String(), func(t *testing.T) {
			started, address := startGateway(t, invocation{})
			connection, err := net.Dial("tcp", strings.TrimPrefix(address, "http://"))
			if err != nil {
				t.Fatalf("it says that it serves, but: %v", err)
			}
			connection.Close()
			started.signal(syscall.SIGHUP)
			started.waitFor("the upgrade failed; this process serves on")
			started.signal(number)
			ended := started.wait()
			if ended.code != 0 || !strings.Contains(ended.stderr, "a second signal ends at once") || !strings.Contains(ended.stderr, "drained") {
				t.Errorf("exit code %d:\n%s", ended.code, ended.stderr)
			}
		})
	}
}

// The watch itself, since a gateway without streams drains faster than a second signal comes.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	exits := make(chan int, 4)
	ctx, cancel := context.WithCancel(t.Context())
	upgrades := make(chan struct{}, 4)
	defer onSignals(ctx, catchSignals(), slog.New(slog.DiscardHandler), signalActions{
		drain: cancel, exit: func(code int) { exits <- code }, upgrade: func() { upgrades <- struct{}{} },
	})()
	raise := func(number syscall.Signal) {
		if err := syscall.Kill(syscall.Getpid(), number); err != nil {
			t.Fatal(err)
		}
	}
	raise(syscall.SIGHUP)
	select {
	case <-upgrades:
	case <-time.After(patience):
		t.Fatal("SIGHUP did not upgrade")
	}
	raise(syscall.SIGTERM)
	select {
	case <-ctx.Done():
	case <-time.After(patience):
		t.Fatal("the first signal did not drain")
	}
	if len(exits) > 0 {
		t.Error("the first signal ends at once")
	}
	raise(syscall.SIGINT)
	select {
	case code := <-exits:
		if code != exitFailure {
			t.Errorf("exit code %d", code)
		}
	case <-time.After(patience):
		t.Fatal("the second signal did not end it")
	}
}

// notifySocket is the socket on which systemd hears of its services.
type notifySocket struct {
	*net.UnixConn
	path string
}

func newNotifySocket(t *testing.T) *notifySocket {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	return &notifySocket{socket, path}
}

// next is the next message of a service.
func (s *notifySocket) next(t *testing.T) string {
	t.Helper()
	if err := s.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 256)
	count, err := s.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	return string(buffer[:count])
}

func TestServeTellsSystemd(t *testing.T) {
	socket := newNotifySocket(t)
	started, _ := startGateway(t, invocation{environment: []string{"NOTIFY_SOCKET=" + socket.path}})
	if said := socket.next(t); said != "READY=1" {
		t.Errorf("it said %q first", said)
	}
	started.signal(syscall.SIGTERM)
	if said := socket.next(t); said != "STOPPING=1" {
		t.Errorf("it said %q when it was told to end", said)
	}
	if ended := started.wait(); ended.code != 0 {
		t.Errorf("exit code %d:\n%s", ended.code, ended.stderr)
	}
}

// TestServeFeedsTheWatchdog: what stops the feeding is a test of the gateway, WatchLoops.
func TestServeFeedsTheWatchdog(t *testing.T) {
	socket := newNotifySocket(t)
	started, _ := startGateway(t, invocation{environment: []string{"NOTIFY_SOCKET=" + socket.path, "WATCHDOG_USEC=60000"}})
	if said := socket.next(t); said != "READY=1" {
		t.Errorf("it said %q first", said)
	}
	for range 3 {
		if said := socket.next(t); said != "WATCHDOG=1" {
			t.Errorf("it said %q", said)
		}
	}
	started.signal(syscall.SIGTERM)
	for said := ""; said != "STOPPING=1"; {
		if said = socket.next(t); said != "STOPPING=1" && said != "WATCHDOG=1" {
			t.Fatalf("it said %q", said)
		}
	}
	if ended := started.wait(); ended.code != 0 {
		t.Errorf("exit code %d:\n%s", ended.code, ended.stderr)
	}
}

// TestAbort is what systemd does to a gateway whose loops are stuck. As the units start it, it says
// where each goroutine stands and dies of the signal: it would not be started again after an exit
// code of 2, which is Go's own choice.
func TestAbort(t *testing.T) {
	started, _ := startGateway(t, invocation{
		environment: []string{"GOTRACEBACK=crash"},
		wrapper:     []string{"/bin/sh", "-c", `ulimit -c 0; exec "$0" "$@"`},
	})
	started.signal(syscall.SIGABRT)
	ended := started.wait()
	status := started.command.ProcessState.Sys().(syscall.WaitStatus)
	if !status.Signaled() || status.Signal() != syscall.SIGABRT || !strings.Contains(ended.stderr, "netio.(*Loop).Run") {
		t.Errorf("it ended by %v (exit code %d), and said %.2000s", status.Signal(), ended.code, ended.stderr)
	}
}

func TestServeWithAWrongWatchdog(t *testing.T) {
	started, _ := startGateway(t, invocation{environment: []string{"WATCHDOG_USEC=soon"}})
	started.waitFor("watchdog of systemd is not fed")
}

func TestServeSaysWhatToDoAboutThePort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	ran := (&invocation{arguments: []string{"serve", "--listen", address}}).run(t)
	for _, want := range []string{address, "ss -ltnp 'sport = :" + port + "'", "--listen", "--reuse-port"} {
		if ran.code != 1 || !strings.Contains(ran.stderr, want) {
			t.Errorf("exit code %d, %q is missing in %s", ran.code, want, ran.stderr)
		}
	}
}

func TestExplainListen(t *testing.T) {
	configured := settings.Default()
	for _, test := range []struct {
		err  error
		want string
	}{
		{syscall.EADDRINUSE, "sport = :8080"},
		{syscall.EACCES, "CAP_NET_BIND_SERVICE"},
		{syscall.EADDRNOTAVAIL, "ip address"},
		{errors.New("other"), "serve: other"},
	} {
		if got := explainListen(test.err, &configured).Error(); !strings.Contains(got, test.want) {
			t.Errorf("%v: got %q, want %q in it", test.err, got, test.want)
		}
	}
}

func TestServeLogs(t *testing.T) {
	for _, test := range []struct{ name, format, want string }{
		{"json where nobody looks", "auto", `"msg":"serving http://127.0.0.1:`},
		{"json", "json", `"msg":"serving http://127.0.0.1:`},
		{"text", "text", ` INF serving http://127.0.0.1:`},
	} {
		t.Run(test.name, func(t *testing.T) {
			run := invocation{arguments: []string{"serve", "--listen", "127.0.0.1:0", "--log-format", test.format}}
			started := run.start(t)
			started.waitFor(test.want)
			started.signal(syscall.SIGTERM)
			if ended := started.wait(); strings.ContainsRune(ended.stderr, 0x1b) {
				t.Errorf("there are colours, though this is no terminal: %q", ended.stderr)
			}
		})
	}
}

func TestServeWarnsOfNoAuthentication(t *testing.T) {
	run := invocation{arguments: []string{"serve", "--listen", "0.0.0.0:0", "--insecure-no-auth"}}
	started := run.start(t)
	started.waitFor("there is no authentication")
	started.waitFor(`"serving http://`)
	started.signal(syscall.SIGTERM)
	started.wait()
}

// In settings 0 is no limit; in options it is the default.
func TestGatewayOptions(t *testing.T) {
	configured := settings.Default()
	options := gatewayOptions(&configured, settings.Keys{}, nil)
	want := gateway.Limits{
		MaxConnectionsPerUser: 100, MaxConnectionsPerAddress: 1000, MaxSubscriptions: 100, MaxHeaderBytes: 16 << 10,
		MaxMessageBytes: 64 << 10, MaxEventBytes: 1 << 20, MaxQueueBytes: 1 << 20, MaxStreamAge: gateway.NoLimit,
		MaxQueueAge: 30 * time.Second, ProgressTimeout: time.Minute, MaxReplayBytes: 64 << 20, CommandsPerSecond: 50,
		AcceptRate: gateway.NoLimit, HandshakeTimeout: 10 * time.Second, DrainTimeout: 20 * time.Second,
	}
	if options.Limits != want {
		t.Errorf("got %+v\nwant %+v", options.Limits, want)
	}
	if options.Loops != 0 || options.Listen != "127.0.0.1:8080" || options.Auth.UserClaim != "sub" || options.Personal != nil {
		t.Errorf("got %+v", options)
	}
	if err := options.Check(); err != nil {
		t.Error(err)
	}
	configured.LimitSettings = settings.LimitSettings{}
	unlimited := gateway.Limits{
		MaxConnections: -1, MaxConnectionsPerUser: -1, MaxConnectionsPerAddress: -1, MaxSubscriptions: -1, MaxHeaderBytes: -1, MaxMessageBytes: -1,
		MaxEventBytes: -1, MaxQueueBytes: -1, MaxQueueAge: -1, ProgressTimeout: -1, MaxReplayBytes: -1, MaxStreamAge: -1,
		CommandsPerSecond: -1, AcceptRate: -1, HandshakeTimeout: -1, DrainTimeout: -1,
	}
	if got := gatewayOptions(&configured, settings.Keys{}, nil).Limits; got != unlimited {
		t.Errorf("got %+v", got)
	}
}

func TestAddressOf(t *testing.T) {
	for listen, want := range map[settings.Address]string{
		"127.0.0.1:80": "http://127.0.0.1:80", ":80": "http://127.0.0.1:80", "0.0.0.0:80": "http://127.0.0.1:80",
		"[::]:80": "http://127.0.0.1:80", "[::1]:80": "http://[::1]:80", "host:80": "http://host:80",
	} {
		if got := addressOf(listen); got != want {
			t.Errorf("%s: got %s, want %s", listen, got, want)
		}
	}
}

// The gateway that serve starts answers for itself.
func TestServeAnswers(t *testing.T) {
	_, address := startGateway(t, invocation{})
	client := &http.Client{Timeout: patience}
	defer client.CloseIdleConnections()
	response, err := client.Get(address + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("status %d", response.StatusCode)
	}
}
