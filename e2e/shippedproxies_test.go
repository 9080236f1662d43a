package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/redistest"
)

// shippedProxy is one of deploy/proxies, and what a test must change in it to run it here: pairs
// of a text that stands there and what stands in its place.
type shippedProxy struct {
	name, file string
	// local makes it run in a folder, on a port of the loopback.
	local func(folder, port string) []string
	// wrapped gives the whole configuration where the file is a part of one.
	wrapped func(folder, part string) string
	// sticky makes a user's streams share a gateway, balanced trusts a balancer on the loopback: the
	// lines that the file has in comments.
	sticky, balanced []string
	command          func(folder, file string) []string
}

var shippedProxies = []shippedProxy{
	{
		name: "nginx", file: "nginx.conf",
		local: func(folder, port string) []string {
			return []string{"listen 443 ssl", "listen 127.0.0.1:" + port + " ssl", "/var/log/nginx", folder}
		},
		wrapped: func(folder, part string) string {
			temporary := ""
			for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
				temporary += fmt.Sprintf("%s_temp_path %s/%[1]s;\n", name, folder)
			}
			return fmt.Sprintf("daemon off; master_process off; pid %s/pid; error_log stderr warn;\nevents {}\nhttp {\n%s%s}\n", folder, temporary, part)
		},
		sticky: []string{"  least_conn;\n", "", "# hash ", "hash "},
		balanced: []string{
			"# set_real_ip_from 192.0.2.0/24", "set_real_ip_from 127.0.0.0/8",
			"# real_ip_header", "real_ip_header", "# real_ip_recursive", "real_ip_recursive",
		},
		command: func(folder, file string) []string { return []string{"nginx", "-e", "stderr", "-p", folder, "-c", file} },
	},
	{
		name: "haproxy", file: "haproxy.cfg",
		local: func(_, port string) []string {
			return []string{"bind :443", "bind 127.0.0.1:" + port, "maxconn 200000", "maxconn 256"}
		},
		sticky: []string{"  balance leastconn\n", "", "# balance url_param", "balance url_param", "# hash-type", "hash-type"},
		balanced: []string{
			"  http-request del-header X-Forwarded-For\n", "",
			"# http-request del-header X-Forwarded-For unless { src 192.0.2.0/24 }", "http-request del-header X-Forwarded-For unless { src 127.0.0.0/8 }",
		},
		command: func(_, file string) []string { return []string{"haproxy", "-db", "-f", file} },
	},
	{
		name: "caddy", file: "Caddyfile",
		local: func(_, port string) []string {
			return []string{
				// A site's address is what requests ask for; where it listens is another matter.
				"stream.example.com:443 {", "https://127.0.0.1:" + port + " {\n\tbind 127.0.0.1",
				"\tservers {", "\tadmin off\n\tauto_https disable_redirects\n\tservers {",
			}
		},
		sticky:   []string{"\t\tlb_policy least_conn\n", "", "# lb_policy cookie", "lb_policy cookie"},
		balanced: []string{"# trusted_proxies 192.0.2.0/24", "trusted_proxies 127.0.0.0/8"},
		command: func(folder, file string) []string {
			return []string{"caddy", "run", "--adapter", "caddyfile", "--config", file}
		},
	},
}

// TestShippedProxies runs the configurations of deploy/proxies as they are, but for addresses and
// paths, in front of two gateways.
func TestShippedProxies(t *testing.T) {
	t.Parallel()
	for _, proxy := range shippedProxies {
		t.Run(proxy.name, func(t *testing.T) { // one after the other: each starts two browsers
			requireProxy(t, proxy)
			redis := redistest.Start(t)
			// The proxy alone is believed, and no address but loopback may have two streams.
			options := []string{
				"--redis", redis.URL(), "--auth-hmac-secret", secret,
				"--trusted-proxies", "127.0.0.1", "--max-connections-per-address", "1",
			}
			one, two := startGateway(t, options...), startGateway(t, options...)
			user := token(t, "--sub", "456")

			t.Run("streams", func(t *testing.T) {
				running := proxy.start(t, one.address, two.address)
				throughTLS(t, redis, running, user)
				wantNoTokenInLog(t, running, user)
			})
			t.Run("stickiness", func(t *testing.T) {
				running := proxy.start(t, one.address, two.address, proxy.sticky...)
				wantOneGateway(t, newBrowserLike(t, running), user, one, two)
			})
			t.Run("a client cannot choose its address", func(t *testing.T) {
				browser := newBrowserLike(t, proxy.start(t, one.address, one.address))
				for n := range 2 {
					if status := browser.stream(t, user, "198.51.100.7"); status != 200 {
						t.Errorf("stream %d answered %d: the gateway believed what a client wrote into X-Forwarded-For", n+1, status)
					}
				}
			})
			t.Run("a balancer's word is passed on", func(t *testing.T) {
				browser := newBrowserLike(t, proxy.start(t, one.address, one.address, proxy.balanced...))
				for _, try := range []struct {
					forwarded string
					status    int
				}{{"198.51.100.7", 200}, {"198.51.100.7", 429}, {"198.51.100.8", 200}, {"198.51.100.7, 198.51.100.9", 200}} {
					if status := browser.stream(t, user, try.forwarded); status != try.status {
						t.Errorf("a stream for %s answered %d, want %d", try.forwarded, status, try.status)
					}
				}
			})
		})
	}
}

