package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/redistest"
)

// tcpProxyConfig is a HAProxy that passes bytes on and says whose they are by the PROXY protocol: by
// version 2 and version 1, of an IPv4 and an IPv6 address. It asks whether the gateway is ready, on
// connections of its own.
const tcpProxyConfig = `
global
  maxconn 256
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  option httpchk GET /readyz
  http-check expect status 200
  default-server check inter 200ms
frontend second
  bind 127.0.0.1:%[1]s
  tcp-request connection set-src ipv4(198.51.100.7)
  default_backend second
backend second
  server one %[3]s send-proxy-v2 proxy-v2-options crc32c
frontend first
  bind 127.0.0.1:%[2]s
  tcp-request connection set-src ipv6(2001:db8::7)
  tcp-request connection set-dst ipv6(2001:db8::1)
  default_backend first
backend first
  server one %[3]s send-proxy
`

// TestProxyProtocol: behind a proxy that knows no HTTP the gateway serves both wires, and counts
// streams by the address that the proxy tells.
func TestProxyProtocol(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	admin := "127.0.0.1:" + freePort(t)
	path, err := racy()
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{address: "127.0.0.1:" + freePort(t)}
	g.process = start(t, "millrace serve", path, "serve", "--listen", g.address, "--admin-listen", admin, "--redis", redis.URL(),
		"--auth-hmac-secret", secret, "--trusted-proxies", "127.0.0.1", "--proxy-protocol", "--max-connections-per-address", "2")
	operator := &gateway{process: g.process, address: admin}
	within(t, patience, "the gateway is ready", func() bool { return operator.status("/readyz") == http.StatusOK })

	folder, second, first := t.TempDir(), freePort(t), freePort(t)
	file := filepath.Join(folder, "haproxy.cfg")
	config := strings.TrimPrefix(fmt.Sprintf(tcpProxyConfig, second, first, g.address), "\n")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, "haproxy", program(t, "haproxy"), "-db", "-f", file)
	user := token(t, "--sub", "456")
	for port, address := range map[string]string{second: "198.51.100.7", first: "2001:db8::/64"} {
		within(t, patience, "haproxy listens", func() bool {
			connection, err := net.Dial("tcp", "127.0.0.1:"+port)
			if err != nil {
				return false
			}
			connection.Close()
			return true
		})
		base := "http://127.0.0.1:" + port
		var clients []*client
		for _, k := range light {
			clients = append(clients, open(t, k, base, user, "job_progress:1"))
		}
		payload := fmt.Sprintf(`{"type":"job_progress","by":%q}`, address)
		redis.CLI(t, "PUBLISH", "job_progress:1", payload)
		for _, c := range clients {
			c.event(t, payload)
		}
		if status := getStatus(t, base+"/api/stream?channel=job_progress:1", user); status != http.StatusTooManyRequests {
			t.Errorf("a third stream of %s answered %d, want 429", address, status)
		}
		if found := operator.addresses(t); found[address] != 2 {
			t.Errorf("the gateway has streams of %v, want two of %s", found, address)
		}
		if status := getStatus(t, base+"/metrics", ""); status != http.StatusNotFound {
			t.Errorf("/metrics answers %d through the proxy", status)
		}
	}
	// The proxy's own questions are answered, and nothing was refused so far.
	asked := metric(operator.text(t, "/metrics"), "millrace_desk_requests_total")
	within(t, patience, "the proxy asks whether the gateway is ready", func() bool {
		return metric(operator.text(t, "/metrics"), "millrace_desk_requests_total") > asked+2
	})
	const refused = `millrace_desk_refused_total{reason="proxy_header"}`
	if count := metric(operator.text(t, "/metrics"), refused); count != 0 {
		t.Errorf("%v connections were refused for their PROXY header", count)
	}
	if status := g.status("/healthz"); status != http.StatusBadRequest {
		t.Errorf("without a header a connection of the proxy's address is answered %d", status)
	}
	if count := metric(operator.text(t, "/metrics"), refused); count != 1 {
		t.Errorf("%v connections were refused for their PROXY header, want 1", count)
	}
	within(t, patience, "the log says so", func() bool { return strings.Contains(g.complaints(), "PROXY protocol") })
}

// TestProxyProtocolIsNotForAll: where nobody speaks it, a header is refused, and nobody is taken for
// whom it names.
func TestProxyProtocolIsNotForAll(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	for _, header := range []string{
		"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01\x00\x01\x00\x02",
	} {
		connection, err := net.Dial("tcp", g.address)
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		_ = connection.SetDeadline(time.Now().Add(patience))
		fmt.Fprintf(connection, "%sGET /metrics HTTP/1.1\r\nHost: %s\r\n\r\n", header, g.address)
		answer, err := io.ReadAll(connection)
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") || !strings.Contains(string(answer), "PROXY") {
			t.Errorf("%q was answered with %.200q, error %v", header, answer, err)
		}
	}
	within(t, patience, "the log says so", func() bool { return strings.Contains(g.complaints(), "not trusted") })
}

// getStatus asks and gives the answer's status; it does not wait for the body.
func getStatus(t *testing.T, url, user string) int {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		request.Header.Set("Authorization", "Bearer "+user)
	}
	response, err := httpClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode
}

// addresses counts the user's streams by address.
func (g *gateway) addresses(t *testing.T) map[string]int {
	t.Helper()
	var list struct {
		Streams []struct{ Address string }
	}
	g.getJSON(t, "/api/admin/streams?user=456", &list)
	found := make(map[string]int)
	for _, one := range list.Streams {
		found[one.Address]++
	}
	return found
}

// metric is one sample of /metrics, 0 where it is not there.
func metric(text, name string) float64 {
	for line := range strings.Lines(text) {
		if rest, found := strings.CutPrefix(line, name+" "); found {
			var value float64
			_ = json.Unmarshal([]byte(rest), &value)
			return value
		}
	}
	return 0
}
