package freeport

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// findVariable has this test binary print ports that it finds, and wait.
const findVariable = "MILLRACE_FREEPORT_FIND"

const found = 200

func TestMain(m *testing.M) {
	if os.Getenv(findVariable) == "" {
		os.Exit(m.Run())
	}
	for range found {
		port, err := Find()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(port)
	}
}

// TestFind: ports can be listened on, differ, and are none that a connection may get.
func TestFind(t *testing.T) {
	ports := make(map[int]bool)
	for range found {
		port, err := Find()
		if err != nil {
			t.Fatal(err)
		}
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		if first := firstOfKernel(); ports[port] || port < portMin || first >= portMin+blocksMin*blockPorts && port >= first {
			t.Errorf("found %d, and the kernel's begin at %d", port, first)
		}
		ports[port] = true
	}
	for range 2 * blockPorts { // and on, when the block comes round
		if port, err := Find(); err != nil || ports[port] {
			t.Fatalf("found %d, which is in use (%v)", port, err)
		}
	}
}

// TestProcessesFindOthers: what this process was given is free, and yet no other process finds it.
func TestProcessesFindOthers(t *testing.T) {
	ports := make(map[string]bool)
	for range blockPorts {
		port, err := Find()
		if err != nil {
			t.Fatal(err)
		}
		ports[strconv.Itoa(port)] = true
	}
	for range 3 {
		command := exec.Command(os.Args[0])
		command.Env = append(os.Environ(), findVariable+"=yes")
		said, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		others := strings.Fields(string(said))
		if len(others) != found {
			t.Fatalf("another process found %q", others)
		}
		for _, port := range others {
			if ports[port] {
				t.Fatalf("another process found %s, too", port)
			}
		}
	}
}
