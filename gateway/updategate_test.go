package gateway

import (
	"net"
	"slices"
	"testing"
)

// TestUpdateGateKeepsOrder: what was held comes first, and then what comes.
func TestUpdateGateKeepsOrder(t *testing.T) {
	var gate updateGate
	var ran []int
	pass := func(number int) { gate.pass(func() { ran = append(ran, number) }) }
	pass(1)
	gate.hold()
	pass(2)
	pass(3)
	if !slices.Equal(ran, []int{1}) {
		t.Errorf("ran %v while it was closed", ran)
	}
	gate.release()
	pass(4)
	gate.hold()
	gate.release()
	if !slices.Equal(ran, []int{1, 2, 3, 4}) {
		t.Errorf("ran %v", ran)
	}
}

func TestIsAddressOf(t *testing.T) {
	for _, test := range []struct {
		served, address string
		want            bool
	}{
		{"127.0.0.1:8080", "127.0.0.1:8080", true},
		{"127.0.0.1:8080", "localhost:8080", true},
		{"127.0.0.1:40123", "127.0.0.1:0", true},
		{"127.0.0.1:8080", "127.0.0.1:8081", false},
		{"127.0.0.1:8080", "127.0.0.2:8080", false},
		{"[::]:8080", "0.0.0.0:8080", true},
		{"[::]:8080", ":8080", true},
		{"127.0.0.1:8080", ":8080", false},
		{"[::]:8080", "127.0.0.1:8080", false},
	} {
		served, err := net.ResolveTCPAddr("tcp", test.served)
		if err != nil {
			t.Fatal(err)
		}
		if got := isAddressOf(served, test.address); got != test.want {
			t.Errorf("who asked for %s may have got %s: %v, want %v", test.address, test.served, got, test.want)
		}
	}
}
