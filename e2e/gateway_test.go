package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/processtest"
)

// secret signs the tokens of the tests that use authentication.
const secret = "an e2e secret of at least thirty-two bytes"

// gateway is one running `millrace serve`.
type gateway struct {
	*process
	address string // HOST:PORT
}

// freePort gives a port that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// startGateway runs the binary built with the race detector and waits until it is ready.
func startGateway(t *testing.T, arguments ...string) *gateway {
	t.Helper()
	path, err := racy()
	if err != nil {
		t.Fatal(err)
	}
	return startBinary(t, path, arguments...)
}

func startBinary(t *testing.T, path string, arguments ...string) *gateway {
	t.Helper()
	return startAt(t, path, "127.0.0.1:"+freePort(t), arguments...)
}

// startAt runs the binary on an address, HOST:PORT, that is free.
func startAt(t *testing.T, path, address string, arguments ...string) *gateway {
	t.Helper()
	g := &gateway{address: address}
	g.process = start(t, "millrace serve", path, append([]string{"serve", "--listen", g.address}, arguments...)...)
	// A gateway has nothing to say on standard output: its log goes to standard error.
	t.Cleanup(func() {
		if strings.Contains(g.complaints(), "DATA RACE") {
			t.Errorf("the race detector spoke:\n%s", g.complaints())
		}
	})
	ready := processtest.Poll(patience, func() bool {
		select {
		case <-g.exited:
			t.Fatalf("millrace serve %s ended at once (%v):\n%s", strings.Join(arguments, " "), g.err, g.complaints())
		default:
		}
		return g.status("/readyz") == http.StatusOK
	})
	if !ready {
		t.Fatalf("/readyz did not say 200 within %v", patience)
	}
	if !processtest.Poll(patience, func() bool { return logs.Lines() > 0 }) {
		t.Error("the watch over all logs saw no line, and a gateway says where it serves")
	}
	return g
}

// kill ends the gateway without a word to its clients.
func (g *gateway) kill() {
	g.signal(syscall.SIGKILL)
	<-g.exited
}

// restart kills the gateway, and starts another one on the same address.
func (g *gateway) restart(t *testing.T, arguments ...string) *gateway {
	t.Helper()
	g.kill()
	path, err := racy()
	if err != nil {
		t.Fatal(err)
	}
	return startAt(t, path, g.address, arguments...)
}

// httpClient opens a connection for each request, so that a test counts what it means to count.
var httpClient = &http.Client{
	Transport: &http.Transport{DisableKeepAlives: true},
	Timeout:   patience,
}

// status asks for a path and gives the answer's status, 0 where there was none.
func (g *gateway) status(path string) int {
	response, err := httpClient.Get("http://" + g.address + path)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

// text gives what the gateway answers to a path.
func (g *gateway) text(t *testing.T, path string) string {
	t.Helper()
	response, err := httpClient.Get("http://" + g.address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d, %v", path, response.StatusCode, err)
	}
	return string(text)
}

// stats is what the tests read of /api/realtime/stats.
type stats struct {
	Status string `json:"status"`
	SSE    struct {
		Connections int `json:"totalConnections"`
		Events      int `json:"totalEvents"`
	} `json:"sse"`
	WebSocket struct {
		Connections int `json:"totalConnections"`
		Events      int `json:"totalEvents"`
	} `json:"websocket"`
	Channels struct {
		Connected     bool `json:"isConnected"`
		Active        int  `json:"activeChannels"`
		Subscriptions int  `json:"totalSubscriptions"`
	} `json:"channels"`
}

func (g *gateway) stats(t *testing.T) stats {
	t.Helper()
	response, err := httpClient.Get("http://" + g.address + "/api/realtime/stats")
	if err != nil {
		t.Fatalf("stats: %v", err)
	}
	defer response.Body.Close()
	var s stats
	if err := json.NewDecoder(response.Body).Decode(&s); err != nil {
		t.Fatalf("stats are not JSON: %v", err)
	}
	return s
}

// publish sends one event through the gateway's API.
func (g *gateway) publish(t *testing.T, token, channel, event string) publishAnswer {
	t.Helper()
	body := fmt.Sprintf(`{"channel":%q,"event":%s}`, channel, event)
	request, err := http.NewRequest(http.MethodPost, "http://"+g.address+"/api/publish", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := httpClient.Do(request)
	if err != nil {
		t.Fatalf("publish: %v", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	answer := publishAnswer{status: response.StatusCode}
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatalf("publish answered %d with %q, which is not JSON", response.StatusCode, text)
	}
	return answer
}

// publishMany sends count events in one request.
func (g *gateway) publishMany(t *testing.T, channel string, count int, event func(n int) string) {
	t.Helper()
	items := make([]string, count)
	for n := range items {
		items[n] = fmt.Sprintf(`{"channel":%q,"event":%s}`, channel, event(n))
	}
	response, err := httpClient.Post("http://"+g.address+"/api/publish", "application/json", strings.NewReader("["+strings.Join(items, ",")+"]"))
	if err != nil {
		t.Fatalf("publish: %v", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("publish answered %d", response.StatusCode)
	}
}

type publishAnswer struct {
	status      int
	Published   int      `json:"published"`
	IDs         []string `json:"ids"`
	Distributed bool     `json:"distributed"`
	Error       struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// token mints one with the binary's own command, as a developer would.
func token(t *testing.T, arguments ...string) string {
	t.Helper()
	path, err := racy()
	if err != nil {
		t.Fatal(err)
	}
	output, err := exec.Command(path, append([]string{"token", "--auth-hmac-secret", secret}, arguments...)...).Output()
	if err != nil {
		t.Fatalf("millrace token %s: %v", strings.Join(arguments, " "), err)
	}
	return strings.TrimSpace(string(output))
}

// within fails the test unless what is awaited comes true in time.
func within(t *testing.T, limit time.Duration, what string, done func() bool) {
	t.Helper()
	if !processtest.Poll(limit, done) {
		t.Fatalf("%s: not within %v", what, limit)
	}
}
