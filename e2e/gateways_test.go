package e2e

import (
	"fmt"
	"os/exec"
	"testing"

	"github.com/millrace/millrace/internal/redistest"
)

// TestTwoGateways: one PUBLISH reaches the clients of both.
func TestTwoGateways(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	var clients []*client
	for range 2 {
		g := startGateway(t, "--redis", redis.URL())
		for _, k := range light {
			clients = append(clients, open(t, k, "http://"+g.address, "", "job_progress:job_123"))
		}
	}
	for n := range 20 {
		payload := fmt.Sprintf(`{"type":"job_progress","n":%d}`, n)
		redis.CLI(t, "PUBLISH", "job_progress:job_123", payload)
		for _, c := range clients {
			c.event(t, payload)
		}
	}
}

// nginxConfig is a proxy as an operator would write it: no buffering for streams, the upgrade
// passed on, the client's address told, each request to the next gateway.
const nginxConfig = `
daemon off;
master_process off;
pid %[1]s/nginx.pid;
error_log stderr warn;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
  upstream gateways { server %[3]s; server %[4]s; }
  server {
    listen %[2]s;
    location / {
      proxy_pass http://gateways;
      proxy_http_version 1.1;
      proxy_buffering off;
      proxy_read_timeout 1h;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }
  }
}
`

const haproxyConfig = `
global
  maxconn 256
defaults
  mode http
  option forwardfor
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
frontend streams
  bind %[2]s
  default_backend gateways
backend gateways
  balance roundrobin
  server one %[3]s
  server two %[4]s
`

// proxies are the two in front of which most gateways stand.
var proxies = []struct{ name, config string }{{"nginx", nginxConfig}, {"haproxy", haproxyConfig}}

// program finds a server program, which Debian keeps where a user's PATH may not look.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path = "/usr/sbin/" + name
	}
	return path
}

// TestProxies: two gateways behind a proxy that knows nothing of stickiness. What is published at
// either reaches the streams of both, on both wires.
func TestProxies(t *testing.T) {
	t.Parallel()
	for _, proxy := range proxies {
		t.Run(proxy.name, func(t *testing.T) {
			redis := redistest.Start(t)
			options := []string{"--redis", redis.URL(), "--auth-hmac-secret", secret, "--trusted-proxies", "127.0.0.0/8"}
			one, two := startGateway(t, options...), startGateway(t, options...)
			address := startProxy(t, proxy.name, proxy.config, one, two)
			crossProxy(t, "http://"+address, one, two)
		})
	}
}

// crossProxy opens streams of each wire until both gateways have some of each, and publishes at
// each gateway in turn.
func crossProxy(t *testing.T, base string, one, two *gateway) {
	t.Helper()
	user := token(t, "--sub", "456", "--publish", "job_progress:*")
	var clients []*client
	for range 2 {
		for _, k := range light {
			clients = append(clients, open(t, k, base, user, "job_progress:job_123"))
		}
	}
	for len(clients) < 16 && !(both(t, one) && both(t, two)) {
		k := light[len(clients)/2%2]
		clients = append(clients, open(t, k, base, user, "job_progress:job_123"))
	}
	if !both(t, one) || !both(t, two) {
		t.Fatalf("%d streams through the proxy, and the gateways have %+v and %+v: some wire reached one only",
			len(clients), one.stats(t), two.stats(t))
	}
	for n, g := range []*gateway{one, two, one, two} {
		payload := fmt.Sprintf(`{"type":"job_progress","n":%d}`, n)
		answer := g.publish(t, user, "job_progress:job_123", payload)
		if answer.status != 200 || answer.Published != 1 || !answer.Distributed {
			t.Fatalf("publish answered %+v, want 1 published and distributed", answer)
		}
		for _, c := range clients {
			c.event(t, payload)
		}
	}
}

// both says whether a gateway has streams of both wires.
func both(t *testing.T, g *gateway) bool {
	t.Helper()
	s := g.stats(t)
	return s.SSE.Connections > 0 && s.WebSocket.Connections > 0
}
