package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// The subjects of this file are servers on other people's libraries: Go modules of their own in the
// peers' folder, built with the first run that needs them.

// buildModule builds the peer in a folder, and says why it cannot. What is built is kept, so that
// the compiler has little to do the next time.
func buildModule(s *site, folder string) (program, problem string) {
	source := filepath.Join(s.peers, folder)
	program = filepath.Join(s.cache, folder)
	if _, err := os.Stat(filepath.Join(source, "go.mod")); err != nil {
		return "", noSources(s)
	}
	compiler, err := exec.LookPath("go")
	if err != nil {
		return "", "it has to be built, and Go is not on the PATH"
	}
	if err := os.MkdirAll(s.cache, 0o755); err != nil {
		return "", fmt.Sprintf("there is no place to build it in: %v", err)
	}
	build := exec.Command(compiler, "build", "-C", source, "-buildvcs=false", "-o", program, ".")
	build.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(output)), "\n")
		return "", fmt.Sprintf("it does not build (%v): %s", err, lines[len(lines)-1])
	}
	return program, ""
}

// centrifuge is the library inside Centrifugo, with its Redis broker.
type centrifuge struct {
	// delay is how long a client's writer waits for more; empty for not at all.
	delay string
	// prepared has it compress a message once for all WebSockets, an option that its authors call an
	// experiment.
	prepared bool
}

func (c centrifuge) name() string {
	if c.delay != "" {
		return "centrifuge-" + c.delay
	}
	if c.prepared {
		return "centrifuge-prepared"
	}
	return "centrifuge"
}

func (c centrifuge) about() string {
	wait := "an event is written as soon as the client's writer runs (best for latency and unicast)"
	if c.delay != "" {
		wait = "a client's writer waits " + c.delay + " for more (best for bursts)"
	}
	if c.prepared {
		wait += "; what it compresses it keeps and uses again"
	}
	return "a small server on centrifugal/centrifuge v0.40.1, the library inside Centrifugo (bench/peers/centrifuge), Redis broker, SSE and its bidirectional WebSocket; published on Redis in the library's own format. " +
		"No history, presence or join messages; no limit on events in one write; " + wait + "."
}

func (centrifuge) wires() []Wire    { return Wires() }
func (centrifuge) fedByRedis() bool { return true }
func (centrifuge) keepsAlive()      {}

// mattersFor: the delay spares writes in a burst, and little else; what is prepared is what is compressed.
func (c centrifuge) mattersFor() []string {
	switch {
	case c.delay != "":
		return []string{"fanout"}
	case c.prepared:
		return []string{"ws-deflate"}
	}
	return nil
}

func (c centrifuge) deflates() bool { return c.delay == "" }

func (centrifuge) missing(s *site) string {
	if problem := onPath("redis-server", "apt-get install redis-server"); problem != "" {
		return problem
	}
	_, problem := buildModule(s, "centrifuge")
	return problem
}

func (c centrifuge) start(ctx context.Context, s *site, o startOptions) (*server, error) {
	redis, err := s.redis(ctx)
	if err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	arguments := []string{"--listen", address, "--redis", "redis://" + redis}
	if c.delay != "" {
		arguments = append(arguments, "--write-delay", c.delay)
	}
	if o.compress {
		arguments = append(arguments, "--compression")
	}
	if c.prepared {
		arguments = append(arguments, "--compression-cache", strconv.Itoa(centrifugeCacheBytes))
	}
	started, err := s.serve(ctx, launch{name: c.name(), path: filepath.Join(s.cache, "centrifuge"), arguments: arguments})
	if err != nil {
		return nil, err
	}
	return &server{
		children: []*child{started}, address: address, channel: "job_progress:%d",
		steps: map[Wire][]step{
			SSE: {requestStep(SSE, "/connection/uni_sse?cf_connect="+centrifugeConnect, nil, `"subs":{`)},
			WebSocket: {
				requestStep(WebSocket, "/connection/websocket", nil, switching),
				frameStep(`{"id":1,"connect":{"subs":{"{channel}":{}}}}`, `"subs":{`),
			},
		},
		deflated: []step{
			requestStep(WebSocket, "/connection/websocket", []string{deflateHeader}, "permessage-deflate"),
			// The answer is compressed, too: a text frame with RSV1 (RFC 7692, 6).
			frameStep(`{"id":1,"connect":{"subs":{"{channel}":{}}}}`, "\xc1"),
		},
		feedAddress: redis,
		dialect:     redisDialect{prefix: "centrifuge.client.", wrap: centrifugeMessage},
	}, started.listening(ctx, address)
}

// centrifugeCacheBytes has room for all that a measurement compresses.
const centrifugeCacheBytes = 64 << 20

// centrifugeConnect is {"subs":{"CHANNEL":{}}}, escaped for a query.
const centrifugeConnect = "%7B%22subs%22%3A%7B%22{channel}%22%3A%7B%7D%7D%7D"

// centrifugeMessage is a protobuf Publication that holds data (field 4) alone, which is how the
// library's Redis broker carries an event.
func centrifugeMessage(dst, payload []byte) []byte {
	dst = append(dst, 4<<3|2)
	dst = binary.AppendUvarint(dst, uint64(len(payload)))
	return append(dst, payload...)
}

// nbio is the epoll library of that name, with a topic server around it.
type nbio struct{}

func (nbio) name() string { return "nbio" }

func (nbio) about() string {
	return "a topic server on lesismal/nbio v1.6.8 (bench/peers/nbio), epoll and no goroutine a stream, WebSocket; fed by a line socket. One frame for all members, members in a slice, handlers on the poller."
}

func (nbio) wires() []Wire { return []Wire{WebSocket} }

func (nbio) missing(s *site) string {
	_, problem := buildModule(s, "nbio")
	return problem
}

func (n nbio) start(ctx context.Context, s *site, _ startOptions) (*server, error) {
	return startFed(ctx, s, fedServer{
		name: n.name(), path: filepath.Join(s.cache, "nbio"),
		arguments: func(listen, feed string) []string { return []string{"--listen", listen, "--feed", feed} },
		channel:   "job_progress:%d",
		steps:     map[Wire][]step{WebSocket: {requestStep(WebSocket, "/{channel}", nil, switching)}},
	})
}
