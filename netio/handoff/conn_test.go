package handoff

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// connect makes both ends of a connection.
func connect(t *testing.T) (one, other *Conn) {
	t.Helper()
	one, file, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	other, err = FromFile(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(one.Close)
	t.Cleanup(other.Close)
	return one, other
}

func patience(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// serve answers the messages that come with what answer says, until the other end is gone.
func serve(t *testing.T, c *Conn, answer func(Message) ([]byte, error)) {
	t.Helper()
	done := make(chan struct{})
	ctx := patience(t)
	go func() {
		defer close(done)
		for {
			m, err := c.Receive(ctx)
			if err != nil {
				if err != io.EOF {
					t.Errorf("receive: %v", err)
				}
				return
			}
			body, failure := answer(m)
			if failure != nil {
				err = c.Fail(failure)
			} else {
				err = c.Done(body)
			}
			if err != nil {
				t.Errorf("answer: %v", err)
			}
		}
	}()
	t.Cleanup(func() { <-done })
}

func TestMessagesComeWhole(t *testing.T) {
	one, other := connect(t)
	serve(t, other, func(m Message) ([]byte, error) {
		return append([]byte{byte(m.Kind)}, m.Body...), nil
	})
	t.Cleanup(one.Close)
	for _, size := range []int{0, 1, headLen, 64 << 10, 3<<20 + 1} {
		body := bytes.Repeat([]byte{'b'}, size)
		answer, err := one.Call(patience(t), Message{Kind: 7, Body: body})
		if err != nil || len(answer.Body) != size+1 || answer.Body[0] != 7 || !bytes.Equal(answer.Body[1:], body) {
			t.Fatalf("%d bytes came back as %d, %v", size, len(answer.Body), err)
		}
	}
}

// TestDescriptorsComeOver sends as many pipes as a message takes, and hears through each.
func TestDescriptorsComeOver(t *testing.T) {
	one, other := connect(t)
	serve(t, other, func(m Message) ([]byte, error) {
		defer m.CloseDescriptors()
		if len(m.Descriptors) != DescriptorsMax || string(m.Body) != "with them" {
			t.Errorf("%d descriptors and %q", len(m.Descriptors), m.Body)
		}
		for _, fd := range m.Descriptors {
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("a descriptor would be inherited (%v)", err)
				break
			}
			if _, err := unix.Write(fd, []byte{1}); err != nil {
				t.Errorf("write: %v", err)
			}
		}
		return nil, nil
	})
	t.Cleanup(one.Close)
	var readers []*os.File
	message := Message{Kind: 1, Body: []byte("with them")}
	for range DescriptorsMax {
		var pair [2]int
		if err := unix.Pipe2(pair[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		readers = append(readers, os.NewFile(uintptr(pair[0]), "pipe"))
		message.Descriptors = append(message.Descriptors, pair[1])
	}
	_, err := one.Call(patience(t), message)
	message.CloseDescriptors()
	if err != nil {
		t.Fatal(err)
	}
	for i, reader := range readers {
		if got, err := io.ReadAll(reader); err != nil || len(got) != 1 {
			t.Fatalf("pipe %d gave %v, %v", i, got, err)
		}
		reader.Close()
	}
}

func TestRefusal(t *testing.T) {
	one, other := connect(t)
	serve(t, other, func(Message) ([]byte, error) { return nil, errors.New("not like this") })
	t.Cleanup(one.Close)
	_, err := one.Call(patience(t), Message{Kind: 1})
	var refused *Refused
	if !errors.As(err, &refused) || refused.Reason != "not like this" {
		t.Errorf("%v, want the peer's words", err)
	}
}

func TestTooMuchIsNotSent(t *testing.T) {
	one, _ := connect(t)
	_, err := one.Call(patience(t), Message{Kind: 1, Descriptors: make([]int, DescriptorsMax+1)})
	if err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("%v, want a refusal to send", err)
	}
}

func TestCallEndsWithItsContext(t *testing.T) {
	one, _ := connect(t)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := one.Call(ctx, Message{Kind: 1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the deadline", err)
	}
}

// TestPeerGone: an end between messages is io.EOF, one within a message is not, and the descriptors
// of a message that is cut short are closed (TestMain looks for them).
func TestPeerGone(t *testing.T) {
	for name, sent := range map[string][]byte{
		"between messages": {},
		"within the head":  {0, 0, 0},
		"within the body":  {5, 0, 0, 0, 1, 1, 0, 0, 'a'},
	} {
		one, other := connect(t)
		if len(sent) > 0 {
			rights := unix.UnixRights(int(os.Stdin.Fd()))
			if _, _, err := one.socket.WriteMsgUnix(sent, rights, nil); err != nil {
				t.Fatal(err)
			}
		}
		one.Close()
		_, err := other.Receive(patience(t))
		if wantEnd := len(sent) == 0; (err == io.EOF) != wantEnd || err == nil {
			t.Errorf("%s: %v", name, err)
		}
		other.Close()
	}
}

func TestMalformedMessages(t *testing.T) {
	for name, head := range map[string][]byte{
		"body beyond the bound":           {0, 0, 0, 0xff, 1, 0, 0, 0},
		"descriptors that are not there":  {0, 0, 0, 0, 1, 2, 0, 0},
		"fewer descriptors than are said": {0, 0, 0, 0, 1, 3, 0, 0},
	} {
		one, other := connect(t)
		if _, _, err := one.socket.WriteMsgUnix(head, unix.UnixRights(0), nil); err != nil {
			t.Fatal(err)
		}
		if _, err := other.Receive(patience(t)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
		one.Close()
		other.Close()
	}
}

// TestOneTakesTheToken: of many who try at the same moment, over copies of the descriptor, one gets
// it, and nobody after that.
func TestOneTakesTheToken(t *testing.T) {
	for range 50 {
		token, err := NewToken()
		if err != nil {
			t.Fatal(err)
		}
		var taken atomic.Int64
		begin, done := make(chan struct{}), make(chan struct{})
		const takers = 8
		for range takers {
			fd, err := unix.FcntlInt(uintptr(token.Fd()), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			copied := TokenFrom(fd)
			go func() {
				defer func() { done <- struct{}{} }()
				defer copied.Close()
				<-begin
				got, err := copied.Take()
				if err != nil {
					t.Errorf("take: %v", err)
				}
				if got {
					taken.Add(1)
				}
			}()
		}
		close(begin)
		for range takers {
			<-done
		}
		if taken.Load() != 1 {
			t.Fatalf("%d took the token", taken.Load())
		}
		if again, err := token.Take(); again || err != nil {
			t.Fatalf("it was taken again: %v, %v", again, err)
		}
		token.Close()
		if _, err := token.Take(); err == nil {
			t.Fatal("a closed token said nothing")
		}
	}
}