// requireProxy skips the test where the proxy cannot be had. nginx and HAProxy are always there:
// other tests need them too.
func requireProxy(t *testing.T, proxy shippedProxy) {
	t.Helper()
	if _, err := exec.LookPath(proxyProgram(t, proxy)); err != nil && proxy.name == "caddy" {
		t.Skip("caddy is not installed: make deps, on Debian, takes it out of its package")
	}
}

func proxyProgram(t *testing.T, proxy shippedProxy) string {
	t.Helper()
	if borrowed, err := filepath.Abs("../bin/debian/" + proxy.name); err == nil && fileExists(borrowed) {
		return borrowed
	}
	return program(t, proxy.name)
}

// runningProxy is a proxy that listens.
type runningProxy struct {
	*process
	base        string // its URL
	folder      string // where it writes
	certificate string // file of the authority that vouches for it
	printed     string // what it has printed so far
}

// log gives what the proxy has logged, wherever it does so.
func (r *runningProxy) log(t *testing.T) string {
	t.Helper()
	for more := true; more; {
		select {
		case line, open := <-r.lines:
			r.printed += line + "\n"
			more = open
		default:
			more = false
		}
	}
	text := r.printed + r.complaints()
	files, err := filepath.Glob(filepath.Join(r.folder, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text += string(content)
	}
	return text
}

// wantNoTokenInLog: the query and the headers of a request may hold a token, and no log line does.
func wantNoTokenInLog(t *testing.T, running *runningProxy, user string) {
	t.Helper()
	newBrowserLike(t, running).status(t, "/healthz/logged?token="+user, user, "")
	within(t, patience, "the request is logged", func() bool { return strings.Contains(running.log(t), "/healthz/logged") })
	if strings.Contains(running.log(t), user) {
		t.Errorf("%s logs a token:\n%s", running.name, running.log(t))
	}
}

// start runs the proxy with some texts of its file replaced, and waits until it listens.
func (p shippedProxy) start(t *testing.T, one, two string, replaced ...string) *runningProxy {
	t.Helper()
	folder, port := t.TempDir(), freePort(t)
	makeCertificate(t, folder)
	text, err := os.ReadFile("../deploy/proxies/" + p.file)
	if err != nil {
		t.Fatal(err)
	}
	replaced = append(replaced, p.local(folder, port)...)
	replaced = append(replaced, "10.0.0.1:8080", one, "10.0.0.2:8080", two, "/etc/ssl/millrace", folder)
	config := string(text)
	for n := 0; n < len(replaced); n += 2 {
		if !strings.Contains(config, replaced[n]) {
			t.Fatalf("%s lacks %q: this test no longer knows it", p.file, replaced[n])
		}
		config = strings.ReplaceAll(config, replaced[n], replaced[n+1])
	}
	if p.wrapped != nil {
		config = p.wrapped(folder, config)
	}
	file := filepath.Join(folder, p.file)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	command := p.command(folder, file)
	command[0] = proxyProgram(t, p)
	// Caddy writes to the home folder, which is none of a test's business.
	running := &runningProxy{base: "https://127.0.0.1:" + port, folder: folder, certificate: filepath.Join(folder, "cert.pem")}
	running.process = start(t, p.name, "/usr/bin/env", append([]string{"HOME=" + folder, "XDG_CONFIG_HOME=" + folder, "XDG_DATA_HOME=" + folder}, command...)...)
	within(t, patience, p.name+" listens", func() bool {
		select {
		case <-running.exited:
			t.Fatalf("%s ended at once:\n%s", p.name, running.complaints())
		default:
		}
		connection, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			return false
		}
		connection.Close()
		return true
	})
	return running
}

