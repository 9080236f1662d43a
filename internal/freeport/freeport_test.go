package freeport

import (
	"net"
	"strconv"
	"testing"
)

// TestFind: ports can be listened on, differ, and are none that a connection may get.
func TestFind(t *testing.T) {
	found := make(map[int]bool)
	for range 200 {
		port, err := Find()
		if err != nil {
			t.Fatal(err)
		}
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		if first := firstOfKernel(); found[port] || port < portMin || first > portMin+portsMin && port >= first {
			t.Errorf("found %d, and the kernel's begin at %d", port, first)
		}
		found[port] = true
	}
}
