// Package e2e tests Millrace from outside: the real binary, a real Redis, and clients that we
// did not write: curl, the npm package ws, Debian's python3-websockets, Chromium's EventSource
// and WebSocket, with nginx, HAProxy and Caddy between them and the gateways, and with a systemd
// that runs the shipped unit on a machine of its own.
//
// Nothing here reaches into a gateway. A test starts processes, speaks to them as the world
// does, and looks at what comes back. Every process is started on a free port and ended by its
// own id. What needs a crowd runs it in a process of its own (see the folder crowd): one process
// may open only so many descriptors, and the gateway needs them all.
//
// `make test` installs what these tests need; without it they fail and say what is missing.
package e2e
