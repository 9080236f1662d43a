package leaktest

import (
	"os"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Run(m)) }

// TestCheck leaves a goroutine and a descriptor behind, and is told of both, and then of nothing.
func TestCheck(t *testing.T) {
	watch := Begin()
	watch.patience = 0
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	stays, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		<-stays
	}()
	err = watch.Check()
	if err == nil || !strings.Contains(err.Error(), "TestCheck") || !strings.Contains(err.Error(), os.DevNull) {
		t.Errorf("what is left is %v", err)
	}
	if code := watch.End(2); code != 2 {
		t.Errorf("a run that failed with 2 ends with %d", code)
	}
	close(stays)
	<-ended
	file.Close()
	watch.patience = patience
	if err := watch.Check(); err != nil {
		t.Error(err)
	}
	if code := watch.End(0, func() error { return os.ErrInvalid }); code != 1 {
		t.Errorf("the run ends with %d, though the caller found something", code)
	}
}
