package netio

import "golang.org/x/sys/unix"

// Reason says why a stream ended. Each stream ends with exactly one, counted once. netio has its
// own; the owner's begin at [FirstOwnReason].
type Reason uint8

// The reasons for which netio itself ends a stream.
const (
	ReasonNone         Reason = iota
	ReasonPeerClosed          // the peer closed, or half-closed, its side in order
	ReasonPeerReset           // the peer's side is gone: it was reset, or is refused
	ReasonStalled             // no whole frame left the outbox for the stall limit
	ReasonEndDeadline         // the stream was ending and the peer did not take the rest in time
	ReasonLoopClosed          // the loop was closed under it
	ReasonBug                 // a callback panicked; tests hold this at zero
	ReasonPeerTimedOut        // the kernel gave the peer up: it acknowledged nothing, or took nothing, for too long
	FirstOwnReason     Reason = 16
)

// String names netio's own reasons as metrics and logs spell them.
func (r Reason) String() string {
	switch r {
	case ReasonNone:
		return "none"
	case ReasonPeerClosed:
		return "peer_closed"
	case ReasonPeerReset:
		return "peer_reset"
	case ReasonStalled:
		return "stalled"
	case ReasonEndDeadline:
		return "end_deadline"
	case ReasonLoopClosed:
		return "loop_closed"
	case ReasonBug:
		return "bug"
	case ReasonPeerTimedOut:
		return "peer_timed_out"
	default:
		return "own"
	}
}

// reasonOf says why a stream ends whose socket answers with an error. The kernel says that a peer
// cannot be reached only when it has given up trying, for as long as TCP_USER_TIMEOUT says.
func reasonOf(errno unix.Errno) Reason {
	switch errno {
	case unix.ETIMEDOUT, unix.EHOSTUNREACH, unix.ENETUNREACH:
		return ReasonPeerTimedOut
	default:
		return ReasonPeerReset
	}
}
