package main

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"

	"github.com/millrace/millrace/proto"
)

// listenSSE is one event stream: as EventSource does it, the address stays and the last id comes in
// a header.
func (c *client) listenSSE(connection net.Conn) error {
	query := url.Values{}
	for _, one := range c.accounts {
		query.Add("channel", one.line.name)
	}
	if c.beginning {
		query.Set("since", "0")
	}
	var headers []string
	if c.lastID != "" {
		headers = append(headers, "Last-Event-ID: "+c.lastID)
	}
	if c.packed {
		headers = append(headers, "Accept-Encoding: gzip")
	}
	c.mutex.Lock()
	for _, one := range c.accounts {
		one.begin(c.lastID != "", c.beginning)
	}
	c.mutex.Unlock()
	response, _, err := c.request(connection, "/api/stream?"+query.Encode(), 200, headers...)
	if err != nil {
		return err
	}
	body := io.Reader(response.Body)
	if c.packed {
		if got := response.Header.Get("Content-Encoding"); got != "gzip" {
			return fmt.Errorf("the stream's encoding is %q", got)
		}
		if body, err = gzip.NewReader(response.Body); err != nil {
			return fmt.Errorf("read the stream: %w", err)
		}
	}
	return c.readSSE(body)
}

// readSSE reads a stream to its end.
func (c *client) readSSE(body io.Reader) error {
	decoder := proto.SSEDecoder{LastID: c.lastID}
	stall := c.staller()
	buffer := make([]byte, readBytes)
	for {
		count, err := body.Read(buffer)
		decoder.Feed(buffer[:count])
		if err := c.takeSSE(&decoder); err != nil {
			return err
		}
		if err != nil {
			return fmt.Errorf("read the stream: %w", err)
		}
		stall.stall()
	}
}

// takeSSE takes all that the decoder has.
func (c *client) takeSSE(decoder *proto.SSEDecoder) error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for {
		event, ok := decoder.Next()
		if !ok {
			c.lastID = decoder.LastID
			return nil
		}
		if err := c.takeSSEEvent(event); err != nil {
			return err
		}
		c.lastID = decoder.LastID
	}
}

func (c *client) takeSSEEvent(event proto.SSEEvent) error {
	if event.Event == payloadType {
		return c.event([]byte(event.Data), "")
	}
	var n notice
	if err := json.Unmarshal([]byte(event.Data), &n); err != nil {
		return fmt.Errorf("the event %s is no JSON: %w", event.Event, err)
	}
	n.Type = event.Event
	if n.Type != "connected" {
		return c.said(&n)
	}
	for _, name := range n.Channels {
		if one := c.byName[name]; one != nil {
			one.confirm()
		}
	}
	return nil
}
