package netio

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"
	"unsafe"
)

// accept wraps accept4(2). It cannot block, so it does not tell Go's scheduler.
func accept(socket int) (fd int, remote netip.AddrPort, err error) {
	var address syscall.RawSockaddrAny
	size := uint32(unsafe.Sizeof(address))
	accepted, _, errno := syscall.RawSyscall6(syscall.SYS_ACCEPT4, uintptr(socket),
		uintptr(unsafe.Pointer(&address)), uintptr(unsafe.Pointer(&size)),
		syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, remote, errno
	}
	switch address.Addr.Family {
	case syscall.AF_INET:
		in := (*syscall.RawSockaddrInet4)(unsafe.Pointer(&address))
		remote = netip.AddrPortFrom(netip.AddrFrom4(in.Addr), networkOrder(in.Port))
	case syscall.AF_INET6:
		in := (*syscall.RawSockaddrInet6)(unsafe.Pointer(&address))
		remote = netip.AddrPortFrom(netip.AddrFrom16(in.Addr).Unmap(), networkOrder(in.Port))
	}
	return int(accepted), remote, nil
}

// networkOrder reads a port as it stands in a sockaddr.
func networkOrder(port uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&port))
	return uint16(b[0])<<8 | uint16(b[1])
}

// deskAccepted is what netpoll needs of a new connection: netpoll.Conn. Its reading and writing
// netpoll does itself.
type deskAccepted struct {
	fd     int
	local  net.Addr
	remote deskRemote
}

var errAcceptedOnly = errors.New("netio: a connection just accepted is read and written by netpoll only")

func (a *deskAccepted) Fd() int                          { return a.fd }
func (a *deskAccepted) LocalAddr() net.Addr              { return a.local }
func (a *deskAccepted) RemoteAddr() net.Addr             { return a.remote }
func (a *deskAccepted) Read([]byte) (int, error)         { return 0, errAcceptedOnly }
func (a *deskAccepted) Write([]byte) (int, error)        { return 0, errAcceptedOnly }
func (a *deskAccepted) Close() error                     { return errAcceptedOnly }
func (a *deskAccepted) SetDeadline(time.Time) error      { return errAcceptedOnly }
func (a *deskAccepted) SetReadDeadline(time.Time) error  { return errAcceptedOnly }
func (a *deskAccepted) SetWriteDeadline(time.Time) error { return errAcceptedOnly }

// deskRemote is a client's address as a net.Addr, or the record of a connection that has one.
type deskRemote struct {
	netip.AddrPort
	conn *deskConn
}

// Network is "tcp".
func (deskRemote) Network() string { return "tcp" }
