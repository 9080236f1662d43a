// Package bench compares realtime servers on one machine: what a stream costs, what a delivery
// costs and how long it takes, for this gateway, for others, and for the floor, the least that any
// server can cost here. It is what `millrace bench` runs, for strangers who choose between servers
// and for us, to stay honest.
//
// # Story
//
// [Run] makes a list of cells, each a part of a question (a scenario) asked of one server (a
// subject) over one wire in one round, and measures them in turn. Cells that need the same ground,
// a server with a crowd on one channel or on many, share a stand; others have one of their own:
//
//	orchestrator (this process)         the server's core        the other cores
//	  site: starts and ends all ───────► subject's processes
//	  feed: publishes ───────────────────────▲ lines, HTTP   or ► redis-server
//	  measure: reads /proc of it             │                       │
//	  crowd client ── JSON lines ────────────┼─────────────────► crowd processes
//	                                         └── streams over loopback ──┘
//
// The orchestrator owns every process: it starts each with its cores already set, in a process
// group of its own, and ends it by its id when its site closes, whatever happened; should the
// orchestrator itself be killed, the kernel ends them. Servers, crowds and Redis listen on free
// ports of the loopback and write to one temporary directory. A cell ends after cellTimeout at the
// latest, a wait for a start, for streams or for deliveries earlier.
//
// A crowd is this same binary in a role ([RunRole]): one goroutine on a netio loop holds up to
// 19,000 sockets at some hundred bytes each, since it shares the machine with what it
// measures. It knows nothing of a server but the steps of its handshake: what to send, and which
// bytes to wait for. Behind those it looks for marks in the bare bytes, on any wire, and answers
// WebSocket pings. The floor and the plain servers are roles too.
//
// # What is measured, and how
//
// Each message carries a mark: the CLOCK_MONOTONIC time at which it was due, and its number within
// its channel. A publisher sends at a steady rate whatever the server does, and the stamp is the
// time due, not the time sent, so that no delay hides another (coordinated omission is corrected
// at its source). Every delivery is counted and goes into an HDR histogram; numbers show what was
// lost or came twice; what is missing in the end is printed. The publisher's own lateness is part
// of a latency, and is kept beside it.
//
// CPU time is the scheduler's account (schedstat) of the server's threads and of all processes
// under it. Memory is their proportional set size, and a stream's share of it the slope between
// two crowd sizes, so that what a server costs without streams does not count. Kernel memory is the
// growth of the machine's slabs, for both ends of the connections, and stands beside it.
//
// Subjects are interleaved: within a round each group of questions is put to all of them, one after
// the other, and ratios to the floor are taken within the round, since a machine changes while it is
// measured. Summed up are medians, with the least and the most.
//
// Samples are written after each group. A run that ended, however, can be gone on with
// ([Options].Append), and the rounds of several are put together ([ReadResults]).
//
// # Who owns what
//
//	plan, run             the list of cells, how long it takes, and doing it
//	site, process         processes and their end
//	subject*              how each server is started, spoken to and fed
//	scenario*             the questions
//	crowd, dialer, stamp, hop, step    a crowd process
//	feed, publish, clock  publishing on time
//	redis                 what a Redis tells of itself
//	measure               what the kernel knows
//	floor, plain          servers to compare with
//	result, merge, statistics, figure, target, table, report, plot    what comes out
//
// A stand, its site, a cell and a load belong to one goroutine; a crowd's streams to its loop. A [Result] is
// a value: samples, no conclusions; tables, plots and the report are made of it alone, at any time
// later.
//
// # Limits
//
// On loopback the sender's core does most of the receiver's work in the kernel, and that is charged
// to the server: ratios between servers are smaller than they would be over a network.
// Handshakes a second are bounded by the crowd as well, so their CPU time tells more. With the
// crowd on one core, latencies beyond some ten thousand deliveries at once are the reader's as much
// as the server's. Latencies of single messages need a machine that does nothing else.
package bench
