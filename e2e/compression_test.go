package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/millrace/millrace/internal/redistest"
)

// zipping is every client that takes its events compressed, with the form in which the gateway counts
// them.
var zipping = []struct {
	kind
	form string
}{
	{curlGzip, "sse_gzip"},
	{nodeZlib, "sse_gzip"},
	{eventSource, "sse_gzip"},
	{npmWS, "text_deflate"},
	{pythonWS, "text_deflate"},
	{browserWS, "text_deflate"},
	{firefoxEventSource, "sse_gzip"},
	{firefoxWS, "text_deflate"},
}

// progress is an event as workers publish them: much like the one before it.
func progress(n int) string {
	return fmt.Sprintf(`{"type":"job_progress","jobId":"job_123","n":%d,"stage":"encode","message":"a frame of the film"}`, n)
}

// TestCompressed: each client that offers it gets its events compressed, understands each one as it
// comes, and what is too large for one piece too.
func TestCompressed(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	g := startGateway(t, "--redis", redis.URL())
	const channel = "job_progress:job_123"
	for _, z := range zipping {
		t.Run(z.name, func(t *testing.T) {
			series := fmt.Sprintf(`millrace_deliveries_total{form=%q}`, z.form)
			before := g.metric(t, series)
			c := open(t, z.kind, "http://"+g.address, "", channel)
			const count = 30
			for n := range count {
				redis.CLI(t, "PUBLISH", channel, progress(n))
				c.event(t, progress(n)) // each before the next is published
			}
			large := fmt.Sprintf(`{"type":"job_progress","frame":%q}`, strings.Repeat("many words of a large event; ", 4000))
			redis.CLI(t, "PUBLISH", channel, large)
			c.event(t, large)
			redis.CLI(t, "PUBLISH", channel, progress(count))
			c.event(t, progress(count))
			if got := g.metric(t, series) - before; got != count+2 {
				t.Errorf("%v events went out as %s, want %d", got, z.form, count+2)
			}
		})
	}
}

// metric reads one series of a gateway's metrics.
func (g *gateway) metric(t *testing.T, series string) (value float64) {
	t.Helper()
	for line := range strings.Lines(g.text(t, "/metrics")) {
		if rest, found := strings.CutPrefix(line, series+" "); found {
			if _, err := fmt.Sscan(rest, &value); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			return value
		}
	}
	t.Fatalf("/metrics has no %s", series)
	return 0
}

// TestCompressedEnd: a drained gateway ends gzip streams in order, with a checksum that is right:
// node's zlib and curl compare it.
func TestCompressedEnd(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	g := startGateway(t, "--redis", redis.URL(), "--drain-timeout", "5s")
	var clients []*client
	for _, k := range []kind{curlGzip, nodeZlib} {
		clients = append(clients, open(t, k, "http://"+g.address, "", "job_progress:job_123", "job_progress:other"))
	}
	for n := range 20 {
		redis.CLI(t, "PUBLISH", []string{"job_progress:job_123", "job_progress:other"}[n/2%2], progress(n))
	}
	for _, c := range clients {
		c.event(t, progress(19))
	}
	g.signal(syscall.SIGTERM)
	for _, c := range clients {
		c.await(t, "retry", func(h heard) bool { return h.Kind == "retry" })
		if code := c.wait(t, patience); code != 0 {
			t.Errorf("%s ended with %d: %s", c.name, code, c.complaints())
		}
	}
}

// gunzipConfig is nginxConfig, but it undoes gzip for clients that do not take it.
var gunzipConfig = strings.Replace(nginxConfig, "proxy_buffering off;", "proxy_buffering off; gunzip on; proxy_set_header Accept-Encoding gzip;", 1)

// TestCompressedThroughProxies: a proxy passes compressed streams on, each event as it comes; one that
// undoes gzip does so event by event.
func TestCompressedThroughProxies(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, program, config string
		kinds                 []kind
	}{
		{"nginx", "nginx", nginxConfig, []kind{curl, curlGzip, nodeZlib, npmWS}},
		{"nginx that undoes gzip", "nginx", gunzipConfig, []kind{curl, curlGzip, nodeZlib}},
		{"haproxy", "haproxy", haproxyConfig, []kind{curl, curlGzip, nodeZlib, npmWS}},
	} {
		t.Run(test.name, func(t *testing.T) {
			redis := redistest.Start(t)
			g := startGateway(t, "--redis", redis.URL(), "--trusted-proxies", "127.0.0.0/8", "--auth-hmac-secret", secret)
			base := "http://" + startProxy(t, test.program, test.config, g, g)
			user := token(t, "--sub", "456")
			for _, k := range test.kinds {
				c := open(t, k, base, user, "job_progress:job_123")
				for n := range 20 {
					redis.CLI(t, "PUBLISH", "job_progress:job_123", progress(n))
					c.event(t, progress(n))
				}
			}
		})
	}
}

// startProxy runs a proxy in front of two gateways and gives its address.
func startProxy(t *testing.T, name, config string, one, two *gateway) (address string) {
	t.Helper()
	address = "127.0.0.1:" + freePort(t)
	folder := t.TempDir()
	file := filepath.Join(folder, "proxy.conf")
	text := strings.TrimPrefix(fmt.Sprintf(config, folder, address, one.address, two.address), "\n")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	arguments := []string{"-c", file}
	if name == "haproxy" {
		arguments = []string{"-db", "-f", file}
	}
	start(t, name, program(t, name), arguments...)
	within(t, patience, name+" listens", func() bool {
		connection, err := net.Dial("tcp", address)
		if err != nil {
			return false
		}
		connection.Close()
		return true
	})
	return address
}
