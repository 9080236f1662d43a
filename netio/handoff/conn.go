package handoff

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// DescriptorsMax is how many descriptors one message may carry (the kernel's SCM_MAX_FD).
	DescriptorsMax = 253
	// BodyMax bounds the body of a message, in bytes.
	BodyMax = 128 << 20

	headLen      = 8
	failureField = 1       // of an answer that says no: the reason, in words
	writePiece   = 1 << 20 // bytes of a body given to the kernel at a time
)

// Kind says what a message is about. Its owner gives the numbers, but for 0 and 255.
type Kind uint8

const (
	kindDone   Kind = 0   // the answer: done
	kindFailed Kind = 255 // the answer: not done, and nothing more will be
)

// Message is what one process tells the other.
type Message struct {
	Kind Kind
	// Body holds fields.
	Body []byte
	// Descriptors go along. Of a message sent they stay the sender's; of one received they are the
	// receiver's to close.
	Descriptors []int
}

// CloseDescriptors closes what came with a message that nobody wants.
func (m *Message) CloseDescriptors() {
	for _, fd := range m.Descriptors {
		_ = unix.Close(fd)
	}
	m.Descriptors = nil
}

// Refused is the error of a [Conn.Call] that the peer answered with a no.
type Refused struct{ Reason string }

// Error repeats the peer's words.
func (r *Refused) Error() string { return "refused: " + r.Reason }

// Conn is one end of the Unix socket between the two processes. It belongs to one goroutine at a
// time, but for Close.
type Conn struct{ socket *net.UnixConn }

// Pair makes a connection. file is its other end, for the process that is started next; the caller
// closes it once that has its copy.
func Pair() (conn *Conn, file *os.File, err error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("handoff: socketpair: %w", err)
	}
	conn, err = FromFile(os.NewFile(uintptr(ends[0]), "handoff"))
	file = os.NewFile(uintptr(ends[1]), "handoff of the successor")
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return conn, file, nil
}

// FromFile makes a connection of a file that is one end of it, which it closes.
func FromFile(file *os.File) (*Conn, error) {
	defer file.Close()
	generic, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("handoff: %w", err)
	}
	socket, ok := generic.(*net.UnixConn)
	if !ok {
		generic.Close()
		return nil, errors.New("handoff: not a Unix socket")
	}
	return &Conn{socket: socket}, nil
}

// Close ends the connection; a call that waits fails. Calling it again is harmless. Any goroutine.
func (c *Conn) Close() { _ = c.socket.Close() }

// Call sends a message and waits for the answer, until ctx is done. Where the peer says no the error
// is a [*Refused]. After any other error the connection is of no use any more.
func (c *Conn) Call(ctx context.Context, m Message) (answer Message, err error) {
	defer c.until(ctx)()
	if err := c.send(m); err != nil {
		return Message{}, fmt.Errorf("handoff: send: %w", because(ctx, err))
	}
	answer, err = c.receive()
	if err != nil {
		return Message{}, fmt.Errorf("handoff: wait for the answer: %w", because(ctx, err))
	}
	switch answer.Kind {
	case kindDone:
		return answer, nil
	case kindFailed:
		answer.CloseDescriptors()
		return Message{}, refusedBy(answer.Body)
	}
	answer.CloseDescriptors()
	return Message{}, fmt.Errorf("%w: the answer has the kind %d", ErrMalformed, answer.Kind)
}

