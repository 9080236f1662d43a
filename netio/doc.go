// Package netio carries streams: it accepts TCP connections, serves HTTP requests as long as
// they are worked on, and keeps what became a stream on event loops of its own at a few dozen
// bytes each. It knows nothing of channels, events or WebSocket frames: above it are an
// http.Handler on one side and the [Events] callbacks on the other.
//
// # Two houses, one move
//
//	accept ─ desk (netpoll: goroutine, buffers, net/http) ── answer ── keep-alive or close
//	                │
//	                │ Park: the request becomes a stream
//	                ▼
//	         netpoll forgets fd, and leaves it open ─ its task returns ─ Loop.adopt ─ Events.Adopted
//
// The desk serves requests. A handler that wants the connection as a stream calls [Park] with a
// guest, a value of its own, and writes nothing. Once netpoll has wholly let go of the
// connection (its task has returned: callbacks ran, the poller is out of its critical section)
// its descriptor is posted to a loop, together with all bytes that were read behind the request,
// by the poller's last read too. The loop writes the answer. So a stream has one writer all its
// life, and no byte is lost whenever a client sends it.
//
// A request without a body that has come whole by the time its connection is accepted takes a
// shorter way: it is served at once, and netpoll takes the connection on only if it lives on after
// the answer. What the client sent behind the head is left in the kernel for whoever owns the
// socket next, so there is nothing to hand over but the descriptor (docs/decisions/0012).
//
// # A loop
//
// One goroutine owns an epoll instance, a slab of streams without pointers, their outboxes and
// timers. Everybody else posts to its mailbox. A turn has a fixed order:
//
//	wait     for a socket and for mail, or not at all while there is work left
//	read     what sockets sent, through one buffer for the whole loop
//	mail     what others posted: arrivals, events, questions
//	timers   whose tick has come
//	work     the owner's resumable walks (a fan-out), bounded per turn
//	flush    one send per socket that has something queued, many by one system call, bounded per turn
//	close    frees what was marked closed during the turn
//
// Flushing is bounded (128 sockets or half a millisecond a turn, and a batch at least) and goes on
// round robin next turn, the sockets of small sends before those of large fan-outs, so that one hot
// channel does not hold up a single reply.
//
// # Another process
//
// A listener can be held and its socket passed ([DeskListener.Hold], [ListenOnDescriptor]), and a loop can
// go on with the streams of one in another process ([Loop.Revive]). What belongs to whom, and when, is
// the owner's to decide; package handoff has the means.
//
// # Bytes
//
// What is sent is first registered as a [Frame], one immutable slice in the loop's table, and
// outboxes hold 4-byte references to it. A frame is freed when the last outbox has written it.
// An idle stream has no outbox.
//
// A stream that takes its bytes compressed is spliced ([Loop.Splice]): a frame for it is text with
// up to two pieces of compressed bytes, of which a flush chooses the one that fits behind what the
// stream has. netio knows nothing of compression but that, and the checksum of all text.
//
//	states of a stream:  open ──────────► ending ──────► closed ─► free
//	                      │  End(reason)    │ outbox empty,   ▲
//	                      │                 │ or deadline     │
//	                      └─────────────────┴─ Close(reason) ─┘ end of the turn
//
// # Bounds
//
// Mailbox: [MailMax] posts, but for what its posters bound otherwise; beyond it Post says no and the poster must make the loss known.
// Outbox: the owner says with each [Loop.Offer] how many bytes may wait, and how long ([Budget]);
// netio closes a stream of whose queue no whole frame has left for the stall limit. Text for which pieces are made in
// one flush: encodeBytesMax, but for the last one. Requests in flight on the desk,
// bytes of a head, time to a whole head and bytes of a buffered answer are set in [DeskOptions].
package netio
