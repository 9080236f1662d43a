package bench

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"strconv"
)

// millrace is our own gateway, in the binary that the harness is part of.
type millrace struct{ memory bool }

func (m millrace) name() string {
	if m.memory {
		return "millrace-memory"
	}
	return "millrace"
}

func (m millrace) about() string {
	if m.memory {
		return "this binary, `millrace serve`, its own memory as broker; published by POST /api/publish. Default settings, but no limit on connections."
	}
	return "this binary, `millrace serve --redis`; published by PUBLISH on Redis, whose client's work is part of what is measured. Default settings, but no limit on connections."
}

func (millrace) wires() []Wire { return Wires() }
func (millrace) takesTokens()  {}
func (millrace) keepsAlive()   {}
func (millrace) takesSeveral() {}

// Of several with brokers of their own, an event would reach one only.
func (m millrace) fedByRedis() bool { return !m.memory }
func (m millrace) sharesPort() bool { return !m.memory }

// Its own memory keeps states and logs as well, but no worker can write to them with plain commands.
func (m millrace) keepsModes() bool { return !m.memory }

// mattersFor: its own memory stands for Redis where events come from there.
func (m millrace) mattersFor() []string {
	if m.memory {
		return []string{"fanout", "unicast"}
	}
	return nil
}

func (m millrace) missing(*site) string {
	if m.memory {
		return ""
	}
	return onPath("redis-server", "apt-get install redis-server")
}

// millraceChannel is in a namespace that every gateway has without a file.
const millraceChannel = "job_progress:%d"

func (m millrace) start(ctx context.Context, s *site, o startOptions) (*server, error) {
	address := o.address
	if address == "" {
		var err error
		if address, err = freeAddress(); err != nil {
			return nil, err
		}
	}
	running := &server{address: address, channel: millraceChannel, steps: millraceSteps(o.tokens), several: millraceSeveral()}
	arguments := []string{
		"serve", "--listen", address, "--log-level", "warn", "--log-format", "text",
		"--max-connections", "0", "--max-connections-per-address", "0",
	}
	if o.address != "" {
		arguments = append(arguments, "--reuse-port")
	}
	if o.acceptRate > 0 {
		arguments = append(arguments, "--accept-rate", strconv.Itoa(o.acceptRate))
	}
	if o.config != "" {
		file := filepath.Join(s.directory, "config.yaml")
		if err := os.WriteFile(file, []byte(o.config), 0o600); err != nil {
			return nil, err
		}
		arguments = append(arguments, "--config", file)
	}
	if o.tokens {
		secret, file, err := writeSecret(s.directory)
		if err != nil {
			return nil, err
		}
		running.secret = secret
		arguments = append(arguments, "--auth-hmac-secret-file", file)
	}
	if o.modes {
		file, err := writeModes(s.directory)
		if err != nil {
			return nil, err
		}
		arguments = append(arguments, "--config", file, "--max-subscriptions", "0")
	}
	if m.memory {
		running.feedAddress = address
		running.dialect = &httpDialect{target: "/api/publish", headers: []string{"Content-Type: application/json"}, body: millraceBody}
	} else {
		redis, err := s.redis(ctx)
		if err != nil {
			return nil, err
		}
		running.feedAddress, running.dialect = redis, redisDialect{}
		arguments = append(arguments, "--redis", "redis://"+redis)
	}
	c, err := s.serve(ctx, launch{name: m.name(), path: s.binary, arguments: arguments})
	if err != nil {
		return nil, err
	}
	running.children = []*child{c}
	return running, c.listening(ctx, address)
}

func millraceSteps(tokens bool) map[Wire][]step {
	var headers []string
	if tokens {
		headers = []string{"Authorization: Bearer {token}"}
	}
	return map[Wire][]step{
		SSE:       {requestStep(SSE, "/api/stream?channel={channel}", headers, `"type":"connected"`)},
		WebSocket: {requestStep(WebSocket, "/ws?channel={channel}", headers, `"type":"subscribed"`)},
	}
}

// millraceSeveral are the steps of a stream of several channels: "{channel}" stands for all of them,
// with what the wire has between two (see [connectPlan].Each). A thousand are more than the head of a
// request may have, so a WebSocket asks for them by a command.
func millraceSeveral() map[Wire][]step {
	return map[Wire][]step{
		SSE: millraceSteps(false)[SSE],
		WebSocket: {
			requestStep(WebSocket, "/ws", nil, switching),
			frameStep(`{"type":"subscribe","channels":["{channel}"]}`, `"type":"subscribed"`),
		},
	}
}

// The keyspaces of millraceModes.
var (
	stateKeys = keyspace{channel: "bench_state:%d", dialect: redisDialect{command: "SET"}}
	logKeys   = keyspace{channel: "bench_log:%d", dialect: redisDialect{command: "XADD", between: []string{"*", "data"}}}
)

// millraceModes has the namespace of ordinary runs, and those of states and logs.
const millraceModes = `namespaces:
  job_progress: {mode: events, access: public}
  bench_state: {mode: state, access: public}
  bench_log: {mode: log, access: public}
`

// writeModes makes the file that has them.
func writeModes(directory string) (file string, err error) {
	file = filepath.Join(directory, "millrace.yaml")
	return file, os.WriteFile(file, []byte(millraceModes), 0o600)
}

func millraceBody(dst []byte, channel string, payload []byte) []byte {
	dst = append(dst, `{"channel":"`...)
	dst = append(dst, channel...)
	dst = append(dst, `","event":`...)
	dst = append(dst, payload...)
	return append(dst, '}')
}

// writeSecret makes a secret for this run alone, and a file that holds it.
func writeSecret(directory string) (secret, file string, err error) {
	var random [32]byte
	if _, err := rand.Read(random[:]); err != nil {
		return "", "", err
	}
	secret = hex.EncodeToString(random[:])
	file = filepath.Join(directory, "secret")
	return secret, file, os.WriteFile(file, []byte(secret), 0o600)
}
