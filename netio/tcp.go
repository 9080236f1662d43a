package netio

import (
	"time"

	"golang.org/x/sys/unix"
)

// TCP is what the kernel knows of the way to a stream's peer.
type TCP struct {
	UnackedSegments int // sent and not acknowledged
	Retransmits     int // segments sent again since the connection began
	RTT, RTTSpread  time.Duration
}

// TCP asks the kernel about the way to the peer of slot; false if it does not say. For an
// operator's questions: it is a system call.
func (l *Loop) TCP(slot Slot) (TCP, bool) {
	info := l.sys.tcpInfo(int(l.streams.At(uint32(slot)).fd))
	if info == nil {
		return TCP{}, false
	}
	return TCP{
		UnackedSegments: int(info.Unacked), Retransmits: int(info.Total_retrans),
		RTT: time.Duration(info.Rtt) * time.Microsecond, RTTSpread: time.Duration(info.Rttvar) * time.Microsecond,
	}, true
}

// Unacknowledged is how many bytes the kernel took from slot and the peer has not acknowledged; -1
// if the kernel does not say. For an operator's questions: it is a system call.
func (l *Loop) Unacknowledged(slot Slot) int {
	return l.sys.unacknowledged(int(l.streams.At(uint32(slot)).fd))
}

func (*kernel) tcpInfo(fd int) *unix.TCPInfo {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return nil
	}
	return info
}
