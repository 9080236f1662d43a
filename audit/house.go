package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/millrace/millrace/internal/freeport"
	"github.com/millrace/millrace/internal/redistest"
)

// house is the processes that are audited.
type house struct {
	plan     plan
	folder   string
	gateways []*gateway

	// One of these.
	server   *redistest.Server
	sentinel *redistest.Sentinel
	cluster  *redistest.Cluster

	proxy *proxy // between the gateways and the server, where the audit is sabotaged

	// writing is held for reading by who writes to the server, and for writing while it is started
	// anew.
	writing sync.RWMutex
}

const (
	gatewayCount    = 2
	startTimeout    = time.Minute
	endTimeout      = 10 * time.Second
	pollPause       = 50 * time.Millisecond
	clusterNodes    = 3
	lastWordsBytes  = 16 << 10
	statsBytesMax   = 1 << 20
	questionTimeout = 10 * time.Second
)

// configuration of both gateways: a type for each mode.
const configuration = `namespaces:
  events: {mode: events, access: public}
  log: {mode: log, access: public}
  state: {mode: state, access: public}
`

// openHouse starts all. The caller closes it, also after an error.
func openHouse(ctx context.Context, p plan) (*house, error) {
	h := &house{plan: p}
	address, err := h.openRedis()
	if err != nil {
		return h, err
	}
	if h.folder, err = os.MkdirTemp("", "millrace-audit-"); err != nil {
		return h, fmt.Errorf("make a folder: %w", err)
	}
	file := filepath.Join(h.folder, "millrace.yaml")
	if err := os.WriteFile(file, []byte(configuration), 0o600); err != nil {
		return h, fmt.Errorf("write the gateways' configuration: %w", err)
	}
	for range gatewayCount {
		one, err := openGateway(p.gateway, file, address)
		if err != nil {
			return h, err
		}
		h.gateways = append(h.gateways, one)
	}
	return h, h.awaitReady(ctx, startTimeout)
}

// openRedis starts what the scenario needs, and gives the address for the gateways.
func (h *house) openRedis() (string, error) {
	var err error
	switch h.plan.scenario {
	case scenarioSentinel:
		if h.sentinel, err = redistest.RunSentinel(); err != nil {
			return "", err
		}
		return h.sentinel.URL(), nil
	case scenarioCluster:
		if h.cluster, err = redistest.RunCluster(clusterNodes); err != nil {
			return "", err
		}
		return h.cluster.URL(), nil
	}
	var arguments []string
	if h.plan.scenario == scenarioSoak {
		// What it has acknowledged is in its file when it is killed. "everysec" would not do: while a
		// slow disk syncs, Redis acknowledges what it writes up to two seconds later.
		arguments = []string{"--appendonly", "yes", "--appendfsync", "always"}
	}
	if h.server, err = redistest.Run(arguments...); err != nil {
		return "", err
	}
	if !h.plan.sabotage {
		return h.server.URL(), nil
	}
	if h.proxy, err = openProxy(h.server.Addr); err != nil {
		return "", err
	}
	return "redis://" + h.proxy.address(), nil
}

// openStore gives the publisher its way to Redis, past the proxy.
func (h *house) openStore() (store, error) {
	switch {
	case h.sentinel != nil:
		return newSentinelStore(h.sentinel)
	case h.cluster != nil:
		return newClusterStore(h.cluster)
	default:
		return newPlainStore(h.server.Addr, &h.writing)
	}
}

// servers are those that gateways connect to.
func (h *house) servers() []*redistest.Server {
	switch {
	case h.sentinel != nil:
		return []*redistest.Server{h.sentinel.Primary, h.sentinel.Replica}
	case h.cluster != nil:
		return h.cluster.Nodes
	default:
		return []*redistest.Server{h.server}
	}
}

