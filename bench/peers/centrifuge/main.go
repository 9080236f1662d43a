// Command centrifuge is a realtime server on github.com/centrifugal/centrifuge, the library inside
// Centrifugo, built to be measured. Paths, requests and answers are those of Centrifugo.
//
// The library brings the bidirectional WebSocket handler, the broker, the per-client queue and its
// writer. Unidirectional transports it leaves to the application, so they stand here:
//
//	main.go       flags, node, routes, shutdown
//	sse.go        /connection/uni_sse
//	websocket.go  /connection/uni_websocket
//	publish.go    POST /publish, and lines "CHANNEL PAYLOAD\n" on the feed socket
//
// README.md says which of the library's settings were chosen and why.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/centrifugal/centrifuge"
)

// shutdownTimeout is what clients get to answer the close; then they are cut off.
const shutdownTimeout = time.Second

// settings are the flags of the command.
type settings struct {
	listen        string        // where clients connect, host:port
	feed          string        // where a publisher may connect, host:port; empty for none
	engine        string        // "redis" or "memory"
	redis         string        // address of Redis, redis://host:port
	ping          time.Duration // between pings of the server; 0 for none
	writeDelay    time.Duration // what a client's writer waits to collect events; 0 for nothing
	frameMessages int           // how many events go into one write at most; -1 for no limit
	compression   bool          // of messages on the bidirectional WebSocket, for who asks for it
	cacheBytes    int64         // for messages that were compressed; 0: each is compressed for each client
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("centrifuge: ")
	var s settings
	flag.StringVar(&s.listen, "listen", "127.0.0.1:9002", "address for clients")
	flag.StringVar(&s.feed, "feed", "", "address for publishers: lines of CHANNEL PAYLOAD (default none)")
	flag.StringVar(&s.engine, "engine", "redis", "broker: redis or memory")
	flag.StringVar(&s.redis, "redis", "redis://127.0.0.1:6379", "address of Redis, for --engine redis")
	flag.DurationVar(&s.ping, "ping", 25*time.Second, "between pings to a client, 0 for none")
	flag.DurationVar(&s.writeDelay, "write-delay", 0, "what a client's writer waits to collect events, 0 for nothing")
	flag.IntVar(&s.frameMessages, "frame-messages", -1, "events in one write at most, -1 for no limit")
	flag.BoolVar(&s.compression, "compression", false, "compress messages on /connection/websocket, level 1, for clients that offer permessage-deflate")
	flag.Int64Var(&s.cacheBytes, "compression-cache", 0, "bytes for compressed messages that several clients get, 0 to compress for each client")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := serve(ctx, s, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// serve runs the server until ctx ends. Once it can be used it writes one line to ready,
// "listen=HOST:PORT" or "listen=HOST:PORT feed=HOST:PORT", so that a caller may ask for port 0.
func serve(ctx context.Context, s settings, ready io.Writer) error {
	node, err := startNode(s)
	if err != nil {
		return err
	}
	defer func() {
		timely, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		defer cancel()
		_ = node.Shutdown(timely)
	}()
	listener, err := net.Listen("tcp", s.listen)
	if err != nil {
		return fmt.Errorf("listening for clients on --listen %s: %w", s.listen, err)
	}
	line := fmt.Sprintf("listen=%s", listener.Addr())
	if s.feed != "" {
		feed, err := net.Listen("tcp", s.feed)
		if err != nil {
			return errors.Join(fmt.Errorf("listening for the feed on --feed %s: %w", s.feed, err), listener.Close())
		}
		line += fmt.Sprintf(" feed=%s", feed.Addr())
		fed := make(chan struct{})
		go func() {
			defer close(fed)
			acceptFeeds(ctx, feed, node)
		}()
		defer func() { <-fed }()
		defer func() { _ = feed.Close() }()
	}

	server := &http.Server{Handler: newRoutes(node, s), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	if _, err := fmt.Fprintln(ready, line); err != nil {
		return errors.Join(err, server.Close())
	}
	select {
	case <-ctx.Done():
		return server.Close()
	case err := <-failed:
		return err
	}
}

// startNode makes the library's node with its broker, and runs it.
func startNode(s settings) (*centrifuge.Node, error) {
	node, err := centrifuge.New(centrifuge.Config{
		LogLevel: centrifuge.LogLevelError,
		LogHandler: func(entry centrifuge.LogEntry) {
			log.Printf("%s %v", entry.Message, entry.Fields)
		},
		// There is no presence to refresh: the periodic work of a client would find nothing to do.
		ClientPresenceUpdateInterval: 24 * time.Hour,
	})
	if err != nil {
		return nil, fmt.Errorf("making the node: %w", err)
	}
	switch s.engine {
	case "memory": // the library's own default
	case "redis":
		if err := useRedis(node, s.redis); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("--engine is %q: say redis or memory", s.engine)
	}
	node.OnConnecting(func(_ context.Context, event centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		subscriptions := make(map[string]centrifuge.SubscribeOptions, len(event.Channels))
		for _, channel := range event.Channels {
			subscriptions[channel] = centrifuge.SubscribeOptions{}
		}
		return centrifuge.ConnectReply{
			Credentials:        &centrifuge.Credentials{}, // anonymous
			Subscriptions:      subscriptions,
			MaxMessagesInFrame: s.frameMessages,
			WriteDelay:         s.writeDelay,
			WriteWithTimer:     true, // with a delay: no goroutine per client for its writer
		}, nil
	})
	node.OnConnect(func(client *centrifuge.Client) {
		client.OnSubscribe(func(_ centrifuge.SubscribeEvent, answer centrifuge.SubscribeCallback) {
			answer(centrifuge.SubscribeReply{}, nil)
		})
	})
	if err := node.Run(); err != nil {
		return nil, fmt.Errorf("starting the node with --engine %s: %w", s.engine, err)
	}
	return node, nil
}

func useRedis(node *centrifuge.Node, address string) error {
	shard, err := centrifuge.NewRedisShard(node, centrifuge.RedisShardConfig{Address: address})
	if err != nil {
		return fmt.Errorf("connecting to --redis %s: %w", address, err)
	}
	broker, err := centrifuge.NewRedisBroker(node, centrifuge.RedisBrokerConfig{Shards: []*centrifuge.RedisShard{shard}})
	if err != nil {
		return fmt.Errorf("using --redis %s as broker: %w", address, err)
	}
	node.SetBroker(broker)
	return nil
}

func newRoutes(node *centrifuge.Node, s settings) http.Handler {
	// No pong is asked for: a crowd that only reads must not be closed for it.
	pings := centrifuge.PingPongConfig{PingInterval: s.ping, PongTimeout: -1}
	if s.ping == 0 {
		pings.PingInterval = -1
	}
	routes := http.NewServeMux()
	routes.Handle("/connection/websocket", centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{
		CheckOrigin:                anyOrigin,
		ReadBufferSize:             512,
		UseWriteBufferPool:         true,
		ProcessCommandsOffReadLoop: true,
		Compression:                s.compression,
		CompressionLevel:           1, // Centrifugo's

		CompressionPreparedMessageCacheSize: s.cacheBytes,

		PingPongConfig: pings,
	}))
	routes.Handle("GET /connection/uni_sse", &sseHandler{node: node, pings: pings})
	routes.Handle("GET /connection/uni_websocket", newWebSocketHandler(node, pings))
	routes.Handle("POST /publish", publishHandler(node))
	return routes
}

func anyOrigin(*http.Request) bool { return true }

// connectRequest is what a unidirectional client asks for: {"subs":{"CHANNEL":{}}}.
type connectRequest struct {
	Subs map[string]struct{} `json:"subs"`
}

// parseConnectRequest reads the JSON of a connect request; at least one channel has to be named.
func parseConnectRequest(text []byte) (centrifuge.ConnectRequest, error) {
	var request connectRequest
	if err := json.Unmarshal(text, &request); err != nil {
		return centrifuge.ConnectRequest{}, fmt.Errorf("the connect request is not JSON: %w", err)
	}
	if len(request.Subs) == 0 {
		return centrifuge.ConnectRequest{}, errors.New(`the connect request names no channel: send {"subs":{"CHANNEL":{}}}`)
	}
	channels := make(map[string]centrifuge.SubscribeRequest, len(request.Subs))
	for channel := range request.Subs {
		channels[channel] = centrifuge.SubscribeRequest{}
	}
	return centrifuge.ConnectRequest{Subs: channels}, nil
}
