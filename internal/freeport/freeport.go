// Package freeport finds TCP ports for servers that must be told one before they start.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
)

const (
	// portMin is the lowest port that is given.
	portMin = 10_000
	// portsMin is how many there must be to choose from.
	portsMin = 1_000
	// attemptsMax is how many ports are tried.
	attemptsMax = 100
)

// Find returns a port of the loopback (127.0.0.1) that nobody listens on at this moment. It is chosen by lot
// from below those that the kernel gives to connections: so no connection takes it before the server is
// there, or while it is started anew, and two programs that look at the same time hardly find the same. Where
// the kernel leaves too few, it is one of the kernel's. Safe for use by many goroutines.
func Find() (int, error) {
	var failures error
	end := firstOfKernel()
	for range attemptsMax {
		port := 0
		if end-portMin >= portsMin {
			port = portMin + rand.IntN(end-portMin)
		}
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			port = listener.Addr().(*net.TCPAddr).Port
			return port, listener.Close()
		}
		failures = err
	}
	return 0, errors.Join(fmt.Errorf("find a free port: %d tries", attemptsMax), failures)
}

// firstOfKernel is the first port that the kernel gives to connections, 0 where that is not known.
func firstOfKernel() int {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 0
	}
	var first int
	if _, err := fmt.Sscan(string(text), &first); err != nil {
		return 0
	}
	return first
}
