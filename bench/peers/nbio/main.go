// Command nbio is a WebSocket topic server on github.com/lesismal/nbio, built to be measured.
//
// A client subscribes by its path: GET /CHANNEL with an upgrade, and nothing else. Events come in
// as lines "CHANNEL PAYLOAD\n" on a plain TCP socket, the feed. An event is framed once, and every
// member of its topic is written the same bytes:
//
//	feed.go    line -> topics.publish          one goroutine per feed connection
//	topics.go  members of a topic, in a slice  one mutex over all of them
//	main.go    nbio's engine: accepts, reads, upgrades, writes what a full socket left over
//
// README.md says which of the library's settings were chosen and why.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/lesismal/nbio/logging"
	"github.com/lesismal/nbio/nbhttp"
	"github.com/lesismal/nbio/nbhttp/websocket"
)

const (
	connectionsMax   = 1 << 20
	channelBytesMax  = 255
	writeBufferBytes = 1 << 20 // what a client may leave unread before nbio closes it
	shutdownTimeout  = 5 * time.Second
)

// settings are the flags of the command.
type settings struct {
	listen string // where clients connect, host:port
	feed   string // where the publisher connects, host:port
	gather bool   // one write for all lines of one channel that a read of the feed brought
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("nbio: ")
	var s settings
	flag.StringVar(&s.listen, "listen", "127.0.0.1:9003", "address for clients")
	flag.StringVar(&s.feed, "feed", "127.0.0.1:9103", "address for publishers: lines of CHANNEL PAYLOAD")
	flag.BoolVar(&s.gather, "gather", false, "write events of one channel that came together at once")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := serve(ctx, s, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// serve runs the server until ctx ends. Once both sockets listen it writes one line to ready,
// "listen=HOST:PORT feed=HOST:PORT", so that a caller may ask for port 0.
func serve(ctx context.Context, s settings, ready io.Writer) error {
	logging.SetLevel(logging.LevelError)
	feed, err := net.Listen("tcp", s.feed)
	if err != nil {
		return fmt.Errorf("listening for the feed on --feed %s: %w", s.feed, err)
	}
	subscriptions := newTopics()
	engine := nbhttp.NewEngine(nbhttp.Config{
		Network:                 "tcp",
		Addrs:                   []string{s.listen},
		MaxLoad:                 connectionsMax,
		NPoller:                 runtime.GOMAXPROCS(0),
		ServerExecutor:          func(task func()) { task() },
		SupportServerOnly:       true,
		ReleaseWebsocketPayload: true,
		MaxWriteBufferSize:      writeBufferBytes,
		Handler:                 newHandler(subscriptions),
	})
	if err := engine.Start(); err != nil {
		return errors.Join(fmt.Errorf("listening for clients on --listen %s: %w", s.listen, err), feed.Close())
	}

	fed := make(chan struct{})
	go func() {
		defer close(fed)
		acceptFeeds(ctx, feed, func(r io.Reader) error { return readFeed(r, subscriptions, s.gather) })
	}()
	_, err = fmt.Fprintf(ready, "listen=%s feed=%s\n", engine.Addrs[0], feed.Addr())
	if err == nil {
		<-ctx.Done()
	}

	timely, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	closed := feed.Close()
	<-fed
	return errors.Join(err, closed, engine.Shutdown(timely))
}

// newHandler upgrades GET /CHANNEL and makes the connection a member of that topic.
//
// The upgrade happens with the topics locked, so that an event published after the client has
// read the 101 finds the client among the members.
func newHandler(subscriptions *topics) http.Handler {
	upgrader := websocket.NewUpgrader()
	upgrader.KeepaliveTime = 0 // an idle stream is no fault, and has no timer
	upgrader.CheckOrigin = func(*http.Request) bool { return true }
	upgrader.OnMessage(func(*websocket.Conn, websocket.MessageType, []byte) {})
	upgrader.OnClose(func(connection *websocket.Conn, _ error) {
		// publish may be what found the connection broken, and then it holds the lock.
		if m, ok := connection.Session().(*member); ok {
			go subscriptions.leave(m)
		}
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		channel := strings.TrimPrefix(r.URL.Path, "/")
		if channel == "" || len(channel) > channelBytesMax {
			http.Error(w, "subscribe to a channel of 1 to 255 bytes by the path: GET /CHANNEL", http.StatusBadRequest)
			return
		}
		subscriptions.join(channel, func(m *member) error {
			connection, err := upgrader.Upgrade(w, r, nil)
			if err != nil {
				return err // the upgrader has answered
			}
			m.connection = connection.UnderlayerConn()
			connection.SetSession(m)
			return nil
		})
	})
}
