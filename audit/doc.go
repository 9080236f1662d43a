// Command audit proves, or refutes, what Millrace promises about delivery. It runs two gateways and
// a Redis, publishes numbered events on many channels of each mode, lets thousands of clients listen
// while it breaks what can break, and then compares what each client saw with what was published.
//
// # Story
//
//	house ────── Redis (one server, a Sentinel group or a Cluster) and two gateways, real processes
//	publisher ── writes numbers; the ledger keeps what became of each one
//	faults ───── kills Redis's connections, stops Redis, restarts it, fails it over, moves slots
//	client ───── an event stream or a WebSocket; stalls, moves, comes back as a browser does
//	account ──── what one client saw of one channel, judged as it comes
//	report ───── the table, and whether a promise was broken
//
// A soak goes on for an hour, and adds
//
//	strain ───── what follows, together
//	throng ───── thousands of streams more, in processes of e2e/crowd, which judge them
//	churn ────── visitors who come and go, in order or not
//	abuse ────── hostile peers
//	meter ────── samples of a gateway's memory, goroutines, descriptors
//	trend ────── whether a series of samples rises
//
// # What is judged
//
// A number that was published after a client was told that it hears the channel has to arrive, or to
// lie inside of a gap that was declared: behind the last number before the gap, and before the first
// one after it. On one connection numbers only rise, and none comes twice; over connections one
// may come again, but only until the gateway says that it replayed. A client without a position that
// comes back is a new one: what it missed meanwhile, nobody promised. A state may skip numbers, must
// not go back on one connection, and has to end on the last one.
//
// The publisher's own doubts (an answer that it did not get) make a number optional. Of a log
// the last word is what Redis holds in the end.
//
// The exit code is 0 if all promises were kept and nothing grew, 1 if not, 2 if the audit could not run.
package main
