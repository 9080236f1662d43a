package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
	"github.com/millrace/millrace/proto/deflate"
)

const (
	// messageBytesMax bounds a message, fragments taken together.
	messageBytesMax = 16 << 20
	// queueBytesMax bounds what waits for a client that sends and does not read. It is closed then.
	queueBytesMax = 8 * messageBytesMax
)

// Why a connection ended, besides netio's own reasons.
const (
	reasonClosed   = netio.FirstOwnReason + iota // the client said so
	reasonProtocol                               // it broke RFC 6455
	reasonSlow                                   // it did not read what it caused to be sent
)

// server is a desk that serves handshakes and one loop that has the WebSockets.
type server struct {
	compress bool // agree to permessage-deflate
	desk     *netio.Desk
	loop     *netio.Loop
	turned   chan struct{} // closed once the loop has ended

	// The loop's own: a reader for every stream with nothing half-read, and those of the others.
	fresh    proto.MessageReader
	halfRead map[netio.Slot]*proto.MessageReader
	// compressed are the streams that agreed on permessage-deflate; inflater undoes it for all of them.
	compressed map[netio.Slot]bool
	inflater   deflate.Inflater
}

// guest is a handshake on its way to becoming a stream.
type guest struct {
	answer     []byte
	compressed bool
}

// newServer serves on address until [server.close].
func newServer(address string, compress bool) (*server, error) {
	s := &server{
		compress: compress, turned: make(chan struct{}),
		halfRead: make(map[netio.Slot]*proto.MessageReader), compressed: make(map[netio.Slot]bool),
	}
	var err error
	s.desk, err = netio.NewDesk(netio.DeskOptions{
		Handler: http.HandlerFunc(s.serve),
		Adopt:   func(fd int, early []byte, guest any) error { return s.loop.Adopt(fd, early, guest) },
	})
	if err != nil {
		return nil, err
	}
	listener, err := netio.Listen(address, false)
	if err != nil {
		return nil, err
	}
	if s.loop, err = netio.NewLoop(netio.LoopOptions{}, s.events()); err != nil {
		listener.Close()
		return nil, err
	}
	go func() {
		defer close(s.turned)
		s.loop.Run()
	}()
	if err = s.desk.Start(listener); err != nil {
		s.stopLoop()
		return nil, err
	}
	return s, nil
}

// close ends every connection. Handshakes under way are waited for until ctx is done.
func (s *server) close(ctx context.Context) error {
	err := s.desk.Shutdown(ctx)
	s.stopLoop()
	return err
}

func (s *server) stopLoop() {
	s.loop.Stop()
	<-s.turned
}

// serve answers a handshake, on whatever path.
func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	upgrade, failure := proto.CheckUpgrade(r)
	extension := ""
	if failure == nil && s.compress {
		extension, failure = proto.NegotiateDeflate(r.Header["Sec-Websocket-Extensions"])
	}
	if failure != nil {
		for name, values := range failure.Header {
			w.Header()[name] = values
		}
		http.Error(w, failure.Message, failure.Status)
		return
	}
	var extra []byte
	if extension != "" {
		extra = []byte("Sec-WebSocket-Extensions: " + extension + "\r\n")
	}
	one := &guest{proto.AppendSwitchingProtocols(nil, upgrade.Accept, "", extra), extension != ""}
	if err := netio.Park(w, one); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// events are the callbacks of the loop.
func (s *server) events() netio.Events {
	return netio.Events{
		Adopted:  func(slot netio.Slot, one any) { s.adopted(slot, one.(*guest)) },
		Received: s.received,
		Timer:    func(netio.Slot) {},
		Drained:  func(netio.Slot) {},
		Closed:   func(slot netio.Slot, _ netio.Reason) { delete(s.halfRead, slot); delete(s.compressed, slot) },
		Mail:     func(any) {},
		Work:     func() bool { return false },
		Panicked: func(value any, stack []byte) { fmt.Fprintf(os.Stderr, "echo: panic: %v\n%s", value, stack) },
	}
}

func (s *server) adopted(slot netio.Slot, one *guest) {
	if one.compressed {
		s.compressed[slot] = true
	}
	s.loop.SendBytes(slot, one.answer)
}

// received takes what the peer of a stream sent.
func (s *server) received(slot netio.Slot, bytes []byte) {
	reader, kept := s.halfRead[slot]
	if !kept {
		reader = &s.fresh
		if s.compressed[slot] {
			reader.Inflater = &s.inflater
		}
		defer func() {
			s.fresh = proto.MessageReader{} // what it holds is kept by its stream, or is of no use
		}()
	}
	for s.loop.Open(slot) {
		message, rest, err := reader.Next(bytes, messageBytesMax)
		var failure *proto.ProtocolError
		switch {
		case errors.As(err, &failure):
			s.end(slot, reasonProtocol, failure.Code, failure.Reason)
			return
		case message.Op != 0:
			s.answer(slot, message)
			bytes = rest
			continue
		case reader.Idle():
			delete(s.halfRead, slot)
		case !kept:
			unfinished := *reader
			s.halfRead[slot] = &unfinished
		}
		return
	}
}

// answer says a message back.
func (s *server) answer(slot netio.Slot, message proto.Message) {
	switch message.Op {
	case proto.OpText, proto.OpBinary:
		if s.compressed[slot] {
			if payload, shorter := deflate.AppendMessage(nil, message.Data); shorter {
				s.send(slot, proto.AppendDeflateFrame(nil, message.Op, payload))
				return
			}
		}
		s.send(slot, proto.AppendFrame(nil, message.Op, message.Data))
	case proto.OpPing:
		s.send(slot, proto.AppendFrame(nil, proto.OpPong, message.Data))
	case proto.OpClose:
		s.end(slot, reasonClosed, message.Code, string(message.Data))
	}
}

func (s *server) send(slot netio.Slot, bytes []byte) {
	frame := s.loop.NewFrame(bytes, 0)
	if !s.loop.Offer(slot, frame, netio.Express, netio.Budget{Bytes: queueBytesMax}) {
		s.loop.Close(slot, reasonSlow)
	}
	s.loop.Release(frame)
}

// end closes a stream in order: the close frame is the last that it sends (RFC 6455, 5.5.1), and the
// peer is given a few seconds to close its side.
func (s *server) end(slot netio.Slot, reason netio.Reason, code proto.CloseCode, text string) {
	s.loop.SendBytes(slot, proto.AppendClose(nil, code, text))
	s.loop.End(slot, reason)
}
