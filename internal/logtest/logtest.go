// Package logtest keeps in tests what logs and programs say.
package logtest

import (
	"strings"
	"sync"
)

// Text keeps all that is written to it, from any number of goroutines. Its zero value is ready.
type Text struct {
	mutex sync.Mutex
	text  strings.Builder
}

// Write keeps p. It never fails.
func (t *Text) Write(p []byte) (int, error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return t.text.Write(p)
}

// String gives all that was written so far.
func (t *Text) String() string {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return t.text.String()
}
