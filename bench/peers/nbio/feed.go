package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"sync"
)

// feedLineBytesMax bounds a line of the feed; a publisher that exceeds it is cut off.
const feedLineBytesMax = 1 << 20

// acceptFeeds serves every connection of the feed with read, each in a goroutine of its own, until
// listener is closed. It returns when all of them have ended; ctx ending closes them.
func acceptFeeds(ctx context.Context, listener net.Listener, read func(io.Reader) error) {
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
			if err := read(connection); err != nil && ctx.Err() == nil {
				log.Printf("feed: %v", err)
			}
		})
	}
}

// readFeed publishes each line "CHANNEL PAYLOAD" of r. With gather, the lines of one channel that
// stand behind one another in what has been read already become one write to each member.
func readFeed(r io.Reader, subscriptions *topics, gather bool) error {
	lines := bufio.NewReaderSize(r, feedLineBytesMax)
	var channel string
	var frames []byte
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		name, payload, found := bytes.Cut(line[:len(line)-1], []byte{' '})
		if !found {
			return errors.New("a line holds no space: send CHANNEL, one space, PAYLOAD")
		}
		if len(frames) > 0 && string(name) != channel {
			subscriptions.publish(channel, frames)
			frames = frames[:0]
		}
		if string(name) != channel {
			channel = string(name)
		}
		frames = appendFrame(frames, payload)
		if !gather || !lineBuffered(lines) {
			subscriptions.publish(channel, frames)
			frames = frames[:0]
		}
	}
}

// lineBuffered tells whether a whole line can be read without waiting.
func lineBuffered(lines *bufio.Reader) bool {
	buffered, _ := lines.Peek(lines.Buffered())
	return bytes.IndexByte(buffered, '\n') >= 0
}
