package settings

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	warmPoller()
	before := openDescriptors()
	code := m.Run()
	if err := goleak.Find(); err != nil {
		println("goroutines were left:", err.Error())
		code = max(code, 1)
	}
	if after := openDescriptors(); after > before {
		println("descriptors were left open:", after, "instead of", before)
		code = max(code, 1)
	}
	os.Exit(code)
}

// openDescriptors counts the descriptors of this process.
func openDescriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	return len(entries)
}

// warmPoller makes the runtime open its own descriptors, which it keeps, before we count.
func warmPoller() {
	reader, writer, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	reader.Close()
	writer.Close()
}
