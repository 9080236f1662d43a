package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// plainQueue is how many messages wait for one stream before it loses some.
const plainQueue = 256

// plainServer is the server that one writes first: a goroutine, or two, a stream.
type plainServer struct {
	mutex  sync.RWMutex
	topics map[string]*plainTopic
}

// plainTopic holds a channel's subscribers: their queues, by wire. Guarded by the server's mutex.
type plainTopic struct {
	events map[chan []byte]struct{} // of SSE
	frames map[chan []byte]struct{} // of WebSocket
}

// runPlain serves until the process is ended.
func runPlain(listen, feed string) error {
	p := &plainServer{topics: make(map[string]*plainTopic)}
	lines, err := net.Listen("tcp", feed)
	if err != nil {
		return fmt.Errorf("plain: %w", err)
	}
	go p.acceptFeeds(lines)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /sse/{channel}", p.serveEvents)
	mux.HandleFunc("GET /ws/{channel}", p.serveFrames)
	return (&http.Server{Addr: listen, Handler: mux}).ListenAndServe()
}

func (p *plainServer) acceptFeeds(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go p.readFeed(conn)
	}
}

func (p *plainServer) readFeed(conn net.Conn) {
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		channel, payload, _ := bytes.Cut(lines.Bytes(), []byte(" "))
		p.publish(string(channel), payload)
	}
}

func (p *plainServer) publish(channel string, payload []byte) {
	event := append(append([]byte("data: "), payload...), "\n\n"...)
	frame, err := ws.CompileFrame(ws.NewTextFrame(payload))
	if err != nil {
		return
	}
	p.mutex.RLock()
	defer p.mutex.RUnlock()
	topic := p.topics[channel]
	if topic == nil {
		return
	}
	for queue := range topic.events {
		offer(queue, event)
	}
	for queue := range topic.frames {
		offer(queue, frame)
	}
}

// offer drops the message of a stream that is too slow, which its crowd will notice.
func offer(queue chan []byte, message []byte) {
	select {
	case queue <- message:
	default:
	}
}

// enter subscribes a new queue and gives the function that takes it out again.
func (p *plainServer) enter(channel string, websocket bool) (queue chan []byte, leave func()) {
	queue = make(chan []byte, plainQueue)
	p.mutex.Lock()
	defer p.mutex.Unlock()
	topic := p.topics[channel]
	if topic == nil {
		topic = &plainTopic{events: make(map[chan []byte]struct{}), frames: make(map[chan []byte]struct{})}
		p.topics[channel] = topic
	}
	members := topic.events
	if websocket {
		members = topic.frames
	}
	members[queue] = struct{}{}
	return queue, func() {
		p.mutex.Lock()
		defer p.mutex.Unlock()
		delete(members, queue)
		if len(topic.events)+len(topic.frames) == 0 && p.topics[channel] == topic {
			delete(p.topics, channel)
		}
	}
}

func (p *plainServer) serveEvents(w http.ResponseWriter, r *http.Request) {
	flusher, ok := w.(http.Flusher)
	if !ok {
		http.Error(w, "cannot stream", http.StatusInternalServerError)
		return
	}
	queue, leave := p.enter(r.PathValue("channel"), false)
	defer leave()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	flusher.Flush()
	for {
		select {
		case event := <-queue:
			if _, err := w.Write(event); err != nil {
				return
			}
			flusher.Flush()
		case <-r.Context().Done():
			return
		}
	}
}

func (p *plainServer) serveFrames(w http.ResponseWriter, r *http.Request) {
	queue, leave := p.enter(r.PathValue("channel"), true)
	defer leave()
	conn, _, _, err := ws.UpgradeHTTP(r, w)
	if err != nil {
		return
	}
	defer conn.Close()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			if _, _, err := wsutil.ReadClientData(conn); err != nil {
				return
			}
		}
	}()
	for {
		select {
		case frame := <-queue:
			if _, err := conn.Write(frame); err != nil {
				return
			}
		case <-gone:
			return
		}
	}
}
