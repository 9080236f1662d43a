package bench

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
)

// site is where one measurement takes place: the processes that were started for it and the
// directory that they may write to. close ends them all. It belongs to one goroutine.
type site struct {
	binary    string // of the harness: floor, plain servers, crowds and Millrace are in it
	peers     string // directory of the peers' modules
	cache     string // directory where what is built for them is kept
	place     placement
	directory string

	children []*child
	crowds   []*crowdClient
	feeds    []*feed

	redisServer  *child
	redisAddress string
}

func newSite(o *Options, where placement) (*site, error) {
	directory, err := os.MkdirTemp("", "millrace-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the servers: %w", err)
	}
	return &site{binary: o.Binary, peers: o.Peers, cache: o.Cache, place: where, directory: directory}, nil
}

func (s *site) close() {
	for _, f := range s.feeds {
		f.close()
	}
	// The crowds go first: their sockets are closed then, and no server has to push at them.
	for _, c := range s.crowds {
		c.close()
	}
	for _, c := range s.children {
		c.stop()
	}
	os.RemoveAll(s.directory)
}

// serve starts a child on the server's cores.
func (s *site) serve(ctx context.Context, l launch) (*child, error) {
	l.cores = s.place.server
	return s.spawn(ctx, l)
}

func (s *site) spawn(ctx context.Context, l launch) (*child, error) {
	c, err := spawn(ctx, l)
	if err != nil {
		return nil, err
	}
	s.children = append(s.children, c)
	return c, nil
}

// crowd starts a crowd process on the clients' cores.
func (s *site) crowd(ctx context.Context) (*crowdClient, error) {
	c, err := newCrowd(ctx, s.binary, s.place.client)
	if err != nil {
		return nil, err
	}
	s.crowds = append(s.crowds, c)
	return c, nil
}

// feed opens a way to publish to a server.
func (s *site) feed(to *server) (*feed, error) {
	f, err := openFeed(to.feedAddress, to.dialect)
	if err != nil {
		return nil, err
	}
	s.feeds = append(s.feeds, f)
	return f, nil
}

// redis gives the address of this site's Redis, started with the first call, which nothing else
// uses: on the clients' cores, without persistence.
func (s *site) redis(ctx context.Context) (string, error) {
	if s.redisServer != nil {
		return s.redisAddress, nil
	}
	address, err := freeAddress()
	if err != nil {
		return "", err
	}
	_, port, _ := net.SplitHostPort(address)
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return "", fmt.Errorf("redis-server is not on the PATH: install it (apt-get install redis-server): %w", err)
	}
	c, err := s.spawn(ctx, launch{
		name: "redis-server", path: path, cores: s.place.client,
		arguments: []string{
			"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
			"--dir", s.directory, "--tcp-backlog", "4096", "--client-output-buffer-limit", "pubsub 0 0 0",
		},
	})
	if err != nil {
		return "", err
	}
	ready := func() bool { answer, err := askRedis(address, "PING"); return err == nil && answer == "PONG" }
	if err := c.await(ctx, "answer a PING", ready); err != nil {
		return "", err
	}
	s.redisServer, s.redisAddress = c, address
	return address, nil
}
