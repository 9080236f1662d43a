package handoff

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Token is something of which there is one for two processes: whoever takes it has it, for good, and
// the other one cannot have it any more. It is an eventfd whose count is one: to read it is to take
// it, which the kernel lets one reader do. Any goroutine.
type Token struct{ file *os.File }

// NewToken makes a token that nobody has taken.
func NewToken() (*Token, error) {
	fd, err := unix.Eventfd(1, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("handoff: make a token: %w", err)
	}
	return TokenFrom(fd), nil
}

// TokenFrom is the token behind a descriptor that came with a message, which it owns from here on.
func TokenFrom(fd int) *Token { return &Token{file: os.NewFile(uintptr(fd), "token")} }

// Fd is the descriptor, to be sent with a message; it stays the token's.
func (t *Token) Fd() int {
	fd := -1
	if raw, err := t.file.SyscallConn(); err == nil {
		_ = raw.Control(func(open uintptr) { fd = int(open) })
	}
	return fd
}

// Take takes the token and reports whether it was still there. It does not wait.
func (t *Token) Take() (taken bool, err error) {
	raw, err := t.file.SyscallConn()
	if err != nil {
		return false, fmt.Errorf("handoff: take the token: %w", err)
	}
	var count [8]byte
	var failure error
	err = raw.Control(func(fd uintptr) { _, failure = unix.Read(int(fd), count[:]) })
	switch {
	case errors.Is(failure, unix.EAGAIN):
		return false, nil
	case failure != nil || err != nil:
		return false, fmt.Errorf("handoff: take the token: %w", errors.Join(err, failure))
	}
	return true, nil
}

// Close lets go of the descriptor. It takes nothing.
func (t *Token) Close() { _ = t.file.Close() }
