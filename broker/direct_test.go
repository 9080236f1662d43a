package broker_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
)

// TestDirectReader holds a directReader to what a net.Conn does, on both kinds of sockets.
func TestDirectReader(t *testing.T) {
	ends := []struct {
		name string
		do   func(t *testing.T, ours, peer net.Conn)
		want error
	}{
		{"the peer closes", func(_ *testing.T, _, peer net.Conn) { peer.Close() }, io.EOF},
		{"the peer resets", func(t *testing.T, ours, peer net.Conn) {
			tcp, ok := peer.(*net.TCPConn)
			if !ok {
				// A Unix socket resets when the peer leaves something unread.
				if _, err := ours.Write([]byte("unread")); err != nil {
					t.Fatal(err)
				}
			} else if err := tcp.SetLinger(0); err != nil {
				t.Fatal(err)
			}
			peer.Close()
		}, syscall.ECONNRESET},
		{"the deadline passes", func(_ *testing.T, ours, _ net.Conn) {
			_ = ours.SetReadDeadline(time.Now().Add(time.Millisecond))
		}, os.ErrDeadlineExceeded},
		{"it is closed", func(_ *testing.T, ours, _ net.Conn) { ours.Close() }, net.ErrClosed},
	}
	for _, network := range []string{"tcp", "unix"} {
		for _, end := range ends {
			t.Run(network+", "+end.name, func(t *testing.T) {
				ours, peer := connected(t, network)
				r := broker.DirectReader(ours)
				if r == nil {
					t.Fatal("it is no bare socket")
				}
				said := bytes.Repeat([]byte("0123456789"), 100_000) // more than a socket's buffer holds
				go func() { _, _ = peer.Write(said) }()
				got := make([]byte, len(said))
				if n, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, said) {
					t.Fatalf("%d of %d bytes came (%v), the same: %v", n, len(said), err, bytes.Equal(got, said))
				}
				if n, err := r.Read(nil); n != 0 || err != nil {
					t.Errorf("a read of nothing gave %d, %v", n, err)
				}
				result := make(chan error, 1)
				go func() {
					_, err := r.Read(make([]byte, 1))
					result <- err
				}()
				end.do(t, ours, peer)
				select {
				case err := <-result:
					if !errors.Is(err, end.want) {
						t.Errorf("the read ended with %v, not with %v", err, end.want)
					}
				case <-time.After(10 * time.Second):
					t.Error("the read has not ended")
				}
			})
		}
	}
}

// TestDirectReaderLeavesTLS: what TLS has decrypted is not in the socket.
func TestDirectReaderLeavesTLS(t *testing.T) {
	ours, _ := connected(t, "tcp")
	if broker.DirectReader(tls.Client(ours, &tls.Config{InsecureSkipVerify: true})) != nil {
		t.Error("a TLS connection is read past TLS")
	}
}

// connected gives two ends of a connection, closed at the end of the test.
func connected(t *testing.T, network string) (ours, peer net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "socket")
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if ours, err = net.Dial(network, listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close() })
	if peer, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	return ours, peer
}
