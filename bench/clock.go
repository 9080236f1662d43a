package bench

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/netio"
)

// monotonicBase turns the process's own clock, which costs no system call, into CLOCK_MONOTONIC,
// which all processes of a machine share: a stamp of the publisher means the same in a crowd.
var monotonicBase = measureMonotonicBase()

func measureMonotonicBase() int64 {
	// The kernel's answer lies between two looks at our own clock: the closest pair of many wins.
	var base int64
	closest := int64(1) << 62
	for range 64 {
		before := netio.Clock()
		kernel := kernelMonotonic()
		after := netio.Clock()
		if after-before < closest {
			closest = after - before
			base = kernel - (before + (after-before)/2)
		}
	}
	return base
}

// monotonic is CLOCK_MONOTONIC in nanoseconds.
func monotonic() int64 { return netio.Clock() + monotonicBase }

func kernelMonotonic() int64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic("bench: this kernel has no CLOCK_MONOTONIC: " + err.Error())
	}
	return now.Nano()
}

// timekeeper waits for points in time to some microseconds, which a timer of the Go runtime does
// not. It holds its thread until release.
type timekeeper struct{ slack int }

// newTimekeeper locks the calling goroutine to its thread and makes the thread's timers exact.
func newTimekeeper() *timekeeper {
	runtime.LockOSThread()
	old, _, _ := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_GET_TIMERSLACK, 0, 0, 0, 0, 0)
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	return &timekeeper{slack: int(old)}
}

func (k *timekeeper) release() {
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(k.slack), 0, 0, 0)
	runtime.UnlockOSThread()
}

// until sleeps until the monotonic time at, in nanoseconds. It returns at once if that is past.
func (k *timekeeper) until(at int64) {
	when := unix.NsecToTimespec(at)
	for monotonic() < at {
		if err := unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &when, nil); err == nil {
			return
		}
	}
}

// seconds turns nanoseconds into the unit in which metrics are kept.
func seconds(nanoseconds int64) float64 { return float64(nanoseconds) / float64(time.Second) }
