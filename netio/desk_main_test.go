package netio

import (
	"os"
	"testing"

	"github.com/millrace/millrace/internal/leaktest"
)

// deskChildVariable names the part that a re-executed test binary plays instead of testing.
const deskChildVariable = "NETIO_DESK_CHILD"

// deskChildren are those parts. Each returns an exit code.
var deskChildren = map[string]func() int{"exhausted": exhaustedChild}

func TestMain(m *testing.M) {
	if child, ok := deskChildren[os.Getenv(deskChildVariable)]; ok {
		os.Exit(child())
	}
	configureNetpoll()
	os.Exit(leaktest.Run(m, leaktest.Netpoll()))
}
