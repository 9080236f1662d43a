// Package handoff is the language in which a process hands its sockets, and what it knows of them,
// to its successor on the same machine: messages with descriptors over a Unix socket, fields with
// numbers that another version may skip or must understand, and a token that decides which of the
// two serves. What the fields mean is said by who writes them (package gateway); the whole way, and
// why it is as it is, stands in docs/decisions/0031.
//
// # Story
//
//	old process                                   new process
//	─ Call(hello, listeners, token) ────────────►  understands it, connects to Redis ── answer ─►
//	─ Call(streams, 253 descriptors) ───────────►  keeps them, touches none ─────────── answer ─►
//	     ... more of these, and what has changed since, while the old process serves ...
//	─ stands still, Call(the rest) ─────────────►  has all there is ─────────────────── answer ─►
//	─ Call(take) ───────────────────────────────►  Token.Take: true, it serves ──────── answer ─►
//	  lets go of its descriptors
//
// The old process asks, the new one answers; each message with descriptors is answered before the
// next one is sent, since descriptors under way are limited (ETOOMANYREFS).
//
// # Who serves
//
// Messages can be lost with the process that was to read them, so no message decides. A [Token]
// does: an eventfd that both hold and that holds one. The new process takes it as its last step,
// the old one where it gives up; who reads the one serves, and the other finds none. Whatever breaks
// before leaves the old process serving all it had, since the new one has not touched a socket;
// whatever breaks later breaks a process that serves.
//
// # Bytes
//
//	message:  length of the body (4 bytes), kind (1), descriptors (1), zero (2), body
//	          all little endian; the descriptors come with the first byte
//	body:     fields
//	field:    number*2, plus 1 if it must be understood (uvarint); length (uvarint); value
//
// A value may hold fields itself. A field whose number is not known is passed over, or, where it
// must be understood, makes the reader refuse the whole ([ErrMandatory]); so a new version adds what
// may be missed as optional and what must not as mandatory, and a number is never used again for
// something else. A field that comes twice is an element of a list, or the last one counts: its
// owner says which.
//
// # Bounds
//
// [BodyMax] bytes a message, [DescriptorsMax] descriptors. The peer is trusted with what it says
// about itself, since it runs as the same user and could as well stop us; what it sends is still
// never read beyond its end, and no descriptor is lost where a message is refused.
package handoff
