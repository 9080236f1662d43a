package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"testing"

	"github.com/millrace/millrace/netio/handoff"
)

// relayVariable makes this test binary a relay: in the place of a new gateway, it starts that itself and
// passes on what the old one says, up to a message. It holds the number of that message.
const relayVariable = "MILLRACE_E2E_RELAY"

// relayCommand is a line of shell that runs a relay before a binary, which cuts before a message.
func relayCommand(t *testing.T, message int, binary string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("exec env %s=%d MILLRACE_E2E_BINARY=%s %s \"$@\"", relayVariable, message, binary, self)
}

// relay is the relay's main function.
func relay() int {
	if err := relayTo(os.Getenv("MILLRACE_E2E_BINARY")); err != nil {
		fmt.Fprintln(os.Stderr, "relay:", err)
		return 1
	}
	return 0
}

func relayTo(binary string) error {
	last, err := strconv.Atoi(os.Getenv(relayVariable))
	if err != nil {
		return err
	}
	from, err := handoff.FromFile(os.NewFile(3, "from the old gateway"))
	if err != nil {
		return err
	}
	defer from.Close()
	to, file, err := handoff.Pair()
	if err != nil {
		return err
	}
	defer to.Close()
	gateway := exec.Command(binary, os.Args[1:]...)
	gateway.Stdout, gateway.Stderr, gateway.ExtraFiles = os.Stdout, os.Stderr, []*os.File{file}
	if err := gateway.Start(); err != nil {
		return err
	}
	file.Close()
	failure := pass(from, to, last)
	from.Close()
	to.Close()
	// To whoever started it this process is the gateway: it lives as long, and ends when it is told to.
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM)
	go func() {
		for range ends {
			_ = gateway.Process.Signal(syscall.SIGTERM)
		}
	}()
	return errors.Join(failure, gateway.Wait())
}

// pass passes messages and their answers on, up to the one with the number last, which it takes and drops.
func pass(from, to *handoff.Conn, last int) error {
	for number := 1; ; number++ {
		m, err := from.Receive(context.Background())
		if err == io.EOF {
			return nil // all is said
		}
		if err != nil || number == last {
			m.CloseDescriptors()
			return err
		}
		answer, err := to.Call(context.Background(), m)
		m.CloseDescriptors()
		var refused *handoff.Refused
		switch {
		case errors.As(err, &refused):
			err = from.Fail(refused)
		case err == nil:
			err = from.Done(answer.Body)
		}
		if err != nil {
			return err
		}
	}
}
