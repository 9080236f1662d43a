package main

import (
	"net/http"
	"sync"
	"time"

	"github.com/centrifugal/centrifuge"
)

// writeTimeout is how long one write to a client may take before the client is given up.
const writeTimeout = time.Second

// sseHandler serves unidirectional Server-Sent Events: the connect request comes in the query, as
// cf_connect, and every push of the library goes out as one event.
type sseHandler struct {
	node  *centrifuge.Node
	pings centrifuge.PingPongConfig
}

func (h *sseHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	request, err := parseConnectRequest([]byte(r.URL.Query().Get("cf_connect")))
	if err != nil {
		http.Error(w, "cf_connect: "+err.Error(), http.StatusBadRequest)
		return
	}
	transport := &sseTransport{
		uniTransport: uniTransport{name: "uni_sse", pings: h.pings},
		response:     w, control: http.NewResponseController(w), ended: make(chan struct{}),
	}
	client, closeClient, err := centrifuge.NewClient(r.Context(), h.node, transport)
	if err != nil {
		http.Error(w, "the server cannot take a client now", http.StatusServiceUnavailable)
		return
	}
	defer transport.end()
	defer func() { _ = closeClient() }()

	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	client.Connect(request) // its answer, and all that follows, comes through transport

	select {
	case <-r.Context().Done():
	case <-transport.ended:
	}
}

// sseTransport writes the pushes of one client. The library calls Write and WriteMany one at a
// time, from the client's writer: they use the response directly, while the handler's goroutine
// only waits.
type sseTransport struct {
	uniTransport
	response http.ResponseWriter
	control  *http.ResponseController

	mu     sync.Mutex // guards response against the end of the handler
	closed bool
	ended  chan struct{} // closed when the library, or a failed write, ends the client
}

// Write sends one push as one event.
func (t *sseTransport) Write(push []byte) error {
	events := writeBuffers.Get().(*[]byte)
	defer writeBuffers.Put(events)
	*events = appendEvent((*events)[:0], push)
	return t.send(*events)
}

// WriteMany sends pushes, an event each, in one write. They stay the library's.
func (t *sseTransport) WriteMany(pushes ...[]byte) error {
	events := writeBuffers.Get().(*[]byte)
	defer writeBuffers.Put(events)
	*events = (*events)[:0]
	for _, push := range pushes {
		*events = appendEvent(*events, push)
	}
	return t.send(*events)
}

// writeBuffers holds *[]byte: what one write sends is put together first. Given over at once it
// becomes one chunk of a response, or one frame of a WebSocket, and no event is cut in two.
var writeBuffers = sync.Pool{New: func() any { return new([]byte) }}

func appendEvent(events, push []byte) []byte {
	events = append(events, "data: "...)
	events = append(events, push...)
	return append(events, "\n\n"...)
}

func (t *sseTransport) send(events []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	// The deadline is not taken back: it is set anew before every write, and nothing else looks.
	err := t.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	if err == nil {
		_, err = t.response.Write(events)
	}
	if err == nil {
		err = t.control.Flush()
	}
	if err != nil {
		t.closeLocked()
	}
	return err
}

// Close ends the response. The library has sent the reason as a push before.
func (t *sseTransport) Close(centrifuge.Disconnect) error {
	t.end()
	return nil
}

func (t *sseTransport) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closeLocked()
}

func (t *sseTransport) closeLocked() {
	if !t.closed {
		t.closed = true
		close(t.ended)
	}
}

// uniTransport answers the library's questions about a unidirectional JSON transport.
type uniTransport struct {
	name              string
	pings             centrifuge.PingPongConfig
	disabledPushFlags uint64
}

// Name is the transport's name in the library's metrics.
func (t uniTransport) Name() string { return t.name }

// AcceptProtocol is the version of HTTP, for the library's metrics.
func (t uniTransport) AcceptProtocol() string { return "h1" }

// Protocol is JSON: pushes come encoded and are written as they are.
func (t uniTransport) Protocol() centrifuge.ProtocolType { return centrifuge.ProtocolTypeJSON }

// ProtocolVersion is the library's only one.
func (t uniTransport) ProtocolVersion() centrifuge.ProtocolVersion {
	return centrifuge.ProtocolVersion2
}

// Unidirectional makes the library write pushes, not replies.
func (t uniTransport) Unidirectional() bool { return true }

// Emulation is for bidirectional clients without a WebSocket.
func (t uniTransport) Emulation() bool { return false }

// DisabledPushFlags names the pushes that the transport has another way for.
func (t uniTransport) DisabledPushFlags() uint64 { return t.disabledPushFlags }

// PingPongConfig says how often the server pings.
func (t uniTransport) PingPongConfig() centrifuge.PingPongConfig { return t.pings }
