package main

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/centrifugal/centrifuge"
	"github.com/gorilla/websocket"
)

const (
	connectTimeout  = 15 * time.Second // for a client's first message
	clientBytesMax  = 64 << 10
	readBufferBytes = 512
)

// webSocketHandler serves unidirectional WebSockets: the connect request comes in the query, as
// cf_connect, or as the client's first message. What the client sends later is read and ignored.
type webSocketHandler struct {
	node     *centrifuge.Node
	pings    centrifuge.PingPongConfig
	upgrader websocket.Upgrader
}

func newWebSocketHandler(node *centrifuge.Node, pings centrifuge.PingPongConfig) *webSocketHandler {
	return &webSocketHandler{
		node: node, pings: pings,
		upgrader: websocket.Upgrader{
			ReadBufferSize:  readBufferBytes,
			WriteBufferPool: &sync.Pool{}, // an idle client holds no write buffer
			CheckOrigin:     anyOrigin,
		},
	}
}

func (h *webSocketHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	connectText := r.URL.Query().Get("cf_connect")
	connection, err := h.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // the upgrader has answered
	}
	go h.serve(connection, []byte(connectText)) // so that net/http's goroutine, and the request, are free
}

// serve owns the reading side of connection until it ends. connectText is the connect request, if
// the client has sent it already.
func (h *webSocketHandler) serve(connection *websocket.Conn, connectText []byte) {
	defer func() { _ = connection.Close() }()
	connection.SetReadLimit(clientBytesMax)
	if len(connectText) == 0 {
		_ = connection.SetReadDeadline(time.Now().Add(connectTimeout))
		var err error
		if _, connectText, err = connection.ReadMessage(); err != nil {
			return
		}
		_ = connection.SetReadDeadline(time.Time{})
	}
	request, err := parseConnectRequest(connectText)
	if err != nil {
		sendClose(connection, centrifuge.DisconnectBadRequest)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	transport := &webSocketTransport{
		uniTransport: uniTransport{
			name: "uni_websocket", pings: h.pings,
			disabledPushFlags: centrifuge.PushFlagDisconnect, // the close frame says it
		},
		connection: connection,
	}
	client, closeClient, err := centrifuge.NewClient(ctx, h.node, transport)
	if err != nil {
		return
	}
	defer func() { _ = closeClient() }()
	client.Connect(request)
	for {
		if _, _, err := connection.NextReader(); err != nil {
			return
		}
	}
}

// webSocketTransport writes the pushes of one client. The library calls Write and WriteMany one at
// a time, from the client's writer.
type webSocketTransport struct {
	uniTransport
	connection *websocket.Conn
	closeOnce  sync.Once
}

// Write sends one push as one text message.
func (t *webSocketTransport) Write(push []byte) error {
	_ = t.connection.SetWriteDeadline(time.Now().Add(writeTimeout))
	return t.connection.WriteMessage(websocket.TextMessage, push)
}

// WriteMany sends pushes as one text message of one frame, a line each. They stay the library's.
func (t *webSocketTransport) WriteMany(pushes ...[]byte) error {
	message := writeBuffers.Get().(*[]byte)
	defer writeBuffers.Put(message)
	*message = append((*message)[:0], pushes[0]...)
	for _, push := range pushes[1:] {
		*message = append(append(*message, '\n'), push...)
	}
	return t.Write(*message)
}

// Close sends a close frame with the reason, and closes the connection.
func (t *webSocketTransport) Close(reason centrifuge.Disconnect) error {
	var err error
	t.closeOnce.Do(func() {
		if reason.Code != centrifuge.DisconnectConnectionClosed.Code {
			sendClose(t.connection, reason)
		}
		err = t.connection.Close()
	})
	return err
}

func sendClose(connection *websocket.Conn, reason centrifuge.Disconnect) {
	message := websocket.FormatCloseMessage(int(reason.Code), reason.Reason)
	_ = connection.WriteControl(websocket.CloseMessage, message, time.Now().Add(writeTimeout))
}
