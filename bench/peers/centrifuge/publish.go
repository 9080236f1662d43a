package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"

	"github.com/centrifugal/centrifuge"
)

// payloadBytesMax bounds one event, and one line of the feed.
const payloadBytesMax = 1 << 20

// publishHandler publishes the body of POST /publish?channel=CHANNEL, one JSON value, and answers
// 204 once the broker has it.
func publishHandler(node *centrifuge.Node) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		channel := r.URL.Query().Get("channel")
		payload, err := io.ReadAll(http.MaxBytesReader(w, r.Body, payloadBytesMax))
		switch {
		case err != nil:
			http.Error(w, "the body cannot be read: "+err.Error(), http.StatusBadRequest)
		case channel == "":
			http.Error(w, "name the channel: POST /publish?channel=CHANNEL", http.StatusBadRequest)
		case !json.Valid(payload):
			http.Error(w, "the body is not one JSON value", http.StatusBadRequest)
		default:
			if _, err := node.Publish(channel, payload); err != nil {
				http.Error(w, "publishing: "+err.Error(), http.StatusBadGateway)
				return
			}
			w.WriteHeader(http.StatusNoContent)
		}
	})
}

// acceptFeeds publishes what comes on every connection of the feed, each in a goroutine of its own,
// until listener is closed. It returns when all of them have ended; ctx ending closes them.
func acceptFeeds(ctx context.Context, listener net.Listener, node *centrifuge.Node) {
	var readers sync.WaitGroup
	defer readers.Wait()
	for {
		connection, err := listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				log.Printf("feed: accepting: %v", err)
			}
			return
		}
		readers.Go(func() {
			stop := context.AfterFunc(ctx, func() { _ = connection.Close() })
			defer stop()
			defer func() { _ = connection.Close() }()
			if err := readFeed(connection, node); err != nil && ctx.Err() == nil {
				log.Printf("feed: %v", err)
			}
		})
	}
}

// readFeed publishes each line "CHANNEL PAYLOAD" of r. Payloads are taken for JSON unseen.
func readFeed(r io.Reader, node *centrifuge.Node) error {
	lines := bufio.NewReaderSize(r, payloadBytesMax)
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		channel, payload, found := bytes.Cut(line[:len(line)-1], []byte{' '})
		if !found {
			return errors.New("a line holds no space: send CHANNEL, one space, PAYLOAD")
		}
		// The memory broker keeps the payload: it has to be a copy of its own.
		if _, err := node.Publish(string(channel), bytes.Clone(payload)); err != nil {
			return err
		}
	}
}