// awaitReady waits until Redis delivers to all gateways.
func (h *house) awaitReady(ctx context.Context, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for _, one := range h.gateways {
		for !one.ready() {
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case !one.running():
				return errors.New("a gateway ended: " + one.words.String())
			case time.Now().After(deadline):
				return fmt.Errorf("a gateway is not ready within %v: %s", patience, one.words.String())
			}
			sleep(ctx, pollPause)
		}
	}
	return nil
}

func (h *house) close() {
	for _, one := range h.gateways {
		one.close()
	}
	if h.proxy != nil {
		h.proxy.close()
	}
	if h.server != nil {
		h.server.Close()
	}
	if h.sentinel != nil {
		h.sentinel.Close()
	}
	if h.cluster != nil {
		h.cluster.Close()
	}
	if h.folder != "" {
		_ = os.RemoveAll(h.folder)
	}
}

// gateway is one running gateway.
type gateway struct {
	address string
	command *exec.Cmd
	exited  chan struct{} // closed once it is reaped
	words   lastWords
}

func openGateway(binary, file, redis string) (*gateway, error) {
	port, err := freeport.Find()
	if err != nil {
		return nil, err
	}
	g := &gateway{address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), exited: make(chan struct{})}
	g.command = exec.Command(binary, "serve", "--listen", g.address, "--config", file, "--redis", redis,
		"--max-queue-age", queueAgeMax.String(), "--max-queue-bytes", "256KiB", "--log-format", "text")
	g.command.Stdout, g.command.Stderr = &g.words, &g.words
	// Should the audit be killed, its children must not outlive it.
	g.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := g.command.Start(); err != nil {
		return nil, fmt.Errorf("start a gateway (make build makes one): %w", err)
	}
	go func() {
		_ = g.command.Wait() // how it ended is told by its words
		close(g.exited)
	}()
	return g, nil
}

func (g *gateway) running() bool {
	select {
	case <-g.exited:
		return false
	default:
		return true
	}
}

// ready reports whether Redis delivers to the gateway.
func (g *gateway) ready() bool {
	response, err := g.ask("/readyz?redis")
	return err == nil && response.status == http.StatusOK
}

// answer is what a gateway said over HTTP.
type answer struct {
	status int
	body   []byte
}

func (g *gateway) ask(path string) (answer, error) {
	client := http.Client{Timeout: questionTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + g.address + path)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	var body bytes.Buffer
	_, err = body.ReadFrom(http.MaxBytesReader(nil, response.Body, statsBytesMax))
	return answer{status: response.StatusCode, body: body.Bytes()}, err
}

// stats gives the parts of the gateway's statistics that are about Redis and about delivery.
func (g *gateway) stats() (string, error) {
	said, err := g.ask("/api/realtime/stats")
	if err != nil {
		return "", fmt.Errorf("ask a gateway for its statistics: %w", err)
	}
	var parts struct {
		Broker   json.RawMessage `json:"broker"`
		Delivery json.RawMessage `json:"delivery"`
	}
	if err := json.Unmarshal(said.body, &parts); err != nil {
		return "", fmt.Errorf("read a gateway's statistics: %w", err)
	}
	return fmt.Sprintf("broker %s delivery %s", parts.Broker, parts.Delivery), nil
}

// close ends the gateway: in order if it obeys, else at once.
func (g *gateway) close() {
	_ = g.command.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	select {
	case <-g.exited:
	case <-time.After(endTimeout):
		_ = g.command.Process.Kill()
		<-g.exited
	}
}

// lastWords keeps the end of what a process writes. Safe for use by many goroutines.
type lastWords struct {
	mutex sync.Mutex
	text  []byte
}

// Write keeps the end of text. It never fails.
func (w *lastWords) Write(text []byte) (int, error) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.text = append(w.text, text...)
	if extra := len(w.text) - lastWordsBytes; extra > 0 {
		w.text = append(w.text[:0], w.text[extra:]...)
	}
	return len(text), nil
}

func (w *lastWords) String() string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return string(w.text)
}
