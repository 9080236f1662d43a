package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"github.com/golang-jwt/jwt/v5"
)

// The subjects of this file are programs that a user brings: they are measured where they are on
// the PATH, with settings taken from their documentation.

// uwebsockets is a server on the C++ library of that name.
type uwebsockets struct{}

func (uwebsockets) name() string { return "uwebsockets" }

func (uwebsockets) about() string {
	return "a topic server on uWebSockets, brought by the user (its protocol is in bench/peers/README.md), WebSocket; fed by a line socket."
}

func (uwebsockets) wires() []Wire { return []Wire{WebSocket} }

func (uwebsockets) missing(*site) string {
	return onPath("uwebsockets", "bring a server that speaks the protocol in bench/peers/README.md")
}

func (u uwebsockets) start(ctx context.Context, s *site, _ startOptions) (*server, error) {
	return startFed(ctx, s, fedServer{
		name: u.name(), path: u.name(),
		arguments: func(listen, feed string) []string {
			return []string{"--listen", portOf(listen), "--feed", portOf(feed)}
		},
		channel: "job_progress:%d",
		steps:   map[Wire][]step{WebSocket: {requestStep(WebSocket, "/{channel}", nil, switching)}},
	})
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// centrifugo is the server of that name.
type centrifugo struct{}

func (centrifugo) name() string { return "centrifugo" }

func (centrifugo) about() string {
	return "Centrifugo 6, Redis engine, uni_sse and its bidirectional WebSocket, insecure mode (no token), no history or presence, logs from errors on; published on Redis in its own format."
}

func (centrifugo) wires() []Wire    { return Wires() }
func (centrifugo) fedByRedis() bool { return true }
func (centrifugo) keepsAlive()      {}

func (centrifugo) missing(*site) string {
	if problem := onPath("redis-server", "apt-get install redis-server"); problem != "" {
		return problem
	}
	return onPath("centrifugo", "github.com/centrifugal/centrifugo has binaries")
}

func (c centrifugo) start(ctx context.Context, s *site, _ startOptions) (*server, error) {
	redis, err := s.redis(ctx)
	if err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(portOf(address))
	if err != nil {
		return nil, err
	}
	configuration, err := json.Marshal(map[string]any{
		"http_server":   map[string]any{"address": "127.0.0.1", "port": port},
		"log":           map[string]any{"level": "error"},
		"client":        map[string]any{"insecure": true},
		"engine":        map[string]any{"type": "redis", "redis": map[string]any{"address": "redis://" + redis}},
		"uni_sse":       map[string]any{"enabled": true},
		"uni_websocket": map[string]any{"enabled": true},
	})
	if err != nil {
		return nil, err
	}
	// A start of its own for each, since a fleet shares the directory.
	path := filepath.Join(s.directory, "centrifugo-"+portOf(address)+".json")
	if err := os.WriteFile(path, configuration, 0o600); err != nil {
		return nil, fmt.Errorf("write centrifugo's configuration: %w", err)
	}
	started, err := s.serve(ctx, launch{name: c.name(), path: c.name(), arguments: []string{"--config", path}})
	if err != nil {
		return nil, err
	}
	return &server{
		// No colon: what stands before one would be a namespace, to be configured.
		children: []*child{started}, address: address, channel: "job_progress_%d",
		steps: map[Wire][]step{
			SSE: {requestStep(SSE, "/connection/uni_sse?cf_connect="+centrifugeConnect, nil, `"subs":{`)},
			WebSocket: {
				requestStep(WebSocket, "/connection/websocket", nil, switching),
				frameStep(`{"id":1,"connect":{}}`+"\n"+`{"id":2,"subscribe":{"channel":"{channel}"}}`, `"id":2,"subscribe":{`),
			},
		},
		feedAddress: redis,
		dialect:     redisDialect{prefix: "centrifugo.client.", wrap: centrifugeMessage},
	}, started.listening(ctx, address)
}

// mercure is the hub of that name.
type mercure struct{}

func (mercure) name() string { return "mercure" }

func (mercure) about() string {
	return "Mercure, local transport, anonymous subscribers, no heartbeat, no write timeout, SSE; published by POST with a token."
}

func (mercure) wires() []Wire { return []Wire{SSE} }

func (mercure) missing(*site) string {
	return onPath("mercure", "github.com/dunglas/mercure has binaries")
}

const mercurePath = "/.well-known/mercure"

func (m mercure) start(ctx context.Context, s *site, _ startOptions) (*server, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	secret, _, err := writeSecret(s.directory)
	if err != nil {
		return nil, err
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"mercure": map[string]any{"publish": []string{"*"}},
	}).SignedString([]byte(secret))
	if err != nil {
		return nil, fmt.Errorf("a token for mercure's publisher: %w", err)
	}
	configuration := fmt.Sprintf("{\n\tadmin off\n\tauto_https off\n}\nhttp://%s {\n\tmercure {\n\t\ttransport local\n\t\tanonymous\n"+
		"\t\tpublisher_jwt %s\n\t\tsubscriber_jwt %s\n\t\theartbeat 0s\n\t\twrite_timeout 0s\n\t}\n}\n", address, secret, secret)
	path := filepath.Join(s.directory, "Caddyfile")
	if err := os.WriteFile(path, []byte(configuration), 0o600); err != nil {
		return nil, fmt.Errorf("write mercure's configuration: %w", err)
	}
	started, err := s.serve(ctx, launch{
		name: m.name(), path: m.name(), arguments: []string{"run", "--config", path},
		env: []string{"XDG_DATA_HOME=" + s.directory, "XDG_CONFIG_HOME=" + s.directory},
	})
	if err != nil {
		return nil, err
	}
	return &server{
		children: []*child{started}, address: address, channel: "job_progress:%d",
		steps:       map[Wire][]step{SSE: {requestStep(SSE, mercurePath+"?topic={channel}", nil, "text/event-stream")}},
		feedAddress: address,
		dialect: &httpDialect{
			target:  mercurePath,
			headers: []string{"Content-Type: application/x-www-form-urlencoded", "Authorization: Bearer " + token},
			body: func(dst []byte, channel string, payload []byte) []byte {
				return append(dst, "topic="+url.QueryEscape(channel)+"&data="+url.QueryEscape(string(payload))...)
			},
		},
	}, started.listening(ctx, address)
}