// makeCertificate writes cert.pem, key.pem and both.pem: a certificate for the loopback that signs
// itself.
func makeCertificate(t *testing.T, folder string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stream.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	for name, text := range map[string][]byte{"cert.pem": certificate, "key.pem": private, "both.pem": append(certificate, private...)} {
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// curlThrough is curl over HTTP/2, believing the proxy's certificate.
func curlThrough(running *runningProxy) kind {
	return kind{curl.name, true, func(_ *testing.T, base, path string) []string {
		return []string{"curl", "--http2", "--cacert", running.certificate, "--no-buffer", "--silent", "--show-error", "--fail-with-body", base + path}
	}}
}

// throughTLS opens a stream of each wire with curl and with Chromium, and wants each event to come
// by itself: the next one is published only when the last one has come, so nothing that gathers
// could pass.
func throughTLS(t *testing.T, redis *redistest.Server, running *runningProxy, user string) {
	t.Helper()
	base, certificate := running.base, running.certificate
	version, err := exec.Command("curl", "--http2", "--cacert", certificate, "--silent", "--output", "/dev/null", "--write-out", "%{http_version} %{http_code}", base+"/healthz").Output()
	if err != nil || string(version) != "2 200" {
		t.Errorf("curl was answered by HTTP/%s (error %v), want 2 200", version, err)
	}
	clients := make(map[string]*client)
	for _, k := range []kind{curlThrough(running), eventSource, browserWS} {
		clients[k.name] = open(t, k, base, user, "job_progress:job_123")
	}
	for n := range 5 {
		payload := fmt.Sprintf(`{"type":"job_progress","n":%d}`, n)
		redis.CLI(t, "PUBLISH", "job_progress:job_123", payload)
		for _, c := range clients {
			c.event(t, payload)
		}
	}
	browser := newBrowserLike(t, running)
	for _, path := range []string{"/metrics", "/debug/pprof/", "/api/admin/explain?client=x", "/admin"} {
		if status := browser.status(t, path, user, ""); status != http.StatusNotFound {
			t.Errorf("%s answers %d through the proxy, want 404", path, status)
		}
	}
}

// browserLike is an HTTP/2 client with cookies whose streams stay open until the test ends.
type browserLike struct {
	http.Client
	base string
}

func newBrowserLike(t *testing.T, running *runningProxy) *browserLike {
	t.Helper()
	text, err := os.ReadFile(running.certificate)
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(text)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}, ForceAttemptHTTP2: true, ResponseHeaderTimeout: patience}
	t.Cleanup(transport.CloseIdleConnections)
	return &browserLike{http.Client{Transport: transport, Jar: jar}, running.base}
}

// stream opens one, with what the client claims in X-Forwarded-For, and gives the answer's status.
func (b *browserLike) stream(t *testing.T, user, forwarded string) int {
	t.Helper()
	query := url.Values{"channel": {"job_progress:job_123"}, "userId": {"456"}, "token": {user}}
	return b.status(t, "/api/stream?"+query.Encode(), user, forwarded)
}

// status asks for a path and gives the answer's status. Its body stays open.
func (b *browserLike) status(t *testing.T, path, user, forwarded string) int {
	t.Helper()
	return b.open(t, path, user, forwarded).StatusCode
}

// open asks for a path, with what the client claims in X-Forwarded-For. The test's end closes the
// answer's body.
func (b *browserLike) open(t *testing.T, path, user, forwarded string) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+user)
	if forwarded != "" {
		request.Header.Set("X-Forwarded-For", forwarded)
	}
	response, err := b.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return response
}

// wantOneGateway opens four streams of one user and finds them on one gateway.
func wantOneGateway(t *testing.T, browser *browserLike, user string, one, two *gateway) {
	t.Helper()
	within(t, patience, "the streams before have ended", func() bool {
		return one.stats(t).SSE.Connections+two.stats(t).SSE.Connections == 0
	})
	for range 4 {
		if status := browser.stream(t, user, ""); status != http.StatusOK {
			t.Fatalf("a stream answered %d", status)
		}
	}
	first, second := one.stats(t).SSE.Connections, two.stats(t).SSE.Connections
	if first*second != 0 || first+second != 4 {
		t.Errorf("the gateways have %d and %d of a user's four streams, want all on one", first, second)
	}
}