func refusedBy(body []byte) error {
	refused := &Refused{}
	err := Read(body, func(f Field) error {
		if f.Key.Number() == failureField {
			refused.Reason = string(f.Value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return refused
}

// Receive waits for the next message, until ctx is done. io.EOF says that the peer is gone.
func (c *Conn) Receive(ctx context.Context) (Message, error) {
	defer c.until(ctx)()
	m, err := c.receive()
	if err == io.EOF {
		return m, err
	}
	if err != nil {
		return m, fmt.Errorf("handoff: receive: %w", because(ctx, err))
	}
	return m, nil
}

// Done answers the message that was received last. body may be nil.
func (c *Conn) Done(body []byte) error {
	if err := c.send(Message{Kind: kindDone, Body: body}); err != nil {
		return fmt.Errorf("handoff: answer: %w", err)
	}
	return nil
}

// Fail answers it with a no, and says why in words that an operator reads.
func (c *Conn) Fail(reason error) error {
	body := Append(nil, May(failureField), reason.Error())
	if err := c.send(Message{Kind: kindFailed, Body: body}); err != nil {
		return fmt.Errorf("handoff: answer: %w", err)
	}
	return nil
}

// until makes the connection's calls end with ctx, and gives what undoes it.
func (c *Conn) until(ctx context.Context) (undo func()) {
	stop := context.AfterFunc(ctx, func() { _ = c.socket.SetDeadline(time.Unix(1, 0)) })
	return func() {
		if stop() {
			_ = c.socket.SetDeadline(time.Time{})
		}
	}
}

// because names the context's end where that is why a call failed.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (c *Conn) send(m Message) error {
	if len(m.Body) > BodyMax || len(m.Descriptors) > DescriptorsMax {
		return fmt.Errorf("a message of %d bytes and %d descriptors; at most %d and %d are sent",
			len(m.Body), len(m.Descriptors), BodyMax, DescriptorsMax)
	}
	var head [headLen]byte
	binary.LittleEndian.PutUint32(head[:], uint32(len(m.Body)))
	head[4], head[5] = byte(m.Kind), byte(len(m.Descriptors))
	var rights []byte
	if len(m.Descriptors) > 0 {
		rights = unix.UnixRights(m.Descriptors...)
	}
	// Eight bytes go whole or not at all: the kernel copies them in one piece.
	if _, _, err := c.socket.WriteMsgUnix(head[:], rights, nil); err != nil {
		return err
	}
	for rest := m.Body; len(rest) > 0; {
		piece := rest[:min(len(rest), writePiece)]
		if _, err := c.socket.Write(piece); err != nil {
			return err
		}
		rest = rest[len(piece):]
	}
	return nil
}

func (c *Conn) receive() (m Message, err error) {
	defer func() {
		if err != nil {
			m.CloseDescriptors()
			m = Message{}
		}
	}()
	var head [headLen]byte
	rights := make([]byte, unix.CmsgSpace(4*DescriptorsMax))
	for got := 0; got < headLen; {
		n, rightsLen, flags, _, err := c.socket.ReadMsgUnix(head[got:], rights)
		switch gone := err == nil && n == 0 || errors.Is(err, io.EOF); {
		case gone && got == 0:
			return m, io.EOF
		case gone:
			return m, io.ErrUnexpectedEOF
		case err != nil:
			return m, err
		}
		got += n
		if err := m.takeDescriptors(rights[:rightsLen]); err != nil {
			return m, err
		}
		if flags&unix.MSG_CTRUNC != 0 {
			return m, errors.New("some descriptors did not arrive: this process may not have that many (LimitNOFILE, ulimit -n)")
		}
	}
	length := binary.LittleEndian.Uint32(head[:])
	m.Kind = Kind(head[4])
	switch {
	case length > BodyMax:
		return m, fmt.Errorf("%w: a message of %d bytes", ErrMalformed, length)
	case int(head[5]) != len(m.Descriptors):
		return m, fmt.Errorf("%w: %d descriptors came of %d", ErrMalformed, len(m.Descriptors), head[5])
	}
	m.Body = make([]byte, length)
	_, err = io.ReadFull(c.socket, m.Body)
	return m, err
}

// takeDescriptors adds those that came with a read.
func (m *Message) takeDescriptors(rights []byte) error {
	if len(rights) == 0 {
		return nil
	}
	controls, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return err
	}
	for i := range controls {
		fds, err := unix.ParseUnixRights(&controls[i])
		if err != nil {
			return err
		}
		m.Descriptors = append(m.Descriptors, fds...)
	}
	return nil
}
