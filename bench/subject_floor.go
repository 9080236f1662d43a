package bench

import (
	"context"
	"fmt"
)

// The subjects of this file are roles of the harness's own binary, fed by a plain line socket.

// floor is the least that any server can cost here.
type floor struct{ gather bool }

// floorName is what ratios are taken to.
const floorName = "floor"

func (f floor) name() string {
	if f.gather {
		return floorName + "-gather"
	}
	return floorName
}

func (f floor) about() string {
	if f.gather {
		return "the floor, but it reads all that is published before it writes, and takes all that waits for a socket into one writev."
	}
	return "a bare epoll loop in Go that knows no protocol: a descriptor and a channel's number a stream, one write(2) a delivery. What it costs, the kernel costs."
}

func (floor) wires() []Wire        { return Wires() }
func (floor) missing(*site) string { return "" }

// mattersFor: alone, a message has nothing to be gathered with.
func (f floor) mattersFor() []string {
	if f.gather {
		return []string{"fanout"}
	}
	return nil
}

func (f floor) start(ctx context.Context, s *site, _ startOptions) (*server, error) {
	var extra []string
	if f.gather {
		extra = []string{"--gather"}
	}
	// Its one goroutine never gives the processor back: the runtime need not send it signals to ask.
	// The channel is a number in the target, so that the floor can do without names.
	return startRole(ctx, s, f.name(), roleFloor, "%d", extra, []string{"GODEBUG=asyncpreemptoff=1"})
}

// plain is what everybody writes first: net/http and a goroutine a stream.
type plain struct{}

func (plain) name() string { return "plain-go" }

func (plain) about() string {
	return "net/http with a goroutine a stream for SSE, and gobwas/ws after a hijack with two goroutines a stream for WebSocket; each event is encoded once and its bytes are shared, a queue of 256 a stream."
}

func (plain) wires() []Wire        { return Wires() }
func (plain) missing(*site) string { return "" }

func (p plain) start(ctx context.Context, s *site, _ startOptions) (*server, error) {
	return startRole(ctx, s, p.name(), rolePlain, "job_progress:%d", nil, nil)
}

// startRole starts a role that serves GET /sse/CHANNEL and /ws/CHANNEL and is fed by lines.
func startRole(ctx context.Context, s *site, name, role, channel string, extra, env []string) (*server, error) {
	return startFed(ctx, s, fedServer{
		name: name, path: s.binary,
		arguments: func(listen, feed string) []string {
			return append([]string{RoleCommand, role, "--listen", listen, "--feed", feed}, extra...)
		},
		channel: channel, env: env,
		steps: map[Wire][]step{
			SSE:       {requestStep(SSE, "/sse/{channel}", nil, "text/event-stream")},
			WebSocket: {requestStep(WebSocket, "/ws/{channel}", nil, switching)},
		},
	})
}

// fedServer is a program that listens on one address for subscribers and on one for lines.
type fedServer struct {
	name, path string
	arguments  func(listen, feed string) []string
	channel    string
	steps      map[Wire][]step
	env        []string
}

func startFed(ctx context.Context, s *site, f fedServer) (*server, error) {
	listen, err := freeAddress()
	if err != nil {
		return nil, err
	}
	feed, err := freeAddress()
	if err != nil {
		return nil, err
	}
	c, err := s.serve(ctx, launch{name: f.name, path: f.path, arguments: f.arguments(listen, feed), env: f.env})
	if err != nil {
		return nil, err
	}
	if err := c.listening(ctx, feed); err != nil {
		return nil, fmt.Errorf("its feed: %w", err)
	}
	return &server{
		children: []*child{c}, address: listen, channel: f.channel, steps: f.steps,
		feedAddress: feed, dialect: lineDialect{},
	}, c.listening(ctx, listen)
}
