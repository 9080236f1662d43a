// Package hub brings events to the streams that subscribed to their channel. It has one shard
// per event loop, and one structure that all share: the interest directory.
//
// # Story
//
//	subscribe:  Shard.Subscribe ─ first here? ─ directory 0→1 ─ Source.Subscribe (the broker)
//	            broker confirms ─ Hub.Confirmed ─ mail to the loops that want it ─ Events.Subscribed
//	publish:    broker ─ Hub.Event ─ one number, one Event ─ mail to the loops that want it
//	            Shard.Mail ─ walk over the members ─ outbox ─ flush, at the end of the turn
//
// # Who owns what
//
// A member, its subscriptions and the channels of a shard belong to the shard's loop: every
// method of [Shard] runs on that loop's goroutine. Methods of [Hub] may be called from any
// goroutine. The directory is held by striped locks that are taken for a look-up and never while
// waiting. The bytes of a channel's name stand once in the process, in Options.Names: the directory
// holds them, shards look at them there as long as they want the channel, and a broker may hold
// them too. Whatever leaves the hub with a name in it has a copy.
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
//	                   └─────────────────────────┘ confirmed, its members get a gap
//
// # Bounds
//
// Subscriptions of a stream: Options.MaxSubscriptions. Unsent bytes of a stream:
// Options.MaxQueueBytes; beyond it events of a channel are dropped for that stream until all it
// has was written, and then a gap says so. Mail: netio.MailMax; a loop that could not be told of
// an event tells all its channels of a gap. Walk steps a turn: walkStepsMax.
package hub
