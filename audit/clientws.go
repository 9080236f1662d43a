package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/millrace/millrace/proto"
	"github.com/millrace/millrace/proto/deflate"
)

// webSocketHeaders ask for a WebSocket. The key may be the same each time: nothing of it is secret.
var webSocketHeaders = []string{
	"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
}

// mask of all frames: a gateway on the loopback has no proxy before it that could be fooled.
var mask = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// subscription is the command that asks for all channels, each from its own position.
type subscription struct {
	Type     string            `json:"type"`
	Channels []string          `json:"channels"`
	Since    map[string]string `json:"since,omitempty"`
}

// listenWebSocket is one WebSocket. With envelopes its client keeps a position for each channel; a raw
// one has none, and begins anew each time.
func (c *client) listenWebSocket(connection net.Conn) error {
	ask := c.beginWebSocket()
	path := "/ws?format=envelope"
	if c.wire == wireRaw {
		path = "/ws"
	}
	headers, messages := webSocketHeaders, proto.MessageReader{ClientSide: true}
	if c.packed {
		headers = append(slices.Clone(headers), "Sec-WebSocket-Extensions: permessage-deflate")
		messages.Inflater = new(deflate.Inflater)
	}
	response, reader, err := c.request(connection, path, 101, headers...)
	if err != nil {
		return err
	}
	if agreed := response.Header.Get("Sec-WebSocket-Extensions"); (agreed != "") != c.packed {
		return fmt.Errorf("the extension %q was answered", agreed)
	}
	text, err := json.Marshal(ask)
	if err != nil {
		return err
	}
	if _, err := connection.Write(proto.AppendMaskedFrame(nil, proto.OpText, text, mask)); err != nil {
		return err
	}
	stall := c.staller()
	buffer := make([]byte, readBytes)
	for {
		count, err := reader.Read(buffer)
		if err != nil {
			return fmt.Errorf("read the socket: %w", err)
		}
		for rest := buffer[:count]; len(rest) > 0; {
			var message proto.Message
			if message, rest, err = messages.Next(rest, messageBytesMax); err != nil {
				return err
			}
			if err := c.takeMessage(connection, message); err != nil {
				return err
			}
		}
		stall.stall()
	}
}

// beginWebSocket starts the accounts of a connection, and says what to ask for.
func (c *client) beginWebSocket() subscription {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	ask := subscription{Type: "subscribe", Since: make(map[string]string)}
	for _, one := range c.accounts {
		one.begin(one.id != "", c.beginning)
		switch {
		case one.id != "":
			ask.Since[one.line.name] = one.id
		case c.beginning:
			ask.Since[one.line.name] = "0"
		}
		ask.Channels = append(ask.Channels, one.line.name)
	}
	return ask
}

func (c *client) takeMessage(connection net.Conn, message proto.Message) error {
	switch message.Op {
	case proto.OpText:
		c.mutex.Lock()
		defer c.mutex.Unlock()
		return c.takeText(message.Data)
	case proto.OpPing:
		_, err := connection.Write(proto.AppendMaskedFrame(nil, proto.OpPong, message.Data, mask))
		return err
	case proto.OpClose:
		return fmt.Errorf("closed with %d %s", message.Code, message.Data)
	default:
		return nil // the rest of it follows
	}
}

// takeText takes one message of the gateway.
func (c *client) takeText(text []byte) error {
	var envelope struct {
		notice
		ID   string          `json:"id"`
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(text, &envelope); err != nil {
		return fmt.Errorf("a message is no JSON: %w", err)
	}
	switch envelope.Type {
	case "event":
		return c.event(envelope.Data, envelope.ID)
	case payloadType: // of a raw one
		if c.wire != wireRaw {
			return errors.New("an event came without its envelope")
		}
		return c.event(text, "")
	case "connected":
		return nil
	default:
		return c.said(&envelope.notice)
	}
}
