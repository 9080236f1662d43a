// Package freeport finds TCP ports for servers that must be told one before they start.
//
// Between the moment when a port is found and the one when its server listens, nobody else may get it: a
// client that looks whether the server is there would find a stranger. So ports are none that the kernel gives
// to connections, and each process takes its own from a block that no other process of this machine has: it
// holds a name of the kernel's (an abstract unix socket) for as long as it lives, one descriptor.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
)

const (
	// portMin is the lowest port that is given.
	portMin = 10_000
	// blockPorts is how many one process has. When all were given it begins anew, with those that are free
	// again.
	blockPorts = 256
	// blocksMin is how many blocks there must be to choose from.
	blocksMin = 8
)

// block is the ports of this process. It has none where the kernel leaves too few, or others have them all.
type block struct {
	first int            // 0: it has none
	name  net.PacketConn // held, so that no other process has the block
	given int            // how many were given, in turn
}

// own is made by the first Find.
var own = struct {
	sync.Mutex
	block
	asked bool
}{}

// Find returns a port of the loopback (127.0.0.1) that nobody listens on at this moment. No other process is
// given it as long as this one lives, and no other call of this process before 255 more ports were given. Where
// there is no block to be had, it is one of the kernel's, which a connection may take. Safe for use by many
// goroutines.
func Find() (int, error) {
	own.Lock()
	defer own.Unlock()
	if !own.asked {
		own.asked = true
		own.block = takeBlock()
	}
	if own.first == 0 {
		return tryPort(0)
	}
	var failure error
	for range blockPorts {
		port := own.first + own.given%blockPorts
		own.given++
		if _, failure = tryPort(port); failure == nil {
			return port, nil
		}
	}
	return 0, fmt.Errorf("find a free port from %d to %d: %w", own.first, own.first+blockPorts-1, failure)
}

// takeBlock takes a block that nobody has, chosen by lot, for the life of this process.
func takeBlock() block {
	blocks := (firstOfKernel() - portMin) / blockPorts
	if blocks < blocksMin {
		return block{}
	}
	for _, index := range rand.Perm(blocks) {
		first := portMin + index*blockPorts
		name, err := net.ListenPacket("unixgram", fmt.Sprintf("@millrace-ports-%d", first))
		if err == nil {
			return block{first: first, name: name}
		}
	}
	return block{}
}

// tryPort listens on a port for a moment, on any that is free if it is 0.
func tryPort(port int) (int, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return 0, err
	}
	return listener.Addr().(*net.TCPAddr).Port, listener.Close()
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
