// Package gateway is the product: it puts the desk, the loops, the hub and a broker together,
// decides who may do what, and speaks with clients. It is the only package that knows the others.
//
// # Story of a stream
//
//	desk goroutine:  route ─ who (auth) ─ may (access) ─ limits (admission) ─ netio.Park(guest)
//	loop:            sessions.adopted ─ head, then subscriptions ─ connected, when all are
//	                 confirmed ─ events, heartbeats, commands ─ one reason, one end
//
// Everything that may wait (a webhook, a key set, Redis) happens on the desk's goroutine before
// the socket is parked, or on a goroutine of its own that posts its result to the loop.
//
// # Who owns what
//
// [Gateway] is safe for use by many goroutines. What is known of a stream (session) lives on its
// loop, under the stream's slot, and is touched there only. What streams share across loops is
// counted by admission, which also keeps the users' ids; what tokens grant is kept once a loop
// (people). Of an identity nothing else outlasts the handshake.
//
//	a session:  waiting ── all channels confirmed ──► live ── leave ──► (netio: ending, closed)
//	               │                                   │
//	               └── 10 s: broker_unavailable ───────┘
//
// # Councils
//
// A council (package council) runs in goroutines of its own and writes to a log that is the gateway's
// own (type council). Its viewers are ordinary streams on that log; what they begin with, the text so far,
// is read and folded on the desk's goroutine, before they are parked (preface). councils knows which
// are watched here, and talks with other gateways about it.
//
// # A live upgrade
//
// A gateway hands all its streams to one in another process ([Gateway.HandOver], [Inherit]), or to
// none: docs/decisions/0031 says how and why.
//
//	old:  copies (carry) ─ nothing is read ─ copies ─ cut: a mark through Redis ─ stands still ─ the rest ─ take?
//	new:  keeps them, hears what they hear ────────────────────────────────────────────── takes ─ goOn (resume)
//
// What a stream takes along is a carriedStream; what streams share is the legacy. Until it is decided
// the new gateway touches none of the sockets, and each step of the old one can be undone.
//
// # As a library
//
//	gw, err := gateway.New(gateway.Options{Redis: "redis://127.0.0.1:6379"})
//	...
//	err = gw.Run(ctx) // until ctx is done and the gateway has drained
package gateway
