package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/leaktest"
)

// patience is how long a test waits for what should happen at once. It is long, for a busy machine: the race
// detector alone makes seconds of a compressed message of the largest size.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	warmUp()
	os.Exit(leaktest.Run(m, leaktest.Netpoll()))
}

// warmUp makes netpoll open its poller, whose descriptors live as long as the process: they are no leak.
func warmUp() {
	s, err := newServer("127.0.0.1:0", false)
	if err != nil {
		panic(err)
	}
	if err := s.close(context.Background()); err != nil {
		panic(err)
	}
}

// serve starts a server that ends with the test, and gives its address.
func serve(t testing.TB) (address string) {
	t.Helper()
	return serveWith(t, false)
}

func serveWith(t testing.TB, compress bool) (address string) {
	t.Helper()
	s, err := newServer("127.0.0.1:0", compress)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.close(ctx); err != nil {
			t.Error(err)
		}
	})
	return s.desk.Addr().String()
}

// TestRun serves as the command does.
func TestRun(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	output, said := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, []string{"--listen", "127.0.0.1:0"}, said) }()
	line := make([]byte, 100)
	n, err := output.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`ws://(\S+)`).FindSubmatch(line[:n])
	if found == nil {
		t.Fatalf("%q names no address", line[:n])
	}
	c := connect(t, string(found[1]))
	c.say(frame(fin|opText, "hello"))
	c.wantFrame(fin|opText, "hello")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, arguments := range [][]string{{"--listen", "nowhere"}, {"--what"}, {"what"}} {
		if err := run(context.Background(), arguments, io.Discard); err == nil {
			t.Errorf("%q is no mistake", arguments)
		}
	}
}

// TestEchoSizes sends messages of all the sizes at which something changes, up to the limit, and one
// byte more. (An RFC 6455 suite calls these framing and limits.)
func TestEchoSizes(t *testing.T) {
	t.Parallel()
	address := serve(t)
	for _, size := range []int{0, 1, 125, 126, 127, 128, 65535, 65536, 65537, 1 << 20, messageBytesMax} {
		for _, opcode := range []byte{opText, opBinary} {
			t.Run(fmt.Sprintf("%d bytes with opcode %d", size, opcode), func(t *testing.T) {
				payload := strings.Repeat("*", size)
				if opcode == opBinary {
					payload = strings.Repeat("\xfe", size)
				}
				c := connect(t, address)
				go c.say(frame(fin|opcode, payload) + frame(fin|opClose, "\x03\xe8")) // while we read
				c.wantFrame(fin|opcode, payload)
				c.wantClosed(1000)
			})
		}
	}
	t.Run("one byte too long", func(t *testing.T) {
		c := connect(t, address)
		c.say(string(binary.BigEndian.AppendUint64([]byte{fin | opBinary, masked | 127}, messageBytesMax+1)))
		c.wantClosed(1009)
	})
	t.Run("one byte too long in two fragments", func(t *testing.T) {
		c := connect(t, address)
		c.say(frame(opBinary, strings.Repeat("x", messageBytesMax)) + "\x80\x81")
		c.wantClosed(1009)
	})
}

// TestEchoPieces sends one message in frames of many sizes, and the bytes of one frame in pieces.
func TestEchoPieces(t *testing.T) {
	t.Parallel()
	address := serve(t)
	const size = 1 << 20
	payload := strings.Repeat("κόσμε", size/11)
	for _, fragment := range []int{64, 1000, 4096, 65536, 1 << 19} {
		t.Run(fmt.Sprintf("fragments of %d bytes", fragment), func(t *testing.T) {
			c := connect(t, address)
			go func() {
				var stream bytes.Buffer
				opcode := byte(opText)
				rest := payload
				for ; len(rest) > fragment; rest = rest[fragment:] {
					stream.WriteString(frame(opcode, rest[:fragment]))
					opcode = opContinuation
				}
				stream.WriteString(frame(fin|opcode, rest))
				c.say(stream.String())
			}()
			c.wantFrame(fin|opText, payload)
		})
	}
	for _, piece := range []int{1, 7, 997} {
		t.Run(fmt.Sprintf("pieces of %d bytes", piece), func(t *testing.T) {
			c := connect(t, address)
			text := frame(fin|opText, payload[:2200])
			go func() {
				for ; len(text) > piece; text = text[piece:] {
					c.say(text[:piece])
				}
				c.say(text)
			}()
			c.wantFrame(fin|opText, payload[:2200])
		})
	}
}

// TestEchoMany sends many messages before it reads an answer: all come, in order.
func TestEchoMany(t *testing.T) {
	t.Parallel()
	c := connect(t, serve(t))
	const count = 2000
	go func() {
		var stream bytes.Buffer
		for n := range count {
			stream.WriteString(frame(fin|opText, fmt.Sprint(n)))
		}
		c.say(stream.String())
	}()
	for n := range count {
		c.wantFrame(fin|opText, fmt.Sprint(n))
	}
}

// TestEchoSlow: a client that sends for ever and never reads is closed, and costs no more than its
// bound.
func TestEchoSlow(t *testing.T) {
	t.Parallel()
	address := serve(t)
	c, other := connect(t, address), connect(t, address)
	message := frame(fin|opBinary, strings.Repeat("x", messageBytesMax))
	for sent := 0; ; sent += messageBytesMax {
		if _, err := io.WriteString(c.TCPConn, message); err != nil {
			break
		}
		if sent > 4*queueBytesMax {
			t.Fatalf("%d bytes were taken from a client that does not read", sent)
		}
	}
	other.say(frame(fin|opText, "still here"))
	other.wantFrame(fin|opText, "still here")
}
