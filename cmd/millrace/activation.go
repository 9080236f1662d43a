package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
)

// Names by which systemd passes a socket (FileDescriptorName= of the .socket unit) and what the
// gateway does with it.
const (
	socketServes = "millrace" // instead of the address of --listen
	socketAdmin  = "admin"    // instead of the address of --admin-listen
)

// passedSockets are the listening sockets that systemd opened for this process, nil where it
// opened none.
type passedSockets struct{ serves, admin net.Listener }

// takeSockets sorts what systemd passed by its names. A single socket needs none. The files are
// closed in any case; an error says what the unit should say instead.
func takeSockets(files []*os.File) (passedSockets, error) {
	var passed passedSockets
	for at, file := range files {
		err := passed.take(file, len(files) == 1)
		file.Close()
		if err != nil {
			for _, left := range files[at+1:] {
				left.Close()
			}
			passed.close()
			return passedSockets{}, fmt.Errorf("serve: systemd passed %s", err)
		}
	}
	return passed, nil
}

// take finds the place of one socket.
func (p *passedSockets) take(file *os.File, alone bool) error {
	name := socketName(file, alone)
	place := map[string]*net.Listener{socketServes: &p.serves, socketAdmin: &p.admin}[name]
	switch {
	case place == nil:
		return fmt.Errorf("a socket named %q: set FileDescriptorName=%s or =%s in its unit", name, socketServes, socketAdmin)
	case *place != nil:
		return fmt.Errorf("two sockets named %q, and the gateway serves on one: ListenStream=8080 takes IPv4 and IPv6 both", name)
	}
	listener, err := net.FileListener(file)
	if err != nil {
		return fmt.Errorf("%q, which is no listening socket (ListenStream=, Accept=no): %w", name, err)
	}
	if _, isTCP := listener.(*net.TCPListener); !isTCP {
		listener.Close()
		return fmt.Errorf("%q on %s, which is not TCP: use ListenStream=HOST:PORT", name, listener.Addr())
	}
	*place = listener
	return nil
}

// socketName is the name that systemd gave a socket. A unit that does not choose one gives its own,
// and who calls without names gives a number.
func socketName(file *os.File, alone bool) string {
	name := file.Name()
	isUnnamed := strings.HasPrefix(name, "LISTEN_FD_") || name == "unknown"
	if name == "millrace.socket" || alone && isUnnamed {
		return socketServes
	}
	return name
}

// close closes what was taken.
func (p *passedSockets) close() {
	for _, listener := range []net.Listener{p.serves, p.admin} {
		if listener != nil {
			listener.Close()
		}
	}
}

// announce says that an address of the settings is not the one that is served on.
func (p *passedSockets) announce(logger *slog.Logger) {
	const message = "systemd passed a listening socket, which is used instead of the address in the settings"
	if p.serves != nil {
		logger.Info(message, "setting", "listen", "address", p.serves.Addr().String())
	}
	if p.admin != nil {
		logger.Info(message, "setting", "admin-listen", "address", p.admin.Addr().String())
	}
}
