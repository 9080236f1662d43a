// Package hub brings events, values and entries of logs to the streams that subscribed to their
// channel. It has one shard per event loop, and shared structures behind short locks: the interest
// directory, the memory for replays, the pacer, and the reader of logs' pasts.
//
// # Story
//
//	subscribe:  Shard.Subscribe ─ first here? ─ directory 0→1 ─ Source.Subscribe (the broker)
//	            broker confirms ─ Hub.Confirmed ─ mail to the loops that want it ─ Events.Subscribed
//	            the owner says so ─ Shard.Begin ─ value, replay, or gap
//	publish:    broker ─ Hub.Event, Hub.Value or Hub.Log ─ (pacer) ─ one Event ─ mail to the loops
//	            Shard.Mail ─ walk over the members ─ outbox ─ flush, at the end of the turn
//	catch up:   a member without room ─ record ─ Drained ─ reader ─ Source.ReadLog ─ mail ─ outbox
//
// What a channel is, its type says ([Rules]): events, which fleet; a state, of which only the
// newest value counts; a log, of which every entry does. A log may have an end (Rules.Ends): whoever is
// sent its last entry is told complete, and its owner ends the stream ([Events].Ended).
//
// # Who owns what
//
// A member, its subscriptions, its records and the channels of a shard belong to the shard's loop:
// every method of [Shard] runs on that loop's goroutine. Methods of [Hub] may be called from any
// goroutine. The directory is held by striped locks that are taken for a look-up and never while
// waiting; so are rings and schedule. Order of locks: pacer, publish, a stripe, then rings or
// schedule. The bytes of a channel's name stand once in the process, in Options.Names: the directory
// holds them, shards look at them there as long as they want the channel, and a broker may hold
// them too. Whatever leaves the hub with a name in it has a copy, as has what the hub keeps longer.
//
// # Walks
//
// An event becomes a walk over the members that its channel had when the event came in. Walks of
// one shard are carried out first in, first out, a bounded piece a turn, so that all streams of
// the shard see all channels in the order of hand-over and a large channel does not hold up the
// loop. While a channel is being walked its members keep their places: who leaves leaves a hole,
// who joins goes to the end, behind the walk.
//
//	a subscription:  asked ──confirmed──► live ──┐
//	                   ▲                         │ lost: the channel is asked again; when
//	                   └─────────────────────────┘ confirmed, members of events get a gap
//
// # Records: where a stream is not where its channel is
//
// Every walk knows the position that it brings the channel to, and the one before it: the order
// of hand-over for events and values, Redis's own for logs. A stream needs nothing of its own as
// long as it simply gets every walk. Where it does not, it has a record for the channel: the
// position that it has, and a state. This is the only difference between streams, and one rule
// ends it: a walk that brings nothing new is skipped, a walk that follows without a hole on what
// the stream has is delivered, and the record is gone.
//
//	Subscribe ─► waiting ── Begin ──┬─ value or events sent ────────────► joined ──► (no record)
//	             (unknown: a gap) ──┼─ a log: reading ─ end of the log ──► joined
//	                                └─ the position is unknown: gap ────────────────► (no record)
//	no room for  ┌ events ────────► dropping ── Drained: gap ───────────────────────► (no record)
//	a walk (or   ├ state, conflated ► newest ── Drained: the newest ────► joined ──► (no record)
//	too old)     └ log ───────────► reading ─── Drained: pieces of the log until a walk follows
//
// A log is read from the broker in pieces, the next one when the last was written; what is read
// may be ahead of the walks, which are then skipped. Streams at the same place share one read and
// its bytes. A client that comes back from another gateway may have entries that this one was not told
// of yet: its replay is over when a read that began after it came has reached the end.
//
// # Ids
//
// On an event stream an id is one position for all channels of the connection: that of events says
// that the stream has all events up to an order, that of a log, CHANNEL/MS-SEQ/H, that it has that
// log up to MS-SEQ and every other one up to the horizon H. So while something is still missing
// of any channel (a record that is not joined), frames carry no id and the client keeps the position
// that it had. What is replayed of events carries none either, but the last replayed, or gap, does.
// What is replayed of a log carries the horizon that the client came with, so that a long replay
// gets on. Events carry no id at all on an event stream that has a log, since theirs names no place
// in it (docs/decisions/0017). A WebSocket's client has a position for each channel, and gets ids
// always.
//
// # Compressed streams
//
// A WebSocket's compressed forms are forms like any other. An event stream in a gzip form is spliced
// (package netio): its frames are text with pieces, and the hub says which text may stand before
// the short one. It remembers what came last on each channel (lastTexts) for that alone, and never
// names a text of another channel.
//
// # To another hub
//
// A stream can go on in another process's hub (carry.go, resume.go). Where it stands in a channel is told
// only if it is not where the channel is; where channels stand is told once. The other hub gives it a
// record where its own channel stands elsewhere, and the rule above does the rest.
//
// # Bounds
//
// Subscriptions of a stream: Options.MaxSubscriptions; records: no more than those. Unsent bytes
// and their age: Options.MaxQueueBytes, MaxQueueAge; gaps, which are one a subscription, and the
// answer replayed come on top. Conflated events kept for a stream: one, or conflateKeysMax, a
// channel. Replays: Rules.Replay a channel, Options.MaxReplayBytes in all; channels held for those
// who may come back: holdsMax. Reads of logs: readersMax at a time, readsPerUserMax for one user,
// one a stream, readEntriesMax entries; those kept for sharing: recentMax. A batch: batchEventsMax,
// batchBytesMax. Texts that came last: lastBytesMax of a loop. Mail: netio.MailMax; a loop that could not be told goes on with the newest value
// of a state, reads logs again, and tells the channels of events of a gap. Walks that wait: walksMax,
// walkBytesMax, and one a channel; beyond it the channel is mended in the same way, before anything else
// of it is walked. Walk steps and entries a turn: walkStepsMax.
package hub
